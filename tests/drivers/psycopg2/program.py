"""psycopg 2: simple queries only, parameters merged by the client, named cursors, COPY, its pool, asynchronous mode."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import select
import threading
import uuid
from contextlib import closing

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool
from psycopg2 import errors

from tests.drivers.common import Program, in_threads, main, raises, with_parameters

CLIENTS = 6
ROUNDS = 12


def connects(url: str) -> None:
    for _ in range(4):
        with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
            assert conn.server_version >= 130000
            cur.execute("select %s, %s", (1, "one"))
            assert cur.fetchone() == (1, "one")
            assert conn.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INTRANS


def inserts_and_reads(url: str) -> None:
    with closing(psycopg2.connect(url)) as conn:
        with conn, conn.cursor() as cur:
            cur.execute("drop table if exists drv_pg2_items")
            cur.execute("create table drv_pg2_items (id serial primary key, name text, price numeric)")
            cur.executemany("insert into drv_pg2_items (name) values (%s)", [(f"item {n}",) for n in range(20)])
            rows = psycopg2.extras.execute_values(
                cur,
                "insert into drv_pg2_items (name, price) values %s returning id",
                [("v", n) for n in range(250)],
                fetch=True,
            )
            assert len(rows) == 250
            psycopg2.extras.execute_batch(
                cur, "update drv_pg2_items set price = %s where id = %s", [(n, n) for n in range(1, 21)], page_size=7
            )
        with conn, conn.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cur:
            cur.execute("select id, name, price from drv_pg2_items where id = %s", (7,))
            assert cur.fetchone() == {"id": 7, "name": "item 6", "price": decimal.Decimal(7)}
            cur.execute("delete from drv_pg2_items")
            assert cur.rowcount == 270
            cur.execute("drop table drv_pg2_items")


def carries_values(url: str) -> None:
    psycopg2.extras.register_uuid()
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        moment = dt.datetime(2024, 2, 29, 12, 34, 56, 789012, tzinfo=dt.UTC)
        values = (
            None, -(2**31), 2**62, decimal.Decimal("0.1"), decimal.Decimal("12345678901234567890.0123456789"), "snow ☃ 'quotes' \\ \"x\"",
            uuid.UUID(int=5), moment, dt.date(1999, 12, 31), dt.timedelta(days=3, seconds=7), [1, None, 3], [["a", "b,c"], ["", "NULL"]],
            True,
        )  # fmt: skip
        cur.execute("select " + ", ".join(["%s"] * len(values)), values)
        assert cur.fetchone() == values
        blob = bytes(range(256))
        cur.execute(
            "select %s, %s::jsonb, %s::json", (psycopg2.Binary(blob), psycopg2.extras.Json({"a": [None]}), '{"b":1}')
        )
        row = cur.fetchone()
        assert (bytes(row[0]), row[1], row[2]) == (blob, {"a": [None]}, {"b": 1})


def commits_and_rolls_back(url: str) -> None:
    with closing(psycopg2.connect(url)) as conn, closing(psycopg2.connect(url)) as other:
        other.autocommit = True
        with other.cursor() as check, conn.cursor() as cur:
            check.execute("drop table if exists drv_pg2_tx")
            check.execute("create table drv_pg2_tx (n int primary key)")
            cur.execute("insert into drv_pg2_tx values (1)")
            check.execute("select count(*) from drv_pg2_tx")
            assert check.fetchone() == (0,)
            conn.commit()
            cur.execute("insert into drv_pg2_tx values (2)")
            conn.rollback()
            with raises(errors.UniqueViolation, sqlstate="23505"):
                cur.execute("insert into drv_pg2_tx values (1)")
            with raises(errors.InFailedSqlTransaction, sqlstate="25P02"):
                cur.execute("select 1")
            conn.commit()  # of a failed transaction: rolls back
            assert conn.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
            cur.execute("insert into drv_pg2_tx values (3)")
            cur.execute("savepoint a")
            with raises(errors.UniqueViolation):
                cur.execute("insert into drv_pg2_tx values (3)")
            cur.execute("rollback to a")
            cur.execute("insert into drv_pg2_tx values (4)")
            cur.execute("release a")
            conn.commit()
            conn.set_session(isolation_level="SERIALIZABLE", readonly=True)
            cur.execute("show transaction_isolation")
            assert cur.fetchone() == ("serializable",)
            with raises(errors.ReadOnlySqlTransaction):
                cur.execute("insert into drv_pg2_tx values (5)")
            conn.rollback()
            check.execute("select n from drv_pg2_tx order by n")
            assert check.fetchall() == [(1,), (3,), (4,)]
            check.execute("drop table drv_pg2_tx")


def commits_in_two_phases(url: str) -> None:
    """psycopg2's tpc_* methods; the server says 55000 when max_prepared_transactions is 0, as it is by default."""
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        cur.execute("show max_prepared_transactions")
        enabled = cur.fetchone() != ("0",)
        conn.rollback()
        xid = conn.xid(1, "drv_pg2", "branch")
        conn.tpc_begin(xid)
        cur.execute("select 1")
        if enabled:
            conn.tpc_prepare()
            conn.tpc_rollback()
        else:
            with raises(errors.ObjectNotInPrerequisiteState, sqlstate="55000"):
                conn.tpc_prepare()
            conn.close()


