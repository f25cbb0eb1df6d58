"""A new connection for each request, at a distance, with TLS and SCRAM: what a serverless function does, and what the launch of
Cloudflare's Hyperdrive was measured with.

    direct:   driver ⇄ (TCP, TLS, SCRAM and the statement cross the distance) ⇄ origin
    a proxy:  driver ⇄ proxy beside it ⇄ (the statement crosses) ⇄ origin

One request is: connect, log in with a password, one statement, its answer. Closing is not in the time. Clients log in to the proxies
with the same password. Reads use another key each time, so that no cache has them; cached reads use one key that was read before.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.actors import ASYNCPG, NODE_POSTGRES, PSYCOPG, ActFailed, Actor, Program, actors
from bench.origin import ITEMS
from bench.results import Outcome
from bench.suite import Plan, Suite
from bench.targets import CACHED, SHORT_SCRAM, SHORT_SCRAM_SAID, US, Pgpool, Running, Target, Us, knows, short_scram

GOAL_DELAY_MS = 40.0
"""One way: nearer than that, what computing takes is no longer small beside it, and nothing was promised."""
UNCACHED_GOAL = 7.0
CACHED_GOAL = 100.0
BOUND = "seven round trips against one: 7.0 is the bound, less what the client computes"
HOT = 7
WARM_REQUESTS = 3
CACHED_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Request:
    """A kind of request: *act* of the load program, *key* ``None`` for another one each time."""

    name: str
    act: str
    key: int | None = None


READ = Request("read", "request read")
WRITE = Request("write", "request write")
CACHED_READ = Request("cached read", "request read", HOT)
REQUESTS = (READ, WRITE)
IN_TRANSACTION = (
    Request("read in a transaction", "transaction read"),
    Request("write in a transaction", "transaction write"),
)
"""What psycopg does with ``with connect()``: BEGIN goes before, COMMIT behind."""


def serverless(suite: Suite) -> Outcome:
    """Every driver, every kind, every target, one request after another."""
    outcome = Outcome(
        "serverless",
        "a new connection per request",
        f"Connect, log in, one statement, its answer; over {suite.plan.link}, TLS 1.3 and SCRAM-SHA-256 at the origin, SCRAM-SHA-256 "
        "at the proxies, which stand beside the program. A read is of another row each time, a cached read always of the same. "
        "With scram_iterations = 1 a login costs the client no computing, which is for where nobody can listen. By themselves (autocommit) "
        "the statements of psycopg and node-postgres take seven round trips direct and one through us, so 7.0 is all that distance "
        "gives there, less what the client computes on both ways; asyncpg's take eight. In a transaction, which is what psycopg does "
        "unless told otherwise (`with connect() as c: c.execute(…)`), a read takes nine against one, and a write nine against two: at most 4.5.",
    )
    programs = [program for program in (PSYCOPG, ASYNCPG, NODE_POSTGRES) if _usable(outcome, program)]
    running = suite.running([*suite.usual, *_short(suite)], suite.far().address)
    pgpool = suite.running(_pgpool(suite), suite.far().address)
    for program in programs if suite.plan.is_thorough else programs[:1]:
        if program is PSYCOPG:
            _measure(suite, outcome, program, [*running, *pgpool], (*REQUESTS, *IN_TRANSACTION))
        else:
            _measure(suite, outcome, program, running, REQUESTS)
    for program in programs:
        _promise(suite.plan, outcome, program)
    return outcome


def launch(suite: Suite) -> Outcome:
    """What was measured when Cloudflare's Hyperdrive was announced, as far as a machine by itself can."""
    outcome = Outcome(
        "launch",
        "as at the launch of Hyperdrive",
        "Its announcement counts seven round trips before the first statement: one for TCP, three for TLS (1.2, after the question for "
        f"it), three for the login. So here: node-postgres, over {suite.plan.link}, TLS 1.2 and SCRAM-SHA-256 at the origin. It claimed 17 "
        "to 25 times for cached reads, 6 to 8 for uncached reads and for writes.",
    )
    program = NODE_POSTGRES if NODE_POSTGRES.missing() is None else PSYCOPG
    # One of us does where time is short: with the cache it forwards a read of another row like the one without.
    usual = [target for target in suite.usual if suite.plan.is_thorough or target.name != US]
    running = suite.running([*usual, *_short(suite)], suite.far(tls="1.2").address)
    _measure(suite, outcome, program, running, REQUESTS)
    _promise(suite.plan, outcome, program)
    return outcome


