"""What is compared: direct, us, PgBouncer; each started fresh in front of an address and ended again.

A target that is not installed says how to get it. All get the same pool size and no authentication, so that what differs is the
forwarding; how they are configured beyond that is their default.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine import ROOT

USER = "postgres"
DATABASE = "postgres"
HOST = "127.0.0.1"
POOL_SIZE = 20
START_SECONDS = 20.0
MAX_CLIENTS = 20_000


@dataclass(frozen=True, slots=True)
class Running:
    """A target that accepts connections; *roots* are its processes, none for direct."""

    name: str
    port: int
    roots: tuple[int, ...] = ()
    traits: Mapping[str, str] = field(default_factory=dict)
    host: str = HOST

    @property
    def dsn(self) -> str:
        """A connection URL, for drivers and programs alike."""
        return f"postgresql://{USER}@{self.host}:{self.port}/{DATABASE}"


class Missing(Exception):
    """A target is not installed; the text says how to get it."""


class Target:
    """Something that clients can connect to."""

    name = ""
    is_proxy = True

    def version(self) -> str:
        """Its version.

        Raises:
            Missing: it is not installed.
        """
        raise NotImplementedError

    @contextmanager
    def start(self, origin_port: int, *, pool_size: int = POOL_SIZE, workers: int = 1) -> Iterator[Running]:
        """Run it in front of *origin_port* on loopback."""
        raise NotImplementedError


class Direct(Target):
    """No proxy."""

    name = "direct"
    is_proxy = False

    def version(self) -> str:
        return ""

    @contextmanager
    def start(self, origin_port: int, *, pool_size: int = POOL_SIZE, workers: int = 1) -> Iterator[Running]:
        yield Running(self.name, origin_port)


class Us(Target):
    """``hyperdrive serve`` as a process of its own, with *flags* beyond the usual, from the checkout at *root*."""

    def __init__(self, name: str = "us", flags: Sequence[str] = (), root: Path = ROOT) -> None:
        self.name = name
        self.flags = tuple(flags)
        self.root = root

    def version(self) -> str:
        from hyperdrive import __version__

        return __version__

    @contextmanager
    def start(self, origin_port: int, *, pool_size: int = POOL_SIZE, workers: int = 1) -> Iterator[Running]:
        origin = f"postgresql://{USER}@{HOST}:{origin_port}/{DATABASE}?sslmode=disable"
        command = [sys.executable, "-m", "hyperdrive", "serve", origin, "--listen", f"{HOST}:{free_port()}"]
        command += [
            "--admin",
            "off",
            "--pool-size",
            f"{pool_size}",
            "--workers",
            f"{workers}",
            "--log-level",
            "warning",
        ]
        command += ["--max-client-connections", f"{MAX_CLIENTS}", *self.flags]
        with serving(self.name, command, self.root) as running:
            yield running


class Floor(Target):
    """A forwarder on uvloop that decides nothing: what Python costs, whatever we do."""

    name = "floor"

    def version(self) -> str:
        return "bench.forwarder"

    @contextmanager
    def start(self, origin_port: int, *, pool_size: int = POOL_SIZE, workers: int = 1) -> Iterator[Running]:
        with serving(self.name, [sys.executable, "-m", "bench.forwarder", f"{origin_port}"]) as running:
            yield running


@contextmanager
def serving(name: str, command: Sequence[str], root: Path = ROOT) -> Iterator[Running]:
    """Run *command* with the packages at *root*; it prints ``ready`` and its URL when it can serve."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HYPERDRIVE_")} | {"PYTHONPATH": str(root)}
    with tempfile.TemporaryDirectory(prefix="bench-") as cwd, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env, cwd=cwd)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("ready "):
                process.wait(START_SECONDS)
                log.seek(0)
                raise RuntimeError(f"{name} did not start:\n{log.read()}")
            port = int(line.rpartition("/")[0].rpartition(":")[2])
            await_port(port)
            yield Running(name, port, (process.pid,))
        finally:
            end(process)
            process.stdout.close()


class PgBouncer(Target):
    """PgBouncer in transaction mode, as its distribution configures it but for limits and authentication."""

    name = "PgBouncer"

    def __init__(self) -> None:
        self.program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")

    def version(self) -> str:
        if self.program is None:
            raise Missing("PgBouncer: not installed; apt-get install pgbouncer, brew install pgbouncer")
        done = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True)
        return done.stdout.split()[1]

    @property
    def keeps_statements(self) -> bool:
        """Named prepared statements work in transaction mode: since 1.21."""
        return tuple(int(part) for part in self.version().split(".")[:2]) >= (1, 21)

    @contextmanager
    def start(self, origin_port: int, *, pool_size: int = POOL_SIZE, workers: int = 1) -> Iterator[Running]:
        self.version()
        assert self.program is not None
        port = free_port()
        account = _other_account()
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            directory = Path(name)
            directory.chmod(0o755)
            (directory / "users.txt").write_text(f'"{USER}" ""\n')
            config = {
                "listen_addr": HOST,
                "listen_port": port,
                "unix_socket_dir": "",
                "auth_type": "trust",
                "auth_file": directory / "users.txt",
                "pool_mode": "transaction",
                "default_pool_size": pool_size,
                "max_client_conn": MAX_CLIENTS,
                "listen_backlog": 4096,
                "ignore_startup_parameters": "extra_float_digits,options",
                "log_connections": 0,
                "log_disconnections": 0,
            }
            if self.keeps_statements:
                config["max_prepared_statements"] = 200
            lines = ["[databases]", f"* = host={HOST} port={origin_port}", "[pgbouncer]"]
            path = directory / "pgbouncer.ini"
            path.write_text("\n".join(lines + [f"{key} = {value}" for key, value in config.items()]) + "\n")
            log = (directory / "log").open("w+")
            process = subprocess.Popen([self.program, "-q", str(path)], stdout=log, stderr=log, user=account)
            try:
                try:
                    await_port(port, process)
                except RuntimeError as error:
                    log.seek(0)
                    raise RuntimeError(f"{error}\n{log.read()}") from None
                yield Running(self.name, port, (process.pid,), {"statements": "yes" if self.keeps_statements else "no"})
            finally:
                end(process)
                log.close()


def _other_account() -> str | None:
    """PgBouncer refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("pgbouncer", "postgres", "nobody") if name in names)


def free_port() -> int:
    """A port of loopback that nobody uses at the moment."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def await_port(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Return when somebody listens.

    Raises:
        RuntimeError: nobody did in time, or *process* ended.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        try:
            socket.create_connection((HOST, port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nobody listens on port {port}")


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process of ours, politely first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
