"""Other servers than the embedded ones: ``make matrix``, in containers, or on servers that are there.

PostgreSQL 13 to 18, Timescale, and CockroachDB, which speaks the protocol and is no PostgreSQL: what it does not know of ours, such as
the question who a session is, must cost it nothing but the cache. ``MATRIX_URLS`` names PostgreSQL servers of any version that run
already, by superusers' URLs with blanks in between; then no container is asked for. Skipped where neither is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from difflib import unified_diff
from typing import Any

import psycopg
import pytest

from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.proxy import running_proxy
from hyperdrive.testing.script import Script, run_script
from hyperdrive.testing.wire import connect
from tests.conformance import test_copy, test_extended, test_settings, test_simple, test_transactions
from tests.conformance.conftest import RESET_TABLES
from tests.drivers.serve import serving

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]

URLS = os.environ.get("MATRIX_URLS", "").split()
IMAGES = [f"postgres:{major}-alpine" for major in range(13, 19)] + ["timescale/timescaledb:latest-pg17"]
COCKROACH = "cockroachdb/cockroach:latest-v24.3"
COCKROACH_PORT = 26257
START_SECONDS = 120.0

SCRIPTS = [
    pytest.param(script, id=f"{module.__name__.rpartition('_')[2]}-{script}")
    for module in (test_simple, test_extended, test_transactions, test_settings, test_copy)
    for script in module.SCRIPTS
]


def containers(module: str) -> Any:
    """A module of testcontainers, where an engine answers."""
    found = pytest.importorskip(module)
    engine = shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    if not engine or engine.returncode:
        pytest.skip("no container engine answers, and MATRIX_URLS is not set")
    return found


@pytest.fixture(scope="module", params=URLS or IMAGES, ids=lambda name: name.rpartition("@")[2].partition("?")[0])
def origin(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each PostgreSQL in turn, by a superuser's URL."""
    if URLS:
        yield request.param
        return
    with containers("testcontainers.postgres").PostgresContainer(request.param, driver=None) as container:
        yield container.get_connection_url()


@pytest.fixture
def cockroach() -> Iterator[str]:
    """A single node without passwords and without TLS, by its URL."""
    container = containers("testcontainers.core.container").DockerContainer(COCKROACH)
    container.with_command("start-single-node --insecure").with_exposed_ports(COCKROACH_PORT)
    with container:
        host, port = container.get_container_host_ip(), container.get_exposed_port(COCKROACH_PORT)
        url = f"postgresql://root@{host}:{port}/defaultdb?sslmode=disable"
        wait_for(url)
        yield url


def wait_for(url: str) -> None:
    """Until the server takes clients."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def major_of(url: str) -> int:
    """The major version of the server."""
    with psycopg.connect(url) as connection:
        return connection.info.server_version // 10_000


async def test_a_version_does_real_work_through_the_proxy(origin: str) -> None:
    real_work(await database_of(origin, "matrix_work"))


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_version_says_the_same_direct_and_through_us(origin: str, script: Script) -> None:
    """Every conversation of the differential tests, message by message."""
    if major_of(origin) not in script.versions:
        pytest.skip("says nothing about this version")
    url = await database_of(origin, "matrix_talk")
    setup = RESET_TABLES + script.setup
    await run_sql(url, setup)
    expected = await run_script(script, url)
    await run_sql(url, setup)
    async with running_proxy(url, pool_size=script.servers) as proxy:
        got = await run_script(script, proxy.url)
    difference = "\n".join(unified_diff(expected, got, "direct", "through us", n=3, lineterm=""))
    assert not difference, f"{script.name}\n{difference[:4000]}"


async def test_what_a_scope_wrote_is_there_whatever_settings_go_ahead(origin: str) -> None:
    """W-13 lies between 16 and 18: a SET ahead of a client's Query must not cost its INSERT."""
    url = await database_of(origin, "matrix_talk")
    await run_sql(url, RESET_TABLES)
    async with running_proxy(url, pool_size=1) as proxy, await connect(proxy.url) as a, await connect(proxy.url) as b:
        for n in range(10, 15):
            await a.query(f"set timezone = '{n - 12:+d}'")
            await b.query("select 1")
            assert (await a.query(f"insert into t values ({n}, 'a')")).errors == []
        async with await connect(url) as direct:
            assert await direct.value("select count(*) from t where id >= 10") == "5"


def test_cockroach_does_real_work_through_the_proxy(cockroach: str) -> None:
    real_work(cockroach)


def real_work(origin: str) -> None:
    """Two clients on one server: transactions, prepared statements, settings, COPY and errors."""
    with (
        serving(origin, pool_size=1) as url,
        psycopg.connect(url, autocommit=True) as a,
        psycopg.connect(url, autocommit=True) as b,
    ):
        a.execute("create table t (id int primary key, v text)")
        a.execute("set timezone = 'Asia/Tokyo'")
        for n in range(20):
            a.execute("insert into t values (%s, %s)", (n, f"v{n}"), prepare=True)
            row = b.execute("select v from t where id = %s", (n,), prepare=True).fetchone()
            assert row == (f"v{n}",)
        assert a.execute("show timezone").fetchone() == ("Asia/Tokyo",)
        assert b.execute("show timezone").fetchone() != ("Asia/Tokyo",)
        with pytest.raises(psycopg.errors.UniqueViolation):
            a.execute("insert into t values (1, 'again')")
        with a.transaction(force_rollback=True):
            a.execute("delete from t")
        with b.cursor().copy("copy t to stdout") as copy:
            assert len(list(copy.rows())) == 20
