"""Many at once: stampedes, flights and their leaders, cancel requests, writes that race a fill (caching-rules §5.3, §10, §14)."""

from __future__ import annotations

import asyncio

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import query
from hyperdrive.testing.scene import eventually
from hyperdrive.testing.wire import WireConnection

READ = "select id, v from t order by id"
SLOW = "select count(*) from t"


class Blocked:
    """While it lasts, reads of ``t`` wait at the origin for a lock."""

    def __init__(self, scene: CachedScene) -> None:
        self.scene = scene

    async def __aenter__(self) -> Blocked:
        self.conn = await self.scene.direct()
        await self.conn.query("begin")
        await self.conn.query("lock table t in access exclusive mode")
        return self

    async def asked(self, count: int = 1) -> None:
        """Wait until so many reads have arrived there."""
        sql = "select count(*) from pg_locks where not granted and relation = 't'::regclass"

        async def is_so() -> bool:
            return await self.scene.ask(sql) == str(count)

        await eventually(is_so, f"{count} reads wait at the origin")

    async def end(self, *sqls: str) -> None:
        for sql in sqls:
            assert not (await self.conn.query(sql)).errors
        await self.conn.query("commit")

    async def __aexit__(self, *_: object) -> None:
        await self.conn.close()


async def crowd(scene: CachedScene, count: int) -> list[WireConnection]:
    return [await scene.client() for _ in range(count)]


def joined(scene: CachedScene) -> int:
    return scene.cache.metrics.flights_joined


async def test_a_stampede_asks_once(scene: CachedScene) -> None:
    clients = await crowd(scene, 8)
    async with Blocked(scene) as block:
        for conn in clients:
            conn.send(query(READ))
        await eventually(lambda: joined(scene) == 7, "seven have joined")
        await block.asked(1)
        await block.end()
        replies = [await conn.read_until("Z") for conn in clients]
    assert all(one == replies[0] and len(one.rows) == 5 for one in replies)
    assert 2 >= scene.cache.metrics.stored - 1, "settling stored one"
    assert {"miss"} == {scene.how(conn) for conn in clients}
    assert "hit" == (await scene.ask_twice(clients[3], READ))[0]


async def test_a_stampede_on_an_expired_hot_key_asks_once(scene: CachedScene) -> None:
    clients = await crowd(scene, 8)
    await scene.ask_twice(clients[0], READ)
    scene.clock.advance(61)
    async with Blocked(scene) as block:
        for conn in clients:
            assert 5 == len((await conn.query(READ)).rows), "nobody waits"
            assert "stale" == scene.how(conn)
        await block.asked(1)
        await block.end()
    assert 1 == scene.cache.metrics.refreshes


async def test_a_stampede_on_a_key_past_its_window_asks_once(scene: CachedScene) -> None:
    clients = await crowd(scene, 6)
    await scene.ask_twice(clients[0], READ)
    scene.clock.advance(100)
    async with Blocked(scene) as block:
        for conn in clients:
            conn.send(query(READ))
        await eventually(lambda: joined(scene) == 5, "five have joined")
        await block.asked(1)
        await block.end()
        assert all([len((await conn.read_until("Z")).rows) == 5 for conn in clients])


async def test_a_write_during_a_fill_is_not_overwritten_by_it(scene: CachedScene) -> None:
    """Rule 20: the fill read the old rows, the write was told done, and nothing would drop the entry again."""
    reader, writer = await scene.client(), await scene.client()
    await scene.sql(
        "create table gate (id int); create view slow as select v, (select count(*) from gate) from t where id = 1"
    )
    await writer.query("create table ends_the_epoch ()")
    await scene.settle(reader)
    await scene.settle(writer)
    # A snapshot is taken, then the read waits; so it returns what was there before the write.
    async with await scene.direct() as locker:
        await locker.query("begin; lock table gate in access exclusive mode")
        reader.send(query("select v from t where id = 1 and (select count(*) from gate) = 0"))
        await eventually(lambda: scene.is_waiting("relation"), "the read waits")
        await writer.query("update t set v = 'new' where id = 1")
        await locker.query("commit")
    await reader.read_until("Z")
    again = await reader.query("select v from t where id = 1 and (select count(*) from gate) = 0")
    assert [("new",)] == again.rows
    assert 1 <= scene.cache.metrics.not_stored_raced


