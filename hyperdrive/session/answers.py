"""Answers that need no server, and what they change of what we keep ourselves.

Only whole scopes are answered here, while no server works for the client, and only with what is known to be what the origin would
say: the empty query, what ``transactions`` keeps, DISCARD ALL and DEALLOCATE of names that exist here alone, Close, and the queries with
which the pools of asyncpg and Npgsql reset a connection.
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
from hyperdrive.session.held import STANDS_IN
from hyperdrive.session.known import ASKS
from hyperdrive.session.prepared_ours import PreparedOurs
from hyperdrive.session.runs import FIRST_RUNS, GIVES_ROWS, RUNS, tell_scope
from hyperdrive.session.statements import NAME_BYTES
from hyperdrive.sql.verdict import Kind, Verdict

_VOID_OID: Final = 2278
_UNLOCKED: Final = messages.row_description([(b"pg_advisory_unlock_all", _VOID_OID, 4)]) + messages.data_row([b""])


def _done(*tags: bytes) -> bytes:
    return b"".join(map(messages.command_complete, tags))


ASYNCPG_RESET: Final = b"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"
NPGSQL_RESET: Final = b"SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;SELECT pg_advisory_unlock_all();DISCARD SEQUENCES;DISCARD TEMP"
_RESETS: Final = {
    ASYNCPG_RESET: _UNLOCKED + _done(b"SELECT 1", b"CLOSE CURSOR ALL", b"UNLISTEN", b"RESET"),
    NPGSQL_RESET: _done(b"SET", b"RESET", b"CLOSE CURSOR ALL", b"UNLISTEN")
    + _UNLOCKED
    + _done(b"SELECT 1", b"DISCARD SEQUENCES", b"DISCARD TEMP"),
}
"""What drivers send whenever a connection goes back to their pool, with the reply to it."""

_NEVER_ALONE: Final = frozenset({RAW, COPY_DATA, COPY_DONE, COPY_FAIL, FLUSH})
_MAYBE_LOCAL: Final = frozenset({QUERY, PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, SYNC, FLUSH})
_ASKS_FIRST: Final = {b"PDBE": 2, b"PBDE": 1, b"PBE": 1}
"""Scopes that ask for a statement and run it, to how many messages do the asking."""


class Answers(PreparedOurs):
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
        if len(ops) == 1 and (begun := self._begun_by_query()):
            return begun
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

    def _begun_by_query(self) -> bytes:
        """The reply to a Query that begins a transaction and is held back, which is what most begin with; empty: it is another batch."""
        kind, _, verdict = self.ops[0]
        if kind != QUERY or verdict is None or verdict.kind is not Kind.BEGIN or self._skipping or self._streaming:
            return b""
        single = verdict.single
        assert single is not None
        if not self._is_here(single):
            return b""
        reply = self._carry_out(single) + messages.READY_IN_TRANSACTION
        self.unnamed = None
        self.ops.clear()
        self.size = 0
        return reply

    def _keep_from(self, index: int, out: list[bytes]) -> bytes:
        del self.ops[:index]
        self.regain_whole()
        return b"".join(out)

    def _local_query(self, index: int) -> tuple[bytes, int] | None:
        _, raw, verdict = self.ops[index]
        reset = _RESETS.get(raw[5:-1])
        if reset is not None:
            reply = self._reset_here(reset)
        elif verdict is None or not self._may_answer(verdict, index + 1):
            return None
        else:
            single = verdict.single
            described = self._description(single) if single is not None and single.kind in GIVES_ROWS else b""
            reply = described + self._local(verdict)
        if reply is None:
            return None
        self.unnamed = None  # as any Query does
        if self.held is not None and (verdict is None or verdict.kind is not Kind.EMPTY):
            self.held.portal = b""
        return reply + self.ready, index + 1

    def _local_scope(self, start: int) -> tuple[bytes, int] | None:
        """One extended scope of Close only, of known descriptions, or of one local statement; with the index behind it."""
        ops = self.ops
        end = next((index for index in range(start, len(ops)) if ops[index][0] in (SYNC, FLUSH)), 0)
        if not end and ops[start][0] != SYNC:
            return None
        scope = ops[start:end]
        kinds = bytes([kind for kind, _, _ in scope])
        ours = self._ours_scope(scope, ops[end][0], self._set_ours, in_block=self.block is not None)
        if ours is not None:
            reply: bytes | None = ours
            if self.held is not None and BIND in kinds:
                self.held.portal = STANDS_IN if EXECUTE in kinds else b""
        elif kinds in ASKS:
            reply = self._ask_scope(scope)
        elif ops[end][0] == FLUSH:
            return None
        elif kinds in RUNS:
            reply = self._run_scope(scope, end + 1)
        else:
            reply = self._close_scope(scope)
        if reply is None:
            return self._local_front(start, end)
        return reply if ops[end][0] == FLUSH else reply + self.ready, end + 1

    def _local_front(self, start: int, end: int) -> tuple[bytes, int] | None:
        """The front of the last scope, answered as if the client had flushed behind it; with the index of what is left of it.

        A BEGIN travels with the rest as it would have anyway; what is left behind Parse and Describe of a known statement is a whole
        scope, which memory may answer.
        """
        scope = self.ops[start:end]
        if self.ops[end][0] != SYNC or end + 1 != len(self.ops) or self._buffer:
            return None
        kinds = bytes([kind for kind, _, _ in scope])
        front = next((len(run) for run in FIRST_RUNS if kinds.startswith(run)), 0)
        if kinds[front : front + 1] in (b"P", b"B") and front:
            verdict = self._run_of(scope[:front])
            if verdict is None or verdict.kind is not Kind.BEGIN:
                return None
            reply = self._run_scope(scope[:front], len(self.ops))
        else:
            front = _ASKS_FIRST.get(kinds, 0)
            reply = self._ask_scope(scope[:front]) if front and self._may_ask_first(scope[0], front) else None
        return None if reply is None else (reply, start + front)

    def _may_ask_first(self, parse: Op, front: int) -> bool:
        """Whether it costs nothing to be told from memory: what was described has to be compared, and only reads go on meanwhile (W-26)."""
        _, raw, verdict = parse
        if verdict is None or not (verdict.is_plain or verdict.is_doubtful):
            return False
        sql_at = name_at(raw, 5)[1]
        sql = raw[sql_at : raw.find(b"\0", sql_at)]
        return front == 1 or (verdict.is_read and self.pipe.is_read_only([sql], self.journal.wanted))

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
        if names:
            self.pipe.saved[Saved.DISCARD] += 1
        return messages.CLOSE_COMPLETE * len(names)

    def _run_scope(self, scope: list[Op], behind: int) -> bytes | None:
        verdict = self._run_of(scope)
        if verdict is None or verdict.kind is Kind.EMPTY or not self._may_answer(verdict, behind):
            return None
        single = verdict.single
        assert single is not None
        described = self._description(single)
        self._leave_parsed(scope)
        reply = tell_scope(scope, described, self._local(verdict))
        if self.held is not None:
            self.held.ran(single)
        return reply

    def _may_answer(self, verdict: Verdict, behind: int) -> bool:
        """Whether the statement needs no server; *behind* is the index of what follows its scope.

        BEGIN is held only if no more than one scope waits behind it: several of them are one flight as they are, and would have to
        wait for the first (E-0).
        """
        if verdict.kind is Kind.EMPTY:
            return self.pipe.switches.known_answers
        if self._is_local(verdict):
            return self._may_pass_for_seen
        single = verdict.single
        if single is None or verdict.is_plain or not self._is_here(single):
            return False
        return single.kind is not Kind.BEGIN or behind == len(self.ops) or self._is_last_scope(behind)

    def _is_last_scope(self, start: int) -> bool:
        """One complete scope from there on, and nothing behind it."""
        kinds = [kind for kind, _, _ in self.ops[start:]]
        if self._buffer or self._streaming:
            return False
        return kinds == [QUERY] or (kinds[-1] == SYNC and not any(kind in (QUERY, SYNC) for kind in kinds[:-1]))

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
            self.pipe.saved[Saved.EMPTY] += 1
            return messages.EMPTY_QUERY_RESPONSE
        single = verdict.single
        assert single is not None
        if not self._is_local(verdict):
            return self._carry_out(single)
        self.pipe.saved[Saved.DISCARD] += 1
        reply = tag_of(verdict)
        if self.held is not None:
            self.held.saw_read()  # it takes a snapshot, as most statements do
        if verdict.kind is Kind.DEALLOCATE:
            assert single.name is not None
            self._shared.pop(single.name, None)
            return reply
        self._shared.clear()
        if verdict.kind is Kind.DISCARD_ALL:
            self.journal.reset_here()
            reply += self.tell_news(self.base_told)
        return reply

    def _reset_here(self, reply: bytes) -> bytes | None:
        """A connection goes back to its driver's pool: nothing to do at the origin unless it is pinned (E-8)."""
        if (
            not self.pipe.switches.local_settings
            or self.held is not None
            or self.keeps_server
            or self.journal.is_pinned
            or any(name in self.journal.wanted.items for name in (b"role", b"session_authorization"))
        ):
            return None
        self.pipe.saved[Saved.DISCARD] += 1
        self.journal.reset_settings_here()
        return reply + self.tell_news(self.base_told)


def tag_of(verdict: Verdict) -> bytes:
    """CommandComplete of a statement whose tag is fixed."""
    single = verdict.single
    assert single is not None and single.tag is not None
    return messages.command_complete(single.tag)
