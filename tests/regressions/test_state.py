"""What we remember of a session: settings, statements, a failed transaction; and how much we hold for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from hyperdrive.pool.interfaces import PoolKey
from hyperdrive.pool.settings import PoolSettings
from hyperdrive.testing import backend
from hyperdrive.testing.fake_origin import FakeOrigin
from hyperdrive.testing.frontend import bind, execute, parse, query, sync
from hyperdrive.testing.scene import Scene, eventually
from hyperdrive.testing.transcript import transcript
from hyperdrive.testing.wire import LoginFailed, WireConnection, connect

S = sync()
MIB = 1 << 20


async def both(scene: Scene) -> list[WireConnection]:
    return [await scene.direct(), await scene.client()]


async def test_each_start_up_setting_is_learned_with_its_own_value(scene: Scene) -> None:
    """The server has one of the two settings already when the second client's are learned."""
    await scene.start(servers=1)
    await scene.client(options="-c default_transaction_read_only=on")
    b = await scene.client(options="-c default_transaction_read_only=on -c enable_seqscan=off")
    assert b.parameters.get("default_transaction_read_only", "on") == "on"  # reported since 14
    show = "select current_setting('default_transaction_read_only'), current_setting('enable_seqscan')"
    assert (await b.query(show)).rows == [("on", "off")]
    c = await scene.client()
    assert (await c.query(show)).rows == [("off", "on")]
    assert (await b.query(show)).rows == [("on", "off")]


async def test_start_up_settings_with_a_role_are_learned_with_their_own_values(scene: Scene) -> None:
    """A role is set last, whatever the order of the names."""
    await scene.start(servers=1)
    a = await scene.client(options="-c work_mem=5MB -c role=pg_monitor -c timezone=Asia/Tokyo")
    b = await scene.client()
    show = "select current_user, current_setting('work_mem'), current_setting('timezone') = 'Asia/Tokyo'"
    assert (await a.query(show)).rows == [("pg_monitor", "5MB", "t")]
    assert (await b.query(show)).rows == [("postgres", "4MB", "f")]


async def test_start_up_settings_that_are_refused_leave_the_server_as_it_was(scene: Scene) -> None:
    await scene.start(servers=1)
    with pytest.raises(LoginFailed, match="22023"):
        await scene.client(options="-c work_mem=6MB -c zero_damaged_pages=maybe")
    a = await scene.client()
    assert await a.value("show work_mem") == "4MB"


async def test_databases_that_do_not_exist_are_not_remembered(fake: FakeOrigin, fake_scene: Scene) -> None:
    proxy = await fake_scene.start(servers=1)
    await fake_scene.client()
    fake.refusal = backend.error("3D000", "no such database", "FATAL")
    for number in range(20):
        with pytest.raises(LoginFailed, match="3D000"):
            await connect(f"{proxy.url.rpartition('/')[0]}/none{number}")
    await eventually(lambda: (len(proxy.app.proxy.contexts()), len(proxy.pools)) == (1, 1))


async def test_a_refusal_that_may_pass_is_remembered(fake: FakeOrigin, fake_scene: Scene) -> None:
    """The pool has to know when to try again."""
    await fake_scene.start(servers=1, query_wait_timeout=0.2)
    fake.refusal = backend.error("53300", "sorry, too many clients already", "FATAL")
    with pytest.raises(LoginFailed):
        await connect(f"{fake_scene.proxy.url.rpartition('/')[0]}/busy")
    assert [key for key in (pool.key for pool in fake_scene.proxy.pools) if key.database == "busy"]


async def test_the_context_of_a_pool_that_was_removed_goes_with_it(fake_scene: Scene) -> None:
    proxy = await fake_scene.start(servers=1)
    url = f"{proxy.url.rpartition('/')[0]}/other"
    async with await connect(url) as conn:
        await conn.query("select 1")
    key = PoolKey("other", "app")
    await eventually(lambda: not proxy.app.proxy.clients)
    proxy.pools.change(lambda _: PoolSettings(unused_pool_timeout=1e-9))
    await eventually(lambda: proxy.pools.sweep() or proxy.pools.find(key) is None)
    proxy.app.proxy.forget_unused()
    assert key not in {context.pool.key for context in proxy.app.proxy.contexts()}
    async with await connect(url) as conn:
        assert (await conn.query("select 1")).errors == []


async def test_reset_all_in_a_failed_transaction_with_start_up_settings(scene: Scene) -> None:
    c = await scene.client(options="-c work_mem=5MB")
    await c.query("begin")
    await c.query("selec")
    assert (await c.query("reset all")).errors == ["25P02"]
    assert (await c.query("rollback")).tags == ["ROLLBACK"]
    await c.query("begin")
    assert (await c.query("reset work_mem")).tags == ["RESET"]
    assert await c.value("show work_mem") == "5MB"
    await c.query("rollback")
    assert await c.value("show work_mem") == "5MB"


