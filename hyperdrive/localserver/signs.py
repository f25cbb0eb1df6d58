"""What can be seen of a server from outside: the lock file in its directory, its process, and whether it answers."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

LOOPBACK = "127.0.0.1"


def first_number(lock_file: Path) -> int | None:
    """The process id in a lock file, if there is one."""
    try:
        return int(lock_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def says_ready(lock_file: Path, pid: int | None) -> bool:
    """Whether the lock file is of process *pid*, and its eighth line says ``ready`` (pidfile.h), as pg_ctl reads it."""
    try:
        lines = lock_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def serves(pid: int, data: Path) -> bool:
    """Whether process *pid* lives and, where the system tells, works in *data*, as a postmaster does."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == data
    except (FileNotFoundError, PermissionError):
        return Path(f"/proc/{pid}").exists() or not Path("/proc/self").exists()


def answers(address: tuple[str, int] | str, user: str) -> bool:
    """Whether a StartupMessage is answered by Authentication… and not, as before it is ready, by an error."""
    body = struct.pack("!I", 0x0003_0000) + b"user\0%b\0database\0postgres\0\0" % user.encode()
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(5.0)
        try:
            probe.connect(address)
            probe.sendall(struct.pack("!I", len(body) + 4) + body)
            return probe.recv(1) == b"R"
        except OSError:
            return False


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def write_private(path: Path, content: bytes) -> None:
    """Write a file that is for its owner alone, and through no link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