def _short(suite: Suite) -> list[Target]:
    """Us once more, without what the clients compute to log in; full runs only, since it is one more of everything."""
    ours = any(isinstance(target, Us) and knows(target.root, "--scram-iterations") for target in suite.targets)
    return [short_scram()] if ours and suite.plan.is_thorough else []


def _pgpool(suite: Suite) -> list[Target]:
    """Pgpool-II, for one driver: it keeps a connection for each of its processes, so most requests make one."""
    return [target for target in suite.targets if target.name == Pgpool.name and suite.plan.is_thorough]


def _usable(outcome: Outcome, program: Program) -> bool:
    reason = program.missing()
    if reason is not None:
        outcome.skipped.append(f"{program.name}: {reason}")
    return reason is None


def _measure(
    suite: Suite, outcome: Outcome, program: Program, running: Sequence[Running], requests: Sequence[Request]
) -> None:
    with ExitStack() as stack:
        asked = actors(stack, program, running)
        able = [t for t in running if _warm(suite, outcome, program, t, asked[t.name], requests)]
        for _, target in suite.interleaved(outcome, able, suite.plan.requests, f", {program.name}"):
            for request in _for(target, requests):
                # What does not cross the distance is over at once, so each of its rounds is the median of several.
                repeats = CACHED_REPEATS if request is CACHED_READ else 1
                seconds = statistics.median(_ask(asked[target.name], request) for _ in range(repeats))
                outcome.add(
                    f"{program.name}: {request.name}", target.name, "ms", seconds * 1000, latencies=[seconds * 1000]
                )


def _for(target: Running, requests: Sequence[Request]) -> Sequence[Request]:
    """Which key is read matters to nobody but the caches; one that mostly connects itself is slow, and shows it in reads."""
    if target.name == Pgpool.name:
        return (READ, CACHED_READ)
    return (*requests, CACHED_READ) if target.name in (CACHED, SHORT_SCRAM) else requests


def _ask(asked: Actor, request: Request) -> float:
    key = request.key or random.randint(HOT + 1, ITEMS)
    return float(asked.ask(f"{request.act} {key}")["seconds"])


def _warm(
    suite: Suite, outcome: Outcome, program: Program, target: Running, asked: Actor, requests: Sequence[Request]
) -> bool:
    """Requests before the measured ones, so that pools and statements are there; whether the target can at all."""
    suite.live.now(f"{program.name} through {target.name}, warming up")
    try:
        for request in _for(target, requests) if target.roots else requests[:1]:
            for _ in range(WARM_REQUESTS if target.roots and target.name != Pgpool.name else 1):
                _ask(asked, request)
    except ActFailed as error:
        outcome.skipped.append(f"{target.name}, {program.name}: {error}")
        return False
    return True


def promised(program: Program) -> Iterator[tuple[str, Request, Request, str, float]]:
    """What is held against direct: a goal's name, the request of direct, ours, the target of ours, the limit."""
    read = IN_TRANSACTION[0]
    for said, off, on in (("", US, CACHED), (SHORT_SCRAM_SAID, SHORT_SCRAM, SHORT_SCRAM)):
        yield f"uncached read{said}", READ, READ, off, UNCACHED_GOAL
        yield f"uncached write{said}", WRITE, WRITE, off, UNCACHED_GOAL
        yield f"cached read{said}", READ, CACHED_READ, on, CACHED_GOAL
        if program is PSYCOPG:
            # No write: its COMMIT has to be heard of, so it is nine round trips against two.
            yield f"uncached {read.name}{said}", read, read, off, UNCACHED_GOAL


def _promise(plan: Plan, outcome: Outcome, program: Program) -> None:
    if plan.link.delay_ms < GOAL_DELAY_MS:
        return
    for name, direct, ours, target, limit in promised(program):
        ratio = outcome.ratio(
            f"{program.name}: {direct.name}", "direct", target, under_metric=f"{program.name}: {ours.name}"
        )
        # TLS 1.2, of the launch, takes one round trip more.
        is_bound = (
            outcome.key == "serverless" and program is not ASYNCPG and direct in REQUESTS and limit == UNCACHED_GOAL
        )
        note = BOUND if is_bound else ""
        outcome.promise(f"{program.name}: {name}", "at least", limit, "× faster than direct", ratio, note)
