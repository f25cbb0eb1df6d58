"""What a target is, where its origin is, and how programs are started in front of it and ended again.

A target that is not installed says how to get it. All get the same pool size and the same origin, so that what differs is the
target; how it is configured beyond that is its default. Knows processes and ports; knows no particular program.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

USER = "postgres"
DATABASE = "postgres"
HOST = "127.0.0.1"
POOL_SIZE = 20
START_SECONDS = 20.0
MAX_CLIENTS = 20_000


@dataclass(frozen=True, slots=True)
class Address:
    """Where an origin is and how one logs in; with *tls*, TLS is required."""

    port: int
    user: str = USER
    password: str | None = None
    tls: bool = False
    host: str = HOST
    database: str = DATABASE
    given: str = ""
    """The URL as somebody gave it, which may say more."""

    @property
    def url(self) -> str:
        if self.given:
            return self.given
        login = quote(self.user, safe="") + (f":{quote(self.password, safe='')}" if self.password else "")
        mode = "require" if self.tls else "disable"
        return f"postgresql://{login}@{self.host}:{self.port}/{quote(self.database, safe='')}?sslmode={mode}"


@dataclass(frozen=True, slots=True)
class Running:
    """A target that accepts connections; *roots* are its processes, none for direct."""

    name: str
    port: int
    roots: tuple[int, ...] = ()
    traits: Mapping[str, str] = field(default_factory=dict)
    host: str = HOST
    user: str = USER
    password: str | None = None
    tls: bool = False
    """Whether TLS is required; otherwise drivers ask for it as they like, and are told no."""
    database: str = DATABASE
    given: str = ""

    @property
    def dsn(self) -> str:
        """A connection URL, for drivers and programs alike."""
        if self.given:
            return self.given
        login = quote(self.user, safe="") + (f":{quote(self.password, safe='')}" if self.password else "")
        mode = "?sslmode=require" if self.tls else self.traits.get("asked", "")
        return f"postgresql://{login}@{self.host}:{self.port}/{quote(self.database, safe='')}{mode}"

    @property
    def has_statements(self) -> bool:
        """Whether named prepared statements may be used; if not, drivers are told to do without."""
        return self.traits.get("statements") != "no"

    @property
    def max_clients(self) -> int:
        """So many clients at a time and no more."""
        return int(self.traits.get("clients", MAX_CLIENTS))


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

    def start(
        self, origin: Address, *, pool_size: int = POOL_SIZE, workers: int = 1
    ) -> AbstractContextManager[Running]:
        """Run it in front of *origin*."""
        raise NotImplementedError


def find(name: str) -> str | None:
    """Where a program is; daemons are not always on the path."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/local/bin")


@contextmanager
def directory() -> Iterator[Path]:
    """A directory that programs under another account can read."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def own(path: Path) -> Path:
    """Give *path* to the account that runs foreign daemons, which must write there; return it."""
    if (account := other_account()) is not None:
        shutil.chown(path, account)
    return path


@contextmanager
def daemon(command: Sequence[str], port: int, place: Path) -> Iterator[int]:
    """Run a foreign *command*, which will listen on *port*; yields its process id.

    Raises:
        RuntimeError: it does not listen; the text has what it said.
    """
    with (place / "log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, user=other_account(), cwd=place)
        try:
            try:
                await_port(port, process)
            except RuntimeError as error:
                log.seek(0)
                raise RuntimeError(f"{error}\n{log.read()[-2000:]}") from None
            yield process.pid
        finally:
            end(process)


def other_account() -> str | None:
    """For root: an account without rights, since most of them refuse to run as root."""
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
