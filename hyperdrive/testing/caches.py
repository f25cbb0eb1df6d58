"""A cache on a table: one store, one domain, a clock that stands still, and short words for what tests do with them."""

from __future__ import annotations

from collections.abc import Hashable

from hyperdrive.cache.entry import Entry
from hyperdrive.cache.fill import Fill, open_fill
from hyperdrive.cache.metrics import CacheMetrics
from hyperdrive.cache.policy import Policy
from hyperdrive.cache.store import Store
from hyperdrive.cache.tags import Domain, Space
from hyperdrive.clock import ManualClock


class CacheBench:
    """Everything in it is reachable and nothing is hidden."""

    def __init__(self, max_bytes: int = 1 << 20, max_entry_bytes: int = 1 << 18) -> None:
        self.clock = ManualClock()
        self.metrics = CacheMetrics()
        self.store = Store(max_bytes, max_entry_bytes, self.metrics, self.clock.now)
        self.domain = Domain("db", self.metrics)
        self.space = self.domain.space(b"identity")
        self.policy = Policy()

    def open(self, key: bytes, *tags: Hashable, space: Space | None = None, bound: int = 1 << 18) -> Fill:
        """A fill sent now."""
        names = tuple(self.domain.tag(tag) for tag in tags)
        return open_fill(space or self.space, key, names, self.policy, self.clock.now(), bound=bound)

    def finish(self, fill: Fill, body: bytes = b"rows", *, cost: float = 0.0) -> Entry | None:
        """Its answer is complete, *cost* seconds later: stored if it may be."""
        fill.feed(body)
        self.clock.advance(cost)
        found = fill.take()
        if found is None or not fill.may_store():
            return None
        entry = fill.entry(found, self.clock.now(), 0.0)
        return entry if self.store.put(entry) else None

    def fill(self, key: bytes, *tags: Hashable, body: bytes = b"rows", cost: float = 0.0) -> Entry:
        """An entry, stored now."""
        entry = self.finish(self.open(key, *tags), body, cost=cost)
        assert entry is not None
        return entry

    def read(self, key: bytes, space: Space | None = None) -> bytes | None:
        """What a reader gets now from a fresh entry, counted as a hit."""
        entry = (space or self.space).entries.get(key)
        if entry is None or not entry.is_valid() or self.clock.now() >= entry.fresh_until:
            return None
        entry.hits += 1
        self.store.hits += 1
        return entry.body
