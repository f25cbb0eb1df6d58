"""Load programs in other languages: how each is made ready once, where its tools exist, and how it is started.

Packages come from npm, the Go module proxy and Maven, below ``bench/load`` and ``build/bench``; nothing is installed for the whole
system. What cannot be had is a line that says how to get it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from bench.machine import ROOT

LOAD = Path(__file__).parent / "load"
BUILD = ROOT / "build" / "bench"
LIMIT_SECONDS = 300.0
# Scripts of packages are not wanted here, and a lock file would pin where they came from.
NPM_INSTALL = ("install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--silent")


def why_failed(command: list[str], cwd: Path, *, limit_seconds: float = LIMIT_SECONDS, **env: str) -> str | None:
    """Run a package manager or a compiler, with *env* added; ``None``, or why it failed and the last line of what it said."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=limit_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"`{' '.join(command)}` was not over in {limit_seconds:.0f} s"
    if done.returncode == 0:
        return None
    said = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
    return f"`{' '.join(command[:3])} …` failed: {said[-1]}"


def find(name: str) -> str | None:
    """The program, also where Go installs itself."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/go/bin")


def _npm_missing(directory: Path, package: str) -> str | None:
    """Why *package*, which *directory* names, is not there."""
    if find("node") is None or (npm := find("npm")) is None:
        return "node or npm is not installed (apt-get install nodejs npm)"
    if (directory / "node_modules" / package).is_dir():
        return None
    return why_failed([npm, *NPM_INSTALL], directory)


@lru_cache
def node_missing() -> str | None:
    """Why the Node program cannot run."""
    return _npm_missing(LOAD, "pg")


def node_command() -> list[str]:
    return [find("node") or "node", str(LOAD / "node.mjs")]


@lru_cache
def prisma_missing() -> str | None:
    """Why the Prisma program cannot run. Its client is generated from the schema; no engine binary is downloaded."""
    directory = LOAD / "prisma"
    if (reason := _npm_missing(directory, "@prisma/client")) is not None:
        return reason
    if (directory / "node_modules" / ".bench-client").is_dir():
        return None
    # `generate` asks for an engine that only `migrate` uses; any program that exists keeps it from downloading one.
    command = [find("npx") or "npx", "--no-install", "prisma", "generate", "--schema", "schema.prisma"]
    return why_failed(command, directory, PRISMA_SCHEMA_ENGINE_BINARY=find("true") or "/bin/true")


def prisma_command() -> list[str]:
    return [find("node") or "node", str(LOAD / "prisma" / "load.mjs")]


@lru_cache
def go_missing() -> str | None:
    """Why the Go program cannot run."""
    if (go := find("go")) is None:
        return "go is not installed (https://go.dev/dl/, 1.25 or later)"
    return why_failed([go, "build", "-o", str(BUILD / "pgx"), "."], LOAD / "pgx")


def go_command() -> list[str]:
    return [str(BUILD / "pgx")]


@lru_cache
def java_missing() -> str | None:
    """Why the Java program cannot run."""
    maven, javac, java = (find(name) for name in ("mvn", "javac", "java"))
    if maven is None or javac is None or java is None:
        return "mvn or javac is not installed (apt-get install maven default-jdk-headless)"
    jars, classes = BUILD / "jdbc" / "jars", BUILD / "jdbc" / "classes"
    if not jars.is_dir():
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        if (reason := why_failed([maven, "-q", "-B", *copy], LOAD / "jdbc")) is not None:
            return reason
    return why_failed([javac, "-cp", f"{jars}/*", "-d", str(classes), "Load.java"], LOAD / "jdbc")


def java_command() -> list[str]:
    return [find("java") or "java", "-cp", f"{BUILD}/jdbc/jars/*:{BUILD}/jdbc/classes", "Load"]
