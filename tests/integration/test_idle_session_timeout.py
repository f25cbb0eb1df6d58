"""``idle_session_timeout`` is the client's: the proxy enforces it, and no server ever has it (E-7)."""

from __future__ import annotations

import pytest

from hyperdrive.testing.databases import database_of
from hyperdrive.testing.frontend import bind, execute, extended, parse, query, sync
from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.proxy import running_proxy
from hyperdrive.testing.transcript import transcript
from hyperdrive.testing.wire import LoginFailed, connect

S = sync()

SET = {
    "query": [query("set idle_session_timeout = '300ms'")],
    "extended": [extended("set idle_session_timeout to 300") + S],
    "prepared": [parse("set idle_session_timeout to 300", "s") + S, bind("s") + execute() + S],
    "function": [query("select set_config('idle_session_timeout', '0.3s', false)")],
    "text": [query("select 1; set idle_session_timeout = 300; select 2")],
    "committed": [query("begin"), query("set idle_session_timeout = 300"), query("select 1"), query("commit")],
    "committed, nothing sent": [query("begin"), query("set idle_session_timeout = 300"), query("commit")],
    "shortened": [query("set idle_session_timeout = '1h'"), query("select 1"), query("set idle_session_timeout = 300")],
}


@pytest.mark.parametrize("case", SET)
async def test_a_client_is_ended_by_its_own_timeout(postgres: Postgres, case: str) -> None:
    async with (
        running_proxy(postgres.app_url, pool_size=1) as proxy,
        await connect(proxy.url) as conn,
        await connect(proxy.url) as other,
    ):
        for data in SET[case]:
            assert (await conn.scope(data)).errors == []
        replies = await conn.read_to_end()
        assert replies.errors == ["57P05"]
        assert replies[-1].error["M"] == "terminating connection due to idle-session timeout"
        assert await other.value("select current_setting('idle_session_timeout')") == "0"
        assert proxy.metrics.clients_timed_out == 1


async def test_who_is_busy_or_in_a_transaction_is_not_ended(postgres: Postgres) -> None:
    async with (
        running_proxy(postgres.app_url, pool_size=2) as proxy,
        await connect(proxy.url) as conn,
        await connect(proxy.url) as undone,
    ):
        await conn.query("set idle_session_timeout = 300")
        assert (await conn.query("select 'slow' from pg_sleep(1)")).rows == [("slow",)]
        await conn.query("begin")
        await undone.query("begin")
        await undone.query("set idle_session_timeout = 100")
        await undone.query("rollback")
        assert (await undone.query("select 'slow' from pg_sleep(1)")).rows == [("slow",)]
        assert (await conn.query("select 'late'")).rows == [("late",)]
        await conn.query("commit")
        await conn.query("set idle_session_timeout = 0")
        assert (await undone.query("select 'slow' from pg_sleep(0.6)")).rows == [("slow",)]
        assert (await conn.query("select 'later'")).rows == [("later",)]


async def test_it_comes_with_the_start_up(postgres: Postgres) -> None:
    async with (
        running_proxy(postgres.app_url, pool_size=1) as proxy,
        await connect(proxy.url, options="-c idle_session_timeout=5s") as conn,
    ):
        assert await conn.value("show idle_session_timeout") == "5s"
        await conn.query("set idle_session_timeout = '7s'")
        await conn.query("reset idle_session_timeout")
        assert await conn.value("show idle_session_timeout") == "5s"
        assert await conn.value("select current_setting('idle_session_timeout')") == "0"
        async with await connect(proxy.url, idle_session_timeout="300") as conn:
            assert (await conn.read_to_end()).errors == ["57P05"]
        for value in ("soon", "-1", "99d 1h"):
            with pytest.raises(LoginFailed, match="22023"):
                await connect(proxy.url, idle_session_timeout=value)


CONVERSATION = [
    *("show idle_session_timeout", "set idle_session_timeout = 0", "show idle_session_timeout"),
    *("set idle_session_timeout to '90000'", "show idle_session_timeout", "set idle_session_timeout = '1.5h'"),
    *("show idle_session_timeout", "set idle_session_timeout = ' 2 min '", "show idle_session_timeout"),
    *("set idle_session_timeout = '1500000us'", "show idle_session_timeout", "set idle_session_timeout = 1e6"),
    *("show idle_session_timeout", "set idle_session_timeout = '0x10000'", "show idle_session_timeout"),
    *("set idle_session_timeout = '010s'", "show idle_session_timeout", "set idle_session_timeout = '08'"),
    *("set idle_session_timeout = 'soon'", "set idle_session_timeout = -1", "set idle_session_timeout = '30d'"),
    *("set idle_session_timeout = '1 week'", "set idle_session_timeout = 1, 2", "show idle_session_timeout"),
    *("begin", "set idle_session_timeout = '1d'", "show idle_session_timeout", "savepoint a"),
    *("set idle_session_timeout = '2d'", "rollback to a", "show idle_session_timeout", "rollback"),
    *("show idle_session_timeout", "begin", "select 1", "set idle_session_timeout = '3d'", "select 1/0", "rollback"),
    *("show idle_session_timeout", "begin", "set local idle_session_timeout = '4d'", "commit"),
    *("show idle_session_timeout", "set idle_session_timeout = default", "show idle_session_timeout"),
    *("set idle_session_timeout = '5h'", "reset all", "show idle_session_timeout", "set idle_session_timeout = '5h'"),
    *("discard all", "show idle_session_timeout"),
]


async def test_it_is_answered_as_by_the_origin(postgres: Postgres) -> None:
    url = await database_of(postgres.url, "idle_session_timeout")
    async with (
        running_proxy(url, pool_size=1) as proxy,
        await connect(url) as direct,
        await connect(proxy.url) as conn,
        await connect(proxy.url) as other,
    ):
        for sql in CONVERSATION:
            expected = transcript(await direct.query(sql))
            assert expected == transcript(await conn.query(sql)), sql
        assert await other.value("select current_setting('idle_session_timeout')") == "0"
        assert proxy.metrics.ledger_mismatches == 0
