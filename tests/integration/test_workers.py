"""Several workers behind one port, started as people start them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from hyperdrive.config.entries import DatabaseSettings
from hyperdrive.config.settings import Settings
from hyperdrive.config.shares import share
from hyperdrive.errors import ConfigError
from hyperdrive.testing.postgres import APP_PASSWORD, APP_USER, Postgres
from hyperdrive.testing.scene import eventually

ROOT = Path(__file__).parent.parent.parent

ASK = "select clock_timestamp()"
"""Never answered from the cache."""

ASLEEP = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query = 'select pg_sleep(22)'"
"""Others that sleep on the same server may be of a test before."""


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@dataclass
class Served:
    process: asyncio.subprocess.Process
    port: int

    @property
    def workers(self) -> list[int]:
        return children(self.process.pid)

    def url(self, database: str = "app") -> str:
        return f"postgresql://{APP_USER}:{APP_PASSWORD}@127.0.0.1:{self.port}/{database}"

    async def client(self, **parameters: str) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(self.url(), autocommit=True, **parameters)  # type: ignore[arg-type]

    async def console(self, command: str) -> list[dict[str, Any]]:
        connection = await psycopg.AsyncConnection.connect(self.url("hyperdrive"), autocommit=True)
        async with connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(command)  # type: ignore[call-overload]
            return await cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def served(origin: str, directory: Path, *arguments: str, workers: int = 2) -> AsyncIterator[Served]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HYPERDRIVE_")}
    said = directory / "stderr.txt"
    log = said.open("wb")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hyperdrive", "serve", origin, "--listen", "127.0.0.1:0", "--workers", str(workers)),
        *(arguments if "--admin" in arguments else ("--admin", "off", *arguments)),
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=directory,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )
    log.close()
    assert process.stdout is not None
    found: list[int] = []
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        assert line.startswith("ready postgresql://app@127.0.0.1:"), said.read_text()
        one = Served(process, int(line.partition("127.0.0.1:")[2].partition("/")[0]))
        found = one.workers
        assert workers == len(found)
        yield one
        found += one.workers if process.returncode is None else []
    finally:
        if process.returncode is None:
            process.terminate()
        rest = await asyncio.wait_for(process.stdout.read(), 20)
        code = await asyncio.wait_for(process.wait(), 20)
        await eventually(lambda: not any(map(is_alive, found)), "no worker is left")
    assert b"" == rest
    assert code in (0, -signal.SIGKILL)


@pytest.fixture
def sizes() -> Settings:
    return Settings(
        pool_size=5, min_pool_size=1, max_server_connections=7, databases={"d": DatabaseSettings(pool_size=3)}
    )


def test_limits_are_divided_so_that_their_sum_is_what_was_configured(sizes: Settings) -> None:
    parts = [share(sizes, number, 2) for number in range(2)]
    assert [3, 2] == [part.pool_size for part in parts]
    assert [1, 0] == [part.min_pool_size for part in parts]
    assert [4, 3] == [part.max_server_connections for part in parts]
    assert [0, 0] == [part.max_db_connections for part in parts]
    assert [2, 1] == [part.databases["d"].pool_size for part in parts]
    with pytest.raises(ConfigError, match=r"4 workers cannot share databases\.d\.pool_size = 3"):
        share(sizes, 0, 4)


async def spread(one: Served, wanted: int = 2) -> list[psycopg.AsyncConnection[Any]]:
    """Clients, until each worker has at least one; the kernel chooses by port number."""
    clients: list[psycopg.AsyncConnection[Any]] = []
    while len({client.info.backend_pid & 0xFF for client in clients}) < wanted:
        clients.append(await one.client())
        assert len(clients) < 60
    return clients


async def test_the_console_shows_and_steers_all_workers(pg18: Postgres, tmp_path: Path) -> None:
    async with served(pg18.app_url, tmp_path, "--pool-size", "4") as one:
        clients = await spread(one)
        for client in clients:
            await client.execute(ASK)
        shown = {row["id"] for row in await one.console("SHOW CLIENTS")}
        assert {client.info.backend_pid for client in clients} == shown
        (database,) = [row for row in await one.console("SHOW DATABASES") if row["name"] == "app"]
        assert (4, len(clients)) == (database["pool_size"], database["current_client_connections"])
        (stats,) = [row for row in await one.console("SHOW STATS") if row["database"] == "app"]
        assert len(clients) == stats["total_xact_count"]
        assert {"2"} == {row["value"] for row in await one.console("SHOW CONFIG") if row["key"] == "workers"}
        await one.console("PAUSE")
        waiting = [asyncio.ensure_future(client.execute(ASK)) for client in clients]
        done, _ = await asyncio.wait(waiting, timeout=0.1)
        assert not done
        await one.console("RESUME")
        await asyncio.gather(*waiting)
        victims = {client.info.backend_pid & 0xFF: client for client in clients}
        for victim in victims.values():
            await one.console(f"KILL_CLIENT {victim.info.backend_pid}")
            with pytest.raises(psycopg.errors.AdminShutdown):
                await victim.execute(ASK)
        for client in clients:
            await client.close()


async def test_a_cancel_request_finds_the_worker_of_its_client(pg18: Postgres, tmp_path: Path) -> None:
    """The kernel hands it to any worker; each of several goes through."""
    async with served(pg18.app_url, tmp_path) as one:
        client = await one.client()
        for _ in range(6):
            running = asyncio.ensure_future(client.execute("select pg_sleep(22)"))
            await eventually(
                lambda: "1" == pg18.execute(ASLEEP),
                "the query runs",
            )
            await client.cancel_safe(timeout=5)
            with pytest.raises(psycopg.errors.QueryCanceled):
                await running
        await client.close()


async def test_a_worker_that_dies_is_started_anew(pg18: Postgres, tmp_path: Path) -> None:
    async with served(pg18.app_url, tmp_path) as one:
        before = one.workers
        os.kill(before[0], signal.SIGKILL)
        await eventually(lambda: len(one.workers) == 2 and before[0] not in one.workers, "a new worker")
        for client in await spread(one):
            await client.execute("select 1")
            await client.close()


async def reborn(one: Served) -> None:
    """Each worker in turn is killed and started anew."""
    for victim in one.workers:
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: victim not in one.workers and len(one.workers) == 2, "there are two again")  # noqa: B023
        await eventually(lambda: both_answer(one), "both answer")


async def both_answer(one: Served) -> bool:
    seen = set()
    for _ in range(12):
        async with await psycopg.AsyncConnection.connect(one.url("hyperdrive"), autocommit=True) as connection:
            seen.add(connection.info.backend_pid & 0xFF)
    return len(seen) == 2


async def asked(one: Served) -> None:
    client = await one.client()
    await client.execute(ASK)
    await client.close()


async def test_a_worker_started_anew_holds_to_what_was_commanded(pg18: Postgres, tmp_path: Path) -> None:
    configuration = tmp_path / "hyperdrive.toml"
    configuration.write_text('log_level = "info"\nmax_age = "60s"\n')
    async with served(pg18.app_url, tmp_path, "--config", str(configuration)) as one:
        await one.console("PAUSE")
        configuration.write_text('log_level = "info"\nmax_age = "17s"\n')
        await one.console("RELOAD")
        await reborn(one)
        waiting = [asyncio.ensure_future(asked(one)) for _ in range(8)]
        done, _ = await asyncio.wait(waiting, timeout=0.3)
        assert not done
        assert {"17s"} == {row["value"] for row in await one.console("SHOW CONFIG") if row["key"] == "max_age"}
        await one.console("RESUME")
        await asyncio.gather(*waiting)
        await one.console("DISABLE app")
        await reborn(one)
        for _ in range(8):
            with pytest.raises(psycopg.OperationalError, match="not currently accepting"):
                await one.client()


async def test_workers_end_when_the_supervisor_is_killed(pg18: Postgres, tmp_path: Path) -> None:
    async with served(pg18.app_url, tmp_path) as one:
        one.process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_end_all(pg18: Postgres, tmp_path: Path, number: signal.Signals) -> None:
    """The block's end checks that no process is left and that nothing but the ready line was printed."""
    async with served(pg18.app_url, tmp_path) as one:
        client = await one.client()
        one.process.send_signal(number)
        assert 0 == await asyncio.wait_for(one.process.wait(), 10)
        await client.close()


