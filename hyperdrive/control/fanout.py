"""What one worker's clients wrote, told to the others before those clients hear that it is done.

Each worker keeps a connection to each of the others' sockets and writes a line for every change; the other applies it and answers with
its number. A client's reply waits for those answers, so a program that writes by one worker and reads by another sees what it wrote.

Whoever hears nothing more of a worker, or misses a number, drops everything; and until it knows that the other is either heard of again
or gone, it takes no part. Workers link with each other before they let clients in. Knows lines and domains; knows no client.

A worker that stands still answers nobody, and cannot know yet that the others went on without it. So each line says when it was written,
which one clock tells all processes of a machine, and nothing is served by a worker for which the last word of another is older than
``VOUCHED_SECONDS``: that is less than the others wait for its answer before they go on. Who has nothing to say says the time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final

from hyperdrive.clock import SystemClock
from hyperdrive.control.peers import Peer, peer_path
from hyperdrive.errors import NotReady
from hyperdrive.proxy.cache import Cache
from hyperdrive.proxy.database import Database, Heard
from hyperdrive.tasks import spawn

log = logging.getLogger("hyperdrive.control")

HEARD_SECONDS: Final = 2.0
"""How long an answer may take: a worker that is so slow is cut off, and drops everything when it notices."""
VOUCHED_SECONDS: Final = 1.5
"""How long what another worker said last vouches for what is stored here; less than ``HEARD_SECONDS``."""
BEAT_SECONDS: Final = 0.25
"""How often somebody with nothing else to say says the time."""
RETRY_SECONDS: Final = 0.5
MAX_LINE_BYTES: Final = 1 << 20


class Announcement(Heard):
    """A change that others have to hear of; *then* is called once, when all have, or cannot any more."""

    __slots__ = ("_left", "_then")

    def __init__(self, left: int) -> None:
        self._left = left
        self._then: Callable[[], None] | None = None

    def when_heard(self, then: Callable[[], None]) -> None:
        if self._left:
            self._then = then
        else:
            then()

    def heard(self) -> None:
        """One of them has."""
        self._left -= 1
        if not self._left and self._then is not None:
            then, self._then = self._then, None
            then()


class _Link:
    """The connection to one other worker, for what we have to say."""

    def __init__(self, worker: int, writer: asyncio.StreamWriter) -> None:
        self.worker = worker
        self.writer = writer
        self.number = 0
        self.waiting: dict[int, tuple[Announcement, float]] = {}
        """What was said and not answered, oldest first, and when it was said."""
        self.deadline: asyncio.TimerHandle | None = None
        self._is_retired = False

    def say(self, line: dict[str, Any], announcement: Announcement) -> None:
        if self.writer.transport.is_closing():
            announcement.heard()  # it has been given up, and knows by the time that it cannot serve
            return
        self.number += 1
        now = SystemClock.now()
        self.waiting[self.number] = announcement, now
        self._write({"n": self.number, "at": now, **line})
        if self.deadline is None:
            self.deadline = asyncio.get_running_loop().call_later(HEARD_SECONDS, self.too_slow)

    def beat(self) -> None:
        """Say the time."""
        if not self._is_retired and not self.writer.transport.is_closing():
            self._write({"at": SystemClock.now()})

    def _write(self, line: dict[str, Any]) -> None:
        self.writer.write(json.dumps(line).encode() + b"\n")

    def answered(self, number: int) -> None:
        said = self.waiting.pop(number, None)
        if not self.waiting and self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        if said is not None:
            said[0].heard()

    def too_slow(self) -> None:
        """Something was said ``HEARD_SECONDS`` ago; whether that is still unanswered, or others have taken its place, shows here."""
        self.deadline = None
        _, oldest = next(iter(self.waiting.values()))
        left = oldest + HEARD_SECONDS - SystemClock.now()
        if left > 0:
            self.deadline = asyncio.get_running_loop().call_later(left, self.too_slow)
            return
        log.warning("! worker %d does not answer", self.worker)
        self.writer.transport.abort()

    def retire(self) -> None:
        """Another link has taken its place: what was said arrives, and is answered, and then the other side hangs up."""
        self._is_retired = True
        if not self.writer.transport.is_closing():
            self.writer.write_eof()

    def close(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        self.writer.transport.abort()
        waiting, self.waiting = list(self.waiting.values()), {}
        for announcement, _ in waiting:
            announcement.heard()


class Fanout:
    """One worker's part in it. *peers* are the others."""

    def __init__(self, cache: Cache, number: int, directory: str, peers: Sequence[Peer]) -> None:
        self._cache = cache
        self._number = number
        self._directory = directory
        self._peers = peers
        self._links: dict[int, _Link] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._followed: dict[int, int] = {}
        """Workers that we hear of, with the number of connections they have to us; normally one."""
        self._said_at: dict[int, float] = {}
        """When those whom we hear of said the last that we have heard."""
        self._is_closed = False
        cache.on_touch = self.announce

    async def start(self) -> None:
        """Link with all that are there, both ways; those that come later do the same. To be awaited before clients are let in."""
        await asyncio.gather(*(self._meet(peer) for peer in self._peers))
        self._keep(spawn(self._beat(), name="say the time to other workers"))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _beat(self) -> None:
        while True:
            for link in list(self._links.values()):
                link.beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def _meet(self, peer: Peer) -> None:
        await self.link(peer.worker)
        await self._ask_back(peer)

    async def _ask_back(self, peer: Peer) -> bool:
        try:
            await peer.call(do="link", worker=self._number)
        except NotReady as error:
            # Refused: it is not there, and asks for us when it comes. One that is only slow may still be writing.
            return not isinstance(error.__cause__, (ConnectionRefusedError, FileNotFoundError))
        return True

    async def close(self) -> None:
        """Say nothing more."""
        self._is_closed = True
        for link in list(self._links.values()):
            link.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what we say ----------------------------------------------------------------------------------------------------------

    async def link(self, worker: int) -> None:
        """Connect to *worker*, to tell it what changes here; nothing happens if it is not there."""
        try:
            reader, writer = await asyncio.open_unix_connection(peer_path(self._directory, worker))
        except OSError:
            return
        old = self._links.pop(worker, None)
        link = self._links[worker] = _Link(worker, writer)
        if old is not None:
            old.retire()
        writer.write(json.dumps({"do": "follow", "worker": self._number}).encode() + b"\n")
        try:
            hello = await reader.readline()
        except OSError:  # it has ended just now
            hello = b""
        if not hello:
            self._unlink(link)
            return
        link.beat()  # unless both of us linked at the same time, and a later one has taken its place
        self._keep(spawn(self._hear_answers(link, reader), name=f"answers of worker {worker}"))

    async def _hear_answers(self, link: _Link, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                link.answered(int(line))
        except (OSError, ValueError):
            pass
        finally:
            self._unlink(link)

    def _unlink(self, link: _Link) -> None:
        if self._links.get(link.worker) is link:
            del self._links[link.worker]
        link.close()

    def announce(
        self, database: Database | None, tags: Iterable[Hashable] | None, ends_epoch: bool
    ) -> Announcement | None:
        """Tell the others; ``None``: there is nobody to tell."""
        name = None if database is None else database.name
        return self._say({"db": name, "tags": None if tags is None else list(tags), "epoch": ends_epoch})

    def _say(self, line: dict[str, Any]) -> Announcement | None:
        links = list(self._links.values())
        if not links:
            return None
        announcement = Announcement(len(links))
        for link in links:
            link.say(line, announcement)
        return announcement

    # --- what we hear ---------------------------------------------------------------------------------------------------------

    async def follow(self, worker: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """*worker* tells us what changes there, until it is gone."""
        self._followed[worker] = self._followed.get(worker, 0) + 1
        self._said_at.setdefault(worker, 0.0)
        self._check()
        try:
            writer.write(b"0\n")
            expected = 0
            while line := await reader.readline():
                said = json.loads(line)
                if "n" not in said:
                    self._vouch(worker, said["at"])
                    continue
                expected += 1
                if said["n"] != expected:
                    log.warning("! worker %d: change %d where %d was expected", worker, said["n"], expected)
                    self._drop_all()
                    expected = said["n"]
                self._apply(said)
                self._vouch(worker, said["at"])
                writer.write(b"%d\n" % said["n"])
        except (OSError, ValueError, KeyError) as exc:
            log.debug("! worker %d: %s", worker, exc)
        finally:
            self._followed[worker] -= 1
            if not self._followed[worker] and not self._is_closed:
                self._lost(worker)
            elif not self._is_closed:
                self._drop_all()  # if this one of two was cut, what was still to be said on it is not known

    def _vouch(self, worker: int, at: float) -> None:
        """*worker* said something at *at*, and all that it said before has been applied."""
        self._said_at[worker] = at
        self._vouch_for_all()

    def _vouch_for_all(self) -> None:
        said_at = min(self._said_at.values(), default=math.inf)
        self._cache.vouched_until = -math.inf if self._cache.suspended else said_at + VOUCHED_SECONDS

    def _apply(self, said: dict[str, Any]) -> None:
        if said["db"] is None:
            self._cache.end_epochs(is_ours=False)
            return
        database = self._cache.databases.get(said["db"])
        if database is not None:
            tags = None if said["tags"] is None else frozenset(said["tags"])
            database.touch(tags, ends_epoch=said["epoch"], is_ours=False)

    def _drop_all(self) -> None:
        for database in self._cache.databases.values():
            database.domain.touch_all()

    def _lost(self, worker: int) -> None:
        """Nothing is heard of *worker* any more: what it last did is unknown, and what it does now would be."""
        log.info("= worker %d is not heard of", worker)
        self._said_at.pop(worker, None)
        self._cache.suspended.add(worker)
        self._vouch_for_all()
        self._drop_all()
        self._keep(spawn(self._find(worker), name=f"find worker {worker}"))

    async def _find(self, worker: int) -> None:
        """It is either gone, and links with us before it lets clients in again, or has to link with us now."""
        peer = Peer(self._directory, worker)
        while worker in self._cache.suspended:
            if not await self._ask_back(peer):
                self._cache.suspended.discard(worker)
                self._vouch_for_all()
            else:
                await asyncio.sleep(RETRY_SECONDS)

    def _check(self) -> None:
        for worker in [one for one in self._cache.suspended if self._followed.get(one)]:
            self._cache.suspended.discard(worker)
            self._drop_all()
        self._vouch_for_all()
