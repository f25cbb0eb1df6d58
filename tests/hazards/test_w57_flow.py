"""W-57 … W-65: back-pressure, slow clients, queues and our own cancellations."""

from __future__ import annotations

import asyncio

import pytest

from hyperdrive.testing import backend
from hyperdrive.testing.fake_origin import FakeOrigin
from hyperdrive.testing.frontend import bind, execute, extended, flush, parse, query, sync
from hyperdrive.testing.scene import Scene, eventually

S = sync()


async def test_w57_a_pipeline_sent_before_anything_is_read(scene: Scene) -> None:
    """10 MB each way: were the directions coupled, both sides would wait for ever."""
    a, b = await scene.client(), await scene.client()
    one = parse("select $1::text") + bind("", ["x" * 10_000]) + execute() + S
    a.deadline_seconds = 30

    async def send() -> None:
        for _ in range(1000):
            a.writer.write(one)
            await a.writer.drain()

    async def read() -> None:
        # The client starts to read only when it can send no more.
        await asyncio.wait({sending}, timeout=1.0)
        replies = await a.read_until("Z", 1000)
        assert len(replies.rows) == 1000
        assert all(row == ("x" * 10_000,) for row in replies.rows)

    a._note_sent = lambda data: None  # type: ignore[method-assign]
    sending = asyncio.ensure_future(send())
    await asyncio.gather(sending, read())
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_w57_one_write_of_many_simple_queries(scene: Scene) -> None:
    a = await scene.client()
    a.deadline_seconds = 30
    data = query("select repeat('y', 20000)") * 300
    a._note_sent = lambda data: None  # type: ignore[method-assign]
    a.send(data)
    replies = await a.read_until("Z", 300)
    assert len(replies.rows) == 300


async def test_w58_a_slow_client_does_not_mix_with_the_next(scene: Scene) -> None:
    await scene.start(servers=1, write_buffer_size=65536)
    a, b = await scene.client(), await scene.client()
    a.deadline_seconds = b.deadline_seconds = 20
    a.send(query("select 'a', repeat('x', 1000) from generate_series(1, 20000)"))
    await a.receive()
    b.send(query("select 'b'"))
    replies = await a.read_until("Z")
    assert {row[0] for row in replies.rows} == {"a"}
    assert len(replies.rows) == 20_000
    assert (await b.read_until("Z")).rows == [("b",)]


async def test_w58_a_client_that_never_reads_holds_one_server_and_stops_nobody_else(scene: Scene) -> None:
    """Two servers: one is stuck behind the slow client, the other serves the rest."""
    await scene.start(servers=2, write_buffer_size=65536)
    a, b = await scene.client(), await scene.client()
    a.send(query("select repeat('x', 1000) from generate_series(1, 50000)"))
    await a.receive()
    for _ in range(5):
        assert (await b.query("select 'b'")).rows == [("b",)]
    a.abort()
    b.send(query("begin; select 1"))
    assert (await b.read_until("Z")).statuses == "T"
    assert (await (await scene.client()).query("select 'c'")).rows == [("c",)]


async def test_w60_small_steps_are_not_delayed(scene: Scene) -> None:
    """Nagle and delayed acknowledgements would cost 40 ms a step."""
    a = await scene.client()
    await a.query("select 1")
    loop = asyncio.get_running_loop()
    start = loop.time()
    for _ in range(20):
        a.send(parse("select 1") + flush())
        await a.read_until("1")
        a.send(bind() + execute() + S)
        await a.read_until("Z")
    assert loop.time() - start < 20 * 0.04


async def test_w61_waiters_are_served_in_the_order_they_came(scene: Scene) -> None:
    await scene.start(servers=1)
    holder = await scene.client()
    await holder.query("begin; select 1")
    order: list[int] = []
    clients = [await scene.client() for _ in range(6)]

    async def wait(number: int) -> None:
        await clients[number].read_until("Z")
        order.append(number)

    for number, conn in enumerate(clients):
        conn.send(query(f"insert into t values ({number}, 'x')"))
        await eventually(lambda n=number: sum(p.waiting for p in scene.proxy.pools) == n + 1)  # type: ignore[misc]
    waiting = [asyncio.ensure_future(wait(number)) for number in range(6)]
    await holder.query("commit")
    await asyncio.gather(*waiting)
    rows = (await holder.query("select id from t order by ctid")).rows
    assert rows == [(str(n),) for n in range(6)]


