"""The pool as the proxy sees it, in virtual time: a client asks, servers come and go, the origin fails."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

import pytest

from hyperdrive.errors import (
    HyperdriveError,
    InternalError,
    OriginRefused,
    OriginUnreachable,
    PoolTimeout,
    ShuttingDown,
)
from hyperdrive.pool import CloseReason, Phase, PoolKey, ServerState
from hyperdrive.pool.assign import Offer, plan
from hyperdrive.testing.pools import FakeServer, FakeTaker, ask, loop_turns


def served(taker: FakeTaker) -> FakeServer:
    assert taker.server is not None
    return taker.server


def refused(sqlstate: str) -> OriginRefused:
    return OriginRefused(f"refused with {sqlstate}", response=b"E...", sqlstate=sqlstate)


# --- taking and giving back ----------------------------------------------------------------------------------------


async def test_the_minimum_is_opened_before_the_first_client_comes(world: Any) -> None:
    pool = world.pool(min_size=3)
    pool.start()
    await loop_turns(4)
    assert world.origin.attempts == 3
    assert ask(pool).server is not None
    assert pool.metrics.waits == 0


async def test_the_server_released_last_is_taken_first(world: Any) -> None:
    pool = world.pool(min_size=3)
    pool.start()
    await loop_turns(4)
    first, second, third = (served(ask(pool)) for _ in range(3))
    for server in (second, third, first):
        pool.release(server)
    assert [first, third, second] == [pool.take() for _ in range(3)]
    for server in (first, second, third):
        pool.release(server)


async def test_clients_are_served_in_the_order_in_which_they_came(world: Any) -> None:
    pool = world.pool(pool_size=1)
    holder = ask(pool)
    await loop_turns(4)
    takers = [ask(pool, str(n)) for n in range(5)]
    server = served(holder)
    for taker in takers:
        pool.release(server)
        assert server is taker.server
    pool.release(server)
    assert pool.metrics.waits == 6


async def test_a_burst_opens_as_many_as_it_needs_within_max_connecting(world: Any) -> None:
    world.origin.at_once = False
    pool = world.pool(pool_size=20, max_connecting=4)
    takers = [ask(pool) for _ in range(6)]
    await loop_turns(2)
    assert len(world.origin.pending) == 4
    world.origin.accept()
    await loop_turns(3)
    assert len(world.origin.pending) == 4
    for _ in range(4):
        world.origin.accept()
    await loop_turns(3)
    assert len(world.origin.pending) == 1
    world.origin.accept()
    await loop_turns(3)
    assert all(taker.server for taker in takers)
    assert world.origin.attempts == 6


async def test_a_taker_that_is_gone_leaves_the_server_to_the_next(world: Any) -> None:
    pool = world.pool(pool_size=1)
    server = served_after = None
    holder = ask(pool)
    await loop_turns(4)
    server = served(holder)
    gone, next_one = ask(pool, "gone"), ask(pool, "next")
    gone.is_gone = True
    pool.release(server)
    served_after = next_one.server
    assert server is served_after
    assert gone.server is None


async def test_a_taker_that_was_forgotten_gets_nothing(world: Any) -> None:
    pool = world.pool(pool_size=1)
    holder = ask(pool)
    await loop_turns(4)
    taker = ask(pool)
    pool.forget(taker)
    pool.forget(taker)
    pool.release(served(holder))
    assert taker.is_waiting
    assert pool.snapshot().sv_idle == 1


async def test_a_taker_that_releases_from_within_the_hand_over_does_not_recurse(world: Any) -> None:
    """Thousands of clients whose query is over at once, each in the call that gave it the server."""
    pool = world.pool(pool_size=1)
    holder = ask(pool)
    await loop_turns(4)
    takers = [ask(pool) for _ in range(3000)]
    for taker in takers:
        taker.on_offer = pool.release
    pool.release(served(holder))
    assert all(taker.server for taker in takers)


async def test_a_taker_that_fails_costs_its_server_and_nobody_else(world: Any) -> None:
    pool = world.pool(pool_size=1)
    holder = ask(pool)
    await loop_turns(4)
    broken, next_one = ask(pool), ask(pool)

    def fail(server: FakeServer) -> None:
        raise ZeroDivisionError

    broken.on_offer = fail
    server = served(holder)
    pool.release(server)
    await world.timers.advance(1)
    assert server.close_reason == CloseReason.HANDOVER
    assert next_one.server is not None


async def test_releasing_twice_is_our_own_bug_and_said_so(world: Any) -> None:
    pool = world.pool()
    holder = ask(pool)
    await loop_turns(4)
    pool.release(served(holder))
    with pytest.raises(InternalError):
        pool.release(served(holder))


async def test_a_server_that_broke_while_lent_may_still_be_released(world: Any) -> None:
    """The connection is lost first, then the client's code comes to an end: both report."""
    pool = world.pool()
    holder = ask(pool)
    await loop_turns(4)
    pool.discard(served(holder), CloseReason.ORIGIN_CLOSED)
    pool.release(served(holder))
    pool.discard(served(holder), CloseReason.ORIGIN_CLOSED)
    served(holder).close("by its owner")
    assert pool.snapshot().sv_idle == 0
    assert {CloseReason.ORIGIN_CLOSED: 1} == pool.metrics.closed


