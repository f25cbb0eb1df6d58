"""W-50 and W-51: a cancel reaches its own query or nothing."""

from __future__ import annotations

import asyncio

import pytest

from hyperdrive.testing import backend
from hyperdrive.testing.fake_origin import FakeOrigin, FakeSession
from hyperdrive.testing.frontend import PROTOCOL_3_2, bind, execute, extended, parse, query, sync
from hyperdrive.testing.scene import Scene, eventually
from hyperdrive.testing.wire import WireConnection

S = sync()
SLEEP = "select pg_sleep(10)"


def slow_statement(fake: FakeOrigin) -> tuple[asyncio.Event, asyncio.Event]:
    """A statement ``slow`` and a cancel that take their time: until the first event the cancel connection stays open at the origin,
    until the second the statement has no answer."""
    held, answer = asyncio.Event(), asyncio.Event()
    fake.cancel_hold = held

    async def slow(session: FakeSession) -> None:
        await answer.wait()
        session.send(backend.row_description(["x"]), backend.data_row(["a"]), backend.complete("SELECT 1"))

    fake.on("slow", slow)
    return held, answer


async def cancel_under_way(client: WireConnection, fake: FakeOrigin) -> asyncio.Future[bytes]:
    """Cancel the slow statement that *client* has sent; the origin has the request when this returns."""
    await eventually(lambda: any("slow" in text for s in fake.sessions for text in s.queries))
    cancel = asyncio.ensure_future(client.cancel())
    await eventually(lambda: fake.cancels, "the cancel reached the origin")
    return cancel


@pytest.mark.parametrize("version", [196608, PROTOCOL_3_2], ids=["3.0", "3.2"])
async def test_w50_cancel_reaches_the_running_query(scene: Scene, version: int) -> None:
    a = await scene.client(version)
    for data in (query(SLEEP), extended(SLEEP) + S):
        a.send(data)
        await eventually(lambda: scene.is_waiting("PgSleep"), "the query runs")
        assert await a.cancel() == b""
        replies = await a.read_until("Z")
        assert (replies.errors, replies.statuses) == (["57014"], "I")
        assert (await a.query("select 'a'")).rows == [("a",)]


async def test_w50_cancel_in_a_transaction(scene: Scene) -> None:
    a = await scene.client()
    await a.query("begin")
    a.send(query(SLEEP))
    await eventually(lambda: scene.is_waiting("PgSleep"), "the query runs")
    await a.cancel()
    replies = await a.read_until("Z")
    assert (replies.errors, replies.statuses) == (["57014"], "E")
    assert (await a.query("rollback")).statuses == "I"


@pytest.mark.parametrize("pause", range(12))
async def test_w50_a_late_cancel_hits_nobody_else(scene: Scene, pause: int) -> None:
    """Cancels race with the end of their query, and the server goes to another client: that one must never hear 57014."""
    a, b = await scene.client(), await scene.client()
    cancels = []
    for turn in range(4):
        a.send(query("select 'a'"))
        b.send(query("select 'b', pg_sleep(0.01)"))
        for _ in range(pause + turn):
            await asyncio.sleep(0)
        cancels.append(asyncio.ensure_future(a.cancel()))
        heard_a, heard_b = await a.read_until("Z"), await b.read_until("Z")
        assert heard_b.errors == [], heard_b
        assert heard_a.errors in ([], ["57014"])
    assert await asyncio.gather(*cancels) == [b""] * 4
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_w50_a_server_with_a_cancel_under_way_is_not_lent(fake_scene: Scene, fake: FakeOrigin) -> None:
    """The origin takes its time to close the cancel connection; until then the next client waits."""
    held, answer = slow_statement(fake)
    await fake_scene.start(servers=1)
    a, b = await fake_scene.client(), await fake_scene.client()
    a.send(query("select slow"))
    cancel = await cancel_under_way(a, fake)
    assert fake.cancels == [(fake.sessions[0].pid, fake.sessions[0].secret)]
    answer.set()
    assert (await a.read_until("Z")).rows == [("a",)]
    b.send(query("select 'b'"))
    assert await b.is_silent(0.1), "the server was lent although a cancel may still hit it"
    held.set()
    assert (await b.read_until("Z")).tags == ["SELECT 1"]
    assert await cancel == b""


