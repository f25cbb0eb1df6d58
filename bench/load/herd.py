"""asyncpg as a load program for caches: a herd that asks for the same thing at once, and readers that notice what is out of date.

All rows are asked for (``fetch``), as other caches keep no answer to the limited portal of ``fetchrow`` and ``fetchval``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import asyncpg
import uvloop
from cachetools import TTLCache

from bench.load.acting import given, serve
from bench.load.watching import Watch
from bench.load.with_asyncpg import connect, on

HEAVY = "SELECT count(*), sum(id) FROM bench_facts WHERE kind = $1"
VERSION = "SELECT version FROM bench_versions WHERE id = $1"
KEYS = 1_000
ZIPF = 1.1
OPTIONS = given()


class Herd:
    """Connections that are open already and ask all at the same moment."""

    def __init__(self) -> None:
        self._connections: list[Any] = []

    async def open(self, clients: str) -> None:
        """So many connections, each with its statement prepared as asyncpg does."""
        self._connections = await asyncio.gather(*(connect() for _ in range(int(clients))))
        await asyncio.gather(*(connection.fetch(HEAVY, 1) for connection in self._connections))

    async def read(self, kind: str) -> Mapping[str, object]:
        """The same read by all."""
        start = time.perf_counter()
        latencies: list[float] = []

        async def one(connection: Any) -> None:
            await connection.fetch(HEAVY, int(kind))
            latencies.append((time.perf_counter() - start) * 1000)

        await asyncio.gather(*map(one, self._connections))
        return {"seconds": time.perf_counter() - start, "latencies": sorted(latencies)}

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self._connections))


async def watch(seconds: str, readers: str, rate: str, ttl: str, writer_dsn: str) -> Mapping[str, object]:
    """Readers with Zipf keys, and one writer at *rate* a second; with a *ttl* the readers share a cache in this program."""
    steps = list(accumulate(1 / (rank + 1) ** ZIPF for rank in range(KEYS)))
    cache: TTLCache[int, int] | None = TTLCache(KEYS, float(ttl)) if float(ttl) else None
    writer = await asyncpg.connect(writer_dsn, statement_cache_size=0)
    await writer.execute("UPDATE bench_versions SET version = 0 WHERE version > 0")
    connections = await asyncio.gather(*(connect() for _ in range(int(readers))))
    seen = Watch(float(seconds))

    async def read(connection: Any) -> None:
        while not seen.is_over:
            key, begun = random.choices(range(1, KEYS + 1), cum_weights=steps)[0], time.perf_counter()
            if cache is not None and key in cache:
                seen.hits += 1
                seen.judge(key, begun, cache[key])
                await asyncio.sleep(0)
                continue
            version = (await connection.fetch(VERSION, key))[0][0]
            if cache is not None:
                cache[key] = version
            seen.judge(key, begun, version)

    async def write() -> int:
        written = 0
        while not seen.is_over:
            key = random.choices(range(1, KEYS + 1), cum_weights=steps)[0]
            await writer.execute("UPDATE bench_versions SET version = version + 1 WHERE id = $1", key)
            seen.committed.setdefault(key, []).append(time.perf_counter())
            written += 1
            await asyncio.sleep(1 / float(rate))
        return written

    written = (await asyncio.gather(write(), *map(read, connections)))[0]
    await asyncio.gather(*(connection.close() for connection in [writer, *connections]))
    return {
        "reads": seen.reads,
        "hits": seen.hits,
        "stale": seen.stale,
        "worst": seen.worst_seconds,
        "writes": written,
        "latencies": sorted(seen.latencies),
    }


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as the_loop:
        herd = Herd()

        async def open_(clients: str) -> Mapping[str, object]:
            await herd.open(clients)
            return {}

        async def close() -> Mapping[str, object]:
            await herd.close()
            return {}

        acts: dict[str, Any] = {"open": open_, "read": herd.read, "close": close, "watch": watch}
        serve({name: on(the_loop, act) for name, act in acts.items()})
