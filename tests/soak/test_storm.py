"""Hundreds or thousands of clients on few servers, as programs meet us: ``hyperdrive serve`` in processes of its own.

Each client does one thing after the other at random, breaks off, cancels, sends garbage, and checks every answer. Meanwhile nothing,
or the console, or everything is disturbed. Afterwards: no server is left in a transaction, nobody waits, every row is where its
owner was told, no reply was read by somebody it was not for, nothing is in the log that is our own fault, memory is bounded.

``HYPERDRIVE_SOAK_SECONDS``, ``HYPERDRIVE_STORM_CLIENTS`` and ``HYPERDRIVE_STORM_SEED`` make it longer, larger, another one.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from hyperdrive.testing.postgres import APP_PASSWORD, APP_USER, Postgres
from hyperdrive.testing.scene import eventually
from hyperdrive.testing.wire import ConnectionClosed, LoginFailed
from tests.soak import vandals
from tests.soak.storming import COMMON, RARE, TABLES, Actor, QuietConnection, Refused, Wrong
from tests.soak.vandals import Site, children

SECONDS = float(os.environ.get("HYPERDRIVE_SOAK_SECONDS", "60")) / 3
CLIENTS = int(os.environ.get("HYPERDRIVE_STORM_CLIENTS", "300"))
SEED = int(os.environ.get("HYPERDRIVE_STORM_SEED", "1"))
SERVERS = 20
ROOT = Path(__file__).parent.parent.parent

# What a client may be told that is nobody's fault: a lost server, no server in time, the end of a server or of a worker.
ALLOWED = {
    "calm": {"53300"},
    "rough": {"53300", "08006", "08007", "57P01", "57P02", "57P03", "25P02", "57014", "25006"},
}
OURS = re.compile(r"Traceback|Task exception|never retrieved|internal error|XX000|\berror\b [a-z.]+: [^!]")

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]


@dataclass
class Served:
    pid: int
    port: int
    admin_port: int
    log_path: Path

    def url(self, database: str = "app") -> str:
        return f"postgresql://{APP_USER}:{APP_PASSWORD}@127.0.0.1:{self.port}/{database}"

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(rf"{name}(\{{|\s)", line))

    def resident_bytes(self) -> int:
        """Of all our processes together; the origin is not among them."""
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in [self.pid, *children(self.pid)]]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def served(origin: str, directory: Path, workers: int, *arguments: str) -> AsyncIterator[Served]:
    log_path, admin_port = directory / "log", free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HYPERDRIVE_")}
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-m", "hyperdrive", "serve", origin, "--listen", "127.0.0.1:0"),
            *("--admin", f"127.0.0.1:{admin_port}", "--workers", str(workers), "--pool-size", str(SERVERS), *arguments),
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=directory,
            env={**environment, "PYTHONPATH": str(ROOT)},
        )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        assert line.startswith("ready "), line + log_path.read_text()
        port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        yield Served(process.pid, port, admin_port, log_path)
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


async def storm(me: Actor, allowed: set[str], until: float) -> None:
    """Deed after deed to the end; a connection that was lost is replaced."""
    while time.monotonic() < until:
        deed = me.chance.choice(COMMON if me.chance.random() < 0.85 else RARE)
        try:
            if me.conn is None:
                me.conn = await QuietConnection.to(me.url)
                me.settings, me.prepared = {}, {}
                await me.conn.login()
            await deed(me)
            me.count[deed.__name__] += 1
        except TimeoutError as error:
            raise Wrong(f"client {me.number} waits for ever in {deed.__name__}\n{me.wire.conversation()}") from error
        except LoginFailed as error:
            check_refusal(me, error.replies.errors[0], deed.__name__, allowed)
            await leave(me)
        except Refused as error:
            check_refusal(me, error.sqlstate, deed.__name__, allowed)
            await go_on(me)
        except (OSError, EOFError, ConnectionClosed):
            me.count[f"closed in {deed.__name__}"] += 1
            await leave(me)
        await asyncio.sleep(me.chance.random() * CLIENTS / 300)
    await leave(me)


def check_refusal(me: Actor, sqlstate: str, deed: str, allowed: set[str]) -> None:
    me.count[f"{sqlstate} in {deed}"] += 1
    if sqlstate not in allowed:
        raise Wrong(f"client {me.number} was told {sqlstate} in {deed}\n{me.wire.conversation()}")


async def go_on(me: Actor) -> None:
    """After an error: roll back, and see that it is over. Settings of a session survive the loss of a server."""
    try:
        replies = await me.wire.scope(b"Q\0\0\0\x0drollback\0")
        if replies.statuses != "I":
            raise Wrong(f"client {me.number}: ROLLBACK left {replies.statuses}\n{me.wire.conversation()}")
    except (OSError, EOFError, ConnectionClosed):
        await leave(me)


async def leave(me: Actor) -> None:
    conn, me.conn = me.conn, None
    if conn is not None:
        await conn.close()


async def disturb(site: Site, hands: tuple[vandals.Vandal, ...], until: float) -> None:
    while hands and time.monotonic() < until - 5:
        await asyncio.sleep(0.5 + site.chance.random() * 2)
        vandal = site.chance.choice(hands)
        site.count[f"vandal: {vandal.__name__}"] += 1
        try:
            await vandal(site)
        except psycopg.Error as error:
            site.count[f"console: {error.sqlstate}"] += 1


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("weather", ["calm", "gentle", "rough"])
async def test_every_client_gets_its_own_answer_or_a_clear_refusal(
    throwaway: Postgres, tmp_path: Path, weather: str, workers: int
) -> None:
    count: Counter[str] = Counter()
    hands = {"calm": (), "gentle": vandals.GENTLE, "rough": vandals.ROUGH}[weather]
    allowed = ALLOWED["rough" if weather == "rough" else "calm"]
    async with served(throwaway.app_url, tmp_path, workers) as proxy:
        async with await psycopg.AsyncConnection.connect(throwaway.app_url, autocommit=True) as conn:
            await conn.execute(TABLES.encode())
            await conn.execute("insert into tally select n, 0 from generate_series(0, %s) n", (CLIENTS,))
        until = time.monotonic() + SECONDS
        actors = [Actor(n, proxy.url(), random.Random(f"{SEED} {n}"), count) for n in range(CLIENTS)]
        site = Site(throwaway, proxy.url("hyperdrive"), proxy.pid, workers, random.Random(SEED), count)
        early = 0
        try:
            async with asyncio.TaskGroup() as group:
                for actor in actors:
                    group.create_task(storm(actor, allowed, until))
                group.create_task(disturb(site, hands, until))
                await asyncio.sleep(SECONDS / 2)
                early = proxy.resident_bytes()
        finally:
            for actor in actors:
                await leave(actor)
        grown = proxy.resident_bytes() - early
        print(sorted(count.items()), f"{early >> 20} MiB, {grown >> 20:+d} in the second half")
        await check_rows(throwaway, actors)
        await check_rest(throwaway, proxy)
    log = proxy.log_path.read_text()
    assert [] == [line for line in log.splitlines() if OURS.search(line)]
    assert count["add"] and count["transaction"] and count["named"]


async def check_rows(postgres: Postgres, actors: list[Actor]) -> None:
    """Everything that was acknowledged is there, and nothing that was refused."""
    async with await psycopg.AsyncConnection.connect(postgres.app_url, autocommit=True) as conn:
        tally = dict(await (await conn.execute("select owner, n from tally")).fetchall())
        notes: dict[int, set[int]] = {}
        for owner, n in await (await conn.execute("select owner, n from note")).fetchall():
            notes.setdefault(owner, set()).add(n)
    for actor in actors:
        known = actor.ledger
        assert known.tally <= tally[actor.number] <= known.tally + known.unknown, (actor.number, known)
        found = notes.get(actor.number, set())
        assert known.notes <= found <= known.notes | known.perhaps, (actor.number, known, found)


async def check_rest(postgres: Postgres, proxy: Served) -> None:
    """When all have left: servers idle and clean, nobody waits, pools within their size."""

    def in_transaction() -> str:
        return postgres.execute(
            "select coalesce(string_agg(pid || ' ' || state || ' ' || query, '; '), '') from pg_stat_activity"
            " where usename = 'app' and state <> 'idle'"
        )

    await eventually(lambda: in_transaction() == "", "every server is idle")
    assert "0" == postgres.execute(
        "select count(*) from pg_locks l join pg_stat_activity a using (pid) where usename = 'app' and a.pid <> pg_backend_pid()"
    )
    async with await psycopg.AsyncConnection.connect(proxy.url("hyperdrive"), autocommit=True) as conn:
        cursor = await conn.execute("show pools")
        names = [column.name for column in cursor.description or ()]
        pools = [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
    for pool in pools:
        print(pool)
    assert 0 == proxy.metric("hyperdrive_ledger_mismatch_total")
    async with await psycopg.AsyncConnection.connect(proxy.url(), autocommit=True) as fresh:
        row = await (
            await fresh.execute("select current_setting('application_name'), current_setting('work_mem')")
        ).fetchone()
        assert row == ("", "4MB"), row