def runs_several_statements_at_once(url: str) -> None:
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        cur.execute(
            "create temp table drv_pg2_multi (n int) on commit drop; insert into drv_pg2_multi values (1); select n from drv_pg2_multi"
        )
        assert cur.fetchone() == (1,)
        conn.commit()
        conn.autocommit = True
        with raises(errors.DivisionByZero):
            cur.execute("create table drv_pg2_never (n int); select 1 / 0")
        cur.execute("select to_regclass('drv_pg2_never')")
        assert cur.fetchone() == (None,)
        cur.execute("begin; select 1; commit; select 2")
        assert cur.fetchone() == (2,)
        assert conn.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE


def prepares_by_sql(url: str) -> None:
    with (
        closing(psycopg2.connect(url)) as conn,
        closing(psycopg2.connect(url)) as other,
        conn.cursor() as cur,
        other.cursor() as two,
    ):
        cur.execute("prepare drv_plan (int) as select $1 * 2")
        conn.commit()
        two.execute("prepare drv_plan (int) as select $1 * 3")
        other.commit()
        for n in range(6):
            cur.execute("execute drv_plan(%s)", (n,))
            two.execute("execute drv_plan(%s)", (n,))
            assert (cur.fetchone(), two.fetchone()) == ((2 * n,), (3 * n,))
            conn.commit()
            other.commit()
        cur.execute("deallocate drv_plan")
        two.execute("deallocate all")
        conn.commit()
        with raises(errors.InvalidSqlStatementName, sqlstate="26000"):
            cur.execute("execute drv_plan(1)")


def reads_with_server_cursors(url: str) -> None:
    with closing(psycopg2.connect(url)) as conn:
        with conn.cursor("drv_numbers") as cur:
            cur.itersize = 100
            cur.execute("select n from generate_series(1, %s) n", (1050,))
            assert list(range(1, 1051)) == [row[0] for row in cur]
        with conn.cursor("drv_scroll", scrollable=True) as cur:
            cur.execute("select n from generate_series(1, 10) n")
            cur.scroll(5)
            assert cur.fetchone() == (6,)
        conn.commit()
        held = conn.cursor("drv_held", withhold=True)
        held.execute("select n from generate_series(1, 6) n")
        conn.commit()
        with closing(psycopg2.connect(url)) as other, other.cursor() as cur:
            cur.execute("select 1")
        assert held.fetchmany(3) == [(1,), (2,), (3,)]
        conn.commit()
        assert held.fetchall() == [(4,), (5,), (6,)]
        held.close()
        conn.commit()


