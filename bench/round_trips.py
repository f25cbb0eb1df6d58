"""Round trips per operation over a distance: by elapsed time, and by a count at the origin's side.

    driver ⇄ proxy ⇄ relay (a fixed delay each way, counts) ⇄ Postgres        direct: without the proxy

Drivers are as their users have them: TLS asked for first (``sslmode=prefer``), statements prepared as the driver likes. For PgBouncer
before 1.21 named statements are switched off, as its manual says. Each operation runs once to warm up, then a few times; before
every run we wait until the relay is quiet, so that what a proxy does behind the client's back counts for the run that caused it.
Elapsed time is what a user feels; the count also has what was carried out behind.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from bench import text
from bench.actors import Actor, Program, actor
from bench.distance import Distance, add_arguments, chosen, distance
from bench.live import Live
from bench.operations import OPERATIONS, Operation
from bench.origin import origin
from bench.readiness import await_hits
from bench.results import Outcome
from bench.suite import FULL, QUICK, Suite, available, usual_targets
from bench.targets import CACHED, US, Direct, PgBouncer, Running, Target, Us, knows
from bench.text import SLACK, TRIPS_BY_TIME


def round_trips(suite: Suite) -> Outcome:
    """The table of round trips per operation; where time is short, of drivers in this process only."""
    short = [operation for operation in OPERATIONS if isinstance(operation.package, str)]
    return measure(suite, OPERATIONS if suite.plan.is_thorough else short)


def contenders(targets: Sequence[Target]) -> list[Target]:
    """Direct, PgBouncer and us; with the cache as the table wants it, also inside transactions."""
    found = [target for target in targets if isinstance(target, (Direct, PgBouncer)) or type(target) is Us]
    return [_with_transactions_cached(target) if target.name == CACHED else target for target in found]


def _with_transactions_cached(target: Target) -> Target:
    """With the cache in all transactions, and the catalogs asked so seldom that it falls into no operation's count."""
    assert isinstance(target, Us)
    wanted = {"--cache-in-transactions": "always", "--catalog-poll": "1h"}
    flags = [word for flag, value in wanted.items() if knows(target.root, flag) for word in (flag, value)]
    return Us(CACHED, flags, target.root, cache=True)


def measure(suite: Suite, operations: Sequence[Operation]) -> Outcome:
    """Run *operations* against direct, us and PgBouncer."""
    link = suite.plan.trips_link
    outcome = Outcome(
        "round-trips",
        "round trips",
        f"Over {link}, to the left by elapsed time, to the right counted at the origin's side, where what is carried out behind "
        "the client's back counts too.",
    )
    suite.live.board = lambda: text.figures(outcome)
    usable: list[Operation] = []
    for operation in operations:
        if (reason := operation.missing()) is None:
            usable.append(operation)
        else:
            outcome.skipped.append(f"{operation.name}: {reason}")
    # Side by side: each has a relay of its own, and they wait far more than they compute.
    targets = contenders(suite.targets)
    jobs = [(target, lane) for target in targets for lane in _lanes(usable)]
    with ThreadPoolExecutor(max(1, len(jobs))) as pool:
        list(pool.map(lambda job: _all_of(suite, outcome, *job), jobs))
    _sort(outcome, [target.name for target in targets], [operation.name for operation in usable])
    for operation in usable:
        _promise(outcome, operation)
    return outcome


def _lanes(operations: Sequence[Operation]) -> list[Sequence[Operation]]:
    """Those of drivers in this process, and those of load programs, each with a proxy and a relay of its own."""
    here = [operation for operation in operations if not isinstance(operation.package, Program)]
    programs = [operation for operation in operations if isinstance(operation.package, Program)]
    return [lane for lane in (here, programs) if lane]


