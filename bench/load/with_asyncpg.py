"""asyncpg as a load program: requests on new connections, prepared statements in tasks, and storms of connections."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg
import uvloop

from bench.load.acting import READ, WRITE, Act, Tally, given, serve, tell
from bench.machine import raise_descriptor_limit

OPTIONS = given()
ITEMS = 10_000
STORM_SECONDS = 60.0
AT_ONCE = 200
HELD: list[Any] = []


async def connect() -> Any:
    arguments: dict[str, Any] = {} if OPTIONS.keep_statements else {"statement_cache_size": 0}
    return await asyncpg.connect(OPTIONS.dsn, timeout=STORM_SECONDS, **arguments)


async def request(kind: str, key: str) -> Mapping[str, object]:
    """One request on a new connection, up to its answer; closing it is not in the time."""
    start = time.perf_counter()
    connection = await connect()
    if kind == "read":
        await connection.fetch(READ + "$1", int(key))
    else:
        await connection.execute(WRITE + "$1", int(key))
    seconds = time.perf_counter() - start
    await connection.close()
    return {"seconds": seconds}


async def loop(seconds: str, clients: str) -> Mapping[str, object]:
    """The same prepared read on every connection, one after another."""
    connections = [await connect() for _ in range(int(clients))]
    tally = Tally(float(seconds))

    async def client(connection: Any) -> None:
        while not tally.is_over:
            start = time.perf_counter()
            await connection.fetch(READ + "$1", random.randint(1, ITEMS))
            tally.add(time.perf_counter() - start)

    await asyncio.gather(*map(client, connections))
    await asyncio.gather(*(connection.close() for connection in connections))
    return tally.result()


async def storm(clients: str) -> Mapping[str, object]:
    """All connect at once, read once, and stay until all have; latencies up to the answer."""
    start = time.perf_counter()
    latencies: list[float] = []
    errors: list[str] = []
    held: list[Any] = []

    async def one(key: int) -> None:
        try:
            connection = await connect()
            held.append(connection)
            await connection.fetch(READ + "$1", key)
            latencies.append((time.perf_counter() - start) * 1000)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            errors.append(f"{type(error).__name__}: {error}")

    await asyncio.gather(*(one(number % ITEMS + 1) for number in range(int(clients))))
    seconds = time.perf_counter() - start
    await asyncio.gather(*(connection.close() for connection in held), return_exceptions=True)
    return {"seconds": seconds, "latencies": sorted(latencies), "errors": len(errors), "first": errors[:1]}


async def hold(clients: str) -> Mapping[str, object]:
    """So many connections, each of which ran one statement; they stay until this program ends."""
    raise_descriptor_limit()
    gate = asyncio.Semaphore(AT_ONCE)
    failed = 0

    async def one() -> None:
        nonlocal failed
        async with gate:
            try:
                connection = await connect()
                await connection.execute("SELECT 1")
                HELD.append(connection)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                failed += 1
            if (len(HELD) + failed) % 100 == 0:
                tell({"held": len(HELD), "failed": failed})

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(int(clients))))
    return {"seconds": time.perf_counter() - start, "held": len(HELD), "failed": failed}


def on(runner: asyncio.Runner, act: Callable[..., Awaitable[Mapping[str, object]]]) -> Act:
    """*act* as a plain function, on the loop of *runner*."""

    async def call(arguments: tuple[str, ...]) -> Mapping[str, object]:
        return await act(*arguments)

    return lambda *arguments: runner.run(call(arguments))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as the_loop:
        acts: dict[str, Any] = {"request": request, "loop": loop, "storm": storm, "hold": hold}
        serve({name: on(the_loop, act) for name, act in acts.items()})
