"""PostgreSQL servers for tests: one per major version for the whole session, and throw-away ones that a test may kill.

``initdb`` runs once per major version; every server starts on a copy of that template. All are fast and forgetful
(``fsync=off``): the process may crash and recover, the machine may not.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hyperdrive.localserver import Auth, LocalServer, Shutdown

MAJORS = (16, 18)
SUPERUSER, SUPERUSER_PASSWORD = "postgres", "postgres-password"
APP_USER, APP_PASSWORD, APP_DATABASE = "app", "app-password", "app"

SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "jit": "off",
    "wal_level": "logical",
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "shared_buffers": "32MB",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}

_MEMORY_BYTES = 4 * 1024**3
_PREFIX = "hyperdrive-test-"


class Postgres:
    """A running server with an ordinary user ``app``, owner of the database ``app``."""

    user, password, database = APP_USER, APP_PASSWORD, APP_DATABASE

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.major = server.installation.major
        self.host = server.host

    def __repr__(self) -> str:
        return f"<PostgreSQL {self.major} on port {self.port}>"

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        """The superuser's connection URL, database ``postgres``."""
        return self.server.url()

    @property
    def app_url(self) -> str:
        """The ordinary user's connection URL, database ``app``."""
        return self.url_for(APP_USER, APP_PASSWORD, APP_DATABASE)

    def url_for(self, user: str, password: str, database: str = APP_DATABASE) -> str:
        """Return the connection URL of any other user."""
        return self.server.url(database, user=user, password=password)

    def program(self, name: str) -> Path:
        """Path of ``psql``, ``pgbench`` … of this version."""
        return self.server.installation.program(name)

    def execute(self, sql: str, database: str = APP_DATABASE) -> str:
        """Run *sql* as the superuser, with ``psql``; return its unaligned output."""
        return self.server.execute(sql, database)


class PostgresFarm:
    """All servers of one test session. Nothing is started before it is asked for."""

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._shared: dict[int, Postgres] = {}
        self._kept: list[LocalServer] = []
        self._templates: dict[int, Path] = {}
        self._made = 0

    @property
    def directory(self) -> Path:
        """Where the servers keep their data; an account without rights can reach it, unlike pytest's own directories."""
        if self._directory is None:
            place = _memory() or Path(tempfile.gettempdir())
            _remove_left_behind(place)
            self._directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))
            self._directory.chmod(0o755)
        return self._directory

    @property
    def pids(self) -> frozenset[int]:
        """Processes that live as long as the session: two of each server, a pipe between one of them and us."""
        servers = [*(postgres.server for postgres in self._shared.values()), *self._kept]
        return frozenset(pid for server in servers for pid in server.pids)

    def shared(self, major: int) -> Postgres:
        """Return the session's server of PostgreSQL *major*. Tests share it, so they leave it as they found it."""
        if major not in self._shared:
            server = self.make(major)
            server.start_sync()
            self._shared[major] = Postgres(server)
        return self._shared[major]

    def make(
        self,
        major: int = 18,
        *,
        settings: Mapping[str, str] | None = None,
        auth: Auth = "scram-sha-256",
        tcp: bool = True,
        socket_dir: Path | None = None,
    ) -> LocalServer:
        """Return a server of its own, not yet started. An *auth* other than SCRAM costs an ``initdb`` (about a second)."""
        self._made += 1
        return LocalServer(
            self.directory / f"pg{major}-{self._made}",
            major=major,
            user=SUPERUSER,
            password=SUPERUSER_PASSWORD,
            auth=auth,
            tcp=tcp,
            socket_dir=socket_dir,
            settings={**SETTINGS, **(settings or {})},
            template=self._template(major) if auth == "scram-sha-256" else None,
        )

    def prepare(self, server: LocalServer) -> Postgres:
        """Start *server* and see to it that it has the user and the database ``app``."""
        server.start_sync()
        if server.execute(f"select count(*) from pg_roles where rolname = '{APP_USER}'") == "0":
            server.execute(f"create role {APP_USER} login password '{APP_PASSWORD}'")
            server.execute(f"create database {APP_DATABASE} owner {APP_USER}")
        return Postgres(server)

    def keep(self, server: LocalServer) -> Postgres:
        """Start *server*, as ``prepare`` does, for the rest of the session; it is no leak of the test that was first."""
        self._kept.append(server)
        return self.prepare(server)

    def discard(self, server: LocalServer) -> None:
        """Stop a throw-away server and remove its data."""
        server.stop_sync(Shutdown.IMMEDIATE)
        shutil.rmtree(server.data_dir, ignore_errors=True)
        server.log_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop everything and remove the directory."""
        for server in [*(postgres.server for postgres in self._shared.values()), *self._kept]:
            server.stop_sync(Shutdown.IMMEDIATE)
        self._shared.clear()
        self._kept.clear()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _template(self, major: int) -> Path:
        if major not in self._templates:
            server = LocalServer(
                self.directory / f"template{major}",
                major=major,
                user=SUPERUSER,
                password=SUPERUSER_PASSWORD,
                settings=SETTINGS,
            )
            self.prepare(server)
            server.stop_sync()
            self._templates[major] = server.data_dir
        return self._templates[major]


def _memory() -> Path | None:
    """A file system in memory with room for a few servers: copying a template to a disk takes ten times as long."""
    shm = Path("/dev/shm")
    if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > _MEMORY_BYTES:
        return shm
    return None


def _remove_left_behind(place: Path) -> None:
    """Remove the directories of test sessions that were killed; their servers ended with them."""
    for path in place.glob(f"{_PREFIX}*-*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and path.stat().st_uid == os.geteuid():
            try:
                os.kill(int(owner), 0)
            except ProcessLookupError:
                shutil.rmtree(path, ignore_errors=True)
            except PermissionError:
                continue
