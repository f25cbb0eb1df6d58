"""A refresh: what a client would have asked, asked behind it, with its identity and for nobody (caching-rules §14).

It takes a server like a client does and gives it back when the reply has passed; the fill keeps what may be kept. Knows servers,
sessions and fills.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperdrive.errors import HyperdriveError
from hyperdrive.pool.interfaces import CloseReason
from hyperdrive.proxy import guard
from hyperdrive.proxy.guard import guarded
from hyperdrive.session.client import ClientSession

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperdrive.proxy.context import PoolContext
    from hyperdrive.proxy.fills import Filling
    from hyperdrive.proxy.server import ServerConnection
    from hyperdrive.session.settings import Label


class Refresh:
    """One of them. To a server it is its client, to the pool somebody who waits."""

    __slots__ = ("_context", "_filling", "_server", "pid", "resend", "session", "waiting")

    def __init__(
        self, context: PoolContext, wanted: Label, told: Mapping[bytes, bytes], batch: bytes, filling: Filling
    ) -> None:
        self.session = ClientSession(context.pipe, wanted, told)
        self.session.receive(batch)
        self.pid = 0
        self.resend: object = None
        self.waiting = True
        self._context = context
        self._filling = filling
        self._server: ServerConnection | None = None

    def start(self) -> None:
        """Take a server, or wait for one."""
        server = self._context.pool.take()
        if server is None:
            self._context.pool.wait(self)
        else:
            self.offer(server)

    @property
    def is_in_transaction(self) -> bool:
        """Nobody waits for it."""
        return False

    @guarded(True)
    def offer(self, server: ServerConnection) -> bool:
        """The pool has a server."""
        self.waiting = False
        self._server = server
        state = server.session
        server.client = self
        state.client = self.session
        data = self.session.compose(state)
        self._filling.start(server)
        server.transport.write(data)
        return True

    def refuse(self, error: HyperdriveError) -> None:
        """It has none: whoever asks next leads a fill."""
        self._filling.fail()

    # --- what a server tells its client -----------------------------------------------------------------------------------------

    def write(self, out: bytes) -> None:
        """Nobody reads it."""

    def wrote(self, fill_no: int) -> None:
        """It writes nothing."""

    def pause_source(self) -> None:
        """The server cannot take more, and there is no more."""

    def resume_source(self) -> None:
        """See ``pause_source``."""

    def served(self, server: ServerConnection) -> None:
        """The whole reply has come in the usual way."""
        self._give_back(server)

    def drained(self) -> None:
        """The server owes nothing."""
        assert self._server is not None
        self._give_back(self._server)

    def failed(self, exc: Exception) -> None:
        """Our own code is at fault. Nobody has to be told; the server goes."""
        guard.fault(self._context.metrics, "refresh", "a refresh", exc)
        server, self._server = self._server, None
        if server is not None:
            guard.throw_away(server)
        guard.carry_out(self._filling.fail)

    def server_lost(self, server: ServerConnection, reason: str) -> None:
        """The fill has failed already."""

    def _give_back(self, server: ServerConnection) -> None:
        self._server = server.client = server.session.client = None
        if server.session.is_clean:
            server.session.rest()
            self._context.pool.release(server)
        else:
            server.discard(CloseReason.OTHER)
