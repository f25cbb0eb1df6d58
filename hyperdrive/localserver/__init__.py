"""A real PostgreSQL for people who have none: ``serve`` without an origin, ``demo``, and the tests.

Knows how ``initdb`` and ``postgres`` are run and stopped (app-initdb, app-postgres, server-start, server-shutdown). Knows
nothing of the proxy. ``localinstall`` knows where the programs are and who runs them when we are root.

What holds, each by a test in tests/test_localserver.py: the server listens on loopback or a socket only; it asks for a
password unless told otherwise; when this process dies, however it dies, the server shuts down; a directory that a server
uses is refused; one that a crash left behind is started again.

``LocalServer`` has its calls twice: ``await server.start()``, and ``server.start_sync()`` for programs without a loop.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from hyperdrive.errors import ConfigError, OriginUnreachable
from hyperdrive.localinstall import DEFAULT_MAJOR, Account, Installation, choose_account, find_installation, place_data
from hyperdrive.localserver.signs import LOOPBACK, answers, first_number, free_port, says_ready, serves, write_private

log = logging.getLogger("hyperdrive.localserver")

Auth = Literal["scram-sha-256", "md5", "password", "trust"]

_POLL_SECONDS = 0.02
_TAKE_OVER_SECONDS = 10.0
"""How long a server that has the data directory may take to end."""
_SOON_SECONDS = 1.0
"""After which we say what we are waiting for."""
_LOG_LIMIT_BYTES = 16 * 1024 * 1024

# Ends the server when the pipe at its standard input is closed, which the kernel does when our process dies. Linux's
# parent-death signal would be simpler, but fires already when the *thread* that started the server ends.
_WATCHDOG = 'trap "" INT TERM HUP; read -r _; kill -INT "$1"'


class Shutdown(Enum):
    """The modes of server-shutdown, by the signal that asks for them."""

    SMART = signal.SIGTERM
    FAST = signal.SIGINT
    IMMEDIATE = signal.SIGQUIT


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
        self.data_dir = Path(os.path.abspath(data_dir))  # not resolve(): it may be a link
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
        self._password = password
        self._template = template
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
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
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def pids(self) -> frozenset[int]:
        """Our direct children: the postmaster and its watchdog."""
        running = (self._process, self._watchdog)
        return frozenset(process.pid for process in running if process is not None and process.poll() is None)

    @property
    def is_running(self) -> bool:
        """Whether the postmaster lives."""
        return self.pid is not None

    @property
    def password(self) -> str:
        """The superuser's password."""
        if self._password is None:
            try:
                self._password = self._password_path.read_text().strip()
            except FileNotFoundError as exc:
                raise ConfigError(f"the password of {self.data_dir} is not known: give it") from exc
        return self._password

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
            self._forget()
            self._give_up.clear()
            data = self._prepare()
            self._take_over(data)
            deadline = time.monotonic() + self._start_timeout
            # A port that was free a moment ago may be taken by the time the server binds it.
            for attempt in range(5):
                if self._port is None:
                    self._port = free_port()
                log_start = self._spawn(data)
                try:
                    self._wait_until_ready(data, deadline, log_start)
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
            if self._process is not None:
                for number, patience in ((mode.value, timeout), (signal.SIGQUIT, 10.0), (signal.SIGKILL, None)):
                    self._process.send_signal(number)
                    try:
                        self._process.wait(patience)
                        break
                    except subprocess.TimeoutExpired:
                        continue
            self._forget()

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
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

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
        done = subprocess.run(command, input=sql, capture_output=True, text=True, check=False, env=_environment())
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
        data = place_data(self.data_dir, self.account)
        if self.socket_dir is not None and not self.socket_dir.exists():
            self.socket_dir.mkdir(parents=True, mode=0o700)
            self.account.own(self.socket_dir)
        version = data / "PG_VERSION"
        if not version.exists():
            if any(data.iterdir()):
                raise ConfigError(f"{data} is neither empty nor a data directory of PostgreSQL")
            self._initialize(data)
        elif (found := version.read_text().strip()) != str(self.installation.major):
            raise ConfigError(f"{data} is of PostgreSQL {found}, the programs are of {self.installation.major}")
        for source, name in zip(self._tls, ("server.crt", "server.key"), strict=True):
            if source is not None:  # copied, because the key must belong to who runs the server (ssl-tcp)
                (data / name).unlink(missing_ok=True)
                write_private(data / name, source.read_bytes())
                self.account.own(data / name)
        return data

    def _initialize(self, data: Path) -> None:
        """Make a data directory with ``initdb``, or as a copy of the template."""
        if self._template is not None:
            subprocess.run(["/bin/cp", "-a", f"{self._template.resolve()}/.", data], check=True)
            return
        with tempfile.NamedTemporaryFile("w", dir=data.parent, prefix="hyperdrive-") as secret:
            secret.write(self._new_password() + "\n")
            secret.flush()
            self.account.own(Path(secret.name))
            command: list[str | Path] = [self.installation.program("initdb"), "-D", data, "--no-instructions"]
            command += [f"--username={self.user}", f"--pwfile={secret.name}"]
            command += [f"--auth-local={self.auth}", f"--auth-host={self.auth}", "--encoding=UTF8", "--locale=C"]
            if self.installation.major >= 17:  # Unicode's rules on every machine alike, whatever locales it has
                command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            if self.settings.get("fsync") == "off":
                command.append("--no-sync")
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for us: it takes a second, and then we stop in order
                **self.account.spawn_args(),
            )
        if done.returncode != 0:
            raise _failed("the embedded Postgres could not be initialized", done.stderr)

    def _new_password(self) -> str:
        """Return the password for a new directory; one that we make is kept where only we can read it."""
        if self._password is None:
            self._password = secrets.token_urlsafe(18)
            write_private(self._password_path, self._password.encode() + b"\n")
        return self._password

    @property
    def _password_path(self) -> Path:
        return self.data_dir.with_name(self.data_dir.name + ".password")

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

    def _spawn(self, data: Path) -> int:
        """Start the postmaster and its watchdog; return where in the log this start begins."""
        settings = {
            "listen_addresses": LOOPBACK if self.tcp else "",
            "port": str(self.port),
            "unix_socket_directories": "" if self.socket_dir is None else str(self.socket_dir.resolve()),
            **self.settings,
        }
        command: list[str | Path] = [self.installation.program("postgres"), "-D", data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        if self.log_path.exists() and self.log_path.stat().st_size > _LOG_LIMIT_BYTES:
            self.log_path.replace(self.log_path.with_name(self.log_path.name + ".old"))
        # Opened by us and beside the directory: the account that runs the server cannot make us write elsewhere.
        # It has statements in it, so it is for us alone.
        descriptor = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "ab") as log_file:
            log_start = os.fstat(log_file.fileno()).st_size
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for us; we stop the server in order
                **self.account.spawn_args(),
            )
        listening_end, self._lifeline = os.pipe()
        try:
            self._watchdog = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHDOG, "watchdog of a local server", str(self._process.pid)],
                stdin=listening_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
                start_new_session=True,
                **self.account.spawn_args(),
            )
        finally:
            os.close(listening_end)
        self._owner_pid = os.getpid()
        atexit.register(self._at_exit)
        return log_start

    def _wait_until_ready(self, data: Path, deadline: float, log_start: int) -> None:
        """Wait until the lock file says that it is ready, and a connection then shows it.

        The file first: on a port that somebody else holds, an answer would be somebody else's.
        """
        assert self._process is not None
        while not (says_ready(data / "postmaster.pid", self._process.pid) and answers(self._address, self.user)):
            if self._process.poll() is not None:
                raise _failed("the embedded Postgres did not start", self._log_from(log_start))
            if time.monotonic() > deadline:
                raise _failed("the embedded Postgres was not ready in time", self._log_from(log_start))
            if self._give_up.is_set():
                raise OriginUnreachable("the start of the embedded Postgres was given up")
            self._pause()

    @property
    def _address(self) -> tuple[str, int] | str:
        return (self.host, self.port) if self.tcp else f"{self.socket_dir}/.s.PGSQL.{self.port}"

    def _pause(self) -> None:
        self._give_up.wait(_POLL_SECONDS)

    def _log_from(self, position: int) -> str:
        with self.log_path.open("rb") as log_file:
            log_file.seek(position)
            return log_file.read().decode(errors="replace")

    def _forget(self) -> None:
        """Let go of a server that has ended, and of its watchdog."""
        atexit.unregister(self._at_exit)
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.wait()
        if self._lifeline != -1:
            os.close(self._lifeline)
        self._process, self._watchdog, self._lifeline = None, None, -1

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


def _failed(what: str, output: str) -> OriginUnreachable:
    """An error whose text ends with the last lines that PostgreSQL printed."""
    lines = [line for line in output.splitlines() if line.strip()][-8:]
    return OriginUnreachable("\n".join([what, *lines]))


def _environment() -> dict[str, str]:
    """What PostgreSQL's programs may know of our environment: no PG… variable, no foreign locale."""
    kept = {name: os.environ[name] for name in ("PATH", "TZ", "LD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C", "HOME": "/"}
