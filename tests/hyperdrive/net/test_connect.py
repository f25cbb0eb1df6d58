"""Connecting to origins that are good, bad and hostile, without PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hyperdrive.errors import OriginUnreachable
from hyperdrive.net.connect import CLIENT_TEXT, SSL_REQUEST, Address, connect
from hyperdrive.net.contexts import Negotiation, ServerContext, SslMode, TlsPolicy, server_context
from hyperdrive.net.tls import TlsTransport
from hyperdrive.testing.certs import Authority

REQUIRE = TlsPolicy(SslMode.REQUIRE)
PREFER = TlsPolicy(SslMode.PREFER)
TIMEOUT_SECONDS = 20.0


class Origin(asyncio.Protocol):
    """A server that gives *answers* to what arrives, one after the other; ``None`` hangs up, a context starts TLS."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.house.connections.append(self)
        self.house.connected.set()
        if self.house.direct:
            self.start_tls(self.house.direct)

    def data_received(self, data: bytes) -> None:
        self.house.heard.append(data)
        if not self.house.answers:
            return
        answer = self.house.answers.pop(0)
        if answer is None:
            self.transport.close()
        elif isinstance(answer, bytes):
            self.transport.write(answer)
        else:
            self.transport.write(b"S")
            self.start_tls(answer)

    def start_tls(self, context: ServerContext) -> None:
        tls = TlsTransport(
            self.transport, context, server_side=True, protocol=self, on_handshake=lambda outcome: None, alpn=None
        )
        self.transport = tls
        tls.start()

    def connection_lost(self, exc: Exception | None) -> None:
        self.house.connections.remove(self)
        self.house.left.set()


class House:
    """A listening origin: what it will answer, and what it heard."""

    def __init__(self) -> None:
        self.answers: list[bytes | ServerContext | None] = []
        self.heard: list[bytes] = []
        self.direct: ServerContext | None = None
        self.connections: list[Origin] = []
        self.connected = asyncio.Event()
        self.left = asyncio.Event()
        self.server: Any = None

    @property
    def port(self) -> int:
        return int(self.server.sockets[0].getsockname()[1])

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    async def everyone_left(self) -> None:
        while self.connections:
            self.left.clear()
            await self.left.wait()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    made.server = await asyncio.get_running_loop().create_server(lambda: Origin(made), "127.0.0.1", 0)
    yield made
    made.server.close()
    for origin in list(made.connections):
        origin.transport.abort()
    await made.everyone_left()
    await made.server.wait_closed()


@pytest.fixture
def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def context(authority: Authority) -> ServerContext:
    files = authority.server()
    return server_context(files.cert, files.key)


async def reach(factory: Callable[[], Any], *addresses: Address, **options: Any) -> Any:
    return await connect(list(addresses), factory, **{"timeout_seconds": TIMEOUT_SECONDS, **options})


async def fails(house: House, recorder: Any, tls: TlsPolicy) -> str:
    """The log's text of a connect that must not succeed, and must leave nothing open."""
    with pytest.raises(OriginUnreachable) as caught:
        await reach(recorder, house.address, tls=tls)
    assert caught.value.client_text == CLIENT_TEXT
    assert caught.value.safe_to_retry
    await house.everyone_left()
    return caught.value.log_text


async def leave(connected: Any) -> None:
    connected.transport.close()
    await connected.protocol.until("lost")


async def test_in_clear(house: House, recorder: Any) -> None:
    connected = await reach(recorder, house.address)
    assert connected.tls is None
    assert connected.protocol.transport is connected.transport
    house.answers = [b"hello"]
    connected.transport.write(b"startup")
    assert await connected.protocol.until_received(5) == b"hello"
    assert house.heard == [b"startup"]
    assert connected.transport.get_extra_info("peername") == ("127.0.0.1", house.port)
    sock = connected.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    await leave(connected)


@pytest.mark.parametrize("tls", [REQUIRE, PREFER])
async def test_with_tls(tls: TlsPolicy, house: House, recorder: Any, context: ServerContext) -> None:
    house.answers = [context, b"hello"]
    connected = await reach(recorder, house.address, tls=tls)
    assert connected.tls.version == "TLSv1.3"
    assert connected.tls.server_end_point == context.end_point
    connected.transport.write(b"startup")
    assert await connected.protocol.until_received(5) == b"hello"
    assert house.heard == [SSL_REQUEST, b"startup"]
    await leave(connected)