async def test_w61_no_server_in_time(scene: Scene) -> None:
    await scene.start(servers=1, query_wait_timeout=0.2)
    a, b = await scene.client(), await scene.client()
    await a.query("begin; select 1")
    replies = await b.query("select 'b'")
    assert (replies.errors, replies.statuses) == (["53300"], "I")
    assert "H" in replies.of("E")[0].error, "the pool's numbers stand in the hint"
    replies = await b.scope(extended("select 1") + S + query("select 2"), 2)
    assert (replies.errors, replies.statuses) == (["53300", "53300"], "II")
    if (await b.query("begin")).statuses == "T":  # held back
        replies = await b.query("select 1")
        assert (replies.errors, replies.statuses) == (["53300"], "E")
        assert (await b.query("commit")).tags == ["ROLLBACK"]
    await a.query("commit")
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_w61_a_herd_opens_no_more_than_the_pool_may(scene: Scene) -> None:
    # The connection over which catalogs are read is not the pool's.
    await scene.start(servers=3, known_answers=False, eager_commit=False)
    clients = [await scene.client() for _ in range(20)]
    pids = await asyncio.gather(*(conn.value("select pg_backend_pid() from pg_sleep(0.01)") for conn in clients))
    assert 1 <= len(set(pids)) <= 3
    assert len(await scene.servers()) <= 3


async def test_w63_a_held_transaction_holds_no_server(scene: Scene) -> None:
    """Where BEGIN is held back, an idle block costs nobody a place; where it is not, others wait for its end."""
    await scene.start(servers=1, query_wait_timeout=0.5)
    a, b = await scene.client(), await scene.client()
    assert (await a.query("begin")).statuses == "T"
    replies = await b.query("select 'b'")
    assert replies.rows == [("b",)] or replies.errors == ["53300"]
    assert (await a.query("select 'a'")).statuses == "T"
    assert (await a.query("commit")).statuses == "I"
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_w64_an_origin_that_is_itself_a_pooler(fake_scene: Scene, fake: FakeOrigin) -> None:
    """Named statements vanish there between transactions; every Bind to a lost name must heal."""

    async def forgetful(session: object) -> None:
        for alive in fake.alive:
            alive.statements.clear()
        fake.sessions[0].send(backend.complete("SELECT 0"))

    fake.on("forget", forgetful)
    await fake_scene.start(servers=1)
    a = await fake_scene.client()
    await a.scope(parse("select 7", "s") + S)
    assert (await a.scope(bind("s") + execute() + S)).tags == ["SELECT 1"]
    await a.query("forget")
    assert (await a.scope(bind("s") + execute() + S)).tags == ["SELECT 1"]


@pytest.mark.parametrize("turns", range(8))
async def test_w65_clients_that_leave_at_any_turn_strand_nobody(scene: Scene, turns: int) -> None:
    """Waiting, just chosen, or running: whoever leaves, the next one is served, and by a clean server."""
    await scene.start(servers=1)
    holder, leaver, last = await scene.client(), await scene.client(), await scene.client()
    await holder.query("begin; select 1")
    leaver.send(query("begin; insert into t values (1, 'leaver'); select pg_sleep(0.01)"))
    last.send(query("select count(*) from t"))
    await eventually(lambda: sum(p.waiting for p in scene.proxy.pools) == 2)
    holder.send(query("commit"))
    for _ in range(turns):
        await asyncio.sleep(0)
    leaver.abort()
    assert (await holder.read_until("Z")).tags == ["COMMIT"]
    assert (await last.read_until("Z")).rows == [("0",)]
