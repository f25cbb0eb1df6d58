"""Reads inside transactions (caching-rules §13): before the first write of one that nothing of has reached the origin."""

from __future__ import annotations

import asyncio

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import bind, describe_portal, execute, parse, sync

READ = "select id, v from t order by id"


async def in_transaction(scene: CachedScene, begin: str, *, stored: bool = True) -> tuple[str, str]:
    """How a read behind *begin* is answered, and the status byte that came with it."""
    conn = await scene.client()
    if stored:
        await scene.ask_twice(conn, READ)
    await conn.query(begin)
    reply = await conn.query(READ)
    how = scene.how(conn)
    await conn.query("rollback")
    return how, reply.statuses


AUTO = [
    pytest.param("begin", "miss", id="may write"),
    pytest.param("begin read only", "hit", id="read only"),
    pytest.param("begin isolation level read committed, read only", "hit", id="level named"),
    pytest.param("start transaction read only", "hit", id="start transaction"),
    pytest.param("begin isolation level repeatable read, read only", "in-transaction", id="repeatable read"),
    pytest.param("begin isolation level serializable, read only", "in-transaction", id="serializable"),
    pytest.param("begin read write", "miss", id="read write"),
]


@pytest.mark.parametrize(("begin", "how"), AUTO)
async def test_auto_serves_read_only_transactions(scene: CachedScene, begin: str, how: str) -> None:
    """An age-only entry is not served to a program that may write on what it read; what it reads is stored for others."""
    await scene.start(cache_in_transactions="auto")
    assert (how, "T") == await in_transaction(scene, begin)


async def test_always_serves_what_may_write_too_until_it_does(scene: CachedScene) -> None:
    await scene.start(cache_in_transactions="always")
    assert ("hit", "T") == await in_transaction(scene, "begin")
    assert ("in-transaction", "T") == await in_transaction(scene, "begin isolation level repeatable read")
    conn = await scene.client()
    await conn.query("begin")
    await conn.query("update t set v = 'mine' where id = 1")
    assert ("1", "mine") == (await conn.query(READ)).rows[0]
    await conn.query("rollback")
    assert ("1", "v1") == (await conn.query(READ)).rows[0]


async def test_never_bypasses(scene: CachedScene) -> None:
    await scene.start(cache_in_transactions="never")
    assert ("in-transaction", "T") == await in_transaction(scene, "begin read only")


async def test_sessions_that_are_read_only_by_default(scene: CachedScene) -> None:
    conn = await scene.client()
    await conn.query("set default_transaction_read_only = on")
    await scene.settle(conn)
    await scene.ask_twice(conn, READ)
    await conn.query("begin")
    await conn.query(READ)
    assert "hit" == scene.how(conn)
    await conn.query("commit")


async def test_a_default_isolation_that_is_not_read_committed(scene: CachedScene) -> None:
    conn = await scene.client()
    await conn.query("set default_transaction_isolation = 'repeatable read'")
    await scene.settle(conn)
    await scene.ask_twice(conn, READ)
    await conn.query("begin read only")
    await conn.query(READ)
    assert "in-transaction" == scene.how(conn)
    await conn.query("commit")


async def test_a_served_transaction_costs_no_round_trip(scene: CachedScene) -> None:
    conn = await scene.client()
    await scene.ask_twice(conn, READ)
    stats = scene.proxy.app.proxy.stats
    before = sum(one.origin_round_trips for one in stats.values())
    for sql, letters in (("begin read only", "CZ"), (READ, "TDDDDDCZ"), ("commit", "CZ")):
        assert letters == (await conn.query(sql)).letters
    assert before == sum(one.origin_round_trips for one in stats.values())


async def test_extended_batches_are_served_in_transactions(scene: CachedScene) -> None:
    conn, direct = await scene.client(), await scene.direct()
    scope = parse("select v from t where id = $1") + bind("", ["2"]) + describe_portal() + execute() + sync()
    await conn.scope(scope)
    for one in (conn, direct):
        await one.query("begin read only")
    assert await direct.scope(scope) == await conn.scope(scope)
    assert "hit" == scene.how(conn)
    for one in (conn, direct):
        await one.query("commit")


async def test_a_miss_in_a_transaction_is_stored_for_everybody(scene: CachedScene) -> None:
    conn, other = await scene.client(), await scene.client()
    await conn.query("begin")
    assert "T" == (await conn.query(READ)).statuses
    assert "I" == (await other.query(READ)).statuses
    assert "hit" == scene.how(other)
    await conn.query("commit")


async def test_what_was_read_behind_a_write_is_never_stored(scene: CachedScene) -> None:
    conn, other = await scene.client(), await scene.client()
    await conn.query("begin")
    await conn.query("update t set v = 'mine' where id = 1")
    await conn.query(READ)
    assert ("1", "v1") == (await other.query(READ)).rows[0]
    await conn.query("rollback")
    assert ("1", "v1") == (await other.query(READ)).rows[0]


