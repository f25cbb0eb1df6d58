"""Load for HYPERDRIVE_SOAK_SECONDS while clients vanish, servers are killed and the origin restarts: ``make soak``.

Each worker does what programs do and checks that whatever it hears is its own. Money moves between accounts in transactions that are
often cut short; in the end none of it may have been made or lost.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import psycopg
import pytest

from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.proxy import RunningProxy, running_proxy

SECONDS = float(os.environ.get("HYPERDRIVE_SOAK_SECONDS", "60"))
WORKERS = 16
SERVERS = 4
ACCOUNTS = 50
# Whatever happens, an answer or an error comes within this; a restart of the origin takes a few seconds of it.
PATIENCE_SECONDS = 60.0

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

Connection = psycopg.AsyncConnection[tuple[object, ...]]
Deed = Callable[[Connection, int, random.Random], Awaitable[None]]


async def one(conn: Connection, sql: str, *values: object) -> object:
    row = await (await conn.execute(sql, values or None)).fetchone()
    assert row is not None
    return row[0]


async def read(conn: Connection, number: int, chance: random.Random) -> None:
    assert await one(conn, "select %s::int", number) == number


async def prepared(conn: Connection, number: int, chance: random.Random) -> None:
    """psycopg gives its statements the same names in every session."""
    which = chance.randrange(4)
    row = await (await conn.execute(f"select %s::int as w{number}, {which}", (number,), prepare=True)).fetchone()
    assert row == (number, which)


async def settings(conn: Connection, number: int, chance: random.Random) -> None:
    await conn.execute(f"set application_name = 'worker {number}'")
    await read(conn, number, chance)
    assert await one(conn, "show application_name") == f"worker {number}"


async def rows(conn: Connection, number: int, chance: random.Random) -> None:
    count = chance.randrange(1, 3000)
    found = await (await conn.execute("select %s::int from generate_series(1, %s)", (number, count))).fetchall()
    assert found == [(number,)] * count


async def transfer(conn: Connection, number: int, chance: random.Random) -> None:
    one_, other = sorted(chance.sample(range(ACCOUNTS), 2))
    async with conn.transaction():
        await conn.execute("update accounts set money = money - 1 where id = %s", (one_,))
        if chance.random() < 0.2:
            raise psycopg.Rollback
        await conn.execute("update accounts set money = money + 1 where id = %s", (other,))


async def leave(conn: Connection, number: int, chance: random.Random) -> None:
    """In the middle of a transaction, or of an answer."""
    await conn.execute("begin")
    await conn.execute("update accounts set money = money - 1000 where id = %s", (chance.randrange(ACCOUNTS),))
    if chance.random() < 0.5:
        conn.pgconn.send_query(b"select repeat('x', 1000) from generate_series(1, 5000)")
    await conn.close()


DEEDS: tuple[Deed, ...] = (read, read, prepared, prepared, settings, rows, transfer, transfer, leave)


async def work(url: str, number: int, until: float, count: Counter[str]) -> None:
    chance = random.Random(number)
    conn: Connection | None = None
    while time.monotonic() < until:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if conn is None or conn.closed:
                    conn = await psycopg.AsyncConnection.connect(url, autocommit=True)
                deed = chance.choice(DEEDS)
                await deed(conn, number, chance)
                count[deed.__name__] += 1
        except psycopg.Error as error:
            count[error.sqlstate or str(error)[:60]] += 1
            if conn is not None and not conn.closed:
                try:
                    await conn.rollback()
                except psycopg.Error:
                    await conn.close()
    if conn is not None:
        await conn.close()


async def destroy(postgres: Postgres, until: float, count: Counter[str]) -> None:
    """Kill a server now and then; restart the whole origin less often."""
    turn = 0
    while time.monotonic() < until - 5:
        await asyncio.sleep(0.5)
        turn += 1
        if turn % 60 == 0:
            await asyncio.to_thread(postgres.server.stop_sync)
            await asyncio.to_thread(postgres.server.start_sync)
            count["restarts"] += 1
            continue
        kill = (
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app' and pid <> pg_backend_pid()"
            " order by random() limit 1"
        )
        await asyncio.to_thread(postgres.execute, kill)
        count["kills"] += 1


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_nothing_is_lost_or_mixed_up_while_everything_fails(throwaway: Postgres) -> None:
    until = time.monotonic() + SECONDS
    count: Counter[str] = Counter()
    async with running_proxy(throwaway.app_url, pool_size=SERVERS) as proxy:
        async with await psycopg.AsyncConnection.connect(proxy.url, autocommit=True) as conn:
            await conn.execute("create table accounts (id int primary key, money int not null)")
            await conn.execute("insert into accounts select n, 100 from generate_series(0, %s) n", (ACCOUNTS - 1,))
        workers = [asyncio.ensure_future(work(proxy.url, number, until, count)) for number in range(WORKERS)]
        vandal = asyncio.ensure_future(destroy(throwaway, until, count))
        await asyncio.sleep(SECONDS / 4)
        early = resident()
        await asyncio.gather(*workers, vandal)
        print(dict(count), f"resident memory {(resident() - early) >> 20:+d} MiB since the first quarter")
        await check(proxy)
        assert resident() - early < 64 << 20
    assert count["transfer"] > 0 and count["kills"] > 0


async def check(proxy: RunningProxy) -> None:
    async with await psycopg.AsyncConnection.connect(proxy.url, autocommit=True) as conn:
        assert await one(conn, "select sum(money) from accounts") == ACCOUNTS * 100
        assert await one(conn, "show application_name") == ""
    assert proxy.metrics.ledger_mismatches == 0
    assert sum(pool.waiting for pool in proxy.pools) == 0
