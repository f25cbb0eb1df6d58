"""A raw client, for tests that must say exactly which bytes travel and see exactly which come back.

``WireConnection`` logs in, sends any bytes (``hyperdrive.testing.frontend`` builds them) and reads single messages. Every wait
has a deadline, and a failure shows the conversation so far in libpq's trace format. It shares nothing with the code under test.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import os
import socket
import ssl
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import parse_qsl, unquote, urlsplit

from hyperdrive.pgwire.trace import trace_message
from hyperdrive.testing.frontend import (
    PROTOCOL_3_0,
    cancel_request,
    cstring,
    message,
    query,
    ssl_request,
    startup,
    terminate,
)
from hyperdrive.testing.transcript import Message, Replies

DEADLINE_SECONDS = 5.0


class ConnectionClosed(Exception):
    """The peer closed the connection, where a message was awaited."""


class LoginFailed(Exception):
    """The server answered the start-up with an ErrorResponse, which is in *replies*."""

    def __init__(self, replies: Replies) -> None:
        super().__init__(str(replies))
        self.replies = replies


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says, with libpq's meaning of ``host`` and ``port`` in the query part."""

    host: str
    port: int
    user: str
    password: str | None
    database: str
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, url: str) -> Address:
        parts = urlsplit(url)
        # A socket directory travels either percent-encoded in the host part or as ?host=.
        raw_host = parts.netloc.rpartition("@")[2].rpartition(":")[0] or parts.netloc.rpartition("@")[2]
        options = dict(parse_qsl(parts.query))
        host = options.pop("host", None) or unquote(raw_host).strip("[]") or "127.0.0.1"
        port = int(options.pop("port", 0) or parts.port or 5432)
        user = unquote(parts.username or options.pop("user", "") or "postgres")
        password = unquote(parts.password) if parts.password is not None else options.pop("password", None)
        known = {k: v for k, v in options.items() if k in ("options", "application_name", "client_encoding")}
        return cls(host, port, user, password, unquote(parts.path.lstrip("/")) or user, tuple(known.items()))

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.host.startswith("/"):
            return await asyncio.open_unix_connection(f"{self.host}/.s.PGSQL.{self.port}")
        return await asyncio.open_connection(self.host, self.port)


