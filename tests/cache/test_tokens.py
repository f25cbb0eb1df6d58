"""``hyperdrive.token`` and ``hyperdrive.min_token``: who holds a token reads nothing older than it stands for (caching-rules §11)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.frontend import query
from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.scene import eventually
from hyperdrive.testing.wire import WireConnection
from tests.cache.conftest import TABLES

READ = "select v from t where id = 1"


@pytest.fixture
async def regions(pg18: Postgres) -> AsyncIterator[tuple[CachedScene, CachedScene]]:
    """Two proxies in front of one origin that know nothing of each other."""
    url = await database_of(pg18.url, "cached")
    await run_sql(url, TABLES)
    async with AsyncExitStack() as stack:
        yield CachedScene(url, stack, 18), CachedScene(url, stack, 18)


async def token(conn: WireConnection) -> str:
    found = await conn.value("show hyperdrive.token")
    assert found is not None
    return found


async def test_what_was_written_in_another_region_is_read_with_its_token(
    regions: tuple[CachedScene, CachedScene],
) -> None:
    here, there = regions
    writer, reader, indifferent = await there.client(), await here.client(), await here.client()
    assert "v1" == await reader.value(READ) == await indifferent.value(READ)
    await writer.query("update t set v = 'new' where id = 1")
    await reader.query(f"set hyperdrive.min_token = '{await token(writer)}'")
    assert "v1" == await indifferent.value(READ), "by age alone it may"
    assert "new" == await reader.value(READ)
    assert "miss" == here.how(reader)
    assert "new" == await reader.value(READ) == await indifferent.value(READ)
    assert "hit" == here.how(reader), "what was asked for since is new enough"
    await writer.query("update t set v = 'newer' where id = 1")
    await reader.query(f"set hyperdrive.min_token = '{await token(writer)}'")
    assert "newer" == await reader.value(READ)


async def test_a_token_comes_with_the_start_up_too(regions: tuple[CachedScene, CachedScene]) -> None:
    here, there = regions
    writer, old = await there.client(), await here.client()
    await old.query(READ)
    await writer.query("update t set v = 'new' where id = 1")
    reader = await here.client(options=f"-c hyperdrive.min_token={await token(writer)}")
    assert "new" == await reader.value(READ)


async def test_a_token_of_this_process_costs_nothing(regions: tuple[CachedScene, CachedScene]) -> None:
    """What it stands for was dropped here before its client was told."""
    here, _ = regions
    writer, reader = await here.client(), await here.client()
    await reader.query("select v from t where id = 2")
    await reader.query("select v from other")
    await writer.query("update t set v = 'new' where id = 1")
    await reader.query(f"set hyperdrive.min_token = '{await token(writer)}'")
    assert "other" == await reader.value("select v from other")
    assert "hit" == here.how(reader)
    assert "new" == await reader.value(READ)


async def test_one_that_this_process_has_not_given_yet_is_a_foreign_one(scene: CachedScene) -> None:
    """A guessed one, or one from before a restart."""
    conn = await scene.client()
    await conn.query(READ)
    given, _, number = (await token(conn)).rpartition(":")
    await conn.query(f"set hyperdrive.min_token = '{given}:{int(number) + 1000}'")
    await conn.query(READ)
    assert "miss" == scene.how(conn)


@pytest.mark.parametrize("other", ["hd1:1:1:1:a:1", "hd1::::0:0"])
async def test_a_token_of_another_origin_is_met_by_nothing(scene: CachedScene, other: str) -> None:
    conn = await scene.client()
    await conn.query(READ)
    await conn.query(f"set hyperdrive.min_token = '{other}'")
    assert other == await conn.value("show hyperdrive.min_token")
    for _ in range(2):
        await conn.query(READ)
        assert ("own-write", "object=hyperdrive.min_token" in scene.last(conn)) == (scene.how(conn), True)
    await conn.query("reset hyperdrive.min_token")
    await conn.query(READ)
    assert "hit" == scene.how(conn)


async def test_another_timeline_is_another_origin(scene: CachedScene) -> None:
    conn = await scene.client()
    given = await token(conn)
    await conn.query(READ)
    catalog = scene.database.catalog
    assert catalog is not None
    catalog.identity = replace(catalog.identity, timeline=catalog.identity.timeline + 1)
    scene.database.learn(catalog)
    await conn.query(f"set hyperdrive.min_token = '{given}'")
    await conn.query(READ)
    assert "own-write" == scene.how(conn)


async def test_an_answer_under_way_when_a_token_is_set_is_not_joined(
    regions: tuple[CachedScene, CachedScene],
) -> None:
    """§14: setting ``min_token`` counts as a write."""
    here, there = regions
    leader, reader, writer = await here.client(), await here.client(), await there.client()
    sql = "select v from t where id = 1 and (select count(*) from other) >= 0"
    async with await here.direct() as locker:
        await locker.query("begin; lock table other in access exclusive mode")
        leader.send(query(sql))
        await eventually(lambda: here.is_waiting("relation"), "the leader waits")
        await writer.query("update t set v = 'new' where id = 1")
        await reader.query(f"set hyperdrive.min_token = '{await token(writer)}'")
        reader.send(query(sql))
        waiting = "select count(*) from pg_locks where not granted and relation = 'other'::regclass"

        async def both_ask() -> bool:
            return await here.ask(waiting) == "2"

        await eventually(both_ask, "the reader has asked for itself")
        await locker.query("commit")
        assert [("new",)] == (await reader.read_until("Z")).rows
        await leader.read_until("Z")
    assert [("new",)] == (await reader.query(sql)).rows
