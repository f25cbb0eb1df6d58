"""Load programs as processes, from the side that asks: one line is an act, the answer is what came of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench import toolchains
from bench.machine import ROOT
from bench.targets import Running, end


@dataclass(frozen=True, slots=True)
class Program:
    """A load program by the driver it uses: *missing* says why it cannot run here, *command* how it is started."""

    name: str
    missing: Callable[[], str | None]
    command: Callable[[], list[str]]


def _python(name: str, module: str, package: str) -> Program:
    def missing() -> str | None:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed (pip install {package})"
        return None

    return Program(name, missing, lambda: [sys.executable, "-m", f"bench.load.{module}"])


PSYCOPG = _python("psycopg 3", "with_psycopg", "psycopg")
ASYNCPG = _python("asyncpg", "with_asyncpg", "asyncpg")
HERD = _python("asyncpg", "herd", "asyncpg")
SQLALCHEMY = _python("SQLAlchemy 2", "sqlalchemy_shop", "sqlalchemy")
DJANGO = _python("Django", "django_shop", "django")
NODE_POSTGRES = Program("node-postgres", toolchains.node_missing, toolchains.node_command)
PGX = Program("pgx", toolchains.go_missing, toolchains.go_command)
JDBC = Program("JDBC", toolchains.java_missing, toolchains.java_command)
PRISMA = Program("Prisma", toolchains.prisma_missing, toolchains.prisma_command)


class ActFailed(Exception):
    """A load program could not do what it was asked for; the text has the driver's words."""


class Actor:
    """A load program that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(
        self, line: str, on_progress: Callable[[Mapping[str, Any]], None] = lambda _message: None
    ) -> Mapping[str, Any]:
        """Have it done; return what came of it, which has ``seconds``.

        Raises:
            ActFailed: the driver raised something, or the program ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        found = self.hear(on_progress)
        if "error" in found:
            raise ActFailed(found["error"])
        return found

    def hear(self, on_progress: Callable[[Mapping[str, Any]], None] = lambda _message: None) -> Mapping[str, Any]:
        """The next message that ends an act."""
        assert self._process.stdout is not None
        for text in self._process.stdout:
            message: Mapping[str, Any] = json.loads(text)
            if message.get("end"):
                return message
            on_progress(message)
        raise ActFailed(f"the load program ended with {self._process.wait()}")


@contextmanager
def actor(program: Program, target: Running) -> Iterator[Actor]:
    """*program* against *target*, ready to be asked."""
    flags = [] if target.has_statements else ["--no-statements"]
    process = subprocess.Popen(
        [*program.command(), target.dsn, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        made = Actor(process)
        made.hear()
        yield made
    finally:
        process.stdin.close()
        end(process)
        process.stdout.close()


def actors(stack: ExitStack, program: Program, targets: Sequence[Running]) -> dict[str, Actor]:
    """*program* against each of *targets* by name, started side by side; *stack* ends them, also when one did not start.

    Raises:
        ActFailed: one of them ended at once.
    """
    with ThreadPoolExecutor(max(1, len(targets))) as pool:
        starting = [pool.submit(_entered, actor(program, target)) for target in targets]
    for started in starting:
        if started.exception() is None:
            stack.push(started.result()[0])
    return {target.name: started.result()[1] for target, started in zip(targets, starting, strict=True)}


def _entered(context: AbstractContextManager[Actor]) -> tuple[AbstractContextManager[Actor], Actor]:
    return context, context.__enter__()
