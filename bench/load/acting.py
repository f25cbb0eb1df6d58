"""The side of a load program that is asked: a line of standard input is an act, a line of JSON with ``end`` in it is what came of it.

Programs that use one driver each are processes of their own, so that drivers, proxy and the one who measures do not wait for each
other. The time is taken here, around the driver's calls and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

READ = "SELECT name, price FROM bench_items WHERE id = "
WRITE = "UPDATE bench_counters SET n = n + 1 WHERE id = "
"""Of another table than the reads, since a cache drops what was read of a table that is written."""
SAMPLES = 20_000
"""Latencies kept of a loop, about."""

Act = Callable[..., "Mapping[str, object] | None"]


@dataclass(frozen=True, slots=True)
class Given:
    """What every load program is told: where to connect, and whether statements may be kept there."""

    dsn: str
    keep_statements: bool


def given() -> Given:
    """From the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("--no-statements", action="store_true")
    options = parser.parse_args()
    return Given(options.dsn, not options.no_statements)


def serve(acts: Mapping[str, Act]) -> None:
    """Carry out what standard input asks for, until it ends."""
    tell({"end": True})
    for line in sys.stdin:
        name, *arguments = line.split()
        start = time.perf_counter()
        try:
            found = acts[name](*arguments)
        except Exception as error:  # the one who asked decides what an error means
            tell({"end": True, "error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"})
            continue
        tell({"seconds": time.perf_counter() - start, **(found or {}), "end": True})


def tell(message: Mapping[str, object]) -> None:
    """Answer with a line."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


@dataclass(slots=True)
class Tally:
    """What a closed loop did; tells about it twice a second."""

    seconds: float
    start: float = field(default_factory=time.perf_counter)
    done: int = 0
    latencies: list[float] = field(default_factory=list)
    _told: float = 0.0

    @property
    def is_over(self) -> bool:
        return time.perf_counter() - self.start >= self.seconds

    def add(self, latency: float) -> None:
        """Count one; *latency* is in seconds."""
        self.done += 1
        # Every one of the first, then every eighth: the distribution needs no more.
        if len(self.latencies) < SAMPLES and (self.done < SAMPLES // 2 or self.done % 8 == 0):
            self.latencies.append(latency * 1000)
        now = time.perf_counter()
        if now - self._told > 0.5:
            self._told = now
            tell({"done": self.done, "elapsed": now - self.start})

    def result(self) -> Mapping[str, object]:
        """What is told at the end."""
        elapsed = time.perf_counter() - self.start
        return {"done": self.done, "elapsed": elapsed, "latencies": sorted(self.latencies)}
