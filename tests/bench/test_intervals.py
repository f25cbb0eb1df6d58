"""Intervals from rounds: what they cover, and what they do where there is little to go by."""

from __future__ import annotations

import math
import random

import pytest

from bench.intervals import difference, interval, is_wide, overlap, union


def test_the_interval_is_students_for_the_mean_of_the_logarithms() -> None:
    """By hand: logs 0, 0.1 and 0.2 have mean 0.1 and deviation 0.1; t is 4.303 with two degrees of freedom."""
    low, high = interval([math.exp(x) for x in (0.0, 0.1, 0.2)])
    reach = 4.303 * 0.1 / math.sqrt(3)
    assert (low, high) == pytest.approx((math.exp(0.1 - reach), math.exp(0.1 + reach)))


@pytest.mark.parametrize("rounds", [3, 5])
def test_it_covers_what_is_true_about_nineteen_times_in_twenty(rounds: int) -> None:
    """Rounds of a ratio that is 1.3, disturbed by 5 % each way."""
    source = random.Random(7)
    runs = [interval([1.3 * math.exp(source.gauss(0, 0.05)) for _ in range(rounds)]) for _ in range(2000)]
    covered = sum(low <= 1.3 <= high for low, high in runs) / len(runs)
    assert 0.93 <= covered <= 0.97


def test_more_rounds_make_it_narrower() -> None:
    few, many = interval([1.0, 1.1, 1.2]), interval([1.0, 1.1, 1.2] * 4)
    assert few[0] < many[0] < many[1] < few[1]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [([1.5], (1.5, 1.5)), ([2.0, 2.0, 2.0], (2.0, 2.0)), ([0.0, 1.0, 0.0], (0.0, 1.0))],
    ids=["one round", "rounds that agree", "counts that may be zero"],
)
def test_where_there_is_nothing_to_compute_it_is_what_was_seen(
    samples: list[float], expected: tuple[float, float]
) -> None:
    assert interval(samples) == pytest.approx(expected)


def test_the_median_is_never_outside() -> None:
    samples = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 50.0, 50.0, 50.0, 50.0]
    low, high = interval(samples)
    assert low <= 1.0 <= high


def test_small_arithmetic() -> None:
    assert union((1.0, 2.0), (0.5, 1.5)) == (0.5, 2.0)
    assert overlap((1.0, 2.0), (2.0, 3.0))
    assert not overlap((1.0, 2.0), (2.1, 3.0))
    assert is_wide(1.0, (0.85, 1.05))
    assert not is_wide(1.0, (0.95, 1.05))
    assert (difference(1.1, 1.0), difference(0.0, 0.0), difference(1.0, 0.0)) == (pytest.approx(0.1), 0.0, 1.0)
