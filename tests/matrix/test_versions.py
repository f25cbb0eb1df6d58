"""Other servers than the embedded ones, in containers: ``make matrix``. Skipped, with the reason, where no container engine answers.

PostgreSQL 13 to 18, Timescale, and CockroachDB, which speaks the protocol and is no PostgreSQL: what it does not know of ours, such as
the question who a session is, must cost it nothing but the cache.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.drivers.serve import serving

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]

POSTGRES = [f"postgres:{major}-alpine" for major in range(13, 19)] + ["timescale/timescaledb:latest-pg17"]
COCKROACH = "cockroachdb/cockroach:latest-v24.3"
COCKROACH_PORT = 26257
START_SECONDS = 120.0


def containers(module: str) -> Any:
    """A module of testcontainers, where an engine answers."""
    found = pytest.importorskip(module)
    engine = shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    if not engine or engine.returncode:
        pytest.skip("no container engine answers")
    return found


@pytest.fixture(params=POSTGRES)
def postgres_image(request: pytest.FixtureRequest) -> Iterator[str]:
    """An origin of each image, by its URL."""
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


def test_a_version_does_real_work_through_the_proxy(postgres_image: str) -> None:
    real_work(postgres_image)


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
