"""Our TLS layer against the standard library's: in memory byte by byte, and over real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from hyperdrive.errors import HyperdriveError, OriginLost, OriginUnreachable, ProtocolViolation
from hyperdrive.net.contexts import ClientCertificates, ServerContext, SslMode, TlsPolicy, server_context
from hyperdrive.net.tls import CLIENT_RECORD_BYTES, TlsInfo, TlsTransport
from hyperdrive.net.transport import Transport
from hyperdrive.testing.certs import Authority, CertificateFiles


class Wire:
    """A raw transport in memory: what is written is kept."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = self.aborted = self.paused = False
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(bytes(data))

    def writelines(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self.write(piece)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 17

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 5432)}.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def take(self) -> bytes:
        data, self.written = b"".join(self.written), []
        return data


class Peer:
    """The standard library's side of a connection in memory."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side, server_hostname)
        self.is_ready = False

    def step(self, data: bytes) -> bytes:
        """Take *data* during the handshake; returns what to send."""
        self.incoming.write(data)
        if not self.is_ready:
            try:
                self.tls.do_handshake()
                self.is_ready = True
            except ssl.SSLWantReadError:
                pass
        return self.outgoing.read()

    def read_all(self, data: bytes) -> list[bytes]:
        """The plain text of each record in *data*."""
        self.incoming.write(data)
        records = []
        while True:
            try:
                record = self.tls.read(1 << 20)
            except ssl.SSLWantReadError:
                return records
            if not record:
                return [*records, b""]
            records.append(record)

    def encrypt(self, data: bytes) -> bytes:
        out = b""
        while data:
            data = data[self.tls.write(data) :]
            out += self.outgoing.read()
        return out


class Pair:
    """A ``TlsTransport`` in one role and a ``Peer`` in the other, with a recorder above."""

    def __init__(self, transport: TlsTransport, wire: Wire, peer: Peer, above: Any, outcomes: list[Any]) -> None:
        self.transport, self.wire, self.peer, self.above, self.outcomes = transport, wire, peer, above, outcomes

    def shake_hands(self, *, piece_bytes: int = 1 << 20, first: bytes = b"") -> None:
        self.transport.start(first)
        to_us = self.peer.step(self.wire.take()) if not first else b""
        while to_us or self.wire.written:
            for part in cut(to_us, piece_bytes):
                self.wire.protocol.data_received(part)
            to_us = self.peer.step(self.wire.take())
            if self.wire.closed:
                return


def cut(data: bytes, piece_bytes: int) -> Iterator[bytes]:
    return (data[start : start + piece_bytes] for start in range(0, len(data), piece_bytes))


@pytest.fixture(scope="module")
def server_files(authority: Authority) -> CertificateFiles:
    return authority.server()


@pytest.fixture(params=["server", "client"])
def pair(request: pytest.FixtureRequest, authority: Authority, server_files: CertificateFiles, recorder: Any) -> Pair:
    """Both roles of ours, one after the other."""
    return make_pair(request.param, authority, server_files, recorder())


def make_pair(role: str, authority: Authority, files: CertificateFiles, above: Any, **options: Any) -> Pair:
    wire, outcomes = Wire(), []
    serving = server_context(files.cert, files.key)
    asking = TlsPolicy(SslMode.VERIFY_FULL, root_cert=authority.root).context
    we_serve = role == "server"
    transport = TlsTransport(
        wire,
        serving if we_serve else asking,
        server_side=we_serve,
        server_hostname=None if we_serve else "localhost",
        protocol=above,
        on_handshake=outcomes.append,
        **options,
    )
    peer = Peer(
        asking if we_serve else serving, server_side=not we_serve, server_hostname="localhost" if we_serve else None
    )
    return Pair(transport, wire, peer, above, outcomes)


def start_of(pair: Pair) -> None:
    pair.shake_hands()
    assert len(pair.outcomes) == 1, pair.outcomes
    assert isinstance(pair.outcomes[0], TlsInfo), pair.outcomes


async def test_it_is_a_transport(pair: Pair) -> None:
    assert isinstance(pair.transport, Transport)
    pair.transport.set_write_buffer_limits(high=10, low=5)
    assert (pair.wire.limits, pair.transport.get_write_buffer_size()) == ((10, 5), 17)
    assert pair.transport.get_extra_info("peername") == ("192.0.2.1", 5432)
    assert pair.transport.get_protocol() is pair.above


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
async def test_the_handshake_does_not_depend_on_how_bytes_arrive(pair: Pair, piece_bytes: int) -> None:
    pair.shake_hands(piece_bytes=piece_bytes)
    (info,) = pair.outcomes
    assert info == pair.transport.get_extra_info("tls_info")
    assert (info.version, info.alpn, pair.above.events) == ("TLSv1.3", "postgresql", [])
    for part in cut(pair.peer.encrypt(b"hello" * 5000), piece_bytes):
        pair.transport.feed(part)
    assert pair.above.received == b"hello" * 5000


async def test_large_data_goes_both_ways_unchanged(pair: Pair) -> None:
    start_of(pair)
    data = bytes(range(256)) * 4000
    pair.transport.write(data)
    assert b"".join(pair.peer.read_all(pair.wire.take())) == data
    pair.transport.writelines([data[:10], memoryview(data)[10:20], bytearray(data[20:])])
    assert b"".join(pair.peer.read_all(pair.wire.take())) == data
    pair.transport.feed(pair.peer.encrypt(data))  # far more than uvloop reads at once
    assert (pair.above.received, pair.above.events) == (data, ["data"])


async def test_w59_records_towards_clients_are_small(
    authority: Authority, server_files: CertificateFiles, recorder: Any
) -> None:
    """libpq's asynchronous interface may leave bytes of larger records unread until the next ones come."""
    pair = make_pair("server", authority, server_files, recorder())
    start_of(pair)
    pair.transport.write(b"x" * 100_000)
    sizes = [len(record) for record in pair.peer.read_all(pair.wire.take())]
    assert max(sizes) == CLIENT_RECORD_BYTES
    assert sum(sizes) == 100_000


