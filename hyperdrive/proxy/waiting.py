"""Waiting for an answer that is under way: another client's, or the second level's (caching-rules §14).

Whoever waits is served, or asks for itself; nobody waits twice, nor beyond a deadline. Knows flights; knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from hyperdrive.proxy.guard import guarded
from hyperdrive.proxy.serving import Serving

if TYPE_CHECKING:
    from hyperdrive.cache.entry import Entry
    from hyperdrive.cache.flight import Flight
    from hyperdrive.proxy.client import ClientConnection
    from hyperdrive.proxy.fills import Filling
    from hyperdrive.proxy.pool_cache import PoolCache


class Waiting(Serving):
    """The part of a reader that waits on its client's behalf: the follower in a flight."""

    __slots__ = ("_flight", "_probing", "_timer")

    def __init__(self, client: ClientConnection, pool: PoolCache) -> None:
        super().__init__(client, pool)
        self._flight: Flight | None = None
        self._probing: Filling | None = None
        """What the second level is being asked for."""
        self._timer: asyncio.TimerHandle | None = None

    def _probe(self, filling: Filling) -> bool:
        """Look into the second level before the origin is asked; the client waits, for milliseconds at most."""
        shelf = self._pool.database.shelf
        if shelf is None or not shelf.can_ask or self._client.lead is not None:
            return False
        self._probing = filling
        self._client.waiting = True
        shelf.probe(filling.fill, partial(self._probed, filling))
        return True

    def _probed(self, filling: Filling, entry: Entry | None) -> None:
        if self._probing is not filling:
            return  # the client has left, and the flight has failed
        self._probing = None
        if entry is not None:
            self._store.hits += 1
            filling.adopt(entry)
            if entry.is_valid():
                self._serve_waiting(entry, "hit")
            else:
                self._client.run_alone()  # whoever was served by it has changed something
            return
        if filling.shape is not None:
            self._missed(filling.shape)
        self._client.lead = filling
        self._client.run_alone()

    # --- waiting for another --------------------------------------------------------------------------------------------------

    def _join(self, flight: Flight) -> None:
        flight.join(self)
        self._flight = flight
        self._client.waiting = True
        self._timer = asyncio.get_running_loop().call_later(self._pool.cache.settings.flight_seconds, self._tired)

    def leave(self) -> None:
        """The client waits no longer; nothing happens if it does not."""
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.leave(self)
        probing, self._probing = self._probing, None
        if probing is not None:
            probing.fail()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def retire(self) -> None:
        """There is no cache any more: whoever waits in a flight asks for itself."""
        if self._flight is not None or self._probing is not None:
            self.run_alone()

    def failed(self, exc: Exception) -> None:
        """Our own code is at fault while another's answer is handed on: it concerns this client, not the one that asked."""
        self._client.failed(exc)

    @guarded(None)
    def _tired(self) -> None:
        self.leave()
        self._client.run_alone()

    @guarded(None)
    def serve(self, entry: Entry) -> None:
        """The leader's answer has come."""
        self.leave()
        self._serve_waiting(entry, "miss")

    def _serve_waiting(self, entry: Entry, how: str) -> None:
        client = self._client
        session = client.session
        if session.whole is None or client.transport.is_closing():
            client.run_alone()  # more came meanwhile
            return
        client.waiting = False
        self._serve(session, session.ops[0][0], entry, how, self._now())
        client.transport.resume_reading()
        if session.terminated:
            client.connection_lost(None)

    @guarded(None)
    def run_alone(self) -> None:
        """There is no answer to share."""
        self.leave()
        self._client.run_alone()
