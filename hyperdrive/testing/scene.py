"""A stage for tests of hazards: an origin, a proxy in front of it, clients of both, all closed at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from hyperdrive.testing.databases import run_sql
from hyperdrive.testing.frontend import PROTOCOL_3_0
from hyperdrive.testing.wire import WireConnection, connect, open_wire

PATIENCE_SECONDS = 5.0

OWN_APPLICATION = "hazard-watcher"
"""``application_name`` of direct connections, to tell them from the proxy's in pg_stat_activity."""


async def eventually(claim: Callable[[], Awaitable[object]] | Callable[[], object], what: str = "") -> None:
    """Wait until *claim* is true; for what other processes do in their own time, and nothing else."""
    last: object = None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                last = claim()
                if asyncio.iscoroutine(last):
                    last = await last
                if last:
                    return
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"still not so after {PATIENCE_SECONDS:g} s: {what or claim}; last {last!r}") from None


def _with_application(url: str) -> str:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query)) | {"application_name": OWN_APPLICATION}
    return urlunsplit(parts._replace(query=urlencode(options)))


class Scene:
    """What one test needs. ``start`` a proxy first; later clients connect to the newest one. *defaults* are settings of each."""

    def __init__(self, origin_url: str, stack: AsyncExitStack, major: int = 0, **defaults: Any) -> None:
        self.origin_url, self.major, self._defaults = origin_url, major, defaults
        self._stack = stack
        self.proxy: Any = None

    async def start(self, servers: int = 1, *, origin_url: str | None = None, **overrides: Any) -> Any:
        """Start a proxy whose pool has *servers* places."""
        from hyperdrive.testing.proxy import running_proxy

        context = running_proxy(origin_url or self.origin_url, **{"pool_size": servers, **self._defaults, **overrides})
        self.proxy = await self._stack.enter_async_context(context)
        return self.proxy

    async def client(self, version: int = PROTOCOL_3_0, **parameters: str) -> WireConnection:
        """A logged-in client of the proxy."""
        if self.proxy is None:
            await self.start()
        return await self._stack.enter_async_context(await connect(self.proxy.url, version=version, **parameters))

    async def raw(self) -> WireConnection:
        """A connection to the proxy on which nothing was said yet."""
        if self.proxy is None:
            await self.start()
        return await self._stack.enter_async_context(await open_wire(self.proxy.url))

    async def direct(self) -> WireConnection:
        """A logged-in connection to the origin itself."""
        return await self._stack.enter_async_context(await connect(_with_application(self.origin_url)))

    async def sql(self, text: str) -> None:
        """Run *text* on a direct connection of its own; an error fails the test."""
        await run_sql(_with_application(self.origin_url), text)

    async def ask(self, sql: str) -> str | None:
        """The single value of *sql*, asked directly."""
        async with await connect(_with_application(self.origin_url)) as conn:
            return await conn.value(sql)

    async def servers(self) -> list[int]:
        """Process ids of the proxy's server connections to this database, as the origin counts them."""
        found = await self.ask(
            "select coalesce(string_agg(pid::text, ','), '') from pg_stat_activity where datname = current_database()"
            f" and backend_type = 'client backend' and application_name <> '{OWN_APPLICATION}'"
        )
        return sorted(int(pid) for pid in (found or "").split(",") if pid)

    async def is_waiting(self, event: str = "advisory") -> bool:
        """One of the proxy's servers waits for *event*."""
        return await self.ask(f"select count(*) from pg_stat_activity where wait_event = '{event}'") != "0"

    async def close_early(self, conn: WireConnection) -> None:
        """Close *conn* now."""
        await conn.close()