async def test_all_that_arrived_is_delivered_at_once(pair: Pair) -> None:
    """No decrypted byte waits for the next one from the network (W-59's mirror)."""
    start_of(pair)
    pair.transport.feed(b"".join(pair.peer.encrypt(bytes([n]) * 100) for n in range(50)))
    assert len(pair.above.received) == 5000
    assert pair.above.events == ["data"]


async def test_data_that_comes_with_the_end_of_the_handshake_follows_it(
    authority: Authority, server_files: CertificateFiles, recorder: Any
) -> None:
    above = recorder()
    pair = make_pair("server", authority, server_files, above)
    pair.transport.start()
    pair.transport.feed(pair.peer.step(b""))
    finished = pair.peer.step(pair.wire.take())
    pair.transport.feed(finished + pair.peer.encrypt(b"startup"))
    assert isinstance(pair.outcomes[0], TlsInfo)
    assert above.received == b"startup"


async def test_reading_that_is_paused_in_the_handshake_callback_holds_data_back(
    authority: Authority, server_files: CertificateFiles, recorder: Any
) -> None:
    above = recorder()
    pair = make_pair("server", authority, server_files, above)
    pair.transport._on_handshake = lambda outcome: pair.transport.pause_reading()
    pair.transport.start()
    pair.transport.feed(pair.peer.step(b""))
    pair.transport.feed(pair.peer.step(pair.wire.take()) + pair.peer.encrypt(b"one"))
    pair.transport.feed(pair.peer.encrypt(b"two"))  # was under way
    pair.transport.eof_received()
    assert (above.received, above.events, pair.wire.paused) == (b"", [], True)
    pair.transport.resume_reading()
    assert above.events == []  # not from inside the call
    await asyncio.sleep(0)
    assert (above.received, above.events, pair.wire.paused) == (b"onetwo", ["data", "eof"], False)


async def test_direct_tls_takes_the_first_bytes_that_were_read_already(
    authority: Authority, server_files: CertificateFiles, recorder: Any
) -> None:
    pair = make_pair("server", authority, server_files, recorder(), alpn="postgresql")
    pair.shake_hands(first=pair.peer.step(b""))
    assert isinstance(pair.outcomes[0], TlsInfo)


@pytest.mark.parametrize("role", ["server", "client"])
async def test_direct_tls_needs_the_protocol_name(
    role: str, authority: Authority, server_files: CertificateFiles, recorder: Any
) -> None:
    """Without ALPN a TLS client of another protocol could be led to us (protocol-flow#PROTOCOL-FLOW-SSL)."""
    pair = make_pair(role, authority, server_files, recorder(), alpn="something else")
    pair.shake_hands()
    (error,) = pair.outcomes
    assert "ALPN" in error.log_text
    assert pair.wire.closed


