"""A storm of connections: hundreds of clients connect at the same moment, read once, and stay until all have."""

from __future__ import annotations

from bench import processes
from bench.actors import ASYNCPG, actor
from bench.results import Outcome, quantiles
from bench.suite import Suite
from bench.targets import Running


def storm(suite: Suite) -> Outcome:
    """All at once, by asyncpg, again and again."""
    clients = suite.plan.storm_clients
    outcome = Outcome(
        "storm",
        f"{clients} connections at once",
        f"{clients} clients of asyncpg connect at the same moment, each reads once and stays. The origin allows 400 connections in all. Time is until the last answer; latencies are from the beginning to each answer.",
    )
    if (reason := ASYNCPG.missing()) is not None:
        outcome.skipped.append(f"asyncpg: {reason}")
        return outcome
    for _, target in suite.interleaved(outcome, suite.running(suite.usual), suite.plan.shown):
        _round(outcome, target, clients)
    found = outcome.find("errors", "us")
    outcome.promise("errors", "at most", 0, "", found.samples if found else [])
    return outcome


def _round(outcome: Outcome, target: Running, clients: int) -> None:
    with actor(ASYNCPG, target) as asked:
        before = processes.cpu_seconds(target.roots)
        found = asked.ask(f"storm {clients}")
        used = processes.cpu_seconds(target.roots) - before
    outcome.add("time until all are served", target.name, "s", float(found["seconds"]))
    outcome.add("errors", target.name, "", float(found["errors"]))
    if target.roots:
        outcome.add("CPU per connection", target.name, "µs", used / clients * 1e6)
    latencies = found["latencies"]
    if latencies:
        outcome.add(
            "p99 of connect and read",
            target.name,
            "ms",
            latencies[int(0.99 * (len(latencies) - 1))],
            latencies=quantiles(latencies),
        )
