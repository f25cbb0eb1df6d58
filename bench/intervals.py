"""What rounds say of a figure: the interval in which it lies, and whether two runs agree about it.

Rounds of a ratio are paired (both targets were measured next to each other), and what disturbs a machine multiplies rather than
adds; so the interval is Student's t for the mean of the logarithms, at 95 %. Knows numbers; knows nothing of benchmarks.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

TOLERANCE = 0.10
"""So far two runs on an idle machine may differ."""

# Student's t, 97.5 %, by degrees of freedom from 1; beyond the table its last entry, which is a little too wide.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)

Interval = tuple[float, float]


def interval(samples: Sequence[float]) -> Interval:
    """Where the figure lies with a probability of 95 %; of one round, and of what may be zero, all that was seen."""
    count = len(samples)
    if count < 2 or min(samples) <= 0:
        return min(samples), max(samples)
    logs = [math.log(sample) for sample in samples]
    reach = _T[min(count - 1, len(_T)) - 1] * statistics.stdev(logs) / math.sqrt(count)
    middle, shown = statistics.fmean(logs), statistics.median(samples)
    # The median is what is shown, so it is never outside.
    return min(math.exp(middle - reach), shown), max(math.exp(middle + reach), shown)


def union(first: Interval, second: Interval) -> Interval:
    """From the lower to the higher end."""
    return min(first[0], second[0]), max(first[1], second[1])


def overlap(first: Interval, second: Interval) -> bool:
    """Whether some value is in both."""
    return first[0] <= second[1] and second[0] <= first[1]


def is_wide(value: float, found: Interval) -> bool:
    """Whether the interval reaches further from *value* than two runs may differ."""
    return max(value - found[0], found[1] - value) > TOLERANCE * abs(value)


def difference(now: float, before: float) -> float:
    """In parts of *before*; of zero and something else, all of it."""
    return abs(now - before) / abs(before) if before else float(now != before)