def _all_of(suite: Suite, outcome: Outcome, target: Target, operations: Sequence[Operation]) -> None:
    with ExitStack() as stack:
        away = stack.enter_context(distance(suite.address, suite.plan.trips_link))
        running = stack.enter_context(target.start(away.address))
        if target.name == CACHED:
            await_hits(running)
        programs: dict[str, Actor] = {}
        for number, operation in enumerate(operations):
            suite.live.where = f"{outcome.title}, {number + 1}/{len(operations)}"
            subject: Running | Actor = running
            if isinstance(operation.package, Program):
                name = operation.package.name
                if name not in programs:
                    programs[name] = stack.enter_context(actor(operation.package, running))
                subject = programs[name]
            _measure(suite, outcome, away, target.name, subject, operation)
    suite.live.where = ""


def _sort(outcome: Outcome, targets: Sequence[str], operations: Sequence[str]) -> None:
    """In the order of the table, whoever was faster."""
    outcome.figures.sort(
        key=lambda f: (operations.index(f.metric.rpartition(": ")[0]), f.metric, targets.index(f.target))
    )


def _promise(outcome: Outcome, operation: Operation) -> None:
    note = f"{SLACK} more is allowed for computing"
    for target, goal in (("us", operation.goal), (CACHED, operation.cached)):
        found = outcome.find(f"{operation.name}: elapsed", target)
        if found is not None and goal is not None:
            name = operation.name if target == "us" else f"{operation.name}, cached"
            # The best of the repeats: a busy machine only adds to what travelling takes.
            outcome.promise(name, "at most", goal + SLACK, TRIPS_BY_TIME, [min(found.samples)], note)
    # Counted, since a count is the same on every machine.
    mine, rival = (outcome.find(f"{operation.name}: counted", name) for name in ("us", "PgBouncer"))
    if mine is not None and rival is not None:
        outcome.promise(
            f"{operation.name}, against PgBouncer",
            "at most",
            rival.median,
            "round trips counted",
            mine.samples,
            "never more than PgBouncer",
        )


def _measure(
    suite: Suite, outcome: Outcome, link: Distance, name: str, subject: Running | Actor, operation: Operation
) -> None:
    # The first use of a statement is described and not stored, the second is; what is asked for is the memory that has it.
    first = 2 if name in (US, CACHED) else 1
    # Nothing is promised for the others but that we count no more: a count needs no repeats.
    repeats = suite.plan.repeats if name in (US, CACHED) else 1
    for number in range(first + repeats):
        suite.live.now(f"{name}, {operation.name}")
        try:
            with operation.run(subject) as act:
                elapsed, crossings = _once(link, act)
        except Exception as error:  # one that a target cannot do must not cost the others their figures
            outcome.skipped.append(f"{operation.name}, {name}: {type(error).__name__}: {error}")
            return
        if number >= first:
            outcome.add(f"{operation.name}: elapsed", name, "", elapsed / link.round_trip_seconds)
            outcome.add(f"{operation.name}: counted", name, "", float(crossings))
        elif number == 0:
            outcome.add(f"{operation.name}: first time", name, "", elapsed / link.round_trip_seconds)


def _once(link: Distance, act: Callable[[], None]) -> tuple[float, int]:
    link.settle()
    link.ask("reset")
    start = time.perf_counter()
    act()
    elapsed = time.perf_counter() - start
    link.settle()
    return elapsed, link.crossings()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench round-trips", description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--only", metavar="TEXT", help="operations whose names contain this")
    parser.add_argument("--quick", action="store_true", help="10 ms one way, each operation twice")
    options = parser.parse_args(arguments)
    wanted = [operation for operation in OPERATIONS if (options.only or "") in operation.name]
    plan = QUICK if options.quick else FULL
    try:
        plan = replace(plan, trips_link=chosen(options, plan.trips_link))
    except ValueError as error:
        parser.error(str(error))
    with Live() as live:
        targets, missing = available(usual_targets())
        with origin(live, scale=0) as server, Suite(plan, live, server, targets) as suite:
            outcome = measure(suite, wanted)
        live.say(f"round trips by elapsed time over {plan.trips_link} (in brackets: counted at the origin)\n")
        live.say(text.figures(outcome))
        for line in [*missing, *outcome.skipped]:
            live.say(f"  skipped  {line}")
    return 0
