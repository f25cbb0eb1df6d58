"""Run the driver programs through a proxy (or directly), and say what happened (``make drivers``).

Each program below ``tests/drivers`` takes DATABASE_URL, prints one JSON line and exits with an error when a check failed.
What this machine lacks is skipped, with a line that says how to get it. Packages are installed below BUILD, node_modules
beside the programs (Node looks for them there). Nothing is installed for the whole system.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.toolchains import NPM_INSTALL, find, why_failed

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "drivers"
PROGRAM_LIMIT_SECONDS = 300.0
INSTALL_LIMIT_SECONDS = 600.0


class Missing(Exception):
    """This machine lacks something; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A program: how to make it ready and how to start it. ``prepare`` raises Missing; ``command`` follows it."""

    name: str
    prepare: Callable[[], None]
    command: Callable[[], list[str]]
    env: tuple[tuple[str, str], ...] = ()


def need(program: str, how: str) -> str:
    if (found := find(program)) is None:
        raise Missing(f"{program} is not installed ({how})")
    return found


def install(command: list[str], cwd: Path, **env: str) -> None:
    """Run a package manager.

    Raises:
        Missing: it failed; the last line of what it said.
    """
    if (reason := why_failed(command, cwd, limit_seconds=INSTALL_LIMIT_SECONDS, **env)) is not None:
        raise Missing(reason)


# --- how each kind of program is made ready --------------------------------------------------------------------------


def python(name: str) -> Driver:
    return Driver(name, lambda: None, lambda: [sys.executable, "-m", f"tests.drivers.{name}.program"])


def npm_install(directory: Path) -> None:
    npm = need("npm", "Debian: apt install npm")
    if not (directory / "node_modules").is_dir():
        install([npm, *NPM_INSTALL], directory)


def node(name: str, *, label: str = "", **env: str) -> Driver:
    return Driver(
        label or name,
        lambda: npm_install(HERE),
        lambda: [need("node", "Debian: apt install nodejs"), str(HERE / name / "program.mjs")],
        tuple(env.items()),
    )


def prepare_prisma() -> None:
    directory = HERE / "prisma"
    npm_install(directory)
    if not (directory / "node_modules/.drv-client").is_dir():
        # `generate` wants to download a schema engine that only `migrate` uses; any existing program keeps it from that.
        install(
            [need("npx", "Debian: apt install npm"), "--no-install", "prisma", "generate", "--schema", "schema.prisma"],
            directory,
            PRISMA_SCHEMA_ENGINE_BINARY=shutil.which("true") or "/bin/true",
        )


def prepare_jdbc() -> None:
    maven, javac = need("mvn", "Debian: apt install maven"), need("javac", "Debian: apt install default-jdk-headless")
    jars = BUILD / "jdbc/jars"
    if not jars.is_dir():
        arguments = ["-q", "-B", "-f", str(HERE / "jdbc/pom.xml")]
        install([maven, *arguments, "dependency:copy-dependencies", f"-DoutputDirectory={jars}"], HERE / "jdbc")
    install([javac, "-cp", f"{jars}/*", "-d", str(BUILD / "jdbc/classes"), "Program.java"], HERE / "jdbc")


def jdbc_command() -> list[str]:
    return [
        need("java", "Debian: apt install default-jdk-headless"),
        "-cp",
        f"{BUILD}/jdbc/jars/*:{BUILD}/jdbc/classes",
        "Program",
    ]


def prepare_pgx() -> None:
    go = need("go", "https://go.dev/dl/, 1.25 or later")
    install([go, "build", "-o", str(BUILD / "pgx"), "."], HERE / "pgx")


def prepare_perl() -> None:
    perl = need("perl", "Debian: apt install perl")
    try:
        install([perl, "-MDBD::Pg", "-e", "1"], HERE)
    except Missing:
        raise Missing("DBD::Pg is not installed (Debian: apt install libdbd-pg-perl)") from None


def prepare_ruby() -> None:
    ruby = need("ruby", "Debian: apt install ruby ruby-pg")
    try:
        install([ruby, "-rpg", "-e", "1"], HERE)
    except Missing:
        raise Missing("ruby-pg is not installed (Debian: apt install ruby-pg)") from None


DRIVERS = (
    *(
        python(name)
        for name in ("psql", "pgbench", "psycopg2", "psycopg3", "asyncpg", "pg8000", "sqlalchemy", "django")
    ),
    node("node_postgres"),
    node("postgres_js"),
    node("postgres_js", label="postgres_js-unprepared", DRIVER_PREPARE="false"),
    node("drizzle"),
    Driver(
        "prisma",
        prepare_prisma,
        lambda: [need("node", "Debian: apt install nodejs"), str(HERE / "prisma/program.mjs")],
    ),
    Driver("jdbc", prepare_jdbc, jdbc_command),
    Driver("pgx", prepare_pgx, lambda: [str(BUILD / "pgx")]),
    Driver("dbd_pg", prepare_perl, lambda: ["perl", str(HERE / "dbd_pg/program.pl")]),
    Driver("ruby_pg", prepare_ruby, lambda: ["ruby", str(HERE / "ruby_pg/program.rb")]),
)


# --- running ---------------------------------------------------------------------------------------------------------


@contextmanager
def database(url: str | None, *, direct: bool, pool_size: int, major: int, cache: str) -> Iterator[str]:
    """Yield the URL that the programs get: *url* as it is, or a proxy before an embedded server."""
    if url is not None:
        yield url
        return
    from hyperdrive.testing.postgres import PostgresFarm
    from tests.drivers.serve import serving

    farm = PostgresFarm()
    try:
        origin = farm.shared(major).app_url
        if direct:
            yield origin
        else:
            with serving(origin, pool_size=pool_size, cache=cache) as proxy_url:
                yield proxy_url
    finally:
        farm.close()


def run(driver: Driver, url: str) -> dict[str, object]:
    """Run one program; return its line, with ``skipped`` or ``error`` where it has none."""
    try:
        driver.prepare()
        command = driver.command()
    except Missing as missing:
        return {"driver": driver.name, "skipped": str(missing)}
    started = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **dict(driver.env), "DATABASE_URL": url},
            stdout=subprocess.PIPE,
            text=True,
            timeout=PROGRAM_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"driver": driver.name, "error": f"not over after {PROGRAM_LIMIT_SECONDS:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"driver": driver.name, "error": f"ended with {done.returncode} and said nothing"}
    result: dict[str, object] = json.loads(lines[-1])
    result["seconds"] = round(time.monotonic() - started, 1)
    if done.returncode and "error" not in result and failures(result) == []:
        result["error"] = f"ended with {done.returncode}"
    return result


def failures(result: dict[str, object]) -> list[str]:
    checks = result.get("checks")
    return [name for name, passed in checks.items() if not passed] if isinstance(checks, dict) else []


def describe(result: dict[str, object]) -> str:
    name = f"{result['driver']} {result.get('version', '')}".strip()
    if "skipped" in result:
        return f"skip {name}: {result['skipped']}"
    if "error" in result:
        return f"FAIL {name}: {result['error']}"
    failed, checks = failures(result), result["checks"]
    assert isinstance(checks, dict)
    if failed:
        return f"FAIL {name}: {', '.join(failed)} (of {len(checks)} checks)"
    return f"ok   {name}: {len(checks)} checks in {result['seconds']} s"


def main() -> int:
    names = [driver.name for driver in DRIVERS]
    parser = argparse.ArgumentParser(description="Run driver programs through a proxy.")
    parser.add_argument("drivers", nargs="*", metavar="DRIVER", help=f"of {', '.join(names)}; all if none is given")
    # Not from the environment: a DATABASE_URL left there would quietly test something else than the proxy.
    parser.add_argument("--url", help="use this URL instead of a proxy of its own")
    parser.add_argument("--direct", action="store_true", help="without a proxy: are the programs themselves right?")
    parser.add_argument("--pool-size", type=int, default=3)
    parser.add_argument("--cache", choices=("off", "on"), default="off", help="of the proxy")
    parser.add_argument("--major", type=int, default=18, help="of the embedded server (16 or 18)")
    parser.add_argument("--summary", type=Path, default=BUILD / "summary.json")
    arguments = parser.parse_args()
    if unknown := set(arguments.drivers) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    results = []
    BUILD.mkdir(parents=True, exist_ok=True)
    with database(
        arguments.url,
        direct=arguments.direct,
        pool_size=arguments.pool_size,
        major=arguments.major,
        cache=arguments.cache,
    ) as url:
        way = (
            "as given"
            if arguments.url
            else "direct"
            if arguments.direct
            else f"proxy with {arguments.pool_size} servers, cache {arguments.cache}"
        )
        print(f"PostgreSQL at {url.rpartition('@')[2]}, {way}", flush=True)
        for driver in DRIVERS:
            if not arguments.drivers or driver.name in arguments.drivers:
                result = run(driver, url)
                results.append(result)
                print(describe(result), flush=True)
    arguments.summary.parent.mkdir(parents=True, exist_ok=True)
    arguments.summary.write_text(json.dumps({"way": way, "drivers": results}, indent=2) + "\n")
    return 1 if any("error" in result or failures(result) for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
