"""The settings of one pool, each with the precedent of its default. Filled by ``wiring``; never changed in place.

All times are seconds; 0 switches a time-out off, as in PgBouncer (pgbouncer.org/config.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf


class PoolMode(Enum):
    """When a server comes back: the client leaves, its transaction ends, its statement ends."""

    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How one pool behaves."""

    # PgBouncer's default_pool_size.
    pool_size: int = 20
    # PgBouncer's min_pool_size is 0 and HikariCP's minimumIdle the whole pool. One warm server hides the connect from
    # the first client, and the rest open in parallel as soon as clients queue.
    min_size: int = 1
    mode: PoolMode = PoolMode.TRANSACTION

    # HikariCP's connectionTimeout. PgBouncer waits 120 s, longer than most programs and every serverless function do:
    # a client that has given up should not hold a place, and an error after 30 s still covers a restart of the origin.
    query_wait_timeout: float = 30.0

    # PgBouncer's server_lifetime and server_idle_timeout.
    server_lifetime: float = 3600.0
    server_idle_timeout: float = 600.0
    # A server lives up to this share less than server_lifetime, so that servers born together do not leave together.
    # HikariCP varies by 2.5 %; a wide area makes a connect dearer, hence wider.
    lifetime_jitter: float = 0.1
    # So long before its end a server's successor is opened: several times a login across an ocean (6 round trips).
    replace_ahead: float = 10.0

    # PgBouncer's server_check_delay. There the client waits for the check, here nobody does.
    server_check_delay: float = 30.0
    # HikariCP's validationTimeout.
    probe_timeout: float = 5.0

    # PgBouncer's server_connect_timeout is 15 s and HikariCP's whole connect 30 s; the pool bounds both parts together.
    connect_timeout: float = 15.0
    login_timeout: float = 15.0
    # PgBouncer's server_login_retry is a fixed 15 s. A restart takes two seconds, so start low and double.
    backoff_first: float = 0.25
    backoff_max: float = 15.0
    # A wrong password or a missing database: within this time clients hear the last refusal without a new attempt.
    refused_retry: float = 1.0
    # PgBouncer logs in one server per pool at a time. Four fill a pool of 20 in five logins, and a herd of pools after
    # an outage stays small.
    max_connecting: int = 4

    # PgBouncer's autodb_idle_timeout: a pool that nobody uses is removed.
    unused_pool_timeout: float = 3600.0

    def __post_init__(self) -> None:
        if self.pool_size < 1 or not 0 <= self.min_size <= self.pool_size or self.max_connecting < 1:
            raise ValueError("0 <= min_size <= pool_size, 1 <= pool_size and 1 <= max_connecting must hold")
        if not 0 <= self.lifetime_jitter < 1:
            raise ValueError("0 <= lifetime_jitter < 1 must hold")

    @property
    def open_timeout(self) -> float:
        """The bound for one whole attempt to open a server."""
        return or_never(self.connect_timeout) + or_never(self.login_timeout)


def or_never(seconds: float) -> float:
    """A time-out as a duration that can be added: 0 means never."""
    return seconds if seconds > 0 else inf