async def test_shutdown_ends_all(pg18: Postgres, tmp_path: Path) -> None:
    async with served(pg18.app_url, tmp_path) as one:
        await one.console("SHUTDOWN")
        assert 0 == await asyncio.wait_for(one.process.wait(), 10)


async def test_hangup_reloads_all(pg18: Postgres, tmp_path: Path) -> None:
    (tmp_path / "hyperdrive.toml").write_text("pool_size = 4\n")
    async with served(pg18.app_url, tmp_path) as one:
        (tmp_path / "hyperdrive.toml").write_text("pool_size = 6\n")
        one.process.send_signal(signal.SIGHUP)

        async def is_changed() -> bool:
            rows = await one.console("SHOW CONFIG")
            return [row["value"] for row in rows if row["key"] == "pool_size"] == ["6"]

        for _ in range(4):
            await eventually(is_changed, "each worker has read it")


async def test_more_workers_than_can_share_is_a_mistake(pg18: Postgres, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hyperdrive", "serve", pg18.app_url, "--listen", "127.0.0.1:0", "--admin", "off"),
        *("--workers", "3", "--pool-size", "2"),
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    _, err = await process.communicate()
    assert 2 == process.returncode
    assert b"3 workers cannot share pool_size = 2" in err


async def test_metrics_of_all_workers_behind_one_admin_port(pg18: Postgres, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with served(pg18.app_url, tmp_path, "--admin", f"127.0.0.1:{port}") as one:
        clients = await spread(one)
        for client in clients:
            await client.execute(ASK)
        for _ in range(4):  # whichever worker answers
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            text = (await reader.read()).decode()
            writer.close()
            await writer.wait_closed()
            assert f"hyperdrive_transactions_total {len(clients)}.0" in text
            assert f'hyperdrive_clients{{state="active"}} {len(clients)}.0' in text
            assert "hyperdrive_ready 1.0" in text
        for client in clients:
            await client.close()