async def test_prefer_goes_on_in_clear_on_the_same_connection(house: House, recorder: Any) -> None:
    house.answers = [b"N", b"hello"]
    connected = await reach(recorder, house.address, tls=PREFER)
    assert connected.tls is None
    connected.transport.write(b"startup")
    assert await connected.protocol.until_received(5) == b"hello"
    assert len(house.connections) == 1
    await leave(connected)


async def test_prefer_falls_back_when_the_handshake_fails(
    house: House, recorder: Any, stranger: Authority, context: ServerContext
) -> None:
    """As in libpq: a root certificate that does not fit makes ``prefer`` go on in clear."""
    house.answers = [context]
    connected = await reach(recorder, house.address, tls=TlsPolicy(SslMode.PREFER, root_cert=stranger.root))
    assert connected.tls is None
    await leave(connected)


async def test_allow_starts_in_clear(house: House, recorder: Any) -> None:
    connected = await reach(recorder, house.address, tls=TlsPolicy(SslMode.ALLOW))
    assert (connected.tls, house.heard) == (None, [])
    await leave(connected)


async def test_require_takes_no_for_an_end(house: House, recorder: Any) -> None:
    house.answers = [b"N"]
    assert "does not support TLS, but sslmode=require" in await fails(house, recorder, REQUIRE)


@pytest.mark.parametrize("answer", [b"S", b"N"])
@pytest.mark.parametrize("tls", [REQUIRE, PREFER])
async def test_w02_bytes_behind_the_answer_are_refused(
    answer: bytes, tls: TlsPolicy, house: House, recorder: Any
) -> None:
    """CVE-2021-23222: a man in the middle may not put messages in front of what comes through TLS."""
    house.answers = [answer + b"R\0\0\0\x08\0\0\0\0"]
    assert "bytes behind the answer" in await fails(house, recorder, tls)


async def test_w02_plain_bytes_instead_of_a_handshake_are_refused(house: House, recorder: Any) -> None:
    house.answers = [b"S", b"R\0\0\0\x08\0\0\0\0" * 5]  # the second answers the ClientHello
    assert "TLS handshake" in await fails(house, recorder, REQUIRE)


@pytest.mark.parametrize("tls", [REQUIRE, PREFER])
async def test_w02_an_error_instead_of_an_answer_is_for_the_log_only(
    tls: TlsPolicy, house: House, recorder: Any
) -> None:
    """CVE-2024-10977: the text came from nobody who is known; control characters in it stay harmless."""
    house.answers = [b"E\0\0\0\x20SFATAL\0Myour \x1b[31mpassword?\0\0"]
    text = await fails(house, recorder, tls)
    assert "your \\x1b[31mpassword?" in text


async def test_other_answers_are_no_postgres(house: House, recorder: Any) -> None:
    house.answers = [b"H"]
    assert "b'H'; is that a PostgreSQL server?" in await fails(house, recorder, REQUIRE)


async def test_a_server_that_hangs_up_is_named(house: House, recorder: Any) -> None:
    house.answers = [None]
    text = await fails(house, recorder, PREFER)
    assert text == f"{house.address}: the server closed the connection unexpectedly"


async def test_a_server_that_hangs_up_in_the_handshake_is_named(house: House, recorder: Any) -> None:
    house.answers = [b"S", None]
    assert "during the TLS handshake" in await fails(house, recorder, REQUIRE)


@pytest.mark.parametrize("answers", [[], [b"S"]], ids=["no answer", "no handshake"])
async def test_silence_ends_at_the_deadline(answers: list[Any], house: House, recorder: Any) -> None:
    house.answers = answers
    with pytest.raises(OriginUnreachable) as caught:
        await reach(recorder, house.address, tls=REQUIRE, timeout_seconds=0.1)
    assert caught.value.log_text == f"{house.address}: no answer in time"
    await house.everyone_left()


async def test_a_refused_connection_names_the_host(closed_port: int, recorder: Any) -> None:
    with pytest.raises(OriginUnreachable) as caught:
        await reach(recorder, Address("127.0.0.1", closed_port))
    assert caught.value.log_text == f"127.0.0.1:{closed_port}: Connection refused"


