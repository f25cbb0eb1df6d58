"""A pool in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from hyperdrive.clock import ManualClock
from hyperdrive.pool import Limits, LimitSettings, Pool, PoolKey, Pools, PoolSettings
from hyperdrive.testing.pools import FakeOrigin, FakeServer, ManualTimers, loop_turns


@dataclass
class World:
    """One origin, one clock, and what was made in it."""

    clock: ManualClock
    timers: ManualTimers
    origin: FakeOrigin
    limits: Limits
    made: list[Pool[FakeServer]]

    def pool(self, database: str = "db", user: str = "app", **settings: Any) -> Pool[FakeServer]:
        """A pool with a minimum of 0 unless told otherwise, whose jitter is none."""
        pool = Pool(
            PoolKey(database, user),
            PoolSettings(**({"min_size": 0} | settings)),
            self.origin.connect,
            self.clock,
            self.limits,
            call_later=self.timers.call_later,
            random=lambda: 0.0,
        )
        self.made.append(pool)
        return pool

    def pools(self, **settings: Any) -> Pools[FakeServer]:
        """All pools of an origin."""
        made = PoolSettings(**({"min_size": 1} | settings))
        return Pools(lambda _: made, self.origin.connect, self.clock, self.limits, call_later=self.timers.call_later)


@pytest.fixture
async def make_world() -> AsyncIterator[Callable[..., World]]:
    """Build worlds with shared limits; their pools are closed at the end, and nothing may be counted then."""
    worlds: list[World] = []

    def make(**limits: Any) -> World:
        clock = ManualClock()
        world = World(clock, ManualTimers(clock), FakeOrigin(), Limits(LimitSettings(**limits), now=clock.now), [])
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        for pool in world.made:
            pool.close()
        await loop_turns(5)
        assert world.limits.used() == 0
        assert world.origin.open == []


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A world without limits."""
    return make_world()
