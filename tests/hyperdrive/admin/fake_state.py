"""A proxy that does nothing, for the console and the status page to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hyperdrive.admin.state import (
    CacheRow,
    ConfigRow,
    ConnectionRow,
    DatabaseRow,
    MemoryRow,
    ShapeRow,
    StatementRow,
    StatsRow,
    TableRow,
    UserRow,
)
from hyperdrive.errors import ConfigError
from hyperdrive.pool.snapshot import PoolSnapshot


@dataclass
class FakeState:
    admins: set[str] = field(default_factory=lambda: {"boss"})
    lookers: set[str] = field(default_factory=lambda: {"watcher"})
    missing: str = ""
    done: list[tuple[str, object]] = field(default_factory=list)
    config_error: str = ""
    refreshed: int = 0
    totals: list[StatsRow] = field(
        default_factory=lambda: [StatsRow("shop", transactions=4, queries=10, query_seconds=2.5)]
    )

    async def refresh(self) -> None:
        self.refreshed += 1

    def readiness(self) -> str:
        return self.missing

    def is_admin(self, user: str) -> bool:
        return user in self.admins

    def may_look(self, user: str) -> bool:
        return user in self.lookers

    def cache(self) -> Iterable[CacheRow]:
        return [CacheRow("shop", "on", 2, 3, 4096, 1 << 20, hits=30, misses=10)]

    def tables(self) -> Iterable[TableRow]:
        return [TableRow("shop", "public.t", "table", 1, 75.0, True, "why", "how", 3)]

    def shapes(self) -> Iterable[ShapeRow]:
        return [ShapeRow("shop", "select v from t", "cacheable", depends_on="public.t", calls=40, hits=30, misses=10)]

    async def purge(self, what: str, name: str) -> int:
        self.done.append((f"purge {what}", name))
        return 3

    def pools(self) -> Iterable[PoolSnapshot]:
        return [PoolSnapshot("shop", "app", 3, 1, 2, 4, 0, 1, 1, 1.25, "transaction", "running", "")]

    def clients(self) -> Iterable[ConnectionRow]:
        return [
            ConnectionRow(
                17, "app", "shop", "active", "127.0.0.1", 50000, connected_at=1_700_000_000, link=3, pins="LISTEN"
            ),
            ConnectionRow(18, "app", "shop", "waiting", wait_seconds=2.5, application_name='o"dd\n'),
        ]

    def servers(self) -> Iterable[ConnectionRow]:
        return [ConnectionRow(3, "app", "shop", "active", link=17, remote_pid=4711, prepared_statements=2)]

    def stats(self) -> Iterable[StatsRow]:
        return self.totals

    def databases(self) -> Iterable[DatabaseRow]:
        return [DatabaseRow("shop", "db", 5432, "shop", 20, 1, "transaction", connections=6, is_paused=False)]

    def users(self) -> Iterable[UserRow]:
        return [UserRow("app", None, connections=6, client_connections=2)]

    def config(self) -> Iterable[ConfigRow]:
        return [ConfigRow("pool_size", "20", "20", True)]

    def statements(self) -> Iterable[StatementRow]:
        return [StatementRow("_hd_1", "select 1", "shop", "app", 1, 1)]

    def memory(self) -> Iterable[MemoryRow]:
        return [MemoryRow("client", 2, 4096)]

    def lists(self) -> Mapping[str, int]:
        return {"used_clients": 2, "workers": 1}

    async def pause(self, database: str | None) -> None:
        self.done.append(("pause", database))

    async def resume(self, database: str | None) -> None:
        self.done.append(("resume", database))

    async def reconnect(self, database: str | None) -> None:
        self.done.append(("reconnect", database))

    async def kill(self, database: str | None) -> None:
        self.done.append(("kill", database))

    async def kill_client(self, client_id: int) -> bool:
        self.done.append(("kill_client", client_id))
        return client_id == 17

    async def disable(self, database: str) -> None:
        self.done.append(("disable", database))

    async def enable(self, database: str) -> None:
        self.done.append(("enable", database))

    async def reload(self) -> str:
        if self.config_error:
            raise ConfigError(self.config_error)
        self.done.append(("reload", None))
        return "workers needs a restart"

    async def shutdown(self, wait_for: str) -> None:
        self.done.append(("shutdown", wait_for))
