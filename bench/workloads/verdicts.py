"""What it costs to decide about a statement: for the first time, and when its text is known. CPU in this process, no sockets."""

from __future__ import annotations

from bench.micro.classify import TEXTS, microseconds
from bench.results import Outcome
from bench.suite import Suite
from hyperdrive.sql import VerdictCache, classify

KNOWN_US = 1.0
FIRST_US = 60.0
READS = ("pgbench select", "aggregate", "with a comment", "own function", "with")


def verdicts(suite: Suite) -> Outcome:
    """Reads of several kinds; the promise is about the plainest."""
    outcome = Outcome(
        "verdicts",
        "deciding about a statement",
        "Microseconds of CPU to say what a statement is, at first sight and when its text is known. The promise is for a read by primary "
        "key; others are longer to read.",
    )
    for number in range(suite.plan.rounds):
        suite.live.where = f"{outcome.title}, round {number + 1}/{suite.plan.rounds}"
        for name in READS:
            suite.live.now(name)
            sql, cache = TEXTS[name], VerdictCache()
            cache.classify(sql)
            cache.classify(sql)
            outcome.add(f"first sight, {name}", "us", "µs", microseconds(lambda sql=sql: classify(sql)))  # type: ignore[misc]
            known = microseconds(lambda sql=sql, cache=cache: cache.classify(sql))  # type: ignore[misc]
            outcome.add(f"known, {name}", "us", "µs", known)
    suite.live.where = ""
    for what, limit in (("known", KNOWN_US), ("first sight", FIRST_US)):
        found = outcome.find(f"{what}, pgbench select", "us")
        outcome.promise(f"a verdict, {what}", "at most", limit, "µs", found.samples if found else [])
    return outcome
