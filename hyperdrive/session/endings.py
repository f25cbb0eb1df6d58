"""What is answered here while a transaction is under way at a server: its end, and settings (E-4, E-5, E-7 of the wire reference).

ROLLBACK cannot turn out otherwise: if the server dies the transaction is rolled back as well. COMMIT of what has provably only read
changes nothing whatever becomes of it. The client's next scope goes behind it on the same server, so that its own locks are gone
by then; others may meet them for up to half a round trip longer.
"""

from __future__ import annotations

from typing import Final

from hyperdrive.metrics import Saved
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import EXECUTE, FLUSH, QUERY, SYNC
from hyperdrive.session import replies
from hyperdrive.session.extended import Extended
from hyperdrive.session.held import STANDS_IN, portal_of
from hyperdrive.session.pipe import Eager
from hyperdrive.session.replies import Expected
from hyperdrive.session.runs import tell_scope
from hyperdrive.session.server import FAILED, IDLE, IN_TRANSACTION, ServerSession
from hyperdrive.sql.verdict import Isolation, Kind, Statement

_SNAPSHOT_SAFE: Final = frozenset({Isolation.READ_UNCOMMITTED, Isolation.READ_COMMITTED, Isolation.REPEATABLE_READ})
"""Levels at which what was read stands before COMMIT; not so SERIALIZABLE (transaction-iso#XACT-SERIALIZABLE)."""


_SETTINGS: Final = frozenset({Kind.SET, Kind.SET_LOCAL, Kind.RESET, Kind.SHOW})