async def test_a_follower_whose_own_write_came_later_asks_for_itself(scene: CachedScene) -> None:
    """§14: rows from a flight that was sent before its own write are not for it."""
    leader, writer = await scene.client(), await scene.client()
    sql = "select v from t where id = 1 and (select count(*) from other) >= 0"
    async with await scene.direct() as locker:
        await locker.query("begin; lock table other in access exclusive mode")
        leader.send(query(sql))
        await eventually(lambda: scene.is_waiting("relation"), "the leader waits")
        await writer.query("update t set v = 'mine' where id = 1")
        writer.send(query(sql))
        await locker.query("commit")
        assert [("mine",)] == (await writer.read_until("Z")).rows
        await leader.read_until("Z")
    assert [("mine",)] == (await leader.query(sql)).rows


async def test_followers_of_a_leader_that_is_cancelled_ask_for_themselves(scene: CachedScene) -> None:
    """Its error is its own."""
    leader, *others = await crowd(scene, 3)
    async with Blocked(scene) as block:
        leader.send(query(READ))
        await block.asked(1)
        for conn in others:
            conn.send(query(READ))
        await eventually(lambda: joined(scene) == 2, "two have joined")
        await leader.cancel()
        assert ["57014"] == (await leader.read_until("Z")).errors
        await block.asked(2)
        await block.end()
        assert all([len((await conn.read_until("Z")).rows) == 5 for conn in others])


async def test_a_follower_that_is_cancelled_hears_it_and_the_others_are_served(scene: CachedScene) -> None:
    leader, cancelled, other = await crowd(scene, 3)
    async with Blocked(scene) as block:
        leader.send(query(READ))
        await block.asked(1)
        for conn in (cancelled, other):
            conn.send(query(READ))
        await eventually(lambda: joined(scene) == 2, "two have joined")
        await cancelled.cancel()
        assert ["57014"] == (await cancelled.read_until("Z")).errors
        await block.end()
        assert 5 == len((await leader.read_until("Z")).rows) == len((await other.read_until("Z")).rows)
    assert 5 == len((await cancelled.query(READ)).rows)


async def test_a_leader_that_leaves_leaves_the_fill_to_the_others(scene: CachedScene) -> None:
    leader, other = await crowd(scene, 2)
    async with Blocked(scene) as block:
        leader.send(query(READ))
        await block.asked(1)
        other.send(query(READ))
        await eventually(lambda: joined(scene) == 1, "one has joined")
        leader.abort()
        await eventually(lambda: leader.pid not in scene.proxy.app.proxy.clients, "the leader has left")
        await block.end()
        assert 5 == len((await other.read_until("Z")).rows)


async def test_a_follower_that_leaves_is_forgotten(scene: CachedScene) -> None:
    leader, gone = await crowd(scene, 2)
    async with Blocked(scene) as block:
        leader.send(query(READ))
        await block.asked(1)
        gone.send(query(READ))
        await eventually(lambda: joined(scene) == 1, "one has joined")
        gone.abort()
        await eventually(lambda: gone.pid not in scene.proxy.app.proxy.clients, "the follower has left")
        await block.end()
        assert 5 == len((await leader.read_until("Z")).rows)


async def test_followers_of_a_lost_server_ask_for_themselves(scene: CachedScene) -> None:
    leader, other = await crowd(scene, 2)
    async with Blocked(scene) as block:
        leader.send(query(READ))
        await block.asked(1)
        other.send(query(READ))
        await eventually(lambda: joined(scene) == 1, "one has joined")
        for client in scene.proxy.app.proxy.clients.values():
            if client.server is not None:
                client.server.transport.abort()
        await block.asked(3)  # the lost one's backend, the leader again, the follower alone
        await block.end()
        assert 5 == len((await leader.read_until("Z")).rows) == len((await other.read_until("Z")).rows)


async def test_a_follower_waits_no_longer_than_its_deadline(scene: CachedScene) -> None:
    from dataclasses import replace

    leader, other = await crowd(scene, 2)
    scene.cache.settings = replace(scene.cache.settings, flight_seconds=0.05)
    async with Blocked(scene) as block:
        leader.send(query(READ))
        await block.asked(1)
        other.send(query(READ))
        await block.asked(2)
        await block.end()
        assert 5 == len((await leader.read_until("Z")).rows) == len((await other.read_until("Z")).rows)


