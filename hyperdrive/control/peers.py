"""How the workers of one port talk to each other: a unix socket each, in a directory that only their user can enter.

A request is a line of JSON and so is its answer; one connection carries one request. Cancel requests come this way, the
console's commands, and questions for rows. Knows names and values; what they mean is decided in ``state``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hyperdrive.errors import HyperdriveError, NotReady

log = logging.getLogger("hyperdrive.control")

MAX_LINE_BYTES = 256 * 1024 * 1024
"""Ten thousand clients are about three megabytes of rows."""

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
Follow = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def peer_path(directory: str, worker: int) -> str:
    """The socket of *worker*."""
    return f"{directory}/worker-{worker}.sock"


class PeerServer:
    """Answers the other workers."""

    def __init__(self, answer: Answer, follow: Follow | None = None) -> None:
        self._answer = answer
        self._follow = follow
        """Takes a connection over on which another worker has more than one thing to say."""
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._followed: set[asyncio.StreamWriter] = set()
        self._followers: set[asyncio.Task[None]] = set()

    async def start(self, path: str) -> None:
        """Listen; what a predecessor that crashed left behind is replaced."""
        self._path = Path(path)
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path, limit=MAX_LINE_BYTES)

    async def close(self) -> None:
        """Stop answering."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._followed):
            writer.transport.abort()  # its task ends by that; asyncio complains of one that is cancelled
        for task in [task for task in self._open if task not in self._followers]:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        assert self._path is not None
        self._path.unlink(missing_ok=True)
        with suppress(OSError):  # the last one removes the directory, if the supervisor could not
            self._path.parent.rmdir()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            request = json.loads(await reader.readline())
            if request.get("do") == "follow" and self._follow is not None:
                self._followed.add(writer)
                self._followers.add(task)
                try:
                    await self._follow(request["worker"], reader, writer)
                finally:
                    self._followed.discard(writer)
                    self._followers.discard(task)
                return
            try:
                reply = await self._answer(request)
            except HyperdriveError as error:
                reply = {"error": error.client_text, "sqlstate": error.code}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError) as exc:
            log.debug("! a request of another worker: %s", exc)
        except asyncio.CancelledError:
            if self._server is None or self._server.is_serving():
                raise
            # We close: asyncio would log a task of a connection that ends as cancelled.
        finally:
            self._open.discard(task)
            writer.close()


class Peer:
    """Another worker."""

    def __init__(self, directory: str, worker: int) -> None:
        self.worker = worker
        self._path = peer_path(directory, worker)

    async def call(self, timeout_seconds: float | None = 5.0, **request: Any) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Raises:
            NotReady: it does not answer, or says that it failed, with the SQLSTATE that it gives.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE_BYTES)
                try:
                    writer.write(json.dumps(request).encode() + b"\n")
                    reply: dict[str, Any] = json.loads(await reader.readline())
                finally:
                    writer.close()
        except (OSError, ValueError) as exc:  # a TimeoutError is an OSError
            raise NotReady(f"worker {self.worker} does not answer", log_text=f"worker {self.worker}: {exc!r}") from exc
        if "error" in reply:
            raise NotReady(f"worker {self.worker}: {reply['error']}", sqlstate=reply["sqlstate"])
        return reply
