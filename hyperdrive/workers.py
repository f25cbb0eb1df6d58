"""Several processes on one port: a supervisor that starts workers, starts anew what dies, and leaves nothing behind.

The supervisor runs no event loop and no thread, so it may fork at any time; settings and the key for unknown users' salts pass to
workers that way. Each worker listens with SO_REUSEPORT (socket(7)) and gets its share of every limit. A worker watches a pipe
whose other end only the supervisor has: when that closes, whatever became of the supervisor, the worker ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import uvloop

from hyperdrive.app import DRAIN_SECONDS, App, Membership, client_url, keep_for_good
from hyperdrive.config.loader import Loader
from hyperdrive.config.settings import Settings
from hyperdrive.config.shares import share
from hyperdrive.config.units import Address
from hyperdrive.errors import ConfigError, HyperdriveError
from hyperdrive.net.listener import bind_unix

log = logging.getLogger("hyperdrive.workers")

RESTART_FIRST_SECONDS: Final = 0.1
RESTART_MAX_SECONDS: Final = 10.0
STEADY_SECONDS: Final = 60.0
"""A worker that lived for so long is started anew at once."""
STOP_SECONDS: Final = DRAIN_SECONDS + 5.0
"""After a signal; then what is left is killed."""

_FORWARDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(slots=True)
class _Worker:
    """One worker as the supervisor sees it; *pid* 0 while it waits to be started anew."""

    number: int
    pid: int = 0
    started_at: float = 0.0
    start_at: float = 0.0
    failures: int = 0
    ready_pipe: int = -1
    was_ready: bool = False


class Supervisor:
    """Runs ``settings.workers`` processes until SIGINT, SIGTERM or SHUTDOWN. Call ``run`` in a process without threads."""

    def __init__(
        self,
        settings: Settings,
        ready: Callable[[str], None],
        loader: Loader | None = None,
        loaded: Settings | None = None,
    ) -> None:
        if settings.origin is None:
            raise ConfigError("origin: no database to connect to")
        share(settings, 0, settings.workers)  # says what cannot be shared, before anything starts
        self._settings = settings
        self._ready = ready
        self._loader = loader
        self._loaded = loaded or settings
        self._mock_key = secrets.token_bytes(32)
        self._workers = [_Worker(number) for number in range(settings.workers)]
        self._held: list[socket.socket] = []
        self._unix: socket.socket | None = None
        self._directory = ""
        self._lifeline = (-1, -1)
        self._wake = (-1, -1)
        self._signals: list[int] = []
        self._selector = selectors.DefaultSelector()
        self._told_ready = False
        self._stopping = False
        self._kill_at: float | None = None
        self._code = 0

    def run(self) -> int:
        """Returns the exit code: 0 when it was told to stop, 1 when a worker could not start.

        Raises:
            ConfigError: an address cannot be used.
        """
        before = {}
        try:
            self._hold_ports()
            self._directory = tempfile.mkdtemp(prefix="hyperdrive-workers-")  # mode 0700
            self._lifeline = os.pipe()
            self._wake = os.pipe()
            os.set_blocking(self._wake[1], False)
            before = {number: signal.signal(number, lambda n, _: self._signals.append(n)) for number in _FORWARDED}
            before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda n, _: None)
            signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
            self._selector.register(self._wake[0], selectors.EVENT_READ)
            for worker in self._workers:
                self._start(worker)
            while any(worker.pid for worker in self._workers) or not self._stopping:
                self._turn()
            return self._code
        finally:
            self._kill()
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            for descriptor in (*self._lifeline, *self._wake):
                if descriptor >= 0:
                    os.close(descriptor)
            for sock in self._held:
                sock.close()
            if self._directory:
                shutil.rmtree(self._directory, ignore_errors=True)

    # --- ports --------------------------------------------------------------------------------------------------------

    def _hold_ports(self) -> None:
        """Bind, without listening: port 0 becomes one that all workers know, and none is lost while workers come and go."""
        settings = self._settings
        listen = tuple(self._hold(address) for address in settings.listen)
        admin = settings.admin_listen
        self._settings = replace(settings, listen=listen, admin_listen=self._hold(admin) if admin is not None else None)
        if settings.unix_socket_dir:
            port = listen[0].port if listen else 6543
            self._unix = bind_unix(settings.unix_socket_dir, port, mode=settings.unix_socket_mode)
            self._held.append(self._unix)

    def _hold(self, address: Address) -> Address:
        port = address.port
        try:
            places = socket.getaddrinfo(
                None if address.host == "*" else address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, kind, _, _, place in places:
                sock = socket.socket(family, kind)
                self._held.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((place[0], port, *place[2:]))
                port = sock.getsockname()[1]
        except OSError as exc:
            raise ConfigError(f"cannot listen on {address}: {exc.strerror or exc}") from exc
        return replace(address, port=port)

    # --- one turn -----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._wait_seconds()):
            if key.fd == self._wake[0]:
                os.read(key.fd, 4096)
            else:
                self._heard(key.data)
        for number in self._signals[:]:
            self._signals.remove(number)
            self._forward(number)
        self._reap()
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill()
        if self._stopping:
            return
        for worker in self._workers:
            if not worker.pid and now >= worker.start_at:
                self._start(worker)

    def _wait_seconds(self) -> float | None:
        now = time.monotonic()
        due = [worker.start_at for worker in self._workers if not worker.pid and not self._stopping]
        if self._kill_at is not None:
            due.append(self._kill_at)
        return max(0.0, min(due) - now) if due else None

    def _heard(self, worker: _Worker) -> None:
        """It is ready, or it ended before it was."""
        worker.was_ready |= bool(os.read(worker.ready_pipe, 1))
        self._forget_pipe(worker)
        if not self._told_ready and all(one.was_ready for one in self._workers):
            self._told_ready = True
            self._ready(client_url(self._settings, self._settings.listen[0].port))

    def _forget_pipe(self, worker: _Worker) -> None:
        if worker.ready_pipe >= 0:
            self._selector.unregister(worker.ready_pipe)
            os.close(worker.ready_pipe)
            worker.ready_pipe = -1

    def _forward(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)
        if number != signal.SIGHUP:
            self._stopping = True
            self._kill_at = self._kill_at or time.monotonic() + STOP_SECONDS

    def _reap(self) -> None:
        for worker in self._workers:
            if not worker.pid:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, code: int) -> None:
        pid, worker.pid = worker.pid, 0
        if worker.ready_pipe >= 0:
            self._heard(worker)
        if self._stopping:
            return
        if code == 0:  # SHUTDOWN in the console; the others were told by it, and may wait for their clients
            self._stopping = True
            return
        if not self._told_ready:
            self._code = 1
            self._forward(signal.SIGTERM)
            return
        now = time.monotonic()
        worker.failures = 0 if now - worker.started_at >= STEADY_SECONDS else worker.failures + 1
        pause = min(RESTART_FIRST_SECONDS * 2 ** max(0, worker.failures - 1), RESTART_MAX_SECONDS)
        worker.start_at = now + pause
        log.error("! worker %d (pid %d) ended with %d; starting it anew in %.1f s", worker.number, pid, code, pause)

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
                worker.pid = 0
            self._forget_pipe(worker)

    # --- workers ------------------------------------------------------------------------------------------------------

    def _start(self, worker: _Worker) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(read)
                code = self._be(worker.number, write)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)  # nothing of the supervisor's own may run here
        os.close(write)
        worker.pid, worker.ready_pipe, worker.started_at = pid, read, time.monotonic()
        self._selector.register(read, selectors.EVENT_READ, worker)

    def _be(self, number: int, ready_pipe: int) -> int:
        """The life of a worker."""
        signal.set_wakeup_fd(-1)
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(one, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can reload
        self._selector.close()
        for descriptor in (self._lifeline[1], *self._wake):
            os.close(descriptor)
        for sock in self._held:
            if sock is not self._unix:
                sock.close()
        count = self._settings.workers
        member = Membership(number, count, self._directory, lambda whole: share(whole, number, count), self._unix)
        try:
            uvloop.run(self._work(member, ready_pipe))
        except HyperdriveError as error:
            sys.stderr.write(f"hyperdrive: {error.log_text}\n")
            return 1
        return 0

    async def _work(self, member: Membership, ready_pipe: int) -> None:
        app = App(self._settings, loader=self._loader, loaded=self._loaded, mock_key=self._mock_key, member=member)
        async with app:
            loop = asyncio.get_running_loop()

            def supervisor_is_gone() -> None:
                loop.remove_reader(self._lifeline[0])
                app.stop()

            loop.add_reader(self._lifeline[0], supervisor_is_gone)
            keep_for_good()
            os.write(ready_pipe, b"r")
            os.close(ready_pipe)
            await app.run()
            loop.remove_reader(self._lifeline[0])