class WireConnection:
    """One connection and what was said on it. Use as an async context manager; leaving it closes without ``X``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: Address) -> None:
        self.reader, self.writer, self.address = reader, writer, address
        self.log: list[str] = []
        self.parameters: dict[str, str] = {}
        self.pid = 0
        self.secret = b""
        self.welcome = Replies()
        self.deadline_seconds = DEADLINE_SECONDS

    async def __aenter__(self) -> WireConnection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is not None and self.log:
            exc.add_note(self.conversation())
        await self.close()

    def conversation(self, last: int = 60) -> str:
        """The last lines of the trace."""
        return f"-- {self.address.host}:{self.address.port} --\n" + "\n".join(self.log[-last:])

    # ------------------------------------------------------------------ sending

    def send(self, data: bytes) -> None:
        """Write *data* whole; nothing waits."""
        self._note_sent(data)
        self.writer.write(data)

    async def send_cut(self, data: bytes, cuts: Sequence[int]) -> None:
        """Write *data* in pieces that end at *cuts*, each in its own turn of the loop and its own system call."""
        self._note_sent(data)
        edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
        for start, end in itertools.pairwise(edges):
            self.writer.write(data[start:end])
            await self.writer.drain()
            await asyncio.sleep(0)

    def _note_sent(self, data: bytes) -> None:
        at = 0
        while at + 5 <= len(data):
            length = int.from_bytes(data[at + 1 : at + 5], "big")
            if length < 4 or at + 1 + length > len(data):
                break
            self.log.append(trace_message("F", chr(data[at]), bytes(data[at + 5 : at + 1 + length])))
            at += 1 + length
        if at < len(data):
            self.log.append(f"F\t-\traw\t {data[at : at + 64].hex()}{'…' if len(data) - at > 64 else ''}")

    # ------------------------------------------------------------------ reading

    async def receive(self) -> Message:
        """Read one message.

        Raises:
            ConnectionClosed: the peer closed first.
            TimeoutError: nothing came within ``deadline_seconds``.
        """
        try:
            async with asyncio.timeout(self.deadline_seconds):
                head = await self.reader.readexactly(5)
                length = int.from_bytes(head[1:], "big")
                if length < 4:
                    raise AssertionError(f"bad length {length} of {head!r}")
                body = await self.reader.readexactly(length - 4)
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            self.log.append("B\t-\t(closed)")
            partial = exc.partial if isinstance(exc, asyncio.IncompleteReadError) else b""
            raise ConnectionClosed(f"closed; left over: {partial!r}") from exc
        except TimeoutError:
            self.log.append("B\t-\t(nothing came)")
            raise
        got = Message(chr(head[0]), body)
        self.log.append(trace_message("B", got.kind, body))
        return got

    async def read_until(self, kinds: str, times: int = 1) -> Replies:
        """Read up to and including the *times*-th message whose letter is in *kinds*."""
        replies = Replies()
        while times > 0:
            replies.append(await self.receive())
            if replies[-1].kind in kinds:
                times -= 1
        return replies

    async def scope(self, data: bytes, ready: int = 1) -> Replies:
        """Send *data* and read until *ready* ReadyForQuery have come."""
        self.send(data)
        return await self.read_until("Z", ready)

    async def query(self, sql: str) -> Replies:
        """A simple query and its whole answer."""
        return await self.scope(query(sql))

    async def value(self, sql: str) -> str | None:
        """The single value that *sql* returns."""
        replies = await self.query(sql)
        assert len(replies.rows) == 1, replies
        return replies.rows[0][0]

    async def read_to_end(self) -> Replies:
        """Read until the peer closes."""
        replies = Replies()
        while True:
            try:
                replies.append(await self.receive())
            except ConnectionClosed:
                return replies

    async def is_silent(self, seconds: float = 0.1) -> bool:
        """Nothing arrives for *seconds*; what does arrive stays unread in the conversation's trace."""
        try:
            async with asyncio.timeout(seconds):
                byte = await self.reader.read(1)
        except TimeoutError:
            return True
        self.log.append(f"B\t-\tunexpected\t {byte!r}")
        return False

    # ------------------------------------------------------------------ start and end

    async def login(self, parameters: Mapping[str, str] | None = None, version: int = PROTOCOL_3_0) -> Replies:
        """Send StartupMessage, authenticate and read to the first ReadyForQuery; returns all that came.

        Raises:
            LoginFailed: with the server's ErrorResponse.
        """
        values = {"user": self.address.user, "database": self.address.database, **dict(self.address.parameters)}
        values.update(parameters or {})
        data = startup({k: v for k, v in values.items() if v is not None}, version)
        self.log.append(f"F\t{len(data)}\tStartupMessage\t {version >> 16}.{version & 0xFFFF} {values}")
        self.writer.write(data)
        replies = self.welcome = Replies()
        scram: _Scram | None = None
        while True:
            got = await self.receive()
            replies.append(got)
            if got.kind == "E":
                raise LoginFailed(replies)
            if got.kind == "R":
                scram = self._authenticate(got.body, scram)
            elif got.kind == "S":
                name, value, _ = got.body.split(b"\0")
                self.parameters[name.decode()] = value.decode()
            elif got.kind == "K":
                self.pid = int.from_bytes(got.body[:4], "big")
                self.secret = got.body[4:]
            elif got.kind == "Z":
                return replies

    def _authenticate(self, body: bytes, scram: _Scram | None) -> _Scram | None:
        code, rest = int.from_bytes(body[:4], "big"), body[4:]
        password = self.address.password or ""
        if code == 3:
            self.send(message("p", cstring(password)))
        elif code == 5:
            inner = hashlib.md5(password.encode() + self.address.user.encode()).hexdigest()
            self.send(message("p", cstring("md5" + hashlib.md5(inner.encode() + rest).hexdigest())))
        elif code == 10:
            assert b"SCRAM-SHA-256\0" in rest, rest
            scram = _Scram(password)
            first = scram.first()
            self.send(message("p", cstring("SCRAM-SHA-256") + struct.pack("!i", len(first)) + first))
        elif code == 11:
            assert scram is not None
            self.send(message("p", scram.final(rest)))
        elif code == 12:
            assert scram is not None
            scram.verify(rest)
        elif code != 0:
            raise AssertionError(f"authentication {code} is not known here")
        return scram

    async def start_tls(self, context: ssl.SSLContext) -> bytes:
        """Send SSLRequest; on ``S`` continue under TLS. Returns the byte that came."""
        self.writer.write(ssl_request())
        answer = await asyncio.wait_for(self.reader.readexactly(1), self.deadline_seconds)
        if answer == b"S":
            await self.writer.start_tls(context, server_hostname=self.address.host)
        return answer

    async def cancel(self) -> bytes:
        """Send CancelRequest on a connection of its own; returns what came back before the close (must be nothing)."""
        reader, writer = await self.address.open()
        try:
            writer.write(cancel_request(self.pid, self.secret))
            async with asyncio.timeout(self.deadline_seconds):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            await _shut(writer)

    async def terminate(self) -> None:
        """Leave as a client should: ``X``, then close."""
        self.send(terminate())
        await self.close()

    async def close(self) -> None:
        await _shut(self.writer)

    def abort(self) -> None:
        """Break the connection with RST, as a killed program with unread data does."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def _shut(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(2.0):
            await writer.wait_closed()
    except (OSError, TimeoutError, ssl.SSLError):
        writer.transport.abort()


async def open_wire(url: str) -> WireConnection:
    """Connect without a word; the caller starts with whatever bytes it likes."""
    address = Address.of(url)
    reader, writer = await address.open()
    return WireConnection(reader, writer, address)


async def connect(url: str, *, version: int = PROTOCOL_3_0, **parameters: str) -> WireConnection:
    """Connect and log in; *parameters* go into the StartupMessage.

    Raises:
        LoginFailed: the server refused.
    """
    conn = await open_wire(url)
    try:
        await conn.login(parameters, version)
    except BaseException:
        await conn.close()
        raise
    return conn


class _Scram:
    """The client's half of SCRAM-SHA-256 without channel binding (RFC 5802, sasl-authentication)."""

    def __init__(self, password: str) -> None:
        self.password = password.encode()
        self.nonce = base64.b64encode(os.urandom(18)).decode()
        self.signature = b""

    def first(self) -> bytes:
        self.bare = f"n=,r={self.nonce}"
        return f"n,,{self.bare}".encode()

    def final(self, server_first: bytes) -> bytes:
        fields = dict(part.split("=", 1) for part in server_first.decode().split(","))
        assert fields["r"].startswith(self.nonce), "the server changed our nonce"
        salted = hashlib.pbkdf2_hmac("sha256", self.password, base64.b64decode(fields["s"]), int(fields["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c=biws,r={fields['r']}"
        auth = f"{self.bare},{server_first.decode()},{without_proof}".encode()
        mask = hmac.digest(hashlib.sha256(client_key).digest(), auth, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, mask, strict=True))
        self.signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), auth, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        expected = b"v=" + base64.b64encode(self.signature)
        assert server_final == expected, "the server does not know the password"
