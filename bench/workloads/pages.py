"""A page of a web program, made by real ORMs over the distance: five statements in a transaction on a connection that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bench.actors import DJANGO, SQLALCHEMY, ActFailed, Actor, Program, actors
from bench.results import Outcome
from bench.suite import Suite
from bench.targets import Running

STATEMENTS = 5


def pages(suite: Suite) -> Outcome:
    """Pages of products that nobody has looked at, and the page that everybody looks at."""
    outcome = Outcome(
        "pages",
        "an ORM's page",
        f"A visitor, the categories, a product with its category, its reviews, a count: {STATEMENTS} statements by SQLAlchemy 2 and "
        f"Django in a transaction each, on a connection that is kept, over {suite.plan.link} with TLS. A page is of a random product, a "
        "hot page always of the same.",
    )
    programs = []
    for program in (SQLALCHEMY, DJANGO) if suite.plan.is_thorough else (SQLALCHEMY,):
        if (reason := program.missing()) is None:
            programs.append(program)
        else:
            outcome.skipped.append(f"{program.name}: {reason}")
    running = suite.running(suite.usual, suite.far().address)
    for program in programs:
        _measure(suite, outcome, program, running)
    return outcome


def _measure(suite: Suite, outcome: Outcome, program: Program, running: Sequence[Running]) -> None:
    with ExitStack() as stack:
        suite.live.now(f"starting {program.name}")
        asked = actors(stack, program, running)
        able = [target for target in running if _warm(suite, outcome, program, target, asked[target.name])]
        rounds = suite.plan.shown if suite.plan.is_thorough else 1
        for _, target in suite.interleaved(outcome, able, rounds, f", {program.name}"):
            for name, act in (("page", "page 0"), ("hot page", "page 1")):
                took = float(asked[target.name].ask(act)["seconds"]) * 1000
                outcome.add(f"{program.name}: {name}", target.name, "ms", took, latencies=[took])


def _warm(suite: Suite, outcome: Outcome, program: Program, target: Running, asked: Actor) -> bool:
    """Pages that nobody measures, so that the program, pools and caches are warm; whether the target can at all."""
    suite.live.now(f"{program.name} through {target.name}, warming up")
    try:
        for _ in range(2):
            asked.ask("page 0")
            asked.ask("page 1")
    except ActFailed as error:
        outcome.skipped.append(f"{target.name}, {program.name}: {error}")
        return False
    return True
