"""All pools of one process, by database and user: made when asked for, removed when nobody uses them.

Knows who shares the way to the origin: when a server of one pool does not answer, the servers of all are checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from math import inf
from typing import Generic

from hyperdrive.clock import Clock
from hyperdrive.pool.interfaces import CloseReason, PoolKey, S
from hyperdrive.pool.limits import Limits
from hyperdrive.pool.metrics import PoolMetrics
from hyperdrive.pool.pool import CallLater, Pool, Timer
from hyperdrive.pool.settings import PoolSettings, or_never

#: Databases with counters of their own; what clients ask for beyond them is counted under one name.
MAX_COUNTED = 1000
OTHERS = "(others)"

#: How often unused pools are looked for: a minute late does not matter to an hour.
SWEEP_SECONDS = 60.0


class Pools(Generic[S]):
    """The pools of one origin. *settings_for* gives a pool's settings, *limits* are shared by all."""

    def __init__(
        self,
        settings_for: Callable[[PoolKey], PoolSettings],
        connect: Callable[[PoolKey], Awaitable[S]],
        clock: Clock,
        limits: Limits | None = None,
        *,
        call_later: CallLater | None = None,
    ) -> None:
        self.limits = limits or Limits(now=clock.now)
        self._settings_for = settings_for
        self._connect = connect
        self._clock = clock
        self._call_later = call_later
        self._pools: dict[PoolKey, Pool[S]] = {}
        self._kept: set[PoolKey] = set()
        self._paused: set[str | None] = set()
        self.metrics: dict[str, PoolMetrics] = {}
        """By database; they outlive the pools, since a counter never falls."""
        self._timer: Timer | None = None
        self._closed = False

    def __iter__(self) -> Iterator[Pool[S]]:
        return iter(list(self._pools.values()))

    def __len__(self) -> int:
        return len(self._pools)

    def get(self, key: PoolKey, *, keep: bool = False) -> Pool[S]:
        """Return the pool of *key*, made and warmed if there is none. *keep*: never remove it."""
        if keep:
            self._kept.add(key)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = self._make(key)
        return pool

    def find(self, key: PoolKey) -> Pool[S] | None:
        """Return the pool of *key* if there is one."""
        return self._pools.get(key)

    def of(self, database: str | None) -> list[Pool[S]]:
        """The pools of *database*, or all."""
        return [pool for pool in self if database is None or pool.key.database == database]

    def change(self, settings_for: Callable[[PoolKey], PoolSettings]) -> None:
        """RELOAD: ask *settings_for* anew for every pool, and for those to come."""
        self._settings_for = settings_for
        for pool in self:
            pool.change(settings_for(pool.key))

    def pause(self, database: str | None = None) -> None:
        """PAUSE [database]: also holds for pools made later."""
        self._paused.add(database)
        for pool in self.of(database):
            pool.pause()

    def resume(self, database: str | None = None) -> None:
        """RESUME [database]; without one, everything."""
        if database is None:
            self._paused.clear()
        self._paused.discard(database)
        for pool in self.of(database):
            if not self.is_paused(pool.key.database):
                pool.resume()

    def reconnect(self, database: str | None = None) -> None:
        """RECONNECT [database]."""
        for pool in self.of(database):
            pool.reconnect()

    async def until_quiet(self, database: str | None = None) -> None:
        """Return when no server of *database* is in use: PAUSE answers then. Or when it was resumed, which ``is_paused`` tells."""
        for pool in self.of(database):
            await pool.until_quiet()

    def lend_no_more(self) -> None:
        """Refuse clients from now on, but for those in the middle of a transaction."""
        self._stop()
        for pool in self:
            pool.lend_no_more()

    async def drain(self, timeout_seconds: float | None = None) -> bool:
        """Refuse clients, wait for servers in use, close all. ``False``: some were still in use."""
        self._stop()
        quiet = await asyncio.gather(*(pool.drain(timeout_seconds) for pool in self))
        self._pools.clear()
        return all(quiet)

    def close(self) -> None:
        """Close everything at once."""
        self._stop()
        for pool in self:
            pool.close()
        self._pools.clear()

    def sweep(self) -> None:
        """Remove pools that nobody has used for ``unused_pool_timeout``."""
        now = self._clock.now()
        for key, pool in list(self._pools.items()):
            timeout = or_never(pool.settings.unused_pool_timeout)
            if key not in self._kept and pool.unused_since() + timeout <= now:
                # Rest, not close: whoever still holds it gets servers from it, and wakes it by asking.
                pool.rest()
                del self._pools[key]

    def drop(self, pool: Pool[S]) -> bool:
        """Remove *pool* now if nobody uses it and it has no servers; ``False``: it stays, or was not here."""
        key = pool.key
        if self._pools.get(key) is not pool or key in self._kept or pool.unused_since() == inf or any(pool.servers()):
            return False
        pool.rest()
        del self._pools[key]
        return True

    def _make(self, key: PoolKey) -> Pool[S]:
        pool = Pool(
            key,
            self._settings_for(key),
            self._connect,
            self._clock,
            self.limits,
            self._metrics_of(key.database),
            call_later=self._call_later,
            on_suspect=self._suspect,
        )
        if self._closed:
            pool.close(CloseReason.SHUTDOWN)
            return pool
        if self.is_paused(key.database):
            pool.pause()
        pool.start()
        if self._timer is None:
            self._schedule()
        return pool

    def _metrics_of(self, database: str) -> PoolMetrics:
        name = database if database in self.metrics or len(self.metrics) < MAX_COUNTED else OTHERS
        return self.metrics.setdefault(name, PoolMetrics())

    @property
    def paused(self) -> frozenset[str | None]:
        """What PAUSE holds for; ``None`` among it is all databases."""
        return frozenset(self._paused)

    def is_paused(self, database: str | None) -> bool:
        """Whether PAUSE holds for *database*; ``None``: for all."""
        return bool(self._paused & {None, database})

    def _suspect(self, source: Pool[S]) -> None:
        for pool in self:
            if pool is not source:
                pool.suspect()

    def _schedule(self) -> None:
        call_later = self._call_later or asyncio.get_running_loop().call_later
        self._timer = call_later(SWEEP_SECONDS, self._sweep_and_schedule)

    def _sweep_and_schedule(self) -> None:
        self.sweep()
        self._timer = None
        if self._pools:
            self._schedule()

    def _stop(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
