"""Errors that are ours to tell: a batch that cannot run, a server that is gone, a transaction that exists nowhere any more.

Each Sync and each Query is answered with exactly one ReadyForQuery, whatever happened (W-54, and FAILED_HERE in §1 of the wire
reference). Knows no server but the one that was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import BIND, CLOSE, DESCRIBE, EXECUTE, FUNCTION_CALL, PARSE, QUERY, SYNC
from hyperdrive.session.batch import EXTENDED, Batch, name_at, shown
from hyperdrive.session.held import Held, Live
from hyperdrive.session.outcome import Journal, Parameters
from hyperdrive.session.pipe import Pipe
from hyperdrive.session.replies import Action
from hyperdrive.session.server import IDLE, ServerSession
from hyperdrive.session.settings import Label
from hyperdrive.session.statements import NAME_BYTES, Named
from hyperdrive.sql.verdict import Kind, Verdict

ABORTED_TEXT: Final = "current transaction is aborted, commands ignored until end of transaction block"
_ABORTED: Final = messages.error_response(ABORTED_TEXT, "25P02")


class Failures(Batch):
    """The part of a client session that says what went wrong."""

    __slots__ = (
        "_portals",
        "_told_back",
        "_untold",
        "held",
        "journal",
        "keeps_server",
        "live",
        "unnamed",
        "unnamed_verdict",
    )

    def __init__(self, pipe: Pipe, base: Label, told: Mapping[bytes, bytes]) -> None:
        super().__init__(pipe, told)
        self.journal = Journal(base)
        self._portals: dict[bytes, tuple[Verdict | None, Parameters | None]] | None = None
        """Open portals whose statements are not plain."""
        self.unnamed: bytes | None = None
        """The Parse message of the unnamed statement."""
        self.unnamed_verdict: Verdict | None = None
        self.keeps_server = False
        """Session pooling."""
        self.held: Held | None = None
        """The transaction that the client has begun and no server knows of."""
        self.live: Live | None = None
        """The transaction that was held and has been sent."""
        self._told_back: Mapping[bytes, bytes] | None = None
        """What the client had been told before the transaction that was lost."""
        self._untold = b""
        """The error that began this, if the client was owed nothing when it happened."""

    @property
    def block(self) -> Held | None:
        """How the transaction that the client is in was begun, if that was held back."""
        if self.held is not None:
            return self.held
        return self.live.held if self.live is not None else None

    @property
    def ready(self) -> bytes:
        """ReadyForQuery of a client that no server works for."""
        if self._failed_here:
            return messages.READY_FAILED
        return messages.READY_IDLE if self.held is None else messages.READY_IN_TRANSACTION

    def believes(self, status: int) -> bool:
        """Whether the client believes in a transaction when its server, whose *status* came last, is lost.

        One that was held and sent counts from the moment it was begun here.
        """
        return status != IDLE or (self.live is not None and not self.live.is_confirmed)

    def refuse(self, error: bytes) -> bytes:
        """The batch cannot run: *error* for each of its scopes, and what is left of an open scope is skipped.

        In HELD the client believes in a transaction, and a driver told ``I`` would go on in autocommit (E-2): the transaction has
        failed (FAILED_HERE). Then the error is told once, and what is behind its end is left in the batch: it may run.
        """
        out: list[bytes] = []
        self._whole_to_ops()
        if self.held is not None:
            self._told_back = self.held.told
            self._failed_here = True
            self._untold = error
            return self._answer_failed()
        ready = self.ready
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
        self._failed_here = failed_here
        if failed_here:
            self._told_back = self.live.held.told if self.live is not None else None
        self.live = None
        ready = self.ready
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
        self._look_around()
        self._portals = None
        if self.held is None:
            self.journal.abandoned()
        if self.ops and failed_here:
            out.append(self._answer_failed())
        elif self.ops:
            if is_open:
                self._skip_here(out)
            out.append(self.refuse(error) if self.ops else b"")
        return b"".join(out)

    def _skip_here(self, out: list[bytes]) -> None:
        """The open scope failed without a server: drop what is left of it, up to Sync."""
        self._whole_to_ops()
        ops = self.ops
        for index, (kind, _, _) in enumerate(ops):
            if kind == SYNC:
                self._skipping = False
                self._look_around()
                out.append(self.ready)
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
        exit_: Verdict | None = None
        while self.ops:
            if self._skipping:
                self._skip_here(out)
                if not self._failed_here:
                    break
                continue
            kind, raw, verdict = self.ops.pop(0)
            if kind == BIND and exit_ is None:
                verdict = self._verdict_of_bind(raw)
            exits = verdict is not None and self._is_exit(verdict)
            if kind == QUERY:
                self.unnamed = None
                if exits:
                    out += [self._exit(verdict), self.ready]
                    break
                if verdict is not None and verdict.kind is Kind.EMPTY:
                    out += [messages.EMPTY_QUERY_RESPONSE, messages.READY_FAILED]
                else:
                    out += [_no_savepoint(verdict) or self._aborted(), messages.READY_FAILED]
            elif kind == SYNC:
                out.append(self.ready)
                if not self._failed_here:
                    break
            elif kind == PARSE and exits and verdict is not None:
                self._parse_exit(raw, verdict)
                out.append(messages.PARSE_COMPLETE)
                exit_ = verdict
            elif kind == BIND and (exit_ is not None or exits):
                exit_ = exit_ or verdict
                out.append(messages.BIND_COMPLETE)
            elif exit_ is not None and kind == DESCRIBE:
                out += [messages.NO_PARAMETERS if raw[5:6] == b"S" else b"", messages.NO_DATA]
            elif exit_ is not None and kind == EXECUTE:
                out.append(self._exit(exit_))
                self._skipping = out[-1].startswith(b"E")
            elif kind == CLOSE:
                if raw[5:6] == b"S":
                    self._shared.pop(name_at(raw, 6)[0][:NAME_BYTES], None)
                out.append(messages.CLOSE_COMPLETE)
            elif kind in EXTENDED or kind == FUNCTION_CALL:
                out.append(_no_savepoint(verdict) or self._aborted())
                self._skipping = kind != FUNCTION_CALL
        self._look_around()
        return b"".join(out)

    def _aborted(self) -> bytes:
        """Why nothing runs: the first time what happened, then that the transaction is aborted."""
        error, self._untold = self._untold or _ABORTED, b""
        return error

    def _parse_exit(self, raw: bytes, verdict: Verdict) -> None:
        """Parse of what ends the failed transaction, in a scope that is answered here: the client may use it again."""
        name, body_at = name_at(raw, 5)
        if name:
            key = name[:NAME_BYTES]
            named = self._shared[key] = Named(self.pipe.registry.intern(raw[body_at:], None, verdict), key)
            named.is_pending = False
        else:
            self.unnamed, self.unnamed_verdict = raw, verdict

    def _is_exit(self, verdict: Verdict) -> bool:
        if verdict.kind is Kind.ROLLBACK_TO and self.held is not None and verdict.single is not None:
            return self.held.has(verdict.single.name)
        return verdict.kind in (Kind.ROLLBACK, Kind.COMMIT) and not _chains(verdict)

    def _exit(self, verdict: Verdict | None) -> bytes:
        """The failed transaction ends, or goes back to a savepoint that was held; reply without ReadyForQuery.

        A COMMIT of which the client has reason to believe that it works fails with what happened: few look at the tag.
        """
        assert verdict is not None
        self._failed_here = False
        untold, self._untold = self._untold, b""
        told, self._told_back = self._told_back, None
        if verdict.kind is Kind.ROLLBACK_TO and self.held is not None and verdict.single is not None:
            told = self.held.cut(verdict.single.name)
            self.journal.completed(verdict.single, b"ROLLBACK")
        else:
            self.held = None
            self.journal.settle(failed=True)
        if untold and verdict.kind is Kind.COMMIT:
            return untold + (self.tell_news(told) if told is not None else b"")
        return messages.command_complete(b"ROLLBACK") + (self.tell_news(told) if told is not None else b"")


def _no_savepoint(verdict: Verdict | None) -> bytes:
    """ROLLBACK TO, when the transaction's savepoints went with their server."""
    single = verdict.single if verdict is not None and verdict.kind is Kind.ROLLBACK_TO else None
    if single is None or single.name is None:
        return b""
    return messages.error_response(f'savepoint "{shown(single.name)}" does not exist', "3B001")


def _chains(verdict: Verdict) -> bool:
    single = verdict.single
    return single is None or single.chain
