"""What every workload needs: the origin, the targets, how long to measure, and where to tell about it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise

from bench import pgbench, processes, text
from bench.distance import Distance, Link, Tls, distance
from bench.live import Live
from bench.origin import trusting, with_password
from bench.results import Outcome
from bench.targets import (
    Address,
    Direct,
    Floor,
    Missing,
    Odyssey,
    PgBouncer,
    PgCat,
    PgDog,
    Pgpool,
    Running,
    Target,
    Us,
)
from bench.targets.ours import CACHED
from hyperdrive.localserver import LocalServer

AWAY = Link(40.0)
HUNDRED = Link(50.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often."""

    seconds: float = 3.0
    """Of one round of one target."""
    rounds: int = 3
    idle_clients: int = 10_000
    busy_clients: int = 2_000
    storm_clients: int = 500
    pin: bool = True
    """Measure pinned to cores as well."""
    link: Link = AWAY
    """How far the origin is, where a workload is about distance."""
    trips_link: Link = HUNDRED
    """For the table of round trips."""
    repeats: int = 3
    """Of each operation over a distance, after the first."""
    requests: int = 8
    """Requests on new connections over a distance, of each kind."""


QUICK = Plan(
    seconds=1.0,
    rounds=1,
    idle_clients=2_000,
    busy_clients=500,
    storm_clients=200,
    pin=False,
    link=Link(10.0),
    trips_link=Link(10.0),
    repeats=1,
    requests=2,
)
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

    @property
    def address(self) -> Address:
        """The origin without a password."""
        return trusting(self.origin)

    @contextmanager
    def running(self, targets: Sequence[Target], origin: Address | None = None) -> Iterator[list[Running]]:
        """All of *targets* at the same time, in front of *origin*; what does not start is left out, with a line."""
        with ExitStack() as stack:
            found = []
            for target in targets:
                self.live.now(f"starting {target.name}")
                try:
                    found.append(stack.enter_context(target.start(origin or self.address)))
                except (Missing, RuntimeError) as reason:
                    self.skip(str(reason) if isinstance(reason, Missing) else f"{target.name}: {reason}")
            yield found

    def skip(self, reason: str) -> None:
        """Remember what was left out, once."""
        line = " ".join(reason.split())
        if line not in self.skipped:
            self.skipped.append(line)

    @contextmanager
    def far(self, *, tls: Tls | None = "1.3") -> Iterator[Distance]:
        """The origin at a distance: with *tls* and a password, as one that is far away is reached."""
        address = with_password(self.origin) if tls else self.address
        with distance(address, self.plan.link, tls=tls) as made:
            yield made

    def interleaved(
        self, outcome: Outcome, running: Sequence[Running], rounds: int, label: str = ""
    ) -> Iterator[tuple[int, Running]]:
        """Rounds over all targets, told about; every round begins with another, so that none always has the quiet moment."""
        self.live.board = lambda: text.figures(outcome)
        for number in range(rounds):
            shift = number % max(1, len(running))
            for target in [*running[shift:], *running[:shift]]:
                self.live.where = f"{outcome.title}{label}, {target.name}, round {number + 1}/{rounds}"
                self.live.now("…")
                yield number, target
        self.live.where = ""

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
        able = [target for target in running if target.max_clients >= clients]
        failed: set[str] = set()
        for _, target in self.interleaved(outcome, able, rounds, label):
            place = processes.pinned(target.roots, self.origin_pids) if pinned else nullcontext()
            if target.name in failed:
                continue
            try:
                with place:
                    self._round(outcome, target, arguments, clients, threads, seconds, label, warm)
            except pgbench.PgbenchFailed as error:  # what one cannot do must not cost the others their figures
                failed.add(target.name)
                outcome.skipped.append(f"{target.name}{label}: {str(error).strip().splitlines()[0]}")

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
        if "aborted" in report.complaints:
            raise pgbench.PgbenchFailed(report.complaints)
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
    rivals = [PgBouncer(), Pgpool(), Odyssey(), PgCat(), PgDog()]
    return [Direct(), Us(), Us(CACHED, cache=True), *rivals, *([Floor()] if floor else [])]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