async def test_the_short_cut_of_release_decides_as_the_plan_would(world: Any) -> None:
    pool = world.pool(pool_size=2)
    holders = [ask(pool), ask(pool)]
    await loop_turns(4)
    takers = [ask(pool, str(n)) for n in range(3)]
    state = pool._state()
    returned = served(holders[0])
    expected = [
        action.taker
        for action in plan(
            type(state)(
                state.settings,
                idle=[returned],
                active=[served(holders[1])],
                waiters=dict(state.waiters),
            ),
            world.clock.now(),
        ).actions
        if isinstance(action, Offer)
    ]
    pool.release(returned)
    assert expected == [taker for taker in takers if taker.server is returned]


# --- deadlines -----------------------------------------------------------------------------------------------------


async def test_every_wait_ends_at_its_deadline(world: Any) -> None:
    pool = world.pool(pool_size=1, query_wait_timeout=30)
    ask(pool)
    await loop_turns(4)
    takers = []
    for _ in range(4):
        takers.append(ask(pool))
        await world.timers.advance(7)
    await world.timers.advance(2)  # 30 s after the first
    assert [PoolTimeout, None, None, None] == [taker.error and type(taker.error) for taker in takers]
    await world.timers.advance(21)
    assert all(isinstance(taker.error, PoolTimeout) for taker in takers)
    assert pool.metrics.timeouts == 4
    assert pool.metrics.wait_seconds == pytest.approx(120)


async def test_a_thousand_waiters_need_one_timer(world: Any) -> None:
    pool = world.pool(pool_size=1)
    for _ in range(1000):
        ask(pool)
    assert len(world.timers.armed) == 1


# --- the origin fails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sqlstate", ["28P01", "28000", "3D000", "42501", "42704", "08P01", "XX000"])
async def test_a_refusal_reaches_every_waiter_at_once_as_the_origin_said_it(world: Any, sqlstate: str) -> None:
    world.origin.error = refused(sqlstate)
    pool = world.pool()
    takers = [ask(pool) for _ in range(5)]
    await loop_turns(4)
    assert all(taker.error is world.origin.error for taker in takers)


async def test_after_a_refusal_the_next_attempt_is_a_clients_and_not_ours(world: Any) -> None:
    world.origin.error = refused("28P01")
    pool = world.pool(min_size=1, refused_retry=1)
    pool.start()
    await loop_turns(4)
    await world.timers.advance(100)
    assert world.origin.attempts == 1
    first = ask(pool)
    await loop_turns(4)
    assert first.error is world.origin.error
    assert world.origin.attempts == 2
    within = ask(pool)  # hears the same, without another attempt
    assert within.error is world.origin.error
    assert world.origin.attempts == 2
    world.origin.error = None
    await world.timers.advance(1)
    later = ask(pool)
    await loop_turns(4)
    assert later.server is not None


@pytest.mark.parametrize(
    "error",
    [refused("57P03"), refused("53300"), refused("57P01"), refused("55006"), OriginUnreachable("no route"), OSError(5)],
)
async def test_waiters_outlast_a_temporary_failure(world: Any, error: BaseException) -> None:
    world.origin.error = error
    pool = world.pool()
    takers = [ask(pool) for _ in range(3)]
    await world.timers.advance(10)
    assert all(taker.is_waiting for taker in takers)
    world.origin.error = None
    await world.timers.advance(15)
    assert all(taker.server for taker in takers)
    assert pool.snapshot().last_error == ""


