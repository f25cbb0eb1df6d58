"""Limits that pools share: counted, made room under, and given up fairly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hyperdrive.pool import CloseReason, Limits, LimitSettings, PoolKey
from hyperdrive.testing.pools import FakeServer, FakeTaker, ask, loop_turns


def served(taker: FakeTaker) -> FakeServer:
    assert taker.server is not None
    return taker.server


def test_room_is_what_the_tightest_limit_leaves() -> None:
    limits = Limits(
        LimitSettings(total=10, per_database=5, per_user=4, databases={"big": 8}, users={"root": 0}), now=lambda: 0.0
    )
    limits.take(PoolKey("a", "app"), 3)
    assert limits.room(PoolKey("a", "app")) == 1
    assert limits.room(PoolKey("a", "other")) == 2
    assert limits.room(PoolKey("b", "other")) == 4
    assert limits.room(PoolKey("big", "root")) == 7
    limits.give_back(PoolKey("a", "app"))
    assert limits.room(PoolKey("a", "app")) == 2
    assert limits.used(("database", "a")) == limits.used() == 2


def test_no_limit_is_no_limit() -> None:
    assert Limits(now=lambda: 0.0).room(PoolKey("a", "b")) == float("inf")


async def test_a_full_limit_takes_the_longest_idle_server_of_another_pool(make_world: Callable[..., Any]) -> None:
    world = make_world(total=3)
    first, second, third = (world.pool(database) for database in "abc")
    takers = [ask(first), ask(first), ask(second)]
    await loop_turns(5)
    servers = [served(taker) for taker in takers]
    for pool, server in zip((second, first, first), reversed(servers), strict=True):
        pool.release(server)
        await world.timers.advance(1)
    asker = ask(third)
    await loop_turns(4)
    assert asker.server is not None
    assert [None, None, CloseReason.MADE_ROOM] == [server.close_reason for server in servers]
    assert world.limits.used() == 3


async def test_the_minimum_of_another_pool_is_kept(make_world: Callable[..., Any]) -> None:
    world = make_world(total=3)
    first, second = world.pool("a", min_size=2), world.pool("b")
    first.start()
    busy = ask(second)
    await loop_turns(4)
    waiting = ask(second)
    await world.timers.advance(5)
    assert waiting.is_waiting
    second.release(served(busy))
    assert waiting.server is not None
    assert first.snapshot().sv_idle == 2


async def test_but_not_from_a_client_whose_pool_has_no_server_at_all(make_world: Callable[..., Any]) -> None:
    world = make_world(total=2)
    first, second = world.pool("a", min_size=2), world.pool("b")
    first.start()
    await loop_turns(4)
    waiting = ask(second)
    await loop_turns(4)
    assert waiting.server is not None
    assert first.snapshot().sv_idle == 1


async def test_a_hungry_pool_gets_a_server_when_one_comes_back_to_a_pool_without_a_queue(
    make_world: Callable[..., Any],
) -> None:
    world = make_world(total=2)
    first, second = world.pool("a"), world.pool("b")
    holders = [ask(first), ask(first)]
    await loop_turns(4)
    waiting = ask(second)
    await loop_turns(4)
    assert waiting.is_waiting
    first.release(served(holders[0]))
    await loop_turns(4)
    assert waiting.server is not None
    assert served(holders[0]).close_reason == CloseReason.MADE_ROOM


@pytest.mark.parametrize(
    ("limit", "kind"), [(4, {"total": 4}), (4, {"per_user": 4})], ids=["total", "one user, two databases"]
)
async def test_saturated_pools_end_up_with_equal_shares(
    make_world: Callable[..., Any], limit: int, kind: dict[str, int]
) -> None:
    """The first pool had everything and never a moment without a queue; the second still gets half of it."""
    world = make_world(**kind)
    pools = [world.pool("a"), world.pool("b")]
    held: list[tuple[Any, FakeTaker]] = [(pools[0], ask(pools[0])) for _ in range(10)]
    await world.timers.advance(1)
    held += [(pools[1], ask(pools[1])) for _ in range(10)]
    served_by = dict.fromkeys(pools, 0)
    for _ in range(200):
        await world.timers.advance(0.1)
        for pool, taker in list(held):
            if taker.server is not None:
                held.remove((pool, taker))
                served_by[pool] += 1
                pool.release(taker.server)
                held.append((pool, ask(pool)))
        assert world.limits.used() <= limit
    assert [2, 2] == [pool.in_use for pool in pools]
    assert served_by[pools[1]] > 0.8 * served_by[pools[0]]
    exchanged = sum(pool.metrics.closed.get(CloseReason.MADE_ROOM, 0) for pool in pools)
    assert exchanged <= 3  # and then they stop exchanging


async def test_more_pools_than_places_take_turns(make_world: Callable[..., Any]) -> None:
    world = make_world(total=1)
    pools = [world.pool(database, query_wait_timeout=30) for database in "abc"]
    held = [(pool, ask(pool)) for pool in pools for _ in range(3)]
    served_by = {pool.key.database: 0 for pool in pools}
    for _ in range(200):
        await world.timers.advance(0.1)
        for pool, taker in list(held):
            assert taker.error is None
            if taker.server is not None:
                held.remove((pool, taker))
                served_by[pool.key.database] += 1
                pool.release(taker.server)
                held.append((pool, ask(pool)))
        assert world.limits.used() <= 1
    assert min(served_by.values()) >= 20, served_by


async def test_limits_that_are_full_by_different_names_are_both_made_room_in(make_world: Callable[..., Any]) -> None:
    """The database is full of other users' servers, the user's are in other databases: two must go."""
    world = make_world(per_database=1, per_user=1)
    same_database, same_user = world.pool("a", "other"), world.pool("b", "app")
    for pool in (same_database, same_user):
        taker = ask(pool)
        await loop_turns(4)
        pool.release(served(taker))
    asker = ask(world.pool("a", "app"))
    await loop_turns(4)
    assert asker.server is not None
    assert 2 == len([server for server in world.origin.opened if server.close_reason == CloseReason.MADE_ROOM])


async def test_a_failed_connect_gives_its_place_back(make_world: Callable[..., Any]) -> None:
    world = make_world(total=2)
    world.origin.error = ConnectionRefusedError()
    pool = world.pool(query_wait_timeout=5)
    taker = ask(pool)
    await world.timers.advance(6)
    assert taker.error is not None
    assert world.limits.used() == 0


async def test_larger_limits_take_effect_at_once(make_world: Callable[..., Any]) -> None:
    world = make_world(total=1)
    pool = world.pool()
    ask(pool)
    await loop_turns(4)
    waiting = ask(pool)
    world.limits.change(LimitSettings(total=2))
    await loop_turns(4)
    assert waiting.server is not None


async def test_a_pool_that_made_way_is_next_for_the_place(make_world: Callable[..., Any]) -> None:
    """The pool it made way for could not connect; its own clients must not sleep beside a free place."""
    world = make_world(total=1)
    first, second = world.pool("a", pool_size=1), world.pool("b")
    holder = ask(first)
    await loop_turns(4)
    starving = ask(second)
    own = ask(first)
    await world.timers.advance(1)
    world.origin.error = ConnectionRefusedError()
    first.release(served(holder))
    await loop_turns(2)
    world.origin.error = None
    await loop_turns(4)
    assert own.server is not None
    assert starving.is_waiting
    second.forget(starving)


async def test_a_minimum_that_was_given_away_comes_back_when_there_is_room(make_world: Callable[..., Any]) -> None:
    world = make_world(total=1)
    first, second = world.pool("a", min_size=1), world.pool("b")
    first.start()
    await loop_turns(4)
    holder = ask(second)
    await world.timers.advance(5)
    assert first.snapshot().sv_idle == 0
    second.discard(served(holder), CloseReason.ORIGIN_CLOSED)
    served(holder).close("by its owner")
    await world.timers.advance(2)
    assert first.snapshot().sv_idle == 1
