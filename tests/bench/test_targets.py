"""The targets: each one that is installed serves a real statement; the others say how to get them."""

from __future__ import annotations

import tomllib
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


LOGIN = Address(5432, user="me", password="secret", tls=True, host="db", database="shop")


def configured(target: PgCat | PgDog | Odyssey, origin: Address, place: Path) -> tuple[list[str], dict[str, str]]:
    command = target.command(origin, 6000, place, 20)
    return command[1:], {path.name: path.read_text() for path in place.iterdir()}


def test_pgcat_is_configured_as_its_manual_says(tmp_path: Path) -> None:
    """github.com/postgresml/pgcat, CONFIG.md: general, pools.NAME, users and shards by number, servers as triples."""
    flags, files = configured(PgCat(), LOGIN, tmp_path)
    read = tomllib.loads(files["pgcat.toml"])
    assert flags == [str(tmp_path / "pgcat.toml")]
    assert (read["general"]["host"], read["general"]["port"], read["general"]["server_tls"]) == (
        "127.0.0.1",
        6000,
        True,
    )
    pool = read["pools"]["shop"]
    assert pool["pool_mode"] == "transaction"
    assert pool["users"] == {"0": {"username": "me", "password": "secret", "pool_size": 20}}
    assert pool["shards"] == {"0": {"database": "shop", "servers": [["db", 5432, "primary"]]}}


def test_pgdog_is_configured_as_its_manual_says(tmp_path: Path) -> None:
    """docs.pgdog.dev/configuration: general, [[databases]] in pgdog.toml, [[users]] in users.toml."""
    flags, files = configured(PgDog(), LOGIN, tmp_path)
    read, users = tomllib.loads(files["pgdog.toml"]), tomllib.loads(files["users.toml"])
    assert flags == ["--config", str(tmp_path / "pgdog.toml"), "--users", str(tmp_path / "users.toml"), "run"]
    assert (read["general"]["port"], read["general"]["pooler_mode"], read["general"]["default_pool_size"]) == (
        6000,
        "transaction",
        20,
    )
    assert (read["general"]["auth_type"], read["general"]["tls_verify"]) == ("scram", "prefer")
    assert read["databases"] == [{"name": "shop", "host": "db", "port": 5432}]
    assert users["users"] == [{"name": "me", "database": "shop", "password": "secret"}]


def test_odyssey_is_configured_as_its_manual_says(tmp_path: Path) -> None:
    """github.com/yandex/odyssey, documentation/configuration.md: blocks in braces, words and quoted values, no equals signs."""
    flags, files = configured(Odyssey(), LOGIN, tmp_path)
    text = files["odyssey.conf"]
    assert flags == [str(tmp_path / "odyssey.conf")]
    assert text.count("{") == text.count("}") == 4
    assert "=" not in text
    for block in ('storage "origin" {', 'database "shop" {', 'user "me" {', "listen {"):
        assert block in text
    words = [line.split() for line in text.splitlines()]
    for line in (
        ["host", '"db"'],
        ["tls", '"require"'],
        ["authentication", '"scram-sha-256"'],
        ["password", '"secret"'],
        ["storage_user", '"me"'],
        ["pool", '"transaction"'],
        ["pool_size", "20"],
        ["port", "6000"],
    ):
        assert line in words


@pytest.mark.parametrize("target", [Odyssey(), PgCat(), PgDog()], ids=lambda target: target.name)
def test_without_a_password_nobody_is_asked_for_one(target: PgCat | PgDog | Odyssey, tmp_path: Path) -> None:
    _, files = configured(target, Address(5432, user="me"), tmp_path)
    text = "".join(files.values())
    assert "None" not in text
    assert "scram" not in text


def test_pgpool_logs_in_with_the_password_and_asks_for_tls_only_where_it_is_required(tmp_path: Path) -> None:
    for number, (origin, tls, hba) in enumerate([(Address(5432), False, "off"), (LOGIN, True, "on")]):
        place = tmp_path / f"{number}"
        place.mkdir()
        Pgpool().command(origin, 6000, place, 20)
        text = (place / "pgpool.conf").read_text()
        assert ("ssl = on" in text) == tls
        assert f"enable_pool_hba = {hba}" in text
    assert (tmp_path / "1" / "pool_passwd").read_text() == "me:TEXTsecret\n"


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
