"""The console of a proxy at work: an administrator looks and acts while other clients go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg.rows import dict_row

from hyperdrive.app import App
from hyperdrive.config.entries import UserSettings
from hyperdrive.config.loader import Loader
from hyperdrive.testing import frontend, wire
from hyperdrive.testing.certs import Authority
from hyperdrive.testing.postgres import APP_PASSWORD, APP_USER, Postgres
from hyperdrive.testing.proxy import RunningProxy, running_proxy
from hyperdrive.testing.scene import eventually

Rows = list[dict[str, Any]]


class Admin:
    """A console client."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection

    async def __call__(self, command: str) -> Rows:
        cursor = self.connection.cursor(row_factory=dict_row)
        await cursor.execute(command)  # type: ignore[call-overload]
        return await cursor.fetchall() if cursor.description else []


def console_url(proxy: RunningProxy, user: str = APP_USER, password: str = APP_PASSWORD) -> str:
    return f"postgresql://{user}:{password}@127.0.0.1:{proxy.port}/hyperdrive"


async def client(proxy: RunningProxy, **parameters: str) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(proxy.url, autocommit=True, **parameters)  # type: ignore[arg-type]


@pytest.fixture
async def proxy(pg18: Postgres) -> AsyncIterator[RunningProxy]:
    async with running_proxy(pg18.app_url, pool_size=2, admin_listen="127.0.0.1:0") as running:
        yield running


@pytest.fixture
async def admin(proxy: RunningProxy) -> AsyncIterator[Admin]:
    connection = await psycopg.AsyncConnection.connect(console_url(proxy), autocommit=True)
    async with connection:
        yield Admin(connection)


async def test_clients_servers_and_statements_are_shown(proxy: RunningProxy, admin: Admin) -> None:
    async with await client(proxy, application_name="shop") as one, await client(proxy) as two:
        await one.execute("listen news")
        await two.execute("select %s::int", [1], prepare=True)
        rows = {row["application_name"]: row for row in await admin("SHOW CLIENTS")}
        assert ("active", "LISTEN") == (rows["shop"]["state"], rows["shop"]["pins"])
        assert ("idle", "", 1) == (rows[""]["state"], rows[""]["pins"], rows[""]["prepared_statements"])
        servers = await admin("SHOW SERVERS")
        (linked,) = [row for row in servers if row["link"]]
        assert (rows["shop"]["ptr"], rows["shop"]["link"]) == (linked["link"], linked["ptr"])
        (statement,) = await admin("SHOW PREPARED")
        assert ("select $1::int", 1, 1) == (statement["sql"], statement["clients"], statement["servers"])
        (pool,) = await admin("SHOW POOLS")
        assert (2, 0, 1) == (pool["cl_active"], pool["cl_waiting"], pool["sv_active"])
    names = [row["command"] for row in await admin("SHOW HELP")]
    for name in names:
        if name.startswith("SHOW "):
            await admin(name)


async def test_stats_count_transactions_and_round_trips_and_nothing_that_is_not_counted(
    proxy: RunningProxy, admin: Admin
) -> None:
    (before,) = [row for row in await admin("SHOW STATS") if row["database"] == "app"] or [None]
    async with await client(proxy) as one:
        for _ in range(3):
            await one.execute("select 1")
        async with one.transaction():
            await one.execute("select 1")
    (after,) = [row for row in await admin("SHOW STATS") if row["database"] == "app"]
    start = before or {"total_xact_count": 0, "total_round_trips": 0, "total_server_assignment_count": 0}
    assert 4 == after["total_xact_count"] - start["total_xact_count"]
    assert 4 == after["total_server_assignment_count"] - start["total_server_assignment_count"]
    assert 5 == after["total_round_trips"] - start["total_round_trips"]
    assert after["total_query_count"] is None
    assert after["total_received"] is None


async def test_pause_waits_for_transactions_and_resume_lets_clients_go_on(proxy: RunningProxy, admin: Admin) -> None:
    async with await client(proxy) as busy, await client(proxy) as idle:
        await busy.execute("begin")
        await busy.execute("select 1")
        pausing = asyncio.ensure_future(admin("PAUSE"))
        await eventually(lambda: proxy.pools.is_paused("app"), "PAUSE has begun")
        waiting = asyncio.ensure_future(idle.execute("select 1"))
        await eventually(lambda: sum(pool.waiting for pool in proxy.pools) == 1, "a client waits")
        assert not pausing.done()
        await busy.execute("commit")
        await pausing
        (row,) = [row for row in await admin("SHOW DATABASES") if row["name"] == "app"]
        assert (1, 0) == (row["paused"], row["current_connections"])
        assert not waiting.done()
        await admin("RESUME")
        await waiting


