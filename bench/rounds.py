"""Interleaved rounds of pgbench over several targets: throughput, latencies, and CPU of each process from the operating system."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise

from bench import pgbench, processes
from bench.results import Outcome, quantiles
from bench.suite import Suite
from bench.targets import CACHED, Running

WARM_SECONDS = 6
ASKED_US = 5.0
"""CPU of the origin for each statement below which nearly all of them were hits."""


@dataclass(frozen=True, slots=True)
class Load:
    """What pgbench is to do; *label* stands behind the names of the metrics."""

    arguments: Sequence[str]
    clients: int
    label: str = ""
    threads: int = 1
    seconds: float | None = None
    rounds: int | None = None
    pinned: bool = False
    pinned_only: Collection[str] = ()
    """Targets that get a core of their own where others may use all."""
    is_settled: bool = False
    """CPU is counted from the first second with results on, without the clients' logins."""


def warm(suite: Suite, running: Sequence[Running], load: Load) -> None:
    """A second of it that nobody measures, so that caches have what is asked for; more for ours while the origin is asked."""
    for target in running:
        for number in range(WARM_SECONDS if target.name == CACHED else 1):
            suite.live.now(f"warming up {target.name}, {number + 1} s")
            before = processes.cpu_seconds(suite.origin_pids)
            try:
                done = pgbench.run(target, load.arguments, seconds=1, clients=load.clients).transactions
            except pgbench.PgbenchFailed:
                break  # the measured rounds will say it
            if processes.cpu_seconds(suite.origin_pids) - before < ASKED_US / 1e6 * done:
                break


def measure(suite: Suite, outcome: Outcome, running: Sequence[Running], load: Load) -> None:
    """Rounds of *load* over *running*; one that cannot do it is left out from then on, with a line."""
    able = [target for target in running if target.max_clients >= load.clients]
    failed: set[str] = set()
    for _, target in suite.interleaved(outcome, able, load.rounds or suite.plan.rounds, load.label):
        if target.name in failed:
            continue
        is_alone = load.pinned or target.name in load.pinned_only
        place = processes.pinned(target.roots, suite.origin_pids) if is_alone else nullcontext()
        try:
            with place:
                _round(suite, outcome, target, load)
        except pgbench.PgbenchFailed as error:
            failed.add(target.name)
            outcome.skipped.append(f"{target.name}{load.label}: {str(error).strip().splitlines()[0]}")


@dataclass(frozen=True, slots=True)
class _Used:
    """CPU seconds so far: of the target, of Postgres, of the target outside the kernel."""

    target: float
    postgres: float
    own_code: float


def _used(suite: Suite, target: Running) -> _Used:
    return _Used(
        processes.cpu_seconds(target.roots),
        processes.cpu_seconds(suite.origin_pids),
        processes.user_seconds(target.roots),
    )


def _round(suite: Suite, outcome: Outcome, target: Running, load: Load) -> None:
    before = _used(suite, target)
    marks: list[tuple[float, float, _Used]] = []

    def progress(at: float, tps: float) -> None:
        suite.live.now(f"{at:.0f} s  {tps:,.0f}/s")
        if load.is_settled and tps:
            marks.append((at, tps, _used(suite, target)))

    known = outcome.find(f"throughput{load.label}", target.name)
    report = pgbench.run(
        target,
        load.arguments,
        seconds=load.seconds or suite.plan.seconds,
        clients=load.clients,
        threads=load.threads,
        expected_tps=known.samples[0] if known else 20_000,
        on_progress=progress,
    )
    if "aborted" in report.complaints:
        raise pgbench.PgbenchFailed(report.complaints)
    after, done = _used(suite, target), max(1.0, report.transactions)
    if len(marks) > 1:
        before, after = marks[0][2], marks[-1][2]
        done = sum(tps * (at - earlier) for (earlier, _, _), (at, tps, _) in pairwise(marks))
    _add(outcome, target, load.label, report, before, after, done)


def _add(
    outcome: Outcome, target: Running, label: str, report: pgbench.Report, before: _Used, after: _Used, done: float
) -> None:
    name = target.name
    outcome.add(f"throughput{label}", name, "1/s", report.tps)
    if target.roots:
        outcome.add(f"CPU{label}", name, "µs", (after.target - before.target) / done * 1e6)
        outcome.add(f"CPU outside the kernel{label}", name, "µs", (after.own_code - before.own_code) / done * 1e6)
        outcome.add(f"memory{label}", name, "MiB", processes.resident_bytes(target.roots) / 2**20)
    outcome.add(f"CPU of Postgres{label}", name, "µs", (after.postgres - before.postgres) / done * 1e6)
    outcome.add(f"p50{label}", name, "ms", report.percentile(0.5))
    outcome.add(f"p99{label}", name, "ms", report.percentile(0.99), latencies=quantiles(report.latencies))
    if report.failed or report.complaints:
        outcome.add(f"errors{label}", name, "", float(max(report.failed, report.complaints.count("\n"))))
