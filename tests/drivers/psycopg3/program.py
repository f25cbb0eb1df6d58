"""psycopg 3: blocking and asyncio, pipeline mode, automatic preparation, server cursors, COPY, its pool."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import threading
import uuid

import psycopg
import psycopg_pool
from psycopg import errors, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.json import Json, Jsonb

from tests.drivers.common import Program, in_threads, main, raises, with_parameters

CLIENTS = 6
ROUNDS = 12


def connects(url: str) -> None:
    with psycopg.connect(url) as conn:
        assert conn.info.server_version >= 130000
        assert conn.info.transaction_status == TransactionStatus.IDLE
        assert (1, "one") == conn.execute("select %s::int, %s::text", (1, "one")).fetchone()
        assert conn.info.transaction_status == TransactionStatus.INTRANS
        assert conn.info.encoding == "utf-8"
    for _ in range(5):
        with psycopg.connect(url, autocommit=True) as conn:
            assert (5,) == conn.execute("select 2 + 3").fetchone()


def inserts_and_reads(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("drop table if exists drv_pg3_items")
        conn.execute("create table drv_pg3_items (id serial primary key, name text not null, price numeric)")
        conn.commit()
        with conn.cursor() as cur:
            cur.executemany(
                "insert into drv_pg3_items (name, price) values (%s, %s) returning id",
                [(f"item {n}", decimal.Decimal(n) / 4) for n in range(20)],
                returning=True,
            )
            ids = []
            while True:
                ids.extend(row[0] for row in cur.fetchall())
                if not cur.nextset():
                    break
        assert list(range(1, 21)) == ids
        conn.commit()
        for binary in (False, True):
            with conn.cursor(binary=binary, row_factory=dict_row) as cur:
                cur.execute("select id, name, price from drv_pg3_items where id = %s", (7,))
                assert {"id": 7, "name": "item 6", "price": decimal.Decimal("1.5")} == cur.fetchone()
        cur2 = conn.execute("update drv_pg3_items set price = price + 1 where id > %s", (10,))
        assert cur2.rowcount == 10
        assert conn.execute("delete from drv_pg3_items").rowcount == 20
        with psycopg.ClientCursor(conn) as client_side:  # parameters merged into the text: simple-looking statements
            client_side.execute("select %s; select %s", (1, "two"))
            assert (1,) == client_side.fetchone()
            assert client_side.nextset() and client_side.fetchone() == ("two",)
        conn.execute("drop table drv_pg3_items")


def carries_values(url: str) -> None:
    moment = dt.datetime(2024, 2, 29, 12, 34, 56, 789012, tzinfo=dt.UTC)
    values = {
        "n": None,
        "i": -(2**31),
        "b": 2**62,
        "f": 0.1,
        "d": decimal.Decimal("12345678901234567890.0123456789"),
        "t": "snow ☃ and 'quotes' \\ and \"more\"",
        "by": bytes(range(256)),
        "u": uuid.UUID(int=5),
        "ts": moment,
        "da": dt.date(1999, 12, 31),
        "iv": dt.timedelta(days=3, seconds=7),
        "ia": [1, None, 3],
        "ta": [["a", "b,c"], ["", "NULL"]],
        "bo": True,
    }
    types = {
        "n": "text", "i": "int4", "b": "int8", "f": "float8", "d": "numeric", "t": "text", "by": "bytea", "u": "uuid",
        "ts": "timestamptz", "da": "date", "iv": "interval", "ia": "int4[]", "ta": "text[]", "bo": "bool",
    }  # fmt: skip
    with psycopg.connect(url) as conn:
        columns = sql.SQL(", ").join(
            sql.SQL("{}::{} as {}").format(sql.Placeholder(key), sql.SQL(types[key]), sql.Identifier(key))
            for key in values
        )
        statement = sql.SQL("select {}").format(columns)
        for binary in (False, True):
            with conn.cursor(binary=binary, row_factory=dict_row) as cur:
                assert values == cur.execute(statement, values).fetchone()
                cur.execute("select %s::json as j, %s::jsonb as jb", (Json({"a": [1, None]}), Jsonb({"b": {"c": "d"}})))
                assert {"j": {"a": [1, None]}, "jb": {"b": {"c": "d"}}} == cur.fetchone()
                cur.execute("select %b::int8 as n", (42,))  # a binary parameter
                assert {"n": 42} == cur.fetchone()
        assert (None, "", " ") == conn.execute("select null, '', ' '").fetchone()


def commits_and_rolls_back(url: str) -> None:
    with psycopg.connect(url) as conn, psycopg.connect(url, autocommit=True) as other:
        other.execute("drop table if exists drv_pg3_tx")
        other.execute("create table drv_pg3_tx (n int primary key)")
        conn.execute("insert into drv_pg3_tx values (1)")
        assert (0,) == other.execute("select count(*) from drv_pg3_tx").fetchone()
        conn.commit()
        assert (1,) == other.execute("select count(*) from drv_pg3_tx").fetchone()
        conn.execute("insert into drv_pg3_tx values (2)")
        conn.rollback()
        with raises(errors.UniqueViolation, sqlstate="23505"):
            conn.execute("insert into drv_pg3_tx values (1)")
        assert conn.info.transaction_status == TransactionStatus.INERROR
        with raises(errors.InFailedSqlTransaction, sqlstate="25P02"):
            conn.execute("select 1")
        conn.rollback()
        assert conn.info.transaction_status == TransactionStatus.IDLE
        with raises(ZeroDivisionError), conn.transaction():
            conn.execute("insert into drv_pg3_tx values (3)")
            raise ZeroDivisionError
        conn.commit()
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        conn.read_only = True
        assert ("serializable",) == conn.execute("show transaction_isolation").fetchone()
        with raises(errors.ReadOnlySqlTransaction):
            conn.execute("insert into drv_pg3_tx values (4)")
        conn.rollback()
        assert [(1,)] == other.execute("select n from drv_pg3_tx").fetchall()
        other.execute("drop table drv_pg3_tx")


def nests_savepoints(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("create temp table drv_pg3_sp (n int primary key) on commit drop")
        conn.execute("insert into drv_pg3_sp values (1)")
        with conn.transaction():
            conn.execute("insert into drv_pg3_sp values (2)")
            with raises(errors.UniqueViolation), conn.transaction():
                conn.execute("insert into drv_pg3_sp values (3)")
                conn.execute("insert into drv_pg3_sp values (2)")
            with conn.transaction(savepoint_name="inner") as inner:
                conn.execute("insert into drv_pg3_sp values (4)")
                raise psycopg.Rollback(inner)
        assert [(1,), (2,)] == conn.execute("select n from drv_pg3_sp order by n").fetchall()
        conn.commit()


def prepares_automatically(url: str) -> None:
    """After prepare_threshold executions psycopg names the statement, and uses it in later transactions."""
    with psycopg.connect(url, prepare_threshold=3) as conn:
        conn.prepared_max = 4
        for n in range(30):
            assert (n + 1,) == conn.execute("select %s::int + 1", (n,)).fetchone()
            conn.commit()
        with psycopg.connect(url, autocommit=True) as other:
            for n in range(30):  # more statements than prepared_max: the oldest are deallocated
                statement = sql.SQL("select {} + %s::int").format(sql.Literal(n % 7))
                assert (n % 7 + n,) == conn.execute(statement, (n,), prepare=True).fetchone()
                assert (n,) == other.execute("select %s::int", (n,), prepare=True).fetchone()
                if n % 3 == 0:
                    conn.commit()
        conn.rollback()
        for _ in range(3):  # an error in a prepared statement leaves it usable
            with raises(errors.DivisionByZero):
                conn.execute("select 1 / %s::int", (0,), prepare=True)
            conn.rollback()
            assert (1,) == conn.execute("select 1 / %s::int", (1,), prepare=True).fetchone()
            conn.commit()


def prepares_by_sql(url: str) -> None:
    """PREPARE, EXECUTE and DEALLOCATE as statements, across transactions."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("prepare drv_plan (int) as select $1 * 2")
        for n in range(5):
            assert (2 * n,) == conn.execute(sql.SQL("execute drv_plan({})").format(n)).fetchone()
        assert [("drv_plan",)] == conn.execute("select name from pg_prepared_statements where from_sql").fetchall()
        conn.execute("deallocate drv_plan")
        with raises(errors.InvalidSqlStatementName, sqlstate="26000"):
            conn.execute("execute drv_plan(1)")
        conn.execute("deallocate all")


