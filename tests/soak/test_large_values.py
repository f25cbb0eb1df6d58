"""W-18 at its size: a gigabyte each way, and single values of half of one, through a proxy that holds a few hundred KiB of them."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperdrive.testing.frontend import copy_data, copy_done, cstring, execute, parse, query, sync
from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.wire import WireConnection, connect
from tests.drivers.serve import served

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

GIB = 1 << 30
MIB = 1 << 20
VALUE_BYTES = 500_000_000
# Far below any of the values, and above what an allocator keeps for itself.
MOST_GROWTH_BYTES = 16 * MIB


class Memory:
    """The peak of a process' resident memory since it was looked at last."""

    def __init__(self, pid: int) -> None:
        self._process = Path(f"/proc/{pid}")
        self._start = 0

    def begin(self) -> None:
        """Forget the peak so far (proc(5), ``clear_refs``)."""
        (self._process / "clear_refs").write_text("5")
        self._start = self._peak()

    def growth(self) -> int:
        return self._peak() - self._start

    def _peak(self) -> int:
        lines = (self._process / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.fixture
def proxy(pg18: Postgres) -> Iterator[tuple[str, Memory]]:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks of memory are read from /proc")
    with served(pg18.app_url, pool_size=1, write_buffer_size=64 * 1024) as (url, pid):
        yield url, Memory(pid)


async def ready(url: str, memory: Memory) -> WireConnection:
    """A connection whose server is there."""
    conn = await connect(url)
    conn.deadline_seconds = 300
    await conn.query("select 1")
    memory.begin()
    return conn


async def send(conn: WireConnection, piece: bytes, times: int) -> None:
    for _ in range(times):
        conn.writer.write(piece)
        await conn.writer.drain()


async def swallow(conn: WireConnection, end: bytes) -> int:
    """Read to *end*; the number of bytes."""
    total = 0
    tail = b""
    while not tail.endswith(end):
        chunk = await conn.reader.read(1 << 18)
        assert chunk, "closed early"
        total += len(chunk)
        tail = (tail + chunk)[-len(end) :]
    return total


def report(what: str, size: int, started: float, memory: Memory) -> None:
    seconds = time.monotonic() - started
    print(f"{what}: {size / MIB / seconds:.0f} MiB/s, peak +{memory.growth() / MIB:.1f} MiB")


async def test_w18_a_gigabyte_in(proxy: tuple[str, Memory]) -> None:
    url, memory = proxy
    async with await ready(url, memory) as conn:
        started = time.monotonic()
        await conn.query("create temp table large (v text)")
        conn.send(query("copy large from stdin where false"))
        await conn.read_until("G")
        await send(conn, copy_data(b"x" * (MIB - 1) + b"\n"), GIB // MIB)
        conn.send(copy_done())
        assert (await conn.read_until("Z")).tags == ["COPY 0"]
        report("in", GIB, started, memory)
        assert memory.growth() < MOST_GROWTH_BYTES


async def test_w18_a_gigabyte_out_to_a_slow_reader(proxy: tuple[str, Memory]) -> None:
    url, memory = proxy
    async with await ready(url, memory) as conn:
        started = time.monotonic()
        conn.writer.write(query(f"copy (select repeat('x', {MIB}) from generate_series(1, {GIB // MIB})) to stdout"))
        await asyncio.sleep(2)  # whoever held what is not read would hold it now
        total = await swallow(conn, b"Z\0\0\0\x05I")
        report("out", total, started, memory)
        assert total > GIB
        assert memory.growth() < MOST_GROWTH_BYTES


async def test_w18_one_large_parameter(proxy: tuple[str, Memory]) -> None:
    url, memory = proxy
    async with await ready(url, memory) as conn:
        started = time.monotonic()
        piece = b"x" * (MIB // 2)
        times = VALUE_BYTES // len(piece)
        size = times * len(piece)
        head = cstring("") + cstring("") + struct.pack("!HhHi", 1, 1, 1, size)
        bind = b"B" + struct.pack("!i", 4 + len(head) + size + 2) + head
        conn.writer.write(parse("select octet_length($1)", oids=[17]) + bind)
        await send(conn, piece, times)
        conn.writer.write(struct.pack("!h", 0) + execute() + sync())
        assert (await conn.read_until("Z")).rows == [(str(size),)]
        report("parameter", size, started, memory)
        assert memory.growth() < MOST_GROWTH_BYTES


async def test_w18_one_large_value(proxy: tuple[str, Memory]) -> None:
    url, memory = proxy
    async with await ready(url, memory) as conn:
        started = time.monotonic()
        conn.writer.write(query(f"select repeat('x', {VALUE_BYTES})"))
        total = await swallow(conn, b"Z\0\0\0\x05I")
        report("value", total, started, memory)
        assert total > VALUE_BYTES
        assert memory.growth() < MOST_GROWTH_BYTES
