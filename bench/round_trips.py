"""Round trips per operation over a distance: by elapsed time, and by a count at the origin's side.

    driver ⇄ proxy ⇄ relay (a fixed delay each way, counts) ⇄ Postgres        direct: without the proxy

Drivers are as their users have them: TLS asked for first (``sslmode=prefer``), statements prepared as the driver likes. For PgBouncer
before 1.21 named statements are switched off, as its manual says. Each operation runs once to warm up, then a few times; before
every run we wait until the relay is quiet, so that what a proxy does behind the client's back counts for the run that caused it.
Elapsed time is what a user feels; the count also has what was carried out behind.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bench.live import Live, table
from bench.machine import ROOT
from bench.operations import OPERATIONS, Operation
from bench.results import Outcome
from bench.suite import FULL, QUICK, Suite, available, origin, usual_targets
from bench.targets import Running, Target, end

QUIET_SECONDS = 0.02


@dataclass(slots=True)
class Distance:
    """The relay as a process of its own, so that drivers and it do not wait for each other."""

    process: subprocess.Popen[str]
    port: int
    delay_seconds: float

    @property
    def round_trip_seconds(self) -> float:
        return 2 * self.delay_seconds

    def ask(self, line: str = "") -> dict[str, int]:
        """Its counters; ``reset`` sets them to zero."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        counters: dict[str, int] = json.loads(self.process.stdout.readline())
        return counters

    def settle(self) -> dict[str, int]:
        """Wait until nothing travels; return the counters."""
        before = self.ask()
        while True:
            # What is under way arrives within one delay and is answered within another.
            time.sleep(self.round_trip_seconds + QUIET_SECONDS)
            now = self.ask()
            if now == before:
                return now
            before = now


@contextmanager
def distance(origin_port: int, delay_seconds: float) -> Iterator[Distance]:
    """A relay in front of *origin_port*."""
    command = [sys.executable, "-m", "hyperdrive.testing.relay", "--target", f"127.0.0.1:{origin_port}"]
    command += ["--delay-ms", f"{delay_seconds * 1000:g}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin is not None and process.stdout is not None
    try:
        port = int(process.stdout.readline().rpartition(":")[2])
        yield Distance(process, port, delay_seconds)
    finally:
        process.stdin.close()
        end(process)
        process.stdout.close()


def round_trips(suite: Suite) -> Outcome:
    """The table of round trips per operation."""
    return measure(suite, OPERATIONS)


def measure(suite: Suite, operations: Sequence[Operation]) -> Outcome:
    """Run *operations* against every target."""
    delay = suite.plan.delay_ms / 1000
    outcome = Outcome(
        "round-trips",
        "round trips",
        f"Over a link with {2 * suite.plan.delay_ms:g} ms there and back, to the left by elapsed time, to the right counted at the "
        "origin's side, where what is carried out behind the client's back counts too.",
    )
    usable: list[Operation] = []
    for operation in operations:
        reason = operation.missing()
        if reason is None:
            usable.append(operation)
        else:
            outcome.skipped.append(f"{operation.name}: {reason}")
    prepare(suite)
    for target in suite.targets:
        with distance(suite.origin.port, delay) as link, target.start(link.port) as running:
            for operation in usable:
                suite.live.where = f"{outcome.title}, {target.name}, {operation.name}"
                _measure(suite, outcome, link, target, running, operation)
    suite.live.where = ""
    for operation in usable:
        found = outcome.find(f"{operation.name}: elapsed", "us")
        if found is not None:
            outcome.promise(
                operation.name,
                "at most",
                operation.goal + _SLACK,
                "round trips by time",
                found.samples,
                _note(operation),
            )
    return outcome


_SLACK = 0.5
"""In parts of a round trip: what computing takes on a busy machine."""


def _note(operation: Operation) -> str:
    return f"the goal is {operation.goal}; {_SLACK} more is allowed for computing"


def prepare(suite: Suite) -> None:
    """The table that operations read and write."""
    suite.origin.execute(
        "DROP TABLE IF EXISTS bench_items; CREATE TABLE bench_items (id int PRIMARY KEY, name text, price numeric);"
        "INSERT INTO bench_items SELECT n, 'item ' || n, n FROM generate_series(1, 1000) n"
    )


def _measure(
    suite: Suite, outcome: Outcome, link: Distance, target: Target, running: Running, operation: Operation
) -> None:
    for number in range(1 + suite.plan.repeats):
        suite.live.now(f"{number + 1}/{1 + suite.plan.repeats}")
        with operation.run(running) as act:
            link.settle()
            link.ask("reset")
            start = time.perf_counter()
            act()
            elapsed = time.perf_counter() - start
            counters = link.settle()
        crossings = counters["round_trips"] + counters["connections_total"]
        if number:
            outcome.add(f"{operation.name}: elapsed", target.name, "", elapsed / link.round_trip_seconds)
            outcome.add(f"{operation.name}: counted", target.name, "", float(crossings))
        else:
            outcome.add(f"{operation.name}: first time", target.name, "", elapsed / link.round_trip_seconds)


def show(outcome: Outcome) -> str:
    """The table as it stands in the README."""
    names = list(dict.fromkeys(figure.metric.rpartition(": ")[0] for figure in outcome.figures))
    targets = list(dict.fromkeys(figure.target for figure in outcome.figures))
    goals = {goal.name: goal for goal in outcome.goals}
    rows: list[list[object]] = [["operation", *targets, "goal for us", ""]]
    for name in names:
        row: list[object] = [name]
        for target in targets:
            elapsed, counted = (outcome.find(f"{name}: {what}", target) for what in ("elapsed", "counted"))
            row.append(
                f"{elapsed.median:.1f} ({statistics.median(counted.samples):.0f})"
                if elapsed is not None and counted is not None
                else "–"
            )
        goal = goals.get(name)
        row += [f"{goal.limit - _SLACK:.0f}", goal.verdict] if goal is not None else ["–", ""]
        rows.append(row)
    return table(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench round-trips", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--delay-ms", type=float, help="one way (default: 50)")
    parser.add_argument("--only", metavar="TEXT", help="operations whose names contain this")
    parser.add_argument("--quick", action="store_true", help="25 ms one way")
    options = parser.parse_args(arguments)
    chosen = [operation for operation in OPERATIONS if (options.only or "") in operation.name]
    plan = QUICK if options.quick else FULL
    if options.delay_ms is not None:
        plan = replace(plan, delay_ms=options.delay_ms)
    live = Live()
    targets, missing = available(usual_targets())
    with origin(live, scale=0) as server:
        outcome = measure(Suite(plan, live, server, targets), chosen)
    live.say(
        f"round trips by elapsed time at {2 * plan.delay_ms:g} ms there and back (in brackets: counted at the origin)\n"
    )
    live.say(show(outcome))
    for line in [*missing, *outcome.skipped]:
        live.say(f"  skipped  {line}")
    return 0
