"""W-59: TLS towards clients, with real records and with libpq, which reads them by its asynchronous interface."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from hyperdrive.net.tls import CLIENT_RECORD_BYTES
from hyperdrive.testing.certs import Authority
from hyperdrive.testing.frontend import query, ssl_request, startup
from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.proxy import RunningProxy, running_proxy

APPLICATION_DATA = 23
# What TLS 1.3 adds to a record: its true type and the tag (RFC 8446, 5.2).
OVERHEAD_BYTES = 17


@pytest.fixture
async def tls_proxy(postgres: Postgres, tmp_path: Path) -> AsyncIterator[RunningProxy]:
    files = Authority(tmp_path).server()
    async with running_proxy(
        postgres.app_url, tls_cert=files.cert, tls_key=files.key, auth_method="trust", pool_size=2
    ) as proxy:
        yield proxy


class TlsClient:
    """TLS by hand, so that the records on the wire can be measured."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        self.sizes: list[int] = []

    async def record(self) -> None:
        """Take one record in."""
        head = await self.reader.readexactly(5)
        body = await self.reader.readexactly(int.from_bytes(head[3:], "big"))
        if head[0] == APPLICATION_DATA:
            self.sizes.append(len(body))
        self.incoming.write(head + body)

    async def shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
                self.writer.write(self.outgoing.read())
                return
            except ssl.SSLWantReadError:
                self.writer.write(self.outgoing.read())
                await self.record()

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.writer.write(self.outgoing.read())

    async def read_to(self, end: bytes) -> bytes:
        data = b""
        while not data.endswith(end):
            try:
                data += self.tls.read(1 << 20)
            except ssl.SSLWantReadError:
                await self.record()
        return data


async def test_w59_no_record_towards_a_client_is_large(tls_proxy: RunningProxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", tls_proxy.port)
    try:
        async with asyncio.timeout(20):
            writer.write(ssl_request())
            assert await reader.readexactly(1) == b"S"
            client = TlsClient(reader, writer)
            await client.shake_hands()
            client.send(startup({"user": "app", "database": "app"}))
            await client.read_to(b"Z\0\0\0\x05I")
            client.sizes.clear()
            client.send(query("select repeat('x', 3000000)"))
            data = await client.read_to(b"Z\0\0\0\x05I")
    finally:
        writer.close()
        await writer.wait_closed()
    assert len(data) > 3_000_000
    assert max(client.sizes) == CLIENT_RECORD_BYTES + OVERHEAD_BYTES


ODD_SIZES = [1, 100, 8_000, *range(8_100, 8_200, 9), 16_300, 16_384, 16_400, 65_536, 1_000_000]
"""Around the sizes of records and of libpq's own buffer, of 16 KiB."""


async def test_w59_libpqs_asynchronous_interface_strands_no_byte(tls_proxy: RunningProxy) -> None:
    """psycopg asks libpq for more only when the socket says so: a row left in libpq's TLS buffer would stay there for ever."""
    async with (
        asyncio.timeout(40),
        await psycopg.AsyncConnection.connect(tls_proxy.url, sslmode="require", autocommit=True) as conn,
    ):
        assert conn.pgconn.ssl_in_use
        for size in ODD_SIZES:
            row = await (await conn.execute("select repeat('x', %s)", (size,))).fetchone()
            assert row == ("x" * size,)
        async with conn.pipeline():
            cursors = [await conn.execute("select repeat('y', %s)", (size,)) for size in ODD_SIZES]
            for size, cursor in zip(ODD_SIZES, cursors, strict=True):
                assert await cursor.fetchone() == ("y" * size,)


async def test_w59_rows_one_by_one(tls_proxy: RunningProxy) -> None:
    """Single row mode looks for a row after each read."""
    async with (
        asyncio.timeout(40),
        await psycopg.AsyncConnection.connect(tls_proxy.url, sslmode="require", autocommit=True) as conn,
    ):
        sizes = [
            len(row[0])
            async for row in conn.cursor().stream(
                "select repeat('z', n * 37 %% 9000) from generate_series(1, %s) n", (3000,)
            )
        ]
    assert sizes == [n * 37 % 9000 for n in range(1, 3001)]


async def test_w59_large_records_from_a_client_are_read_to_their_end(tls_proxy: RunningProxy) -> None:
    """The mirror: what TLS has decrypted is looked at before the next bytes are waited for."""
    async with (
        asyncio.timeout(40),
        await psycopg.AsyncConnection.connect(tls_proxy.url, sslmode="require", autocommit=True) as conn,
    ):
        for size in ODD_SIZES:
            row = await (await conn.execute("select length(%s), md5(%s)", ("v" * size, "w"))).fetchone()
            assert row is not None and row[0] == size
