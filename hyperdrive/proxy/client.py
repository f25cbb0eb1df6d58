"""A client connection after login: client meets server.

The query path is ``data_received`` → ``_ship`` → the server, and ``drained`` on the way back: callbacks only, no task per query. Off
it: waiting in the pool's queue, errors that are ours to tell, the client leaving, the server leaving.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from hyperdrive.errors import (
    HyperdriveError,
    InternalError,
    OriginLost,
    OriginUnreachable,
    OutcomeUnknown,
    PoolTimeout,
    ProtocolViolation,
    QueryCanceled,
    ShuttingDown,
)
from hyperdrive.net.transport import Transport
from hyperdrive.pgwire import messages
from hyperdrive.pool.interfaces import CloseReason
from hyperdrive.pool.settings import PoolMode
from hyperdrive.proxy import guard, half_closed
from hyperdrive.proxy.guard import guarded
from hyperdrive.proxy.reads import Reader
from hyperdrive.session.client import SHIP_ABOVE, ClientSession, Op
from hyperdrive.session.replies import COMMIT
from hyperdrive.session.server import IDLE
from hyperdrive.session.settings import EMPTY
from hyperdrive.sql.verdict import Kind
from hyperdrive.tasks import spawn

if TYPE_CHECKING:
    from hyperdrive.proxy.context import PoolContext
    from hyperdrive.proxy.fills import Filling
    from hyperdrive.proxy.pool_cache import PoolCache
    from hyperdrive.proxy.server import ServerConnection

log = logging.getLogger("hyperdrive.proxy")

CANCEL_AGAIN_SECONDS: Final = 0.01
_ARRIVED: Final[asyncio.Future[None] | None] = None
"""A cancel request that nobody has to wait for."""
_HELD: Final[Op] = (0, b"", None)
"""Stands for the scope that carried a held transaction: the session has kept it."""

LINGER_SECONDS: Final = 10.0
"""How long a client that was told to go may take to read why."""


def _is_away(error: HyperdriveError) -> bool:
    """It says that the origin cannot be reached, or does not answer."""
    return isinstance(error, (OriginUnreachable, OriginLost, PoolTimeout))


class ClientConnection(asyncio.Protocol):
    """One client, logged in. It is idle, waits in the pool's queue, or is linked to a server."""

    __slots__ = (
        "_paused",
        "_retried",
        "_source_paused",
        "context",
        "idle_sweeps",
        "key",
        "lead",
        "pid",
        "reader",
        "reading",
        "resend",
        "server",
        "session",
        "since",
        "transport",
        "waiting",
        "write",
    )

    def __init__(
        self, context: PoolContext, session: ClientSession, transport: Transport, pid: int, key: bytes
    ) -> None:
        self.context = context
        self.session = session
        self.transport = transport
        self.write = transport.write
        self.pid = pid
        self.key = key
        self.server: ServerConnection | None = None
        self.waiting = False
        self.reading = False
        """All that was sent since the server was linked is one read."""
        self.resend: Op | None = None
        """The read that is under way and of which nothing has come back: it may be sent once more (W-54)."""
        self.reader: Reader | None = Reader(self, context.cache) if context.cache is not None else None
        """What the cache does for it; ``None`` where there is no cache."""
        self.lead: Filling | None = None
        """A fill for the batch that waits for a server, to be started when it is sent."""
        self.since = context.clock.now()
        self.idle_sweeps = 0
        """How often the sweeper has come by since the client last said something."""
        self._paused = False
        self._retried = False
        self._source_paused = False

    def begin(self, leftover: bytes) -> None:
        """Become the transport's protocol; *leftover* came with the login."""
        # Bytes on their way to a client above which its server is not read (W-57, W-58).
        self.transport.set_write_buffer_limits(self.context.write_high)
        self.transport.set_protocol(self)
        self.transport.resume_reading()
        if leftover:
            self.data_received(leftover)

    # --- the query path -----------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.idle_sweeps = 0
        session = self.session
        try:
            reader = self.reader
            if reader is not None and reader.glance(data):
                return
            if session.receive(data):
                if session.whole is not None and self.server is None and not self.waiting:
                    self._express(session)
                else:
                    self._ship()
            elif session.ops and self.server is not None and self.server.session.copy_in:
                # What breaks a copy has to be noticed without waiting for a Sync.
                self._ship()
            if session.terminated:
                self._leave()
        except ProtocolViolation as error:
            self.end(error)
        except Exception as exc:
            self.failed(exc)

    def _express(self, session: ClientSession) -> None:
        """The usual batch of a client without a server: ``_ship``, ``_link`` and ``_send`` without what they need not look at."""
        reader = self.reader
        if reader is not None and reader.answer(session):
            return
        context = self.context
        server = context.pool.take()
        if server is None:
            self._ship()
            return
        state = server.session
        if state.label is session.journal.wanted and state.view is session.told and not self._paused:
            self.server = server
            server.client = self
            state.client = session
            op = session.ops[0]
            if self.lead is not None:
                self._start_lead(server)
            data = session.compose_whole(state)
            if data:
                verdict = op[2]
                self.reading = verdict is not None and verdict.is_read
                self.resend = op if self.reading else None
                context.stats.origin_round_trips += 1
                server.write(data)
                return
        self._link(server)
        self._send(server)

    def _ship(self) -> None:
        """Send the batch, or answer it here, or wait for a server."""
        session = self.session
        server = self.server
        if server is None:
            if self.waiting:
                if session.size > SHIP_ABOVE:
                    self.transport.pause_reading()
                return
            is_whole = session.whole is not None
            if self._answered():
                return
            if session.whole is not None and not is_whole:
                self._express(session)  # the front was answered, and one whole scope is left
                return
            if self.reader is not None and session.whole is None:
                self.reader.passed_by(session, None)
            server = self.context.pool.take()
            if server is None:
                self._wait()
                return
            self._link(server)
        elif session.may_go_on(server.session):
            if self.reader is not None and self._served_linked(self.reader, server):
                return
            self.reading = False
            self.resend = None
            data = session.compose_whole(server.session) if self.lead is None else b""
            if data:
                self.context.stats.origin_round_trips += 1
                server.write(data)
                return
            if self.lead is not None:
                self._start_lead(server)
        else:
            if server.session.is_at_rest and self._answered():
                return
            ours = session.answer_ours(server.session)
            if ours is not None:
                self.write(ours)
                return
            # A cancel that is under way may yet hit the end of the transaction: then the origin says how that ended.
            ended = session.end_ahead(server.session) if not server.cancels else None
            if ended is not None:
                behind, reply = ended
                server.transport.write(behind)
                self.write(reply)
                return
            told = session.set_ahead(server.session)
            if told is not None:
                self.write(told)
                return
            if self.reader is not None and self._served_linked(self.reader, server):
                return
            self.reading = False
            self.resend = None
            if self.lead is not None:
                self._start_lead(server)
        self._send(server)

    def _served_linked(self, reader: Reader, server: ServerConnection) -> bool:
        """A read is answered from the cache although a server is linked: it is ending the last transaction, or kept for the client, or
        has provably only read in this one (E-9)."""
        session, state = self.session, server.session
        if session.whole is not None and state.is_at_rest and not session.journal.is_pinned:
            return reader.answer(session)
        if session.whole is not None and session.may_read_aside(state):
            return reader.answer_inside(session)
        reader.passed_by(session, state)
        return False

    def _answered(self) -> bool:
        """Answer here as much of the batch as needs no server; ``True`` if that was all of it."""
        session = self.session
        while session.needs_look:
            reply = session.answer()
            if reply is None:
                return False
            if reply:
                self.write(reply)
            if not session.ops:
                return True
        return False

    def _send(self, server: ServerConnection) -> None:
        """Compose for the linked *server* as far as that goes without its replies."""
        session = self.session
        state = server.session
        queue = state.queue
        if state.is_at_rest or not queue:
            self.context.stats.origin_round_trips += 1
        while True:
            waiting = len(session.ops)
            data = session.compose(state)
            if session.may_take_back:
                self.resend = _HELD
            if data:
                server.write(data)
            if queue and queue[0].moves is not None:
                return
            out = state.fire_fakes()
            if out:
                self.write(out)
            if queue:
                return
            if not session.ops:
                self.drained()
                return
            if len(session.ops) == waiting and not out:
                # Nothing is outstanding that it could wait for.
                self.end(InternalError("internal error of the proxy", log_text="a batch that cannot be composed"))
                return

    def _start_lead(self, server: ServerConnection) -> None:
        """The batch is about to be written to *server*: if it is still the one that the fill is for, its reply is copied."""
        lead, self.lead = self.lead, None
        assert lead is not None
        state = server.session
        if self.session.whole is None or (state.queue and not state.is_at_rest):
            lead.fail()
        else:
            lead.start(server)

    def use_cache(self, cache: PoolCache | None) -> None:
        """The cache was switched on or off. Who waits for a server, or for another's answer, goes on as before."""
        if self.reader is not None:
            self.reader.retire()
        self.reader = Reader(self, cache) if cache is not None else None

    def wrote(self, fill_no: int) -> None:
        """It may have written anything: only what was asked for behind fill number *fill_no* has seen it."""
        if self.reader is not None:
            self.reader.last_write_no = fill_no

    @guarded(None)
    def run_alone(self) -> None:
        """Somebody else's answer, which was waited for, does not come: ask for it."""
        self.waiting = False
        if self.transport.is_closing():
            return
        self.transport.resume_reading()
        if self.session.ops:
            self._ship()
        if self.session.terminated and not half_closed.is_owed(self):
            self._leave()

    def _let_go(self) -> None:
        """The batch is not going to be sent by this client: nobody shall wait for its answer, and it waits for nobody's."""
        lead, self.lead = self.lead, None
        if lead is not None:
            lead.fail()
        if self.reader is not None:
            self.reader.leave()

    def _link(self, server: ServerConnection) -> None:
        self.server = server
        server.client = self
        if self.lead is not None:
            self._start_lead(server)
        if self._paused:
            server.transport.pause_reading()
        state = server.session
        state.client = self.session
        if state.view is not self.session.told:
            self._tell_news(server)
        ops = self.session.ops
        verdict = ops[0][2] if len(ops) == 1 else None
        self.reading = verdict is not None and verdict.is_read
        self.resend = ops[0] if self.reading else None

    def served(self, server: ServerConnection) -> None:
        """A whole scope got the usual reply and the session is idle: ``drained`` for a server that has seen nothing else.

        Such scopes change no setting, leave no pin and nothing half done, so there is less to ask.
        """
        session = self.session
        if (
            session.ops
            or session.terminated
            or self._paused
            or self._source_paused
            or server.cancels
            or session.keeps_server
        ):
            self.drained()
            return
        self.server = server.client = server.session.client = None
        self._retried = False
        context = self.context
        context.stats.released += 1
        context.pool.release(server)

    def drained(self) -> None:
        """The server owes nothing: give it back if it is clean and not pinned, or go on with what had to wait."""
        server = self.server
        if server is None:
            return
        session = self.session
        if session.terminated and (not session.ops or server.session.copy_in):
            self._leave()  # it was owed this answer, or has to send what it cannot
            return
        if session.ops:
            self._send(server)
            return
        state = server.session
        if state.status != IDLE or state.open_scope or state.half_sent or self._paused or session.is_pinned:
            if state.status != IDLE and self.context.mode is PoolMode.STATEMENT:
                self.end(ProtocolViolation("transaction blocks are not allowed in statement pooling mode"))
            elif state.status == IDLE and not self._paused:
                self.context.stats.kept += 1
            return
        self.server = None
        self.context.stats.released += 1
        self.resend = None
        self._retried = False
        if self._source_paused:
            self.resume_source()
        server.client = None
        state.client = None
        if state.view is not self.context.base and state.label is EMPTY:
            self.context.logged_in(state.view)  # the origin's configuration was reloaded (W-33)
        if state.spoiled:
            server.discard(CloseReason.CLIENT_LEFT)
            return
        if server.cancels:
            server.settle_cancel()
            return
        state.rest()
        self.context.pool.release(server)

    # --- waiting for a server -------------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        # Reading goes on, within a bound: a client that leaves has to leave the queue as well.
        self.waiting = True
        self.context.pool.wait(self)

    @property
    def is_in_transaction(self) -> bool:
        """It believes in a transaction, whether a server knows of it or not."""
        server = self.server
        return self.session.is_holding or (server is not None and server.session.status != IDLE)

    def offer(self, server: ServerConnection) -> bool:
        """Take *server* over from the pool; ``False`` when the client is gone."""
        if self.transport.is_closing():
            return False
        try:
            self.waiting = False
            self.transport.resume_reading()
            self._link(server)
            self._send(server)
        except Exception as exc:
            if server.client is None or server.client is self:
                self.server = server  # it goes with us
            self.failed(exc)
        return True

    @guarded(None)
    def refuse(self, error: HyperdriveError) -> None:
        """The wait ended without a server."""
        self.waiting = False
        self._let_go()
        if self.reader is not None and _is_away(error) and self.reader.rescue(self.session):
            self.transport.resume_reading()
            if self.session.terminated:
                self._leave()
            return
        if isinstance(error, ShuttingDown):
            self.end(error)
            return
        self.context.metrics.count_error(error)
        # A refused login reaches the client in the origin's own words; the next statement may find it cured.
        self.write(self.session.refuse(messages.error_message(error)))
        self.transport.resume_reading()
        self._go_on()

    def _tell_news(self, server: ServerConnection) -> None:
        """Reported values that changed while the client was not linked (W-33); a label still to be restored is no news."""
        state = server.session
        if state.label is self.session.journal.wanted:
            news = self.session.tell_news(state.view)
            if news:
                self.write(news)

    # --- back-pressure ----------------------------------------------------------------------------------------------------------------

    @property
    def is_paused(self) -> bool:
        """It has not taken what it was sent, so nothing more is read for it."""
        return self._paused

    @guarded(None)
    def pause_writing(self) -> None:
        self._paused = True
        if self.server is not None:
            self.server.transport.pause_reading()
        else:
            self.transport.pause_reading()  # answers of our own that nobody reads

    @guarded(None)
    def resume_writing(self) -> None:
        self._paused = False
        if not self._source_paused:
            self.transport.resume_reading()
        if self.server is not None:
            self.server.transport.resume_reading()
            if not self.server.session.queue:
                self.drained()

    def pause_source(self) -> None:
        """The server cannot take more: do not read what would go to it."""
        self._source_paused = True
        self.transport.pause_reading()

    def resume_source(self) -> None:
        self._source_paused = False
        if not self.waiting and not (self._paused and self.server is None):
            self.transport.resume_reading()

    # --- ends -------------------------------------------------------------------------------------------------------------------------

    @guarded(False)
    def eof_received(self) -> bool:
        """The client sends nothing more: it is answered what it is owed, and then the connection ends."""
        if not half_closed.is_owed(self):
            return False
        self.session.terminated = True
        half_closed.watch(self)
        return True

    @guarded(None)
    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def gone(self, reason: str) -> None:
        """The client is not there any more, though nobody said so."""
        log.info("! client %d: %s", self.pid, reason)
        self.transport.abort()

    def _leave(self) -> None:
        """The client is gone, or said so."""
        if self.context.forget(self):
            self._let_go()
            if self.waiting:
                self.waiting = False
                self.context.pool.forget(self)
            server, self.server = self.server, None
            if server is not None:
                self.context.stats.abandoned += 1
                server.abandon()
        if not self.transport.is_closing():
            self.transport.close()

    def failed(self, exc: Exception) -> None:
        """Our own code is at fault: what state the session is in, and its server, nobody knows."""
        error = guard.fault(self.context.metrics, "client", f"client {self.pid}", exc)
        server, self.server = self.server, None
        if server is not None:
            guard.throw_away(server)
        is_mid_message = server is not None and server.session.is_mid_message
        guard.carry_out(lambda: self.end(error, is_mid_message=is_mid_message), self.transport.close)

    def end(self, error: HyperdriveError, *, is_mid_message: bool = False) -> None:
        """Tell the client why, and close. In the middle of a row there is nothing that it would not take for a part of the row."""
        self.context.metrics.count_error(error)
        server = self.server
        if not self.transport.is_closing():
            if not is_mid_message and not (server is not None and server.session.is_mid_message):
                self.write(messages.error_message(error, severity="FATAL"))
            self.transport.close()
            # One that does not read must not keep its socket for ever.
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self.transport.abort)
        self._leave()

    @guarded(None)
    def server_lost(self, server: ServerConnection, reason: str) -> None:
        """The server connection broke; say what is known of the outcome (W-54)."""
        self.server = None
        session = self.session
        state = server.session
        state.look_closer()
        resend, self.resend = self.resend, None
        if self._source_paused:
            self.resume_source()
        if session.is_pinned or state.half_sent or state.is_mid_message:
            self.end(
                ShuttingDown(
                    "the connection to the database was lost, and the state of the session with it", detail=reason
                ),
                is_mid_message=state.is_mid_message,
            )
            return
        in_transaction = session.believes(state.status)
        if resend is _HELD and not self._retried and not state.failed and session.take_back_held(state):
            self._retried = True
            self.context.metrics.reads_retried += 1
            self._ship()
            return
        if (
            resend is not None
            and resend is not _HELD
            and not in_transaction
            and not session.ops
            and not state.failed
            and not self._retried
        ):
            self._retried = True
            session.take_back(resend[1])
            self.context.metrics.reads_retried += 1
            self._ship()
            return
        error = self._loss(server, in_transaction, reason)
        self.context.metrics.count_error(error)
        committing = error.code == "08007"
        for entry in reversed(state.queue):
            session.dropped(entry)
        told = state.refusal or messages.error_message(error)
        out = session.lost(told, state, failed_here=in_transaction and not committing)
        if out:
            self.write(out)
        self._go_on()

    def _go_on(self) -> None:
        """What could not run has been answered; behind the end of a failed transaction there may be more."""
        if self.session.terminated:
            self._leave()
        elif self.session.ops:
            self._ship()

    def _loss(self, server: ServerConnection, in_transaction: bool, reason: str) -> HyperdriveError:
        text = "the connection to the database was lost"
        if not server.session.queue and not server.session.open_scope:
            return OriginLost(text, detail=reason)
        writes = not in_transaction
        for entry in server.session.queue:
            statements = entry.watch.statements if entry.watch is not None else ()
            if (
                entry is COMMIT
                or statements is None
                or any(s.kind in (Kind.COMMIT, Kind.PREPARE_TRANSACTION) for s in statements)
            ):
                writes = True
        if writes and not self.reading:
            return OutcomeUnknown(f"{text} and it is unknown whether the statement took effect", detail=reason)
        return OriginLost(text, detail=reason)

    # --- cancel -----------------------------------------------------------------------------------------------------------------------

    @guarded(_ARRIVED)
    def cancel(self) -> asyncio.Future[None] | None:
        """A cancel request with this client's key came: it reaches the server only while that runs this client's SQL (W-51).

        What is returned is done when it has; ``None``: that is so already.
        """
        if self.waiting:
            self._let_go()
            self.context.pool.forget(self)
            self.refuse(QueryCanceled("canceling statement due to user request"))
        elif self.server is not None and self.server.session.is_running:
            if self.server.session.is_preparing:
                # What goes ahead of the client's statement must not be hit (W-51).
                return spawn(self._cancel_later(), name="cancel behind what goes ahead")
            return self.server.cancel()
        return None

    async def _cancel_later(self) -> None:
        await asyncio.sleep(CANCEL_AGAIN_SECONDS)
        delivery = self.cancel()
        if delivery is not None:
            await delivery