async def test_sql_execute_of_a_statement_that_the_protocol_prepared(scene: Scene) -> None:
    said = []
    for conn in await both(scene):
        lines = []
        for data in (
            parse("select 1", "s1") + S,
            query("execute s1"),
            query("deallocate s1"),
            parse("select 2", "s1") + S,
            query("begin"),
            query("selec"),
            query("execute s1"),
            query("rollback"),
            bind("s1") + execute() + S,
        ):
            lines += transcript(await conn.scope(data))
        said.append(lines)
    assert said[0] == said[1]


async def test_a_prepared_rollback_ends_a_transaction_whose_server_was_lost(scene: Scene) -> None:
    await scene.start(servers=1)
    a = await scene.client()
    await a.scope(parse("rollback", "rb") + S)
    await a.query("begin; select 1")
    pid = await a.value("select pg_backend_pid()")
    await scene.sql(f"select pg_terminate_backend({pid})")
    assert (await a.query("select 1")).errors[:1] == ["08006"]
    replies = await a.scope(bind("rb") + execute() + S)
    assert replies.errors == []
    assert replies.statuses == "I"
    assert (await a.query("select 2")).rows == [("2",)]


@pytest.mark.parametrize("level", ["exception", "notice"])
async def test_messages_of_megabytes_come_through(scene: Scene, level: str) -> None:
    said = []
    for conn in await both(scene):
        said.append(await conn.query(f"do $$ begin raise {level} '%', repeat('x', 3000000); end $$"))
    assert [[(m.kind, len(m.body)) for m in replies] for replies in said[:1]] == [
        [(m.kind, len(m.body)) for m in replies] for replies in said[1:]
    ]


async def test_currval_pipelined_behind_begin(scene: Scene) -> None:
    await scene.start(servers=1)
    a = await scene.client()
    sql = ("begin", "select nextval('s')", "select currval('s')", "commit")
    replies = await a.scope(b"".join(map(query, sql)), 4)
    assert replies.errors == []
    assert replies.rows == [("1",), ("1",)]


def held(scene: Scene) -> list[int]:
    """Bytes held for each client that waits."""
    return [
        sum(len(op[1]) for op in client.session.ops)
        for client in scene.proxy.app.proxy.clients.values()
        if client.waiting
    ]


async def pour(conn: WireConnection, data: bytes) -> None:
    for at in range(0, len(data), 65536):
        conn.writer.write(data[at : at + 65536])
        await conn.writer.drain()


async def settled(read: Callable[[], int]) -> int:
    """What *read* gives once it has not changed for a while."""
    last, same = -1, 0
    while same < 10:
        now = read()
        same = same + 1 if now == last else 0
        last = now
        await asyncio.sleep(0.02)
    return last


async def test_a_long_bind_that_waits_for_a_server_is_not_read_to_its_end(scene: Scene) -> None:
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    await a.query("begin; select 1")
    pouring = asyncio.ensure_future(pour(b, parse("select length($1)") + bind("", ["x" * (32 * MIB)]) + execute() + S))
    await eventually(lambda: held(scene) and held(scene)[0] > 0)
    assert await settled(lambda: sum(held(scene))) < 2 * MIB
    await a.query("commit")
    assert (await b.read_until("Z")).rows == [(str(32 * MIB),)]
    await pouring


async def test_a_long_bind_behind_a_lock_is_not_read_to_its_end(scene: Scene) -> None:
    """It waits for a server first; then the origin, which waits for the lock, does not read either."""
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    await a.query("begin; select 1")
    d = await scene.direct()
    await d.query("begin; lock table t")
    data = query("insert into t values (1, 'x')") + parse("select length($1)") + bind("", ["x" * (32 * MIB)])
    pouring = asyncio.ensure_future(pour(b, data + execute() + S))
    await eventually(lambda: held(scene) and held(scene)[0] > 0)
    await settled(lambda: sum(held(scene)))
    await a.query("commit")
    await eventually(lambda: scene.is_waiting("relation"))

    def buffered() -> int:
        clients = scene.proxy.app.proxy.clients.values()
        return sum(client.server.transport.get_write_buffer_size() for client in clients if client.server)

    assert await settled(buffered) < 3 * MIB
    await d.query("rollback")
    assert (await b.read_until("Z", 2)).rows == [(str(32 * MIB),)]
    await pouring


async def test_answers_of_our_own_that_nobody_reads_are_bounded(scene: Scene) -> None:
    a = await scene.client()
    a.writer.transport.pause_reading()
    (client,) = scene.proxy.app.proxy.clients.values()
    # Small buffers in the kernel, so that few answers are enough.
    a.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pouring = asyncio.ensure_future(pour(a, query("deallocate all") * 100_000))
    await eventually(lambda: client.transport.get_write_buffer_size() > 0)
    assert await settled(client.transport.get_write_buffer_size) < MIB
    pouring.cancel()
    a.abort()
