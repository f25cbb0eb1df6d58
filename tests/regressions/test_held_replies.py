"""A reply that is kept back until other workers have heard of what it changed belongs to one client, and stands in its place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from hyperdrive.proxy.database import Heard
from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.frontend import extended, parse, query, sync
from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.scene import eventually


class Slow(Heard):
    """Other workers that have not heard yet."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def when_heard(self, then: Callable[[], None]) -> None:
        self.waiting.append(then)

    def hear(self) -> None:
        waiting, self.waiting = self.waiting, []
        for then in waiting:
            then()


@pytest.fixture
async def scene(pg18: Postgres) -> AsyncIterator[CachedScene]:
    url = await database_of(pg18.url, "held_replies")
    await run_sql(url, "drop table if exists t; create table t (id int)")
    async with AsyncExitStack() as stack:
        yield CachedScene(url, stack, 18)


async def slow_workers(scene: CachedScene) -> Slow:
    """One server, and other workers that hear of a change only when the test wants it."""
    await scene.start(1)
    await scene.client()
    slow = Slow()
    scene.database._announce = lambda database, tags, ends_epoch: slow
    return slow


async def test_a_reply_that_is_kept_back_never_reaches_the_next_client(scene: CachedScene) -> None:
    """Its client left meanwhile: the server is not lent to anybody before the reply has been dropped."""
    slow = await slow_workers(scene)
    a, b = await scene.client(), await scene.client()
    a.send(query("insert into t values (1)"))
    await eventually(lambda: slow.waiting)
    a.abort()
    await eventually(lambda: len(scene.proxy.app.proxy.clients) == 2)
    b.send(query("select 'b', clock_timestamp()"))
    assert await b.is_silent()
    slow.hear()
    assert "b" == (await b.read_until("Z")).rows[0][0]


async def test_what_is_answered_here_waits_behind_a_reply_that_is_kept_back(scene: CachedScene) -> None:
    """A client that pipelines gets its answers in the order of its questions."""
    slow = await slow_workers(scene)
    a = await scene.client()
    await a.query("select 'stored' as s")
    a.send(query("insert into t values (1)"))
    await eventually(lambda: slow.waiting)
    a.send(query("set work_mem = '5MB'") + query("select 'stored' as s") + query("") + query("begin"))
    a.send(parse("select $1::text", "s") + sync() + extended("select 1") + sync() + query("commit"))
    assert await a.is_silent()
    slow.hear()
    replies = await a.read_until("Z", 8)
    assert ["INSERT 0 1", "SET", "SELECT 1", "BEGIN", "SELECT 1", "COMMIT"] == replies.tags
    assert "IIIITTTI" == replies.statuses


async def test_a_client_that_sends_nothing_more_gets_a_reply_that_is_kept_back(scene: CachedScene) -> None:
    slow = await slow_workers(scene)
    a = await scene.client()
    a.send(query("insert into t values (1)"))
    await eventually(lambda: slow.waiting)
    a.writer.write_eof()
    assert a.reader.at_eof() is False
    slow.hear()
    assert ["INSERT 0 1"] == (await a.read_until("Z")).tags


async def test_a_server_that_is_lost_with_a_reply_kept_back_has_still_said_it(scene: CachedScene) -> None:
    """The commit is known: that nobody else has heard of it yet makes no doubt of it."""
    slow = await slow_workers(scene)
    a = await scene.client()
    a.send(query("insert into t values (1)"))
    await eventually(lambda: slow.waiting)
    for pid in await scene.servers():
        await scene.ask(f"select pg_terminate_backend({pid})")
    assert await a.is_silent()
    slow.hear()
    assert ["INSERT 0 1"] == (await a.read_until("Z")).tags
    assert "a" == await a.value("select 'a' || left(clock_timestamp()::text, 0)")
