"""Ends peers that take nothing of what they are sent (W-58): clients that do not read, peers that are gone without a word.

A client whose answer waits keeps its server from others; a program may pause, so it gets a generous time, and every byte that its
kernel takes begins it anew. An origin that does not read is another matter: a COPY that waits for a lock is not read either. So it
is given up only when its kernel acknowledges nothing, and so is, sooner than one that only rests, a client that holds a server. One
timer for all, and nothing on the query path.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hyperdrive.errors import ShuttingDown
from hyperdrive.net.transport import Transport
from hyperdrive.net.unsent import is_unanswered, unsent_bytes

if TYPE_CHECKING:
    from hyperdrive.proxy.client import ClientConnection
    from hyperdrive.proxy.proxy import Proxy

log = logging.getLogger("hyperdrive.proxy")

LOOKS_PER_TIMEOUT: Final = 8
SHORTEST_SECONDS: Final = 0.05
LONGEST_SECONDS: Final = 10.0


class Stalls:
    """Looks after the clients and servers of one proxy. A peer is ended between its timeout and one look later."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._client_seconds = self._gone_seconds = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._clients: dict[ClientConnection, tuple[int, float]] = {}
        """Those whose answers wait, with the bytes that are left and since when they have not become less."""
        self._silent: dict[Transport, float] = {}
        """Those whose peers acknowledge nothing, with the time at which that was first seen."""

    def start(self, client_seconds: float, gone_seconds: float) -> None:
        """Look from now on; a timeout of 0 is none."""
        self._client_seconds, self._gone_seconds = client_seconds, gone_seconds
        self._schedule()

    def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._clients.clear()
        self._silent.clear()

    def _schedule(self) -> None:
        timeouts = [seconds for seconds in (self._client_seconds, self._gone_seconds) if seconds > 0]
        if timeouts:
            pause = min(max(min(timeouts) / LOOKS_PER_TIMEOUT, SHORTEST_SECONDS), LONGEST_SECONDS)
            self._timer = asyncio.get_running_loop().call_later(pause, self._look)

    def _look(self) -> None:
        self._schedule()
        now = asyncio.get_running_loop().time()
        if self._client_seconds > 0:
            self._look_at_clients(now)
        if self._gone_seconds > 0:
            self._look_for_the_gone(now)

    def _look_at_clients(self, now: float) -> None:
        before, self._clients = self._clients, {}
        for client in list(self._proxy.clients.values()):
            if not client.is_paused:
                continue
            left = unsent_bytes(client.transport)
            had, since = before.get(client, (left + 1, now))
            if left < had:
                since = now
            if now - since < self._client_seconds:
                self._clients[client] = left, since
                continue
            log.warning(
                "! client %d took nothing of %d bytes for %.0f s and is ended (client_stall_timeout)%s",
                client.pid,
                left,
                now - since,
                "" if client.server is None else f"; it held server {client.server.pid}",
            )
            self._proxy.metrics.clients_stalled += 1
            client.end(ShuttingDown("terminating connection because the client does not read (client_stall_timeout)"))

    def _look_for_the_gone(self, now: float) -> None:
        before, self._silent = self._silent, {}
        servers = [row.server for pool in self._proxy.pools for row in pool.servers()]
        ways: list[tuple[Transport, Callable[[str], None]]] = [(server.transport, server.gone) for server in servers]
        ways += [(one.transport, one.gone) for one in self._proxy.clients.values() if one.server is not None]
        for relay in self._proxy.relays.values():
            ways += [(relay.client, relay.gone), (relay.server, relay.gone)]
        for transport, give_up in ways:
            if not is_unanswered(transport):
                continue
            since = before.get(transport, now)
            if now - since < self._gone_seconds:
                self._silent[transport] = since
            else:
                give_up(f"nothing that was sent has been acknowledged for {now - since:.0f} s (tcp_user_timeout)")
