"""What every workload needs: the origin, the targets, how long to measure, and where to tell about it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from bench import pgbench, processes
from bench.live import Live
from bench.results import Outcome
from bench.targets import Direct, Floor, Missing, PgBouncer, Running, Target, Us
from hyperdrive.localserver import LocalServer

ORIGIN_SETTINGS = {
    # The disk is not what is measured.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "256MB",
    "max_connections": "200",
    "autovacuum": "off",
    "jit": "off",
}
SCALE = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often."""

    seconds: float = 5.0
    """Of one round of one target."""
    rounds: int = 3
    idle_clients: int = 10_000
    busy_clients: int = 2_000
    pin: bool = True
    """Measure pinned to cores as well."""
    delay_ms: float = 50.0
    """One way, for round trips."""
    repeats: int = 3
    """Of each operation over a distance, after the first."""


QUICK = Plan(seconds=1.0, rounds=2, idle_clients=2_000, pin=False, delay_ms=20.0, repeats=1)
FULL = Plan()


@dataclass(slots=True)
class Suite:
    """One run under way."""

    plan: Plan
    live: Live
    origin: LocalServer
    targets: list[Target]
    skipped: list[str] = field(default_factory=list)

    @property
    def proxies(self) -> list[Target]:
        return [target for target in self.targets if target.is_proxy]

    @property
    def origin_pids(self) -> list[int]:
        return [self.origin.pid] if self.origin.pid is not None else []

    @contextmanager
    def running(self, targets: Sequence[Target]) -> Iterator[list[Running]]:
        """All of *targets* at the same time, in front of the origin."""
        with ExitStack() as stack:
            yield [stack.enter_context(target.start(self.origin.port)) for target in targets]

    def measure(
        self,
        outcome: Outcome,
        running: Sequence[Running],
        arguments: Sequence[str],
        *,
        clients: int,
        label: str = "",
        threads: int = 1,
        seconds: float | None = None,
        rounds: int | None = None,
        pinned: bool = False,
        warm: bool = False,
    ) -> None:
        """Interleaved rounds of pgbench over *running*; metrics of *outcome* get *label* behind their names.

        *warm*: CPU is counted from the first second with results on, without the clients' logins.
        """
        seconds = seconds or self.plan.seconds
        rounds = rounds or self.plan.rounds
        for number in range(rounds):
            # Every round begins with another target, so that none always has the quiet moment.
            shift = number % len(running)
            for target in [*running[shift:], *running[:shift]]:
                self.live.where = f"{outcome.title}{label}, {target.name}, round {number + 1}/{rounds}"
                self.live.now("…")
                place = processes.pinned(target.roots, self.origin_pids) if pinned else nullcontext()
                with place:
                    self._round(outcome, target, arguments, clients, threads, seconds, label, warm)
        self.live.where = ""

    def _round(
        self,
        outcome: Outcome,
        target: Running,
        arguments: Sequence[str],
        clients: int,
        threads: int,
        seconds: float,
        label: str,
        warm: bool,
    ) -> None:
        before = self._cpu(target)
        marks: list[tuple[float, float, tuple[float, float, float]]] = []

        def progress(at: float, tps: float) -> None:
            self.live.now(f"{at:.0f} s  {tps:,.0f}/s")
            if warm and tps:
                marks.append((at, tps, self._cpu(target)))

        known = outcome.find(f"throughput{label}", target.name)
        report = pgbench.run(
            target,
            arguments,
            seconds=seconds,
            clients=clients,
            threads=threads,
            expected_tps=known.samples[0] if known else 20_000,
            on_progress=progress,
        )
        after = self._cpu(target)
        done = max(1.0, report.transactions)
        if len(marks) > 1:
            before, after = marks[0][2], marks[-1][2]
            done = sum(tps * (at - earlier) for (earlier, _, _), (at, tps, _) in pairwise(marks))
        outcome.add(f"throughput{label}", target.name, "1/s", report.tps)
        if target.roots:
            outcome.add(f"CPU{label}", target.name, "µs", (after[0] - before[0]) / done * 1e6)
            outcome.add(f"CPU outside the kernel{label}", target.name, "µs", (after[2] - before[2]) / done * 1e6)
            outcome.add(f"memory{label}", target.name, "MiB", processes.resident_bytes(target.roots) / 2**20)
        outcome.add(f"CPU of Postgres{label}", target.name, "µs", (after[1] - before[1]) / done * 1e6)
        outcome.add(f"p50{label}", target.name, "ms", report.percentile(0.5))
        outcome.add(f"p99{label}", target.name, "ms", report.percentile(0.99), latencies=quantiles(report.latencies))
        if report.failed or report.complaints:
            outcome.add(f"errors{label}", target.name, "", float(max(report.failed, report.complaints.count("\n"))))
            self.live.say(f"  {target.name}: {report.complaints.splitlines()[0] if report.complaints else 'failed'}")

    def _cpu(self, target: Running) -> tuple[float, float, float]:
        """Of the target, of Postgres, and of the target outside the kernel."""
        return (
            processes.cpu_seconds(target.roots),
            processes.cpu_seconds(self.origin_pids),
            processes.user_seconds(target.roots),
        )


def quantiles(values: Sequence[float], points: int = 50) -> list[float]:
    """*points* quantiles of sorted *values*, enough to draw their distribution."""
    if not values:
        return []
    return [values[min(len(values) - 1, int((i + 0.5) / points * len(values)))] for i in range(points)]


@contextmanager
def origin(live: Live, scale: int = SCALE) -> Iterator[LocalServer]:
    """An embedded Postgres with pgbench's tables."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        live.now("starting an embedded Postgres")
        with LocalServer(directory / "data", auth="trust", settings=ORIGIN_SETTINGS) as server:
            if scale:
                live.now(f"making pgbench's tables, scale {scale}")
                pgbench.initialize(server.port, scale)
            yield server


def available(candidates: Sequence[Target]) -> tuple[list[Target], list[str]]:
    """Those that are installed, and a line for each that is not."""
    found: list[Target] = []
    missing: list[str] = []
    for target in candidates:
        try:
            target.version()
            found.append(target)
        except Missing as reason:
            missing.append(str(reason))
    return found, missing


def usual_targets(*, floor: bool = False) -> list[Target]:
    """Whatever a user would pick between; *floor* adds the forwarder that decides nothing."""
    return [Direct(), Us(), PgBouncer(), *([Floor()] if floor else [])]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
