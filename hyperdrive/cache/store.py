"""Where entries are kept: a bound in bytes, and who has to go when it is reached.

SIEVE (Zhang et al., NSDI 2024): entries stand in the order they came, nothing moves on a hit, and a hand that goes from the oldest
to the newest takes out what was not hit since it last came by. Here it passes an entry up to three times, depending on what its bytes
cost at the origin, and takes out at once what is invalidated. One store serves all domains of a process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from hyperdrive.cache.admission import Doorkeeper
from hyperdrive.cache.entry import Entry
from hyperdrive.cache.metrics import CacheMetrics
from hyperdrive.cache.tags import Space

_MOST_WORTH: Final = 3
_MEAN_WEIGHT: Final = 1 / 64
_BROOM_STEPS: Final = 2
"""Entries looked at, for age and validity, with each one that is stored."""


class Store:
    """Entries of at most *max_bytes* together, *max_entry_bytes* each. *now* is the clock that entries are dated by."""

    __slots__ = (
        "_broom",
        "_hand",
        "_mean_cost",
        "_newest",
        "_now",
        "_oldest",
        "count",
        "door",
        "hits",
        "max_bytes",
        "max_entry_bytes",
        "metrics",
        "shadow_hits",
        "size_bytes",
    )

    def __init__(self, max_bytes: int, max_entry_bytes: int, metrics: CacheMetrics, now: Callable[[], float]) -> None:
        self.max_bytes = max_bytes
        self.max_entry_bytes = max_entry_bytes
        self.metrics = metrics
        self._now = now
        self.size_bytes = 0
        self.count = 0
        self.door = Doorkeeper()
        self.hits = 0
        """Added to by whoever serves."""
        self.shadow_hits = 0
        """Those that would have been."""
        self._mean_cost = 0.0
        """Origin seconds per byte of what was stored lately."""
        self._newest: Entry | None = None
        self._oldest: Entry | None = None
        self._hand: Entry | None = None
        self._broom: Entry | None = None

    # --- in -----------------------------------------------------------------------------------------------------------------

    @property
    def is_choosy(self) -> bool:
        """Only what comes again is kept: memory is short, or hardly anything came twice of late."""
        return self.door.is_strict or self.size_bytes > self.max_bytes - (self.max_bytes >> 4)

    def admits(self, space: Space, key: bytes) -> bool:
        """Whether an answer for *key* would be kept, so that it is worth a copy; asking counts as a sighting (rule 23)."""
        door = self.door
        door.missed(self.hits + self.shadow_hits)
        is_short = self.size_bytes > self.max_bytes - (self.max_bytes >> 4)
        if not is_short and not door.is_strict:
            return True
        if door.saw(hash(key) ^ hash(space.identity)):
            return True
        self.metrics.not_stored_admission += 1
        return False

    def turns_away(self, space: Space, key: bytes) -> bool:
        """``admits`` for a store that is choosy: ``True`` if it says no. ``False``: ask that; nothing has been counted."""
        if self.door.turns_away(hash(key) ^ hash(space.identity)):
            self.metrics.not_stored_admission += 1
            return True
        return False

    def put(self, entry: Entry) -> bool:
        """Keep *entry* in the place of what stood under its key; ``False`` if it is too large."""
        size = entry.size_bytes
        if size > self.max_entry_bytes or size > self.max_bytes:
            self.metrics.not_stored_size += 1
            return False
        entries = entry.space.entries
        old = entries.get(entry.key)
        if old is not None:
            entry.hits, old.hits = old.hits, 0  # what is hot stays hot over a refresh
            entry.counted_hits = old.counted_hits
            self._remove(old)
        self._weigh(entry)
        while self.size_bytes + size > self.max_bytes and self._evict():
            pass
        entries[entry.key] = entry
        entry.older = self._newest
        if self._newest is not None:
            self._newest.newer = entry
        self._newest = entry
        if self._oldest is None:
            self._oldest = entry
        entry.is_stored = True
        self.size_bytes += size
        self.count += 1
        self.metrics.stored += 1
        self.sweep(_BROOM_STEPS)
        return True

    def _weigh(self, entry: Entry) -> None:
        """How often the hand passes it without a hit: more for what cost the origin more per byte than the others."""
        cost = entry.cost_seconds / entry.size_bytes
        mean = self._mean_cost
        entry.worth = 1 if cost < 2 * mean or not mean else 2 if cost < 8 * mean else _MOST_WORTH
        entry.credit = entry.worth - 1
        self._mean_cost = cost if not mean else mean + (cost - mean) * _MEAN_WEIGHT

    def saw(self, entry: Entry) -> None:
        """*entry* would have been served: it is as worth keeping as if it had been."""
        self.shadow_hits += 1
        entry.counted_hits = -1  # differs from its hits, which is what the hand looks at

    # --- out ----------------------------------------------------------------------------------------------------------------

    def drop(self, entry: Entry) -> None:
        """Take *entry* out because it is invalidated or purged; nothing happens if it has gone."""
        if entry.is_stored:
            self.metrics.dropped += 1
            self._remove(entry)

    def _remove(self, entry: Entry) -> None:
        newer, older = entry.newer, entry.older
        if newer is not None:
            newer.older = older
        else:
            self._newest = older
        if older is not None:
            older.newer = newer
        else:
            self._oldest = newer
        if self._hand is entry:
            self._hand = newer
        if self._broom is entry:
            self._broom = newer
        entry.newer = entry.older = None
        entry.is_stored = False
        self.size_bytes -= entry.size_bytes
        self.count -= 1
        entries = entry.space.entries
        if entries.get(entry.key) is entry:
            del entries[entry.key]
        if entry.shape is not None:
            entry.shape.take(entry)

    def _evict(self) -> bool:
        """Let the hand go on until it has taken one out; ``False`` when there is none."""
        entry = self._hand or self._oldest
        while entry is not None:
            if not entry.is_valid():
                self._hand = entry.newer
                self.drop(entry)
                return True
            if entry.hits != entry.counted_hits:
                entry.counted_hits = entry.hits
                entry.credit = entry.worth
            if entry.credit <= 0:
                self._hand = entry.newer
                self._remove(entry)
                self.metrics.evicted += 1
                return True
            entry.credit -= 1
            entry = entry.newer or self._oldest
        return False

    def sweep(self, steps: int) -> int:
        """Look at the next *steps* entries and take out what is invalidated or too old to serve anyone; returns how many."""
        found = 0
        now = self._now()
        for _ in range(min(steps, self.count)):
            entry = self._broom or self._oldest
            if entry is None:
                break
            self._broom = entry.newer
            if not entry.is_valid():
                self.drop(entry)
                found += 1
            elif now >= entry.error_until:
                self._remove(entry)
                self.metrics.expired += 1
                found += 1
        return found

    def purge(self, wanted: Callable[[Entry], bool]) -> int:
        """Take out every entry that is *wanted*; returns how many. What is under way has to be doomed by the caller."""
        self.metrics.invalidations_purge += 1
        found = [entry for entry in self if wanted(entry)]
        for entry in found:
            self.drop(entry)
        return len(found)

    def resize(self, max_bytes: int, max_entry_bytes: int) -> None:
        """These bounds hold from now on."""
        self.max_bytes, self.max_entry_bytes = max_bytes, max_entry_bytes
        while self.size_bytes > max_bytes and self._evict():
            pass

    def __iter__(self) -> Iterator[Entry]:
        """From the oldest to the newest; nothing may be stored meanwhile."""
        entry = self._oldest
        while entry is not None:
            following = entry.newer
            yield entry
            entry = following

    def __len__(self) -> int:
        return self.count