async def test_the_next_host_is_tried(house: House, closed_port: int, recorder: Any) -> None:
    missing = Address("no-such-host.invalid")
    connected = await reach(recorder, Address("127.0.0.1", closed_port), missing, house.address)
    await leave(connected)


async def test_a_silent_host_takes_its_share_of_the_time_only(house: House, recorder: Any) -> None:
    """Of two hosts the first may use up half of the time."""
    loop = asyncio.get_running_loop()
    silent = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    first = Address("127.0.0.1", silent.sockets[0].getsockname()[1])
    house.answers = [b"N"]
    connected = await reach(recorder, first, house.address, tls=PREFER, timeout_seconds=1.0)
    await leave(connected)
    silent.close()
    await silent.wait_closed()


async def test_all_failures_are_told(closed_port: int, recorder: Any) -> None:
    with pytest.raises(OriginUnreachable) as caught:
        await reach(recorder, Address("no-such-host.invalid"), Address("127.0.0.1", closed_port), Address("a..b"))
    first, second, third = caught.value.log_text.split("; ")
    assert first.startswith("no-such-host.invalid:5432: ")
    assert second.endswith("Connection refused")
    assert third.startswith("a..b:5432: ")
    with pytest.raises(OriginUnreachable, match=CLIENT_TEXT):
        await reach(recorder)


