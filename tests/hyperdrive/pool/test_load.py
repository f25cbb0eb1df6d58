"""Loads as data, a simulator in virtual time, and a score with a floor for each.

A score compares with what a pool could reach that knows the future: servers never idle while somebody waits, and not one
connect more than needed. A change that makes the pool slower or less fair fails here, though every promise still holds.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

import pytest

from hyperdrive.clock import ManualClock
from hyperdrive.pool import Limits, LimitSettings, Pool, PoolKey, PoolSettings
from hyperdrive.testing.pools import FakeServer, FakeTaker, ManualTimers, loop_turns


@dataclass(frozen=True)
class Crowd:
    """Clients of one database: how many, how long a transaction takes, how long they pause between two."""

    clients: int
    work_seconds: float
    pause_seconds: float = 0.0


@dataclass(frozen=True)
class Load:
    """What comes to the proxy, and what must be reached. Connecting takes 300 ms, as over an ocean."""

    crowds: tuple[Crowd, ...]
    seconds: float = 20.0
    pool_size: int = 5
    total: int = 0
    connect_seconds: float = 0.3
    #: of the servers' time, from the first second on, while there is enough work for all of them
    busy: float = 0.0
    #: transactions of the least served crowd against an equal share
    fair: float = 0.0
    #: the longest wait
    wait_seconds: float = 30.0
    #: connects against servers needed
    connects: float = 1.0


LOADS = [
    # More clients than servers, without a pause: nothing but hand-overs from one client to the next.
    pytest.param(Load((Crowd(40, 0.01),), busy=0.99, wait_seconds=0.8), id="saturated"),
    # As many clients as servers: the pool must not open one more, nor close one.
    pytest.param(Load((Crowd(5, 0.02, 0.001),), busy=0.9, wait_seconds=0.7), id="just enough"),
    # Few clients, long pauses: two servers would do, and LIFO must not keep five warm.
    pytest.param(Load((Crowd(5, 0.005, 1.0),), wait_seconds=0.7), id="mostly idle"),
    # Two crowds under one limit that holds neither: each gets half, and servers are not passed to and fro.
    pytest.param(
        Load((Crowd(30, 0.01), Crowd(10, 0.01)), total=4, busy=0.9, fair=0.9, wait_seconds=2.5, connects=2.5),
        id="two databases, one limit",
    ),
    # A hog came first and holds long; the small crowd still gets its share of the time.
    pytest.param(
        Load((Crowd(20, 0.5), Crowd(4, 0.01)), total=4, busy=0.9, wait_seconds=8.0, connects=2.5),
        id="a hog and a mouse",
    ),
]


@dataclass
class Simulation:
    """Runs a load and remembers what happened."""

    load: Load
    clock: ManualClock = field(default_factory=ManualClock)
    served: list[int] = field(default_factory=list)
    busy_seconds: float = 0.0
    longest_wait: float = 0.0
    connects: int = 0

    def __post_init__(self) -> None:
        self.timers = ManualTimers(self.clock)
        self.random = Random(7)
        self.started_at = self.clock.now()

    async def connect(self, key: PoolKey) -> FakeServer:
        self.connects += 1
        future: asyncio.Future[FakeServer] = asyncio.get_running_loop().create_future()
        self.timers.call_later(
            self.load.connect_seconds, lambda: None if future.done() else future.set_result(FakeServer())
        )
        return await future

    async def run(self) -> None:
        limits = Limits(LimitSettings(total=self.load.total), now=self.clock.now)
        settings = PoolSettings(pool_size=self.load.pool_size, min_size=0)
        pools = []
        for number, crowd in enumerate(self.load.crowds):
            pool = Pool(
                PoolKey(f"db{number}", "app"),
                settings,
                self.connect,
                self.clock,
                limits,
                call_later=self.timers.call_later,
                random=self.random.random,
            )
            pools.append(pool)
            self.served.append(0)
            for _ in range(crowd.clients):
                Client(self, pool, number, crowd).begin()
        until = self.started_at + self.load.seconds
        await loop_turns(3)
        while self.timers.fire_next(until):
            await loop_turns(2)
        for pool in pools:
            pool.close()
        await loop_turns(3)

    def elapsed(self) -> float:
        return self.clock.now() - self.started_at


@dataclass
class Client:
    """Asks, works, releases, pauses, and so on."""

    simulation: Simulation
    pool: Pool[FakeServer]
    number: int
    crowd: Crowd
    asked_at: float = 0.0

    def begin(self) -> None:
        self.asked_at = self.simulation.clock.now()
        server = self.pool.take()
        if server is not None:
            self.work(server)
            return
        taker = FakeTaker()
        taker.on_offer = self.work
        self.pool.wait(taker)

    def work(self, server: FakeServer) -> None:
        world = self.simulation
        world.longest_wait = max(world.longest_wait, world.clock.now() - self.asked_at)
        seconds = self.crowd.work_seconds * world.random.uniform(0.5, 1.5)
        if world.elapsed() >= 1:
            world.busy_seconds += seconds

        def done() -> None:
            world.served[self.number] += 1
            self.pool.release(server)
            world.timers.call_later(self.crowd.pause_seconds * world.random.uniform(0.5, 1.5), self.begin)

        world.timers.call_later(seconds, done)


@pytest.mark.parametrize("load", LOADS)
async def test_a_load_is_served_about_as_well_as_it_could_be(load: Load) -> None:
    simulation = Simulation(load)
    await simulation.run()
    servers = min(load.pool_size * len(load.crowds), load.total or load.pool_size * len(load.crowds))
    busy = simulation.busy_seconds / (servers * (load.seconds - 1))
    fair = min(simulation.served) * len(simulation.served) / sum(simulation.served)
    told = f"busy {busy:.3f}, fair {fair:.3f}, longest wait {simulation.longest_wait:.2f} s, {simulation.connects} connects"
    print(told)
    assert busy >= load.busy, told
    assert fair >= load.fair, told
    assert simulation.longest_wait <= load.wait_seconds, told
    assert simulation.connects <= load.connects * servers, told