def copies(url: str) -> None:
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        cur.execute("drop table if exists drv_pg2_copy")
        cur.execute("create table drv_pg2_copy (n int primary key, t text)")
        conn.commit()
        cur.copy_from(io.StringIO("".join(f"{n}\trow {n}\n" for n in range(5000))), "drv_pg2_copy")
        assert cur.rowcount == 5000
        conn.commit()
        out = io.StringIO()
        cur.copy_expert("copy (select * from drv_pg2_copy order by n) to stdout with csv", out)
        assert out.getvalue().splitlines()[4999] == "4999,row 4999"
        with raises(errors.UniqueViolation):
            cur.copy_from(io.StringIO("1\tagain\n" * 3000), "drv_pg2_copy")
        conn.rollback()

        class Breaks:
            def read(self, _size: int) -> str:
                raise ZeroDivisionError

        with raises(psycopg2.Error, ZeroDivisionError):  # CopyFail
            cur.copy_from(Breaks(), "drv_pg2_copy")
        conn.rollback()
        cur.execute("select count(*) from drv_pg2_copy")
        assert cur.fetchone() == (5000,)
        cur.execute("drop table drv_pg2_copy")
        conn.commit()


def notifies(url: str) -> None:
    with closing(psycopg2.connect(url)) as listener, closing(psycopg2.connect(url)) as sender:
        listener.autocommit = True
        with listener.cursor() as cur, sender.cursor() as send:
            cur.execute("listen drv_pg2_channel")
            send.execute("notify drv_pg2_channel, 'hello'")
            sender.commit()
            for _ in range(100):
                select.select([listener], [], [], 0.2)
                listener.poll()
                if listener.notifies:
                    break
            assert [note.payload for note in listener.notifies] == ["hello"]
            send.execute("do $$ begin raise notice 'drv says hello'; end $$")
            assert any("drv says hello" in notice for notice in sender.notices)


def cancels(url: str) -> None:
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        for _ in range(3):
            timer = threading.Timer(0.2, conn.cancel)
            timer.start()
            with raises(errors.QueryCanceled, sqlstate="57014"):
                cur.execute("select pg_sleep(30)")
            timer.join()
            conn.rollback()
        conn.cancel()  # nothing runs: nothing happens
        cur.execute("set statement_timeout = 50")
        with raises(errors.QueryCanceled):
            cur.execute("select pg_sleep(30)")


def keeps_settings(url: str) -> None:
    address = with_parameters(url, application_name="drv psycopg2", options="-c statement_timeout=12345")
    with closing(psycopg2.connect(address)) as conn, conn.cursor() as cur:

        def shows(name: str) -> str:
            cur.execute(f"show {name}")
            conn.commit()
            cur_row = cur.fetchone()
            return str(cur_row[0])

        assert shows("application_name") == "drv psycopg2" == conn.get_parameter_status("application_name")
        assert shows("statement_timeout") == "12345ms"
        cur.execute("set timezone = 'Asia/Tokyo'")
        conn.commit()
        assert shows("timezone") == "Asia/Tokyo" == conn.get_parameter_status("TimeZone")
        cur.execute("set timezone = 'Europe/Berlin'")
        conn.rollback()
        assert shows("timezone") == "Asia/Tokyo"
        conn.set_client_encoding("LATIN1")
        assert shows("client_encoding") == "LATIN1"
        cur.execute("select %s", ("ä",))
        assert cur.fetchone() == ("ä",)
        conn.commit()
        assert shows("client_encoding") == "LATIN1"
        conn.reset()
        assert shows("statement_timeout") == "12345ms"


def keeps_session_state(url: str) -> None:
    with (
        closing(psycopg2.connect(url)) as conn,
        closing(psycopg2.connect(url)) as other,
        conn.cursor() as cur,
        other.cursor() as two,
    ):
        cur.execute("create temp table drv_pg2_temp (n int)")
        cur.execute("select pg_advisory_lock(725003)")
        conn.commit()
        for n in range(5):
            cur.execute("insert into drv_pg2_temp values (%s)", (n,))
            conn.commit()
            two.execute("select pg_try_advisory_lock(725003)")
            assert two.fetchone() == (False,)
            other.commit()
        cur.execute("select count(*), pg_advisory_unlock(725003) from drv_pg2_temp")
        assert cur.fetchone() == (5, True)
        conn.commit()


