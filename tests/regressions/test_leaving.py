"""What a client that leaves, and what a server that goes, must not leave to the next."""

from __future__ import annotations

import pytest

from hyperdrive.proxy import server as proxy_server
from hyperdrive.testing import backend
from hyperdrive.testing.frontend import flush, parse, query, terminate
from hyperdrive.testing.scene import Scene, eventually

ROLE_TRIGGER = """
create function take() returns trigger language plpgsql as
  $$ begin perform set_config('role', 'pg_monitor', false); return new; end $$;
create trigger take before insert on t for each row execute function take();
"""
ZONE_VIEW = """
create function zone() returns text language sql as $$ select set_config('TimeZone', 'Asia/Tokyo', false) $$;
create view z as select zone();
"""


async def test_a_lock_taken_after_the_client_left_is_given_back(scene: Scene) -> None:
    await scene.start(servers=1)
    a = await scene.client()
    await a.query("select 1")
    a.send(query("select pg_sleep(0.3), pg_advisory_lock(7788)"))
    await eventually(lambda: scene.is_waiting("PgSleep"))
    await a.close()
    b = await scene.client()
    assert (await b.query("select 'b'")).rows == [("b",)]
    assert await scene.ask("select count(*) from pg_locks where locktype = 'advisory' and objid = 7788") == "0"


async def test_a_temporary_table_made_after_the_client_left_is_gone(scene: Scene) -> None:
    await scene.start(servers=1)
    a = await scene.client()
    a.send(query("select pg_sleep(0.3)") + query("create temp table own as select 'private' as x"))
    await eventually(lambda: scene.is_waiting("PgSleep"))
    await a.close()
    b = await scene.client()
    assert (await b.query("select * from own")).errors == ["42P01"]


async def test_a_role_that_a_trigger_took_does_not_reach_the_next_client(scene: Scene) -> None:
    await scene.sql(ROLE_TRIGGER)
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    assert (await a.query("insert into t values (1, 'a')")).errors == []
    assert await b.value("select current_user") == "postgres"


async def test_a_zone_that_a_view_sets_does_not_reach_the_next_client(scene: Scene) -> None:
    await scene.sql(ZONE_VIEW)
    await scene.start(servers=1)
    a = await scene.client()
    await a.query("select * from z")
    await a.close()
    b = await scene.client()
    assert b.parameters["TimeZone"] != "Asia/Tokyo"
    assert await b.value("show timezone") == b.parameters["TimeZone"]


async def test_a_reset_in_a_transaction_that_its_client_left_did_not_happen(scene: Scene) -> None:
    await scene.start(servers=1)
    a = await scene.client()
    for sql in ("set timezone = 'Asia/Tokyo'", "begin", "select 1", "reset all"):
        await a.query(sql)
    await a.close()
    b = await scene.client()
    assert (await b.query("select current_setting('TimeZone'), current_user")).rows == [("UTC", "postgres")]
    assert b.parameters["TimeZone"] == "UTC"


async def test_a_hidden_listen_brings_no_notifications_to_others(scene: Scene) -> None:
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    await a.query("do $$ begin execute 'listen hidden'; end $$")
    await b.query("begin")
    await scene.sql("notify hidden, 'for a'")
    replies = await b.query("commit")
    replies += await b.query("select 'b'")
    assert replies.letters.replace("T", "") == "CZDCZ"


async def test_a_copy_that_begins_after_the_client_left_is_ended(scene: Scene) -> None:
    await scene.start(servers=1)
    d = await scene.direct()
    await d.query("begin; lock table t")
    a = await scene.client()
    a.send(query("copy t from stdin"))
    await eventually(lambda: scene.is_waiting("relation"))
    await a.close()
    await eventually(lambda: not scene.proxy.app.proxy.clients)
    await d.query("commit")
    b = await scene.client()
    b.deadline_seconds = 2.0
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_a_copy_of_a_client_that_terminates_at_once_is_ended(scene: Scene) -> None:
    await scene.start(servers=1)
    a = await scene.client()
    a.send(query("copy t from stdin") + terminate())
    await a.close()
    b = await scene.client()
    b.deadline_seconds = 2.0
    assert (await b.query("select count(*) from t")).rows == [("0",)]


async def test_a_query_that_survives_its_cancel_is_closed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_server, "DRAIN_SECONDS", 0.2)
    await scene.start(servers=1)
    a = await scene.client()
    a.send(
        query(
            "do $$ begin for i in 1..99 loop begin perform pg_sleep(20); exception when query_canceled then null; end; "
            "end loop; end $$"
        )
    )
    await eventually(lambda: scene.is_waiting("PgSleep"))
    await a.close()
    b = await scene.client()
    b.deadline_seconds = 3.0
    assert (await b.query("select 'b'")).rows == [("b",)]
    await scene.sql("select pg_terminate_backend(pid) from pg_stat_activity where query like 'do $$ begin for i%'")


async def test_a_client_leaves_in_the_middle_of_a_failed_scope(scene: Scene) -> None:
    await scene.start(servers=1)
    a = await scene.client()
    a.send(parse("selec x") + flush())
    await a.read_until("E")
    await a.close()
    b = await scene.client()
    assert (await b.query("select 'b'")).rows == [("b",)]
    assert scene.proxy.metrics.ledger_mismatches == 0


async def test_an_idle_server_that_said_a_last_word_is_not_lent(fake_scene: Scene) -> None:
    """Not even in the turn of the loop in which it came."""
    proxy = await fake_scene.start(servers=1)
    a = await fake_scene.client()
    await a.query("select 1")
    (pool,) = proxy.pools
    server = pool.take()
    pool.release(server)
    server.data_received(backend.error("57P01", "terminating connection due to administrator command", "FATAL"))
    assert pool.take() is None
    assert (await a.query("select 1")).errors == []


async def test_discard_all_leaves_session_mode_as_it_is(scene: Scene) -> None:
    await scene.start(servers=1, pool_mode="session", query_wait_timeout=0.2)
    a, b = await scene.client(), await scene.client()
    pid = await a.value("select pg_backend_pid()")
    assert (await a.query("discard all")).tags == ["DISCARD ALL"]
    assert await a.value("select pg_backend_pid()") == pid
    assert (await b.query("select 'b'")).errors == ["53300"]
