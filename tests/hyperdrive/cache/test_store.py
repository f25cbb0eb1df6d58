"""The bound in bytes, and who goes when it is reached."""

from __future__ import annotations

import random
import tracemalloc
from collections import OrderedDict
from dataclasses import replace

import pytest

from hyperdrive.cache.entry import Entry, Shape
from hyperdrive.testing.caches import CacheBench


def test_the_bound_holds_whatever_is_stored() -> None:
    bench = CacheBench(max_bytes=100_000)
    for number in range(2_000):
        bench.fill(b"key %d" % number, number % 7, body=b"x" * (number % 900))
        assert bench.store.size_bytes <= 100_000
    assert bench.metrics.evicted > 0
    assert len(bench.store) == len(bench.space.entries)
    assert bench.store.size_bytes == sum(entry.size_bytes for entry in bench.store)


def test_sizes_are_honest() -> None:
    """Within a sixth of what the interpreter really takes, small bodies included."""
    for body_bytes in (60, 700, 5_000):
        bench = CacheBench(max_bytes=1 << 30, max_entry_bytes=1 << 20)
        tags = [bench.domain.tag(n) for n in range(3)]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3_000):
            fill = bench.open(b"select something from somewhere where id = %d" % number, 0, 1)
            fill.feed(bytes(body_bytes))
            entry = fill.entry(fill.take() or b"", bench.clock.now() + number / 1e6, 0.5)
            bench.store.put(entry)
            del fill, entry
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert len(tags) == 3
        assert bench.store.size_bytes == pytest.approx(taken, rel=1 / 6), body_bytes


def test_an_entry_over_the_cap_is_not_stored() -> None:
    """Rule 22."""
    bench = CacheBench(max_entry_bytes=2_000)
    assert bench.finish(bench.open(b"k", 1), b"x" * 3_000) is None
    assert 1 == bench.metrics.not_stored_size
    assert 0 == bench.store.size_bytes


def test_what_is_asked_for_stays_and_what_is_not_goes() -> None:
    bench = CacheBench(max_bytes=50_000)
    bench.fill(b"hot", 1, body=b"x" * 100)
    for number in range(1_000):
        bench.read(b"hot")
        bench.fill(b"cold %d" % number, 1, body=b"x" * 100)
    assert bench.read(b"hot") is not None
    assert bench.read(b"cold 1") is None


def test_a_hundred_thousand_keys_of_a_scan_do_not_push_out_a_hot_one() -> None:
    """Rule 23: 10⁵ one-off keys. The hot key is asked for once in a thousand of them."""
    bench = CacheBench(max_bytes=200_000)
    bench.fill(b"hot", 1, body=b"x" * 200)
    stored_before = bench.metrics.stored
    for number in range(100_000):
        key = b"scan %d" % number
        if number % 1_000 == 0:
            assert bench.read(b"hot") is not None, number
        if bench.store.admits(bench.space, key):
            bench.fill(key, 1, body=b"x" * 200)
    assert bench.read(b"hot") is not None
    assert bench.metrics.stored - stored_before < 2_000, "storing what nobody asks for twice costs time"


def test_a_key_that_comes_again_is_let_in_while_memory_is_short() -> None:
    bench = CacheBench(max_bytes=20_000)
    number = 0
    while bench.store.size_bytes < 19_000:
        number += 1
        bench.fill(b"%d" % number, 1, body=b"x" * 500)
    assert [False, True] == [bench.store.admits(bench.space, b"again") for _ in range(2)]


def test_another_space_is_another_sighting() -> None:
    bench = CacheBench()
    bench.fill(b"all there is room for", 1)
    bench.store.resize(bench.store.size_bytes, bench.store.size_bytes)
    assert not bench.store.admits(bench.space, b"k")
    assert not bench.store.admits(bench.domain.space(b"other"), b"k")


def test_a_programme_that_never_asks_twice_is_noticed_long_before_memory_is_short() -> None:
    bench = CacheBench(max_bytes=1 << 30)
    admitted = sum(bench.store.admits(bench.space, b"%d" % number) for number in range(5_000))
    assert admitted < 600
    bench.store.hits += 1_000
    for number in range(600):
        bench.store.admits(bench.space, b"again %d" % number)
    assert bench.store.admits(bench.space, b"first sight"), "keys come again, so the first sight is enough"


