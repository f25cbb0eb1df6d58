"""Answers that need no server, and what they change of what we keep ourselves.

Only whole scopes of an idle session are answered here, and only what is known to be what the origin would say: the empty query,
DISCARD ALL and DEALLOCATE of names that exist here alone, Close, and the query with which asyncpg's pool resets a connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import (
    BIND,
    CLOSE,
    COPY_DATA,
    COPY_DONE,
    COPY_FAIL,
    DESCRIBE,
    EXECUTE,
    FLUSH,
    PARSE,
    QUERY,
    SYNC,
)
from hyperdrive.session.batch import RAW, Op, Pipe, name_at
from hyperdrive.session.failures import Failures
from hyperdrive.session.outcome import PREPARED
from hyperdrive.session.settings import Label
from hyperdrive.session.statements import NAME_BYTES
from hyperdrive.sql.verdict import Kind, Verdict

ASYNCPG_RESET: Final = b"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"
_VOID_OID: Final = 2278
_ASYNCPG_RESET_REPLY: Final = (
    messages.row_description([(b"pg_advisory_unlock_all", _VOID_OID, 4)])
    + messages.data_row([b""])
    + b"".join(map(messages.command_complete, (b"SELECT 1", b"CLOSE CURSOR ALL", b"UNLISTEN", b"RESET")))
)

_NEVER_ALONE: Final = frozenset({RAW, COPY_DATA, COPY_DONE, COPY_FAIL, FLUSH})
_MAYBE_LOCAL: Final = frozenset({QUERY, PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, SYNC, FLUSH})


class Answers(Failures):
    """The part of a client session that answers by itself."""

    __slots__ = ("base_told", "unnamed", "unnamed_verdict")

    def __init__(self, pipe: Pipe, base: Label, told: Mapping[bytes, bytes]) -> None:
        super().__init__(pipe, base, told)
        self.base_told = told
        """What the client was told at login."""
        self.unnamed: bytes | None = None
        """The Parse message of the unnamed statement."""
        self.unnamed_verdict: Verdict | None = None

    @property
    def needs_look(self) -> bool:
        """The batch is not one that always needs a server: ``answer`` may have a reply."""
        return self.whole is None or self._awkward

    def answer(self) -> bytes | None:
        """Replies to the whole batch if no server is needed for it; the session is idle and not linked.

        ``None``: a server is needed, and the batch stays as it is.
        """
        ops = self.ops
        if self._failed_here:
            return self._answer_failed()
        out: list[bytes] = []
        if self._skipping:
            self._skip_here(out)
        while ops and ops[0][0] in _NEVER_ALONE:
            # Late CopyData of a copy that has failed (W-31), or a Flush with nothing to flush.
            del ops[0]
        if not ops:
            return b"".join(out)
        if self.whole is not None or self._streaming:
            return b"".join(out) or None
        if not all(kind in _MAYBE_LOCAL for kind, _, _ in ops):
            return b"".join(out) or None
        index = 0
        while index < len(ops):
            kind, raw, verdict = ops[index]
            if kind == QUERY:
                reply = self._asyncpg_reset() if raw[5:-1] == ASYNCPG_RESET else self._local(verdict)
                if reply is None:
                    return self._keep_from(index, out) if out else None
                self.unnamed = None  # as any Query does
                out += [reply, messages.READY_IDLE]
                index += 1
                continue
            scope = self._local_scope(index)
            if scope is None:
                return self._keep_from(index, out) if out else None
            reply, index = scope
            out.append(reply)
        ops.clear()
        self.size = 0
        return b"".join(out)

    def _keep_from(self, index: int, out: list[bytes]) -> bytes:
        del self.ops[:index]
        return b"".join(out)

    def _local_scope(self, start: int) -> tuple[bytes, int] | None:
        """One extended scope of Close and Sync only, or of one local statement; with the index behind it."""
        ops = self.ops
        out: list[bytes] = []
        local: bytes | None = None
        names: list[bytes] = []
        for index in range(start, len(ops)):
            kind, raw, verdict = ops[index]
            if kind == SYNC:
                for name in names:
                    self._shared.pop(name, None)
                if local is not None:
                    verdict = verdict_of(ops[start])
                    reply = self._local(verdict) or b""
                    out.append(reply[len(tag_of(verdict)) :])  # ParameterStatus comes between tag and ReadyForQuery
                    self.unnamed, self.unnamed_verdict = ops[start][1], ops[start][2]
                return b"".join(out) + messages.READY_IDLE, index + 1
            if kind == CLOSE and raw[5:6] == b"S" and raw[6:7] > b"\0":
                names.append(name_at(raw, 6)[0][:NAME_BYTES])
                out.append(messages.CLOSE_COMPLETE)
            elif kind == PARSE and index == start and not raw[5] and verdict is not None and self._is_local(verdict):
                local = messages.PARSE_COMPLETE
                out.append(local)
            elif kind == BIND and local is not None and raw[5:7] == b"\0\0":
                out.append(messages.BIND_COMPLETE)
            elif kind == DESCRIBE and local is not None and raw[6:] == b"\0":
                out.append(messages.NO_DATA if raw[5:6] == b"P" else messages.NO_PARAMETERS + messages.NO_DATA)
            elif kind == EXECUTE and local is not None and raw[5:6] == b"\0":
                first = verdict_of(ops[start])
                out.append(tag_of(first))
            else:
                return None
        return None

    def _is_local(self, verdict: Verdict) -> bool:
        kind = verdict.kind
        if kind is Kind.DISCARD_ALL:
            return not self.journal.is_pinned
        if kind is Kind.DEALLOCATE_ALL:
            return not self._has_sql_prepared()
        if kind is Kind.DEALLOCATE:
            single = verdict.single
            lent = single is not None and (PREPARED, single.name) in (self.journal.lasting or ())
            return single is not None and single.name in self._shared and not lent
        return False

    def _local(self, verdict: Verdict | None) -> bytes | None:
        """Carry out a statement that only concerns what we keep ourselves; its reply without ReadyForQuery."""
        if verdict is None:
            return None
        if verdict.kind is Kind.EMPTY:
            return messages.EMPTY_QUERY_RESPONSE
        if not self._is_local(verdict):
            return None
        reply = tag_of(verdict)
        if verdict.kind is Kind.DEALLOCATE:
            single = verdict.single
            assert single is not None and single.name is not None
            self._shared.pop(single.name, None)
            return reply
        self._shared.clear()
        if verdict.kind is Kind.DISCARD_ALL:
            self.journal.reset_here()
            reply += self._tell_base()
        return reply

    def _tell_base(self) -> bytes:
        """ParameterStatus for each value that goes back to what the client was told at login."""
        told, self.told = self.told, self.base_told
        if told is self.base_told:
            return b""
        return b"".join(
            messages.parameter_status(name, value) for name, value in self.base_told.items() if told.get(name) != value
        )

    def _asyncpg_reset(self) -> bytes | None:
        """What asyncpg sends whenever a connection goes back to its pool: nothing to do at the origin unless pinned (E-8)."""
        if self.journal.is_pinned or any(
            name in self.journal.wanted.items for name in (b"role", b"session_authorization")
        ):
            return None
        self.journal.reset_settings_here()
        return _ASYNCPG_RESET_REPLY + self._tell_base()

    def _has_sql_prepared(self) -> bool:
        return any(reason == PREPARED for reason, _ in self.journal.lasting or ())


def verdict_of(op: Op) -> Verdict:
    """The verdict of a Query or Parse op."""
    assert op[2] is not None
    return op[2]


def tag_of(verdict: Verdict) -> bytes:
    """CommandComplete of a statement whose tag is fixed."""
    single = verdict.single
    assert single is not None and single.tag is not None
    return messages.command_complete(single.tag)
