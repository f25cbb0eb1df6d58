"""Direct, us without and with the cache, and the forwarder that decides nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from bench.machine import ROOT
from bench.targets.base import (
    HOST,
    MAX_CLIENTS,
    POOL_SIZE,
    START_SECONDS,
    Address,
    Missing,
    Running,
    Target,
    await_port,
    end,
    free_port,
)

US = "us"
CACHED = "us, cached"
SHORT_SCRAM = "us, cached, SCRAM 1"
"""With ``scram_iterations = 1``: where nobody can listen, a login need not be protected against guessing from a recording."""

SHORT_SCRAM_SAID = ", scram_iterations = 1"
"""Behind the name of a figure."""


class Direct(Target):
    """No proxy."""

    name = "direct"
    is_proxy = False

    def version(self) -> str:
        return ""

    @contextmanager
    def start(self, origin: Address, *, pool_size: int = POOL_SIZE, workers: int = 1) -> Iterator[Running]:
        yield Running(
            self.name,
            origin.port,
            host=origin.host,
            user=origin.user,
            password=origin.password,
            tls=origin.tls,
            database=origin.database,
            given=origin.given,
        )


class Us(Target):
    """``hyperdrive serve`` as a process of its own, with *flags* beyond the usual, from the checkout at *root*."""

    def __init__(
        self, name: str = US, flags: Sequence[str] = (), root: Path = ROOT, *, cache: bool | None = False
    ) -> None:
        """*cache* ``None`` leaves the cache to *flags*."""
        self.name = name
        self.flags = tuple(flags)
        self.root = root
        self.cache = cache

    def version(self) -> str:
        from hyperdrive import __version__

        if self.cache and not knows(self.root, "--no-cache"):
            raise Missing(f"{self.name}: this checkout has no cache yet (`hyperdrive serve` knows no --no-cache)")
        return __version__

    @contextmanager
    def start(self, origin: Address, *, pool_size: int = POOL_SIZE, workers: int = 1) -> Iterator[Running]:
        command = [sys.executable, "-m", "hyperdrive", "serve", origin.url, "--listen", f"{HOST}:{free_port()}"]
        command += ["--admin", "off", "--log-level", "warning", "--max-client-connections", f"{MAX_CLIENTS}"]
        command += ["--pool-size", f"{pool_size}", "--workers", f"{workers}"]
        if self.cache is False and knows(self.root, "--no-cache"):
            command.append("--no-cache")
        with serving(self.name, [*command, *self.flags], self.root, origin) as running:
            yield running


def short_scram() -> Us:
    """With the cache, and with logins that cost a client no computing."""
    return Us(SHORT_SCRAM, ("--scram-iterations", "1"), cache=True)


class Floor(Target):
    """A forwarder on uvloop that decides nothing: what Python costs, whatever we do."""

    name = "floor"

    def version(self) -> str:
        return "bench.forwarder"

    @contextmanager
    def start(self, origin: Address, *, pool_size: int = POOL_SIZE, workers: int = 1) -> Iterator[Running]:
        command = [sys.executable, "-m", "bench.forwarder", f"{origin.port}"]
        with serving(self.name, command, ROOT, origin) as running:
            yield running


def knows(root: Path, flag: str) -> bool:
    """Whether ``hyperdrive serve`` of the checkout at *root* has *flag*."""
    return flag in _help(root)


@lru_cache
def _help(root: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hyperdrive", "serve", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(root),
        cwd=root,
    )
    return done.stdout


def _environment(root: Path) -> dict[str, str]:
    """Ours without settings of the proxy, which would make another run of it."""
    return {k: v for k, v in os.environ.items() if not k.startswith("HYPERDRIVE_")} | {"PYTHONPATH": str(root)}


@contextmanager
def serving(name: str, command: Sequence[str], root: Path, origin: Address) -> Iterator[Running]:
    """Run *command* with the packages at *root*; it prints ``ready`` and its URL when it can serve.

    Raises:
        RuntimeError: it did not start; the text has its log.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as cwd, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=_environment(root), cwd=cwd
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("ready "):
                process.wait(START_SECONDS)
                log.seek(0)
                raise RuntimeError(f"{name} did not start:\n{log.read()}")
            port = int(line.rpartition("/")[0].rpartition(":")[2])
            await_port(port)
            yield Running(
                name, port, (process.pid,), user=origin.user, password=origin.password, database=origin.database
            )
        finally:
            end(process)
            process.stdout.close()