async def test_a_pause_that_is_overtaken_by_resume_ends_with_an_error(proxy: RunningProxy, admin: Admin) -> None:
    """It used to wait for ever: servers that are lent again need not come free all at once."""
    async with await client(proxy) as holder:
        await holder.execute("begin; select 1")
        pausing = asyncio.ensure_future(admin("PAUSE"))
        await eventually(lambda: proxy.pools.is_paused("app"), "PAUSE has begun")
        async with await psycopg.AsyncConnection.connect(console_url(proxy), autocommit=True) as other:
            await Admin(other)("RESUME")
        with pytest.raises(psycopg.errors.QueryCanceled):
            await asyncio.wait_for(pausing, 5)
        await holder.execute("select 2")


async def test_resume_of_one_database_does_not_end_a_pause_of_all(proxy: RunningProxy, admin: Admin) -> None:
    """It says so: whoever gave it believes that clients go on."""
    await admin("PAUSE")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="RESUME without a name"):
        await admin("RESUME app")
    await admin("RESUME")
    await admin("PAUSE app")
    await admin("RESUME app")
    async with await client(proxy) as conn:
        await conn.execute("select 1")


@pytest.mark.parametrize("command", ["PAUSE", "RESUME", "KILL", "RECONNECT", "DISABLE", "ENABLE"])
async def test_a_database_that_is_not_there_is_a_mistake(admin: Admin, command: str) -> None:
    with pytest.raises(psycopg.errors.InvalidCatalogName, match='no such database: "ap"'):
        await admin(f"{command} ap")


async def test_what_holds_for_a_database_is_shown_while_nobody_uses_it(proxy: RunningProxy, admin: Admin) -> None:
    await admin("DISABLE app")
    proxy.pools.close()
    assert [1] == [row["disabled"] for row in await admin("SHOW DATABASES") if row["name"] == "app"]


async def test_reconnect_replaces_servers(proxy: RunningProxy, admin: Admin) -> None:
    async with await client(proxy) as one:
        before = await (await one.execute("select pg_backend_pid()")).fetchone()
        await admin("RECONNECT app")
        assert before != await (await one.execute("select pg_backend_pid()")).fetchone()


async def test_kill_drops_clients_and_servers(proxy: RunningProxy, admin: Admin) -> None:
    async with await client(proxy) as one, await client(proxy) as two:
        running = asyncio.ensure_future(one.execute("select pg_sleep(30)"))
        await eventually(lambda: any(c.server for c in proxy.app.proxy.clients.values()), "the query runs")
        await admin("KILL")
        for what in (running, two.execute("select 1")):
            with pytest.raises(psycopg.OperationalError, match="administrator command"):
                await what
        assert not proxy.app.proxy.clients
        await admin("RESUME")
    async with await client(proxy) as three:
        await three.execute("select 1")


async def test_kill_client_drops_one(proxy: RunningProxy, admin: Admin) -> None:
    async with await client(proxy, application_name="one") as one, await client(proxy) as two:
        (row,) = [row for row in await admin("SHOW CLIENTS") if row["application_name"] == "one"]
        await admin(f"KILL_CLIENT {row['ptr']}")
        with pytest.raises(psycopg.errors.AdminShutdown):
            await one.execute("select 1")
        await two.execute("select 1")
        with pytest.raises(psycopg.errors.UndefinedObject):
            await admin(f"KILL_CLIENT {row['id']}")


async def test_disable_turns_new_clients_away(proxy: RunningProxy, admin: Admin) -> None:
    async with await client(proxy) as old:
        await admin("DISABLE app")
        with pytest.raises(psycopg.OperationalError, match='database "app" is not currently accepting connections'):
            await client(proxy)
        await old.execute("select 1")
        await admin("ENABLE app")
        await (await client(proxy)).close()


async def test_only_those_named_may_enter(pg18: Postgres) -> None:
    users = {"watcher": UserSettings(password="w"), "nobody": UserSettings(password="n")}
    async with running_proxy(pg18.app_url, users=users, stats_users="watcher") as proxy:
        with pytest.raises(psycopg.OperationalError, match="may not use the console"):
            await psycopg.AsyncConnection.connect(console_url(proxy, "nobody", "n"))
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await psycopg.AsyncConnection.connect(console_url(proxy, APP_USER, "wrong"))
        connection = await psycopg.AsyncConnection.connect(console_url(proxy, "watcher", "w"), autocommit=True)
        async with connection:
            watch = Admin(connection)
            assert await watch("SHOW POOLS")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await watch("PAUSE")
        assert not proxy.pools.is_paused("app")


