"""One PostgreSQL server: started, stopped and asked, from asyncio or without a loop.

``LocalServer`` has its calls twice: ``await server.start()``, and ``server.start_sync()`` for programs without a loop.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from hyperdrive.errors import ConfigError, OriginUnreachable
from hyperdrive.localinstall import DEFAULT_MAJOR, Account, Installation, choose_account, find_installation
from hyperdrive.localserver.data import Auth, DataDirectory, place_tls
from hyperdrive.localserver.postmaster import Postmaster, Shutdown, environment, failed
from hyperdrive.localserver.signs import LOOPBACK, answers, first_number, free_port, says_ready, serves

log = logging.getLogger("hyperdrive.localserver")

_POLL_SECONDS = 0.02
_TAKE_OVER_SECONDS = 10.0
"""How long a server that has the data directory may take to end."""
_SOON_SECONDS = 1.0
"""After which we say what we are waiting for."""


class LocalServer:
    """One PostgreSQL server on a directory of its own.

    *data_dir* is initialized when it is empty (or copied from *template*, a directory of a stopped server). *port* ``None``
    means any free one, kept over restarts; *socket_dir* adds a Unix-domain socket; *tcp* ``False`` leaves only that.
    *password* ``None`` means one made at initialization and kept beside the directory. *settings* are PostgreSQL's own.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        major: int = DEFAULT_MAJOR,
        user: str = "postgres",
        password: str | None = None,
        auth: Auth = "scram-sha-256",
        port: int | None = None,
        tcp: bool = True,
        socket_dir: Path | None = None,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        settings: Mapping[str, str] | None = None,
        template: Path | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        if not tcp and socket_dir is None:
            raise ConfigError("a local server needs tcp or socket_dir")
        path = Path(os.path.abspath(data_dir))  # not resolve(): it may be a link
        self._data = DataDirectory(path, user=user, password=password, auth=auth, template=template)
        self.data_dir = path
        self.log_path = self.data_dir.with_name(self.data_dir.name + ".log")
        self.host = LOOPBACK
        self.user = user
        self.auth = auth
        self.tcp = tcp
        self.socket_dir = socket_dir
        self.settings = dict(settings or {})
        self.installation: Installation = find_installation(major)
        self.account = Account()
        if tls_cert is not None or tls_key is not None:
            if not self.installation.has_tls():
                raise ConfigError(f"PostgreSQL {major} in {self.installation.bin_dir} is built without TLS")
            self.settings |= {"ssl": "on"}
        self._tls = (tls_cert, tls_key)
        self._port = port
        self._port_is_given = port is not None
        self._start_timeout = start_timeout
        self._postmaster: Postmaster | None = None
        self._owner_pid = 0
        self._lock = threading.RLock()
        self._give_up = threading.Event()

    # --- what it is ----------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port, once started."""
        if self._port is None:
            raise OriginUnreachable("the local server has not been started")
        return self._port

    @property
    def pid(self) -> int | None:
        """Process id of the postmaster while it runs."""
        return self._postmaster.pid if self._postmaster is not None else None

    @property
    def pids(self) -> frozenset[int]:
        """Our direct children: the postmaster and its watchdog."""
        return self._postmaster.pids if self._postmaster is not None else frozenset()

    @property
    def is_running(self) -> bool:
        """Whether the postmaster lives."""
        return self.pid is not None

    @property
    def password(self) -> str:
        """The superuser's password.

        Raises:
            ConfigError: it was neither given nor made here.
        """
        return self._data.password

    def url(self, database: str = "postgres", *, user: str | None = None, password: str | None = None) -> str:
        """Return a connection URL (libpq-connect#LIBPQ-CONNSTRING-URIS), with the password where one is asked for."""
        name = self.user if user is None else user
        login = quote(name, safe="")
        if self.auth != "trust":
            secret = self.password if user is None else password
            login += "" if secret is None else ":" + quote(secret, safe="")
        if self.tcp:
            return f"postgresql://{login}@{self.host}:{self.port}/{quote(database, safe='')}"
        return f"postgresql://{login}@/{quote(database, safe='')}?host={quote(str(self.socket_dir))}&port={self.port}"

    # --- for asyncio ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start, and return when it accepts connections. Cancelling stops it again.

        Raises:
            OriginUnreachable: it ended, or was not ready in time; the text has the end of its log.
            ConfigError: the directory is in use, or belongs to somebody else.
        """
        try:
            await _in_thread(self.start_sync, self._give_up.set)
        except asyncio.CancelledError:
            await _in_thread(self.stop_sync)
            raise

    async def stop(self, mode: Shutdown = Shutdown.FAST) -> None:
        """Shut down and wait for the end; a second call does nothing."""
        self._give_up.set()  # a start that still runs need not be waited for
        await _in_thread(lambda: self.stop_sync(mode))

    async def restart(self, mode: Shutdown = Shutdown.FAST) -> None:
        """Stop and start on the same port."""
        await self.stop(mode)
        await self.start()

    async def kill(self) -> None:
        """Let it crash: every process ends at once, and the next start recovers from the write-ahead log."""
        await self.stop(Shutdown.IMMEDIATE)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- without a loop ------------------------------------------------------------------------------------------

    def start_sync(self) -> None:
        """``start`` for programs without a loop."""
        with self._lock:
            if self.is_running:
                return
            self.stop_sync()  # lets go of one that has ended by itself
            self._give_up.clear()
            data = self._prepare()
            self._take_over(data)
            deadline = time.monotonic() + self._start_timeout
            # A port that was free a moment ago may be taken by the time the server binds it.
            for attempt in range(5):
                if self._port is None:
                    self._port = free_port()
                postmaster = self._spawn(data)
                try:
                    self._wait_until_ready(postmaster, data, deadline)
                    return
                except BaseException as exc:
                    self.stop_sync(Shutdown.IMMEDIATE)
                    if self._port_is_given or attempt == 4 or "Address already in use" not in str(exc):
                        raise
                    self._port = None
            raise AssertionError("unreachable")

    def stop_sync(self, mode: Shutdown = Shutdown.FAST, timeout: float = 30.0) -> None:
        """``stop`` for programs without a loop. After *timeout* seconds a harder mode is taken."""
        with self._lock:
            postmaster, self._postmaster = self._postmaster, None
            if postmaster is not None:
                atexit.unregister(self._at_exit)
                postmaster.end(mode, timeout)

    def restart_sync(self, mode: Shutdown = Shutdown.FAST) -> None:
        """``restart`` for programs without a loop."""
        with self._lock:
            self.stop_sync(mode)
            self.start_sync()

    def kill_sync(self) -> None:
        """``kill`` for programs without a loop."""
        self.stop_sync(Shutdown.IMMEDIATE)

    def reload(self) -> None:
        """Let it read its configuration files again; returns before it has."""
        if self._postmaster is not None:
            self._postmaster.reload()

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run *sql* with ``psql`` as the superuser; return its unaligned output without headers."""
        command: list[str | Path] = [
            self.installation.program("psql"),
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            self.url(database),
        ]
        done = subprocess.run(command, input=sql, capture_output=True, text=True, check=False, env=environment())
        if done.returncode != 0:
            raise OriginUnreachable("the local server refused a statement", log_text=done.stderr.strip())
        return done.stdout.rstrip("\n")

    def __enter__(self) -> Self:
        self.start_sync()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_sync()

    # --- how -----------------------------------------------------------------------------------------------------

    def _prepare(self) -> Path:
        """Decide who runs it and make sure that there is a data directory; return where it really is."""
        self.account = choose_account(self.data_dir)
        self.installation = self.installation.for_account(self.account)
        data = self._data.prepare(self.installation, self.account, is_forgetful=self.settings.get("fsync") == "off")
        if self.socket_dir is not None and not self.socket_dir.exists():
            self.socket_dir.mkdir(parents=True, mode=0o700)
            self.account.own(self.socket_dir)
        place_tls(data, *self._tls, self.account)
        return data

    def _take_over(self, data: Path) -> None:
        """Remove the lock file of a server that is gone; wait a little for one that is going.

        PostgreSQL takes any process with that id for the server (CreateLockFile in miscinit.c), and after a restart of a
        container the same small ids belong to others. Where the system tells, we look whether it is a server on *data*.
        """
        lock_file = data / "postmaster.pid"
        deadline = time.monotonic() + min(_TAKE_OVER_SECONDS, self._start_timeout)
        said = False
        while (pid := first_number(lock_file)) is not None:
            if not serves(pid, data):
                lock_file.unlink(missing_ok=True)
                return
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"the data directory {data} is in use by the server with process id {pid}",
                    hint="stop what has started that server, or start in another directory",
                )
            if not said and time.monotonic() > deadline - _TAKE_OVER_SECONDS + _SOON_SECONDS:
                said = True
                log.info("= %s is in use by the server with process id %d: waiting for its end", data, pid)
            self._pause()

    def _spawn(self, data: Path) -> Postmaster:
        settings = {
            "listen_addresses": LOOPBACK if self.tcp else "",
            "port": str(self.port),
            "unix_socket_directories": "" if self.socket_dir is None else str(self.socket_dir.resolve()),
            **self.settings,
        }
        command: list[str | Path] = [self.installation.program("postgres"), "-D", data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._postmaster = Postmaster(command, self.log_path, self.account)
        self._owner_pid = os.getpid()
        atexit.register(self._at_exit)
        return self._postmaster

    def _wait_until_ready(self, postmaster: Postmaster, data: Path, deadline: float) -> None:
        """Wait until the lock file says that it is ready, and a connection then shows it.

        The file first: on a port that somebody else holds, an answer would be somebody else's.
        """
        while not (says_ready(data / "postmaster.pid", postmaster.pid) and answers(self._address, self.user)):
            if postmaster.pid is None:
                raise failed("the embedded Postgres did not start", postmaster.said())
            if time.monotonic() > deadline:
                raise failed("the embedded Postgres was not ready in time", postmaster.said())
            if self._give_up.is_set():
                raise OriginUnreachable("the start of the embedded Postgres was given up")
            self._pause()

    @property
    def _address(self) -> tuple[str, int] | str:
        return (self.host, self.port) if self.tcp else f"{self.socket_dir}/.s.PGSQL.{self.port}"

    def _pause(self) -> None:
        self._give_up.wait(_POLL_SECONDS)

    def _at_exit(self) -> None:
        """Stop with the program; a fork of it does not own the server."""
        if os.getpid() == self._owner_pid:
            self.stop_sync()


async def _in_thread(job: Callable[[], None], on_cancel: Callable[[], None] | None = None) -> None:
    """Run *job* in a thread; when cancelled, still wait for its end, because nobody else would."""
    work = asyncio.get_running_loop().run_in_executor(None, job)
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        if on_cancel is not None:
            on_cancel()
        await asyncio.wait([work])
        raise
