"""``hyperdrive.Pool``: the proxy inside a program. That nothing is left behind is checked after each test (conftest)."""

from __future__ import annotations

import asyncio
import glob
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest

import hyperdrive
from hyperdrive.errors import ConfigError
from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.scene import eventually


def directories() -> set[str]:
    return set(glob.glob(f"{tempfile.gettempdir()}/hyperdrive-????????"))


@pytest.fixture
async def pool(pg18: Postgres) -> AsyncIterator[hyperdrive.Pool]:
    async with hyperdrive.Pool(pg18.app_url, pool_size=2) as opened:
        yield opened


async def test_fetching(pool: hyperdrive.Pool) -> None:
    assert [(1,), (2,)] == [tuple(row) for row in await pool.fetch("select * from generate_series(1, $1::int)", 2)]
    assert (1, "x") == tuple(await pool.fetchrow("select 1, 'x'"))
    assert 7 == await pool.fetchval("select 6, 7", column=1)
    assert await pool.fetchrow("select 1 where false") is None
    assert "SELECT 3" == await pool.execute("select generate_series(1, 3)")
    with pytest.raises(asyncpg.UndefinedTableError):
        await pool.fetch("select * from nowhere")
    with pytest.raises(TimeoutError):
        await pool.fetch("select pg_sleep(20)", timeout=0.1)
    assert 1 == await pool.fetchval("select 1")


async def test_transactions_and_executemany(pool: hyperdrive.Pool) -> None:
    await pool.execute("create table embed_test (x int)")
    try:
        await pool.executemany("insert into embed_test values ($1)", [(x,) for x in range(10)])
        with suppress(ZeroDivisionError):
            async with pool.transaction() as connection:
                await connection.execute("delete from embed_test")
                assert 0 == await connection.fetchval("select count(*) from embed_test")
                raise ZeroDivisionError
        assert 10 == await pool.fetchval("select count(*) from embed_test")
        async with pool.transaction(isolation="serializable") as connection:
            assert "serializable" == await connection.fetchval("show transaction_isolation")
            await connection.execute("delete from embed_test where x > 4")
        assert 5 == await pool.fetchval("select count(*) from embed_test")
    finally:
        await pool.execute("drop table embed_test")


async def test_listen_on_a_connection_of_ones_own(pool: hyperdrive.Pool) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with pool.acquire() as connection:

        def news(*arguments: object) -> None:
            heard.put_nowait(str(arguments[3]))

        await connection.add_listener("embed_news", news)
        await pool.execute("notify embed_news, 'hello'")
        assert "hello" == await asyncio.wait_for(heard.get(), 5)
        await connection.remove_listener("embed_news", news)


async def test_many_tasks_share_two_servers(pg18: Postgres, pool: hyperdrive.Pool) -> None:
    """More tasks than servers, each with its own answers; holding a connection alone costs no server."""

    async def work(number: int) -> set[int]:
        pids = set()
        async with pool.acquire() as connection:
            for turn in range(5):
                row = await connection.fetchrow("select $1::int + $2::int, pg_backend_pid()", number, turn)
                assert number + turn == row[0]
                pids.add(row[1])
        return pids

    found = await asyncio.gather(*(work(number) for number in range(80)))
    assert len(set[int]().union(*found)) <= 2


async def test_closing_with_work_under_way(pg18: Postgres) -> None:
    """``close`` waits for connections in use, so the work is done."""
    pool = hyperdrive.Pool(pg18.app_url, pool_size=2)
    await pool.open()
    running = asyncio.ensure_future(pool.fetchval("select 5 from pg_sleep(1)"))
    asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query like 'select 5 %'"
    await eventually(lambda: "1" == pg18.execute(asleep), "it runs")
    await pool.close()
    assert 5 == await running
    await pool.close()
    with pytest.raises(RuntimeError, match="not open"):
        await pool.fetch("select 1")


async def test_an_origin_that_is_away_is_an_error_of_the_query(pg18: Postgres) -> None:
    url = "postgresql://app:x@127.0.0.1:1/app"
    async with hyperdrive.Pool(url, query_wait_timeout="0.3s") as pool:
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await pool.fetch("select 1")


async def test_a_wrong_setting_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match="pool_sise"):
        hyperdrive.Pool("postgresql://app@127.0.0.1/app", pool_sise=2)


async def test_no_directory_is_left(pg18: Postgres) -> None:
    before = directories()
    async with hyperdrive.Pool(pg18.app_url) as pool:
        assert directories() - before
        await pool.fetch("select 1")
    assert not directories() - before


@pytest.mark.parametrize("turns", [0, 1, 2, 4])
async def test_cancelling_the_opening_leaves_nothing(pg18: Postgres, turns: int) -> None:
    before = directories()
    pool = hyperdrive.Pool(pg18.app_url)
    opening = asyncio.ensure_future(pool.open())
    for _ in range(turns):
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await pool.close()
    assert not directories() - before
