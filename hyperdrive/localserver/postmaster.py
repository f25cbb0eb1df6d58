"""One run of ``postgres``, and the watchdog that ends it with us."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from hyperdrive.errors import OriginUnreachable
from hyperdrive.localinstall import Account

_LOG_LIMIT_BYTES = 16 * 1024 * 1024

# Ends the server when the pipe at its standard input is closed, which the kernel does when our process dies. Linux's
# parent-death signal would be simpler, but fires already when the *thread* that started the server ends.
_WATCHDOG = 'trap "" INT TERM HUP; read -r _; kill -INT "$1"'


class Shutdown(Enum):
    """The modes of server-shutdown, by the signal that asks for them."""

    SMART = signal.SIGTERM
    FAST = signal.SIGINT
    IMMEDIATE = signal.SIGQUIT


class Postmaster:
    """A server from its start, with *command*, to its end; what it says is added to *log_path*. Whoever makes one calls ``end``."""

    def __init__(self, command: Sequence[str | Path], log_path: Path, account: Account) -> None:
        if log_path.exists() and log_path.stat().st_size > _LOG_LIMIT_BYTES:
            log_path.replace(log_path.with_name(log_path.name + ".old"))
        # Opened by us and beside the directory: the account that runs the server cannot make us write elsewhere.
        # It has statements in it, so it is for us alone.
        descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "ab") as log_file:
            self._log_path, self._log_start = log_path, os.fstat(log_file.fileno()).st_size
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                cwd="/",
                env=environment(),
                start_new_session=True,  # Ctrl-C is for us; we stop the server in order
                **account.spawn_args(),
            )
        listening_end, self._lifeline = os.pipe()
        try:
            self._watchdog = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHDOG, "watchdog of a local server", str(self._process.pid)],
                stdin=listening_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment(),
                start_new_session=True,
                **account.spawn_args(),
            )
        except BaseException:
            os.close(self._lifeline)
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            raise
        finally:
            os.close(listening_end)

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process.poll() is None else None

    @property
    def pids(self) -> frozenset[int]:
        """Our direct children: the server and its watchdog."""
        return frozenset(process.pid for process in (self._process, self._watchdog) if process.poll() is None)

    def reload(self) -> None:
        """Let it read its configuration files again; returns before it has."""
        self._process.send_signal(signal.SIGHUP)

    def said(self) -> str:
        """What it has written to its log in this run."""
        with self._log_path.open("rb") as log_file:
            log_file.seek(self._log_start)
            return log_file.read().decode(errors="replace")

    def end(self, mode: Shutdown, timeout: float) -> None:
        """Stop it, if it has not ended by itself, and its watchdog. After *timeout* seconds a harder mode is taken."""
        for number, patience in ((mode.value, timeout), (signal.SIGQUIT, 10.0), (signal.SIGKILL, None)):
            self._process.send_signal(number)
            try:
                self._process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
        self._watchdog.kill()
        self._watchdog.wait()
        os.close(self._lifeline)


def environment() -> dict[str, str]:
    """What PostgreSQL's programs may know of our environment: no PG… variable, no foreign locale."""
    kept = {name: os.environ[name] for name in ("PATH", "TZ", "LD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C", "HOME": "/"}


def failed(what: str, output: str) -> OriginUnreachable:
    """An error whose text ends with the last lines that PostgreSQL printed."""
    lines = [line for line in output.splitlines() if line.strip()][-8:]
    return OriginUnreachable("\n".join([what, *lines]))
