"""Random lives of a cache against a model that stores everything and forgets nothing."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from hyperdrive.cache.fill import Fill
from hyperdrive.testing.caches import CacheBench

KEYS = st.integers(0, 7)
TAGS = st.frozensets(st.integers(0, 3), max_size=3)


class CacheMachine(RuleBasedStateMachine):
    """Rows are versions of tags: a fill reads the sum of the versions of its tags at a moment between sending and storing."""

    fills: Bundle[tuple[Fill, frozenset[int], int]] = Bundle("fills")

    def __init__(self) -> None:
        super().__init__()
        self.bench = CacheBench(max_bytes=6_000)
        self.versions = [0, 0, 0, 0]
        self.tags_of: dict[bytes, frozenset[int]] = {}

    def _now(self, tags: frozenset[int]) -> int:
        return sum(self.versions[tag] * 1_000**tag for tag in tags)

    @rule(target=fills, key=KEYS, tags=TAGS)
    def send_and_read(self, key: int, tags: frozenset[int]) -> tuple[Fill, frozenset[int], int]:
        # What a key reads is fixed, as a verdict is.
        tags = self.tags_of.setdefault(b"%d" % key, tags)
        return self.bench.open(b"%d" % key, *tags), tags, self._now(tags)

    @rule(fill=consumes(fills), padding=st.integers(0, 900), cost=st.floats(0, 5))
    def store(self, fill: tuple[Fill, frozenset[int], int], padding: int, cost: float) -> None:
        self.bench.finish(fill[0], b"%d" % fill[2] + b" " * padding, cost=cost)

    @rule(tag=st.integers(0, 3))
    def write(self, tag: int) -> None:
        self.versions[tag] += 1
        self.bench.domain.touch([tag])

    @rule(tags=st.lists(st.integers(0, 3), max_size=4))
    def write_unknown(self, tags: list[int]) -> None:
        for tag in tags:
            self.versions[tag] += 1
        self.bench.domain.touch_all()

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.bench.clock.advance(seconds)

    @rule(steps=st.integers(0, 5))
    def sweep(self, steps: int) -> None:
        self.bench.store.sweep(steps)

    @rule(key=KEYS)
    def purge(self, key: int) -> None:
        self.bench.store.purge(lambda entry: entry.key == b"%d" % key)

    @rule(max_bytes=st.integers(2_000, 9_000))
    def resize(self, max_bytes: int) -> None:
        self.bench.store.resize(max_bytes, max_bytes)

    @invariant()
    def what_is_served_is_the_present(self) -> None:
        for key, tags in self.tags_of.items():
            body = self.bench.read(key)
            assert body is None or int(body) == self._now(tags)

    @invariant()
    def books_are_right(self) -> None:
        store, space = self.bench.store, self.bench.space
        entries = list(store)
        assert store.size_bytes == sum(entry.size_bytes for entry in entries) <= store.max_bytes
        assert len(store) == len(entries)
        assert {id(entry) for entry in entries} == {id(entry) for entry in space.entries.values()}
        assert all(entry.newer is None or entry.newer.older is entry for entry in entries)


TestCache = CacheMachine.TestCase
TestCache.settings = settings(stateful_step_count=40)
