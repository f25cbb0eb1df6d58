"""Other servers than the embedded ones, in containers: ``make matrix``. Skipped, with the reason, where no container engine answers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from tests.drivers.serve import serving

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]

POSTGRES = [f"postgres:{major}-alpine" for major in range(13, 19)] + ["timescale/timescaledb:latest-pg17"]


def _url(image: str) -> Iterator[str]:
    containers = pytest.importorskip("testcontainers.postgres")
    engine = shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    if not engine or engine.returncode:
        pytest.skip("no container engine answers")
    with containers.PostgresContainer(image, driver=None) as container:
        yield container.get_connection_url()


@pytest.fixture(params=POSTGRES)
def origin(request: pytest.FixtureRequest) -> Iterator[str]:
    """An origin of each image, by its URL."""
    yield from _url(request.param)


def test_a_version_does_real_work_through_the_proxy(origin: str) -> None:
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
