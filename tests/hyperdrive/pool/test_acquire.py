"""Cancellation schedules: whenever a task is cancelled, nobody sleeps on and nothing has two owners."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import permutations
from typing import Any

import pytest

from hyperdrive.errors import OriginRefused, OriginUnreachable, PoolTimeout, ShuttingDown
from hyperdrive.pool import CloseReason, Pool, acquire
from hyperdrive.tasks import spawn
from hyperdrive.testing.pools import FakeServer, ask, loop_turns


async def full_pool(world: Any, **settings: Any) -> tuple[Pool[FakeServer], FakeServer]:
    """A pool of one server, and that server, lent."""
    pool = world.pool(**({"pool_size": 1} | settings))
    return pool, await acquire(pool)


@pytest.mark.parametrize("cancel_first", [True, False])
@pytest.mark.parametrize("turns", range(6))
async def test_a_wake_up_survives_cancellation(world: Any, turns: int, cancel_first: bool) -> None:
    """Whenever a woken waiter is cancelled, the next one still gets the server."""
    pool, held = await full_pool(world)
    first, second = spawn(acquire(pool), name="first"), spawn(acquire(pool), name="second")
    await loop_turns(2)  # both are queued now
    steps: list[Any] = [first.cancel, partial(pool.release, held)]
    for step in steps if cancel_first else reversed(steps):
        step()
        await loop_turns(turns)
    await loop_turns(3)
    if not first.cancelled():  # it had won before the cancellation came
        pool.release(first.result())
    await loop_turns(3)
    assert second.done()
    pool.release(second.result())
    assert pool.snapshot().sv_idle == 1


@pytest.mark.parametrize("order", list(permutations(range(4))))
@pytest.mark.parametrize("turns", range(4))
async def test_whatever_the_order_of_cancel_release_and_discard(world: Any, turns: int, order: tuple[int, ...]) -> None:
    """Two waiters, one cancelled; the server comes back, or breaks in the hands of whoever has it then."""
    pool, held = await full_pool(world)
    first, second = spawn(acquire(pool), name="first"), spawn(acquire(pool), name="second")
    await loop_turns(2)
    third = ask(pool, "third")

    def break_it() -> None:
        if held.close_reason is None:
            pool.discard(held, CloseReason.ORIGIN_CLOSED)
            held.close("by its owner")

    steps: list[Any] = [first.cancel, partial(pool.release, held), break_it, partial(pool.forget, third)]
    for step in order:
        steps[step]()
        await loop_turns(turns)
    await loop_turns(6)
    for task in (first, second):
        if task.done() and not task.cancelled():
            pool.release(task.result())
            await loop_turns(6)
    assert second.done()
    if third.server is not None and third.server.close_reason is None:
        pool.release(third.server)
    assert (0, 0) == (pool.in_use, pool.waiting)


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_at_each_turn_of_a_cold_start(world: Any, turns: int) -> None:
    """The connect goes on, and what it opened is there for the next."""
    pool = world.pool(pool_size=1)
    task = spawn(acquire(pool), name="acquire")
    await loop_turns(turns)
    task.cancel()
    await loop_turns(6)
    if not task.cancelled():
        pool.release(task.result())
    assert pool.in_use == 0
    assert pool.waiting == 0
    server = await acquire(pool)
    assert [server] == world.origin.open
    pool.release(server)


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("end", ["close", "refuse"])
async def test_cancelled_while_it_is_refused(world: Any, turns: int, end: str) -> None:
    pool, held = await full_pool(world)
    task = spawn(acquire(pool), name="acquire")
    await loop_turns(2)
    if end == "close":
        pool.close()
    else:
        await world.timers.advance(29.99)
        world.clock.advance(1)
        pool.upkeep()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await loop_turns(2)
    if not task.cancelled():
        assert isinstance(task.exception(), PoolTimeout | ShuttingDown)
    assert pool.waiting == 0
    pool.release(held)


async def test_a_caller_can_wait_for_less_than_the_pool_would(world: Any) -> None:
    pool, held = await full_pool(world)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await acquire(pool)
    assert pool.waiting == 0
    pool.release(held)


@pytest.mark.parametrize(
    "error", [OriginRefused("no", response=b"E", sqlstate="28P01"), OriginUnreachable("down")], ids=["28P01", "down"]
)
async def test_the_error_of_the_origin_is_raised(world: Any, error: Exception) -> None:
    world.origin.error = error
    pool = world.pool(query_wait_timeout=30)
    task = spawn(acquire(pool), name="acquire")
    await world.timers.advance(31)
    with pytest.raises(type(error) if isinstance(error, OriginRefused) else PoolTimeout):
        await task


async def test_tasks_and_takers_share_one_queue(world: Any) -> None:
    pool, held = await full_pool(world)
    taker = ask(pool)
    task = spawn(acquire(pool), name="acquire")
    await loop_turns(2)
    pool.release(held)
    assert held is taker.server
    pool.release(held)
    assert held is await task
    pool.release(held)