async def test_a_follower_that_says_more_is_answered_in_order(scene: CachedScene) -> None:
    leader, other = await crowd(scene, 2)
    async with Blocked(scene) as block:
        leader.send(query(READ))
        await block.asked(1)
        other.send(query(READ))
        await eventually(lambda: joined(scene) == 1, "one has joined")
        other.send(query("select 'more'"))
        await asyncio.sleep(0.05)
        await block.end()
        replies = await other.read_until("Z", 2)
        await leader.read_until("Z")
    assert [*[(str(n), f"v{n}") for n in range(1, 6)], ("more",)] == replies.rows


async def test_a_full_pool_does_not_deadlock_flights(scene: CachedScene) -> None:
    """The leader waits for a server, the others for the leader."""
    await scene.start(servers=1)
    holder, *clients = await crowd(scene, 4)
    await holder.query("begin; select 1 from t for update")
    for conn in clients:
        conn.send(query(READ))
    await eventually(lambda: joined(scene) == 2, "two have joined")
    await holder.query("commit")
    assert all([len((await conn.read_until("Z")).rows) == 5 for conn in clients])


async def test_a_leader_cancelled_in_the_queue_wakes_its_followers(scene: CachedScene) -> None:
    await scene.start(servers=1)
    holder, leader, other = await crowd(scene, 3)
    await holder.query("begin; select 1 from t for update")
    leader.send(query(READ))
    await eventually(lambda: scene.proxy.app.proxy.clients[leader.pid].waiting, "the leader waits")
    other.send(query(READ))
    await eventually(lambda: joined(scene) == 1, "one has joined")
    await leader.cancel()
    assert ["57014"] == (await leader.read_until("Z")).errors
    await holder.query("commit")
    assert 5 == len((await other.read_until("Z")).rows)


@pytest.mark.parametrize("count", [1, 3])
async def test_an_error_is_told_to_each_in_its_own_right(scene: CachedScene, count: int) -> None:
    clients = await crowd(scene, count + 1)
    sql = "select 1 / (id - id) from t"
    async with Blocked(scene) as block:
        for conn in clients:
            conn.send(query(sql))
        await eventually(lambda: joined(scene) == count, "all have joined")
        await block.end()
        for conn in clients:
            assert ["22012"] == (await conn.read_until("Z")).errors


async def test_stale_if_error_serves_while_the_origin_is_away(scene: CachedScene, throwaway: object) -> None:
    """§14, counted apart, never past what the session asks for; and not what is known to have changed."""
    origin = throwaway
    await scene.start(
        origin_url=origin.url,  # type: ignore[attr-defined]
        max_age="10s",
        stale_while_revalidate="1s",
        stale_if_error="100s",
        query_wait_timeout="300ms",
        backoff_first="10ms",
        connect_timeout="200ms",
    )
    conn, strict = await scene.client(), await scene.client()
    await scene.ask_twice(conn, "select 'kept'")
    scene.clock.advance(50)
    origin.server.kill_sync()  # type: ignore[attr-defined]
    await eventually(
        lambda: scene.proxy.app.proxy.contexts()[0].pool.is_down or not scene.proxy.app.proxy.contexts()[0].pool.in_use
    )
    assert [("kept",)] == (await conn.query("select 'kept'")).rows
    assert ("stale", 1) == (scene.how(conn), scene.cache.reads.stale_if_error)
    assert (await conn.query("select 'never asked'")).errors
    scene.clock.advance(100)
    assert (await strict.query("select 'kept'")).errors, "beyond the bound"


async def test_what_a_standby_answers_is_not_stored(scene: CachedScene) -> None:
    """Of an origin with several hosts, one may be: it lags behind what a client has been told is committed."""
    conn, other = await scene.client(), await scene.client()
    (pool,) = scene.proxy.app.proxy.pools

    def say(value: bytes) -> None:
        for snapshot in pool.servers():
            session = snapshot.server.session
            session.view = {**session.view, b"in_hot_standby": value}

    say(b"on")
    await conn.query("select id, v from t")
    assert "miss" == scene.how(conn)
    say(b"off")
    for how in ("miss", "hit"):
        await other.query("select id, v from t")
        assert how == scene.how(other)