class Endings(Extended):
    """The part of a client session that answers inside a transaction which a server has."""

    __slots__ = ()

    def end_ahead(self, server: ServerSession) -> tuple[bytes, bytes] | None:
        """What goes to the linked *server* and what the client is told, if the batch is an end that need not be waited for."""
        if not self._may_answer_live(server):
            return None
        statement = self._only_statement()
        if statement is None or statement.chain:
            return None
        if statement.kind is Kind.ROLLBACK or (statement.kind is Kind.COMMIT and server.status == FAILED):
            if not self._may_roll_back():
                return None
            entry, saved = replies.END_ROLLBACK, Saved.ROLLBACK
        elif statement.kind is Kind.COMMIT and self._may_commit():
            entry, saved = replies.END_COMMIT, Saved.COMMIT
        else:
            return None
        self.pipe.saved[saved] += 1
        return messages.query(entry.payload), self._end(entry, statement, server)

    def set_ahead(self, server: ServerSession) -> bytes | None:
        """What the client is told, if the batch is a SET, RESET or SHOW of what is known; a SET travels with the next statement."""
        if server.status != IN_TRANSACTION or not self._may_answer_live(server):
            return None
        statement = self._only_statement()
        if statement is None or statement.kind not in _SETTINGS or not self._is_here(statement):
            return None
        if self._is_ours(statement):
            return None
        described = self._description(statement)
        self._leave_batch(statement)
        return self._tell_batch(statement, described, self._carry_out(statement)) + messages.READY_IN_TRANSACTION

    @property
    def is_under_way(self) -> bool:
        """In a transaction that a server has, of which a plain statement that succeeds leaves nothing to settle."""
        live = self.live
        return (
            (live is None or (live.has_snapshot and not live.may_end and not live.settings))
            and not self._ends_epoch
            and self._asking is None
        )

    def may_go_on(self, server: ServerSession) -> bool:
        """Whether the batch is the usual one, in the middle of a transaction of which *server* awaits more: nothing goes ahead of it, and
        it ends nothing."""
        return (
            self.whole is not None
            and server.status == IN_TRANSACTION
            and not (server.queue or server.open_scope or server.half_sent or server.copy_in)
            and self._portal_behind is None
            and self.is_under_way
        )

    def may_read_aside(self, server: ServerSession) -> bool:
        """Whether a read may be answered from elsewhere in the transaction that *server* has: all it did was provably read (E-9)."""
        live = self.live
        return (
            live is not None
            and server.status == IN_TRANSACTION
            and live.only_reads
            and live.has_snapshot  # what is read elsewhere makes the origin take none (E-0.4)
            and not live.takes_locks
            and not self.keeps_server
            and not self.journal.is_pinned  # a temporary table may stand in the place of another
            and self._may_answer_live(server)
            and self.pipe.is_read_only(live.texts, self.journal.wanted)
        )

    def _may_answer_live(self, server: ServerSession) -> bool:
        """The client is owed nothing, and the origin awaits its next scope."""
        return (
            self.live is not None
            and server.status != IDLE
            and not server.queue
            and not server.open_scope
            and not server.half_sent
            and not self._awkward
            and bool(self.ops)
        )

    def answer_ours(self, server: ServerSession) -> bytes | None:
        """The reply to a batch that is about a setting of ours alone, while the linked *server* waits for more; ``None``: it is not."""
        if server.queue or server.open_scope or server.half_sent or server.copy_in or server.status == FAILED:
            return None
        if self._awkward or not self.ops or self.whole is not None:
            return None
        in_block = server.status != IDLE
        statement = self._only_statement()
        if statement is None and self.ops[-1][0] in (SYNC, FLUSH):
            reply = self._ours_scope(self.ops[:-1], self.ops[-1][0], self._carry_out_ours, in_block=in_block)
            if reply is None:
                return None
            is_flushed = self.ops[-1][0] == FLUSH
            if in_block and any(kind == EXECUTE for kind, _, _ in self.ops):
                self._portal_behind = STANDS_IN
            self.ops.clear()
            self.size = 0
            return self._after_ours(reply, server, is_flushed=is_flushed)
        if statement is None or not self._is_ours(statement, in_block=in_block):
            return None
        if in_block and (self._refusal(statement) is not None or self._is_unknown(statement)):
            return None  # the origin has to know that the transaction has failed
        described = self._description(statement)
        self._leave_batch(statement)
        reply = self._tell_batch(statement, described, self._carry_out_ours(statement))
        return self._after_ours(reply, server)

    def _after_ours(self, reply: bytes, server: ServerSession, *, is_flushed: bool = False) -> bytes:
        server.attention = server.journalled = True
        if server.status == IDLE:
            self.journal.settle(failed=False)
        return reply if is_flushed else reply + messages.ready_for_query(server.status)

    def _leave_batch(self, statement: Statement) -> None:
        """What a batch of *statement* alone leaves behind besides what that does: it has taken the unnamed portal, for one."""
        is_query = self.ops[0][0] == QUERY
        if is_query:
            self.unnamed = None
        else:
            self._leave_parsed(self.ops[:-1])
        self._portal_behind = b"" if is_query else portal_of(statement)

    def _tell_batch(self, statement: Statement, described: bytes, reply: bytes) -> bytes:
        """*reply* as the batch, of one statement, asked for it, without ReadyForQuery; the batch is used up."""
        if self.ops[0][0] != QUERY:
            reply = tell_scope(self.ops[:-1], described, reply)
        elif statement.kind is Kind.SHOW:
            reply = described + reply
        self.ops.clear()
        self.size = 0
        return reply

    def _only_statement(self) -> Statement | None:
        """The statement of a batch that is one Query, or one scope that runs a statement once."""
        kind, _, verdict = self.ops[0]
        if kind != QUERY:
            return self._only_run()
        return verdict.single if len(self.ops) == 1 and verdict is not None else None

    def _may_roll_back(self) -> bool:
        eager = self.pipe.switches.eager_rollback
        return eager is Eager.ALWAYS or (eager is Eager.ON and self.live is not None and not self.live.takes_locks)

    def _may_commit(self) -> bool:
        live = self.live
        if (
            live is None
            or not self.pipe.switches.eager_commit
            or not live.only_reads
            or live.takes_locks
            or live.settings
        ):
            return False
        if self.journal.is_pinned or self.keeps_server or self._portals:
            return False
        level = live.held.isolation or self.pipe.default_isolation(live.held.label)
        return level in _SNAPSHOT_SAFE and self.pipe.is_read_only(live.texts, self.journal.wanted)

    def _end(self, entry: Expected, statement: Statement, server: ServerSession) -> bytes:
        assert self.live is not None
        tag = entry.payload
        told = self.live.held.told
        self._leave_batch(statement)
        self.live = None
        self._portals = self._portal_behind = None
        self.journal.completed(statement, tag)
        self._epoch_ends(is_idle=True)
        reply = messages.command_complete(tag)
        if tag == b"ROLLBACK":
            reply += self.tell_news(told)  # after an error the origin has reported it already (W-34)
        reply = self._tell_batch(statement, messages.NO_DATA, reply)
        server.end_behind(entry, self.journal.actual)
        return reply + messages.READY_IDLE
