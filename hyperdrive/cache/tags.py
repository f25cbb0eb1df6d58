"""What invalidates: tags, and the domain in which they count (caching-rules §10.3).

A tag is an object with two numbers, so that invalidating it is O(1) and checking an entry compares integers. A ``Domain`` is what
one unknown change can reach, one database of an origin: it has the sequence, the epoch, and the spaces whose entries it vouches for.
Numbers never leave their process. Knows bytes and numbers; knows no origin and no store.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakValueDictionary

from hyperdrive.cache.metrics import CacheMetrics

if TYPE_CHECKING:
    from hyperdrive.cache.entry import Entry
    from hyperdrive.cache.flight import Flight

CATALOG: Final = "CATALOG"
"""The name of the pseudo-tag that every entry of a domain carries."""


class Tag:
    """What an event touches. Compare by identity; ``Domain.tag`` gives the one of a name."""

    __slots__ = ("__weakref__", "doomed_at", "holds", "name", "touched_at")

    def __init__(self, name: Hashable) -> None:
        self.name = name
        self.touched_at = 0
        """Sequence of the last event: an entry with a smaller one is invalidated."""
        self.doomed_at = 0
        """Sequence of the last event that a fill under way may not have seen, whatever it read."""
        self.holds = 0
        """It may change at any moment without a word: nothing that has it is stored."""

    def __repr__(self) -> str:
        return f"<Tag {self.name!r}>"


class Space:
    """The entries of one identity: origin, database, roles, path and settings are the same bytes for all of them.

    It lives as long as somebody holds it, a client or one of its entries.
    """

    __slots__ = ("__weakref__", "domain", "entries", "epoch", "flights", "identity")

    def __init__(self, domain: Domain, identity: bytes) -> None:
        self.domain = domain
        self.epoch = domain.epoch
        """When the domain's is another, the identity may mean something else, and nothing is stored here any more."""
        self.identity = identity
        self.entries: dict[bytes, Entry] = {}
        """By the whole key: full bytes are compared, a hash only finds them (caching-rules §2)."""
        self.flights: dict[bytes, Flight] = {}

    def __repr__(self) -> str:
        return f"<Space {self.identity[:40]!r}, {len(self.entries)} entries>"


class Below(Protocol):
    """A second level: others keep answers there, which an event has to reach as well."""

    def raised(self, names: Iterable[Hashable] | None) -> None:
        """What has these tags has changed; ``None`` is everything."""


class Domain:
    """One database of one origin."""

    __slots__ = ("_spaces", "_tags", "below", "catalog", "epoch", "fill_no", "holds", "metrics", "name", "seq")

    def __init__(self, name: str, metrics: CacheMetrics) -> None:
        self.name = name
        self.metrics = metrics
        self.seq = 1
        """Moves with every event; what was valid at the present one need not be checked again."""
        self.epoch = 1
        """Moves when what is known of the database may be wrong: every verdict and every entry goes."""
        self.fill_no = 0
        self.holds = 0
        """Changes whose outcome nobody knows yet."""
        self.below: Below | None = None
        self.catalog = Tag(CATALOG)
        self._tags: WeakValueDictionary[Hashable, Tag] = WeakValueDictionary()
        self._spaces: WeakValueDictionary[bytes, Space] = WeakValueDictionary()

    def space(self, identity: bytes) -> Space:
        """The one space of *identity* in this epoch."""
        found = self._spaces.get(identity)
        if found is None:
            found = self._spaces[identity] = Space(self, identity)
        return found

    def tag(self, name: Hashable) -> Tag:
        """The one tag of *name*. It lives as long as an entry, a fill or a hold has it: nobody else needs its numbers."""
        found = self._tags.get(name)
        if found is None:
            found = self._tags[name] = Tag(name)
        return found

    # --- events -----------------------------------------------------------------------------------------------------

    def touch(self, names: Iterable[Hashable]) -> int:
        """What has these tags changed, by a write that is visible now: entries go, and no fill under way is stored.

        Returns how many of the tags anybody has.
        """
        self.seq = seq = self.seq + 1
        tags = self._tags
        count = 0
        names = tuple(names)
        for name in names:
            tag = tags.get(name)
            if tag is not None:
                tag.touched_at = tag.doomed_at = seq
                count += 1
        self.metrics.invalidations_tag += 1
        if self.below is not None:
            self.below.raised(names)
        return count

    def touch_all(self) -> None:
        """Something changed, and nobody knows what: every entry of the domain goes."""
        self.seq = self.catalog.touched_at = self.catalog.doomed_at = self.seq + 1
        self.metrics.invalidations_unknown += 1
        self._raise_all()

    def doom(self) -> None:
        """Nothing that is under way may be stored; entries stay, but for those of the second level."""
        self.seq = self.catalog.doomed_at = self.seq + 1
        self._raise_all()

    def _raise_all(self) -> None:
        if self.below is not None:
            self.below.raised(None)

    def end_epoch(self) -> None:
        """What is known of the database is wrong from now on: entries go, and with them every space and verdict."""
        self.seq = self.catalog.touched_at = self.catalog.doomed_at = self.seq + 1
        self.epoch += 1
        self._spaces = WeakValueDictionary()
        self.metrics.invalidations_epoch += 1
        self._raise_all()

    def hold(self, names: Iterable[Hashable] | None) -> Hold:
        """Store nothing with these tags until the hold is released; ``None`` is everything."""
        return Hold(self, names)

    def next_fill(self) -> int:
        """A number for a fill that is about to be sent."""
        self.fill_no += 1
        return self.fill_no


class Hold:
    """A change whose outcome nobody knows yet: until ``release`` nothing with its tags is stored, and then it counts as done."""

    __slots__ = ("_domain", "_names", "_tags")

    def __init__(self, domain: Domain, names: Iterable[Hashable] | None) -> None:
        self._domain = domain
        self._names = None if names is None else tuple(names)
        self._tags: tuple[Tag, ...] = (
            (domain.catalog,) if self._names is None else tuple(domain.tag(name) for name in self._names)
        )
        for tag in self._tags:
            tag.holds += 1
        domain.holds += 1

    def release(self) -> None:
        """The change is done, or never will be. A second call does nothing."""
        tags, self._tags = self._tags, ()
        if not tags:
            return
        for tag in tags:
            tag.holds -= 1
        self._domain.holds -= 1
        if self._names is None:
            self._domain.touch_all()
        else:
            self._domain.touch(self._names)
