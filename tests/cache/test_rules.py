"""The rules that are decided where sessions, entries and replies are known, each with its smallest case (caching-rules §4).

Those of the text alone are in ``hazards_cache/test_rules.py``; ``hazards_cache/test_map.py`` holds that every rule has a test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.frontend import bind, execute, parse, sync
from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.wire import WireConnection
from tests.cache.conftest import TABLES

READ = "select v from t where id = 1"


@pytest.fixture
async def stage(pg18: Postgres) -> AsyncIterator[CachedScene]:
    url = await database_of(pg18.url, "cached")
    await run_sql(url, TABLES)
    async with AsyncExitStack() as stack:
        yield CachedScene(url, stack, 18)


async def test_r01_off(stage: CachedScene) -> None:
    conn = await stage.client()
    assert "off" == (await stage.ask_twice(conn, f"/* hyperdrive: cache=off */ {READ}"))[0]
    await conn.query("set hyperdrive.cache = off")
    assert "off" == (await stage.ask_twice(conn, READ))[0]


async def test_r02_origin_unknown(stage: CachedScene) -> None:
    """Before the catalog is loaded; when the origin turns out to be in recovery; and another history begins with nothing."""
    conn = await stage.client()
    await conn.query(READ)
    catalog = stage.database.catalog
    assert catalog is not None
    identity = catalog.identity
    catalog.identity = replace(identity, in_recovery=True)
    stage.database.learn(catalog)
    assert "origin-unknown" == (await stage.ask_twice(conn, READ))[0]
    assert "in recovery" in stage.last(conn)
    catalog.identity = replace(identity, timeline=identity.timeline + 1)
    stage.database.learn(catalog)
    await stage.settle(conn)
    await conn.query(READ)
    assert "miss" == stage.how(conn), "the new primary's answers are its own"


async def test_r03_stream_down(stage: CachedScene) -> None:
    """On rungs 0 and 1 what may be lost is what other workers say."""
    conn = await stage.client()
    await conn.query(READ)
    stage.cache.suspended.add(7)
    stage.database.domain.touch_all()
    assert "stream-down" == (await stage.ask_twice(conn, READ))[0]


IN_TRANSACTION = [
    ["begin", "update t set v = 'mine' where id = 1"],
    ["begin isolation level repeatable read read only"],
    ["begin isolation level serializable read only"],
    ["begin read only", "select pg_catalog.random()"],
    ["begin", "savepoint s", "delete from other"],
]


@pytest.mark.parametrize("ahead", IN_TRANSACTION, ids=lambda texts: " · ".join(texts)[:50])
async def test_r04_in_transaction(stage: CachedScene, ahead: list[str]) -> None:
    conn = await stage.client()
    await conn.query(READ)
    for text in ahead:
        assert not (await conn.query(text)).errors
    found = await conn.value(READ)
    assert ("in-transaction", "mine" if "update" in str(ahead) else "v1") == (stage.how(conn), found)
    await conn.query("rollback")


async def test_r04_in_a_pipeline(stage: CachedScene) -> None:
    conn = await stage.client()
    await conn.scope(parse(READ) + bind() + execute() + sync())
    write = parse("update t set v = 'mine' where id = 1") + bind() + execute()
    replies = await conn.scope(write + parse(READ) + bind() + execute() + sync())
    assert [("mine",)] == replies.rows


SESSION_STATE = [
    "create temp table t (id int, v text)",
    "listen something",
    "declare c cursor with hold for select 1",
    "select pg_advisory_lock(4711)",
    "set default_transaction_isolation = serializable",
    "set session_replication_role = replica",
    "load 'plpgsql'",
]


@pytest.mark.parametrize("text", SESSION_STATE)
async def test_r05_session_state(stage: CachedScene, text: str) -> None:
    conn = await stage.client()
    await conn.query(READ)
    assert not (await conn.query(text)).errors
    for _ in range(3):
        assert ([] if "temp table" in text else [("v1",)]) == (await conn.query(READ)).rows
        assert stage.how(conn) not in ("hit", "stale", "miss"), stage.last(conn)
    await conn.query("discard all")


async def test_r05_set_config_is_modelled_or_bypassed(stage: CachedScene) -> None:
    """A role that another way than SET ROLE has given."""
    await stage.sql("drop role if exists pauper; create role pauper")
    conn = await stage.client()
    await conn.query(READ)
    await conn.query("select set_config('role', 'pauper', false)")
    for _ in range(2):
        assert ["42501"] == (await conn.query(READ)).errors
    await conn.query("reset role")
    assert "v1" == await conn.value(READ)
    await stage.sql("drop role pauper")


async def test_r06_multi_statement(stage: CachedScene) -> None:
    conn = await stage.client()
    await conn.query(READ)
    await conn.query("select 1; delete from t where id = 1")
    assert "multi-statement" == stage.how(conn)
    assert [] == (await conn.query(READ)).rows


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_r07_portal(stage: CachedScene, in_transaction: bool) -> None:
    """A portal that is asked for more is the origin's: no row comes twice, and behind its end there is none."""
    conn = await stage.client()
    batch = (
        parse("select id from t order by id")
        + bind()
        + execute("", 2)
        + execute("", 2)
        + execute("", 9)
        + execute("", 9)
    )
    for _ in range(2):
        if in_transaction:
            await conn.query("begin read only")
        replies = await conn.scope(batch + sync())
        assert ["1", "2", "3", "4", "5"] == [row[0] for row in replies.rows]
        assert stage.how(conn) not in ("hit", "stale")
        if in_transaction:
            await conn.query("commit")


