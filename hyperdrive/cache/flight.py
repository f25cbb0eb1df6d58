"""A flight: several who miss the same key at the same time, of whom one asks (caching-rules §14).

The leader's fill is everybody's, if it was sent after what the follower wrote last and nothing has happened to its tags since. When
it fails, for whatever reason, all run for themselves: errors are never shared. Knows no client: a follower is anything that can be told.
"""

from __future__ import annotations

from typing import Protocol

from hyperdrive.cache.entry import Entry
from hyperdrive.cache.fill import Fill


class Follower(Protocol):
    """Somebody who waits for the answer of another. Exactly one of the two is called, once."""

    def serve(self, entry: Entry) -> None:
        """Here is the answer; it holds at this moment."""

    def run_alone(self) -> None:
        """There is none: ask for yourself, without joining another flight."""


class Flight:
    """In ``space.flights`` from its making until ``land`` or ``fail``."""

    __slots__ = ("_followers", "fill")

    def __init__(self, fill: Fill) -> None:
        self.fill = fill
        self._followers: dict[Follower, None] = {}
        fill.space.flights[fill.key] = self

    def may_join(self, last_write_no: int) -> bool:
        """Whether the answer under way is one that somebody whose last write had that number may have."""
        fill = self.fill
        return fill.no > last_write_no and fill.is_copied and not fill.is_doomed()

    def join(self, follower: Follower) -> None:
        """*follower* waits until it is served, told to run, or leaves."""
        self._followers[follower] = None
        self.fill.space.domain.metrics.flights_joined += 1

    def leave(self, follower: Follower) -> None:
        """*follower* waits no longer; nothing happens if it does not."""
        self._followers.pop(follower, None)

    def land(self, entry: Entry) -> None:
        """The answer is there. A follower that is slow to take it keeps nobody waiting: each is only told."""
        followers = self._end()
        for follower in followers:
            # One that was served may have changed something: what it is told must hold at that very moment.
            if entry.is_valid():
                follower.serve(entry)
            else:
                follower.run_alone()

    def fail(self) -> None:
        """There will be no answer that can be shared."""
        for follower in self._end():
            follower.run_alone()

    def _end(self) -> list[Follower]:
        flights = self.fill.space.flights
        if flights.get(self.fill.key) is self:
            del flights[self.fill.key]
        followers = list(self._followers)
        self._followers.clear()
        return followers

    def __len__(self) -> int:
        return len(self._followers)
