"""Errors that are ours to tell: a batch that cannot run, a server that is gone, a transaction that exists nowhere any more.

Each Sync and each Query is answered with exactly one ReadyForQuery, whatever happened (W-54, and FAILED_HERE in §1 of the wire
reference). Knows no server but the one that was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import BIND, CLOSE, DESCRIBE, EXECUTE, FUNCTION_CALL, PARSE, QUERY, SYNC
from hyperdrive.session.batch import EXTENDED, Batch, Pipe, name_at, shown
from hyperdrive.session.outcome import Journal, Parameters
from hyperdrive.session.replies import Action
from hyperdrive.session.server import ServerSession
from hyperdrive.session.settings import Label
from hyperdrive.session.statements import NAME_BYTES
from hyperdrive.sql.verdict import Kind, Verdict

ABORTED_TEXT: Final = "current transaction is aborted, commands ignored until end of transaction block"
_ABORTED: Final = messages.error_response(ABORTED_TEXT, "25P02")


class Failures(Batch):
    """The part of a client session that says what went wrong."""

    __slots__ = ("_portals", "_untold", "journal")

    def __init__(self, pipe: Pipe, base: Label, told: Mapping[bytes, bytes]) -> None:
        super().__init__(pipe, told)
        self.journal = Journal(base)
        self._portals: dict[bytes, tuple[Verdict | None, Parameters | None]] | None = None
        """Open portals whose statements are not plain."""
        self._untold = b""
        """The error that began this, if the client was owed nothing when it happened."""

    def refuse(self, error: bytes, *, failed_here: bool = False) -> bytes:
        """The batch cannot run: *error* for each of its scopes, and what is left of an open scope is skipped.

        *failed_here*: the client believes in a transaction that no longer exists anywhere (FAILED_HERE).
        """
        out: list[bytes] = []
        self._whole_to_ops()
        self._failed_here = failed_here
        ready = messages.READY_FAILED if failed_here else messages.READY_IDLE
        is_open = False
        for kind, _, _ in self.ops:
            if kind in (QUERY, FUNCTION_CALL) and not is_open:
                out += [error, ready]
            elif kind == SYNC:
                out += [ready] if is_open else [error, ready]
                is_open = False
            elif kind in EXTENDED and not is_open:
                out.append(error)
                is_open = True
        self.ops.clear()
        self.size = 0
        self._skipping = is_open
        self._look_around()
        return b"".join(out)

    def lost(self, error: bytes, server: ServerSession, *, failed_here: bool) -> bytes:
        """The linked *server* is gone: *error* for each scope it still owed, then the batch that waits is refused.

        Each Sync that was owed one gets its ReadyForQuery. A client that is owed nothing hears it at its next statement.
        """
        out: list[bytes] = []
        self._whole_to_ops()
        ready = messages.READY_FAILED if failed_here else messages.READY_IDLE
        told = False
        for entry in server.queue:
            if entry.action is Action.SKIP:
                continue
            if not told:
                out.append(error)
                told = True
            if entry.ends_scope:
                out.append(ready)
                told = False
        is_open = server.open_scope
        if is_open and not told:
            out.append(error)
        if not out and failed_here:
            self._untold = error
        self._skipping = is_open
        self._failed_here = failed_here
        self._look_around()
        self._portals = None
        self.journal.abandoned()
        if self.ops:
            if is_open:
                self._skip_here(out)
            out.append(self.refuse(error, failed_here=failed_here) if self.ops else b"")
        return b"".join(out)

    def _skip_here(self, out: list[bytes]) -> None:
        """The open scope failed without a server: drop what is left of it, up to Sync."""
        self._whole_to_ops()
        ops = self.ops
        for index, (kind, _, _) in enumerate(ops):
            if kind == SYNC:
                self._skipping = False
                self._look_around()
                out.append(messages.READY_FAILED if self._failed_here else messages.READY_IDLE)
                del ops[: index + 1]
                return
        ops.clear()

    def _verdict_of_bind(self, raw: bytes) -> Verdict | None:
        _, name_start = name_at(raw, 5)
        named = self._shared.get(name_at(raw, name_start)[0][:NAME_BYTES])
        return named.statement.verdict if named is not None else None

    def _answer_failed(self) -> bytes:
        """FAILED_HERE: the transaction is lost, and only its end is accepted, as in PostgreSQL (25P02)."""
        self._whole_to_ops()
        out: list[bytes] = []
        exiting = False
        while self.ops:
            if self._skipping:
                self._skip_here(out)
                continue
            kind, raw, verdict = self.ops.pop(0)
            if kind == BIND and not exiting:
                verdict = self._verdict_of_bind(raw)
            aborted, self._untold = self._untold or _ABORTED, b""
            ends = verdict is not None and verdict.kind in (Kind.ROLLBACK, Kind.COMMIT) and not _chains(verdict)
            if kind == QUERY:
                if ends:
                    self._failed_here = False
                    out += [messages.command_complete(b"ROLLBACK"), messages.READY_IDLE]
                    break
                if verdict is not None and verdict.kind is Kind.EMPTY:
                    out += [messages.EMPTY_QUERY_RESPONSE, messages.READY_FAILED]
                else:
                    out += [_no_savepoint(verdict) or aborted, messages.READY_FAILED]
            elif kind == SYNC:
                out.append(messages.READY_IDLE if not self._failed_here else messages.READY_FAILED)
                if not self._failed_here:
                    break
            elif kind == PARSE and ends:
                out.append(messages.PARSE_COMPLETE)
                exiting = True
            elif kind == BIND and (exiting or ends):
                exiting = True
                out.append(messages.BIND_COMPLETE)
            elif exiting and kind == DESCRIBE:
                out.append(messages.NO_DATA)
            elif exiting and kind == EXECUTE:
                out.append(messages.command_complete(b"ROLLBACK"))
                self._failed_here = False
            elif kind == CLOSE:
                out.append(messages.CLOSE_COMPLETE)
            elif kind in EXTENDED or kind == FUNCTION_CALL:
                out.append(_no_savepoint(verdict) or aborted)
                self._skipping = kind != FUNCTION_CALL
        self._look_around()
        return b"".join(out)


def _no_savepoint(verdict: Verdict | None) -> bytes:
    """ROLLBACK TO, when the transaction's savepoints went with their server."""
    single = verdict.single if verdict is not None and verdict.kind is Kind.ROLLBACK_TO else None
    if single is None or single.name is None:
        return b""
    return messages.error_response(f'savepoint "{shown(single.name)}" does not exist', "3B001")


def _chains(verdict: Verdict) -> bool:
    single = verdict.single
    return single is None or single.chain
