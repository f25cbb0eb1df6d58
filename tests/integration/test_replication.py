"""Replication connections go through, each with a server of its own (W-48)."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.proxy import RunningProxy, running_proxy
from hyperdrive.testing.scene import eventually

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

ASLEEP = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query = 'select pg_sleep(21)'"
"""Others that sleep on the same server may be of a test before."""


@pytest.fixture
async def proxy(postgres: Postgres) -> AsyncIterator[RunningProxy]:
    async with running_proxy(postgres.url) as running:
        yield running


async def run(program: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        str(program), *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


async def test_w48_identify_system(postgres: Postgres, proxy: RunningProxy) -> None:
    """psql "replication=database": a walsender answers, and plain SQL works beside its commands."""
    process = await run(
        postgres.program("psql"),
        f"{proxy.url}?replication=database&application_name=walker",
        "-XAtc",
        "IDENTIFY_SYSTEM",
        "-c",
        "select current_database(), current_setting('application_name')",
    )
    out, err = await process.communicate()
    assert 0 == process.returncode, err
    identified, asked = out.decode().splitlines()
    assert "postgres" == identified.split("|")[3]
    assert "postgres|walker" == asked


async def test_w48_pg_receivewal_and_pg_recvlogical(postgres: Postgres, proxy: RunningProxy, tmp_path: Path) -> None:
    """Physical and logical streams at the same time, and neither takes a place in a pool."""
    slot = "w48_slot"
    postgres.execute("create table w48 (x text); create publication w48 for table w48", "postgres")
    postgres.execute(f"select pg_create_logical_replication_slot('{slot}', 'pgoutput')", "postgres")
    options = ["-o", "proto_version=1", "-o", "publication_names=w48"]
    received = tmp_path / "changes"
    logical = await run(
        postgres.program("pg_recvlogical"),
        *options,
        "-d",
        proxy.url,
        "-S",
        slot,
        "--start",
        "-f",
        str(received),
        "-F",
        "0",
        "-s",
        "1",
    )
    physical = await run(
        postgres.program("pg_receivewal"), "-d", proxy.url, "-D", str(tmp_path), "--no-loop", "--synchronous"
    )
    try:
        await eventually(lambda: 2 == len(proxy.app.proxy.relays), "both are connected")
        assert {"logical", "physical"} == {relay.kind for relay in proxy.app.proxy.relays.values()}
        await asyncio.to_thread(postgres.execute, "insert into w48 values ('the change')", "postgres")
        await eventually(lambda: received.exists() and b"the change" in received.read_bytes(), "the change arrives")
        await eventually(lambda: list(tmp_path.glob("0000*")), "the log arrives")
    finally:
        for process in (logical, physical):
            process.terminate()
            await process.communicate()
    await eventually(lambda: not proxy.app.proxy.relays, "nothing is left")
    await eventually(
        lambda: (
            "f" == postgres.execute(f"select active from pg_replication_slots where slot_name = '{slot}'", "postgres")
        ),
        "the slot is free",
    )
    postgres.execute(f"select pg_drop_replication_slot('{slot}'); drop publication w48; drop table w48", "postgres")


async def test_w48_cancel(pg18: Postgres) -> None:
    async with running_proxy(pg18.url) as proxy:
        connection = await psycopg.AsyncConnection.connect(f"{proxy.url}?replication=database", autocommit=True)
        async with connection:
            cursor = psycopg.AsyncClientCursor(connection)
            running = asyncio.ensure_future(cursor.execute("select pg_sleep(21)"))
            await eventually(
                lambda: "1" == pg18.execute(ASLEEP),
                "the query runs",
            )
            await connection.cancel_safe(timeout=5)
            with pytest.raises(psycopg.errors.QueryCanceled):
                await running


async def test_w48_the_origins_refusal_is_told(pg18: Postgres) -> None:
    """``app`` has no right to replicate."""
    async with running_proxy(pg18.app_url) as proxy:
        with pytest.raises(psycopg.OperationalError, match=r"permission denied to start WAL sender"):
            await psycopg.AsyncConnection.connect(f"{proxy.url}?replication=true")
        with pytest.raises(psycopg.OperationalError, match=r'invalid value for parameter "replication"'):
            await psycopg.AsyncConnection.connect(f"{proxy.url}?replication=maybe")
        assert not proxy.app.proxy.relays


async def test_w48_limits_count_them(pg18: Postgres) -> None:
    async with running_proxy(pg18.url, max_server_connections=1, min_pool_size=0) as proxy:
        first = await psycopg.AsyncConnection.connect(f"{proxy.url}?replication=database", autocommit=True)
        with pytest.raises(psycopg.OperationalError, match="no server connection is left"):
            await psycopg.AsyncConnection.connect(f"{proxy.url}?replication=database")
        await first.close()
        await eventually(lambda: 0 == proxy.pools.limits.used(), "the place is free again")
