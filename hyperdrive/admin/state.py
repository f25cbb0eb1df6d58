"""What the console and the status page ask of the running proxy.

The rows are plain values, filled by whoever knows them; the columns that people see are made in ``views``. Times are
seconds since 1970 where they name a moment, otherwise durations in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hyperdrive.pool.snapshot import PoolSnapshot


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """A client or a server. *link* is the id of the other side, 0 if it has none."""

    id: int
    user: str
    database: str
    state: str
    address: str = ""
    port: int = 0
    local_address: str = ""
    local_port: int = 0
    connected_at: float = 0.0
    requested_at: float = 0.0
    wait_seconds: float = 0.0
    close_needed: bool = False
    link: int = 0
    remote_pid: int = 0
    tls: str = ""
    application_name: str = ""
    prepared_statements: int = 0
    replication: str = "none"
    pins: str = ""


@dataclass(frozen=True, slots=True)
class StatsRow:
    """What a database has done since the process started. ``None`` is what nobody counts, which is not nothing."""

    database: str
    transactions: int = 0
    queries: int | None = None
    assignments: int = 0
    received_bytes: int | None = None
    sent_bytes: int | None = None
    transaction_seconds: float | None = None
    query_seconds: float | None = None
    wait_seconds: float = 0.0
    client_parses: int | None = None
    server_parses: int | None = None
    binds: int | None = None
    round_trips: int = 0
    round_trips_saved: int | None = None


@dataclass(frozen=True, slots=True)
class DatabaseRow:
    """A database that is configured or in use. *max_connections* 0 is no limit."""

    name: str
    host: str
    port: int
    origin_database: str
    pool_size: int
    min_pool_size: int
    pool_mode: str
    server_lifetime: float = 0.0
    max_connections: int = 0
    connections: int = 0
    client_connections: int = 0
    is_paused: bool = False
    is_disabled: bool = False


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user that is configured or connected."""

    name: str
    pool_mode: str | None = None
    max_connections: int = 0
    connections: int = 0
    client_connections: int = 0


@dataclass(frozen=True, slots=True)
class ConfigRow:
    """A setting as it holds now."""

    key: str
    value: str
    default: str
    is_live: bool


@dataclass(frozen=True, slots=True)
class StatementRow:
    """A prepared statement that servers share."""

    name: str
    sql: str
    database: str = ""
    user: str = ""
    clients: int = 0
    servers: int = 0


@dataclass(frozen=True, slots=True)
class CacheRow:
    """The cache of one database. *state* is ``on``, ``off``, ``shadow``, or why nothing is served."""

    database: str
    state: str
    epoch: int = 0
    entries: int = 0
    size_bytes: int = 0
    limit_bytes: int = 0
    hits: int = 0
    stale: int = 0
    misses: int = 0
    bypasses: int = 0


@dataclass(frozen=True, slots=True)
class TableRow:
    """A relation as the cache sees it. *rung* as in the ladder of the caching rules; *bound_seconds*: what a write past us may take to
    be seen; *raised_by* says what would see it sooner."""

    database: str
    name: str
    kind: str
    rung: int
    bound_seconds: float
    is_cached: bool
    why: str
    raised_by: str
    entries: int = 0


@dataclass(frozen=True, slots=True)
class ShapeRow:
    """Statements that differ in their values only."""

    database: str
    sql: str
    verdict: str
    rule: str = ""
    object: str = ""
    hint: str = ""
    depends_on: str = ""
    calls: int = 0
    hits: int = 0
    misses: int = 0
    bypasses: int = 0
    saved_seconds: float = 0.0
    origin_seconds: float = 0.0
    would_be_hits: int = 0
    would_be_stale: int = 0


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """How many of something there are, and roughly how many bytes they take together."""

    name: str
    count: int
    size_bytes: int


class ConsoleState(Protocol):
    """The proxy, as seen from the console. ``None`` for *database* means all of them."""

    async def refresh(self) -> None:
        """Ask the other workers for their rows; to be awaited before rows are shown."""

    def readiness(self) -> str:
        """Empty when clients can be served, otherwise what is missing."""

    def is_admin(self, user: str) -> bool: ...
    def may_look(self, user: str) -> bool: ...

    def pools(self) -> Iterable[PoolSnapshot]: ...
    def clients(self) -> Iterable[ConnectionRow]: ...
    def servers(self) -> Iterable[ConnectionRow]: ...
    def stats(self) -> Iterable[StatsRow]: ...
    def databases(self) -> Iterable[DatabaseRow]: ...
    def users(self) -> Iterable[UserRow]: ...
    def config(self) -> Iterable[ConfigRow]: ...
    def statements(self) -> Iterable[StatementRow]: ...
    def memory(self) -> Iterable[MemoryRow]: ...
    def cache(self) -> Iterable[CacheRow]: ...
    def tables(self) -> Iterable[TableRow]: ...
    def shapes(self) -> Iterable[ShapeRow]: ...

    async def purge(self, what: str, name: str) -> int:
        """Drop entries everywhere: ``all``, those of a ``table``, a ``tag``, a ``statement`` or a ``role``; returns how many.

        Raises:
            ClientError: there is no such table.
        """

    def lists(self) -> Mapping[str, int]:
        """Counts by name; those of PgBouncer's SHOW LISTS that are missing show as 0."""

    async def pause(self, database: str | None) -> None:
        """Let servers come back and close them; return when none is left. Clients wait until ``resume``."""

    async def resume(self, database: str | None) -> None: ...
    async def reconnect(self, database: str | None) -> None: ...

    async def kill(self, database: str | None) -> None:
        """Drop its clients and servers at once; new clients wait until ``resume``."""

    async def kill_client(self, client_id: int) -> bool:
        """Drop one client; ``False`` if there is none with that id."""

    async def disable(self, database: str) -> None: ...
    async def enable(self, database: str) -> None: ...

    async def reload(self) -> str:
        """Read the configuration again. Returns what a person should know (settings that need a restart), or nothing.

        Raises:
            ConfigError: nothing has changed.
        """

    async def shutdown(self, wait_for: str) -> None:
        """Begin to stop; *wait_for* is ``""`` (at once), ``"servers"`` or ``"clients"``."""
