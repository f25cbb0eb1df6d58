"""A server connection: the transport to the origin, its session, and whom it works for.

The query path is ``data_received``: bytes from the origin go through the reply queue to the linked client. Off it are the ways back
to a clean state when a client vanishes, a cancel is under way or the pool asks for a health check (W-50, W-52, W-53). When in
doubt the connection is closed.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import TYPE_CHECKING, Final, cast

from hyperdrive.errors import HyperdriveError, LedgerMismatch, OriginLost
from hyperdrive.net.transport import Transport
from hyperdrive.pgwire import messages
from hyperdrive.pool.interfaces import CloseReason, Pooled
from hyperdrive.proxy import guard, writes
from hyperdrive.proxy.guard import guarded
from hyperdrive.session import replies, settings
from hyperdrive.session.noted import COMMITS
from hyperdrive.session.server import IDLE, ServerSession
from hyperdrive.session.statements import POISON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperdrive.proxy.client import ClientConnection
    from hyperdrive.proxy.context import PoolContext
    from hyperdrive.proxy.database import Heard
    from hyperdrive.proxy.fills import Filling
    from hyperdrive.proxy.refresh import Refresh

log = logging.getLogger("hyperdrive.proxy")

DRAIN_SECONDS: Final = 5.0
"""How long an abandoned query may go on before it is cancelled, and the cancel before the connection is closed (W-52)."""

DRAIN_BYTES: Final = 4 * 1024 * 1024
"""How much of an abandoned result is read before it is cancelled."""

_COMMITTED: Final = b"COMMIT\0"
"""How the tag of such an end ends; in data it costs a look too many."""
_POISONED = messages.bind(b"", POISON) + messages.SYNC


class Errand(Enum):
    """What a server does when it works for no client."""

    NONE = "none"
    """Linked, or idle in the pool."""
    CLEAN = "clean"
    """Its client is gone; it returns to a clean state."""
    CANCEL = "cancel"
    """A cancel request is under way; its effect must be over before anyone else gets the server."""
    PROBE = "probe"
    """A health check of the pool."""
    ASK = "ask"
    """A question of the proxy's own, such as whether start-up settings are valid."""