def reads_large_results(url: str) -> None:
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        cur.execute("select n, repeat('x', 50) from generate_series(1, 100000) n")
        rows = cur.fetchall()
        assert len(rows) == 100000 and rows[-1] == (100000, "x" * 50)
        blob = b"\x00\xff" * 1_000_000
        cur.execute("select %s", (psycopg2.Binary(blob),))
        assert bytes(cur.fetchone()[0]) == blob


def works_asynchronously(url: str) -> None:
    """The mode of gevent and of old asyncio wrappers: a non-blocking connection and poll()."""

    def wait(conn: psycopg2.extensions.connection) -> None:
        while (state := conn.poll()) != psycopg2.extensions.POLL_OK:
            if state == psycopg2.extensions.POLL_READ:
                select.select([conn], [], [], 20)
            else:
                select.select([], [conn], [], 20)

    conn = psycopg2.connect(url, async_=1)
    wait(conn)
    with closing(conn), conn.cursor() as cur:
        for n in range(5):
            cur.execute("select %s", (n,))
            wait(conn)
            assert cur.fetchone() == (n,)


def shares_servers(url: str) -> None:
    with closing(psycopg2.connect(url)) as conn, conn, conn.cursor() as cur:
        cur.execute("drop table if exists drv_pg2_swap; create table drv_pg2_swap (client int, n int)")

    def client(number: int) -> None:
        with closing(psycopg2.connect(url, application_name=f"drv swap {number}")) as conn, conn.cursor() as cur:
            cur.execute("set statement_timeout = %s", (50001 + number,))
            conn.commit()
            for n in range(ROUNDS):
                cur.execute("insert into drv_pg2_swap values (%s, %s)", (number, n))
                cur.execute("select current_setting('statement_timeout'), current_setting('application_name')")
                assert cur.fetchone() == (f"{50001 + number}ms", f"drv swap {number}")
                if n % 4 == 3:
                    conn.rollback()
                else:
                    conn.commit()

    in_threads(CLIENTS, client)
    with closing(psycopg2.connect(url)) as conn, conn, conn.cursor() as cur:
        cur.execute("select client, count(*) from drv_pg2_swap group by 1 order by 1")
        assert [(number, ROUNDS * 3 // 4) for number in range(CLIENTS)] == cur.fetchall()
        cur.execute("drop table drv_pg2_swap")


def pools(url: str) -> None:
    pool = psycopg2.pool.ThreadedConnectionPool(1, 6, url)

    def client(number: int) -> None:
        for n in range(ROUNDS):
            conn = pool.getconn()
            try:
                with conn, conn.cursor() as cur:
                    cur.execute("select %s + %s", (number, n))
                    assert cur.fetchone() == (number + n,)
            finally:
                pool.putconn(conn)

    in_threads(5, client)
    pool.closeall()


def reconnects(url: str) -> None:
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur, raises(psycopg2.OperationalError):
        cur.execute("select pg_terminate_backend(pg_backend_pid())")
        cur.execute("select 1")
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        cur.execute("select 1")
        assert cur.fetchone() == (1,)


PROGRAM = Program(
    driver="psycopg 2",
    version=lambda: psycopg2.__version__.split()[0],
    checks=(
        connects,
        inserts_and_reads,
        carries_values,
        commits_and_rolls_back,
        commits_in_two_phases,
        runs_several_statements_at_once,
        prepares_by_sql,
        reads_with_server_cursors,
        copies,
        notifies,
        cancels,
        keeps_settings,
        keeps_session_state,
        reads_large_results,
        works_asynchronously,
        shares_servers,
        pools,
        reconnects,
    ),
)

if __name__ == "__main__":
    main(PROGRAM)