async def test_w50_the_cancel_connection_is_closed_when_the_origin_has_the_request(
    fake_scene: Scene, fake: FakeOrigin
) -> None:
    """As PostgreSQL does: a program that waits for the end of it sends its next statement without fear."""
    held, answer = slow_statement(fake)
    a = await fake_scene.client()
    a.send(query("select slow"))
    cancel = await cancel_under_way(a, fake)
    await asyncio.sleep(0.05)
    assert not cancel.done()
    held.set()
    assert await cancel == b""
    answer.set()
    assert (await a.read_until("Z")).rows == [("a",)]


async def test_w50_an_end_that_a_cancel_may_hit_is_not_told_ahead(fake_scene: Scene, fake: FakeOrigin) -> None:
    """The cancel was meant for the statement before; whether the ROLLBACK meets it, and then fails, the origin has to say."""
    held, answer = slow_statement(fake)

    async def hit(session: FakeSession) -> None:
        session.send(backend.error("57014", "canceling statement due to user request"))

    await fake_scene.start(servers=1)
    a = await fake_scene.client()
    a.send(query("begin") + query("select slow"))
    assert (await a.read_until("Z")).tags == ["BEGIN"]
    cancel = await cancel_under_way(a, fake)
    answer.set()
    assert (await a.read_until("Z")).rows == [("a",)]
    fake.on("rollback", hit)
    assert (await a.query("rollback")).errors == ["57014"]
    assert (await a.query("select 'behind'")).errors == []
    held.set()
    await cancel


async def test_w51_a_cancel_while_waiting_for_a_server(scene: Scene) -> None:
    a, b, c = await scene.client(), await scene.client(), await scene.client()
    await a.query("begin; select 1")
    b.send(query("select 'b'"))
    c.send(query("select 'c'"))
    await eventually(lambda: _waiting(scene) == 2, "both wait")
    await b.cancel()
    replies = await b.read_until("Z")
    assert (replies.errors, replies.statuses) == (["57014"], "I")
    await a.query("commit")
    assert (await c.read_until("Z")).rows == [("c",)]
    assert (await b.query("select 'b again'")).rows == [("b again",)]


async def test_w51_a_cancel_while_a_held_transaction_waits(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    await a.query("begin; select 1")
    b.send(query("begin"))
    b.send(query("select 'b'"))
    await eventually(lambda: _waiting(scene) == 1, "b waits")
    await b.cancel()
    replies = await b.read_until("Z", 2)
    assert replies.errors[:1] == ["57014"]
    await a.query("commit")
    if replies.statuses.endswith("E"):
        assert (await b.query("select 1")).errors == ["25P02"]
    await b.query("rollback")
    assert (await b.query("select 'b'")).statuses == "I"


@pytest.mark.parametrize("state", ["idle", "held", "in a transaction", "after a rollback"])
async def test_w51_a_cancel_when_nothing_runs_does_nothing(scene: Scene, state: str) -> None:
    a, b = await scene.client(), await scene.client()
    if state != "idle":
        await a.query("begin")
    if state in ("in a transaction", "after a rollback"):
        await a.query("select 1")
    if state == "after a rollback":
        await a.query("rollback")
    assert await a.cancel() == b""
    assert (await a.query("select 'a'")).rows == [("a",)]
    await a.query("rollback")
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_w50_cancel_in_a_pipeline_ends_one_query(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    a.send(query(SLEEP) + query("select 2") + parse("select 3") + bind() + execute() + S)
    b.send(query("select 'b'"))
    await eventually(lambda: scene.is_waiting("PgSleep"), "the query runs")
    await a.cancel()
    replies = await a.read_until("Z", 3)
    assert replies.errors == ["57014"]
    assert replies.rows == [("2",), ("3",)]
    assert (await b.read_until("Z")).rows == [("b",)]


def _waiting(scene: Scene) -> int:
    return sum(pool.waiting for pool in scene.proxy.pools)
