"""Answers that need no server, and what they change of what we keep ourselves.

Only whole scopes are answered here, while no server works for the client, and only with what is known to be what the origin would
say: the empty query, what ``transactions`` keeps, DISCARD ALL and DEALLOCATE of names that exist here alone, Close, and the query with
which asyncpg's pool resets a connection.
"""

from __future__ import annotations

from typing import Final

from hyperdrive.metrics import Saved
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
from hyperdrive.session.batch import RAW, Op, name_at
from hyperdrive.session.known import ASKS, Known
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
ONE_STATEMENT: Final = frozenset({b"PBE", b"PBDE", b"PDBE"})
_PLAIN_BINDS: Final = frozenset({b"\0\0" + bytes(6), b"\0\0\0\0\0\0\0\1\0\0"})
"""Bind of the unnamed statement to the unnamed portal, without parameters, with results as text."""


class Answers(Known):
    """The part of a client session that answers by itself."""

    __slots__ = ()

    @property
    def needs_look(self) -> bool:
        """The batch is not one that always needs a server: ``answer`` may have a reply."""
        return self.whole is None or self._awkward

    def answer(self) -> bytes | None:
        """Replies to the whole batch if no server is needed for it; no server works for the session, or it is at rest.

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
            found = self._local_query(index) if ops[index][0] == QUERY else self._local_scope(index)
            if found is None:
                return self._keep_from(index, out) if out else None
            reply, index = found
            out.append(reply)
        ops.clear()
        self.size = 0
        return b"".join(out)

    def _keep_from(self, index: int, out: list[bytes]) -> bytes:
        del self.ops[:index]
        return b"".join(out)

    def _local_query(self, index: int) -> tuple[bytes, int] | None:
        _, raw, verdict = self.ops[index]
        if raw[5:-1] == ASYNCPG_RESET:
            reply = self._asyncpg_reset()
        elif verdict is None or not self._may_answer(verdict, index + 1):
            return None
        else:
            single = verdict.single
            described = self._description(single) if single is not None and single.kind is Kind.SHOW else b""
            reply = described + self._local(verdict)
        if reply is None:
            return None
        self.unnamed = None  # as any Query does
        return reply + self.ready, index + 1

    def _local_scope(self, start: int) -> tuple[bytes, int] | None:
        """One extended scope of Close only, of known descriptions, or of one local statement; with the index behind it."""
        ops = self.ops
        end = next((index for index in range(start, len(ops)) if ops[index][0] in (SYNC, FLUSH)), 0)
        if not end and ops[start][0] != SYNC:
            return None
        scope = ops[start:end]
        kinds = bytes([kind for kind, _, _ in scope])
        if kinds in ASKS:
            reply = self._ask_scope(scope)
        elif ops[end][0] == FLUSH:
            return None
        elif kinds in ONE_STATEMENT:
            reply = self._run_scope(scope, end + 1)
        else:
            reply = self._close_scope(scope)
        if reply is None:
            return None
        return reply if ops[end][0] == FLUSH else reply + self.ready, end + 1

    def _close_scope(self, scope: list[Op]) -> bytes | None:
        names = []
        for kind, raw, _ in scope:
            if kind != CLOSE or raw[5:6] != b"S" or raw[6:7] <= b"\0":
                return None
            names.append(name_at(raw, 6)[0][:NAME_BYTES])
            if self._is_lent(names[-1]):
                return None
        for name in names:
            self._shared.pop(name, None)
        return messages.CLOSE_COMPLETE * len(names)

    def _run_scope(self, scope: list[Op], behind: int) -> bytes | None:
        verdict = plain_scope(scope)
        if verdict is None or verdict.kind is Kind.EMPTY or not self._may_answer(verdict, behind):
            return None
        single = verdict.single
        assert single is not None
        described = self._description(single)
        self.unnamed, self.unnamed_verdict = scope[0][1], verdict
        return tell_scope(scope, described, self._local(verdict))

    def _may_answer(self, verdict: Verdict, behind: int) -> bool:
        """Whether the statement needs no server; *behind* is the index of what follows its scope.

        BEGIN is held only if nothing waits behind it: what the client pipelined is one flight already (E-0).
        """
        if verdict.kind is Kind.EMPTY or self._is_local(verdict):
            return True
        single = verdict.single
        if single is None or verdict.is_plain or not self._is_here(single):
            return False
        return single.kind is not Kind.BEGIN or behind == len(self.ops)

    def _is_local(self, verdict: Verdict) -> bool:
        """Whether it concerns only names and values that exist here alone, in whatever state the transaction is."""
        kind = verdict.kind
        if kind is Kind.DISCARD_ALL:
            return self.held is None and self.live is None and not self.keeps_server and not self.journal.is_pinned
        if kind is Kind.DEALLOCATE_ALL:
            return not self._has_sql_prepared()
        if kind is Kind.DEALLOCATE:
            single = verdict.single
            return single is not None and single.name in self._shared and not self._is_lent(single.name)
        return False

    def _local(self, verdict: Verdict) -> bytes:
        """Carry out a statement that needs no server; its reply without description and ReadyForQuery."""
        if verdict.kind is Kind.EMPTY:
            return messages.EMPTY_QUERY_RESPONSE
        single = verdict.single
        assert single is not None
        if not self._is_local(verdict):
            return self._carry_out(single)
        self.pipe.saved[Saved.DISCARD] += 1
        reply = tag_of(verdict)
        if verdict.kind is Kind.DEALLOCATE:
            assert single.name is not None
            self._shared.pop(single.name, None)
            return reply
        self._shared.clear()
        if verdict.kind is Kind.DISCARD_ALL:
            self.journal.reset_here()
            reply += self.tell_news(self.base_told)
        return reply

    def _asyncpg_reset(self) -> bytes | None:
        """What asyncpg sends whenever a connection goes back to its pool: nothing to do at the origin unless pinned (E-8)."""
        if (
            self.held is not None
            or self.keeps_server
            or self.journal.is_pinned
            or any(name in self.journal.wanted.items for name in (b"role", b"session_authorization"))
        ):
            return None
        self.pipe.saved[Saved.DISCARD] += 1
        self.journal.reset_settings_here()
        return _ASYNCPG_RESET_REPLY + self.tell_news(self.base_told)


def plain_scope(scope: list[Op]) -> Verdict | None:
    """Of Parse, Bind, Execute, perhaps with a Describe: the verdict, if it is one run of an unnamed statement without parameters."""
    _, parsed, verdict = scope[0]
    if parsed[5:6] != b"\0" or parsed[-2:] != b"\0\0":
        return None
    for kind, raw, _ in scope[1:]:
        if kind == BIND:
            is_plain = raw[5:] in _PLAIN_BINDS
        else:
            is_plain = raw[6:] == b"\0" if kind == DESCRIBE else raw[5:6] == b"\0"
        if not is_plain:
            return None
    return verdict


def tell_scope(scope: list[Op], description: bytes, reply: bytes) -> bytes:
    """The replies to such a scope, in the client's order, without ReadyForQuery."""
    out = []
    for kind, raw, _ in scope:
        if kind == DESCRIBE:
            out += [messages.NO_PARAMETERS if raw[5:6] == b"S" else b"", description]
        else:
            out.append({PARSE: messages.PARSE_COMPLETE, BIND: messages.BIND_COMPLETE, EXECUTE: reply}[kind])
    return b"".join(out)


def tag_of(verdict: Verdict) -> bytes:
    """CommandComplete of a statement whose tag is fixed."""
    single = verdict.single
    assert single is not None and single.tag is not None
    return messages.command_complete(single.tag)
