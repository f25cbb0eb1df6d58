"""The command line: what it offers, what it says, and how it ends."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from hyperdrive.admin.console import Console
from hyperdrive.admin.http import StatusServer, StatusSite
from hyperdrive.admin.state import StatsRow
from hyperdrive.cli import common, main, parser
from hyperdrive.cli.check import Finding, examine
from hyperdrive.cli.explain import describe
from hyperdrive.cli.status import fetch, render
from hyperdrive.config import Address, Settings
from hyperdrive.config.settings import MEANINGS, flag_of
from hyperdrive.dsn import parse_dsn
from hyperdrive.errors import NotReady
from hyperdrive.metrics import Registry
from hyperdrive.testing.postgres import Postgres

sys.path.insert(0, str(Path(__file__).parent / "admin"))
from fake_state import FakeState


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("HYPERDRIVE_CONFIG", "HYPERDRIVE_ORIGIN"):
        monkeypatch.delenv(name, raising=False)


def test_every_setting_has_a_flag() -> None:
    for key in MEANINGS.keys() - {"origin"}:
        flag = f"--{flag_of(key)}"
        value = [] if MEANINGS[key].kind.name == "boolean" else ["x"]
        options = parser().parse_args(["serve", flag, *value])
        assert getattr(options, key) in ("x", True)


def test_flags_that_are_not_given_change_nothing() -> None:
    assert common.settings(parser().parse_args(["serve"])) == Settings()
    given = common.settings(
        parser().parse_args(["serve", "postgresql://u@h/d", "--admin", "off", "--no-tcp-keepalive"])
    )
    assert given == Settings(origin=parse_dsn("postgresql://u@h/d"), admin_listen=None, tcp_keepalive=False)


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["demo", "--help"], ["top", "--help"]])
def test_help_is_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert "usage: hyperdrive" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["serve", "--pool"], ["demo", "--distance", "far"], ["purge", "--everything"]]
)
def test_what_is_not_offered_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "--help" in capsys.readouterr().err


def test_nothing_starts_with_a_wrong_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hyperdrive.toml").write_text("pool_sise = 5\n")
    assert main(["serve", "--workers", "0"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "hyperdrive: hyperdrive.toml:1: pool_sise: no such setting; did you mean pool_size?",
        "hyperdrive: --workers: workers: '0' is wrong; expected a whole number, at least 1 and at most 256",
    ]


EXPLAINED = [
    ("select * from a join b.c on true", ["kind: select", "relations: b.c, a", "server: given back afterwards"]),
    ("listen x", ["server: kept for the client because of LISTEN"]),
    ("select f(1)", ["functions we do not know, which may do anything: f"]),
    ("set search_path = a", ["setting search_path: follows the client from server to server"]),
    ("create temp table t ()", ["server: kept for the client because of a temporary object"]),
    ("selec", ["unknown: PostgreSQL's parser refuses it"]),
    ("-- nothing", ["empty: answered here"]),
    ("select 1; select 2", ["2 statements"]),
]


@pytest.mark.parametrize(("sql", "expected"), EXPLAINED)
def test_explain_says_what_the_text_tells(sql: str, expected: list[str]) -> None:
    said = "\n".join(describe(sql))
    assert [line for line in expected if line not in said] == []


def test_explain_without_an_origin_takes_relations_for_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "select a, to_char(b, 'YYYY') from s.t where id = $1"]) == 0
    said = capsys.readouterr().out
    assert "without an origin" in said
    assert "  cacheable\n  depends on s.t\n" in said
    assert main(["explain", "select now() from t"]) == 0
    assert "rule function" in capsys.readouterr().out
    assert main(["explain", "select * from pg_class"]) == 0
    assert "rule relation" in capsys.readouterr().out


def test_explain_asks_the_origin(postgres: Postgres, capsys: pytest.CaptureFixture[str]) -> None:
    postgres.execute("drop view if exists explained; create view explained as select now() as n", "postgres")
    assert main(["explain", "select * from explained", postgres.url]) == 0
    assert "because of public.explained" in capsys.readouterr().out
    assert (
        main(["explain", "select 1", parse_dsn(postgres.url).with_user("postgres", "wrong").url(with_password=True)])
        == 1
    )
    assert "could not be asked" in capsys.readouterr().out
    postgres.execute("drop view explained", "postgres")


async def look(url: str, **more: object) -> dict[str, Finding]:
    dsn = parse_dsn(url)
    found = await examine(dsn, Settings(origin=dsn, **more))  # type: ignore[arg-type]
    return {finding.subject: finding for finding in found}


async def test_check_looks_at_a_real_origin(postgres: Postgres) -> None:
    found = await look(postgres.url)
    assert [f for f in found.values() if f.grade == "fail"] == []
    assert found["version"].text.startswith("PostgreSQL 1")
    assert "the primary; a superuser" in found["role"].text
    assert "not in use" in found["TLS"].text
    assert "lower pool_size" in (await look(postgres.url, pool_size=5000))["connections"].text


async def test_check_says_why_an_origin_cannot_be_used(pg18: Postgres) -> None:
    wrong = await look(parse_dsn(pg18.url).with_user("postgres", "wrong").url())
    assert wrong["log-in"].grade == "fail"
    assert "28P01" in wrong["log-in"].text
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = await look(f"postgresql://u:p@127.0.0.1:{unused.getsockname()[1]}/d?connect_timeout=5")
    assert nobody["reachable"].grade == "fail"


def test_check_needs_an_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 2
    assert "origin: none to check" in capsys.readouterr().err


async def test_status_asks_the_running_proxy(capsys: pytest.CaptureFixture[str]) -> None:
    state = FakeState()
    server = StatusServer(StatusSite(Console(state), Registry()))
    port = await server.start("127.0.0.1", 0)
    try:
        status = await asyncio.to_thread(fetch, Address("127.0.0.1", port))
        said = render(status)
        assert "ready" in said
        assert "shop" in said
        assert await asyncio.to_thread(main, ["status", "--json", "--admin", f"127.0.0.1:{port}"]) == 0
        assert json.loads(capsys.readouterr().out) == status
        state.missing = "the origin does not answer"
        assert await asyncio.to_thread(main, ["status", "--admin", f"127.0.0.1:{port}"]) == 1
        assert "not ready: the origin does not answer" in capsys.readouterr().out
    finally:
        await server.close()


def test_status_of_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert main(["status", "--admin", address]) == 1
        assert f"no proxy answers at {address}" in capsys.readouterr().err
        with pytest.raises(NotReady):
            fetch(Address("127.0.0.1", unused.getsockname()[1]))
    assert main(["status", "--admin", "nowhere"]) == 2


async def run(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hyperdrive",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(Path(common.__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )


async def test_serve_prints_one_line_when_it_is_ready_and_ends_when_told(pg18: Postgres) -> None:
    process = await run("serve", pg18.url, "--listen", "127.0.0.1:0", "--admin", "off", "--log-level", "warning")
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        word, url = line.split()
        ours, theirs = parse_dsn(url), parse_dsn(pg18.url)
        assert (word, ours.user, ours.password, ours.database) == ("ready", theirs.user, None, theirs.database)
        async with await psycopg.AsyncConnection.connect(
            ours.with_user(ours.user, theirs.password).url()
        ) as connection:
            assert await (await connection.execute("select 6 * 7")).fetchone() == (42,)
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, out, err) == (0, b"", b"")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_serve_says_when_its_port_is_taken(pg18: Postgres) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = await run("serve", pg18.url, "--listen", f"127.0.0.1:{taken.getsockname()[1]}", "--admin", "off")
        out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (2, b"")
    assert b"hyperdrive: " in err
    assert b"Traceback" not in err


async def test_the_demo_measures_both_ways() -> None:
    process = await run("demo", "--distance", "2", "--once")
    out, err = await asyncio.wait_for(process.communicate(), 50)
    assert (process.returncode, err) == (0, b"")
    assert "through Hyperdrive" in out.decode()
    assert out.decode().count(" ms") == 9


def test_the_milliseconds_of_the_demo_have_bounds() -> None:
    assert parser().parse_args(["demo", "--distance", "80ms"]).distance == 80
    assert isinstance(parser(), argparse.ArgumentParser)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["serve", "--pool-sise", "3"],
            "hyperdrive serve: unrecognized arguments: --pool-sise; did you mean --pool-size?",
        ),
        (["demo", "--distance", "far"], "argument --distance: 'far' is wrong; expected milliseconds from 0 to 60000"),
        (["top", "--interval", "0"], "argument --interval: '0' is wrong; expected seconds, such as 1 or 0.5"),
    ],
)
def test_a_wrong_argument_is_told_with_what_would_be_right(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert expected in capsys.readouterr().err


def test_the_embedded_server_without_a_place_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".hyperdrive").write_text("a file")
    assert 2 == main(["serve", "--listen", "127.0.0.1:0", "--admin", "off"])
    captured = capsys.readouterr()
    assert "" == captured.out
    assert f"{tmp_path}/.hyperdrive: File exists" in captured.err
    assert "give an ORIGIN_URL" in captured.err


def test_the_line_to_paste_is_a_connection_string_whatever_the_names_are() -> None:
    from hyperdrive.app import client_url

    settings = Settings(origin=parse_dsn("postgresql://me%40home:x@db/my%20shop"))
    url = client_url(settings, 6543)
    assert ("me@home", "my shop") == (parse_dsn(url).user, parse_dsn(url).database)


async def test_top_counts_per_second_until_it_is_interrupted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where something is not counted at all: the hot path counts no statements."""
    from hyperdrive.cli import top

    class Uncounted(FakeState):
        def stats(self) -> list[StatsRow]:
            return [replace(row, queries=None) for row in super().stats()]

    state = Uncounted()
    server = StatusServer(StatusSite(Console(state), Registry()))
    port = await server.start("127.0.0.1", 0)
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(top.time, "sleep", sleep)
    try:
        assert 130 == await asyncio.to_thread(main, ["top", "--admin", f"127.0.0.1:{port}"])
    finally:
        await server.close()
    assert "0 transactions/s, 0 round trips/s" in capsys.readouterr().out