async def test_asyncpg_may_be_the_console_client(proxy: RunningProxy) -> None:
    connection = await asyncpg.connect(console_url(proxy).replace("/hyperdrive", "/pgbouncer"))
    assert "app" in [row["database"] for row in await connection.fetch("SHOW POOLS")]
    await connection.close()


async def test_the_status_page_and_metrics(proxy: RunningProxy) -> None:
    async def get(path: str) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.app.admin_port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), body

    async with await client(proxy) as one:
        await one.execute("select 1")
        status, body = await get("/metrics")
        assert 200 == status
        for line in (
            b"hyperdrive_ledger_mismatch_total 0.0",
            b"hyperdrive_clients_admitted_total 1.0",
            b"hyperdrive_transactions_total 1.0",
            b"hyperdrive_origin_round_trips_total 1.0",
            b'hyperdrive_clients{state="active"} 1.0',
            b"hyperdrive_ready 1.0",
            b"hyperdrive_pool_opened_total",
        ):
            assert line in body, body.decode()
        assert (200, b"ready\n") == await get("/readyz")
        rows = json.loads((await get("/api/clients"))[1])
        assert [one.info.backend_pid] == [row["id"] for row in rows]


async def test_reload_changes_what_is_live_and_names_the_rest(pg18: Postgres, tmp_path: Path) -> None:
    file = tmp_path / "hyperdrive.toml"
    authority = Authority(tmp_path)
    first, second = authority.server(), authority.server()
    cert, key = tmp_path / "now.crt", tmp_path / "now.key"

    def write(text: str, files: Any) -> None:
        cert.write_bytes(Path(files.cert).read_bytes())
        key.write_bytes(Path(files.key).read_bytes())
        file.write_text(f'{text}\ntls_cert = "{cert}"\ntls_key = "{key}"\n[users]\nguest = "g"\n')

    write("pool_size = 1", first)
    flags = {"origin": pg18.app_url, "listen": "127.0.0.1:0", "admin_listen": "off"}
    loader = Loader(file, must_exist=True, flags=flags)
    async with App(loader.load(), loader=loader) as app:
        proxy = RunningProxy(app, f"postgresql://{APP_USER}:{APP_PASSWORD}@127.0.0.1:{app.port}/app")
        connection = await psycopg.AsyncConnection.connect(console_url(proxy), autocommit=True)
        admin = Admin(connection)
        notices: list[str] = []
        connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary or ""))
        async with connection, await client(proxy, sslmode="require") as one:
            write('pool_size = 3\nworkers = 2\nclient_idle_timeout = "1h"\nadmin_users = ["guest"]', second)
            await admin("RELOAD")
            assert ["after a restart only: workers"] == notices
            assert {3} == {pool.settings.pool_size for pool in proxy.pools}
            config = {row["key"]: row["value"] for row in await admin("SHOW CONFIG")}
            assert ("3", "1") == (config["pool_size"], config["workers"])
            guest = await psycopg.AsyncConnection.connect(console_url(proxy, "guest", "g"), autocommit=True)
            await guest.close()
            served = await asyncio.to_thread(certificate, app.port)
            assert second.der == served
            await one.execute("select 1")
            file.write_text("pool_size = 0")
            with pytest.raises(psycopg.Error, match="pool_size"):
                await admin("RELOAD")
            assert {3} == {pool.settings.pool_size for pool in proxy.pools}


def certificate(port: int) -> bytes:
    """What the listener shows."""
    import socket
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
        assert raw.recv(1) == b"S"
        with context.wrap_socket(raw) as tls:
            return tls.getpeercert(binary_form=True) or b""


