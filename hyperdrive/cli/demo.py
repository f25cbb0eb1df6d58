"""``hyperdrive demo``: what distance costs, direct and through us, on an embedded PostgreSQL.

The distance is simulated: a relay in this process delivers every byte half of it later, and what is sent first waits for one
more round trip, which is what TCP's handshake takes. Both ways cross the same relay; only the proxy stands on this side of it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import asyncpg
import uvloop

from hyperdrive import logs
from hyperdrive.app import App
from hyperdrive.cli.common import driver_arguments, say, table
from hyperdrive.cli.serve import embedded
from hyperdrive.config import Address, Settings
from hyperdrive.dsn import Dsn, Host, parse_dsn
from hyperdrive.tasks import spawn

REPEAT = 5


class Relay:
    """Carries bytes to a unix-domain socket and back, each way *seconds* late."""

    def __init__(self, socket_path: str, seconds: float) -> None:
        self._path = socket_path
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._path)
        except OSError:
            writer.close()
            return
        for source, sink, first in ((reader, far_writer, 2 * self._seconds), (far_reader, writer, 0.0)):
            task = spawn(self._carry(source, sink, first), name="relay")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, first: float) -> None:
        loop = asyncio.get_running_loop()
        ready_at = loop.time() + first
        due = 0.0
        try:
            while data := await source.read(65536):
                due = max(loop.time(), ready_at) + self._seconds
                loop.call_at(due, sink.write, data)
        except OSError:
            pass
        finally:
            loop.call_at(max(due, loop.time()), sink.close)


def run(options: argparse.Namespace) -> int:
    """Measure and print; then, unless *once*, keep both ways open until Ctrl-C."""
    logs.configure("warning")
    with suppress(KeyboardInterrupt):
        uvloop.run(_demo(options.distance / 1000, once=options.once))
    return 0


async def _demo(distance: float, *, once: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="hyperdrive-demo-") as directory:
        say("starting an embedded PostgreSQL …")
        async with embedded(Path(directory) / "data", quiet=True) as url:
            near = parse_dsn(url)
            async with Relay(near.hosts[0].socket_path, distance / 2) as port:
                far = replace(near, hosts=(Host("127.0.0.1", port),), sslmode="disable")
                await _compare(far, distance, once=once)


async def _compare(far: Dsn, distance: float, *, once: bool) -> None:
    settings = Settings(origin=far, listen=(Address("127.0.0.1", 0),), admin_listen=None)
    async with App(settings) as app:
        ours = parse_dsn(app.url() + "?sslmode=disable")
        await _measure(ours)  # the first client of all waits for the first server
        say(f"a round trip takes {distance * 1000:g} ms\n")
        direct, through = await _measure(far), await _measure(ours)
        head = ("", "direct", "through Hyperdrive")
        say(table([head, *((name, f"{direct[name]:.0f} ms", f"{through[name]:.0f} ms") for name in direct)]))
        if not once:
            say(f"\ndirect  {far}\nready {app.url()}\n\nCtrl-C ends both.")
            await asyncio.Event().wait()


async def _measure(dsn: Dsn) -> dict[str, float]:
    """Milliseconds by what was done."""

    async def connect() -> Any:
        return await asyncpg.connect(**driver_arguments(dsn, 60))

    async def connect_and_ask() -> None:
        connection = await connect()
        await connection.fetch("select 'hello'")
        connection.terminate()

    found = {"connect and one query": await _time(connect_and_ask)}
    connection = await connect()
    try:
        await connection.execute("create table if not exists demo (id int primary key, hits int)")
        await connection.execute("insert into demo values (1, 0) on conflict do nothing")

        async def read() -> None:
            await connection.execute("select hits from demo where id = 1")

        async def read_in_transaction() -> None:
            for sql in ("begin", "select hits from demo where id = 1", "rollback"):
                await connection.execute(sql)

        async def write_in_transaction() -> None:
            for sql in ("begin", "update demo set hits = hits + 1 where id = 1", "commit"):
                await connection.execute(sql)

        found["one query on an open connection"] = await _time(read)
        found["begin, select, rollback"] = await _time(read_in_transaction)
        found["begin, update, commit"] = await _time(write_in_transaction)
    finally:
        connection.terminate()
    return found


async def _time(work: Callable[[], Awaitable[None]]) -> float:
    taken = []
    for _ in range(REPEAT):
        started = perf_counter()
        await work()
        taken.append((perf_counter() - started) * 1000)
    return median(taken)
