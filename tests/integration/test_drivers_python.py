"""Python drivers, psql and pgbench do their ordinary work through the proxy.

Every check of ``tests/drivers/<name>/program.py`` is a test here. More clients than servers are connected in many of
them, so servers really change hands in between; the programs themselves know nothing of a proxy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from hyperdrive.testing.postgres import Postgres
from tests.drivers.asyncpg.program import PROGRAM as ASYNCPG
from tests.drivers.common import Check, Program, in_threads, name_of, run_check
from tests.drivers.pg8000.program import PROGRAM as PG8000
from tests.drivers.pgbench.program import PROGRAM as PGBENCH
from tests.drivers.psql.program import PROGRAM as PSQL
from tests.drivers.psycopg2.program import PROGRAM as PSYCOPG2
from tests.drivers.psycopg3.program import PROGRAM as PSYCOPG3
from tests.drivers.serve import ROOT, serving
from tests.drivers.sqlalchemy.program import PROGRAM as SQLALCHEMY

POOL_SIZE = 2
"""Fewer than any check has clients where it counts, so servers change hands between them."""


@pytest.fixture(scope="module")
def proxy_url(pg18: Postgres) -> Iterator[str]:
    with serving(pg18.app_url, pool_size=POOL_SIZE) as url:
        yield url


def cases(*programs: Program) -> list[object]:
    return [
        pytest.param(check, id=f"{program.driver.replace(' ', '')}-{name_of(check)}")
        for program in programs
        for check in program.checks
    ]


@pytest.mark.parametrize("check", cases(PSYCOPG3, PSYCOPG2, ASYNCPG, PG8000, SQLALCHEMY, PSQL))
def test_a_driver_works_through_the_proxy(check: Check, proxy_url: str) -> None:
    run_check(check, proxy_url, limit_seconds=40)


def test_pgbench_works_through_the_proxy(proxy_url: str) -> None:
    """Its checks build upon one another: tables first, their sums last."""
    for check in PGBENCH.checks:
        run_check(check, proxy_url, limit_seconds=40)


def test_django_works_through_the_proxy(proxy_url: str) -> None:
    """In a process of its own: Django's settings are global."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.drivers.django.program"],
        env={**os.environ, "DATABASE_URL": proxy_url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(json.loads(done.stdout)["checks"].values())


def test_many_clients_share_few_servers(proxy_url: str) -> None:
    """What the checks above rely on: at most POOL_SIZE servers, and one client meets several of them."""
    met: list[set[int]] = []

    def client(_number: int) -> None:
        with psycopg.connect(proxy_url, autocommit=True) as conn:
            pids = {
                row[0]
                for _ in range(30)
                for row in conn.execute("select pg_backend_pid() from pg_sleep(0.001)").fetchall()
            }
            met.append(pids)

    in_threads(8, client)
    assert len(set[int]().union(*met)) <= POOL_SIZE
    assert any(len(pids) > 1 for pids in met)