async def test_all_addresses_of_a_name_are_tried(
    house: House, closed_port: int, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolve_to(monkeypatch, [("127.0.0.1", closed_port), ("127.0.0.1", house.port)])
    connected = await reach(recorder, Address("origin.example", 1))
    await leave(connected)
    assert asked == ["origin.example"]


async def test_names_are_resolved_at_every_connect(
    house: House, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolve_to(monkeypatch, [("127.0.0.1", house.port)])
    for _ in range(2):
        await leave(await reach(recorder, Address("origin.example", 1)))
    assert asked == ["origin.example"] * 2


async def test_failures_of_a_name_show_the_address(
    closed_port: int, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, [("127.0.0.1", closed_port)])
    with pytest.raises(OriginUnreachable) as caught:
        await reach(recorder, Address("origin.example", 1))
    assert caught.value.log_text == "origin.example:1 (127.0.0.1): Connection refused"


async def test_a_name_that_is_not_resolved_in_time(recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*args: Any, **options: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr("hyperdrive.net.connect.resolver", lambda: never)
    with pytest.raises(OriginUnreachable) as caught:
        await reach(recorder, Address("origin.example"), timeout_seconds=0.05)
    assert "not resolved in time" in caught.value.log_text


def resolve_to(monkeypatch: pytest.MonkeyPatch, found: list[tuple[str, int]]) -> list[str]:
    asked: list[str] = []

    async def resolve(host: str, port: int, **options: Any) -> Any:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in found]

    monkeypatch.setattr("hyperdrive.net.connect.resolver", lambda: resolve)
    return asked


async def test_shuffled_hosts_share_the_load(house: House, closed_port: int, recorder: Any) -> None:
    chances = random.Random(1)
    hosts = [Address("127.0.0.1", closed_port), house.address]
    first_tried = {shuffled(chances, hosts)[0].port for _ in range(20)}
    assert first_tried == {closed_port, house.port}
    for seed in range(4):
        await leave(await reach(recorder, *hosts, shuffle=random.Random(seed)))


def shuffled(chances: random.Random, hosts: list[Address]) -> list[Address]:
    copy = list(hosts)
    chances.shuffle(copy)
    return copy


async def test_a_unix_socket_has_no_tls(tmp_path: Path, house: House, recorder: Any) -> None:
    """As in libpq, where sslmode is ignored for them."""
    path = str(tmp_path / ".s.PGSQL.6000")
    server = await asyncio.get_running_loop().create_unix_server(lambda: Origin(house), path)
    address = Address(str(tmp_path), 6000)
    assert str(address) == path
    connected = await reach(recorder, address, tls=TlsPolicy(SslMode.REQUIRE))
    assert (connected.tls, house.heard) == (None, [])
    await leave(connected)
    await house.everyone_left()
    server.close()
    await server.wait_closed()


async def test_a_missing_unix_socket_is_named(tmp_path: Path, recorder: Any) -> None:
    with pytest.raises(OriginUnreachable) as caught:
        await reach(recorder, Address(str(tmp_path), 1))
    assert caught.value.log_text == f"{tmp_path}/.s.PGSQL.1: No such file or directory"


def test_addresses_are_printed_as_people_write_them() -> None:
    assert [str(Address("::1", 5)), str(Address("a.example"))] == ["[::1]:5", "a.example:5432"]


@pytest.mark.parametrize(
    ("mode", "certificate", "trusted", "works"),
    [
        (SslMode.REQUIRE, "good", "nobody", True),
        (SslMode.REQUIRE, "expired", "nobody", True),
        (SslMode.REQUIRE, "good", "stranger", False),
        (SslMode.VERIFY_CA, "good", "authority", True),
        (SslMode.VERIFY_CA, "other host", "authority", True),
        (SslMode.VERIFY_CA, "expired", "authority", False),
        (SslMode.VERIFY_CA, "good", "stranger", False),
        (SslMode.VERIFY_FULL, "good", "authority", True),
        (SslMode.VERIFY_FULL, "other host", "authority", False),
        (SslMode.VERIFY_FULL, "good", "stranger", False),
    ],
)
async def test_certificates_are_checked_as_the_mode_says(
    mode: SslMode,
    certificate: str,
    trusted: str,
    works: bool,
    authority: Authority,
    stranger: Authority,
    house: House,
    recorder: Any,
) -> None:
    files = {
        "good": authority.server,
        "expired": authority.expired,
        "other host": authority.for_another_host,
    }[certificate]()
    root = {"nobody": None, "authority": authority.root, "stranger": stranger.root}[trusted]
    house.answers = [server_context(files.cert, files.key)]
    policy = TlsPolicy(mode, root_cert=root)
    if works:
        connected = await reach(recorder, house.address, tls=policy)
        assert connected.tls is not None
        await leave(connected)
    else:
        assert "certificate verify failed" in await fails(house, recorder, policy)


async def test_the_name_is_checked_and_the_address_connected_to(
    authority: Authority, house: House, recorder: Any
) -> None:
    """``hostaddr`` beside ``host``."""
    files = authority.server("db.example")
    house.answers = [server_context(files.cert, files.key)]
    policy = TlsPolicy(SslMode.VERIFY_FULL, root_cert=authority.root)
    connected = await reach(recorder, Address("db.example", house.port, "127.0.0.1"), tls=policy)
    assert connected.tls is not None
    assert connected.tls.peer_dns_names == ("db.example",)
    await leave(connected)


async def test_direct_tls(house: House, recorder: Any, context: ServerContext) -> None:
    house.direct = context
    connected = await reach(recorder, house.address, tls=TlsPolicy(SslMode.REQUIRE, negotiation=Negotiation.DIRECT))
    assert (connected.tls.alpn, house.heard) == ("postgresql", [])
    await leave(connected)


async def test_direct_tls_needs_a_server_that_means_postgres(house: House, recorder: Any, authority: Authority) -> None:
    files = authority.server()
    house.direct = server_context(files.cert, files.key, alpn=())
    policy = TlsPolicy(SslMode.REQUIRE, negotiation=Negotiation.DIRECT)
    assert "ALPN" in await fails(house, recorder, policy)


@pytest.mark.parametrize("turns", range(12))
@pytest.mark.parametrize("tls", [None, PREFER, REQUIRE], ids=["clear", "no TLS", "TLS"])
async def test_cancelling_at_any_turn_leaves_nothing(
    turns: int, tls: TlsPolicy | None, house: House, recorder: Any, context: ServerContext
) -> None:
    """No socket stays open, and a protocol that was made hears that its connection is lost."""
    made: list[Any] = []

    def factory() -> Any:
        made.append(recorder())
        return made[-1]

    house.answers = [b"N" if tls is PREFER else context]
    task = asyncio.create_task(reach(factory, house.address, **({"tls": tls} if tls else {})))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        connected = await task
    except asyncio.CancelledError:
        pass
    else:
        connected.transport.abort()
    for protocol in made:
        await protocol.until("lost")
    await house.everyone_left()


async def test_falling_back_is_logged(
    house: House, recorder: Any, stranger: Authority, context: ServerContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hyperdrive.net")
    house.answers = [context]
    await leave(await reach(recorder, house.address, tls=TlsPolicy(SslMode.PREFER, root_cert=stranger.root)))
    assert "goes on without TLS" in caplog.text
