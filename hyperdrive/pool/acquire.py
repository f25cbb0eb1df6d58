"""``await acquire(pool)``: a server for code that runs as a task; upkeep jobs, the console, the library.

The query path does not use it: there, clients are takers themselves and no task waits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic

from hyperdrive.errors import HyperdriveError
from hyperdrive.pool.interfaces import S

if TYPE_CHECKING:
    from hyperdrive.pool.pool import Pool


async def acquire(pool: Pool[S]) -> S:
    """Return a server that nobody else uses, to be given back with ``pool.release`` or ``pool.discard``.

    Waits in the queue with everybody else, at most for the pool's ``query_wait_timeout``; use ``asyncio.timeout`` to
    wait less. Cancelling is safe: a server already handed over goes to the next waiter.

    Raises:
        PoolTimeout: none became free in time. Nothing was sent, so a retry is safe.
        OriginRefused: the origin does not let us in.
        ShuttingDown: the pool is going away.
    """
    if (server := pool.take()) is not None:
        return server
    waiter = Waiter(pool)
    pool.wait(waiter)
    return await waiter.wait()


class Waiter(Generic[S]):
    """A task in the queue. It accepts at most one server, and says whether it did."""

    __slots__ = ("_accepted", "_pool")

    def __init__(self, pool: Pool[S]) -> None:
        self._pool = pool
        self._accepted: asyncio.Future[S] = asyncio.get_running_loop().create_future()

    @property
    def is_in_transaction(self) -> bool:
        """Nothing has begun."""
        return False

    def offer(self, server: S) -> bool:
        """Accept *server*; ``False``: the task was cancelled, or is served already."""
        if self._accepted.done():
            return False
        self._accepted.set_result(server)
        return True

    def refuse(self, error: HyperdriveError) -> None:
        """End the wait with *error*."""
        if not self._accepted.done():
            self._accepted.set_exception(error)

    async def wait(self) -> S:
        """Return the server. Whoever is cancelled in here owns nothing afterwards."""
        try:
            return await self._accepted
        except BaseException:
            self._pool.forget(self)
            if self._accepted.done() and not self._accepted.cancelled() and self._accepted.exception() is None:
                self._pool.release(self._accepted.result())  # accepted, then cancelled: ours to return
            raise
