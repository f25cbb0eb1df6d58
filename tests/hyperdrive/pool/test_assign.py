"""The plan, as tables: a state and a time on one side, actions on the other."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from hyperdrive.errors import OriginUnreachable, PoolTimeout, ShuttingDown
from hyperdrive.pool.assign import (
    RETRY_SECONDS,
    SOONEST_SECONDS,
    Close,
    Offer,
    Open,
    Probe,
    Refuse,
    Retire,
    State,
    Suspect,
    growth,
    plan,
)
from hyperdrive.pool.interfaces import CloseReason, Phase, ServerState
from hyperdrive.pool.settings import PoolSettings
from hyperdrive.testing.pools import FakeServer

NOW = 10_000.0
SETTINGS = PoolSettings(
    pool_size=5,
    min_size=1,
    max_connecting=3,
    query_wait_timeout=30,
    server_lifetime=3600,
    replace_ahead=10,
    server_idle_timeout=600,
    server_check_delay=30,
    probe_timeout=5,
)


def server(
    name: str,
    state: ServerState = ServerState.IDLE,
    *,
    idle: float = 0.0,
    checked: float = inf,
    expires_in: float = 1000.0,
    answer_in: float = 5.0,
) -> FakeServer:
    made = FakeServer(name)
    made.pool_state = state
    made.used_at = NOW - idle
    made.checked_at = NOW - checked if checked < inf else made.used_at
    made.expires_at = NOW + expires_in
    made.answer_by = NOW + answer_in
    return made


def active(name: str, **options: Any) -> FakeServer:
    return server(name, ServerState.ACTIVE, **options)


def told(actions: list[Any]) -> list[Any]:
    """Actions as readable values."""
    result: list[Any] = []
    for action in actions:
        match action:
            case Open():
                result.append(("open", action.for_waiters, action.for_stock))
            case Close(which, reason) | Retire(which, reason):
                result.append((type(action).__name__.lower(), which.name, reason.name))
            case Probe(which):
                result.append(("probe", which.name))
            case Offer(taker, which):
                result.append(("offer", which.name, taker))
            case Refuse(taker, error):
                result.append(("refuse", taker, type(error)))
            case Suspect():
                result.append("suspect")
    return result


def decided(now: float = NOW, settings: PoolSettings = SETTINGS, **state: Any) -> list[Any]:
    return told(plan(State(settings, **state), now).actions)


def looks_again(now: float = NOW, settings: PoolSettings = SETTINGS, **state: Any) -> float:
    """Seconds until the next look."""
    return plan(State(settings, **state), now).look_again_at - now


# --- growth --------------------------------------------------------------------------------------------------------

GROWTH = [
    pytest.param({"live": 1}, (0, 0), id="nobody waits, the minimum is there"),
    pytest.param({}, (0, 1), id="below the minimum"),
    pytest.param({"connecting": 1}, (0, 0), id="the minimum is on its way"),
    pytest.param({"warm": False}, (0, 0), id="a resting pool keeps no minimum"),
    pytest.param({"live": 1, "in_use": 1, "waiting": 1}, (1, 0), id="one waits"),
    pytest.param({"live": 1, "in_use": 1, "waiting": 2}, (2, 0), id="as many as wait, at once"),
    pytest.param({"live": 1, "in_use": 1, "waiting": 9}, (3, 0), id="no more than max_connecting"),
    pytest.param({"live": 1, "in_use": 1, "waiting": 9, "connecting": 1}, (2, 0), id="connects under way count"),
    pytest.param({"live": 1, "in_use": 1, "waiting": 2, "connecting": 2}, (0, 0), id="waiters have theirs coming"),
    pytest.param({"live": 4, "in_use": 4, "waiting": 9}, (1, 0), id="no more than pool_size"),
    pytest.param({"live": 5, "in_use": 5, "waiting": 9}, (0, 0), id="full"),
    pytest.param({"live": 6, "in_use": 6, "waiting": 9}, (0, 0), id="above pool_size after RELOAD"),
    pytest.param({"live": 2, "in_use": 1, "coming": 1, "waiting": 1}, (0, 0), id="a server being probed comes first"),
    pytest.param({"live": 1, "in_use": 1, "leaving": 1}, (0, 1), id="a successor for one that leaves"),
    pytest.param({"live": 3, "in_use": 1, "leaving": 1}, (0, 0), id="no successor where others are idle"),
    pytest.param({"live": 3, "in_use": 3, "leaving": 2, "waiting": 1}, (1, 1), id="waiters before the stock"),
]


@pytest.mark.parametrize(("counts", "expected"), GROWTH)
def test_growth(counts: dict[str, Any], expected: tuple[int, int]) -> None:
    given = {"waiting": 0, "live": 0, "leaving": 0, "coming": 0, "connecting": 0, "in_use": 0, "warm": True} | counts
    result = growth(SETTINGS, **given)
    assert expected == (result.for_waiters, result.for_stock)


def test_growth_never_exceeds_its_bounds() -> None:
    """Exhaustively, over every small combination."""
    for pool_size in (1, 2, 4):
        for min_size in range(pool_size + 1):
            for cap in (1, 3):
                settings = PoolSettings(pool_size=pool_size, min_size=min_size, max_connecting=cap)
                for live in range(pool_size + 2):
                    for in_use in range(live + 1):
                        for connecting in range(cap + 1):
                            for waiting in range(5):
                                for leaving in range(live + 1):
                                    got = growth(
                                        settings,
                                        waiting=waiting,
                                        live=live,
                                        leaving=leaving,
                                        coming=0,
                                        connecting=connecting,
                                        in_use=in_use,
                                        warm=True,
                                    )
                                    assert got.for_waiters >= 0
                                    assert got.for_stock >= 0
                                    if got.count:
                                        assert live + connecting + got.count <= pool_size
                                        assert connecting + got.count <= cap
                                        assert got.for_waiters <= max(0, waiting - connecting)
                                    elif connecting == 0 and live < pool_size:
                                        assert not waiting  # nobody waits while there is a place
                                        assert live - leaving >= min_size or live >= pool_size


# --- waiters -------------------------------------------------------------------------------------------------------


def test_idle_servers_are_offered_newest_first_to_waiters_in_arrival_order() -> None:
    old, new = server("old", idle=9), server("new", idle=1)
    got = decided(idle=[old, new], active=[active("busy")], waiters={"first": NOW - 2, "second": NOW - 1})
    assert [("offer", "new", "first"), ("offer", "old", "second")] == got


def test_a_waiter_is_refused_at_its_deadline_and_not_before() -> None:
    waiters = {"first": NOW - 30, "second": NOW - 29.9}
    full = [active(f"{n}") for n in range(5)]
    assert [("refuse", "first", PoolTimeout)] == decided(active=full, waiters=waiters)
    assert looks_again(active=full, waiters=waiters) == pytest.approx(0.1)


def test_a_waiter_past_its_deadline_is_not_served_any_more() -> None:
    """Its client has been promised an answer by then; what is idle goes to the next."""
    waiters = {"late": NOW - 31, "next": NOW - 1}
    assert [("refuse", "late", PoolTimeout), ("offer", "a", "next")] == decided(
        idle=[server("a")], active=[active("b")], waiters=waiters
    )


def test_query_wait_timeout_0_waits_for_ever() -> None:
    settings = PoolSettings(pool_size=1, query_wait_timeout=0)
    assert [] == decided(settings=settings, active=[active("a")], waiters={"first": NOW - 1e9})


def test_the_error_of_a_timeout_has_the_numbers_of_the_pool_as_hint() -> None:
    full = [active(f"{n}") for n in range(5)]
    (refusal,) = plan(State(SETTINGS, active=full, waiters={"first": NOW - 30}), NOW).actions
    assert isinstance(refusal, Refuse)
    error = refusal.error
    assert ("53300", True) == (error.code, error.safe_to_retry)
    assert error.hint == "5 of at most 5 server connections are in use, 0 are being opened, 1 clients wait."


def test_the_error_of_a_timeout_names_the_cause_when_the_origin_is_away() -> None:
    cause = OriginUnreachable("connection refused", log_text="10.0.0.1:5432: connection refused")
    state = State(SETTINGS, waiters={"first": NOW - 30}, failures=3, connect_at=NOW + 5, last_error=cause)
    (refusal,) = plan(state, NOW).actions
    assert isinstance(refusal, Refuse)
    assert refusal.error.code == "08006"
    assert "connection refused" in refusal.error.client_text
    assert "10.0.0.1" not in refusal.error.client_text
    assert "10.0.0.1" in refusal.error.log_text


def test_no_connect_starts_during_the_back_off() -> None:
    waiters = {"first": NOW}
    assert [] == decided(waiters=waiters, connect_at=NOW + 2)
    assert looks_again(waiters=waiters, connect_at=NOW + 2) == pytest.approx(2)
    assert [("open", 1, 0)] == decided(waiters=waiters, connect_at=NOW)


# --- lifetime ------------------------------------------------------------------------------------------------------

LIFETIME = [
    pytest.param([server("a", expires_in=10.1)], [], {}, [], id="not old yet"),
    pytest.param([server("a", expires_in=9)], [], {}, [("open", 0, 1)], id="the successor is opened before the end"),
    pytest.param([server("a", expires_in=9)], [], {"connecting": 1}, [], id="one successor is enough"),
    pytest.param([server("a", expires_in=0)], [], {"connecting": 1}, [], id="it waits for its successor"),
    pytest.param(
        [server("a", expires_in=0), server("b")], [], {}, [("close", "a", "LIFETIME")], id="closed when that is there"
    ),
    pytest.param(
        [server("a", idle=3, expires_in=0), server("b", idle=2, expires_in=9), server("c")],
        [],
        {},
        [("close", "a", "LIFETIME")],
        id="surplus goes without a successor",
    ),
    pytest.param([], [active("a", expires_in=5)], {}, [("open", 0, 1)], id="in use: the successor is opened, too"),
    pytest.param(
        [server("b")], [active("a", expires_in=0)], {}, [("retire", "a", "LIFETIME")], id="in use: closed at release"
    ),
    pytest.param([], [active("a", expires_in=0)], {"connecting": 1}, [], id="in use: stays until the successor comes"),
    pytest.param(
        [server("a", expires_in=0)], [], {"failures": 2, "connect_at": NOW + 1}, [], id="stays while connects fail"
    ),
    pytest.param(
        [],
        [active("a", expires_in=0), *(active(f"{n}") for n in range(4))],
        {},
        [("retire", "a", "LIFETIME")],
        id="full: goes first, as no successor fits",
    ),
    pytest.param(
        [],
        [active(f"{n}", expires_in=-n) for n in range(5)],
        {},
        [("retire", "4", "LIFETIME"), ("retire", "3", "LIFETIME"), ("retire", "2", "LIFETIME")],
        id="full: no more at once than max_connecting",
    ),
    pytest.param(
        [server("a", expires_in=0)],
        [],
        {"room": 0},
        [("close", "a", "LIFETIME"), ("open", 0, 1)],
        id="no room under a limit: goes first",
    ),
    pytest.param(
        [server("a", expires_in=0)],
        [],
        {"warm": False},
        [("close", "a", "LIFETIME")],
        id="a resting pool replaces none",
    ),
]


@pytest.mark.parametrize(("idle", "lent", "state", "expected"), LIFETIME)
def test_lifetime(idle: list[FakeServer], lent: list[FakeServer], state: dict[str, Any], expected: list[Any]) -> None:
    assert expected == decided(idle=idle, active=lent, **state)


def test_it_looks_again_when_a_server_gets_old_and_when_it_ends() -> None:
    settings = PoolSettings(server_check_delay=0, server_idle_timeout=0, replace_ahead=10)
    assert looks_again(settings=settings, idle=[server("a", expires_in=100)]) == pytest.approx(90)
    assert looks_again(settings=settings, idle=[server("a", expires_in=8)], connecting=1) == pytest.approx(8)


# --- idle timeout --------------------------------------------------------------------------------------------------


def test_servers_idle_for_too_long_are_closed_down_to_the_minimum() -> None:
    idle = [server("a", idle=900, checked=1), server("b", idle=700, checked=1), server("c", idle=601, checked=1)]
    assert [("close", "a", "IDLE_TIMEOUT"), ("close", "b", "IDLE_TIMEOUT")] == decided(idle=idle)


def test_a_server_in_use_counts_for_the_minimum() -> None:
    idle = [server("a", idle=601, checked=1)]
    assert [("close", "a", "IDLE_TIMEOUT")] == decided(idle=idle, active=[active("b")])


def test_the_idle_time_out_counts_from_the_last_use_and_not_from_the_last_probe() -> None:
    idle = [server("a", idle=599, checked=1), server("b", idle=1)]
    assert [] == decided(idle=idle)
    assert looks_again(idle=idle) == pytest.approx(1)


def test_a_smaller_pool_size_closes_the_surplus() -> None:
    idle = [server("a", idle=3), server("b", idle=2)]
    lent = [active(f"{n}") for n in range(4)]
    assert [("close", "a", "REMOVED")] == decided(idle=idle, active=lent)


# --- probes --------------------------------------------------------------------------------------------------------

PROBES = [
    pytest.param([server("a", idle=29.9)], [], [], id="heard of recently"),
    pytest.param([server("a", idle=30)], [], [("probe", "a")], id="quiet for server_check_delay"),
    pytest.param([server("a", idle=300, checked=29)], [], [], id="answered a probe recently"),
    pytest.param([server("a", idle=50), server("b", idle=40)], [], [("probe", "a")], id="the newest stays for clients"),
    pytest.param(
        [server("a", idle=50), server("b", idle=40), server("c", idle=1)],
        [],
        [("probe", "a"), ("probe", "b")],
        id="all others at once",
    ),
    pytest.param(
        [server("b", idle=40)],
        [server("a", ServerState.PROBING)],
        [],
        id="the newest waits for its turn",
    ),
    pytest.param(
        [server("a", checked=0), server("b", checked=0)],
        [server("c", ServerState.PROBING, answer_in=0)],
        [("close", "c", "PROBE_MISSED"), "suspect"],
        id="no answer: closed, and the others are suspected",
    ),
]


@pytest.mark.parametrize(("idle", "probing", "expected"), PROBES)
def test_probes(idle: list[FakeServer], probing: list[FakeServer], expected: list[Any]) -> None:
    assert expected == decided(idle=idle, probing=probing)


def test_suspected_servers_are_probed_all_at_once() -> None:
    idle = [server("a"), server("b")]
    for suspected in idle:
        suspected.checked_at = -inf
    assert [("probe", "a"), ("probe", "b")] == decided(idle=idle)


def test_probes_can_be_switched_off() -> None:
    settings = PoolSettings(server_check_delay=0)
    assert [] == decided(settings=settings, idle=[server("a", idle=500)])


def test_it_looks_again_when_an_answer_is_due() -> None:
    probing = [server("a", ServerState.PROBING, answer_in=3)]
    assert looks_again(probing=probing, idle=[server("b")]) == pytest.approx(3)


# --- phases --------------------------------------------------------------------------------------------------------


def everything() -> dict[str, Any]:
    return {
        "idle": [server("idle", idle=1)],
        "active": [active("lent"), server("leaving", ServerState.RETIRING)],
        "probing": [server("tested", ServerState.PROBING)],
        "waiters": {"late": NOW - 30, "first": NOW - 1},
    }


def test_a_paused_pool_closes_what_is_free_and_lends_nothing() -> None:
    expected = [
        ("refuse", "late", PoolTimeout),
        ("close", "idle", "PAUSE"),
        ("close", "tested", "PAUSE"),
        ("retire", "lent", "PAUSE"),
    ]
    assert expected == decided(phase=Phase.PAUSED, **everything())
    assert looks_again(phase=Phase.PAUSED, **everything()) == pytest.approx(29)


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.CLOSED])
def test_a_draining_pool_refuses_everybody(phase: Phase) -> None:
    expected = [
        ("refuse", "late", ShuttingDown),
        ("refuse", "first", ShuttingDown),
        ("close", "idle", "SHUTDOWN"),
        ("close", "tested", "SHUTDOWN"),
        ("retire", "lent", "SHUTDOWN"),
    ]
    assert expected == decided(phase=phase, **everything())


# --- the time of the next look -------------------------------------------------------------------------------------


def test_nothing_is_due_between_two_looks() -> None:
    """Whatever state: a moment before the next look there is nothing to do, and the next look is never in the past."""
    states = []
    for idle_for in (0, 29, 31, 601):
        for expires_in in (-5, 5, 15, 1000):
            for lent in (0, 2):
                for waits in (None, 0, 29, 31):
                    states.append((idle_for, expires_in, lent, waits))
    for idle_for, expires_in, lent, waits in states:
        idle = [] if waits else [server("a", idle=idle_for, checked=1, expires_in=expires_in), server("b")]
        state = State(
            SETTINGS,
            idle=idle,
            active=[active(f"{n}", expires_in=expires_in) for n in range(lent)],
            waiters={} if waits is None else {"first": NOW - waits},
            connecting=2,
        )
        made = plan(state, NOW)
        assert made.look_again_at >= NOW + SOONEST_SECONDS
        if not made.actions and made.look_again_at < inf:
            before = made.look_again_at - min(RETRY_SECONDS, SOONEST_SECONDS) / 2
            assert [] == told(plan(state, before).actions), (idle_for, expires_in, lent, waits)


def test_reasons_are_their_own_text() -> None:
    assert f"{CloseReason.LIFETIME}" == "server_lifetime"
