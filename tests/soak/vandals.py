"""Who breaks things while a storm is on: each takes one turn, and leaves everything able to go on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from hyperdrive.testing.postgres import Postgres


@dataclass
class Site:
    """What there is to break."""

    postgres: Postgres
    console_url: str
    supervisor: int
    workers: int
    chance: random.Random
    count: Counter[str]

    async def console(self, command: str) -> None:
        async with await psycopg.AsyncConnection.connect(self.console_url, autocommit=True) as conn:
            await conn.execute(command.encode())


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def backends(site: Site) -> list[int]:
    """Processes of the origin that serve somebody, found without asking it."""
    assert site.postgres.server.pid is not None
    found = []
    for pid in children(site.postgres.server.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"127.0.0.1" in words:
            found.append(pid)
    return found


async def terminate_backend(site: Site) -> None:
    """As an administrator would."""
    for pid in site.chance.sample(found := backends(site), min(2, len(found))):
        os.kill(pid, signal.SIGTERM)


async def kill_backend(site: Site) -> None:
    """One process is killed: the origin takes all others down, and recovers."""
    if found := backends(site):
        os.kill(site.chance.choice(found), signal.SIGKILL)
    await asyncio.sleep(2)


async def restart_origin(site: Site) -> None:
    """Killed as a whole, away for a moment, back."""
    await asyncio.to_thread(site.postgres.server.kill_sync)
    await asyncio.sleep(site.chance.random() * 3)
    await asyncio.to_thread(site.postgres.server.start_sync)


async def freeze_origin(site: Site) -> None:
    """Every process of the origin stands still for a moment, and goes on as if nothing had happened."""
    pid = site.postgres.server.pid
    assert pid is not None
    stopped = [pid, *children(pid)]
    for one in stopped:
        _signal(one, signal.SIGSTOP)
    await asyncio.sleep(site.chance.random() * 3)
    for one in stopped:
        _signal(one, signal.SIGCONT)


async def pause_and_resume(site: Site) -> None:
    """RESUME may overtake PAUSE on its way, so it is said until that has been answered, and once more."""
    pause = asyncio.ensure_future(site.console("PAUSE"))
    await asyncio.sleep(site.chance.random())
    is_last = False
    while not is_last:
        is_last = pause.done()
        try:
            await site.console("RESUME")
        except psycopg.Error:  # its worker has just been killed
            is_last = False
        await asyncio.wait([pause], timeout=1)
    await asyncio.gather(pause, return_exceptions=True)


async def reload(site: Site) -> None:
    await site.console("RELOAD")


async def reconnect(site: Site) -> None:
    await site.console("RECONNECT")


async def purge(site: Site) -> None:
    await site.console("PURGE")


async def kill_worker(site: Site) -> None:
    """The supervisor starts another one; the clients of this one are cut off."""
    if site.workers > 1:
        _signal(site.chance.choice(children(site.supervisor)), signal.SIGKILL)
        await asyncio.sleep(1)


def _signal(pid: int, what: signal.Signals) -> None:
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        pass


Vandal = Callable[[Site], Awaitable[None]]
GENTLE: tuple[Vandal, ...] = (reload, purge, pause_and_resume, reconnect)
ROUGH: tuple[Vandal, ...] = (
    *(terminate_backend, terminate_backend, kill_backend, restart_origin, freeze_origin, kill_worker),
    *GENTLE,
)
