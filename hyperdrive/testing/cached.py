"""A stage with a cache on it: a proxy whose clock tests can move, and what each read was answered by."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Any

from hyperdrive.proxy.cache import Cache
from hyperdrive.proxy.database import Database
from hyperdrive.testing.frontend import PROTOCOL_3_0
from hyperdrive.testing.scene import Scene, eventually
from hyperdrive.testing.transcript import Replies
from hyperdrive.testing.wire import WireConnection


class MovedClock:
    """The machine's clock, moved on by tests."""

    def __init__(self) -> None:
        self.moved = 0.0

    def now(self) -> float:
        return time.monotonic() + self.moved

    def advance(self, seconds: float) -> None:
        self.moved += seconds


class CachedScene(Scene):
    """``start`` a proxy, or let the first client do so. Jitter is none: entries live exactly as long as they may."""

    def __init__(self, origin_url: str, stack: AsyncExitStack, major: int = 0) -> None:
        super().__init__(origin_url, stack, major)
        self.clock = MovedClock()

    async def start(self, servers: int = 4, *, origin_url: str | None = None, **overrides: Any) -> Any:
        """A proxy with a cache, polling the catalog only when it is told to."""
        overrides = {"cache": "on", "catalog_poll": "1h", **overrides}
        proxy = await super().start(servers, origin_url=origin_url, **overrides)
        cache = self.cache
        cache.now = self.clock.now
        cache.store._now = self.clock.now
        cache.chance = lambda: 0.0
        return proxy

    @property
    def cache(self) -> Cache:
        found: Cache = self.proxy.app.proxy.cache
        return found

    @property
    def database(self) -> Database:
        """What the cache knows of the database that tests use."""
        return self.cache.database(self.proxy.app.dsn.database)

    async def client(self, version: int = PROTOCOL_3_0, **parameters: str) -> WireConnection:
        """A client whose reads may be served: the catalog and who it is are known."""
        conn = await super().client(version, **parameters)
        await self.settle(conn)
        return conn

    async def settle(self, conn: WireConnection) -> None:
        """Wait until *conn*'s reads may be served; for what is loaded beside the query path."""

        async def is_known() -> bool:
            await conn.query("select 'settled'")
            return self.how(conn) in ("hit", "miss") or not self._is_waited_for(conn)

        await eventually(is_known, f"a session whose reads may be served: {self.last(conn)}")

    def _is_waited_for(self, conn: WireConnection) -> bool:
        said = self.last(conn)
        return "rule=origin-unknown" in said or "being looked up" in said

    def reader(self, conn: WireConnection) -> Any:
        """The cache's side of a client."""
        return self.proxy.app.proxy.clients[conn.pid].reader

    def last(self, conn: WireConnection) -> str:
        """How its last read was answered, in words."""
        said: str = self.reader(conn).last_read()
        return said

    def how(self, conn: WireConnection) -> str:
        """The same in one: hit, stale, miss, or the rule of a bypass."""
        reader = self.reader(conn)
        return str(reader.last_rule.value) if reader.last_kind == "bypass" else str(reader.last_kind)

    async def ask_twice(self, conn: WireConnection, sql: str) -> tuple[str, Replies, Replies]:
        """How the second of two equal reads was answered, and both replies."""
        first = await conn.query(sql)
        second = await conn.query(sql)
        return self.how(conn), first, second
