"""When the next connect may start after one failed, and whether waiting is worth it.

Exponential with full range below the bound: half fixed, half random, so that pools and workers that lost the origin in
the same instant do not come back in the same instant (wire hazards W-61, W-62). Knows times and SQLSTATEs only.
"""

from __future__ import annotations

from collections.abc import Callable

from hyperdrive.errors import HyperdriveError, OriginError, OriginRefused
from hyperdrive.pool.settings import PoolSettings

#: Classes of SQLSTATE (errcodes-appendix) that may be gone at the next attempt: 53 insufficient resources, 57 operator
#: intervention (57P03 starting up, 57P01 shutting down, 57014 authentication time-out), 58 system error, 08 connection.
TEMPORARY_CLASSES = frozenset({"08", "53", "57", "58"})
#: Not worth waiting for, though their class is: 08P01 is what poolers say for an unknown database, 08004 a rejection,
#: 57P04 a dropped database.
LASTING = frozenset({"08P01", "08004", "57P04"})
#: Somebody is copying the database as a template.
TEMPORARY = frozenset({"55006"})


def is_temporary(error: HyperdriveError) -> bool:
    """Whether the same login may succeed later without anybody changing anything.

    What we do not know is not temporary: the client then hears the origin's own words at once, and may retry.
    """
    if isinstance(error, OriginRefused):
        return error.code in TEMPORARY or (error.code[:2] in TEMPORARY_CLASSES and error.code not in LASTING)
    return isinstance(error, OriginError)


class Backoff:
    """The pause after failed connects of one pool."""

    __slots__ = ("_failed_at", "_random", "failures", "ready_at")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failed_at = float("-inf")
        self.failures = 0
        #: No connect starts before.
        self.ready_at = float("-inf")

    def failed(self, now: float, *, started_at: float, temporary: bool, settings: PoolSettings) -> bool:
        """Note a failure; ``False``: one of several that ran in parallel. They are one step, else four skip three."""
        if started_at <= self._failed_at:
            return False
        self._failed_at = now
        self.failures += 1
        if temporary:
            # The exponent is bounded, as a float overflows after 1024 failures.
            longest = min(settings.backoff_max, settings.backoff_first * 2.0 ** min(self.failures - 1, 32))
        else:
            longest = settings.refused_retry
        self.ready_at = now + longest * (0.5 + 0.5 * self._random())
        return True

    def succeeded(self) -> None:
        """The origin answers again."""
        self.failures = 0
        self.ready_at = self._failed_at = float("-inf")
