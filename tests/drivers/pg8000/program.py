"""pg8000: pure Python, extended protocol with text results; its DB-API face and its native face."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import uuid
from contextlib import closing
from typing import Any
from urllib.parse import unquote, urlsplit

import pg8000
import pg8000.dbapi
import pg8000.exceptions
import pg8000.native

from tests.drivers.common import Program, in_threads, main, raises

CLIENTS = 6
ROUNDS = 10


def arguments(url: str, **more: object) -> dict[str, Any]:
    """pg8000 takes no URL; what stands in it goes into keyword arguments."""
    parts = urlsplit(url)
    return {
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password) if parts.password else None,
        "host": parts.hostname,
        "port": parts.port,
        "database": parts.path.lstrip("/"),
        "timeout": 30,
        **more,
    }


def connects(url: str) -> None:
    for _ in range(4):
        with closing(pg8000.dbapi.connect(**arguments(url))) as conn:
            cur = conn.cursor()
            cur.execute("select %s::int, %s", (1, "one"))
            assert list(cur.fetchone()) == [1, "one"]


def inserts_and_reads(url: str) -> None:
    with closing(pg8000.dbapi.connect(**arguments(url))) as conn:
        cur = conn.cursor()
        cur.execute("drop table if exists drv_p8k_items")
        cur.execute("create table drv_p8k_items (id serial primary key, name text, price numeric)")
        cur.executemany(
            "insert into drv_p8k_items (name, price) values (%s, %s)", [(f"item {n}", n) for n in range(20)]
        )
        conn.commit()
        cur.execute("select id, name, price from drv_p8k_items where id = %s", (7,))
        assert list(cur.fetchone()) == [7, "item 6", decimal.Decimal(6)]
        cur.execute("update drv_p8k_items set price = 0 where id > %s returning id", (15,))
        assert cur.rowcount == 5
        cur.execute("drop table drv_p8k_items")
        conn.commit()


def carries_values(url: str) -> None:
    with closing(pg8000.native.Connection(**arguments(url))) as conn:
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
            ("date", dt.date(1999, 12, 31)),
            ("int4[]", [1, None, 3]),
            ("text[]", [["a", "b,c"], ["", "NULL"]]),
            ("bool", True),
            ("jsonb", {"b": {"c": "d"}}),
        ]
        for kind, value in samples:
            got = conn.run(f"select cast(:v as {kind})", v=value if kind != "jsonb" else '{"b": {"c": "d"}}')
            assert got == [[value]], kind


def commits_and_rolls_back(url: str) -> None:
    with (
        closing(pg8000.dbapi.connect(**arguments(url))) as conn,
        closing(pg8000.native.Connection(**arguments(url))) as other,
    ):
        other.run("drop table if exists drv_p8k_tx")
        other.run("create table drv_p8k_tx (n int primary key)")
        cur = conn.cursor()
        cur.execute("insert into drv_p8k_tx values (1)")
        assert other.run("select count(*) from drv_p8k_tx") == [[0]]
        conn.commit()
        cur.execute("insert into drv_p8k_tx values (2)")
        conn.rollback()
        with raises(pg8000.exceptions.DatabaseError, sqlstate="23505"):
            cur.execute("insert into drv_p8k_tx values (%s)", (1,))
        with raises(pg8000.exceptions.DatabaseError, sqlstate="25P02"):
            cur.execute("select 1")
        conn.rollback()
        cur.execute("insert into drv_p8k_tx values (3)")
        cur.execute("savepoint a")
        with raises(pg8000.exceptions.DatabaseError):
            cur.execute("insert into drv_p8k_tx values (3)")
        cur.execute("rollback to savepoint a")
        cur.execute("release savepoint a")
        conn.commit()
        assert other.run("select n from drv_p8k_tx order by n") == [[1], [3]]
        other.run("start transaction isolation level serializable read only")
        assert other.run("show transaction_isolation") == [["serializable"]]
        other.run("rollback")
        other.run("drop table drv_p8k_tx")


def prepares(url: str) -> None:
    with (
        closing(pg8000.native.Connection(**arguments(url))) as conn,
        closing(pg8000.native.Connection(**arguments(url))) as other,
    ):
        mine, theirs = conn.prepare("select cast(:v as int) * 2"), other.prepare("select cast(:v as int) * 3")
        for n in range(12):
            assert mine.run(v=n) == [[2 * n]]
            assert theirs.run(v=n) == [[3 * n]]
            if n == 5:
                with raises(pg8000.exceptions.DatabaseError):
                    conn.run("select 1 / 0")
        mine.close()
        theirs.close()


def reads_in_portions(url: str) -> None:
    with closing(pg8000.dbapi.connect(**arguments(url))) as conn:
        cur = conn.cursor()
        cur.execute("declare drv_c cursor for select n from generate_series(1, 100) n")
        cur.execute("fetch 30 from drv_c")
        assert len(cur.fetchall()) == 30
        cur.execute("fetch forward 100 from drv_c")
        assert len(cur.fetchall()) == 70
        cur.execute("close drv_c")
        conn.commit()


def copies(url: str) -> None:
    with closing(pg8000.dbapi.connect(**arguments(url))) as conn:
        cur = conn.cursor()
        cur.execute("create temp table drv_p8k_copy (n int primary key, t text) on commit drop")
        cur.execute("copy drv_p8k_copy from stdin", stream=io.BytesIO(b"".join(b"%d\trow\n" % n for n in range(5000))))
        out = io.BytesIO()
        cur.execute("copy drv_p8k_copy to stdout with (format csv)", stream=out)
        assert out.getvalue().count(b"\n") == 5000
        cur.execute("savepoint a")
        with raises(pg8000.exceptions.DatabaseError, sqlstate="23505"):
            cur.execute("copy drv_p8k_copy from stdin", stream=io.BytesIO(b"1\tagain\n" * 3000))
        cur.execute("rollback to savepoint a")
        cur.execute("select count(*) from drv_p8k_copy")
        assert list(cur.fetchone()) == [5000]
        conn.commit()


def notifies(url: str) -> None:
    with closing(pg8000.native.Connection(**arguments(url))) as listener:
        listener.run("listen drv_p8k_channel")
        with closing(pg8000.native.Connection(**arguments(url))) as sender:
            sender.run("notify drv_p8k_channel, 'hello'")
        for _ in range(1000):  # the native face reads notifications with the next reply
            listener.run("select pg_sleep(0.01)")
            if listener.notifications:
                break
        assert [(channel, payload) for _pid, channel, payload in listener.notifications] == [
            ("drv_p8k_channel", "hello")
        ]
        listener.run("do $$ begin raise notice 'drv says hello'; end $$")
        assert any(notice[b"M"] == b"drv says hello" for notice in listener.notices)


def times_out(url: str) -> None:
    with closing(pg8000.native.Connection(**arguments(url))) as conn:
        conn.run("set statement_timeout = 50")
        with raises(pg8000.exceptions.DatabaseError, sqlstate="57014"):
            conn.run("select pg_sleep(30)")
        assert conn.run("select 1") == [[1]]


def keeps_settings(url: str) -> None:
    more = {"application_name": "drv pg8000", "startup_params": {"statement_timeout": "12345"}}
    with closing(pg8000.native.Connection(**arguments(url, **more))) as conn:
        assert conn.run("show application_name") == [["drv pg8000"]]
        assert conn.run("show statement_timeout") == [["12345ms"]] or conn.run("show statement_timeout") == [["12345"]]
        conn.run("set timezone = 'Asia/Tokyo'")
        for _ in range(5):
            assert conn.run("show timezone") == [["Asia/Tokyo"]]
        assert conn.parameter_statuses["TimeZone"] == "Asia/Tokyo"
        conn.run("discard all")
        assert conn.run("show timezone") != [["Asia/Tokyo"]]
        assert conn.run("show statement_timeout") == [["12345ms"]]


def reads_large_results(url: str) -> None:
    with closing(pg8000.native.Connection(**arguments(url))) as conn:
        rows = conn.run("select n, repeat('x', 50) from generate_series(1, 30000) n")
        assert len(rows) == 30000 and rows[-1] == [30000, "x" * 50]
        blob = b"\x00\xff" * 1_000_000
        assert conn.run("select cast(:v as bytea)", v=blob) == [[blob]]


def shares_servers(url: str) -> None:
    with closing(pg8000.native.Connection(**arguments(url))) as conn:
        conn.run("drop table if exists drv_p8k_swap")
        conn.run("create table drv_p8k_swap (client int, n int)")

    def client(number: int) -> None:
        with closing(pg8000.dbapi.connect(**arguments(url, application_name=f"drv swap {number}"))) as conn:
            cur = conn.cursor()
            cur.execute(f"set statement_timeout = {50001 + number}")
            conn.commit()
            for n in range(ROUNDS):
                cur.execute("insert into drv_p8k_swap values (%s, %s)", (number, n))
                cur.execute("select current_setting('statement_timeout'), current_setting('application_name')")
                assert list(cur.fetchone()) == [f"{50001 + number}ms", f"drv swap {number}"]
                if n % 2:
                    conn.rollback()
                else:
                    conn.commit()

    in_threads(CLIENTS, client)
    with closing(pg8000.native.Connection(**arguments(url))) as conn:
        counts = conn.run("select client, count(*) from drv_p8k_swap group by 1 order by 1")
        assert [[number, ROUNDS // 2] for number in range(CLIENTS)] == counts
        conn.run("drop table drv_p8k_swap")


def reconnects(url: str) -> None:
    conn = pg8000.native.Connection(**arguments(url))
    with raises(pg8000.exceptions.InterfaceError, pg8000.exceptions.DatabaseError, OSError):
        conn.run("select pg_terminate_backend(pg_backend_pid())")
        conn.run("select 1")
    try:
        conn.close()
    except (pg8000.exceptions.InterfaceError, OSError):
        pass
    with closing(pg8000.native.Connection(**arguments(url))) as conn:
        assert conn.run("select 1") == [[1]]


PROGRAM = Program(
    driver="pg8000",
    version=lambda: pg8000.__version__,
    checks=(
        connects,
        inserts_and_reads,
        carries_values,
        commits_and_rolls_back,
        prepares,
        reads_in_portions,
        copies,
        notifies,
        times_out,
        keeps_settings,
        reads_large_results,
        shares_servers,
        reconnects,
    ),
)

if __name__ == "__main__":
    main(PROGRAM)