async def test_writing_before_the_handshake_puts_nothing_on_the_wire(pair: Pair) -> None:
    pair.transport.start()
    before = list(pair.wire.written)
    pair.transport.write(b"secret")
    assert pair.wire.written == before
    pair.transport.close()
    assert (pair.wire.closed, pair.outcomes) == (True, [])


async def test_closing_sends_close_notify(pair: Pair) -> None:
    start_of(pair)
    pair.transport.write(b"last")
    pair.transport.close()
    assert pair.transport.is_closing()
    assert pair.peer.read_all(pair.wire.take()) == [b"last", b""]
    pair.transport.write(b"too late")
    pair.transport.feed(b"ignored")
    pair.transport.connection_lost(None)
    assert (pair.above.events, pair.above.lost_with) == (["lost"], None)


async def test_aborting_sends_nothing(pair: Pair) -> None:
    start_of(pair)
    pair.wire.take()
    pair.transport.abort()
    assert (pair.wire.written, pair.wire.aborted) == ([], True)


@pytest.mark.parametrize("stays", [False, True])
async def test_the_peers_close_notify_is_the_end_of_the_stream(
    stays: bool, authority: Authority, server_files: CertificateFiles, recorder: Any
) -> None:
    above = recorder(keeps_open_at_eof=stays)
    pair = make_pair("server", authority, server_files, above)
    start_of(pair)
    goodbye = pair.peer.encrypt(b"bye")
    with pytest.raises(ssl.SSLWantReadError):
        pair.peer.tls.unwrap()
    pair.transport.feed(goodbye + pair.peer.outgoing.read())
    assert (above.events, pair.wire.closed) == (["data", "eof"], not stays)


async def test_a_damaged_record_ends_the_connection_after_what_was_good(pair: Pair) -> None:
    start_of(pair)
    good, bad = pair.peer.encrypt(b"good"), bytearray(pair.peer.encrypt(b"bad"))
    bad[-1] ^= 1
    pair.transport.feed(good + bad)
    assert (pair.above.received, pair.wire.closed) == (b"good", True)
    pair.transport.connection_lost(None)
    assert isinstance(pair.above.lost_with, (ProtocolViolation, OriginLost))
    assert len(pair.outcomes) == 1


async def test_w02_plain_text_instead_of_tls_is_refused(pair: Pair) -> None:
    """A message in clear behind the switch is no TLS record, and is never read as a message."""
    pair.transport.start()
    pair.transport.feed(b"\x00\x00\x00\x21\x00\x03\x00\x00user\0postgres\0\0" * 10)
    (error,) = pair.outcomes
    assert isinstance(error, (ProtocolViolation, OriginUnreachable))
    assert (pair.wire.closed, pair.above.received) == (True, b"")
    pair.transport.connection_lost(None)
    assert (pair.above.events, pair.above.lost_with) == (["lost"], error)
    assert len(pair.outcomes) == 1


async def test_a_peer_that_leaves_during_the_handshake_is_reported_once(pair: Pair) -> None:
    pair.transport.start()
    pair.transport.eof_received()
    pair.transport.connection_lost(None)
    (error,) = pair.outcomes
    assert "during the TLS handshake" in error.log_text
    pair.transport.connection_lost(None)


async def test_a_connection_lost_during_the_handshake_is_reported(pair: Pair) -> None:
    pair.transport.start()
    pair.transport.connection_lost(ConnectionResetError(104, "reset"))
    (error,) = pair.outcomes
    assert isinstance(error, HyperdriveError)
    assert "reset" in error.log_text


async def test_back_pressure_passes_through(pair: Pair) -> None:
    start_of(pair)
    pair.transport.pause_writing()
    pair.transport.resume_writing()
    assert pair.above.events == ["pause", "resume"]


async def test_renegotiation_and_old_versions_are_off(server_files: CertificateFiles) -> None:
    for context in (server_context(server_files.cert, server_files.key), TlsPolicy(SslMode.REQUIRE).context):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION


async def test_tls_1_2_works_too(authority: Authority, server_files: CertificateFiles, recorder: Any) -> None:
    above, wire, outcomes = recorder(), Wire(), []
    serving = server_context(server_files.cert, server_files.key, max_version="TLSv1.2")
    transport = TlsTransport(wire, serving, server_side=True, protocol=above, on_handshake=outcomes.append)
    peer = Peer(TlsPolicy(SslMode.VERIFY_CA, root_cert=authority.root).context, server_side=False)
    Pair(transport, wire, peer, above, outcomes).shake_hands()
    assert outcomes[0].version == "TLSv1.2"


