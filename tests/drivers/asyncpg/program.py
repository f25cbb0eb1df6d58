"""asyncpg: always extended protocol with binary results, its own statement cache, introspection, cursors, COPY, pool."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import io
import json
import uuid

import asyncpg

from tests.drivers.common import Program, main, raises

CLIENTS = 6
ROUNDS = 12


async def connects(url: str) -> None:
    for _ in range(4):
        conn = await asyncpg.connect(url)
        try:
            assert conn.get_server_version().major >= 13
            assert await conn.fetchval("select $1::int + 1", 1) == 2
            assert await conn.execute("select 1; select 2") == "SELECT 1"  # a simple query
        finally:
            await conn.close()


async def inserts_and_reads(url: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        await conn.execute(
            "drop table if exists drv_apg_items; create table drv_apg_items (id serial primary key, name text, price numeric)"
        )
        assert await conn.execute("insert into drv_apg_items (name, price) values ($1, $2)", "first", 1) == "INSERT 0 1"
        await conn.executemany(
            "insert into drv_apg_items (name, price) values ($1, $2)",
            [(f"item {n}", decimal.Decimal(n) / 4) for n in range(500)],
        )
        rows = await conn.fetchmany(
            "insert into drv_apg_items (name) values ($1) returning id", [(f"late {n}",) for n in range(3)]
        )
        assert [502, 503, 504] == [row["id"] for row in rows]
        row = await conn.fetchrow("select id, name, price from drv_apg_items where name = $1", "item 6")
        assert row is not None and (8, "item 6", decimal.Decimal("1.5")) == tuple(row)
        assert await conn.fetchval("select count(*) from drv_apg_items where id = any($1::int[])", [1, 2, 9999]) == 2
        assert await conn.execute("delete from drv_apg_items") == "DELETE 504"
        await conn.execute("drop table drv_apg_items")
    finally:
        await conn.close()


async def carries_values(url: str) -> None:
    """Including types that asyncpg has to look up in the catalogs: enums, composites, domains, arrays of them."""
    conn = await asyncpg.connect(url)
    try:
        await conn.execute("""
            drop schema if exists drv_apg cascade;
            create schema drv_apg;
            create type drv_apg.mood as enum ('sad', 'ok');
            create type drv_apg.pair as (a int, b text);
            create domain drv_apg.small as int check (value < 100);
        """)
        samples: list[tuple[str, object]] = [
            ("text", None),
            ("int4", -(2**31)),
            ("int8", 2**62),
            ("float8", 0.1),
            ("numeric", decimal.Decimal("12345678901234567890.0123456789")),
            ("text", "snow ☃ and 'quotes' \\"),
            ("bytea", bytes(range(256))),
            ("uuid", uuid.UUID(int=5)),
            ("timestamptz", dt.datetime(2024, 2, 29, 12, 34, 56, 789012, tzinfo=dt.UTC)),
            ("timestamp", dt.datetime(2024, 2, 29, 12, 34, 56)),
            ("date", dt.date(1999, 12, 31)),
            ("interval", dt.timedelta(days=3, seconds=7)),
            ("int4[]", [1, None, 3]),
            ("text[]", [["a", "b,c"], ["", "NULL"]]),
            ("bool", True),
            ("json", '{"a": [1, null]}'),
            ("jsonb", '{"b": {"c": "d"}}'),
            ("int4range", asyncpg.Range(1, 5)),
            ("drv_apg.mood", "ok"),
            ("drv_apg.mood[]", ["ok", "sad"]),
            ("drv_apg.small", 7),
        ]
        for kind, value in samples:
            assert await conn.fetchval(f"select $1::{kind}", value) == value, kind
        row = await conn.fetchrow("select row(1, 'x')::drv_apg.pair as pair")
        assert row is not None and tuple(row["pair"]) == (1, "x")
        await conn.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        assert await conn.fetchval("select $1::jsonb", {"k": [1, 2]}) == {"k": [1, 2]}
        await conn.execute("drop schema drv_apg cascade")
    finally:
        await conn.close()


async def commits_and_rolls_back(url: str) -> None:
    conn, other = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        await other.execute("drop table if exists drv_apg_tx; create table drv_apg_tx (n int primary key)")
        async with conn.transaction():
            await conn.execute("insert into drv_apg_tx values (1)")
            assert await other.fetchval("select count(*) from drv_apg_tx") == 0
        assert await other.fetchval("select count(*) from drv_apg_tx") == 1
        with raises(ZeroDivisionError):
            async with conn.transaction():
                await conn.execute("insert into drv_apg_tx values ($1)", 2)
                raise ZeroDivisionError
        with raises(asyncpg.UniqueViolationError, sqlstate="23505"):
            async with conn.transaction():
                await conn.execute("insert into drv_apg_tx values ($1)", 3)
                await conn.execute("insert into drv_apg_tx values ($1)", 1)
        transaction = conn.transaction()
        await transaction.start()
        with raises(asyncpg.DivisionByZeroError):
            await conn.fetchval("select 1 / $1::int", 0)
        with raises(asyncpg.InFailedSQLTransactionError, sqlstate="25P02"):
            await conn.fetchval("select 1")
        await transaction.rollback()
        async with conn.transaction():
            async with conn.transaction():
                await conn.execute("insert into drv_apg_tx values (4)")
            with raises(asyncpg.UniqueViolationError):
                async with conn.transaction():
                    await conn.execute("insert into drv_apg_tx values (5)")
                    await conn.execute("insert into drv_apg_tx values ($1)", 4)
        async with conn.transaction(isolation="serializable", readonly=True, deferrable=True):
            assert await conn.fetchval("show transaction_isolation") == "serializable"
            assert await conn.fetchval("show transaction_read_only") == "on"
        assert [1, 4] == [row["n"] for row in await other.fetch("select n from drv_apg_tx order by n")]
        await other.execute("drop table drv_apg_tx")
    finally:
        await conn.close()
        await other.close()


async def prepares(url: str) -> None:
    conn, other = await asyncpg.connect(url, statement_cache_size=5), await asyncpg.connect(url)
    try:
        statement = await conn.prepare("select $1::int * 2 as double")
        assert ["double"] == [attribute.name for attribute in statement.get_attributes()]
        for n in range(25):
            assert await statement.fetchval(n) == 2 * n
            assert await other.fetchval("select $1::int * 3", n) == 3 * n
            assert await conn.fetchval(f"select $1::int + {n % 9}", n) == n + n % 9  # the cache of five overflows
        with raises(asyncpg.DivisionByZeroError):
            await conn.fetchval("select 1 / $1::int", 0)
        assert await conn.fetchval("select 1 / $1::int", 1) == 1
        named = await conn.prepare("select $1::text", name="drv_apg_named")
        assert named.get_name() == "drv_apg_named"
        assert await named.fetchval("x") == "x"
        await conn.execute("select 1")  # a simple query in between
        assert await named.fetchval("y") == "y"
        # A changed table: asyncpg hears 0A000 "cached plan must not change result type", and prepares again.
        await conn.execute(
            "drop table if exists drv_apg_plan; create table drv_apg_plan (a int); insert into drv_apg_plan values (1)"
        )
        assert tuple(await conn.fetchrow("select * from drv_apg_plan") or ()) == (1,)
        await other.execute("alter table drv_apg_plan add column b int default 2")
        assert tuple(await conn.fetchrow("select * from drv_apg_plan") or ()) == (1, 2)
        await conn.execute("drop table drv_apg_plan")
    finally:
        await conn.close()
        await other.close()


async def works_without_its_statement_cache(url: str) -> None:
    conn = await asyncpg.connect(url, statement_cache_size=0)
    try:
        for n in range(10):
            assert await conn.fetchval("select $1::int", n) == n
    finally:
        await conn.close()


async def reads_with_cursors(url: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        async with conn.transaction():
            numbers = [
                row["n"] async for row in conn.cursor("select n from generate_series(1, $1) n", 1050, prefetch=100)
            ]
            assert list(range(1, 1051)) == numbers
            cursor = await conn.cursor("select n from generate_series(1, 10) n")
            assert [1, 2] == [row["n"] for row in await cursor.fetch(2)]
            assert await conn.fetchval("select 5") == 5  # the portal stays open meanwhile
            await cursor.forward(3)
            assert 6 == (await cursor.fetchrow() or {})["n"]
            assert 4 == len(await cursor.fetch(100))
        with raises(asyncpg.NoActiveSQLTransactionError, asyncpg.InterfaceError):
            await conn.cursor("select 1")
    finally:
        await conn.close()


async def copies(url: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        await conn.execute("drop table if exists drv_apg_copy; create table drv_apg_copy (n int primary key, t text)")
        done = await conn.copy_records_to_table(
            "drv_apg_copy", records=((n, f"row {n}" if n % 7 else None) for n in range(5000))
        )
        assert done == "COPY 5000"
        out = io.BytesIO()
        assert (
            await conn.copy_from_query("select n from drv_apg_copy where n < $1 order by n", 3, output=out) == "COPY 3"
        )
        assert out.getvalue() == b"0\n1\n2\n"
        out = io.BytesIO()
        assert await conn.copy_from_table("drv_apg_copy", output=out, format="csv") == "COPY 5000"
        await conn.execute("truncate drv_apg_copy")
        out.seek(0)
        assert await conn.copy_to_table("drv_apg_copy", source=out, format="csv") == "COPY 5000"
        with raises(asyncpg.UniqueViolationError):
            await conn.copy_records_to_table("drv_apg_copy", records=[(1, "again")])

        async def breaks() -> object:
            yield b"9000\tx\n"
            raise ZeroDivisionError

        with raises(ZeroDivisionError):
            await conn.copy_to_table("drv_apg_copy", source=breaks())  # type: ignore[arg-type]
        assert await conn.fetchval("select count(*) from drv_apg_copy") == 5000
        await conn.execute("drop table drv_apg_copy")
    finally:
        await conn.close()


async def notifies(url: str) -> None:
    listener, sender = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

        def hear(_conn: object, _pid: int, channel: str, payload: str) -> None:
            heard.put_nowait((channel, payload))

        await listener.add_listener("drv_apg_channel", hear)
        async with sender.transaction():
            await sender.execute("select pg_notify('drv_apg_channel', $1)", "one")
            await sender.execute("notify drv_apg_channel, 'two'")
        async with asyncio.timeout(20):
            assert [await heard.get(), await heard.get()] == [("drv_apg_channel", "one"), ("drv_apg_channel", "two")]
        assert await listener.fetchval("select 1") == 1
        await listener.remove_listener("drv_apg_channel", hear)
        notices: list[str] = []
        sender.add_log_listener(lambda _conn, message: notices.append(message.message))
        await sender.execute("do $$ begin raise warning 'drv says hello'; end $$")
        await sender.fetchval("select 1")
        assert any("drv says hello" in notice for notice in notices), notices
    finally:
        await listener.close()
        await sender.close()


async def cancels(url: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        for _ in range(3):
            with raises(TimeoutError):
                await conn.fetchval("select pg_sleep(30)", timeout=0.2)
            assert await conn.fetchval("select 1") == 1
        task = asyncio.create_task(conn.fetchval("select pg_sleep(30)"))
        await asyncio.sleep(0.2)
        task.cancel()
        with raises(asyncio.CancelledError):
            await task
        assert await conn.fetchval("select 1") == 1
        await conn.execute("set statement_timeout = 50")
        with raises(asyncpg.QueryCanceledError, sqlstate="57014"):
            await conn.fetchval("select pg_sleep(30)")
    finally:
        await conn.close()


async def keeps_settings(url: str) -> None:
    conn = await asyncpg.connect(url, server_settings={"application_name": "drv asyncpg", "statement_timeout": "12345"})
    try:
        assert await conn.fetchval("show application_name") == "drv asyncpg" == conn.get_settings().application_name
        assert await conn.fetchval("show statement_timeout") == "12345ms"
        await conn.execute("set timezone = 'Asia/Tokyo'")
        assert conn.get_settings().TimeZone == "Asia/Tokyo"
        for _ in range(5):
            assert await conn.fetchval("select current_setting('timezone')") == "Asia/Tokyo"
        with raises(ZeroDivisionError):
            async with conn.transaction():
                await conn.execute("set timezone = 'Europe/Berlin'")
                raise ZeroDivisionError
        assert await conn.fetchval("show timezone") == "Asia/Tokyo"
        await conn.reset()  # asyncpg's own clean-up between two users of a pooled connection
        assert await conn.fetchval("show statement_timeout") == "12345ms"
        assert await conn.fetchval("show timezone") != "Asia/Tokyo"
    finally:
        await conn.close()


async def keeps_session_state(url: str) -> None:
    conn, other = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        await conn.execute("create temp table drv_apg_temp (n int)")
        await conn.fetchval("select pg_advisory_lock(725002)")
        for n in range(5):
            await conn.execute("insert into drv_apg_temp values ($1)", n)
            assert await other.fetchval("select pg_try_advisory_lock(725002)") is False
        assert await conn.fetchval("select count(*) from drv_apg_temp") == 5
        assert await conn.fetchval("select pg_advisory_unlock(725002)") is True
        await conn.execute("discard all")
    finally:
        await conn.close()
        await other.close()


async def reads_large_results(url: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        rows = await conn.fetch("select n, repeat('x', 50) from generate_series(1, $1::int) n", 100000)
        assert len(rows) == 100000 and tuple(rows[-1]) == (100000, "x" * 50)
        blob = b"\x00\xff" * 5_000_000
        assert await conn.fetchval("select $1::bytea", blob) == blob
    finally:
        await conn.close()


async def shares_servers(url: str) -> None:
    setup = await asyncpg.connect(url)
    await setup.execute("drop table if exists drv_apg_swap; create table drv_apg_swap (client int, n int)")

    async def client(number: int) -> None:
        conn = await asyncpg.connect(url, server_settings={"application_name": f"drv swap {number}"})
        try:
            await conn.execute(f"set statement_timeout = {50001 + number}")
            for n in range(ROUNDS):
                # asyncpg numbers its statements itself: the same name means another text on each client.
                got = await conn.fetchrow(f"select {number} * 1000 + $1::int, current_setting('application_name')", n)
                assert tuple(got or ()) == (number * 1000 + n, f"drv swap {number}")
                transaction = conn.transaction()
                await transaction.start()
                await conn.execute("insert into drv_apg_swap values ($1, $2)", number, n)
                assert await conn.fetchval("show statement_timeout") == f"{50001 + number}ms"
                if n % 4 == 3:
                    await transaction.rollback()
                else:
                    await transaction.commit()
        finally:
            await conn.close()

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    counts = await setup.fetch("select client, count(*) from drv_apg_swap group by 1 order by 1")
    assert [(number, ROUNDS * 3 // 4) for number in range(CLIENTS)] == [tuple(row) for row in counts]
    await setup.execute("drop table drv_apg_swap")
    await setup.close()


async def pools(url: str) -> None:
    async with asyncpg.create_pool(url, min_size=2, max_size=5) as pool:

        async def client(number: int) -> None:
            for n in range(ROUNDS):
                async with pool.acquire() as conn, conn.transaction():
                    assert await conn.fetchval("select $1::int * 100 + $2::int", number, n) == number * 100 + n
                assert await pool.fetchval("select $1::int", n) == n

        await asyncio.gather(*(client(number) for number in range(10)))


async def reconnects(url: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        with raises(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await conn.execute("select pg_terminate_backend(pg_backend_pid())")
            await conn.execute("select 1")
    finally:
        conn.terminate()
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        with raises(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await pool.execute("select pg_terminate_backend(pg_backend_pid())")
            await pool.execute("select 1")
        assert await pool.fetchval("select 1") == 1


async def leaves_in_mid_transaction(url: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        await conn.execute("drop table if exists drv_apg_left; create table drv_apg_left (n int)")
        for n in range(6):
            leaver = await asyncpg.connect(url)
            await leaver.execute("begin")
            await leaver.execute("insert into drv_apg_left values ($1)", n)
            leaver.terminate()  # the socket is dropped, no Terminate message
        assert await conn.fetchval("select count(*) from drv_apg_left") == 0
        await conn.execute("drop table drv_apg_left")
    finally:
        await conn.close()


PROGRAM = Program(
    driver="asyncpg",
    version=lambda: str(asyncpg.__version__),
    checks=(
        connects,
        inserts_and_reads,
        carries_values,
        commits_and_rolls_back,
        prepares,
        works_without_its_statement_cache,
        reads_with_cursors,
        copies,
        notifies,
        cancels,
        keeps_settings,
        keeps_session_state,
        reads_large_results,
        shares_servers,
        pools,
        reconnects,
        leaves_in_mid_transaction,
    ),
)

if __name__ == "__main__":
    main(PROGRAM)
