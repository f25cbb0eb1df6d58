"""The targets: each one that is installed serves a real statement; the others say how to get them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from bench.actors import ASYNCPG, DJANGO, PSYCOPG, SQLALCHEMY, ActFailed, Program, actor
from bench.origin import prepare, trusting, with_password
from bench.targets import Address, Direct, Missing, Odyssey, PgBouncer, PgCat, PgDog, Pgpool, Target, Us
from hyperdrive.localserver import LocalServer
from hyperdrive.testing.postgres import Postgres

TARGETS = [
    pytest.param(made, id=made.name) for made in (Direct(), Us(), PgBouncer(), Pgpool(), Odyssey(), PgCat(), PgDog())
]


def installed(target: Target) -> Target:
    try:
        target.version()
    except Missing as reason:
        pytest.skip(str(reason))
    return target


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_serves_a_statement(bench_origin: LocalServer, target: Target) -> None:
    with (
        installed(target).start(trusting(bench_origin)) as running,
        psycopg.connect(running.dsn, autocommit=True, prepare_threshold=None) as connection,
    ):
        assert connection.execute("SELECT name FROM bench_items WHERE id = 7").fetchone() == ("item 7",)
        assert bool(running.roots) == target.is_proxy


@pytest.mark.parametrize("target", TARGETS)
def test_a_password_is_asked_for_where_the_origin_asks(bench_origin: LocalServer, target: Target) -> None:
    with installed(target).start(with_password(bench_origin)) as running:
        psycopg.connect(running.dsn).close()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(running.dsn.replace("bench-password", "wrong"))


@pytest.mark.parametrize("target", [Odyssey(), PgCat(), PgDog()], ids=lambda target: target.name)
def test_what_is_not_installed_says_how_to_get_it(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "program", None)
    with pytest.raises(Missing, match=f"{target.name}: not installed; build it from"):
        target.version()


@pytest.mark.parametrize("target", [Odyssey(), PgCat(), PgDog()], ids=lambda target: target.name)
def test_a_configuration_names_the_origin_and_the_pool(target: PgCat | PgDog | Odyssey, tmp_path: Path) -> None:
    target.command(Address(5432, user="me", password="secret"), 6000, tmp_path, 20)
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert all(word in text for word in ("5432", "6000", "20", "me", "secret"))


@pytest.mark.parametrize("program", [PSYCOPG, ASYNCPG], ids=lambda program: program.name)
def test_a_load_program_does_requests_and_loops(bench_origin: LocalServer, program: Program) -> None:
    before = int(bench_origin.execute("SELECT n FROM bench_counters WHERE id = 7"))
    with Direct().start(trusting(bench_origin)) as running, actor(program, running) as asked:
        assert asked.ask("request read 7")["seconds"] > 0
        asked.ask("request write 7")
        found = asked.ask("loop 0.3 2")
        assert found["done"] >= len(found["latencies"]) > 0
        assert sorted(found["latencies"]) == found["latencies"]
        with pytest.raises(ActFailed, match="KeyError"):
            asked.ask("dance")
    assert bench_origin.execute("SELECT n FROM bench_counters WHERE id = 7") == f"{before + 1}"


@pytest.mark.parametrize("program", [SQLALCHEMY, DJANGO], ids=lambda program: program.name)
def test_a_page_is_made_by_either_orm(bench_origin: LocalServer, program: Program) -> None:
    with Direct().start(trusting(bench_origin)) as running, actor(program, running) as asked:
        assert asked.ask("page 0")["seconds"] > 0
        assert asked.ask("page 1")["seconds"] > 0


def test_a_storm_counts_those_that_were_turned_away(make_postgres: Callable[..., Postgres]) -> None:
    server = make_postgres(18, auth="trust", settings={"max_connections": "20"}).server
    prepare(server)
    with Direct().start(trusting(server)) as running, actor(ASYNCPG, running) as asked:
        found = asked.ask("storm 40")
    assert found["errors"] + len(found["latencies"]) == 40
    assert found["errors"] >= 20
