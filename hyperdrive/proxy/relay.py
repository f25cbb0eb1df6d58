"""Replication connections: a client and a server of its own, joined until one of them leaves.

A walsender speaks another language over the same wire (protocol-replication): commands that no classifier knows and a copy in both
directions that may last for months. So nothing is read here, bytes go from one side to the other, and the server never comes near
a pool. Only login and cancel are as for everybody else.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from hyperdrive.errors import HyperdriveError, TooManyConnections
from hyperdrive.net.transport import Transport
from hyperdrive.pgwire import messages
from hyperdrive.proxy.connect import Opened, open_server, send_cancel
from hyperdrive.tasks import spawn

if TYPE_CHECKING:
    from hyperdrive.pool.interfaces import PoolKey
    from hyperdrive.proxy.proxy import Proxy
    from hyperdrive.session.handshake import Admit

log = logging.getLogger("hyperdrive.proxy")

_OFF = frozenset({b"", b"false", b"off", b"no", b"0", b"f", b"n", b"of", b"fals", b"fal", b"fa"})


def asks_for_replication(admit: Admit) -> bool:
    """Whether the client wants a walsender; a value that is no boolean is the origin's to refuse."""
    return admit.replication is not None and admit.replication.lower() not in _OFF


class Relay:
    """One such pair. It is in the proxy's table of relays from ``begin`` until both sides are closed."""

    def __init__(self, proxy: Proxy, key: PoolKey, admit: Admit, client: Transport, opened: Opened) -> None:
        self.proxy = proxy
        self.pool_key = key
        self.admit = admit
        self.client = client
        self.server = opened.transport
        self.since = proxy.clock.now()
        self.pid, self.key = proxy.new_key(admit.protocol_minor)
        self.server_pid = opened.login.pid
        self._opened = opened
        self._open = 2

    @property
    def kind(self) -> str:
        """As SHOW CLIENTS says it."""
        return "logical" if self.admit.replication == b"database" else "physical"

    def begin(self) -> None:
        """Greet the client with what the server said, and let the bytes flow."""
        login = self._opened.login
        self.proxy.relays[self.pid] = self
        self.client.write(
            b"".join(login.notices)
            + messages.parameter_statuses(login.parameters)
            + messages.backend_key_data(self.pid, self.key)
            + messages.READY_IDLE
            + login.leftover
        )
        self.client.set_protocol(_Side(self, self.server))
        self.server.set_protocol(_Side(self, self.client))
        if self.admit.leftover:
            self.server.write(self.admit.leftover)
        self.client.resume_reading()

    def cancel(self) -> asyncio.Future[None]:
        """A cancel request with this client's key came. Done when the origin has it."""
        return spawn(self._send_cancel(), name=f"cancel {self.server_pid}")

    async def _send_cancel(self) -> None:
        origin = self.proxy.origin
        try:
            await send_cancel(origin, origin.addresses, self.server_pid, self._opened.login.cancel_key)
        except (HyperdriveError, TimeoutError, OSError) as exc:
            log.warning("! cancel of server %d failed: %s", self.server_pid, exc)

    def end(self) -> None:
        """Close both sides. An error could only be told in the middle of somebody else's message."""
        self.client.close()
        self.server.close()

    def gone(self, reason: str) -> None:
        """One side is not there any more, though nobody said so."""
        log.warning("! replication client %d: %s", self.pid, reason)
        self.client.abort()
        self.server.abort()

    def lost(self) -> None:
        """One side is gone, so the other has no use."""
        self.end()
        self._open -= 1
        if not self._open:
            self.proxy.relays.pop(self.pid, None)
            self.proxy.pools.limits.give_back(self.pool_key)


class _Side(asyncio.Protocol):
    """What comes from one transport goes to the *other*."""

    __slots__ = ("_other", "_relay", "data_received")

    def __init__(self, relay: Relay, other: Transport) -> None:
        self._relay = relay
        self._other = other
        self.data_received = other.write  # type: ignore[method-assign]

    def eof_received(self) -> None:
        return None

    def pause_writing(self) -> None:
        self._other.pause_reading()

    def resume_writing(self) -> None:
        self._other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay.lost()


async def open_relay(proxy: Proxy, key: PoolKey, admit: Admit, client: Transport) -> Relay | None:
    """Open the server connection for a client that asks for replication; ``None`` when the client has left meanwhile.

    Raises:
        TooManyConnections: the limits on server connections leave no room; such a connection is not worth a queue.
        HyperdriveError: the origin cannot be reached, or refused.
    """
    limits = proxy.pools.limits
    if limits.room(key) < 1:
        raise TooManyConnections("no server connection is left for replication")
    own = {
        name: value
        for name, value in admit.parameters.items()
        if name not in (b"user", b"database") and not name.startswith(b"_pq_.")
    }
    limits.take(key)
    try:
        opened = await open_server(proxy.origin, proxy.directory.origin_credentials(key.user), key.database, own)
    except BaseException:
        limits.give_back(key)
        raise
    if client.is_closing():
        opened.transport.abort()
        limits.give_back(key)
        return None
    return Relay(proxy, key, admit, client, opened)