async def test_r11_what_moves_rows_moves_no_answer(stage: CachedScene) -> None:
    """VACUUM FULL gives rows other places, and no event tells of it."""
    conn = await stage.client()
    sql = "select ctid from t where id = 5"
    await stage.sql("delete from t where id < 5")
    before = await conn.value(sql)
    assert "system-column" == stage.how(conn)
    await stage.sql("vacuum full t")
    assert before != await conn.value(sql)


async def test_r17_own_write(stage: CachedScene) -> None:
    """Behind an unknown write of its own, only what was asked for later: held by the number of the fill alone."""
    conn = await stage.client()
    await conn.query(READ)
    stage.reader(conn).last_write_no = stage.database.domain.fill_no
    await conn.query(READ)
    assert ("miss", "own-write") == (stage.how(conn), stage.reader(conn).last_rule.value)
    await conn.query(READ)
    assert "hit" == stage.how(conn)


async def test_r18_no_entry(stage: CachedScene) -> None:
    one, other = await stage.client(), await stage.client()
    await other.query("set timezone = 'Asia/Tokyo'")
    await stage.settle(other)
    sql = "select '2024-01-01 00:00+00'::timestamptz"
    assert await one.value(sql) != await other.value(sql)
    assert ("miss", "no-entry") == (stage.how(other), stage.reader(other).last_rule.value)


async def test_r19_invalidated_and_expired(stage: CachedScene) -> None:
    """Invalidated is a miss, also where expired would be served."""
    conn = await stage.client()
    await conn.query(READ)
    stage.clock.advance(62)
    await conn.query("update t set v = 'new' where id = 1")
    assert "new" == await conn.value(READ)
    assert "miss" == stage.how(conn)
    stage.clock.advance(100)
    await conn.query(READ)
    assert ("miss", "expired") == (stage.how(conn), stage.reader(conn).last_rule.value)


async def test_r22_size(stage: CachedScene) -> None:
    await stage.start(cache_entry_size="64KiB")
    conn = await stage.client()
    sql = "select repeat('x', 70000)"
    assert "miss" == (await stage.ask_twice(conn, sql))[0]
    assert 2 <= stage.cache.metrics.not_stored_size


async def test_r23_admission(stage: CachedScene) -> None:
    """Where nothing comes twice, a key is kept when it does."""
    conn = await stage.client()
    stage.cache.store.door.is_strict = True
    sql = "select v from t where id = 2"
    await conn.query(sql)
    assert ("miss", "admission") == (stage.how(conn), stage.reader(conn).last_rule.value)
    assert ["miss", "hit"] == [await how(stage, conn, sql), await how(stage, conn, sql)]


async def how(stage: CachedScene, conn: WireConnection, sql: str) -> str:
    await conn.query(sql)
    return stage.how(conn)


async def test_r17_an_unknown_write_is_remembered_by_number(stage: CachedScene) -> None:
    """What was asked for earlier is not for the session that wrote, whatever becomes of the entries."""
    conn, other = await stage.client(), await stage.client()
    await conn.query(READ)
    number = stage.database.domain.fill_no
    await conn.query("do $$begin update other set v = 'x'; end$$")
    assert (True, True) == (number <= stage.reader(conn).last_write_no, stage.reader(other).last_write_no < number)


async def test_r20_a_server_with_other_defaults_fills_nothing(stage: CachedScene) -> None:
    """§2: it began before ALTER ROLE or ALTER DATABASE … SET; its answer is its client's alone."""
    await stage.start(servers=1)  # another one, on its way yet, would have the defaults of today
    conn = await stage.client()
    before = stage.cache.metrics.stored
    for context in stage.proxy.app.proxy.contexts():
        for server in context.pool._servers:
            server.baseline = "of yesterday"
    for _ in range(2):
        await conn.query(READ)
        assert ("miss", before) == (stage.how(conn), stage.cache.metrics.stored)
