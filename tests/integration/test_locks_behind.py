"""What an end that is answered ahead means for locks: others may meet them until it has travelled, its own session never does (E-4, E-5).

    session a ⇄ proxy ⇄ relay, which can stand still ⇄ PostgreSQL ⇄ a third session, directly

While the relay stands still nothing reaches the origin, so no clock is needed to see who is told what, and when.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from hyperdrive.metrics import Saved
from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.frontend import query
from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.proxy import RunningProxy, running_proxy
from hyperdrive.testing.relay import Relay
from hyperdrive.testing.scene import eventually
from hyperdrive.testing.wire import Address, WireConnection, connect

WRITTEN = ["update t set v = 'new' where id = 1"]
LOCKED = ["select v from t where id = 1 for update"]
READ = ["select v from t where id = 1"]
ROW_NOWAIT = "select v from t where id = 1 for update nowait"
TABLE_NOWAIT = "begin; lock table t in access exclusive mode nowait; rollback"
TAKEN = "55P03"


@dataclass
class Stage:
    url: str
    stack: AsyncExitStack

    async def start(self, **switches: object) -> tuple[Relay, RunningProxy, WireConnection, WireConnection]:
        """A relay that can stand still, a proxy behind it, its client, and the third session."""
        origin = Address.of(self.url)
        relay = await self.stack.enter_async_context(Relay((origin.host, origin.port)))
        away = self.url.replace(f":{origin.port}/", f":{relay.port}/")
        proxy = await self.stack.enter_async_context(running_proxy(away, pool_size=2, catalog_poll="1h", **switches))
        a = await self.stack.enter_async_context(await connect(proxy.url))
        third = await self.stack.enter_async_context(await connect(self.url))
        return relay, proxy, a, third


@pytest.fixture
async def stage(pg18: Postgres) -> AsyncIterator[Stage]:
    url = await database_of(pg18.url, "locks_behind")
    await run_sql(
        url, "drop table if exists t; create table t (id int primary key, v text); insert into t values (1, 'one')"
    )
    async with AsyncExitStack() as stack:
        yield Stage(url, stack)


async def in_transaction(a: WireConnection, statements: list[str]) -> None:
    for sql in ("begin", *statements):
        assert (await a.query(sql)).errors == []


async def is_taken(third: WireConnection, sql: str) -> bool:
    errors = (await third.query(sql)).errors
    if errors:
        await third.query("rollback")
    assert errors in ([], [TAKEN])
    return bool(errors)


async def frees(third: WireConnection, sql: str) -> None:
    async def is_free() -> bool:
        return not await is_taken(third, sql)

    await eventually(is_free)


async def test_others_meet_the_locks_of_a_rollback_until_it_has_travelled(stage: Stage) -> None:
    relay, _, a, third = await stage.start()
    await in_transaction(a, WRITTEN)
    relay.freeze()
    assert (await a.query("rollback")).tags == ["ROLLBACK"]
    assert await is_taken(third, ROW_NOWAIT)
    relay.thaw()
    await frees(third, ROW_NOWAIT)
    assert await a.value("select v from t") == "one"


async def test_others_meet_the_locks_of_a_commit_of_what_only_read_until_it_has_travelled(stage: Stage) -> None:
    relay, proxy, a, third = await stage.start()
    (stats,) = proxy.app.proxy.stats.values()

    async def is_proven() -> bool:
        await in_transaction(a, READ)
        await a.query("commit")
        return stats.origin_round_trips_saved[Saved.COMMIT] > 0

    await eventually(is_proven, "the catalog is loaded")
    await in_transaction(a, READ)
    relay.freeze()
    assert (await a.query("commit")).tags == ["COMMIT"]
    assert await is_taken(third, TABLE_NOWAIT)
    relay.thaw()
    await frees(third, TABLE_NOWAIT)


async def test_its_own_session_never_meets_them(stage: Stage) -> None:
    """What it sends next goes behind the end on the same server, whichever others are free."""
    relay, _, a, _ = await stage.start()
    await in_transaction(a, WRITTEN)
    relay.freeze()
    assert (await a.query("rollback")).tags == ["ROLLBACK"]
    a.send(query(ROW_NOWAIT))
    assert await a.is_silent()
    relay.thaw()
    replies = await a.read_until("Z")
    assert ([], [("one",)]) == (replies.errors, replies.rows)


@pytest.mark.parametrize(
    ("switches", "statements", "end", "nowait"),
    [
        ({"eager_rollback": "off"}, WRITTEN, "rollback", ROW_NOWAIT),
        ({"eager_commit": False}, READ, "commit", TABLE_NOWAIT),
        ({}, LOCKED, "rollback", ROW_NOWAIT),
        ({}, WRITTEN, "commit", ROW_NOWAIT),
    ],
    ids=["rollback switched off", "commit switched off", "locks that others wait for", "a commit of a write"],
)
async def test_nobody_meets_them_where_the_end_is_waited_for(
    stage: Stage, switches: dict[str, object], statements: list[str], end: str, nowait: str
) -> None:
    relay, _, a, third = await stage.start(**switches)
    await in_transaction(a, statements)
    relay.freeze()
    a.send(query(end))
    assert await a.is_silent()
    assert await is_taken(third, nowait)
    relay.thaw()
    assert (await a.read_until("Z")).errors == []
    assert not await is_taken(third, nowait)


async def test_always_is_also_for_locks_that_others_wait_for(stage: Stage) -> None:
    relay, _, a, third = await stage.start(eager_rollback="always")
    await in_transaction(a, LOCKED)
    relay.freeze()
    assert (await a.query("rollback")).tags == ["ROLLBACK"]
    assert await is_taken(third, ROW_NOWAIT)
    relay.thaw()
    await frees(third, ROW_NOWAIT)
