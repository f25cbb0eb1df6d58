"""How many round trips across the distance real drivers wait for, counted at the origin's side (DESIGN.md, section 1).

    driver ⇄ proxy ⇄ relay (a delay each way, counts) ⇄ PostgreSQL

*waited* is what had crossed when the driver's call returned, *crossed* what had when all was quiet: a ROLLBACK that is answered here and
carried out behind is in the second only. Nothing is timed.

Each row says what is so now, and what it is to be. Both are exact: who makes a row better writes it down here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass

import pytest

from bench import operations
from bench.readiness import await_hits
from bench.targets import Running
from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.relay import Relay
from hyperdrive.testing.wire import Address

DELAY_SECONDS = 0.015
RUNS = 3
"""The first of them warms up: what it costs to learn something once is not what a row says."""

TABLES = """
drop table if exists bench_items, bench_counters;
create table bench_items (id int primary key, name text not null, price numeric not null);
insert into bench_items select n, 'item ' || n, n from generate_series(1, 100) n;
create table bench_counters (id int primary key, n bigint not null);
insert into bench_counters select n, 0 from generate_series(1, 100) n;
"""

Act = Callable[[], object]
Run = Callable[[Running], AbstractContextManager[Act]]


@dataclass(frozen=True, slots=True)
class Row:
    """An operation: its round trips on a direct connection with SCRAM, through us now (waited, crossed), and with the cache."""

    name: str
    run: Run
    direct: int
    waited: int
    crossed: int
    cached: int
    goal: int
    cached_goal: int | None


@dataclass
class Place:
    """Where clients connect, and the distance behind it."""

    relay: Relay
    running: Running


@dataclass
class Stage:
    direct: Place
    us: Place
    cached: Place


@pytest.fixture
async def stage(pg18: Postgres) -> AsyncIterator[Stage]:
    from hyperdrive.testing.proxy import running_proxy

    url = await database_of(pg18.url, "round_trips")
    await run_sql(url, TABLES)
    origin = Address.of(url)
    async with AsyncExitStack() as stack:

        async def far() -> tuple[Relay, str]:
            relay = await stack.enter_async_context(Relay((origin.host, origin.port), delay_seconds=DELAY_SECONDS))
            return relay, url.replace(f":{origin.port}/", f":{relay.port}/")

        async def proxied(**overrides: object) -> Place:
            relay, away = await far()
            proxy = await stack.enter_async_context(running_proxy(away, pool_size=3, min_pool_size=2, **overrides))
            return Place(relay, running(proxy.url))

        relay, away = await far()
        cached = await proxied(cache="on", cache_in_transactions="always")
        reason = await asyncio.to_thread(await_hits, cached.running)
        assert reason is None, reason
        yield Stage(Place(relay, running(away)), await proxied(cache="off"), cached)


def running(url: str) -> Running:
    """What ``bench.operations`` wants to know of *url*."""
    address = Address.of(url)
    return Running(
        "", address.port, user=address.user, password=address.password, database=address.database, host=address.host
    )


def _quiet(relay: Relay) -> None:
    while True:
        before = relay.counters()
        time.sleep(3 * DELAY_SECONDS)
        if relay.counters() == before:
            return


def _crossings(relay: Relay) -> int:
    return relay.round_trips + relay.connections_total


def count(place: Place, run: Run) -> tuple[int, int]:
    """*waited* and *crossed* of one run, in a thread of its own."""
    with run(place.running) as act:
        _quiet(place.relay)
        place.relay.reset_counters()
        act()
        waited = _crossings(place.relay)
        _quiet(place.relay)
        return waited, _crossings(place.relay)


async def several(place: Place, run: Run) -> tuple[int, int]:
    """A late moment adds to what had crossed by then, an early one takes from what crossed in all."""
    found = [await asyncio.to_thread(count, place, run) for _ in range(RUNS)]
    return min(waited for waited, _ in found[1:]), max(crossed for _, crossed in found[1:])


def named(name: str) -> Run:
    """An operation of ``bench.operations``."""
    return next(operation.run for operation in operations.OPERATIONS if operation.name == name)


def row(name: str, direct: int, waited: int, crossed: int, cached: int, *, goal: int, cached_goal: int | None) -> Row:
    return Row(name, named(name), direct, waited, crossed, cached, goal, cached_goal)


ROWS = [
    row("psycopg 3: connect + read", 6, 1, 1, 0, goal=1, cached_goal=0),
    row("psycopg 3: BEGIN; SELECT; ROLLBACK", 3, 1, 2, 0, goal=1, cached_goal=0),
    row("psycopg 3: BEGIN; SELECT; COMMIT", 3, 1, 2, 0, goal=1, cached_goal=0),
    row("psycopg 3: BEGIN; UPDATE; COMMIT", 3, 2, 2, 2, goal=2, cached_goal=None),
    row("psycopg 3: SET; SELECT", 2, 1, 1, 0, goal=1, cached_goal=0),
    row("asyncpg: connect", 5, 0, 0, 0, goal=0, cached_goal=None),
    row("asyncpg: first fetch", 2, 1, 1, 0, goal=1, cached_goal=0),
    row("asyncpg: transaction with one UPDATE", 4, 2, 2, 2, goal=2, cached_goal=None),
    row("SQLAlchemy 2 + psycopg: read in a pooled session", 3, 1, 2, 0, goal=1, cached_goal=0),
    row("SQLAlchemy 2 + psycopg: fresh engine + read", 17, 1, 2, 0, goal=1, cached_goal=0),
    row("Django: read in a transaction", 3, 1, 2, 0, goal=1, cached_goal=0),
]


@pytest.mark.timeout(180)
async def test_round_trips_that_drivers_wait_for(stage: Stage) -> None:
    expected, found = {}, {}
    # Django sets itself up once for the process, which it cannot do in three threads at a time.
    await asyncio.to_thread(count, stage.us, named("Django: read in a transaction"))
    for row in ROWS:
        expected[row.name] = row.direct, row.waited, row.crossed, row.cached
        # Side by side, as each has a distance of its own.
        (direct, _), (waited, crossed), (cached, _) = await asyncio.gather(
            *(several(place, row.run) for place in (stage.direct, stage.us, stage.cached))
        )
        found[row.name] = direct, waited, crossed, cached
    assert expected == found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_no_row_is_better_than_it_is_to_be(row: Row) -> None:
    """Fewer than the goal would be a count that misses something."""
    assert row.goal <= row.waited <= row.crossed
    assert row.cached_goal is None or row.cached_goal <= row.cached
    assert row.waited <= row.direct
