"""How old an answer may be."""

from __future__ import annotations

import random

import pytest

from hyperdrive.cache.policy import Override, Policies, Policy
from hyperdrive.testing.caches import CacheBench


def test_defaults_are_sixty_and_fifteen_seconds() -> None:
    bench = CacheBench()
    entry = bench.fill(b"k", 1)
    bench.clock.advance(59.9)
    assert bench.read(b"k") == b"rows"
    bench.clock.advance(0.2)
    assert bench.read(b"k") is None
    assert bench.clock.now() < entry.stale_until <= bench.clock.now() + 15


def test_age_counts_from_when_the_fill_was_sent() -> None:
    """Not from when its answer came: the row may have changed a moment after it was read."""
    bench = CacheBench()
    bench.fill(b"k", 1, cost=50.0)
    bench.clock.advance(11)
    assert bench.read(b"k") is None


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_jitter_never_goes_beyond_max_age(chance: float) -> None:
    """What the user set is a bound, so entries expire up to a fifth earlier and never later."""
    bench = CacheBench()
    entry = bench.fill(b"k", 1)
    Policy().date(entry, 0.0, chance)
    assert 48 <= entry.fresh_until - entry.sent_at <= 60
    assert entry.stale_until - entry.sent_at == 75


def test_the_strictest_table_decides() -> None:
    policies = Policies(
        Policy(),
        [
            ("public.log_*", Override(max_age=5)),
            ("public.secret", Override(is_cached=False)),
            ("*", Override(max_age=600)),
        ],
    )
    assert policies.of(("public.t",)).max_age == 600
    assert policies.of(("public.t", "public.log_x")).max_age == 5
    assert not policies.of(("public.t", "public.secret")).is_cached
    assert policies.of(()) == Policy()


def test_a_hint_says_what_it_says_and_cannot_lift_a_ban() -> None:
    hinted = Policy().and_(Override(max_age=5, is_cached=True))
    assert (5, 15, True) == (hinted.max_age, hinted.stale_while_revalidate, hinted.is_cached)
    assert not Policy(is_cached=False).and_(Override(is_cached=True)).is_cached


def test_stale_if_error_has_a_bound_of_its_own() -> None:
    bench = CacheBench()
    bench.policy = Policy(max_age=10, stale_while_revalidate=5, stale_if_error=300)
    entry = bench.fill(b"k", 1)
    assert (15, 310) == (entry.stale_until - entry.sent_at, entry.error_until - entry.sent_at)


def test_dear_entries_are_refreshed_before_they_expire_and_cheap_ones_at_the_end() -> None:
    """XFetch: of many hits in the last second some ask early, more the dearer the entry; long before nobody does."""
    bench = CacheBench()
    draws = random.Random(7)

    def early(cost: float, seconds_left: float) -> float:
        entry = bench.fill(b"k", 1)
        Policy().date(entry, cost, 0.0)
        now = entry.fresh_until - seconds_left
        if now < entry.early_from:
            return 0.0
        return sum(entry.wants_refresh(now, 1.0 - draws.random()) for _ in range(2_000)) / 2_000

    assert early(0.5, 20.0) == 0.0
    assert 0.08 < early(0.5, 1.0) < 0.20  # e^-2
    assert early(0.01, 1.0) == 0.0
    assert 0.30 < early(0.01, 0.01) < 0.45  # e^-1
