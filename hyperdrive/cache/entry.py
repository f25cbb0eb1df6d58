"""One stored answer, and whether it still holds.

The bytes are the caller's: the cache never looks into them. Times are seconds on the caller's clock.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable
from math import log
from typing import Final

from hyperdrive.cache.tags import Space, Tag

_GC_HEAD: Final = 16
_NUMBERS: Final = 6 * 24 + 2 * 32
"""Floats and large integers that belong to one entry alone."""
_DICT_SLOT: Final = 64
"""A key's place in a dict, on average between two times that it grows."""


class Entry:
    """An answer under its key. A hit reads ``body``, compares ``seen`` and ``early_from``, and adds to ``hits``."""

    __slots__ = (
        "body",
        "cost_seconds",
        "counted_hits",
        "credit",
        "early_from",
        "error_until",
        "fill_no",
        "fresh_until",
        "hits",
        "info",
        "is_stored",
        "key",
        "newer",
        "older",
        "proof",
        "seen",
        "sent_at",
        "seq",
        "shape",
        "size_bytes",
        "space",
        "stale_until",
        "tags",
        "worth",
    )

    def __init__(
        self, space: Space, key: bytes, body: bytes, tags: tuple[Tag, ...], *, seq: int, fill_no: int, sent_at: float
    ) -> None:
        self.space = space
        self.key = key
        self.body = body
        self.tags = tags
        """Those of what it was read from, and the domain's CATALOG."""
        self.seq = seq
        """The domain's sequence when it was stored: a tag touched later has invalidated it."""
        self.seen = seq
        """The sequence at which it was last found valid."""
        self.fill_no = fill_no
        self.sent_at = sent_at
        """When its fill was sent: its age counts from there."""
        self.cost_seconds = 0.0
        self.early_from = self.fresh_until = self.stale_until = self.error_until = sent_at
        self.proof: object = None
        """What the fill was checked against (a snapshot, a position); the caller's."""
        self.info: object = None
        """What the caller wants to find again with it."""
        self.shape: Shape | None = None
        self.hits = 0
        self.counted_hits = 0
        self.credit = 0
        self.worth = 1
        self.is_stored = False
        self.newer: Entry | None = None
        self.older: Entry | None = None
        self.size_bytes = ENTRY_BYTES + sys.getsizeof(body) + sys.getsizeof(key) + 56 + 8 * len(tags)

    def is_valid(self) -> bool:
        """No event since it was stored has invalidated it. Says nothing of its age."""
        now = self.space.domain.seq
        if self.seen == now:
            return True
        seq = self.seq
        for tag in self.tags:
            if tag.touched_at > seq:
                return False
        self.seen = now
        return True

    def wants_refresh(self, now: float, chance: float) -> bool:
        """Refresh it before it expires, with a probability that grows towards the end and with what asking costs
        (XFetch; Vattani et al., VLDB 2015). *chance* is uniform in (0, 1]."""
        return now - self.cost_seconds * log(chance) >= self.fresh_until

    def has(self, name: Hashable) -> bool:
        """It carries the tag of that name."""
        return any(tag.name == name for tag in self.tags)

    def __repr__(self) -> str:
        return f"<Entry {self.key[:40]!r} {self.size_bytes} bytes>"


class Shape:
    """What was seen of statements that differ in their values only; the caller names it and reads the numbers.

    Hits of entries that are stored are added up when somebody looks, since a hit counts in its entry only.
    """

    __slots__ = (
        "__weakref__",
        "bypasses",
        "hits",
        "misses",
        "name",
        "note",
        "saved_seconds",
        "seconds",
        "would_be_hits",
        "would_be_stale",
    )

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.hits = 0
        """Of entries that are gone."""
        self.saved_seconds = 0.0
        self.misses = 0
        self.bypasses = 0
        self.seconds = 0.0
        """What the origin took for the misses."""
        self.would_be_hits = 0
        self.would_be_stale = 0
        self.note: object = None
        """The caller's: what it knows of the statement."""

    def take(self, entry: Entry) -> None:
        """*entry* goes: keep what it counted."""
        self.hits += entry.hits
        self.saved_seconds += entry.hits * entry.cost_seconds


def _size_of_one() -> int:
    entry = object.__new__(Entry)
    return sys.getsizeof(entry) + _GC_HEAD + _NUMBERS + _DICT_SLOT


ENTRY_BYTES: Final = _size_of_one()
"""What an entry takes beside its key, its body and its tuple of tags; tests hold it against tracemalloc."""
