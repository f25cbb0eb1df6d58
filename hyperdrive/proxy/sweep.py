"""Ends clients that are idle for too long.

One timer for all of them: the query path sets ``idle_sweeps`` to 0, the sweeper adds 1 whenever it comes by, and nobody reads a
clock. A client is ended between its timeout and an eighth of it later. One that has set an ``idle_session_timeout`` of its own has
rounds of its own. The texts and SQLSTATEs are PostgreSQL's (idle_session_timeout, idle_in_transaction_session_timeout in
runtime-config-client).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from hyperdrive.errors import ShuttingDown
from hyperdrive.session.idle import timeout_of
from hyperdrive.session.server import IDLE

if TYPE_CHECKING:
    from hyperdrive.proxy.client import ClientConnection
    from hyperdrive.proxy.proxy import Proxy

SWEEPS_PER_TIMEOUT = 8
SHORTEST_SECONDS = 0.05
LONGEST_SECONDS = 10.0
SOON_SECONDS = 0.05
"""How long after a client has set a timeout of its own it is looked for; those that do so at the same time share one look."""


@dataclass(frozen=True, slots=True)
class _Rounds:
    """How often to come by, and after how many times a client has been idle for too long; 0: never."""

    period: float
    idle: int
    transaction: int

    @classmethod
    def of(cls, idle_seconds: float, transaction_seconds: float) -> _Rounds | None:
        timeouts = [seconds for seconds in (idle_seconds, transaction_seconds) if seconds > 0]
        if not timeouts:
            return None
        period = min(max(min(timeouts) / SWEEPS_PER_TIMEOUT, SHORTEST_SECONDS), LONGEST_SECONDS)
        # One more: the first sweep may come right after the client's last word.
        idle, transaction = (
            ceil(seconds / period) + 1 if seconds > 0 else 0 for seconds in (idle_seconds, transaction_seconds)
        )
        return cls(period, idle, transaction)


class Sweeper:
    """Goes round the clients of one proxy while a timeout is set."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._idle_seconds = self._transaction_seconds = 0.0
        self._rounds: _Rounds | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._own: dict[ClientConnection, tuple[int, asyncio.TimerHandle]] = {}
        """Clients that have set a timeout of their own, with its milliseconds and their next sweep."""

    def change(self, idle_seconds: float, transaction_seconds: float) -> None:
        """Use these timeouts from now on; 0 is none. Idle times begin anew."""
        self.close()
        self._idle_seconds, self._transaction_seconds = idle_seconds, transaction_seconds
        self._rounds = _Rounds.of(idle_seconds, transaction_seconds)
        for client in self._proxy.clients.values():
            client.idle_sweeps = 0
        if self._rounds is not None:
            self._schedule(self._rounds)
        self.look_soon()

    def close(self) -> None:
        """Stop."""
        for timer in (self._timer, self._look, *(timer for _, timer in self._own.values())):
            if timer is not None:
                timer.cancel()
        self._timer = self._look = None
        self._own.clear()

    # --- timeouts for all ---------------------------------------------------------------------------------------------------------

    def _schedule(self, rounds: _Rounds) -> None:
        self._timer = asyncio.get_running_loop().call_later(rounds.period, self._go, rounds)

    def _go(self, rounds: _Rounds) -> None:
        self._schedule(rounds)
        for client in list(self._proxy.clients.values()):
            if client not in self._own:
                self._look_at(client, rounds)

    def _look_at(self, client: ClientConnection, rounds: _Rounds) -> None:
        server = client.server
        if client.waiting or (server is not None and server.session.queue):
            client.idle_sweeps = 0
            return
        client.idle_sweeps += 1
        if client.session.is_holding or (server is not None and server.session.status != IDLE):
            if 0 < rounds.transaction <= client.idle_sweeps:
                self._end(client, "terminating connection due to idle-in-transaction timeout", "25P03")
        elif 0 < rounds.idle <= client.idle_sweeps:
            self._end(client, "terminating connection due to idle-session timeout", "57P05")

    def _end(self, client: ClientConnection, text: str, sqlstate: str) -> None:
        self._proxy.metrics.clients_timed_out += 1
        client.end(ShuttingDown(text, sqlstate=sqlstate))

    # --- a client's own -----------------------------------------------------------------------------------------------------------

    def look_soon(self) -> None:
        """A client may have set an ``idle_session_timeout``."""
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(SOON_SECONDS, self._find)

    def _find(self) -> None:
        self._look = None
        for client in self._proxy.clients.values():
            milliseconds = timeout_of(client.session.journal.wanted)
            known = self._own.get(client)
            if milliseconds is not None and (known is None or known[0] != milliseconds):
                if known is not None:
                    known[1].cancel()
                self._watch(client, milliseconds)

    def _watch(self, client: ClientConnection, milliseconds: int) -> None:
        # The one for all holds for it as well: whoever runs the proxy set it.
        shorter = [seconds for seconds in (milliseconds / 1000, self._idle_seconds) if seconds > 0]
        rounds = _Rounds.of(min(shorter, default=0.0), self._transaction_seconds)
        if rounds is None:
            self._own.pop(client, None)
            return
        client.idle_sweeps = 0
        self._own_next(client, milliseconds, rounds)

    def _own_next(self, client: ClientConnection, milliseconds: int, rounds: _Rounds) -> None:
        timer = asyncio.get_running_loop().call_later(rounds.period, self._come_by, client, milliseconds, rounds)
        self._own[client] = milliseconds, timer

    def _come_by(self, client: ClientConnection, milliseconds: int, rounds: _Rounds) -> None:
        del self._own[client]
        if client.transport.is_closing():
            return
        now = timeout_of(client.session.journal.wanted)
        if now is None:
            client.idle_sweeps = 0
        elif now != milliseconds:
            self._watch(client, now)
        else:
            self._own_next(client, milliseconds, rounds)
            self._look_at(client, rounds)
