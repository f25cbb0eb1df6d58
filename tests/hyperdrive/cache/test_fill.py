"""Fills that race with writes, as schedules; and the copy with its bound (rules 20 and 22, caching-rules §10.3 and §15.7)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import pytest

from hyperdrive.cache.fill import Fill
from hyperdrive.testing.caches import CacheBench

# Two transactions write one row each time, two fills read it. A step needs the steps before it in its own line. On rungs 0 to 2 the
# event of a write is ours, applied when the commit's reply has come: the commit is visible by then, and nobody has heard of it.
LINES = (
    ("commit 1", "event 1"),
    ("commit 2", "event 2"),
    ("send a", "read a", "store a"),
    ("send b", "read b", "store b"),
)


def schedules() -> Iterator[tuple[str, ...]]:
    """Every interleaving of the lines: each a choice of which line goes on."""
    slots = [index for index, line in enumerate(LINES) for _ in line]
    for order in set(permutations(slots)):
        at = [0] * len(LINES)
        steps = []
        for line in order:
            steps.append(LINES[line][at[line]])
            at[line] += 1
        yield tuple(steps)


class Race:
    """An origin with one row, a cache, and what each step does to them."""

    def __init__(self) -> None:
        self.bench = CacheBench()
        self.version = 0
        self.told = 0
        self.fills: dict[str, Fill] = {}
        self.read: dict[str, int] = {}

    def step(self, step: str) -> None:
        what, who = step.split()
        bench = self.bench
        if what == "commit":
            self.version += 1
        elif what == "event":
            bench.domain.touch(["t"])
            self.told = self.version
        elif what == "send":
            self.fills[who] = bench.open(b"k", "t")
        elif what == "read":
            self.read[who] = self.version
        else:
            bench.finish(self.fills[who], b"%d" % self.read[who])

    def served(self) -> int | None:
        body = self.bench.read(b"k")
        return None if body is None else int(body)


def test_no_schedule_of_two_writes_and_two_fills_serves_what_a_client_knows_to_be_old() -> None:
    """After every step of every interleaving: whoever has heard of a commit is not served what was there before it."""
    count = stored = 0
    for steps in schedules():
        race = Race()
        for step in steps:
            race.step(step)
            served = race.served()
            assert served is None or served >= race.told, (steps, step)
            stored += served is not None
        served = race.served()
        # All is quiet: an entry that is left must be the present, since nothing would ever drop it.
        assert served is None or served == race.version, steps
        count += 1
    assert count == 25_200
    assert stored > 10_000, "a cache that stores nothing proves nothing"


def test_without_dooming_the_schedules_find_the_race() -> None:
    """The oracle can fail: where fills do not look at what happened meanwhile, some schedule serves the old row."""

    def serves_the_old_row(steps: tuple[str, ...]) -> bool:
        race = Race()
        for step in steps:
            race.step(step)
            for fill in race.fills.values():
                fill.opened_seq = race.bench.domain.seq
            served = race.served()
            if served is not None and served < race.told:
                return True
        return False

    assert any(serves_the_old_row(steps) for steps in schedules())


def test_the_interleaving_of_the_rules() -> None:
    """§10.1, seen from rung 1: the fill was sent before the commit's reply, so it is answered and not stored."""
    bench = CacheBench()
    fill = bench.open(b"k", "t")
    bench.domain.touch(["t"])
    assert bench.finish(fill) is None
    assert 1 == bench.metrics.not_stored_raced


def test_a_write_elsewhere_does_not_doom_a_fill() -> None:
    bench = CacheBench()
    fill = bench.open(b"k", "t")
    bench.domain.touch(["u"])
    assert bench.finish(fill) is not None


def test_what_a_stream_would_say_is_asked_last() -> None:
    """Rungs 3 to 5 add a check of their own; it is given the fill with its proof."""
    bench = CacheBench()
    fill = bench.open(b"k", "t")
    fill.proof = "snapshot"
    assert fill.may_store(lambda seen: seen.proof == "snapshot")
    assert not fill.may_store(lambda seen: False)


def test_an_event_of_a_stream_alone_drops_entries_and_leaves_fills_to_their_proof() -> None:
    """``touched_at`` without ``doomed_at``: what the snapshot saw may be stored although the event came in between."""
    bench = CacheBench()
    entry = bench.fill(b"j", "t")
    fill = bench.open(b"k", "t")
    bench.domain.seq += 1
    bench.domain.tag("t").touched_at = bench.domain.seq
    assert not entry.is_valid()
    kept = bench.finish(fill)
    assert kept is not None
    assert kept.is_valid()


def test_a_copy_lets_go_when_it_is_too_large() -> None:
    """Rule 22: the rest streams on."""
    bench = CacheBench()
    fill = bench.open(b"k", 1, bound=10)
    is_copied = []
    for piece in (b"12345", b"6789012", b"more"):
        fill.feed(piece)
        is_copied.append(fill.is_copied)
    assert [True, False, False] == is_copied
    assert fill.take() is None
    assert 1 == bench.metrics.not_stored_size


@pytest.mark.parametrize("cuts", [[b"abcdef"], [b"a", b"bcdef"], [b"", b"abc", b"def"]])
def test_a_copy_is_what_passed(cuts: list[bytes]) -> None:
    bench = CacheBench()
    fill = bench.open(b"k", 1)
    for piece in cuts:
        fill.feed(piece)
    assert fill.take() == b"abcdef"


def test_numbers_of_fills_go_up() -> None:
    bench = CacheBench()
    first, second = bench.open(b"k"), bench.open(b"k")
    assert first.no < second.no
