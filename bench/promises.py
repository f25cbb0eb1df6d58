"""Every figure that was promised, and what came out: ``python -m bench targets`` prints them, with those that were not measured.

What is promised stands in the project's issues, under "what it must reach". The list here is checked against a run by name, so that
a promise cannot disappear by not being measured. Knows names of workloads and goals; the limits stand where they are measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.live import figure, table
from bench.operations import OPERATIONS
from bench.results import LATEST, Goal, Run, load
from bench.targets import SHORT_SCRAM_SAID
from bench.text import TRIPS_BY_TIME, reach
from bench.workloads.hits import ADJUSTED

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Promise:
    """A goal by its workload, name and unit."""

    workload: str
    name: str
    unit: str


@dataclass(frozen=True, slots=True)
class Row:
    """A promise, or a goal beyond what was promised (*section* is then that of its workload), with what came out."""

    section: str
    workload: str
    name: str
    goal: Goal | None

    @property
    def verdict(self) -> str:
        return self.goal.verdict if self.goal is not None else NOT_MEASURED

    @property
    def bound(self) -> str:
        goal = self.goal
        return f"{goal.bound} {goal.limit:g} {goal.unit}".strip() if goal is not None else ""


def _by_protocol(workload: str, name: str, unit: str) -> Iterator[Promise]:
    for protocol in ("simple", "extended"):
        yield Promise(workload, f"{name}, {protocol}", unit)


def _forwarding() -> Iterator[Promise]:
    yield from _by_protocol("select", "CPU per query", "× PgBouncer")
    yield from _by_protocol("select", "throughput", "× PgBouncer")
    yield Promise("select", "throughput, prepared", "× PgBouncer's extended")
    yield Promise("idle", "memory per idle client", "KiB")
    yield Promise("idle", "clients held", "")
    yield Promise("busy", "errors", "")
    yield Promise("workers", "capacity of two workers", "× one")


def _trips() -> Iterator[Promise]:
    for operation in OPERATIONS:
        yield Promise("round-trips", operation.name, TRIPS_BY_TIME)
        if operation.cached is not None:
            yield Promise("round-trips", f"{operation.name}, cached", TRIPS_BY_TIME)
        yield Promise("round-trips", f"{operation.name}, against PgBouncer", "round trips counted")


def _cache() -> Iterator[Promise]:
    for unit in ("× direct", "× PgBouncer"):
        yield from _by_protocol("hits", "throughput of hits", unit)
    for unit in ("µs", ADJUSTED):
        yield from _by_protocol("hits", "CPU per hit", unit)
    yield from _by_protocol("hits", "p99 of a hit", "× p50")
    yield Promise("aggregate", "throughput of a cached aggregate", "× direct")
    yield Promise("verdicts", "a verdict, known", "µs")
    yield Promise("verdicts", "a verdict, first sight", "µs")
    yield Promise("misses", "CPU of a miss", "× cache off")


def _connecting() -> Iterator[Promise]:
    drivers = {"serverless": ("psycopg 3", "asyncpg", "node-postgres"), "launch": ("node-postgres",)}
    for workload, programs in drivers.items():
        for program in programs:
            for how in ("", SHORT_SCRAM_SAID):
                kinds = ["uncached read", "uncached write", "cached read"]
                if program == "psycopg 3":
                    # What `with connect() as connection` does; its writes take two round trips, which nothing can save.
                    kinds += ["uncached read in a transaction"]
                for what in kinds:
                    yield Promise(workload, f"{program}: {what}{how}", "× faster than direct")


SECTIONS: dict[str, tuple[Promise, ...]] = {
    "A new connection per request, 80 ms away (issue 5)": tuple(_connecting()),
    "The cache (issue 4)": tuple(_cache()),
    "Forwarding (issue 2)": tuple(_forwarding()),
    "Round trips (issue 3)": tuple(_trips()),
}
BEYOND = "Beyond what was promised"


def rows(run: Run) -> list[Row]:
    """All promises in order, then the goals that nobody promised."""
    found = {Promise(outcome.key, goal.name, goal.unit): goal for outcome in run.outcomes for goal in outcome.goals}
    titles = {outcome.key: outcome.title for outcome in run.outcomes}
    made = []
    for section, promises in SECTIONS.items():
        made += [Row(section, titles.get(p.workload, p.workload), p.name, found.pop(p, None)) for p in promises]
    return made + [Row(BEYOND, titles[p.workload], p.name, goal) for p, goal in found.items()]


def plain(run: Run) -> list[dict[str, object]]:
    """The rows for the JSON."""
    return [
        {
            "section": row.section,
            "workload": row.workload,
            "figure": row.name,
            "here": row.goal.value if row.goal else None,
            "low": row.goal.interval[0] if row.goal else None,
            "high": row.goal.interval[1] if row.goal else None,
            "target": row.bound,
            "verdict": row.verdict,
        }
        for row in rows(run)
    ]


def summary(found: Sequence[Row]) -> str:
    """How many are met, in a sentence."""
    measured = [row.goal for row in found if row.goal is not None]
    met = sum(goal.is_met for goal in measured)
    missing = len(found) - len(measured)
    text = f"{met} of {len(measured)} met"
    return f"{text}, {missing} not measured" if missing else text


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 when something that was promised was not measured."""
    parser = argparse.ArgumentParser(prog="python -m bench targets", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", default=LATEST, help="figures of a run (default: the latest)")
    options = parser.parse_args(arguments)
    found = rows(load(options.file))
    for section in dict.fromkeys(row.section for row in found):
        mine = [row for row in found if row.section == section]
        print(f"\n{section}: {summary(mine)}")
        print(table([["workload", "figure", "here", "interval", "target", ""], *map(_cells, mine)]))
    return 1 if any(row.goal is None for row in found) else 0


def _cells(row: Row) -> list[object]:
    goal = row.goal
    if goal is None:
        return [row.workload, row.name, "", "", "", row.verdict]
    return [row.workload, row.name, figure(float(goal.value)), reach(goal), row.bound, row.verdict]
