"""How server connections come about, and which clients need no password."""

from __future__ import annotations

import asyncio

import asyncpg
import psycopg
import pytest

from hyperdrive.pgwire.startup import PROTOCOL_3_0, PROTOCOL_3_2
from hyperdrive.testing.fake_origin import FakeOrigin, FakeSession
from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.proxy import running_proxy
from hyperdrive.testing.scene import eventually

# Whoever reads the catalog connects as well, and connections are counted here.
NO_CATALOG = {"cache": "off", "known_answers": False, "eager_commit": False}


async def ask(url: str) -> object:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await connection.fetchval("select 1")
    finally:
        await connection.close()


async def test_an_origin_that_hangs_up_on_protocol_3_2_gets_3_0() -> None:
    """Once it has shown so, it is asked for 3.0 at once."""
    async with FakeOrigin() as origin:

        async def login(session: FakeSession) -> None:
            if session.version == PROTOCOL_3_2:
                await session.close()
            else:
                await origin.welcome(session)

        origin.login = login
        async with running_proxy(origin.url, pool_size=2, **NO_CATALOG) as proxy:
            connection = await psycopg.AsyncConnection.connect(proxy.url)
            await connection.close()
            proxy.pools.reconnect()
            connection = await psycopg.AsyncConnection.connect(proxy.url)
            await connection.execute("select 1")
            await connection.close()
        assert [PROTOCOL_3_2, PROTOCOL_3_0, PROTOCOL_3_0] == [session.version for session in origin.sessions][:3]


async def test_an_origin_that_hangs_up_on_every_version_is_not_asked_for_ever() -> None:
    async with FakeOrigin() as origin:
        origin.login = FakeSession.close
        async with running_proxy(origin.url, query_wait_timeout="0.2s", backoff_first="10s", **NO_CATALOG) as proxy:
            with pytest.raises(psycopg.OperationalError):
                await psycopg.AsyncConnection.connect(proxy.url)
        assert [PROTOCOL_3_2, PROTOCOL_3_0] == [session.version for session in origin.sessions]


async def test_a_refusal_in_clear_is_not_taken_for_one_over_tls() -> None:
    """sslmode=prefer against an origin without TLS: the second attempt would be the first one again."""
    async with FakeOrigin() as origin:
        fields = b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry\0\0"
        origin.refusal = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields
        url = origin.url.replace("sslmode=disable", "sslmode=prefer")
        async with running_proxy(url, refused_retry="10s", **NO_CATALOG) as proxy:
            with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
                await psycopg.AsyncConnection.connect(proxy.url)
        assert 1 == len(origin.sessions)


async def test_a_server_that_is_asked_for_its_defaults_when_the_pool_ends_is_closed() -> None:
    """It is logged in and nobody's yet: who opens it has to close it, or its socket stays for as long as the process."""
    async with FakeOrigin() as origin:
        asked = asyncio.Event()

        async def say_nothing(session: FakeSession) -> None:
            asked.set()
            await session.read()

        origin.on("show", say_nothing)
        async with running_proxy(origin.url, **NO_CATALOG):
            await asyncio.wait_for(asked.wait(), 5)
        await eventually(lambda: not origin.alive)


async def test_nobody_is_trusted_behind_a_listener_that_is_open_to_the_network() -> None:
    """The peer is on loopback, but so is a relay that brings in strangers."""
    async with FakeOrigin() as origin:
        async with running_proxy(origin.url) as proxy:
            connection = await psycopg.AsyncConnection.connect(proxy.url)
            await connection.close()
        async with running_proxy(origin.url, listen="0.0.0.0:0") as proxy:
            with pytest.raises(psycopg.OperationalError, match=r"no password supplied|password authentication failed"):
                await psycopg.AsyncConnection.connect(proxy.url)


async def test_auth_query_default(pg18: Postgres) -> None:
    async with running_proxy(pg18.url, auth_query="default") as proxy:
        url = f"postgresql://{pg18.user}:{pg18.password}@127.0.0.1:{proxy.port}/{pg18.database}"
        assert 1 == await ask(url)
