"""Load programs as processes, from the side that asks: one line is an act, the answer is what came of it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.machine import ROOT
from bench.targets import Running, end

NODE = Path(__file__).parent / "load"
INSTALL_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Program:
    """A load program by the driver it uses."""

    name: str
    module: str
    package: str

    def missing(self) -> str | None:
        """Why it cannot run here, and how that could be changed."""
        if self.module.endswith(".mjs"):
            return node_missing()
        if importlib.util.find_spec(self.package) is None:
            return f"{self.name}: {self.package} is not installed (pip install {self.package})"
        return None

    def command(self, target: Running) -> list[str]:
        if self.module.endswith(".mjs"):
            start = [shutil.which("node") or "node", str(NODE / self.module)]
        else:
            start = [sys.executable, "-m", f"bench.load.{self.module}"]
        return [*start, target.dsn, *([] if target.has_statements else ["--no-statements"])]


PSYCOPG = Program("psycopg 3", "with_psycopg", "psycopg")
ASYNCPG = Program("asyncpg", "with_asyncpg", "asyncpg")
HERD = Program("asyncpg", "herd", "asyncpg")
NODE_POSTGRES = Program("node-postgres", "node.mjs", "pg")
SQLALCHEMY = Program("SQLAlchemy 2", "sqlalchemy_shop", "sqlalchemy")
DJANGO = Program("Django", "django_shop", "django")


@lru_cache
def node_missing() -> str | None:
    """Install what the Node program needs, below ``bench/load``; say why it cannot be had."""
    if shutil.which("node") is None or (npm := shutil.which("npm")) is None:
        return "node-postgres, postgres.js, Drizzle: node or npm is not installed (apt-get install nodejs npm)"
    if (NODE / "node_modules" / "pg").is_dir():
        return None
    # Scripts of packages are not wanted here, and a lock file would pin where they came from.
    command = [npm, "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    try:
        done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"node-postgres: npm install was not over in {INSTALL_SECONDS} s"
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        return f"node-postgres: npm install failed: {said[-1]}"
    return None


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
    process = subprocess.Popen(
        program.command(target), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
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