def test_who_is_turned_away_has_been_counted_and_who_is_not_has_not() -> None:
    """A short question ahead of ``admits``: its no is that one's no, and anything else leaves no trace."""
    asked, short = CacheBench(), CacheBench()
    for bench in (asked, short):
        bench.store.door.is_strict = True
    answers = []
    for number in range(2_000):
        key = b"%d" % (number // 2 if number % 7 else number)
        said = short.store.turns_away(short.space, key)
        answers.append(said)
        assert asked.store.admits(asked.space, key) is (False if said else short.store.admits(short.space, key))
        assert short.metrics.not_stored_admission == asked.metrics.not_stored_admission
        assert short.store.door._misses == asked.store.door._misses
        assert short.store.door._seen == asked.store.door._seen
        assert short.store.door.is_strict is asked.store.door.is_strict
    assert {True, False} == set(answers)


def test_what_cost_the_origin_more_stays_longer() -> None:
    """Of entries of the same size that nobody asks for, the dear ones outlive the cheap ones."""
    bench = CacheBench(max_bytes=60_000)
    for number in range(20):
        bench.fill(b"cheap %d" % number, 1, body=b"x" * 500, cost=0.001)
    bench.fill(b"dear", 1, body=b"x" * 500, cost=0.5)
    for number in range(20, 90):
        bench.fill(b"cheap %d" % number, 1, body=b"x" * 500, cost=0.001)
    assert b"dear" in bench.space.entries
    assert b"cheap 19" not in bench.space.entries
    bench.clock.advance(80)
    bench.store.sweep(1_000)
    assert b"dear" not in bench.space.entries, "cost is no right to stay for ever"


def test_a_refresh_takes_the_place_of_what_it_refreshes() -> None:
    bench = CacheBench()
    first = bench.fill(b"k", 1, body=b"old")
    assert bench.read(b"k") == b"old"
    second = bench.fill(b"k", 1, body=b"new")
    assert bench.read(b"k") == b"new"
    assert (1, False, True) == (len(bench.store), first.is_stored, second.is_stored)
    assert 2 == second.hits, "what is hot stays hot"


def test_what_is_invalidated_goes_first_when_room_is_needed() -> None:
    bench = CacheBench(max_bytes=20_000)
    number = 0
    while bench.metrics.evicted == 0:
        number += 1
        bench.fill(b"%d" % number, number % 2, body=b"x" * 500)
        bench.read(b"%d" % number)
    kept = {key for key in bench.space.entries if int(key) % 2 == 0}
    bench.domain.touch([1])
    for again in range(len(kept)):
        bench.fill(b"new %d" % again, 5, body=b"x" * 500)
    assert bench.metrics.dropped > 0
    assert len(kept & set(bench.space.entries)) >= len(kept) - 2


def test_the_broom_takes_out_what_serves_nobody() -> None:
    bench = CacheBench()
    bench.fill(b"old", 1)
    bench.fill(b"touched", 2)
    bench.domain.touch([2])
    assert 1 == bench.store.sweep(10)
    bench.clock.advance(74)
    assert 0 == bench.store.sweep(10), "it may still serve while it is refreshed"
    bench.clock.advance(2)
    assert 1 == bench.store.sweep(10)
    assert (0, 0) == (len(bench.store), bench.store.size_bytes)


def test_purge_takes_what_is_wanted() -> None:
    bench = CacheBench()
    for number in range(10):
        bench.fill(b"%d" % number, number % 2)
    assert 5 == bench.store.purge(lambda entry: entry.has(1))
    assert 5 == len(bench.store)


def test_a_smaller_bound_holds_at_once() -> None:
    bench = CacheBench()
    for number in range(100):
        bench.fill(b"%d" % number, 1, body=b"x" * 500)
    bench.store.resize(10_000, 1_000)
    assert bench.store.size_bytes <= 10_000


def test_hits_are_kept_by_the_shape_when_an_entry_goes() -> None:
    bench = CacheBench()
    shape = Shape(b"select ?")
    entry = bench.fill(b"k", 1, cost=0.25)
    entry.shape = shape
    for _ in range(4):
        bench.read(b"k")
    bench.store.drop(entry)
    assert (4, 1.0) == (shape.hits, shape.saved_seconds)


def test_dropping_twice_is_dropping_once() -> None:
    bench = CacheBench()
    entry: Entry = bench.fill(b"k", 1)
    bench.store.drop(entry)
    bench.store.drop(entry)
    assert (0, 0, 1) == (bench.store.size_bytes, len(bench.store), bench.metrics.dropped)


def trace(seed: int) -> list[tuple[int, float]]:
    """Keys with what they cost the origin: a hundred that are asked for again and again, a tenth of them dear, and between them scans."""
    draw = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(100)]
    asked: list[tuple[int, float]] = []
    for scan in range(12):
        for key in draw.choices(range(100), weights, k=500):
            asked.append((key, 0.2 if key % 10 == 9 else 0.002))
            if draw.random() < 0.3:
                asked.append((1_000 + draw.randrange(10**9), 0.002))
        asked += [(10_000 * (scan + 1) + number, 0.002) for number in range(400)]
    return asked


@pytest.mark.parametrize("seed", range(3))
def test_on_a_trace_with_scans_it_saves_more_than_least_recently_used_would(seed: int) -> None:
    """The same room for both: half of what is asked for again. Counted in hits, and in the time that they save the origin."""
    bench = CacheBench()
    size = bench.fill(b"%010d" % 1, 1, body=b"x" * 400).size_bytes
    bench = CacheBench(max_bytes=50 * size)
    others: OrderedDict[int, None] = OrderedDict()
    ours, theirs = [0, 0.0], [0, 0.0]
    for key, cost in trace(seed):
        name = b"%010d" % key
        if bench.read(name) is not None:
            ours = [ours[0] + 1, ours[1] + cost]
        elif bench.store.admits(bench.space, name):
            bench.policy = replace(bench.policy, max_age=1e9)
            bench.fill(name, 1, body=b"x" * 400, cost=cost)
        if key in others:
            theirs = [theirs[0] + 1, theirs[1] + cost]
            others.move_to_end(key)
        else:
            others[key] = None
            if len(others) > 50:
                others.popitem(last=False)
    assert ours[0] > 1.1 * theirs[0], (ours, theirs)
    assert ours[1] > 1.3 * theirs[1], (ours, theirs)