async def test_own_uncommitted_rows_are_read(scene: CachedScene) -> None:
    """Rule 4: ``begin; update t set v=2; select v from t;``"""
    await scene.start(cache_in_transactions="always")
    conn = await scene.client()
    await scene.ask_twice(conn, "select v from t where id = 1")
    for begin in ("begin", "begin isolation level read committed"):
        await conn.query(begin)
        await conn.query("update t set v = '2' where id = 1")
        assert [("2",)] == (await conn.query("select v from t where id = 1")).rows
        await conn.query("rollback")


@pytest.mark.parametrize(
    "late", ["set transaction isolation level serializable", "set transaction isolation level repeatable read"]
)
async def test_the_origin_refuses_modes_behind_a_served_read(scene: CachedScene, late: str) -> None:
    """The transaction has read, as far as the client knows: "must be called before any query" is the origin's own error."""
    conn, direct = await scene.client(), await scene.direct()
    await scene.ask_twice(conn, READ)
    for one in (conn, direct):
        await one.query("begin read only")
        await one.query(READ)
    assert "hit" == scene.how(conn)
    expected, found = await direct.query(late), await conn.query(late)
    assert expected.errors == found.errors == ["25001"]
    assert expected.statuses == found.statuses == "E"
    for one in (conn, direct):
        await one.query("rollback")


async def test_a_savepoint_and_a_served_read(scene: CachedScene) -> None:
    conn, direct = await scene.client(), await scene.direct()
    await scene.ask_twice(conn, READ)
    for sql in ("begin read only", "savepoint a", READ, "rollback to a", "show transaction_isolation", "commit"):
        assert (await direct.query(sql)).letters == (await conn.query(sql)).letters, sql


async def test_set_local_in_a_transaction_is_not_served(scene: CachedScene) -> None:
    """What is set for the transaction alone is in no label."""
    await scene.sql(
        "create schema one; create table one.t (id int primary key, v text); insert into one.t values (1, 'one')"
    )
    conn, direct = await scene.client(), await scene.direct()
    await scene.ask_twice(conn, READ)
    for _ in range(3):
        for one in (conn, direct):
            await one.query("begin read only")
            await one.query("set local search_path = one")
        assert await direct.query(READ) == await conn.query(READ)
        for one in (conn, direct):
            await one.query("commit")
    assert await direct.query(READ) == await conn.query(READ)


async def test_behind_a_rollback_that_is_carried_out_behind_reads_are_served(scene: CachedScene) -> None:
    """The server is still ending the transaction: the client need not wait for that either."""
    conn, direct = await scene.client(), await scene.direct()
    await scene.ask_twice(conn, READ)
    for _ in range(5):
        for sql in ("begin", "select 1 from other", "rollback", READ):
            assert (await direct.query(sql)).letters == (await conn.query(sql)).letters
        assert "hit" == scene.how(conn)


async def test_a_commit_that_has_only_read_is_answered_at_once(scene: CachedScene) -> None:
    """E-5: the catalog proves that it has."""
    conn = await scene.client()
    metrics = scene.proxy.app.proxy.metrics
    saved = scene.proxy.app.proxy.contexts()[0].pipe.saved
    before = sum(saved.values())
    await conn.query("begin")
    await conn.query(READ)
    assert ["COMMIT"] == (await conn.query("commit")).tags
    assert sum(saved.values()) >= before + 2
    await conn.query("begin")
    await conn.query("select v from t where id = (select count(*) from pg_stat_activity)")
    assert ["COMMIT"] == (await conn.query("commit")).tags
    assert 0 == metrics.ledger_mismatches


async def test_session_pooling_is_served_too(scene: CachedScene) -> None:
    await scene.start(pool_mode="session")
    conn, other = await scene.client(), await scene.client()
    assert "hit" == (await scene.ask_twice(conn, READ))[0]
    await other.query("update t set v = 'x' where id = 1")
    assert ("1", "x") == (await conn.query(READ)).rows[0]
    await conn.query("create temp table t (id int, v text)")
    assert [] == (await conn.query(READ)).rows


@pytest.mark.parametrize("sql", ["select 1", "select version()"])
async def test_what_is_known_and_not_yet_asked_is_asked_once(scene: CachedScene, sql: str) -> None:
    """Such a read leads a flight, and did not wait for anybody: it had joined its own."""
    await scene.start(cache_in_transactions="always")
    conn = await scene.client()
    await conn.query("begin")
    async with asyncio.timeout(5):
        await conn.query(sql)
    assert "miss" == scene.how(conn)
    await conn.query("rollback")
    await conn.query(sql)
    assert "hit" == scene.how(conn)
