"""Logging in through the proxy with drivers, each way that the README promises."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pg8000.native
import psycopg
import pytest
import scramp

from hyperdrive.config.entries import UserSettings
from hyperdrive.pgwire.messages import READY_IDLE
from hyperdrive.pgwire.startup import AUTH_OK, authentication
from hyperdrive.proxy.auth import DEFAULT_AUTH_QUERY
from hyperdrive.proxy.front_door import FrontDoor
from hyperdrive.testing.certs import Authority
from hyperdrive.testing.postgres import APP_DATABASE, APP_PASSWORD, APP_USER, Postgres
from hyperdrive.testing.proxy import RunningProxy, running_proxy

WHO = "select current_user || ' in ' || current_database()"


async def who(proxy: RunningProxy, **conninfo: str) -> str:
    """Log in with libpq as ``app``, unless *conninfo* says otherwise; ask the origin who that is."""
    given = {"user": APP_USER, "password": APP_PASSWORD, "dbname": APP_DATABASE, "host": proxy.host}
    conn = await psycopg.AsyncConnection.connect(port=proxy.port, **{**given, **conninfo})  # type: ignore[arg-type]
    async with conn:
        row = await (await conn.execute(WHO)).fetchone()
        assert row is not None
        return str(row[0])


async def test_the_origins_user_logs_in_to_any_database(postgres: Postgres) -> None:
    async with running_proxy(postgres.app_url) as proxy:
        assert "app in app" == await who(proxy)
        assert "app in postgres" == await who(proxy, dbname="postgres")


class Recorded:
    """A transport that remembers what was written to it."""

    def __init__(self, transport: Any, written: list[bytes]) -> None:
        self._transport, self._written = transport, written

    def write(self, data: bytes) -> None:
        self._written.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def test_the_end_of_a_login_is_one_packet(pg18: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """AuthenticationOk and the greeting wake the client once, when what it is to be told is known already."""
    written: list[bytes] = []
    made = FrontDoor.connection_made
    monkeypatch.setattr(FrontDoor, "connection_made", lambda door, raw: made(door, Recorded(raw, written)))
    async with running_proxy(pg18.app_url) as proxy:
        assert "app in app" == await who(proxy)
        del written[:]
        assert "app in app" == await who(proxy)
    ok = authentication(AUTH_OK)
    (last,) = [data for data in written if ok in data]
    assert last.endswith(READY_IDLE)


@pytest.mark.parametrize("method", ["scram", "md5"])
async def test_wrong_passwords_and_unknown_users_hear_the_same(pg18: Postgres, method: str) -> None:
    async with running_proxy(pg18.app_url, auth_method=method) as proxy:
        for user in (APP_USER, "nobody"):
            with pytest.raises(asyncpg.InvalidPasswordError) as caught:
                await asyncpg.connect(host=proxy.host, port=proxy.port, user=user, password="wrong", database="app")
            assert f'password authentication failed for user "{user}"' == str(caught.value)


async def test_few_iterations_let_in_who_accepts_them(pg18: Postgres) -> None:
    """libpq and asyncpg take any count, as PostgreSQL 16's setting supposes; pg8000 wants 4096 at least."""
    async with running_proxy(pg18.app_url, scram_iterations=1) as proxy:
        assert "app in app" == await who(proxy)
        login: dict[str, Any] = {"host": proxy.host, "port": proxy.port, "user": APP_USER, "database": "app"}
        conn = await asyncpg.connect(**login, password=APP_PASSWORD)
        assert "app in app" == await conn.fetchval(WHO)
        await conn.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(**login, password="wrong")
        with pytest.raises(scramp.ScramException, match="4096"):
            await asyncio.to_thread(pg8000.native.Connection, **login, password=APP_PASSWORD)


async def test_the_origins_refusal_reaches_the_client(pg18: Postgres) -> None:
    async with running_proxy(pg18.app_url) as proxy:
        with pytest.raises(asyncpg.InvalidCatalogNameError, match='database "nowhere" does not exist'):
            await asyncpg.connect(
                host=proxy.host, port=proxy.port, user=APP_USER, password=APP_PASSWORD, database="nowhere"
            )


async def test_w07_users_of_the_origin_log_in_with_nothing_configured(postgres: Postgres) -> None:
    """auth_query gives the secret, the client's own proof gives the key with which its pool logs in."""
    async with running_proxy(postgres.url, auth_query=DEFAULT_AUTH_QUERY) as proxy:
        assert "app in app" == await who(proxy)
        assert "app in postgres" == await who(proxy, dbname="postgres")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await who(proxy, password="wrong")
        assert "app in app" == await who(proxy)


async def test_w07_a_role_whose_password_expired(pg18: Postgres) -> None:
    pg18.execute("create role w07_late login password 'x' valid until '2001-01-01'")
    try:
        async with running_proxy(pg18.url, auth_query=DEFAULT_AUTH_QUERY) as proxy:
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                await who(proxy, user="w07_late", password="x")
    finally:
        pg18.execute("drop role w07_late")


async def test_users_of_the_configuration(pg18: Postgres) -> None:
    """A password, or the secret as it stands in pg_authid, with which the origin is reached as well."""
    stored = pg18.execute(f"select rolpassword from pg_authid where rolname = '{APP_USER}'").strip()
    for password in (APP_PASSWORD, stored):
        async with running_proxy(pg18.url, users={APP_USER: UserSettings(password=password)}) as proxy:
            assert "app in app" == await who(proxy)


@pytest.mark.parametrize("method", ["scram", "md5", "password"])
async def test_methods_over_tls(pg18: Postgres, tmp_path: Path, method: str) -> None:
    authority = Authority(tmp_path)
    files = authority.server()
    async with running_proxy(
        pg18.app_url, auth_method=method, tls_cert=files.cert, tls_key=files.key, tls_require=True
    ) as proxy:
        binding = "require" if method == "scram" else "prefer"
        verified = {"sslmode": "verify-full", "sslrootcert": authority.root}
        assert "app in app" == await who(proxy, channel_binding=binding, **verified)
        if psycopg.pq.version() >= 170000:
            assert "app in app" == await who(proxy, sslnegotiation="direct", **verified)
        with pytest.raises(psycopg.OperationalError, match="encrypted connections only"):
            await who(proxy, sslmode="disable")


async def test_certificates_instead_of_passwords(pg18: Postgres, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files, mine, other = authority.server(), authority.client(APP_USER), authority.client("somebody")
    async with running_proxy(
        pg18.app_url, auth_method="cert", tls_cert=files.cert, tls_key=files.key, tls_client_ca=authority.root
    ) as proxy:
        verified = {"sslmode": "verify-full", "sslrootcert": authority.root, "password": ""}
        assert "app in app" == await who(proxy, sslcert=mine.cert, sslkey=mine.key, **verified)
        with pytest.raises(psycopg.OperationalError, match="certificate authentication failed"):
            await who(proxy, sslcert=other.cert, sslkey=other.key, **verified)


async def test_trust_on_this_machine(pg18: Postgres) -> None:
    async with running_proxy(pg18.app_url, auth_method="trust") as proxy:
        assert "app in app" == await who(proxy, password="anything")
