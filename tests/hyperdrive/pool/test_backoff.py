"""When the next connect may start, and which failures are worth waiting out."""

from __future__ import annotations

import pytest

from hyperdrive.errors import (
    AuthenticationFailed,
    HyperdriveError,
    InternalError,
    OriginLost,
    OriginRefused,
    OriginUnreachable,
)
from hyperdrive.pool.backoff import Backoff, is_temporary
from hyperdrive.pool.settings import PoolSettings

SETTINGS = PoolSettings(backoff_first=1, backoff_max=8, refused_retry=0.5)


def refused(sqlstate: str) -> OriginRefused:
    return OriginRefused("no", response=b"E", sqlstate=sqlstate)


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        *((refused(code), True) for code in ("57P03", "57P01", "57P02", "57014", "53300", "53200", "58000", "55006")),
        *((refused(code), True) for code in ("08006", "08001")),
        *((refused(code), False) for code in ("28P01", "28000", "3D000", "42501", "42704", "22023", "0A000")),
        *((refused(code), False) for code in ("08P01", "08004", "57P04", "55000", "XX000")),
        (OriginUnreachable("x"), True),
        (OriginLost("x"), True),
        (AuthenticationFailed("x"), False),
        (InternalError("x"), False),
    ],
)
def test_which_failures_are_worth_waiting_out(error: HyperdriveError, temporary: bool) -> None:
    assert temporary is is_temporary(error)


@pytest.mark.parametrize(("random", "share"), [(0.0, 0.5), (1.0, 1.0), (0.5, 0.75)])
def test_pauses_double_up_to_their_bound(random: float, share: float) -> None:
    backoff, now, pauses = Backoff(lambda: random), 0.0, []
    for _ in range(2000):
        now += 100
        assert backoff.failed(now, started_at=now - 1, temporary=True, settings=SETTINGS)
        pauses.append(backoff.ready_at - now)
    assert pytest.approx([share * pause for pause in (1, 2, 4, 8, 8)]) == pauses[:5]
    assert pauses[-1] == pytest.approx(8 * share)


def test_attempts_that_ran_in_parallel_are_one_step() -> None:
    backoff = Backoff(lambda: 1.0)
    assert backoff.failed(10, started_at=9, temporary=True, settings=SETTINGS)
    assert not backoff.failed(10.3, started_at=9, temporary=True, settings=SETTINGS)
    assert (1, 11) == (backoff.failures, backoff.ready_at)


def test_success_forgets() -> None:
    backoff = Backoff(lambda: 1.0)
    backoff.failed(10, started_at=9, temporary=True, settings=SETTINGS)
    backoff.succeeded()
    assert backoff.ready_at < 0
    backoff.failed(10.5, started_at=9, temporary=True, settings=SETTINGS)
    assert backoff.ready_at == 11.5


def test_a_refusal_is_repeated_soon_and_not_rarer_and_rarer() -> None:
    backoff = Backoff(lambda: 1.0)
    for now in (10, 20, 30):
        backoff.failed(now, started_at=now - 1, temporary=False, settings=SETTINGS)
        assert backoff.ready_at == now + 0.5
