"""Random histories of two pools under one limit: clients come, go and vanish, the origin accepts, refuses and hangs.

After every step: no server has two owners, no client sleeps beside an idle server, every count is within its limit and
equal to what is really there, clients are served in their order, and nobody waits past the deadline.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hyperdrive.clock import ManualClock
from hyperdrive.errors import OriginRefused, OriginUnreachable
from hyperdrive.pool import CloseReason, Limits, LimitSettings, Phase, Pool, PoolKey, PoolSettings, ServerState
from hyperdrive.testing.pools import FakeOrigin, FakeServer, FakeTaker, ManualTimers, loop_turns

WAIT_SECONDS = 30.0


class PoolMachine(RuleBasedStateMachine):
    """The world, and what the clients in it know."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.timers = ManualTimers(self.clock)
        self.origin = FakeOrigin(at_once=False)
        self.takers: dict[Pool[FakeServer], list[tuple[FakeTaker, float]]] = {}
        self.came: list[FakeTaker] = []
        self.lent: dict[FakeServer, Pool[FakeServer]] = {}

    @initialize(
        sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        minimum=st.integers(0, 1),
        total=st.integers(0, 5),
        check_delay=st.sampled_from([0.0, 7.0]),
        lifetime=st.sampled_from([0.0, 40.0]),
        connecting=st.integers(1, 3),
    )
    def build(
        self,
        sizes: tuple[int, int],
        minimum: int,
        total: int,
        check_delay: float,
        lifetime: float,
        connecting: int,
    ) -> None:
        self.limits = Limits(LimitSettings(total=total), now=self.clock.now)
        self.total = total
        for name, size in zip("ab", sizes, strict=True):
            pool = Pool(
                PoolKey(name, "app"),
                PoolSettings(
                    pool_size=size,
                    min_size=minimum,
                    max_connecting=connecting,
                    query_wait_timeout=WAIT_SECONDS,
                    server_lifetime=lifetime,
                    server_idle_timeout=20,
                    server_check_delay=check_delay,
                    # virtual time does not bound a real wait
                    connect_timeout=0,
                    login_timeout=0,
                ),
                self.origin.connect,
                self.clock,
                self.limits,
                call_later=self.timers.call_later,
                random=lambda: 0.5,
            )
            self.takers[pool] = []
        self.run(self.start())

    async def start(self) -> None:
        for pool in self.takers:
            pool.start()

    def run(self, coro: Any) -> None:
        async def and_turn() -> None:
            await coro
            await loop_turns(6)

        self.loop.run_until_complete(and_turn())
        self.notice()

    def call(self, function: Any, *args: Any) -> None:
        async def go() -> None:
            function(*args)

        self.run(go())

    def notice(self) -> None:
        """Forget takers whose wait is over."""
        for pool, queue in self.takers.items():
            for taker, since in list(queue):
                gone = taker.is_gone and taker not in pool._waiters  # it was offered a server and declined
                if gone or not taker.is_waiting:
                    queue.remove((taker, since))

    # What clients do

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        pool = data.draw(st.sampled_from(list(self.takers)), label="pool")
        taker = FakeTaker(str(len(self.came)))
        taker.is_in_transaction = data.draw(st.booleans(), label="in a transaction")
        self.came.append(taker)

        def got(server: FakeServer) -> None:
            assert server.owner is None, "two owners"
            assert server not in self.lent
            assert server.close_reason is None, "a closed server was lent"
            assert server.pool_state is ServerState.ACTIVE
            server.owner = taker
            self.lent[server] = pool
            earlier = [other for other, _ in self.takers[pool] if other.is_waiting and not other.is_gone]
            assert not earlier or int(earlier[0].name) > int(taker.name), "out of order"

        taker.on_offer = got

        def do() -> None:
            server = pool.take()
            if server is not None:
                taker.offer(server)
            else:
                self.takers[pool].append((taker, self.clock.now()))
                pool.wait(taker)

        self.call(do)

    @precondition(lambda self: any(self.takers.values()))
    @rule(data=st.data(), politely=st.booleans())
    def leave_the_queue(self, data: st.DataObject, politely: bool) -> None:
        pool = data.draw(st.sampled_from([pool for pool, queue in self.takers.items() if queue]), label="pool")
        taker, since = data.draw(st.sampled_from(self.takers[pool]), label="taker")
        if politely:
            self.takers[pool].remove((taker, since))
            self.call(pool.forget, taker)
        else:
            taker.is_gone = True

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        server = data.draw(st.sampled_from(list(self.lent)), label="server")
        server.owner = None
        self.call(self.lent.pop(server).release, server)

    # What the origin does

    @precondition(lambda self: self.origin.open)
    @rule(data=st.data())
    def lose_a_server(self, data: st.DataObject) -> None:
        server = data.draw(st.sampled_from(self.origin.open), label="server")
        pool = self.lent.pop(server, None) or next(pool for pool in self.takers if server in pool._servers)
        server.close_reason = "lost"
        server.owner = None
        self.call(pool.discard, server, CloseReason.ORIGIN_CLOSED)

    @precondition(lambda self: self.origin.pending)
    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        self.call(self.origin.accept, data.draw(st.integers(0, len(self.origin.pending) - 1), label="which"))

    @precondition(lambda self: self.origin.pending)
    @rule(data=st.data(), for_good=st.booleans())
    def refuse(self, data: st.DataObject, for_good: bool) -> None:
        error = OriginRefused("no", response=b"E", sqlstate="3D000") if for_good else OriginUnreachable("down")
        self.call(self.origin.refuse, error, data.draw(st.integers(0, len(self.origin.pending) - 1), label="which"))

    @precondition(lambda self: self.probing())
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        pool, server = data.draw(st.sampled_from(self.probing()), label="server")
        self.call(pool.probed, server)

    def probing(self) -> list[tuple[Pool[FakeServer], FakeServer]]:
        return [(pool, server) for pool in self.takers for server in pool._probing]

    # Time and administration

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 6.0, 21.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.timers.advance(seconds))

    @rule(data=st.data(), what=st.sampled_from(["pause", "resume", "resume", "reconnect", "suspect", "upkeep"]))
    def administer(self, data: st.DataObject, what: str) -> None:
        self.call(getattr(data.draw(st.sampled_from(list(self.takers)), label="pool"), what))

    @rule(data=st.data(), seldom=st.integers(0, 3))
    def lend_no_more(self, data: st.DataObject, seldom: int) -> None:
        pool = data.draw(st.sampled_from(list(self.takers)), label="pool")
        if not seldom:
            self.call(pool.lend_no_more)

    # What must hold

    @invariant()
    def a_pool_that_drains_serves_transactions_only(self) -> None:
        for pool, queue in self.takers.items():
            if pool.phase is Phase.DRAINING:
                assert not pool._idle
                assert all(taker.is_in_transaction for taker, _ in queue)

    @invariant()
    def every_server_is_in_one_place(self) -> None:
        known: list[FakeServer] = []
        for pool in self.takers:
            states = {
                ServerState.IDLE: pool._idle,
                ServerState.PROBING: list(pool._probing),
                ServerState.ACTIVE: [s for s, p in self.lent.items() if p is pool and s not in pool._retiring],
                ServerState.RETIRING: list(pool._retiring),
            }
            listed = [server for servers in states.values() for server in servers]
            assert len(listed) == len(set(listed)) == len(pool._servers)
            assert set(listed) == set(pool._servers)
            for state, servers in states.items():
                assert all(server.pool_state is state for server in servers)
            known += listed
        assert {id(server) for server in known} == {id(server) for server in self.origin.open}
        assert {id(server) for server in self.lent} == {id(server) for server in known if server.owner is not None}

    @invariant()
    def nobody_sleeps_beside_an_idle_server(self) -> None:
        for pool, queue in self.takers.items():
            assert pool.waiting == len(queue)
            if pool.phase is Phase.RUNNING and queue:
                assert not pool._idle
            assert pool._special or not queue

    @invariant()
    def counts_are_within_limits(self) -> None:
        for pool in self.takers:
            assert pool.share_counts()[0] <= pool.settings.pool_size
            assert pool._connecting <= pool.settings.max_connecting
        if self.takers:
            used = sum(pool.share_counts()[0] for pool in self.takers)
            assert used == self.limits.used()
            assert used <= self.total or not self.total

    @invariant()
    def nobody_waits_past_the_deadline(self) -> None:
        for queue in self.takers.values():
            for taker, since in queue:
                assert self.clock.now() < since + WAIT_SECONDS, taker

    @invariant()
    def whoever_waits_is_being_cared_for(self) -> None:
        """A server is coming, or all are lent, or a limit or the back-off stands in the way and a timer is set."""
        for pool, queue in self.takers.items():
            if not queue or pool.phase not in (Phase.RUNNING, Phase.DRAINING):
                continue
            assert self.timers.armed
            free = pool.settings.pool_size - pool.share_counts()[0]
            backing_off = self.clock.now() < pool._backoff.ready_at
            if free > 0 and self.limits.room(pool.key) > 0 and not backing_off:
                assert pool._connecting or pool._probing

    def teardown(self) -> None:
        try:
            if self.takers:
                self.come_to_an_end()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(loop_turns(3))
            self.loop.close()

    def come_to_an_end(self) -> None:
        """Left alone with an origin that answers again, every wait ends, and afterwards nothing is left."""
        for pool in self.takers:
            self.call(pool.resume)
        for _ in range(70):
            while self.origin.pending:
                self.call(self.origin.accept)
            for pool, server in self.probing():
                self.call(pool.probed, server)
            self.release_everything()
            self.run(self.timers.advance(0.5))
        assert not any(self.takers.values())
        self.release_everything()
        for pool in self.takers:
            self.run(pool.drain(1))
        assert self.origin.open == []
        assert self.limits.used() == 0
        assert self.timers.armed == []

    def release_everything(self) -> None:
        for server, pool in list(self.lent.items()):
            server.owner = None
            del self.lent[server]
            self.call(pool.release, server)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
