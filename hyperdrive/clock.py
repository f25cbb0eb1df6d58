"""The only place that reads the time, so that tests can own it.

Seconds are ``float``. ``Clock.now`` is monotonic and has no epoch; ``Clock.wall`` is seconds since 1970.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """What the rest of the house needs of time."""

    def now(self) -> float:
        """Monotonic seconds."""

    def wall(self) -> float:
        """Seconds since the epoch, for certificates, ``VALID UNTIL`` and people."""


class SystemClock:
    """The machine's clock."""

    now: Callable[[], float] = staticmethod(time.monotonic)
    wall: Callable[[], float] = staticmethod(time.time)


class ManualClock:
    """A clock that stands still until ``advance`` moves it."""

    def __init__(self, start: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = start
        self._wall = wall

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        """Move both readings on by *seconds*."""
        self._now += seconds
        self._wall += seconds
