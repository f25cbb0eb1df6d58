"""Fakes for pools: servers without sockets, an origin that connects when the test says so, timers on a ManualClock.

``hyperdrive.pool`` needs nothing else, so its tests run in virtual time and in any order of events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

from hyperdrive.clock import ManualClock
from hyperdrive.errors import HyperdriveError
from hyperdrive.pool import Pool, Pooled, PoolKey

_numbers = count(1)


async def loop_turns(turns: int) -> None:
    """Let the event loop run *turns* times."""
    for _ in range(turns):
        await asyncio.sleep(0)


class FakeServer(Pooled):
    """A server connection that remembers what the pool asked of it."""

    __slots__ = ("close_reason", "name", "owner", "probes")

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self.name = name or f"server {next(_numbers)}"
        self.probes = 0
        self.close_reason: str | None = None
        #: For tests that check that nobody else has it.
        self.owner: object | None = None

    def __repr__(self) -> str:
        return f"<{self.name} {self.pool_state.value}>"

    def probe(self) -> None:
        self.probes += 1

    def close(self, reason: str) -> None:
        assert self.close_reason is None, "closed twice"
        self.close_reason = reason


class FakeTaker:
    """A client in the queue that remembers what it got."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.server: FakeServer | None = None
        self.error: HyperdriveError | None = None
        self.is_in_transaction = False
        #: A client that has left without ``forget``.
        self.is_gone = False
        #: Called with the server, from within the hand-over.
        self.on_offer: Callable[[FakeServer], None] | None = None

    def __repr__(self) -> str:
        return f"<taker {self.name}>"

    def offer(self, server: FakeServer) -> bool:
        assert self.server is None, "served twice"
        assert self.error is None, "refused, then served"
        if self.is_gone:
            return False
        self.server = server
        if self.on_offer is not None:
            self.on_offer(server)
        return True

    def refuse(self, error: HyperdriveError) -> None:
        assert self.server is None, "served, then refused"
        assert self.error is None, "refused twice"
        self.error = error

    @property
    def is_waiting(self) -> bool:
        return self.server is None and self.error is None


class FakeOrigin:
    """Connects at once, or (``at_once = False``) when ``accept`` or ``refuse`` is called."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.error: BaseException | None = None
        self.attempts = 0
        self.opened: list[FakeServer] = []
        self.pending: list[asyncio.Future[FakeServer]] = []

    async def connect(self, key: PoolKey) -> FakeServer:
        self.attempts += 1
        if self.at_once:
            if self.error is not None:
                raise self.error
            self.opened.append(FakeServer())
            return self.opened[-1]
        future: asyncio.Future[FakeServer] = asyncio.get_running_loop().create_future()
        self.pending.append(future)
        try:
            return await future
        except BaseException:
            # As the real one: whoever is cancelled in here closes what it has opened.
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().close("connect cancelled")
            raise
        finally:
            if future in self.pending:
                self.pending.remove(future)

    def accept(self, which: int = 0) -> FakeServer:
        """Let a pending connect succeed."""
        future = self.pending.pop(which)
        server = FakeServer()
        if not future.done():
            self.opened.append(server)
            future.set_result(server)
        return server

    def refuse(self, error: BaseException, which: int = 0) -> None:
        """Let a pending connect fail."""
        future = self.pending.pop(which)
        if not future.done():
            future.set_exception(error)

    @property
    def open(self) -> list[FakeServer]:
        """Servers that were opened and not closed."""
        return [server for server in self.opened if server.close_reason is None]


class ManualTimer:
    """What ``ManualTimers.call_later`` returns."""

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualTimers:
    """Timers that fire when ``advance`` passes them, in their order, with the clock at their time."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self._timers: list[ManualTimer] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> ManualTimer:
        timer = ManualTimer(self.clock.now() + delay, callback)
        self._timers.append(timer)
        return timer

    @property
    def armed(self) -> list[float]:
        """When the timers that were not cancelled are due."""
        self._timers = [timer for timer in self._timers if timer.callback is not None]
        return sorted(timer.at for timer in self._timers)

    def fire_next(self, until: float) -> bool:
        """Move to the next timer that is due by *until* and fire it; ``False``: none is."""
        if not self.armed or self.armed[0] > until:
            return False
        timer = min(self._timers, key=lambda timer: timer.at)
        self.clock.advance(max(0.0, timer.at - self.clock.now()))
        self._timers.remove(timer)
        assert timer.callback is not None
        timer.callback()
        return True

    async def advance(self, seconds: float) -> None:
        """Move the clock on by *seconds*; the loop turns after each timer, so that connects go on."""
        until = self.clock.now() + seconds
        fired = 0
        await loop_turns(4)
        while self.fire_next(until):
            fired += 1
            assert fired < 10_000, "timers fire without end"
            await loop_turns(4)
        self.clock.advance(max(0.0, until - self.clock.now()))
        await loop_turns(4)


def ask(pool: Pool[FakeServer], name: str = "") -> FakeTaker:
    """A client that needs a server: takes one or queues, as the proxy does."""
    taker = FakeTaker(name)
    server = pool.take()
    if server is not None:
        taker.server = server
    else:
        pool.wait(taker)
    return taker
