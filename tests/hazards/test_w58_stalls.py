"""W-58: peers that take nothing of what they are sent, or that only seem to."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys

import pytest

from hyperdrive.testing.fake_origin import FakeOrigin
from hyperdrive.testing.frontend import copy_data, copy_done, query
from hyperdrive.testing.scene import Scene, eventually
from hyperdrive.testing.wire import WireConnection

BIG = "select repeat('x', 1000) from generate_series(1, 50000)"
SOME = "select repeat('x', 1000) from generate_series(1, 12000)"
TIMEOUT = 0.4


async def client(scene: Scene) -> WireConnection:
    """A client whose kernel keeps no more for it the longer it reads; less than a segment would make it wait for probes."""
    conn = await scene.client()
    conn.deadline_seconds = 30
    sock = conn.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
    return conn


def vanish(sock: socket.socket) -> None:
    """From now on the kernel drops what comes for *sock*, as if its machine were gone: a socket filter that keeps nothing."""
    drop = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0 (linux/filter.h)
    program = struct.pack("HL", 1, ctypes.addressof(drop))
    sock.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of acknowledgements")


async def test_w58_a_client_that_never_reads_loses_its_server_at_the_deadline(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.start(servers=1, write_buffer_size=65536, client_stall_timeout=TIMEOUT, query_wait_timeout=20)
    a, b = await client(scene), await scene.client()
    b.deadline_seconds = 20
    a.send(query(BIG))
    await a.receive()
    b.send(query("select 'b'"))
    assert (await b.read_until("Z")).rows == [("b",)]
    assert scene.proxy.metrics.clients_stalled == 1
    assert "took nothing" in caplog.text
    assert len(scene.proxy.app.proxy.clients) == 1


async def test_w58_in_a_transaction_it_costs_a_rollback(scene: Scene) -> None:
    await scene.start(servers=1, write_buffer_size=65536, client_stall_timeout=TIMEOUT, query_wait_timeout=20)
    a, b = await client(scene), await scene.client()
    b.deadline_seconds = 20
    await a.query("begin; insert into t values (1, 'a')")
    a.send(query(BIG))
    await a.receive()
    b.send(query("select count(*) from t"))
    assert (await b.read_until("Z")).rows == [("0",)]


async def test_w58_a_slow_client_that_goes_on_reading_is_never_cut(scene: Scene) -> None:
    """It takes several times the timeout for its answer, and rests now and then."""
    await scene.start(servers=1, write_buffer_size=65536, client_stall_timeout=TIMEOUT)
    a = await client(scene)
    a.send(query(SOME))
    loop = asyncio.get_running_loop()
    start = loop.time()
    rows = 0
    while rows < 12_000:
        found = await a.receive()
        rows += found.kind == "D"
        if rows % 1000 == 0:
            await asyncio.sleep(TIMEOUT / 3)
    await a.read_until("Z")
    assert loop.time() - start > 2 * TIMEOUT
    assert scene.proxy.metrics.clients_stalled == 0


async def test_w58_the_kernels_own_timeout_does_not_cut_a_client_that_rests(scene: Scene) -> None:
    """TCP_USER_TIMEOUT also counts while a peer answers that it has no room (tcp_probe_timer in Linux)."""
    await scene.start(servers=1, write_buffer_size=65536, client_stall_timeout=30, tcp_user_timeout=0.5)
    a = await client(scene)
    a.send(query(SOME))
    await a.receive()
    await asyncio.sleep(2)
    assert len((await a.read_until("Z")).rows) == 12_000


async def test_w58_an_origin_that_has_no_room_for_long_is_alive(scene: Scene) -> None:
    """A COPY that waits for a lock is not read: its bytes fill the origin's buffers, which is no reason to give it up."""
    await scene.start(servers=1, write_buffer_size=65536, tcp_user_timeout=0.5)
    holder, a = await scene.direct(), await scene.client()
    a.deadline_seconds = 30
    await holder.query("begin; insert into t values (0, 'taken')")
    a.send(query("copy t from stdin"))
    await a.receive()
    a.send(copy_data(b"0\ttaken\n"))

    async def send() -> None:
        for number in range(1, 300):
            a.writer.write(copy_data(b"%d\t%0100000d\n" % (number, number)))
            await a.writer.drain()
        a.send(copy_done())

    sending = asyncio.ensure_future(send())
    await asyncio.sleep(2)
    assert not sending.done()
    await holder.query("rollback")
    await sending
    assert (await a.read_until("Z")).tags == ["COPY 300"]


@linux_only
async def test_w58_an_origin_that_is_gone_without_a_word_is_given_up(fake_scene: Scene, fake: FakeOrigin) -> None:
    await fake_scene.start(servers=1, tcp_user_timeout=0.5)
    a = await fake_scene.client()
    await a.query("select 1")
    vanish(fake.alive[0].writer.get_extra_info("socket"))
    replies = await a.query("insert into t values (1)")
    assert replies.errors == ["08007"]
    assert "tcp_user_timeout" in replies.of("E")[0].error["D"]
    assert (await a.query("select 1")).rows  # by a new connection


@linux_only
async def test_w58_a_client_that_is_gone_without_a_word_gives_its_server_back(scene: Scene) -> None:
    await scene.start(servers=1, tcp_user_timeout=0.5, query_wait_timeout=20)
    a, b = await scene.client(), await scene.client()
    b.deadline_seconds = 20
    await a.query("begin; insert into t values (1, 'a')")
    a.send(query("select pg_sleep(2)"))  # its answer finds nobody
    await asyncio.sleep(0.1)
    vanish(a.writer.get_extra_info("socket"))
    assert (await b.query("select count(*) from t")).rows == [("0",)]
    await eventually(lambda: len(scene.proxy.app.proxy.clients) == 1)