async def test_a_failure_that_lasts_is_told_with_the_origins_code_at_the_deadline(world: Any) -> None:
    world.origin.error = refused("57P03")
    pool = world.pool(query_wait_timeout=30)
    taker = ask(pool)
    await world.timers.advance(30)
    assert isinstance(taker.error, PoolTimeout)
    assert taker.error.code == "57P03"
    assert "refused with 57P03" in taker.error.client_text


async def test_attempts_become_rarer_and_parallel_ones_count_once(world: Any) -> None:
    world.origin.error = OriginUnreachable("down")
    pool = world.pool(query_wait_timeout=0, backoff_first=1, backoff_max=8, max_connecting=4)
    for _ in range(4):
        ask(pool)
    rounds = []
    for _ in range(20):
        before = world.origin.attempts
        await world.timers.advance(1)
        rounds.append((world.origin.attempts - before) // 4)
    # random() is 0, so the pause is half of 1, 2, 4, 8, 8 … seconds.
    assert [2, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1] == rounds[:12]
    assert pool.metrics.connect_failures == world.origin.attempts


async def test_a_refusal_beside_living_servers_does_not_end_the_queue(world: Any) -> None:
    """A role's connection limit or a new password: what is open works on, and comes back."""
    pool = world.pool(pool_size=2)
    holder = ask(pool)
    await loop_turns(4)
    world.origin.error = refused("28P01")
    taker = ask(pool)
    await loop_turns(4)
    assert taker.is_waiting
    pool.release(served(holder))
    assert taker.server is holder.server


async def test_connecting_is_bounded_in_time(world: Any) -> None:
    world.origin.at_once = False
    pool = world.pool(connect_timeout=0.01, login_timeout=0.01)
    ask(pool)
    async with asyncio.timeout(5):
        while not pool.metrics.connect_failures:
            await asyncio.sleep(0.01)
    assert world.origin.pending == []


async def test_a_bug_in_connect_is_an_internal_error_for_the_client(world: Any) -> None:
    world.origin.error = ZeroDivisionError()
    taker = ask(world.pool())
    await loop_turns(4)
    assert isinstance(taker.error, InternalError)


async def test_a_lost_server_is_replaced_up_to_the_minimum(world: Any) -> None:
    pool = world.pool(min_size=1)
    pool.start()
    await loop_turns(4)
    (server,) = world.origin.open
    pool.discard(server, CloseReason.ORIGIN_CLOSED)
    server.close("by its owner")
    await loop_turns(4)
    assert pool.snapshot().sv_idle == 1
    assert pool.take() is not server


# --- upkeep --------------------------------------------------------------------------------------------------------


async def test_a_server_is_replaced_before_it_expires(world: Any) -> None:
    pool = world.pool(min_size=1, server_lifetime=3600, server_idle_timeout=0, replace_ahead=10, server_check_delay=0)
    pool.start()
    await loop_turns(4)
    (old,) = world.origin.open
    await world.timers.advance(3589)
    assert [old] == world.origin.open
    await world.timers.advance(2)
    assert len(world.origin.open) == 2
    assert pool.snapshot().sv_idle == 2
    await world.timers.advance(10)
    assert old.close_reason == CloseReason.LIFETIME
    assert pool.snapshot().sv_idle == 1


async def test_an_expired_server_in_use_is_closed_when_it_comes_back(world: Any) -> None:
    pool = world.pool(server_lifetime=100, replace_ahead=10)
    holder = ask(pool)
    await world.timers.advance(200)
    old = served(holder)
    assert old.close_reason is None
    assert old.pool_state is ServerState.RETIRING
    pool.release(old)
    assert old.close_reason == CloseReason.LIFETIME
    assert ask(pool).server not in (None, old)  # its successor was ready


async def test_an_expired_server_stays_while_no_other_can_be_had(world: Any) -> None:
    pool = world.pool(min_size=1, server_lifetime=100, server_check_delay=0)
    pool.start()
    await loop_turns(4)
    (old,) = world.origin.open
    world.origin.error = OriginUnreachable("down")
    await world.timers.advance(300)
    assert ask(pool).server is old
    pool.release(old)
    world.origin.error = None
    await world.timers.advance(20)
    assert old.close_reason == CloseReason.LIFETIME


async def test_lifetimes_differ(world: Any) -> None:
    pool = world.pool(min_size=20, pool_size=20, max_connecting=20, server_lifetime=1000, lifetime_jitter=0.1)
    numbers = iter(n / 20 for n in range(100))
    pool._random = lambda: next(numbers)
    pool.start()
    await loop_turns(4)
    ends = sorted(row.expires_in_seconds for row in pool.servers())
    assert len(set(ends)) == 20
    assert ends[0] >= 900
    assert ends[-1] <= 1000


async def test_servers_nobody_needs_are_closed_down_to_the_minimum(world: Any) -> None:
    pool = world.pool(min_size=1, server_idle_timeout=600, server_check_delay=0)
    takers = [ask(pool) for _ in range(4)]
    await loop_turns(6)
    for taker in takers:
        pool.release(served(taker))
    await world.timers.advance(599)
    assert pool.snapshot().sv_idle == 4
    await world.timers.advance(2)
    assert pool.snapshot().sv_idle == 1
    assert {CloseReason.IDLE_TIMEOUT: 3} == pool.metrics.closed


async def test_a_quiet_server_is_probed_and_keeps_its_place(world: Any) -> None:
    pool = world.pool(server_check_delay=30)
    takers = [ask(pool) for _ in range(2)]
    await loop_turns(4)
    older, newer = (served(taker) for taker in takers)
    pool.release(older)
    await world.timers.advance(5)
    pool.release(newer)
    await world.timers.advance(26)
    assert (1, 0) == (older.probes, newer.probes)
    assert pool.snapshot().sv_tested == 1
    pool.probed(older)
    assert [newer, older] == [pool.take(), pool.take()]


async def test_a_probed_server_goes_to_whoever_waits(world: Any) -> None:
    pool = world.pool(pool_size=1, server_check_delay=30)
    holder = ask(pool)
    await loop_turns(4)
    server = served(holder)
    pool.release(server)
    await world.timers.advance(30)
    taker = ask(pool)
    assert taker.is_waiting
    pool.probed(server)
    assert server is taker.server


async def test_a_server_that_does_not_answer_is_closed_and_the_others_are_probed(world: Any) -> None:
    """W-56: the firewall forgot the flow; so it probably did with the neighbours'."""
    pool = world.pool(server_check_delay=30, probe_timeout=5, server_idle_timeout=0)
    takers = [ask(pool) for _ in range(3)]
    await loop_turns(4)
    silent, second, third = (served(taker) for taker in takers)
    pool.release(silent)
    await world.timers.advance(29)
    pool.release(second)
    pool.release(third)
    await world.timers.advance(1)
    assert [1, 0, 0] == [server.probes for server in (silent, second, third)]
    await world.timers.advance(5)
    assert silent.close_reason == CloseReason.PROBE_MISSED
    assert [1, 1] == [second.probes, third.probes]
    pool.probed(second)
    await world.timers.advance(5)
    assert third.close_reason == CloseReason.PROBE_MISSED
    assert pool.snapshot().sv_idle + pool.snapshot().sv_tested == 1


async def test_an_idle_server_that_speaks_is_never_lent_again(world: Any) -> None:
    """W-55: FATAL 57P01, then FIN, while it sat on the stack."""
    pool = world.pool()
    holder = ask(pool)
    await loop_turns(4)
    server = served(holder)
    pool.release(server)
    pool.discard(server, CloseReason.ORIGIN_CLOSED)
    server.close("by its owner")
    assert ask(pool).server is not server


# --- administration ------------------------------------------------------------------------------------------------


async def test_pause_lets_clients_wait_and_servers_come_back(world: Any) -> None:
    pool = world.pool(min_size=1)
    pool.start()
    await loop_turns(4)
    holder = ask(pool)
    pool.pause()
    taker = ask(pool)
    quiet = asyncio.ensure_future(pool.until_quiet())
    await world.timers.advance(5)
    assert taker.is_waiting
    assert not quiet.done()
    pool.release(served(holder))
    await quiet
    assert served(holder).close_reason == CloseReason.PAUSE
    assert world.origin.open == []
    await world.timers.advance(5)
    assert world.origin.attempts == 1
    pool.resume()
    await loop_turns(4)
    assert taker.server is not None


async def test_a_wait_in_a_pause_ends_at_its_deadline(world: Any) -> None:
    pool = world.pool(query_wait_timeout=30)
    pool.pause()
    taker = ask(pool)
    await world.timers.advance(30)
    assert isinstance(taker.error, PoolTimeout)
    assert "The pool is paused, until somebody says RESUME in the console." == taker.error.detail


async def test_a_connect_that_ends_in_a_pause_is_closed(world: Any) -> None:
    world.origin.at_once = False
    pool = world.pool()
    taker = ask(pool)
    await loop_turns(2)
    pool.pause()
    server = world.origin.accept()
    await loop_turns(3)
    assert server.close_reason is not None
    pool.resume()
    await loop_turns(2)
    world.origin.accept()
    await loop_turns(3)
    assert taker.server is not None


async def test_reconnect_replaces_every_server(world: Any) -> None:
    world.origin.at_once = False
    pool = world.pool(min_size=3, max_connecting=3)
    pool.start()
    await loop_turns(2)
    world.origin.accept()
    world.origin.accept()
    await loop_turns(3)
    lent = served(ask(pool))
    (idle,) = (server for server in world.origin.open if server is not lent)
    pool.reconnect()
    assert idle.close_reason == CloseReason.RECONNECT
    outdated = world.origin.accept()  # its connect began before RECONNECT
    await loop_turns(3)
    assert outdated.close_reason == CloseReason.RECONNECT
    assert lent.close_reason is None
    pool.release(lent)
    assert lent.close_reason == CloseReason.RECONNECT
    await loop_turns(3)
    while world.origin.pending:
        world.origin.accept()
        await loop_turns(3)
    assert pool.snapshot().sv_idle == len(world.origin.open) == 3


async def test_drain_waits_for_servers_in_use_and_refuses_clients(world: Any) -> None:
    pool = world.pool(pool_size=1)
    holder = ask(pool)
    await loop_turns(4)
    waiting = ask(pool)
    drained = asyncio.ensure_future(pool.drain())
    await loop_turns(2)
    late = ask(pool)
    assert isinstance(waiting.error, ShuttingDown)
    assert isinstance(late.error, ShuttingDown)
    assert late.error.code == "57P01"
    assert not drained.done()
    pool.release(served(holder))
    assert await drained
    assert pool.phase is Phase.CLOSED


@pytest.mark.parametrize("at_work", [False, True])
async def test_a_draining_pool_lets_transactions_finish(world: Any, at_work: bool) -> None:
    """A client whose transaction has begun without a server is lent one, the others are refused (W-63)."""
    pool = world.pool(pool_size=1, min_size=0)
    holder = ask(pool) if at_work else None
    await loop_turns(4)
    held, plain = FakeTaker("held"), FakeTaker("plain")
    held.is_in_transaction = True
    pool.lend_no_more()
    pool.wait(plain)
    pool.wait(held)
    assert isinstance(plain.error, ShuttingDown)
    assert held.error is None
    if holder is not None:
        assert held.server is None
        pool.release(served(holder))
    await loop_turns(4)
    assert served(held).pool_state is ServerState.RETIRING
    pool.release(served(held))
    assert await pool.drain()
    assert not world.origin.open


async def test_a_transaction_that_waits_in_a_draining_pool_has_its_deadline(world: Any) -> None:
    pool = world.pool(pool_size=1, query_wait_timeout=5)
    holder = ask(pool)
    await loop_turns(4)
    held = FakeTaker("held")
    held.is_in_transaction = True
    pool.lend_no_more()
    pool.wait(held)
    await world.timers.advance(5.1)
    assert isinstance(held.error, PoolTimeout)
    pool.release(served(holder))
    assert await pool.drain()


async def test_drain_closes_what_is_in_use_at_its_own_deadline(world: Any) -> None:
    pool = world.pool()
    holder = ask(pool)
    await loop_turns(4)
    assert not await pool.drain(0.01)
    assert served(holder).close_reason == CloseReason.SHUTDOWN


async def test_close_cancels_connects(world: Any) -> None:
    world.origin.at_once = False
    pool = world.pool()
    taker = ask(pool)
    pool.close()  # before the connect's first step
    await loop_turns(3)
    assert isinstance(taker.error, ShuttingDown)
    assert world.origin.pending == []
    assert world.limits.used() == 0
    assert world.timers.armed == []


async def test_a_server_opened_elsewhere_can_be_adopted(world: Any) -> None:
    pool = world.pool(pool_size=1)
    pool.pause()
    taker = ask(pool)
    pool.phase = Phase.RUNNING  # a pool that cannot connect by itself yet
    world.origin.error = OriginUnreachable("down")
    server = FakeServer()
    world.origin.opened.append(server)
    pool.adopt(server)
    assert server is taker.server
    assert world.limits.used() == 1


async def test_the_snapshot_has_pgbouncers_columns(world: Any) -> None:
    world.origin.at_once = False
    pool = world.pool(pool_size=2, server_check_delay=30)
    pool.clients = 5
    takers = [ask(pool) for _ in range(3)]
    await loop_turns(2)
    world.origin.accept()
    await loop_turns(3)
    await world.timers.advance(4)
    row = pool.snapshot()
    assert ("db", "app", "transaction") == (row.database, row.user, row.pool_mode)
    assert (3, 2) == (row.cl_active, row.cl_waiting)
    assert (1, 0, 0, 0, 1) == (row.sv_active, row.sv_idle, row.sv_used, row.sv_tested, row.sv_login)
    assert row.maxwait == pytest.approx(4)
    assert [ServerState.ACTIVE.value] == [server.state for server in pool.servers()]
    assert takers[0].server is not None


async def test_a_pool_nobody_uses_is_removed_and_wakes_when_asked(world: Any) -> None:
    pools = world.pools(unused_pool_timeout=3600, server_check_delay=0, server_lifetime=1000)
    pool = pools.get(PoolKey("db", "app"))
    world.made.append(pool)
    await loop_turns(4)
    holder = ask(pool)
    await world.timers.advance(10_000)
    assert len(pools) == 1
    pool.release(served(holder))
    await world.timers.advance(3500)
    assert len(pools) == 1
    await world.timers.advance(200)
    assert len(pools) == 0
    assert world.origin.open == []
    again = ask(pool)  # somebody held on to it
    await loop_turns(4)
    assert again.server is not None
    pools.close()


async def test_a_pool_with_clients_is_not_removed(world: Any) -> None:
    pools = world.pools(unused_pool_timeout=3600, server_check_delay=0, server_lifetime=1000)
    pool = pools.get(PoolKey("db", "app"))
    pool.clients = 1
    await world.timers.advance(20_000)
    assert pool is pools.find(PoolKey("db", "app"))
    pools.close()


async def test_pools_can_be_paused_by_database(world: Any) -> None:
    pools = world.pools()
    pools.pause("b")
    first, second = pools.get(PoolKey("a", "app")), pools.get(PoolKey("b", "app"))
    await loop_turns(4)
    assert (Phase.RUNNING, Phase.PAUSED) == (first.phase, second.phase)
    pools.pause()
    pools.resume("b")
    assert (Phase.PAUSED, Phase.PAUSED) == (first.phase, second.phase)
    pools.resume()
    assert (Phase.RUNNING, Phase.RUNNING) == (first.phase, second.phase)
    await loop_turns(4)
    assert await pools.drain()
    assert isinstance(ask(pools.get(PoolKey("c", "app"))).error, ShuttingDown)


async def test_suspicion_spreads_to_the_other_pools_of_the_origin(world: Any) -> None:
    pools = world.pools(server_check_delay=30, probe_timeout=5, server_idle_timeout=0)
    first, second = pools.get(PoolKey("a", "app")), pools.get(PoolKey("b", "app"))
    await loop_turns(4)
    await world.timers.advance(29)
    held = second.take()
    assert held is not None
    second.release(held)  # heard of just now
    await world.timers.advance(6)
    assert {CloseReason.PROBE_MISSED: 1} == first.metrics.closed
    assert held.probes == 1
    pools.close()


async def test_closed_pools_refuse_with_an_error_of_ours(world: Any) -> None:
    pool = world.pool()
    pool.close()
    taker = ask(pool)
    assert isinstance(taker.error, HyperdriveError)
    assert pool.unused_since() < inf
