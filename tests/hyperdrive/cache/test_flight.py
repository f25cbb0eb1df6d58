"""Who may wait for whose answer (caching-rules §14)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hyperdrive.cache.entry import Entry
from hyperdrive.cache.fill import Fill
from hyperdrive.cache.flight import Flight
from hyperdrive.testing.caches import CacheBench


class Waiting:
    """A follower that writes down what it was told."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.heard: list[str] = []
        self.then = then

    def serve(self, entry: Entry) -> None:
        self.heard.append(entry.body.decode())
        self.then()

    def run_alone(self) -> None:
        self.heard.append("alone")


def test_followers_get_the_leaders_answer() -> None:
    bench = CacheBench()
    flight = Flight(bench.open(b"k", 1))
    waiting = [Waiting() for _ in range(3)]
    for one in waiting:
        flight.join(one)
    entry = bench.finish(flight.fill)
    assert entry is not None
    flight.land(entry)
    assert [["rows"]] * 3 == [one.heard for one in waiting]
    assert {} == bench.space.flights


def test_all_run_for_themselves_when_the_leader_fails() -> None:
    bench = CacheBench()
    flight = Flight(bench.open(b"k", 1))
    waiting = [Waiting(), Waiting()]
    for one in waiting:
        flight.join(one)
    flight.fail()
    flight.fail()
    assert [["alone"]] * 2 == [one.heard for one in waiting]
    assert {} == bench.space.flights


def test_one_that_left_hears_nothing() -> None:
    bench = CacheBench()
    flight = Flight(bench.open(b"k", 1))
    gone, stays = Waiting(), Waiting()
    flight.join(gone)
    flight.join(stays)
    flight.leave(gone)
    flight.leave(gone)
    flight.fail()
    assert ([], ["alone"]) == (gone.heard, stays.heard)


def after_its_own_write(bench: CacheBench, fill: Fill) -> int:
    return bench.domain.fill_no


def before_it(bench: CacheBench, fill: Fill) -> int:
    return fill.no - 1


@pytest.mark.parametrize(("last_write", "may"), [(after_its_own_write, False), (before_it, True)])
def test_a_flight_sent_before_ones_own_write_is_not_joined(
    last_write: Callable[[CacheBench, Fill], int], may: bool
) -> None:
    """It may bring what the write has changed, and no other project is known to have thought of it."""
    bench = CacheBench()
    flight = Flight(bench.open(b"k", 1))
    assert may is flight.may_join(last_write(bench, flight.fill))


def test_a_doomed_flight_is_not_joined() -> None:
    bench = CacheBench()
    flight = Flight(bench.open(b"k", 1))
    assert flight.may_join(0)
    bench.domain.touch([1])
    assert not flight.may_join(0)


def test_a_flight_that_has_let_go_of_its_copy_is_not_joined() -> None:
    bench = CacheBench()
    flight = Flight(bench.open(b"k", 1, bound=3))
    flight.fill.feed(b"12345")
    assert not flight.may_join(0)


def test_what_is_invalidated_while_followers_are_served_is_not_served_to_the_rest() -> None:
    bench = CacheBench()
    flight = Flight(bench.open(b"k", 1))
    first = Waiting(then=bench.domain.touch_all)
    second = Waiting()
    flight.join(first)
    flight.join(second)
    entry = bench.finish(flight.fill)
    assert entry is not None
    flight.land(entry)
    assert (["rows"], ["alone"]) == (first.heard, second.heard)


def test_a_flight_that_ends_does_not_take_its_successor_with_it() -> None:
    """A doomed flight may still be under way when the next one for the key begins."""
    bench = CacheBench()
    old = Flight(bench.open(b"k", 1))
    bench.domain.touch([1])
    new = Flight(bench.open(b"k", 1))
    old.fail()
    assert bench.space.flights == {b"k": new}
