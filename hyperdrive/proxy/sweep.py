"""Ends clients that are idle for too long.

One timer for all of them: the query path sets ``idle_sweeps`` to 0, the sweeper adds 1 whenever it comes by, and nobody reads a
clock. A client is ended between its timeout and an eighth of it later. The texts and SQLSTATEs are PostgreSQL's
(idle_session_timeout, idle_in_transaction_session_timeout in runtime-config-client).
"""

from __future__ import annotations

import asyncio
from math import ceil
from typing import TYPE_CHECKING

from hyperdrive.errors import ShuttingDown
from hyperdrive.session.server import IDLE

if TYPE_CHECKING:
    from hyperdrive.proxy.client import ClientConnection
    from hyperdrive.proxy.proxy import Proxy

SWEEPS_PER_TIMEOUT = 8
SHORTEST_SECONDS = 0.05
LONGEST_SECONDS = 10.0


class Sweeper:
    """Goes round the clients of one proxy while a timeout is set."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._idle_sweeps = self._transaction_sweeps = 0
        self._period = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def change(self, idle_seconds: float, transaction_seconds: float) -> None:
        """Use these timeouts from now on; 0 is none. Idle times begin anew."""
        self.close()
        timeouts = [seconds for seconds in (idle_seconds, transaction_seconds) if seconds > 0]
        if not timeouts:
            return
        self._period = min(max(min(timeouts) / SWEEPS_PER_TIMEOUT, SHORTEST_SECONDS), LONGEST_SECONDS)
        # One more: the first sweep may come right after the client's last word.
        self._idle_sweeps = ceil(idle_seconds / self._period) + 1 if idle_seconds > 0 else 0
        self._transaction_sweeps = ceil(transaction_seconds / self._period) + 1 if transaction_seconds > 0 else 0
        for client in self._proxy.clients.values():
            client.idle_sweeps = 0
        self._schedule()

    def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._period, self._go)

    def _go(self) -> None:
        self._schedule()
        for client in list(self._proxy.clients.values()):
            self._look_at(client)

    def _look_at(self, client: ClientConnection) -> None:
        server = client.server
        if client.waiting or (server is not None and server.session.queue):
            client.idle_sweeps = 0
            return
        client.idle_sweeps += 1
        if client.session.is_holding or (server is not None and server.session.status != IDLE):
            if 0 < self._transaction_sweeps <= client.idle_sweeps:
                self._end(client, "terminating connection due to idle-in-transaction timeout", "25P03")
        elif 0 < self._idle_sweeps <= client.idle_sweeps:
            self._end(client, "terminating connection due to idle-session timeout", "57P05")

    def _end(self, client: ClientConnection, text: str, sqlstate: str) -> None:
        self._proxy.metrics.clients_timed_out += 1
        client.end(ShuttingDown(text, sqlstate=sqlstate))