def reads_with_server_cursors(url: str) -> None:
    with psycopg.connect(url) as conn:
        with conn.cursor("drv_numbers") as cur:
            cur.itersize = 100
            cur.execute("select n from generate_series(1, %s) n", (1050,))
            assert list(range(1, 1051)) == [row[0] for row in cur]
        with conn.cursor("drv_scroll", scrollable=True) as cur:
            cur.execute("select n from generate_series(1, 10) n")
            cur.scroll(5)
            assert (6,) == cur.fetchone()
            cur.scroll(0, mode="absolute")
            assert [(1,), (2,)] == cur.fetchmany(2)
        conn.commit()
        held = conn.cursor("drv_held", withhold=True)
        held.execute("select n from generate_series(1, 6) n")
        assert [(1,), (2,)] == held.fetchmany(2)
        conn.commit()  # the cursor outlives the transaction, and other clients come in between
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("select 1")
        assert [(3,), (4,)] == held.fetchmany(2)
        conn.commit()
        assert [(5,), (6,)] == held.fetchall()
        held.close()
        conn.commit()


def copies(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("drop table if exists drv_pg3_copy")
        conn.execute("create table drv_pg3_copy (n int primary key, t text)")
        conn.commit()
        with conn.cursor() as cur:
            with cur.copy("copy drv_pg3_copy from stdin") as copy:
                for n in range(5000):
                    copy.write_row((n, None if n % 7 == 0 else f"row\t{n}\\"))
            assert cur.rowcount == 5000
            with cur.copy("copy drv_pg3_copy (n, t) from stdin (format binary)") as copy:
                copy.set_types(["int4", "text"])
                copy.write_row((5000, "binary"))
            conn.commit()
            with cur.copy("copy (select n, t from drv_pg3_copy order by n) to stdout") as copy:
                rows = list(copy.rows())
            assert len(rows) == 5001 and rows[7] == ("7", None) and rows[8] == ("8", "row\t8\\")
            with cur.copy("copy (select n from drv_pg3_copy order by n) to stdout (format binary)") as copy:
                copy.set_types(["int4"])
                assert 5001 == sum(1 for _ in copy.rows())
            conn.commit()
            with raises(ZeroDivisionError), cur.copy("copy drv_pg3_copy from stdin") as copy:  # CopyFail
                copy.write_row((6000, "lost"))
                raise ZeroDivisionError
            conn.rollback()
            with raises(errors.InvalidTextRepresentation), cur.copy("copy drv_pg3_copy from stdin") as copy:
                for _ in range(2000):
                    copy.write("not a number\tx\n")
            conn.rollback()
            cur.execute("select count(*), max(n) from drv_pg3_copy")
            assert (5001, 5000) == cur.fetchone()
            with (
                raises(psycopg.Error),
                cur.copy("copy (select 1 / (5 - n) from generate_series(1, 9) n) to stdout") as copy,
            ):
                list(copy)
            conn.rollback()
        conn.execute("drop table drv_pg3_copy")


def pipelines(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("drop table if exists drv_pg3_pipe")
        conn.execute("create table drv_pg3_pipe (n int primary key)")
        with conn.pipeline() as pipe:
            cursors = [conn.execute("select %s::int", (n,)) for n in range(50)]
            pipe.sync()
            more = [conn.execute("insert into drv_pg3_pipe values (%s) returning n", (n,)) for n in range(50)]
        assert list(range(50)) == [cur.fetchone()[0] for cur in cursors]  # type: ignore[index]
        assert list(range(50)) == [cur.fetchone()[0] for cur in more]  # type: ignore[index]
        with raises(errors.UniqueViolation), conn.pipeline() as pipe:
            conn.execute("insert into drv_pg3_pipe values (100)")
            pipe.sync()
            conn.execute("insert into drv_pg3_pipe values (101)")
            conn.execute("insert into drv_pg3_pipe values (1)")
            conn.execute("insert into drv_pg3_pipe values (102)")
        assert [(100,)] == conn.execute("select n from drv_pg3_pipe where n >= 100").fetchall()
        with conn.pipeline() as pipe:
            failing, aborted = conn.cursor(), conn.cursor()
            failing.execute("select 1 / 0")
            aborted.execute("select 1")
            with raises(errors.DivisionByZero):
                pipe.sync()
            with raises(psycopg.ProgrammingError):
                aborted.fetchone()
            assert (3,) == conn.execute("select 3").fetchone()
        with conn.pipeline(), conn.transaction():
            conn.execute("insert into drv_pg3_pipe values (200)")
            with raises(ZeroDivisionError), conn.transaction():
                conn.execute("insert into drv_pg3_pipe values (201)")
                raise ZeroDivisionError
        assert [(200,)] == conn.execute("select n from drv_pg3_pipe where n >= 200").fetchall()
        conn.execute("drop table drv_pg3_pipe")


def notifies(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as listener, psycopg.connect(url) as sender:
        listener.execute("listen drv_pg3_channel")
        sender.execute("select pg_notify('drv_pg3_channel', %s)", ("first",))
        sender.execute("notify drv_pg3_channel, 'second'")
        assert [] == list(listener.notifies(timeout=0.05))
        sender.commit()
        assert ["first", "second"] == [note.payload for note in listener.notifies(timeout=20, stop_after=2)]
        listener.execute("unlisten *")
        sender.execute("notify drv_pg3_channel")
        sender.commit()
        assert [] == list(listener.notifies(timeout=0.05))


def cancels(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        for _ in range(3):
            timer = threading.Timer(0.2, conn.cancel_safe)
            timer.start()
            with raises(errors.QueryCanceled, sqlstate="57014"):
                conn.execute("select pg_sleep(30)")
            timer.join()
            assert (1,) == conn.execute("select 1").fetchone()
        conn.cancel_safe()  # nothing runs: nothing happens
        assert (2,) == conn.execute("select 2").fetchone()
        conn.execute("set statement_timeout = '50ms'")
        with raises(errors.QueryCanceled, sqlstate="57014"):
            conn.execute("select pg_sleep(30)")
        conn.execute("reset statement_timeout")
        assert ("0",) == conn.execute("show statement_timeout").fetchone()


def keeps_settings(url: str) -> None:
    """What a client sets stays set for it alone, whichever server runs its next transaction."""
    with psycopg.connect(
        with_parameters(
            url, application_name="drv psycopg3", options="-c statement_timeout=12345 -c search_path=public,pg_catalog"
        )
    ) as conn:

        def shows(name: str) -> str:
            row = conn.execute(sql.SQL("show {}").format(sql.Identifier(name))).fetchone()
            conn.commit()
            assert row is not None
            return str(row[0])

        assert "drv psycopg3" == shows("application_name") == conn.info.parameter_status("application_name")
        assert "12345ms" == shows("statement_timeout")
        assert "public,pg_catalog" == shows("search_path").replace(" ", "")
        conn.execute("set timezone = 'Asia/Tokyo'")
        conn.commit()
        assert "Asia/Tokyo" == shows("timezone") == conn.info.parameter_status("TimeZone")
        row = conn.execute("select '2024-01-01 00:00+00'::timestamptz").fetchone()
        assert row is not None and row[0].utcoffset() == dt.timedelta(hours=9)
        conn.execute("set timezone = 'Europe/Berlin'")
        conn.rollback()
        assert "Asia/Tokyo" == shows("timezone")
        conn.execute("select set_config('statement_timeout', '777', false)")
        conn.commit()
        assert "777ms" == shows("statement_timeout")
        conn.execute("set local statement_timeout = 888")
        assert ("888ms",) == conn.execute("show statement_timeout").fetchone()
        conn.commit()
        assert "777ms" == shows("statement_timeout")
        conn.execute("reset all")
        conn.commit()
        assert "12345ms" == shows("statement_timeout")


def keeps_session_state(url: str) -> None:
    """Temporary tables and session advisory locks belong to one client over many transactions."""
    with psycopg.connect(url, autocommit=True) as conn, psycopg.connect(url, autocommit=True) as other:
        conn.execute("create temp table drv_pg3_temp (n int)")
        conn.execute("select pg_advisory_lock(725001)")
        for n in range(5):
            conn.execute("insert into drv_pg3_temp values (%s)", (n,))
            with raises(errors.UndefinedTable):
                other.execute("select * from drv_pg3_temp")
            assert (False,) == other.execute("select pg_try_advisory_lock(725001)").fetchone()
        assert (5,) == conn.execute("select count(*) from drv_pg3_temp").fetchone()
        assert (True,) == conn.execute("select pg_advisory_unlock(725001)").fetchone()
        assert (True,) == other.execute("select pg_try_advisory_lock(725001)").fetchone()
        other.execute("select pg_advisory_unlock_all()")
        conn.execute("drop table drv_pg3_temp")
        conn.execute("discard all")


def reads_large_results(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        rows = conn.execute("select n, repeat('x', 50) from generate_series(1, 100000) n").fetchall()
        assert len(rows) == 100000 and rows[-1] == (100000, "x" * 50)
        streamed = sum(row[0] for row in conn.cursor().stream("select n from generate_series(1, 20000) n"))
        assert streamed == 20000 * 20001 // 2
        blob = b"\x00\xff" * 5_000_000
        assert (blob,) == conn.execute("select %b::bytea", (blob,)).fetchone()
        stream = conn.cursor().stream("select n from generate_series(1, 1000000) n")
        assert (1,) == next(stream)
        stream.close()  # left in mid-result: psycopg cancels and reads what was on its way
        assert (1,) == conn.execute("select 1").fetchone()


def shares_servers(url: str) -> None:
    """Several clients at once, each with its own settings, prepared statements and transactions."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("drop table if exists drv_pg3_swap")
        conn.execute("create table drv_pg3_swap (client int, n int)")

    def client(number: int) -> None:
        name = f"drv swap {number}"
        with psycopg.connect(url, application_name=name, prepare_threshold=2) as conn:
            conn.execute(sql.SQL("set statement_timeout = {}").format(50001 + number))
            conn.commit()
            for n in range(ROUNDS):
                # The same statement name on every client, with another text behind it.
                statement = sql.SQL("select {} * 1000 + %s::int, current_setting('application_name')").format(number)
                assert (number * 1000 + n, name) == conn.execute(statement, (n,)).fetchone()
                conn.execute("insert into drv_pg3_swap values (%s, %s)", (number, n))
                assert (f"{50001 + number}ms",) == conn.execute("show statement_timeout").fetchone()
                if n % 4 == 3:
                    conn.rollback()
                else:
                    conn.commit()

    in_threads(CLIENTS, client)
    with psycopg.connect(url, autocommit=True) as conn:
        counts = conn.execute("select client, count(*) from drv_pg3_swap group by 1 order by 1").fetchall()
        assert [(number, ROUNDS * 3 // 4) for number in range(CLIENTS)] == counts
        conn.execute("drop table drv_pg3_swap")


def pools(url: str) -> None:
    with psycopg_pool.ConnectionPool(
        url, min_size=2, max_size=4, check=psycopg_pool.ConnectionPool.check_connection, timeout=20
    ) as pool:
        pool.wait(20)

        def client(number: int) -> None:
            for n in range(ROUNDS):
                with pool.connection() as conn:
                    assert (number + n,) == conn.execute("select %s::int + %s::int", (number, n)).fetchone()

        in_threads(8, client)


def reconnects(url: str) -> None:
    """A killed server is an error of the connection's class; a new connection, or the pool's, works at once."""
    with raises(psycopg.OperationalError), psycopg.connect(url) as conn:
        conn.execute("select pg_terminate_backend(pg_backend_pid())")
        conn.execute("select 1")
    with psycopg.connect(url) as conn:
        assert (1,) == conn.execute("select 1").fetchone()
    with psycopg_pool.ConnectionPool(
        url, min_size=1, max_size=1, check=psycopg_pool.ConnectionPool.check_connection, timeout=20
    ) as pool:
        with raises(psycopg.OperationalError), pool.connection() as conn:
            conn.execute("select pg_terminate_backend(pg_backend_pid())")
        with pool.connection() as conn:
            assert (1,) == conn.execute("select 1").fetchone()


def leaves_in_mid_transaction(url: str) -> None:
    """A client that disconnects without an end of its transaction leaves nothing behind."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("drop table if exists drv_pg3_left")
        conn.execute("create table drv_pg3_left (n int)")
        for n in range(6):
            leaver = psycopg.connect(url)
            leaver.execute("insert into drv_pg3_left values (%s)", (n,))
            leaver.close()
        assert (0,) == conn.execute("select count(*) from drv_pg3_left").fetchone()
        conn.execute("drop table drv_pg3_left")  # needs the leavers' locks to be gone


async def works_with_asyncio(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url) as conn:
        async with conn.transaction():
            await conn.execute("create temp table drv_pg3_async (n int) on commit drop")
            async with conn.cursor() as cur:
                await cur.executemany("insert into drv_pg3_async values (%s)", [(n,) for n in range(100)])
            async with conn.cursor("drv_async_cursor") as cur:
                await cur.execute("select n from drv_pg3_async order by n")
                assert list(range(100)) == [row[0] async for row in cur]
            async with conn.cursor() as cur, cur.copy("copy drv_pg3_async from stdin") as copy:
                for n in range(100, 200):
                    await copy.write_row((n,))
            assert (200,) == await (await conn.execute("select count(*) from drv_pg3_async")).fetchone()
        async with conn.pipeline():
            cursors = [await conn.execute("select %s::int", (n,)) for n in range(20)]
        assert list(range(20)) == [(await cur.fetchone() or (None,))[0] for cur in cursors]
        await conn.commit()
        task = asyncio.create_task(conn.execute("select pg_sleep(30)"))
        await asyncio.sleep(0.2)
        task.cancel()  # psycopg sends a CancelRequest and waits for its effect
        with raises(asyncio.CancelledError):
            await task
        await conn.rollback()
        assert (1,) == await (await conn.execute("select 1")).fetchone()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as listener:
        await listener.execute("listen drv_pg3_async_channel")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as sender:
            await sender.execute("notify drv_pg3_async_channel, 'hello'")
        assert ["hello"] == [note.payload async for note in listener.notifies(timeout=20, stop_after=1)]


async def pools_with_asyncio(url: str) -> None:
    async with psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=5, open=False, timeout=20) as pool:

        async def client(number: int) -> None:
            for n in range(ROUNDS):
                async with pool.connection() as conn:
                    row = await (await conn.execute("select %s::int * 100 + %s::int", (number, n))).fetchone()
                    assert row == (number * 100 + n,)

        await asyncio.gather(*(client(number) for number in range(10)))


PROGRAM = Program(
    driver="psycopg 3",
    version=lambda: psycopg.__version__,
    checks=(
        connects,
        inserts_and_reads,
        carries_values,
        commits_and_rolls_back,
        nests_savepoints,
        prepares_automatically,
        prepares_by_sql,
        reads_with_server_cursors,
        copies,
        pipelines,
        notifies,
        cancels,
        keeps_settings,
        keeps_session_state,
        reads_large_results,
        shares_servers,
        pools,
        reconnects,
        leaves_in_mid_transaction,
        works_with_asyncio,
        pools_with_asyncio,
    ),
)

if __name__ == "__main__":
    main(PROGRAM)
