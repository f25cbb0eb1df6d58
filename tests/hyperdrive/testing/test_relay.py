"""The relay that stands for a distance, between ends that are played by the tests."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hyperdrive.clock import SystemClock
from hyperdrive.testing.relay import Direction, Relay

DELAY_SECONDS = 0.02


class Far:
    """The far end: it echoes, unless a test plays it by hand."""

    def __init__(self) -> None:
        self.arrivals: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.echoes = True
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.arrivals.put_nowait((reader, writer))
        if not self.echoes:
            return
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()


@pytest.fixture
async def far() -> AsyncIterator[Any]:
    made: Any = Far()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.address = server.sockets[0].getsockname()[:2]
    yield made
    server.close()
    for writer in made.writers:
        writer.transport.abort()
    await server.wait_closed()


@pytest.fixture
async def relay(far: Any) -> AsyncIterator[Relay]:
    async with Relay(far.address) as made:
        yield made


async def dial(relay: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", relay.port)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    assert await reader.readexactly(len(data)) == data


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        pass


async def test_a_connection_and_a_question_take_two_round_trips(relay: Relay) -> None:
    relay.delay_seconds = DELAY_SECONDS
    now = SystemClock.now
    start = now()
    reader, writer = await dial(relay)
    await ask(reader, writer, b"hello")
    middle = now()
    await ask(reader, writer, b"again")
    end = now()
    assert middle - start >= 4 * DELAY_SECONDS
    assert 2 * DELAY_SECONDS <= end - middle
    assert relay.counters() == {
        "connections_total": 1,
        "round_trips": 2,
        "bytes_to_server": 10,
        "bytes_to_client": 10,
    }
    await hang_up(writer)


async def test_a_delay_costs_no_throughput(relay: Relay) -> None:
    """Twenty messages sent without waiting take one round trip and not twenty."""
    relay.delay_seconds = 0.1
    reader, writer = await dial(relay)
    await ask(reader, writer, b"x")
    relay.reset_counters()
    start = SystemClock.now()
    for _ in range(20):
        writer.write(b"y" * 1000)
        await asyncio.sleep(0)
    await reader.readexactly(20_000)
    assert 0.2 <= SystemClock.now() - start < 2.0  # one after the other would take four seconds
    assert relay.round_trips == 1
    await hang_up(writer)


async def test_what_nobody_answers_is_no_round_trip(far: Any, relay: Relay) -> None:
    far.echoes = False
    reader, writer = await dial(relay)
    there_reader, there_writer = await far.arrivals.get()
    there_writer.write(b"unasked")
    await reader.readexactly(7)
    assert relay.round_trips == 0
    writer.write(b"goodbye")
    await there_reader.readexactly(7)
    assert relay.round_trips == 0
    await hang_up(writer)


async def test_a_streamed_answer_is_one_round_trip(far: Any, relay: Relay) -> None:
    far.echoes = False
    reader, writer = await dial(relay)
    there_reader, there_writer = await far.arrivals.get()
    writer.write(b"?")
    await there_reader.readexactly(1)
    for piece in (b"one", b"two", b"six"):
        there_writer.write(piece)
        assert await reader.readexactly(3) == piece
    assert relay.round_trips == 1
    await hang_up(writer)


async def test_large_data_with_back_pressure(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperdrive.testing.relay.WINDOW_BYTES", 100_000)
    relay.delay_seconds = 0.001
    relay.jitter_seconds = 0.002
    reader, writer = await dial(relay)
    data = bytes(range(256)) * 10_000

    async def send() -> None:
        writer.write(data)
        await writer.drain()

    sending = asyncio.create_task(send())
    assert await reader.readexactly(len(data)) == data
    await sending
    await hang_up(writer)


async def test_bandwidth_is_a_bound(relay: Relay) -> None:
    relay.bandwidth = 500_000
    reader, writer = await dial(relay)
    start = SystemClock.now()
    await ask(reader, writer, b"x" * 50_000)
    assert SystemClock.now() - start >= 0.1
    await hang_up(writer)


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_cut_comes_after_exactly_so_many_bytes(how: Any, relay: Relay) -> None:
    relay.cut_at(Direction.TO_CLIENT, 12_345, how)
    reader, writer = await dial(relay)
    writer.write(b"x" * 100_000)
    received = await read_until_cut(reader, how)
    assert received == b"x" * 12_345
    assert relay.bytes_total[Direction.TO_CLIENT] == 12_345
    await hang_up(writer)
    reader, writer = await dial(relay)  # the next connection is whole
    await ask(reader, writer, b"x" * 50_000)
    await hang_up(writer)


async def test_a_cut_before_the_first_byte(relay: Relay) -> None:
    relay.cut_at(Direction.TO_SERVER, 0)
    reader, writer = await dial(relay)
    writer.write(b"x")
    assert await read_until_cut(reader, "reset") == b""
    assert relay.bytes_total[Direction.TO_SERVER] == 0
    await hang_up(writer)


async def read_until_cut(reader: asyncio.StreamReader, how: str) -> bytes:
    received = b""
    try:
        while data := await reader.read(4096):
            received += data
    except ConnectionResetError:
        assert how == "reset"
    else:
        assert how == "close"
    return received


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_cutting_everything_is_felt_on_both_sides(how: Any, far: Any, relay: Relay) -> None:
    far.echoes = False
    reader, writer = await dial(relay)
    there_reader, _ = await far.arrivals.get()
    relay.cut(how)
    assert await read_until_cut(reader, how) == b""
    assert await read_until_cut(there_reader, how) == b""
    await hang_up(writer)


async def test_frozen_connections_are_silent_and_thaw(far: Any, relay: Relay) -> None:
    reader, writer = await dial(relay)
    await ask(reader, writer, b"before")
    relay.freeze()
    writer.write(b"during")
    answer = asyncio.create_task(reader.readexactly(6))
    _, other = await dial(relay)  # the kernel answers, nobody else does
    other.write(b"hello")
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not answer.done()
    assert far.arrivals.qsize() == 1
    relay.thaw()
    assert await answer == b"during"
    await far.arrivals.get()
    await far.arrivals.get()
    await hang_up(writer)
    await hang_up(other)


async def test_refused_connections_and_the_same_port_again(relay: Relay) -> None:
    port = relay.port
    reader, writer = await dial(relay)
    await relay.refuse()
    with pytest.raises(ConnectionRefusedError):
        await dial(relay)
    await ask(reader, writer, b"goes on")
    await relay.admit()
    assert relay.port == port
    _, other = await dial(relay)
    await hang_up(other)
    await hang_up(writer)


async def test_a_target_that_is_down_resets_the_client(far: Any) -> None:
    async with Relay("/nowhere/at/all") as relay:
        reader, writer = await dial(relay)
        writer.write(b"x")
        assert await read_until_cut(reader, "reset") == b""
        await hang_up(writer)


async def test_the_end_of_the_stream_passes_and_the_other_direction_goes_on(far: Any, relay: Relay) -> None:
    far.echoes = False
    relay.delay_seconds = 0.005
    reader, writer = await dial(relay)
    writer.write(b"last words")
    writer.write_eof()
    there_reader, there_writer = await far.arrivals.get()
    assert await there_reader.read() == b"last words"
    there_writer.write(b"answer")
    there_writer.close()
    assert await reader.read() == b"answer"
    await hang_up(writer)


async def test_a_server_that_resets_is_felt_by_the_client(far: Any, relay: Relay) -> None:
    far.echoes = False
    reader, writer = await dial(relay)
    _, there_writer = await far.arrivals.get()
    writer.write(b"unread")
    await asyncio.sleep(0)
    there_writer.transport.abort()
    received = await reader_end(reader)
    assert received == b""
    await hang_up(writer)


async def reader_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_it_is_a_program(far: Any) -> None:
    host, port = far.address
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hyperdrive.testing.relay", "--target", f"{host}:{port}", "--delay-ms", "1"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    word, _, place = (await process.stdout.readline()).decode().strip().partition(" ")
    assert word == "listening"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(place.rpartition(":")[2]))
    await ask(reader, writer, b"hello")
    process.stdin.write(b"counters\n")
    assert json.loads(await process.stdout.readline())["round_trips"] == 1
    process.stdin.write(b"reset\n")
    assert json.loads(await process.stdout.readline())["round_trips"] == 0
    process.stdin.close()
    assert await process.wait() == 0
    await hang_up(writer)