@pytest.mark.parametrize(
    ("timeout", "sqlstate"), [("client_idle_timeout", "57P05"), ("idle_transaction_timeout", "25P03")]
)
async def test_idle_clients_are_ended(pg18: Postgres, timeout: str, sqlstate: str) -> None:
    """Not those that wait for a query, however long it takes, and not those that are idle in another way."""
    async with (
        running_proxy(pg18.app_url, pool_size=3, **{timeout: "0.4s"}) as proxy,
        await client(proxy) as idle,
        await client(proxy) as open_,
    ):
        await open_.execute("begin")
        busy = await client(proxy)
        await busy.execute("begin; select pg_sleep(1.2)" if timeout.startswith("client") else "select pg_sleep(1.2)")
        await busy.close()
        ended, kept = (idle, open_) if timeout.startswith("client") else (open_, idle)
        await eventually(lambda: proxy.metrics.clients_timed_out, "one is ended")  # a machine may stand still meanwhile
        with pytest.raises(psycopg.Error) as caught:
            await ended.execute("select 1")
        assert sqlstate == caught.value.sqlstate
        await kept.execute("select 1")
        assert 1 == proxy.metrics.clients_timed_out


async def test_max_client_connections(pg18: Postgres) -> None:
    async with running_proxy(pg18.app_url, max_client_connections=2) as proxy:
        async with await client(proxy), await client(proxy):
            with pytest.raises(psycopg.OperationalError, match="too many clients"):
                await client(proxy)
            connection = await psycopg.AsyncConnection.connect(console_url(proxy))  # for whoever looks after it
            await connection.close()
        await (await client(proxy)).close()


@pytest.mark.parametrize("state", ["held", "failed here", "read from the cache"])
async def test_shutdown_waits_for_transactions_that_no_server_knows(pg18: Postgres, state: str) -> None:
    """A BEGIN that was held back is a transaction like any other (W-63); who is idle is told at once."""
    async with (
        running_proxy(pg18.app_url, cache="on", cache_in_transactions="always") as proxy,
        await psycopg.AsyncConnection.connect(console_url(proxy), autocommit=True) as connection,
        await wire.connect(proxy.url) as held,
        await wire.connect(proxy.url) as idle,
    ):
        serving = asyncio.ensure_future(proxy.app.run())
        for _ in range(3):
            await held.query("select 1")
        await held.query("begin")
        if state == "failed here":
            assert (await held.query("select 1 from")).errors == ["42601"]
        elif state == "read from the cache":
            await held.query("select 1")
        await Admin(connection)("SHUTDOWN WAIT_FOR_SERVERS")
        assert (await idle.read_to_end()).errors == ["57P01"]
        assert not serving.done()
        if state == "failed here":
            assert (await held.query("select 2")).errors == ["25P02"]
        else:
            assert (await held.query("select txid_current() is not null")).rows == [("t",)]
        assert not serving.done()
        assert (await held.query("commit")).statuses == "I"
        assert (await held.read_to_end()).errors == ["57P01"]
        await asyncio.wait_for(serving, 5)


async def test_a_transaction_that_no_server_knows_does_not_stop_the_others(pg18: Postgres) -> None:
    """PAUSE and RECONNECT do not wait for it (W-63); RELOAD leaves it alone, KILL ends it."""
    async with (
        running_proxy(pg18.app_url, pool_size=1) as proxy,
        await psycopg.AsyncConnection.connect(console_url(proxy), autocommit=True) as connection,
        await wire.connect(proxy.url) as held,
    ):
        admin = Admin(connection)
        await held.query("begin isolation level repeatable read")
        await asyncio.wait_for(admin("PAUSE"), 2)
        held.send(frontend.query("select current_setting('transaction_isolation')"))
        assert await held.is_silent(0.2)
        await admin("RESUME")
        assert (await held.read_until("Z")).rows == [("repeatable read",)]
        await held.query("commit")
        await held.query("begin read only")
        await asyncio.wait_for(admin("RECONNECT"), 2)
        await admin("RELOAD")
        assert await held.value("select current_setting('transaction_read_only')") == "on"
        await held.query("commit")
        await held.query("begin")
        await admin("KILL")
        assert (await held.read_to_end()).errors == ["57P01"]
        await admin("RESUME")


@pytest.mark.parametrize("how", ["", " WAIT_FOR_SERVERS", " WAIT_FOR_CLIENTS"])
async def test_shutdown(pg18: Postgres, how: str) -> None:
    async with running_proxy(pg18.app_url) as proxy:
        serving = asyncio.ensure_future(proxy.app.run())
        one = await client(proxy)
        await one.execute("begin")
        connection = await psycopg.AsyncConnection.connect(console_url(proxy), autocommit=True)
        await Admin(connection)(f"SHUTDOWN{how}")
        if how:
            assert not serving.done()
            await one.execute("commit")
        if how.endswith("CLIENTS"):
            await one.execute("select 1")
            await one.close()
        await asyncio.wait_for(serving, 5)
        await connection.close()
        await one.close()
