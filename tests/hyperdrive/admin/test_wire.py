"""Drivers connect to the console as to any database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import psycopg
import psycopg2
import pytest
from fake_state import FakeState

from hyperdrive.admin.console import Console
from hyperdrive.admin.wire import ConsoleSession, greeting
from hyperdrive.errors import ProtocolViolation
from hyperdrive.pgwire import framing, messages


@dataclass
class Running:
    state: FakeState
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://boss:x@127.0.0.1:{self.port}/hyperdrive?sslmode=disable"


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A console behind a log-in that lets everybody in."""
    state = FakeState()
    console = Console(state)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        size = int.from_bytes(await reader.readexactly(4), "big")
        words = (await reader.readexactly(size - 4))[4:].split(b"\0")
        user = dict(zip(words[::2], words[1::2], strict=False))[b"user"].decode()
        writer.write(
            messages.AUTHENTICATION_OK + greeting() + messages.backend_key_data(1, b"abcd") + messages.READY_IDLE
        )
        session = ConsoleSession(console, user)
        while not session.is_closed and (data := await reader.read(65536)):
            writer.write(await session.receive(data))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield Running(state, server.sockets[0].getsockname()[1])
    server.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.wait_closed()


async def test_psycopg(running: Running) -> None:
    """Without autocommit it opens transactions; numbers are numbers; errors have their SQLSTATE."""
    async with await psycopg.AsyncConnection.connect(running.url) as connection:
        cursor = await connection.execute("SHOW POOLS")
        assert cursor.description is not None
        row = dict(zip([c.name for c in cursor.description], await cursor.fetchone() or (), strict=True))
        assert (row["database"], row["cl_active"], row["load_balance_hosts"]) == ("shop", 3, None)
        with pytest.raises(psycopg.errors.SyntaxError):
            await connection.execute("DANCE")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await connection.execute("SHOW POOLS")
        await connection.rollback()
        await connection.execute("PAUSE shop")
    assert running.state.done == [("pause", "shop")]


@pytest.mark.parametrize("binary", [False, True])
async def test_psycopg_with_prepared_statements(running: Running, binary: bool) -> None:
    async with await psycopg.AsyncConnection.connect(running.url, autocommit=True) as connection:
        for _ in range(3):
            cursor = connection.cursor(binary=binary)
            await cursor.execute("SHOW LISTS", prepare=True)
            assert ("used_clients", 2) in await cursor.fetchall()


async def test_asyncpg(running: Running) -> None:
    """It always describes first, and asks for binary values."""
    connection = await asyncpg.connect(running.url)
    try:
        rows = await connection.fetch("SHOW CLIENTS")
        assert [(row["id"], row["user"], row["link"]) for row in rows] == [(17, "app", "s3"), (18, "app", "")]
        assert rows[1]["application_name"] == 'o"dd\n'
        assert await connection.execute("RELOAD") == "RELOAD"
        await connection.reset()
        with pytest.raises(asyncpg.UndefinedObjectError):
            await connection.execute("KILL_CLIENT 5")
        assert await connection.fetchval("SELECT 1") == 1
    finally:
        await connection.close()


async def test_a_pool_of_asyncpg(running: Running) -> None:
    async with asyncpg.create_pool(running.url, min_size=1, max_size=1) as pool:
        for _ in range(2):
            assert await pool.fetchval("SHOW VERSION")
            async with pool.acquire() as connection, connection.transaction():
                await connection.fetch("SHOW STATS")


async def test_psycopg2(running: Running) -> None:
    """It speaks simple queries only, as the exporters do."""

    def work() -> list[tuple[object, ...]]:
        connection = psycopg2.connect(running.url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("SHOW DATABASES; SHOW CONFIG")
                return list(cursor.fetchall())
        finally:
            connection.close()

    assert await asyncio.to_thread(work) == [("pool_size", "20", "20", "yes")]


async def conversation(*sent: bytes) -> list[tuple[str, bytes]]:
    session = ConsoleSession(Console(FakeState()), "boss")
    data = b"".join([await session.receive(one) for one in sent])
    whole, rest = framing.split(data)
    assert rest == b""
    return [(chr(m[0]), m[5:]) for m in whole]


def letters(answer: list[tuple[str, bytes]]) -> str:
    return "".join(letter for letter, _ in answer)


async def test_messages_do_not_depend_on_how_bytes_arrive() -> None:
    sent = b"".join(
        [
            messages.parse(b"s", b"SHOW LISTS"),
            messages.bind(b"", b"s"),
            messages.describe(b"P"),
            messages.execute(b"", 3),
            messages.execute(),
            messages.close(b"S", b"s"),
            messages.SYNC,
            messages.query(b"BEGIN;COMMIT"),
            messages.query(b" "),
        ]
    )
    whole = await conversation(sent)
    assert letters(whole) == "12T" + "DDDs" + "D" * 12 + "C3Z" + "CCZ" + "IZ"
    assert whole == await conversation(*(bytes([byte]) for byte in sent))


async def test_an_error_skips_the_rest_of_its_batch() -> None:
    batch = [messages.bind(b"", b"gone"), messages.execute(), messages.SYNC, messages.query(b"SHOW VERSION")]
    answer = await conversation(*batch)
    assert letters(answer) == "EZTDCZ"
    assert b"C26000" in answer[0][1]


async def test_a_command_that_fails_ends_its_simple_query() -> None:
    answer = await conversation(messages.query(b"SHOW VERSION; DANCE; PAUSE"))
    assert letters(answer) == "TDCEZ"


async def test_the_notice_of_reload_is_told() -> None:
    answer = await conversation(messages.query(b"RELOAD"))
    assert letters(answer) == "NCZ"
    assert b"workers needs a restart" in answer[0][1]


@pytest.mark.parametrize(
    "sent",
    [
        b"Q\0\0\0\x01",
        b"Q\0\0\0\x05x",
        messages.message(b"Q", b"\xff\0"),
        messages.message(b"B", b"\0\0\0"),
        messages.message(b"E", b""),
        messages.message(b"P", b"\0"),
        messages.message(b"d", b"x"),
        b"Q\0\x10\0\0" + bytes(1 << 20),
    ],
)
async def test_bytes_that_are_no_messages_end_the_connection(sent: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        await conversation(messages.parse(b"", b"SHOW LISTS") + sent)


async def test_nothing_is_answered_after_terminate() -> None:
    assert await conversation(messages.TERMINATE + messages.query(b"SHOW VERSION")) == []
