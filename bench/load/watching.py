"""What is committed, and which reads were out of date: the arithmetic of staleness, without any driver."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Watch:
    """What is committed, since when, and what readers saw of it."""

    seconds: float
    committed: dict[int, list[float]] = field(default_factory=dict)
    """By key, when each version after the first became known to be committed."""
    reads: int = 0
    hits: int = 0
    stale: int = 0
    worst_seconds: float = 0.0
    start: float = field(default_factory=time.perf_counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return time.perf_counter() - self.start >= self.seconds

    def judge(self, key: int, begun: float, version: int) -> None:
        """A read that began at *begun* got *version*: it is stale if a later one had been committed by then."""
        self.reads += 1
        self.latencies.append((time.perf_counter() - begun) * 1000)
        later = self.committed.get(key, [])[version:]
        if later and later[0] < begun:
            self.stale += 1
            self.worst_seconds = max(self.worst_seconds, begun - later[0])
