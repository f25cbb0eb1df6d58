"""Prepared statements through real drivers: psycopg, asyncpg and node-postgres, eight connections of each.

The drivers cost more than any proxy here, so throughput says little about the proxy; its CPU per statement does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench import processes
from bench.actors import ASYNCPG, NODE_POSTGRES, PSYCOPG, ActFailed, Program, actor
from bench.results import Outcome, quantiles
from bench.suite import Suite
from bench.targets import Running

CLIENTS = 8


def drivers(suite: Suite) -> Outcome:
    """A closed loop of each driver on each target."""
    outcome = Outcome(
        "drivers",
        "prepared statements by drivers",
        f"One read by primary key, prepared, on {CLIENTS} connections of each driver. A target that cannot keep statements gets them "
        "unprepared, as its manual says.",
    )
    running = suite.running(suite.usual if suite.plan.is_thorough else suite.forwarders)
    for program in (PSYCOPG, ASYNCPG, NODE_POSTGRES) if suite.plan.is_thorough else (ASYNCPG,):
        if (reason := program.missing()) is not None:
            outcome.skipped.append(f"{program.name}: {reason}")
            continue
        for _, target in suite.interleaved(outcome, running, 1, f", {program.name}"):
            _round(suite, outcome, program, target)
    for target in running:
        if not target.has_statements:
            outcome.skipped.append(f"{target.name}: this version keeps no prepared statements in transaction mode")
    return outcome


def _round(suite: Suite, outcome: Outcome, program: Program, target: Running) -> None:
    def progress(message: Mapping[str, Any]) -> None:
        suite.live.now(f"{message['done'] / max(message['elapsed'], 0.001):,.0f}/s")

    seconds = max(1.0, suite.plan.seconds / 2)
    try:
        with actor(program, target) as asked:
            before = processes.cpu_seconds(target.roots)
            found = asked.ask(f"loop {seconds} {CLIENTS}", progress)
            used = processes.cpu_seconds(target.roots) - before
    except ActFailed as error:
        suite.skip(f"{target.name}, {program.name}: {error}")
        return
    _add(outcome, program.name, target, found, used)


def _add(outcome: Outcome, name: str, target: Running, found: Mapping[str, Any], used: float) -> None:
    done = max(1, int(found["done"]))
    latencies: Sequence[float] = found["latencies"]
    outcome.add(f"throughput, {name}", target.name, "1/s", done / float(found["elapsed"]))
    if target.roots:
        outcome.add(f"CPU, {name}", target.name, "µs", used / done * 1e6)
    if latencies:
        middle, late = (latencies[int(share * (len(latencies) - 1))] for share in (0.5, 0.99))
        outcome.add(f"p50, {name}", target.name, "ms", middle)
        outcome.add(f"p99, {name}", target.name, "ms", late, latencies=quantiles(latencies))