@pytest.mark.parametrize("wanted", ClientCertificates)
@pytest.mark.parametrize("shown", ["none", "good", "stranger's"])
async def test_client_certificates(
    wanted: ClientCertificates,
    shown: str,
    authority: Authority,
    stranger: Authority,
    server_files: CertificateFiles,
    recorder: Any,
) -> None:
    """As in PostgreSQL a certificate that is shown must be good, even where none is needed."""
    files = {"none": None, "good": authority.client("alice"), "stranger's": stranger.client("mallory")}[shown]
    serving = server_context(server_files.cert, server_files.key, client_ca=authority.root, client_certificates=wanted)
    asking = TlsPolicy(SslMode.REQUIRE, cert=files.cert if files else None, key=files.key if files else None).context
    above, wire, outcomes = recorder(), Wire(), []
    transport = TlsTransport(wire, serving, server_side=True, protocol=above, on_handshake=outcomes.append)
    Pair(transport, wire, Peer(asking, server_side=False), above, outcomes).shake_hands()
    (outcome,) = outcomes
    if wanted is ClientCertificates.IGNORE or (shown == "none" and wanted is ClientCertificates.OPTIONAL):
        assert outcome.peer_common_name is None
    elif shown == "good":
        assert outcome.peer_common_name == "alice"
        assert "commonName=alice" in outcome.peer_subject
    else:
        assert isinstance(outcome, ProtocolViolation)


async def test_both_sides_agree_on_the_channel_binding(
    authority: Authority, server_files: CertificateFiles, recorder: Any
) -> None:
    infos = []
    for role in ("server", "client"):
        pair = make_pair(role, authority, server_files, recorder())
        start_of(pair)
        infos.append(pair.outcomes[0])
    assert infos[0].server_end_point
    assert infos[0].server_end_point == infos[1].server_end_point
    assert infos[1].peer_dns_names == ("localhost",)


async def echo_server(context: ServerContext) -> asyncio.Server:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    return await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)


async def test_back_pressure_both_ways_with_asyncios_own_tls(
    authority: Authority, server_files: CertificateFiles, recorder: Any
) -> None:
    """Ten megabytes are echoed while the reader is paused half of the time; buffers stay bounded."""
    server = await echo_server(server_context(server_files.cert, server_files.key))
    above = recorder()
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    raw, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname()[:2])
    transport = TlsTransport(
        raw,
        TlsPolicy(SslMode.VERIFY_FULL, root_cert=authority.root).context,
        server_side=False,
        server_hostname="localhost",
        protocol=above,
        on_handshake=done.set_result,
    )
    transport.start()
    assert isinstance(await done, TlsInfo)
    transport.set_write_buffer_limits(high=256 * 1024)
    total, piece = 10_000_000, b"0123456789" * 10_000
    transport.pause_reading()
    sent = 0
    while sent < total:
        if above.events[-1:] == ["pause"]:
            assert transport.get_write_buffer_size() < 512 * 1024
            transport.resume_reading()
            await above.until("resume")
            above.events.clear()
            transport.pause_reading()
        transport.write(piece)
        sent += len(piece)
        await asyncio.sleep(0)
    transport.resume_reading()
    assert await above.until_received(total) == piece * (total // len(piece))
    transport.close()
    await above.until("lost")
    server.close()
    await server.wait_closed()


async def test_asyncios_own_tls_as_the_client(
    authority: Authority, server_files: CertificateFiles, recorder: Any
) -> None:
    context = server_context(server_files.cert, server_files.key)
    loop = asyncio.get_running_loop()
    above = recorder()

    ours: list[TlsTransport] = []

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            ours.append(
                TlsTransport(transport, context, server_side=True, protocol=above, on_handshake=lambda outcome: None)
            )
            ours[0].start()

    server = await loop.create_server(Accepted, "127.0.0.1", 0)
    asking = TlsPolicy(SslMode.VERIFY_FULL, root_cert=authority.root).context
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname()[:2], ssl=asking, server_hostname="localhost"
    )
    writer.write(b"ping")
    await above.until_received(4)
    ours[0].write(b"p" * 300_000)
    assert await reader.readexactly(300_000) == b"p" * 300_000
    ours[0].close()
    assert await reader.read() == b""
    writer.close()
    await above.until("lost")
    server.close()
    await server.wait_closed()
