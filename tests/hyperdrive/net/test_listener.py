"""Listening: addresses, shared ports, unix sockets, and a process without descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hyperdrive.errors import ConfigError
from hyperdrive.net import listener as listener_module
from hyperdrive.net.listener import Listener, listen, listen_unix, socket_path
from hyperdrive.net.transport import SocketOptions


class Clients:
    """A protocol factory that keeps what it made."""

    def __init__(self, recorder: Any) -> None:
        self.made: list[Any] = []
        self._recorder = recorder
        self.changed = asyncio.Event()

    def __call__(self) -> Any:
        protocol = self._recorder()
        self.made.append(protocol)
        self.changed.set()
        return protocol

    async def number(self, wanted: int) -> None:
        while len(self.made) < wanted:
            self.changed.clear()
            await self.changed.wait()
        for protocol in self.made:
            await protocol.until("made")

    async def leave(self) -> None:
        for protocol in self.made:
            if protocol.transport:
                protocol.transport.abort()
                await protocol.until("lost")


@pytest.fixture
async def clients(recorder: Any) -> AsyncIterator[Clients]:
    made = Clients(recorder)
    yield made
    await made.leave()


def dial(listening: Listener, index: int = 0) -> socket.socket:
    """A blocking client; the kernel answers it whether or not anyone accepts."""
    server = listening.sockets[index]
    sock = socket.socket(server.family)
    sock.connect(server.getsockname())
    return sock


async def test_clients_are_served_and_have_their_options(clients: Clients) -> None:
    listening = await listen("127.0.0.1", 0, clients, options=SocketOptions(keepalive_idle_seconds=33))
    assert listening.addresses == [f"127.0.0.1:{listening.port}"]
    with dial(listening) as client:
        await clients.number(1)
        client.sendall(b"hello")
        assert await clients.made[0].until_received(5) == b"hello"
        accepted = clients.made[0].transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33
    listening.close()
    listening.close()


async def test_several_addresses_share_one_port(clients: Clients) -> None:
    listening = await listen(["127.0.0.1", "127.0.0.2"], 0, clients)
    assert listening.addresses == [f"127.0.0.1:{listening.port}", f"127.0.0.2:{listening.port}"]
    with dial(listening, 0), dial(listening, 1):
        await clients.number(2)
    listening.close()


@pytest.mark.parametrize("host", ["", "*"])
async def test_every_interface(host: str, clients: Clients) -> None:
    listening = await listen(host, 0, clients)
    assert f"0.0.0.0:{listening.port}" in listening.addresses
    listening.close()


async def test_ipv6_addresses_are_printed_in_brackets(clients: Clients) -> None:
    try:
        listening = await listen("::1", 0, clients)
    except ConfigError:
        pytest.skip("no IPv6 here")
    assert listening.addresses == [f"[::1]:{listening.port}"]
    listening.close()


async def test_a_port_that_is_taken_is_named(clients: Clients) -> None:
    first = await listen("127.0.0.1", 0, clients)
    with pytest.raises(ConfigError, match=f"127.0.0.1:{first.port}: Address already in use"):
        await listen("127.0.0.1", first.port, clients)
    with pytest.raises(ConfigError, match='cannot listen on "no such host"'):
        await listen("no such host", 0, clients)
    first.close()


async def test_processes_may_share_a_port(clients: Clients) -> None:
    first = await listen("127.0.0.1", 0, clients, reuse_port=True)
    second = await listen("127.0.0.1", first.port, clients, reuse_port=True)
    assert first.port == second.port
    first.close()
    second.close()


async def test_a_paused_listener_leaves_clients_in_the_queue(clients: Clients) -> None:
    listening = await listen("127.0.0.1", 0, clients)
    listening.pause()
    with dial(listening):
        for _ in range(5):
            await asyncio.sleep(0)
        assert clients.made == []
        listening.resume()
        await clients.number(1)
    listening.close()


async def test_a_unix_socket_is_where_libpq_looks(tmp_path: Path, clients: Clients) -> None:
    listening = await listen_unix(str(tmp_path), 6543, clients, mode=0o700)
    path = tmp_path / ".s.PGSQL.6543"
    assert (listening.addresses, listening.port) == ([str(path)], 6543)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with dial(listening) as client:
        client.sendall(b"hello")
        await clients.number(1)
        await clients.made[0].until_received(5)
    listening.close()
    assert not path.exists()


def test_socket_paths() -> None:
    assert socket_path("/tmp/", 1) == "/tmp/.s.PGSQL.1"
    assert socket_path("@name", 2) == "\0name/.s.PGSQL.2"


async def test_a_socket_that_a_crash_left_behind_is_replaced(tmp_path: Path, clients: Clients) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(socket_path(str(tmp_path), 1))
    listening = await listen_unix(str(tmp_path), 1, clients)
    with dial(listening):
        await clients.number(1)
    with pytest.raises(ConfigError, match="in use"):  # and one that is alive is not
        await listen_unix(str(tmp_path), 1, clients)
    with dial(listening):
        pass
    listening.close()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path, clients: Clients) -> None:
    path = tmp_path / ".s.PGSQL.1"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="in use"):
        await listen_unix(str(tmp_path), 1, clients)
    assert path.read_text() == "precious"
    with pytest.raises(ConfigError, match="cannot listen"):
        await listen_unix(str(tmp_path / "missing"), 1, clients)


async def test_closing_leaves_a_successors_socket(tmp_path: Path, clients: Clients) -> None:
    path = tmp_path / ".s.PGSQL.1"
    old = await listen_unix(str(tmp_path), 1, clients)
    path.rename(tmp_path / "moved")
    new = await listen_unix(str(tmp_path), 1, clients)
    old.close()
    assert path.exists()
    new.close()
    assert not path.exists()


async def test_without_descriptors_clients_wait_and_are_served_later(
    clients: Clients, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said once in the log; nobody is hung up on, and the loop does not spin."""
    monkeypatch.setattr(listener_module, "REST_SECONDS", 0.01)
    listening = await listen("127.0.0.1", 0, clients)
    dialled = [dial(listening) for _ in range(5)]
    loop = asyncio.get_running_loop()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(name) for name in os.listdir("/dev/fd")), hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(dialled[0].fileno()))
        rested: asyncio.Future[None] = loop.create_future()
        loop.call_later(0.05, rested.set_result, None)
        await rested
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
    assert 0 < listening.exhausted_total < 20
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "they wait until there is room" in caplog.text
    await clients.number(5)
    for client in dialled:
        client.sendall(b"x")
    for protocol in clients.made:
        await protocol.until_received(1)
    for client in dialled:
        client.close()
    listening.close()


async def test_a_client_that_is_gone_before_it_is_accepted_harms_nobody(clients: Clients) -> None:
    import struct

    listening = await listen("127.0.0.1", 0, clients)
    gone = dial(listening)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()
    with dial(listening):
        await clients.number(2)
    listening.close()