class ServerConnection(Pooled, asyncio.Protocol):
    """One connection to the origin, logged in. Made by ``connect``; owned by the pool or by the client it is linked to."""

    __slots__ = (
        "_answer",
        "_asked",
        "_came",
        "_cancelled",
        "_deadline",
        "_drained_bytes",
        "_held",
        "address",
        "baseline",
        "cancel_key",
        "cancels",
        "client",
        "context",
        "customs",
        "errand",
        "filling",
        "pid",
        "session",
        "transport",
        "write",
    )

    def __init__(
        self, context: PoolContext, pid: int, cancel_key: bytes, view: Mapping[bytes, bytes], address: str
    ) -> None:
        super().__init__()
        self.context = context
        self.pid = pid
        self.cancel_key = cancel_key
        self.address = address
        self.session = ServerSession(view)
        self.client: ClientConnection | Refresh | None = None
        self.baseline = ""
        """Stands for the defaults of its settings."""
        self.customs = ""
        """What it began with of settings of programs and libraries."""
        self._held: tuple[bytes, int] | None = None
        """A reply that the client gets when others have heard of what it changed, and its size as it came."""
        self._came = b""
        """What came meanwhile."""
        self.filling: Filling | None = None
        """What the reply that is under way is copied for."""
        self.errand = Errand.NONE
        self.cancels = 0
        self.transport: Transport = cast("Transport", None)
        self._deadline: asyncio.TimerHandle | None = None
        self._drained_bytes = 0
        self._cancelled = False
        self._answer: asyncio.Future[bytes] | None = None
        self._asked: replies.Expected | None = None

    def attach(self, transport: Transport) -> None:
        """Take the transport over after login."""
        self.transport = transport
        self.write = transport.write
        # Bytes on their way to the origin above which the client is not read (W-57).
        transport.set_write_buffer_limits(self.context.write_high)
        transport.set_protocol(self)

    # --- the query path -----------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        session = self.session
        if self._held is not None:
            self._came += data
            self.transport.pause_reading()
            return
        try:
            out = session.receive(data)
            if session.noted:
                heard = self._note_end(out)  # before the client hears that its commit is done
                if heard is not None:
                    self._hold(out, len(data), heard)
                    return
            self._pass_on(out, len(data))
        except Exception as exc:
            self.failed(exc)

    def failed(self, exc: Exception) -> None:
        """Our own code is at fault: nobody knows what this connection has still to say, and to whom."""
        client = self.client
        if client is not None:
            client.failed(exc)
        else:
            guard.fault(self.context.metrics, "server", f"server {self.pid}", exc)
        guard.throw_away(self)

    def _pass_on(self, out: bytes, size: int) -> None:
        session = self.session
        client = self.client
        if client is not None:
            if out:
                client.write(out)
                client.resend = None
            if self.filling is not None:
                self._fill(out)
            if session.usual and session.status == IDLE:
                client.served(self)
            elif session.broken is not None:
                self._broken(session.broken)
            elif not session.queue or (session.copy_in and client.session.terminated):
                client.drained()
        elif session.broken is not None:
            self._broken(session.broken)
        else:
            if self.filling is not None:
                self._fill(out)
            if session.label is settings.EMPTY and self.errand is Errand.NONE:
                # An idle server reports what a reload of the origin's configuration changed (W-33).
                self.context.logged_in(session.view)
            self._working_for_nobody(size)

    # --- what the cache has to know -------------------------------------------------------------------------------------------------

    def _fill(self, out: bytes) -> None:
        """*out* has been passed on: copy it, and see whether that was all."""
        filling, session = self.filling, self.session
        assert filling is not None
        filling.feed(out)
        if session.broken is not None:
            filling.fail()
        elif not session.queue and not session.open_scope:
            filling.finish()

    def _note_end(self, out: bytes) -> Heard | None:
        """Something was asked that may have changed rows: if a transaction has ended, whatever it was is dropped now.

        Returns what the client's reply has to wait for, if other workers have to hear of it.
        """
        session = self.session
        noted = session.noted
        if noted is None:
            return None
        is_over = not session.queue and not session.open_scope
        is_idle = session.status == IDLE
        # A transaction may have ended though another has begun: by AND CHAIN, or in a pipeline.
        may_end = COMMITS in noted and (is_over or _COMMITTED in out)
        if not ((is_over and is_idle) or may_end or messages.READY_IDLE in out):
            return None
        pool, left = self.context.cache, session.client
        if is_over and is_idle:
            session.noted = {} if pool is not None and pool.cache.is_on else None
        if pool is None:
            return None
        is_unknown, heard = writes.applied(noted, pool, left)
        if is_over:
            noted.pop(COMMITS, None)
        if is_unknown and self.client is not None:
            self.client.wrote(pool.database.domain.fill_no)
        return heard

    def _hold(self, out: bytes, size: int, heard: Heard) -> None:
        self._held = out, size
        # Owed to the client like any other reply: it stands in the queue until it has been passed on.
        self.session.queue.appendleft(replies.HEARD)
        self.transport.pause_reading()
        heard.when_heard(self._let_pass)

    @guarded(None)
    def _let_pass(self) -> None:
        """Everybody has heard: the reply goes on its way, and what came behind it."""
        held, self._held = self._held, None
        if held is None:
            return
        if not self.transport.is_closing():
            self.transport.resume_reading()
        out, size = held
        self.session.queue.popleft()
        self._pass_on(out + self.session.fire_fakes(), size)
        came, self._came = self._came, b""
        if came:
            self.data_received(came)

    def _forget_noted(self) -> None:
        """The connection ends: whether what it was asked has taken effect is not known, or will only be."""
        if self.filling is not None:
            self.filling.fail()
        left = self.session.client
        if left is not None and left.forsaken(self.session):
            # Its backend may be at work for a while yet.
            asyncio.get_running_loop().call_later(writes.DOUBT_SECONDS, left.pipe.schema_changed)
        noted, self.session.noted = self.session.noted, None
        pool = self.context.cache
        if noted and pool is not None:
            doubt = writes.lost(noted, pool, left)
            if doubt is not None:
                asyncio.get_running_loop().call_later(writes.DOUBT_SECONDS, doubt.release)

    # --- loss -----------------------------------------------------------------------------------------------------------------------

    def _broken(self, error: HyperdriveError) -> None:
        if isinstance(error, LedgerMismatch):
            self.context.metrics.ledger_mismatches += 1
        log.error("! server %d: %s", self.pid, error.log_text)
        self.transport.abort()
        self._lost(error.log_text)

    def gone(self, reason: str) -> None:
        """The origin's side of the connection is not there any more, though nobody said so."""
        log.warning("! server %d: %s", self.pid, reason)
        self.transport.abort()
        self._lost(reason)

    @guarded(None)
    def eof_received(self) -> None:
        if self.client is None:
            self.discard(CloseReason.ORIGIN_CLOSED)  # before anyone takes it (W-55)

    @guarded(None)
    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(str(exc) if exc is not None else "the connection was closed")

    def _lost(self, reason: str) -> None:
        self._let_pass()  # what it said is true, whoever has not heard of it
        self._stop_deadline()
        fatal = self.session.fatal
        if fatal is not None:
            fields = messages.read_error_fields(fatal)
            reason = f"{fields.get('C')} {fields.get('M')}"
        self.context.pool.discard(self, CloseReason.ORIGIN_CLOSED, reason)
        self._forget_noted()
        client, self.client = self.client, None
        self.session.client = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(OriginLost("the connection to the database was lost", log_text=reason))
        if client is not None:
            client.server_lost(self, reason)

    def close(self, reason: str) -> None:
        """End the connection politely; the pool has forgotten it."""
        self._stop_deadline()
        self._forget_noted()
        if not self.transport.is_closing():
            log.debug("x server %d: %s", self.pid, reason)
            if self.client is None and self.session.is_clean:
                self.transport.write(messages.TERMINATE)
                self.transport.close()
            else:
                self.transport.abort()

    def discard(self, reason: str) -> None:
        """Never lend it again, and close it."""
        self.context.pool.discard(self, reason)
        self._held = None
        self._stop_deadline()
        self._forget_noted()
        if not self.transport.is_closing():
            self.transport.abort()

    # --- back-pressure ----------------------------------------------------------------------------------------------------------------

    @guarded(None)
    def pause_writing(self) -> None:
        if self.client is not None:
            self.client.pause_source()

    @guarded(None)
    def resume_writing(self) -> None:
        if self.client is not None:
            self.client.resume_source()

    # --- work for nobody --------------------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """The linked client is gone: return to a clean state and to the pool, or close (W-52, W-53).

        Its session stays with ours until nothing is under way: what still completes may pin the server.
        """
        session = self.session
        left = session.client
        self.client = None
        self.transport.resume_reading()
        if session.half_sent or session.spoiled or self.transport.is_closing():
            self.discard(CloseReason.CLIENT_LEFT)
            return
        self.errand = Errand.CLEAN
        session.label = settings.UNKNOWN
        if session.copy_in:
            self._end_copy()
        elif session.open_scope and left is not None and left.is_skipping:
            # The origin ignores everything up to Sync already.
            self.transport.write(messages.SYNC)
            session.queue.append(replies.SKIP_SYNC)
            session.open_scope = False
        elif session.open_scope:
            # A bare Sync would commit what the client never finished (W-53).
            self.transport.write(_POISONED)
            session.queue.append(replies.Expected("B", replies.Action.REPLACE))
            session.queue.append(replies.SKIP_SYNC)
            session.open_scope = False
        self._drained_bytes = 0
        self._cancelled = False
        if session.queue:
            self._start_deadline()
        self._working_for_nobody(0)

    def _end_copy(self) -> None:
        session = self.session
        self.transport.write(messages.copy_fail(b"the client is gone"))
        session.copy_in = False
        if session.queue and session.queue[0].kind == "E":
            self.transport.write(messages.SYNC)
            session.queue.append(replies.SKIP_SYNC)
            session.open_scope = False

    def _working_for_nobody(self, size: int) -> None:
        session = self.session
        if session.queue:
            if session.copy_in and self.errand is Errand.CLEAN:
                self._end_copy()  # the origin began to wait for copy data only now
            self._drained_bytes += size
            if self.errand is Errand.CLEAN and self._drained_bytes > DRAIN_BYTES:
                self._drained_bytes = 0
                self._drain_too_long()
            return
        if session.fatal is not None:
            self.discard(CloseReason.ORIGIN_CLOSED)
            return
        if self.errand is Errand.NONE:
            return
        self._stop_deadline()
        if self.errand is Errand.ASK:
            self.errand = Errand.NONE
            session.rest()
            assert self._answer is not None
            assert self._asked is not None
            if not self._answer.done():
                self._answer.set_result(self._asked.captured)
            return
        left, session.client = session.client, None
        if session.status != IDLE:
            session.client = left
            session.failed = True  # what its client did in the transaction, settings above all, is undone
            self._behind(b"ROLLBACK")
        elif left is not None and left.leaves_traces:
            self.discard(CloseReason.CLIENT_LEFT)
        elif left is not None and left.is_pinned:
            session.forget_statements()
            self._behind(b"DISCARD ALL")
            session.label = settings.EMPTY
        elif self.cancels:
            self.errand = Errand.CANCEL
        elif self.errand is Errand.CANCEL:
            # The signal may come after the cancel connection was closed; one more exchange lets it pass (W-50).
            self.errand = Errand.CLEAN
            self._sync()
        elif self.errand is Errand.PROBE:
            self.errand = Errand.NONE
            session.rest()
            self.context.pool.probed(self)
        else:
            self.errand = Errand.NONE
            session.rest()
            self.context.pool.release(self)

    def _behind(self, sql: bytes) -> None:
        self.session.queue.append(replies.SKIP_QUERY)
        self.session.unnamed = None
        self.transport.write(messages.query(sql))
        self._start_deadline()

    async def ask(self, sql: bytes) -> bytes:
        """Run *sql* on this server, which the caller owns, and return every message of the reply but ReadyForQuery.

        Cancelling leaves an answer under way: ``discard`` the server then.

        Raises:
            OriginLost: the connection broke meanwhile.
        """
        self.errand = Errand.ASK
        self._answer = asyncio.get_running_loop().create_future()
        self._asked = replies.Expected("Q", replies.Action.CAPTURE)
        self.session.queue.append(self._asked)
        self.session.unnamed = None
        self.transport.write(messages.query(sql))
        self._start_deadline()
        return await self._answer

    def _sync(self) -> None:
        self.session.queue.append(replies.SKIP_SYNC)
        self.transport.write(messages.SYNC)
        self._start_deadline()

    def probe(self) -> None:
        """Ask for a sign of life, behind the query path."""
        self.errand = Errand.PROBE
        self.session.queue.append(replies.SKIP_SYNC)
        self.transport.write(messages.SYNC)

    # --- deadlines --------------------------------------------------------------------------------------------------------------------

    def _start_deadline(self) -> None:
        self._stop_deadline()
        self._deadline = asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._drain_too_long)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    @guarded(None)
    def _drain_too_long(self) -> None:
        if self._cancelled or self.errand is not Errand.CLEAN:
            self.discard(CloseReason.CLIENT_LEFT)
            return
        self._cancelled = True
        self.cancel()
        self._start_deadline()

    # --- cancel -----------------------------------------------------------------------------------------------------------------------

    def cancel(self) -> asyncio.Future[None] | None:
        """Send a cancel request for what runs now; the server is not lent to anybody until that is over (W-50).

        What is returned is done when the origin has it.
        """
        if not self.cancel_key:
            return None
        self.cancels += 1
        return self.context.send_cancel(self)

    @guarded(None)
    def cancel_over(self) -> None:
        """The origin closed the cancel connection, or it failed."""
        self.cancels -= 1
        if (
            not self.cancels
            and self.errand is Errand.CANCEL
            and not self.session.queue
            and not self.transport.is_closing()
        ):
            self._working_for_nobody(0)

    def settle_cancel(self) -> None:
        """The client has its answer while a cancel is still under way: keep the server back until that is over."""
        self.client = self.session.client = None
        self.errand = Errand.CANCEL
        self._working_for_nobody(0)
