"""Rows for people: SHOW POOLS and SHOW SERVERS, with PgBouncer's columns (pgbouncer.org/usage.html)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from hyperdrive.errors import HyperdriveError
from hyperdrive.pool.interfaces import Phase, PoolKey, S, Server, ServerState
from hyperdrive.pool.settings import PoolSettings


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """One pool, now."""

    database: str
    user: str
    #: Clients that are linked to a server or want nothing.
    cl_active: int
    cl_waiting: int
    sv_active: int
    sv_idle: int
    #: Idle, and not heard of for ``server_check_delay``.
    sv_used: int
    sv_tested: int
    sv_login: int
    #: Seconds that the first client has waited.
    maxwait: float
    pool_mode: str
    phase: str
    last_error: str


@dataclass(frozen=True, slots=True)
class ServerSnapshot(Generic[S]):
    """One server, now. The proxy adds what only it knows: addresses, the link, the last statement."""

    database: str
    user: str
    state: str
    age_seconds: float
    idle_seconds: float
    expires_in_seconds: float
    server: S


def pool_snapshot(
    key: PoolKey,
    settings: PoolSettings,
    *,
    phase: Phase,
    clients: int,
    waiting: int,
    first_since: float,
    idle: Sequence[Server],
    tested: int,
    in_use: int,
    login: int,
    last_error: HyperdriveError | None,
    now: float,
) -> PoolSnapshot:
    """Put the row together."""
    delay = settings.server_check_delay
    used = sum(1 for server in idle if 0 < delay <= now - max(server.used_at, server.checked_at))
    return PoolSnapshot(
        key.database,
        key.user,
        cl_active=max(clients - waiting, in_use if not clients else 0),
        cl_waiting=waiting,
        sv_active=in_use,
        sv_idle=len(idle) - used,
        sv_used=used,
        sv_tested=tested,
        sv_login=login,
        maxwait=now - first_since,
        pool_mode=settings.mode.value,
        phase=phase.value,
        last_error=last_error.client_text if last_error else "",
    )


def server_snapshot(key: PoolKey, server: S, now: float) -> ServerSnapshot[S]:
    """Put the row together."""
    lent = server.pool_state in (ServerState.ACTIVE, ServerState.RETIRING)
    return ServerSnapshot(
        key.database,
        key.user,
        server.pool_state.value,
        age_seconds=now - server.born_at,
        idle_seconds=0.0 if lent else now - server.used_at,
        expires_in_seconds=server.expires_at - now,
        server=server,
    )
