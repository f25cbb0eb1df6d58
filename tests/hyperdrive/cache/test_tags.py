"""Invalidation: what an event drops, and that nothing else goes."""

from __future__ import annotations

import gc

from hyperdrive.testing.caches import CacheBench


def test_an_entry_is_served_until_one_of_its_tags_is_touched() -> None:
    bench = CacheBench()
    bench.fill(b"k", 1, 2)
    assert bench.read(b"k") == b"rows"
    bench.domain.touch([2])
    assert bench.read(b"k") is None


def test_other_entries_stay() -> None:
    bench = CacheBench()
    bench.fill(b"a", 1)
    bench.fill(b"b", 2)
    bench.domain.touch([1])
    assert (None, b"rows") == (bench.read(b"a"), bench.read(b"b"))


def test_an_invalidated_entry_is_not_served_inside_its_stale_window_either() -> None:
    """Rule 19: expired and invalidated are two things."""
    bench = CacheBench()
    entry = bench.fill(b"k", 1)
    bench.domain.touch([1])
    bench.clock.advance(61)
    assert bench.clock.now() < entry.stale_until
    assert not entry.is_valid()


def test_an_unknown_write_drops_every_entry_of_the_domain_and_no_other() -> None:
    bench = CacheBench()
    bench.fill(b"a", 1)
    bench.fill(b"b")
    other = type(bench.domain)("other", bench.metrics)
    elsewhere = bench.finish(bench.open(b"a", space=other.space(b"identity")))
    bench.domain.touch_all()
    assert (None, None) == (bench.read(b"a"), bench.read(b"b"))
    assert elsewhere is not None
    assert elsewhere.is_valid()


def test_what_is_stored_after_an_event_lives() -> None:
    bench = CacheBench()
    bench.domain.touch([1])
    bench.fill(b"k", 1)
    assert bench.read(b"k") == b"rows"


def test_validity_is_remembered_and_still_ends() -> None:
    """The sequence at which an entry was found valid is a shortcut and must not outlive the next event."""
    bench = CacheBench()
    entry = bench.fill(b"k", 1)
    bench.domain.touch([99])
    assert entry.is_valid()
    assert entry.seen == bench.domain.seq
    bench.domain.touch([1])
    assert not entry.is_valid()
    bench.domain.touch([99])
    assert not entry.is_valid()


def test_the_end_of_an_epoch_takes_entries_spaces_and_what_is_under_way() -> None:
    bench = CacheBench()
    entry = bench.fill(b"k", 1)
    under_way = bench.open(b"j", 1)
    bench.domain.end_epoch()
    assert not entry.is_valid()
    assert bench.finish(under_way) is None
    assert bench.domain.space(b"identity") is not bench.space


def test_a_space_of_an_older_epoch_takes_nothing_in() -> None:
    """A role or a schema may mean something else by then, so its bytes do not identify anybody any more."""
    bench = CacheBench()
    bench.domain.end_epoch()
    assert bench.finish(bench.open(b"k", 1, space=bench.space)) is None


def test_spaces_are_apart() -> None:
    """Rule 18: another identity's bytes are never found, whatever the key."""
    bench = CacheBench()
    bench.fill(b"k", 1)
    assert bench.read(b"k", bench.domain.space(b"other role")) is None


def test_tags_that_nobody_has_cost_nothing() -> None:
    bench = CacheBench()
    entry = bench.fill(b"k", 1)
    assert 1 == bench.domain.touch([1, 2, 3])
    bench.store.drop(entry)
    del entry
    gc.collect()
    assert 0 == bench.domain.touch([1])


def test_while_a_tag_is_on_hold_nothing_with_it_is_stored() -> None:
    """A commit whose outcome nobody knows may become visible at any moment (08007)."""
    bench = CacheBench()
    hold = bench.domain.hold([1])
    assert bench.finish(bench.open(b"k", 1)) is None
    assert bench.finish(bench.open(b"j", 2)) is not None
    early = bench.open(b"k", 1)
    hold.release()
    assert bench.finish(early) is None, "it may have read before what was waited for"
    hold.release()
    assert bench.finish(bench.open(b"k", 1)) is not None


def test_a_hold_on_everything() -> None:
    bench = CacheBench()
    hold = bench.domain.hold(None)
    assert bench.finish(bench.open(b"k", 1)) is None
    kept = bench.open(b"k", 1)
    hold.release()
    assert bench.finish(kept) is None
    assert bench.finish(bench.open(b"k", 1)) is not None


def test_dooming_spares_what_is_stored() -> None:
    bench = CacheBench()
    entry = bench.fill(b"k", 1)
    under_way = bench.open(b"j", 1)
    bench.domain.doom()
    assert bench.finish(under_way) is None
    assert entry.is_valid()
