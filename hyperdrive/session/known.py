"""Parse and Describe of statements that the origin has accepted and described before, answered here (E-6).

What is known holds for one schema epoch and one set of the settings that Parse looks at. The real Parse travels with the Bind that
needs it; a client never decodes rows by a description that no longer holds, since that is compared on the way. Knows no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hyperdrive.metrics import Saved
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import PARSE
from hyperdrive.session.aside import HARMLESS
from hyperdrive.session.batch import UNREAD, Op, name_at
from hyperdrive.session.held import ANALYZED
from hyperdrive.session.outcome import PREPARED
from hyperdrive.session.pipe import Pipe
from hyperdrive.session.server import ServerSession
from hyperdrive.session.settings import DOUBT, Label
from hyperdrive.session.statements import NAME_BYTES, Named, SharedStatement
from hyperdrive.session.transactions import Transactions
from hyperdrive.sql.verdict import Kind, Statement

_MAY_END_EPOCH: Final = frozenset({Kind.DO, Kind.CALL, Kind.EXECUTE})

ASKS: Final = frozenset({b"P", b"PD", b"D"})
"""Scopes that only ask what a statement is."""


def may_end_epoch(statement: Statement) -> bool:
    """Whether the schema may be another one behind *statement*."""
    return statement.ends_epoch or statement.kind in _MAY_END_EPOCH


class Known(Transactions):
    """The part of a client session that knows statements."""

    __slots__ = ("_called", "_doubts_epoch", "_ends_epoch", "serial")

    _last_serial = 0

    def __init__(self, pipe: Pipe, base: Label, told: Mapping[bytes, bytes]) -> None:
        super().__init__(pipe, base, told)
        self.serial: int | None = None
        """Stands for the session in the key of statements that it shares with nobody."""
        self._ends_epoch = False
        """The transaction has changed the schema, or may have: whatever is known ends with each of its scopes."""
        self._doubts_epoch = False
        """The transaction has run code of which nobody knows what it does."""
        self._called: tuple[bytes, ...] = ()
        """Functions among it; an empty name is of something else."""

    def _ask_scope(self, scope: list[Op]) -> bytes | None:
        """The reply to Parse and Describe of one named statement that is known; ``None``: the origin has to be asked."""
        if not self._may_know():
            return None
        kind, raw, verdict = scope[0]
        if kind == PARSE:
            name, body_at = name_at(raw, 5)
            key = name[:NAME_BYTES]
            if not name or key in self._shared or verdict is None or verdict is UNREAD or verdict.statements is None:
                return None
            shared = self.pipe.registry.find(raw[body_at:], self._parse_settings(self.journal.wanted))
            if shared is None or self.pipe.epoch not in (shared.parsed_in, shared.described_in):
                return None
            named, describes = Named(shared, key, self.journal.wanted, self.pipe.epoch), scope[1:]
            named.is_pending = False
        else:
            found = self._shared.get(name_at(raw, 6)[0][:NAME_BYTES])
            if found is None or found.is_pending:
                return None
            named, shared, describes = found, found.statement, scope
            key = found.name
        if describes and not self._is_described(describes[0][1], key, shared):
            return None
        if kind == PARSE:
            self._shared[key] = named
            if self.held is not None and shared.verdict.kind in ANALYZED:
                self.held.saw_read()
        self.pipe.saved[Saved.DESCRIBE if describes else Saved.PARSE] += 1
        out = messages.PARSE_COMPLETE if kind == PARSE else b""
        return out + (self._describe_here(named) if describes else b"")

    def _is_described(self, raw: bytes, key: bytes, shared: SharedStatement) -> bool:
        return raw[5:6] == b"S" and name_at(raw, 6)[0][:NAME_BYTES] == key and shared.described_in == self.pipe.epoch

    def _describe_here(self, named: Named) -> bytes:
        named.types, named.told = named.statement.told  # the same objects for everybody
        return named.statement.description

    def _may_know(self) -> bool:
        if not self.pipe.switches.known_statements or self.journal.is_pinned or self.keeps_server:
            return False
        if self.held is not None and self.held.has_local:
            return False  # what Parse looks at is not what the session's label says
        return self._may_pass_for_seen

    def _parse_settings(self, in_force: Label) -> object:
        """What a shared statement's key says of the settings at Parse; sessions with names of their own share nothing."""
        if in_force is DOUBT or self.journal.pins or self._has_sql_prepared():
            return self._own_serial()
        items = in_force.items
        return tuple((n, items[n]) for n in sorted(items) if n not in HARMLESS) if items else ()

    def _own_serial(self) -> int:
        if self.serial is None:
            Known._last_serial += 1
            self.serial = Known._last_serial
        return self.serial

    def _is_lent(self, name: bytes | None) -> bool:
        """SQL knows a statement by this name at the server (W-24)."""
        return (PREPARED, name) in (self.journal.lasting or ())

    def _has_sql_prepared(self) -> bool:
        return any(reason == PREPARED for reason, _ in self.journal.lasting or ())

    def lost(self, error: bytes, server: ServerSession, *, failed_here: bool) -> bytes:
        self.forsaken(server)
        return super().lost(error, server, failed_here=failed_here)

    def forsaken(self, server: ServerSession) -> bool:
        """The *server* that worked for the client is gone, and perhaps the client as well: what it was asked may have been done, or may yet
        be. Whether that may have changed the schema."""
        watches = [entry.watch for entry in server.queue if entry.watch is not None]
        if any(watch.statements is None or any(map(may_end_epoch, watch.statements)) for watch in watches):
            self._ends_epoch = True
        ended = self._ends_epoch
        self._epoch_ends(is_idle=True)
        return ended

    def _epoch_ends(self, *, is_idle: bool) -> None:
        """A scope has ended, or is lost: tell everybody if the schema may have changed with it."""
        if self._ends_epoch:
            self.pipe.schema_changed()
            self._ends_epoch = not is_idle
        if self._doubts_epoch and is_idle:
            called, self._called, self._doubts_epoch = self._called, (), False
            self.pipe.schema_doubted(called)
