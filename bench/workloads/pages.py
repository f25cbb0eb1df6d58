"""A page of a web program, made by real ORMs over the distance: five statements in a transaction on a connection that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bench.actors import DJANGO, SQLALCHEMY, ActFailed, Actor, Program, actor
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
    for program in (SQLALCHEMY, DJANGO):
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
        actors: dict[str, Actor] = {}
        for target in running:
            suite.live.now(f"{program.name} through {target.name}, warming up")
            made = stack.enter_context(actor(program, target))
            try:
                for _ in range(2):
                    made.ask("page 0")
                    made.ask("page 1")
                actors[target.name] = made
            except ActFailed as error:
                outcome.skipped.append(f"{target.name}, {program.name}: {error}")
        able = [target for target in running if target.name in actors]
        rounds = max(2, suite.plan.requests // 2)
        for _, target in suite.interleaved(outcome, able, rounds, f", {program.name}"):
            for name, act in (("page", "page 0"), ("hot page", "page 1")):
                took = float(actors[target.name].ask(act)["seconds"]) * 1000
                outcome.add(f"{program.name}: {name}", target.name, "ms", took, latencies=[took])
