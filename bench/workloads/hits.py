"""The cache by itself: what a hit costs, what it saves, and what it costs not to hit."""

from __future__ import annotations

from collections.abc import Sequence

from bench import processes, rounds
from bench.origin import FACTS
from bench.results import Outcome
from bench.rounds import Load
from bench.suite import Suite
from bench.targets import CACHED, US, Floor, Pgpool, Running
from bench.workloads.web import scripts

CLIENTS = 16
KEYS = 1_000
HIT = f"\\set id random(1, {KEYS})\nSELECT name, price FROM bench_items WHERE id = :id;\n"
HEAVY = "\\set least random(0, 9)\nSELECT count(*), sum(amount), avg(amount) FROM bench_facts WHERE id > :least;\n"
MISS = "\\set n random(1, 2000000000)\nSELECT name, price, :n FROM bench_items WHERE id = 7;\n"

HIT_GOALS = {"simple": 2.5, "extended": 3.0}
PGBOUNCER_GOAL = 4.0
HIT_CPU_US = 12.0
FLOOR_CPU_US = 25.0
ADJUSTED = f"µs where the plain forwarder shows {FLOOR_CPU_US:g}"
HEAVY_GOAL = 50.0
MISS_GOAL = 1.5


def hits(suite: Suite) -> Outcome:
    """Point reads that the cache has."""
    outcome = Outcome(
        "hits",
        "cached point reads",
        f"One row by primary key, {KEYS:,} keys that were all read before, {CLIENTS} clients of pgbench; we and the floor "
        "have a core of our own where that can be had. The floor is a forwarder in "
        "Python that decides nothing: the goal for a hit's CPU was set where it shows 25 µs, so it is also given in proportion to it.",
    )
    # Us without the cache is another workload's subject.
    targets = [target for target in suite.targets if target.name != US]
    if not any(target.name == "floor" for target in targets):
        targets.append(Floor())
    running = suite.running(targets)
    # What was promised is promised for one core of ours; the others may have both.
    alone = (CACHED, Floor.name) if suite.plan.pin and processes.can_pin() else ()
    with scripts(HIT) as (script,):
        for mode in HIT_GOALS if suite.plan.is_thorough else ("simple",):
            load = Load(["-M", mode, "-f", script], CLIENTS, f", {mode}", pinned_only=alone)
            rounds.warm(suite, _caches(running), load)
            rounds.measure(suite, outcome, running, load)
    for mode, goal in HIT_GOALS.items():
        _tails(outcome, mode)
        _promise(outcome, mode, goal)
    return outcome


def _tails(outcome: Outcome, mode: str) -> None:
    """How much later than the middle one the last in a hundred is, for everybody: how much of it the machine does shows in direct."""
    for target in dict.fromkeys(figure.target for figure in outcome.figures):
        slow, middle = (outcome.find(f"{name}, {mode}", target) for name in ("p99", "p50"))
        if slow is not None and middle is not None:
            for late, usual in zip(slow.samples, middle.samples, strict=True):
                if usual:
                    outcome.add(f"p99 in parts of p50, {mode}", target, "×", late / usual)


def _promise(outcome: Outcome, mode: str, goal: float) -> None:
    label = f", {mode}"
    for rival, limit in (("direct", goal), ("PgBouncer", PGBOUNCER_GOAL)):
        ratio = outcome.ratio(f"throughput{label}", CACHED, rival)
        outcome.promise(f"throughput of hits{label}", "at least", limit, f"× {rival}", ratio)
    if (cpu := outcome.find(f"CPU{label}", CACHED)) is not None:
        outcome.promise(f"CPU per hit{label}", "at most", HIT_CPU_US, "µs", cpu.samples)
        adjusted = [FLOOR_CPU_US * share for share in outcome.ratio(f"CPU{label}", CACHED, "floor")]
        outcome.promise(f"CPU per hit{label}", "at most", HIT_CPU_US, ADJUSTED, adjusted)
    tails = {name: outcome.find(f"p99 in parts of p50{label}", name) for name in (CACHED, "direct", "PgBouncer")}
    if (mine := tails.pop(CACHED)) is not None:
        others = ", ".join(f"{name} {found.median:.1f}" for name, found in tails.items() if found is not None)
        note = f"in the same rounds: {others}" if others else ""
        outcome.promise(f"p99 of a hit{label}", "at most", 2.0, "× p50", mine.samples, note)


def _caches(running: Sequence[Running]) -> list[Running]:
    return [target for target in running if target.name in (CACHED, Pgpool.name)]


def aggregate(suite: Suite) -> Outcome:
    """An aggregate over all of a table."""
    outcome = Outcome(
        "aggregate",
        "a cached aggregate",
        f"Count, sum and mean of {FACTS:,} rows (all but the first few, so that there are ten different ones), {CLIENTS} clients of "
        "pgbench, simple protocol.",
    )
    running = suite.running([t for t in suite.targets if suite.plan.is_thorough or t.name in ("direct", CACHED)])
    with scripts(HEAVY) as (script,):
        load = Load(["-f", script], CLIENTS, rounds=suite.plan.few)
        rounds.warm(suite, _caches(running), load)
        rounds.measure(suite, outcome, running, load)
    ratio = outcome.ratio("throughput", CACHED, "direct")
    outcome.promise("throughput of a cached aggregate", "at least", HEAVY_GOAL, "× direct", ratio)
    return outcome


def misses(suite: Suite) -> Outcome:
    """Statements of which no two are alike."""
    outcome = Outcome(
        "misses",
        "nothing to hit",
        f"Every statement text is another (a literal inlined), so the hit rate is zero; {CLIENTS} clients of pgbench, simple protocol.",
    )
    able = [target for target in suite.usual if target.is_proxy]
    with scripts(MISS) as (script,):
        rounds.measure(suite, outcome, suite.running(able), Load(["-f", script], CLIENTS))
    outcome.promise("CPU of a miss", "at most", MISS_GOAL, "× cache off", outcome.ratio("CPU", CACHED, US))
    return outcome
