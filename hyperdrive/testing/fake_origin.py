"""A scripted PostgreSQL origin: says what a real one says only on a bad day, exactly when the test wants it.

By default it logs everybody in (trust) and answers like a simple-minded server that has no tables: transaction control moves
the status byte, ``SET`` and its kind get their tags, ``SHOW`` and ``SELECT`` return one row. Rules replace answers by pattern;
a rule may be bytes, or a function that does anything with the session: cut, hang, speak out of turn.

::

    async with FakeOrigin() as origin:
        origin.on("select broken", lambda session: session.cut(data_row(["half"]), after=7))
        async with running_proxy(origin.url) as proxy: ...
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeAlias

from hyperdrive.testing import backend
from hyperdrive.testing.transcript import Message

PARAMETERS: Mapping[str, str] = {
    "server_version": "16.9",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "application_name": "",
    "is_superuser": "off",
    "session_authorization": "app",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "in_hot_standby": "off",
    "default_transaction_read_only": "off",
    "scram_iterations": "4096",
}

_BEGIN = re.compile(r"\s*(begin|start)\b", re.IGNORECASE)
_END = re.compile(r"\s*(commit|end|rollback(?!\s+to)|abort)\b", re.IGNORECASE)
_UTILITY = re.compile(
    r"\s*(set|reset|discard all|deallocate all|unlisten|listen|close cursor all|savepoint|insert|update|delete)\b",
    re.IGNORECASE,
)
_ROWS = re.compile(r"\s*(select|show|values|with|table)\b", re.IGNORECASE)
_COUNTED = {"INSERT": "INSERT 0 1", "UPDATE": "UPDATE 1", "DELETE": "DELETE 1"}

Answer: TypeAlias = "bytes | Callable[[FakeSession], Awaitable[None]]"


class PeerGone(Exception):
    """The client of this session went away."""


@dataclass(eq=False)
class FakeSession:
    """One connection to the fake origin."""

    origin: FakeOrigin
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    pid: int
    secret: bytes
    startup: dict[str, str] = field(default_factory=dict)
    version: int = 0
    received: list[Message] = field(default_factory=list)
    status: str = "I"
    statements: dict[bytes, str] = field(default_factory=dict)
    portals: dict[bytes, str] = field(default_factory=dict)
    skipping: bool = False
    failed: bool = False
    closed: bool = False

    def send(self, *messages: bytes) -> None:
        """Write at once, asked or not."""
        self.writer.write(b"".join(messages))

    async def cut(self, data: bytes, after: int) -> None:
        """Send the first *after* bytes of *data* and close."""
        self.send(data[:after])
        await self.close()

    async def close(self) -> None:
        """Close with FIN, after what was written."""
        self.closed = True
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass

    async def abort(self) -> None:
        """Close with RST."""
        self.closed = True
        sock = self.writer.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def hang(self) -> None:
        """Say nothing and read nothing until the origin ends."""
        await self.origin.ended.wait()

    async def read(self) -> Message:
        """Read one typed message.

        Raises:
            PeerGone: the peer closed.
        """
        try:
            head = await self.reader.readexactly(5)
            body = await self.reader.readexactly(int.from_bytes(head[1:], "big") - 4)
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            raise PeerGone from exc
        got = Message(chr(head[0]), body)
        self.received.append(got)
        return got

    @property
    def queries(self) -> list[str]:
        """The text of all Query and Parse messages received."""
        texts = (m.body.split(b"\0")[0 if m.kind == "Q" else 1] for m in self.received if m.kind in "QP")
        return [text.decode() for text in texts]

    # ------------------------------------------------------------------ the simple-minded server

    async def serve(self) -> None:
        """Answer until the peer or a rule ends the connection."""
        while not self.closed:
            got = await self.read()
            if got.kind == "X":
                return
            if self.skipping and got.kind != "S":
                continue
            await self._answer(got)

    async def _answer(self, got: Message) -> None:
        match got.kind:
            case "Q":
                text = got.body[:-1].decode()
                # Good enough for what a proxy sends of its own: no semicolons in literals.
                for part in [piece for piece in text.split(";") if piece.strip()] or [text]:
                    await self._run(part, simple=True)
                    if self.closed or self.failed:
                        break
                self.failed = False
                if not self.closed:
                    self.send(backend.ready(self.status))
            case "P":
                name, sql, _ = got.body.split(b"\0", 2)
                self.statements[name] = sql.decode()
                self.send(backend.PARSE_COMPLETE)
            case "B":
                portal, name, _ = got.body.split(b"\0", 2)
                if name not in self.statements:
                    self.fail("26000", f'prepared statement "{name.decode()}" does not exist')
                    return
                self.portals[portal] = self.statements[name]
                self.send(backend.BIND_COMPLETE)
            case "D":
                names = self.statements if got.body[:1] == b"S" else self.portals
                has_rows = _ROWS.match(names.get(got.body[1:-1], "")) is not None
                if got.body[:1] == b"S":
                    self.send(backend.parameter_description())
                self.send(backend.row_description(["x"]) if has_rows else backend.NO_DATA)
            case "E":
                await self._run(self.portals.get(got.body.split(b"\0")[0], ""), simple=False)
            case "C":
                self.send(backend.CLOSE_COMPLETE)
            case "S":
                self.skipping = False
                self.send(backend.ready(self.status))

    def fail(self, sqlstate: str, text: str) -> None:
        """An ErrorResponse, with what it does to the transaction and to the rest of an extended scope."""
        self.send(backend.error(sqlstate, text))
        self.failed = bool(self.received) and self.received[-1].kind == "Q"
        self.skipping = not self.failed
        if self.status == "T":
            self.status = "E"

    async def _run(self, text: str, *, simple: bool) -> None:
        for pattern, answer in self.origin.rules:
            if pattern.search(text):
                if isinstance(answer, bytes):
                    self.send(answer)
                else:
                    await answer(self)
                return
        words = text.split()
        if not words:
            self.send(backend.EMPTY_QUERY)
        elif _BEGIN.match(text):
            self.status = "T"
            self.send(backend.complete("BEGIN"))
        elif _END.match(text):
            tag = "ROLLBACK" if self.status == "E" else words[0].upper().strip(";")
            self.status = "I"
            self.send(backend.complete(tag))
        elif self.status == "E":
            self.fail("25P02", "current transaction is aborted, commands ignored until end of transaction block")
        elif _ROWS.match(text):
            self.send(backend.row_description(["x"]) if simple else b"")
            self.send(backend.data_row([self._value(words)]), backend.complete("SELECT 1"))
        elif match := _UTILITY.match(text):
            word = match[1].upper()
            self.send(backend.complete(_COUNTED.get(word, word)))
        else:
            self.send(backend.complete(words[0].upper()))

    def _value(self, words: list[str]) -> str:
        if words[0].lower() == "show" and len(words) > 1:
            return self.origin.parameters.get(words[1].strip(";"), "")
        return str(self.pid)


class FakeOrigin:
    """A listening socket with a session per connection. Use as an async context manager."""

    def __init__(self, *, parameters: Mapping[str, str] = PARAMETERS, user: str = "app", database: str = "app") -> None:
        self.parameters = dict(parameters)
        self.user, self.database = user, database
        self.rules: list[tuple[re.Pattern[str], Answer]] = []
        self.sessions: list[FakeSession] = []
        self.cancels: list[tuple[int, bytes]] = []
        self.cancel_hold: asyncio.Event | None = None
        """If set, a cancel connection stays open until the event comes, as with a slow postmaster."""
        self.ended = asyncio.Event()
        self.refusal: bytes | None = None
        """If set, every StartupMessage is answered with these bytes and a close."""
        self.ssl_answer = b"N"
        """What follows SSLRequest; longer than a byte to play the man in the middle."""
        self.login: Callable[[FakeSession], Awaitable[None]] | None = None
        """If set, runs instead of the whole login."""
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """A connection string without a password and without TLS."""
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{self.database}?sslmode=disable"

    def on(self, pattern: str, answer: Answer) -> None:
        """Statements that match *pattern* (anywhere, any case) get *answer*; the newest rule is asked first."""
        self.rules.insert(0, (re.compile(pattern, re.IGNORECASE), answer))

    @property
    def alive(self) -> list[FakeSession]:
        """Sessions whose connection is open."""
        return [s for s in self.sessions if not s.closed]

    async def __aenter__(self) -> FakeOrigin:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()
        if exc is not None:
            for session in self.sessions:
                exc.add_note(f"fake session {session.pid} received: {session.queries}")

    async def stop(self) -> None:
        """Close the socket and all sessions."""
        assert self._server is not None
        self.ended.set()
        self._server.close()
        for session in self.alive:
            await session.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        pid = 10_000 + len(self.sessions)
        session = FakeSession(self, reader, writer, pid, struct.pack("!I", 0xBEEF0000 + pid))
        try:
            if await self._start(session):
                await session.serve()
        except (PeerGone, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            session.closed = True
            if not writer.transport.is_closing():
                writer.close()

    async def _start(self, session: FakeSession) -> bool:
        while True:
            length = int.from_bytes(await session.reader.readexactly(4), "big")
            body = await session.reader.readexactly(length - 4)
            code = int.from_bytes(body[:4], "big")
            if code == 80877102:
                self.cancels.append((int.from_bytes(body[4:8], "big"), body[8:]))
                if self.cancel_hold is not None:
                    await self.cancel_hold.wait()
                return False
            if code in (80877103, 80877104):
                session.send(self.ssl_answer if code == 80877103 else b"N")
                continue
            words = body[4:].decode().split("\0")
            session.version = code
            session.startup = dict(zip(words[::2], words[1::2], strict=False))
            self.sessions.append(session)
            if self.login is not None:
                await self.login(session)
                return not session.closed
            if self.refusal is not None:
                session.send(self.refusal)
                return False
            await self.welcome(session)
            return True

    async def welcome(self, session: FakeSession) -> None:
        """AuthenticationOk, the parameters, the key and ReadyForQuery."""
        reported = [backend.parameter_status(name, value) for name, value in self.parameters.items()]
        session.send(backend.AUTH_OK, *reported, backend.backend_key(session.pid, session.secret), backend.ready())
