"""A proxy in the test's own process, in front of any origin.

``async with running_proxy(origin_url, pool_size=1) as proxy: …`` listens on a free loopback port; *overrides* are settings by the
names of ``hyperdrive.toml``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from hyperdrive.app import App
from hyperdrive.config.loader import loader_for
from hyperdrive.pool.pools import Pools
from hyperdrive.proxy.metrics import ProxyMetrics
from hyperdrive.proxy.server import ServerConnection


@dataclass(frozen=True, slots=True)
class RunningProxy:
    """A proxy that serves; ``url`` is what a client needs, password included."""

    app: App
    url: str

    @property
    def host(self) -> str:
        return "127.0.0.1"

    @property
    def port(self) -> int:
        return self.app.port

    @property
    def pools(self) -> Pools[ServerConnection]:
        return self.app.proxy.pools

    @property
    def metrics(self) -> ProxyMetrics:
        return self.app.proxy.metrics


@asynccontextmanager
async def running_proxy(origin_url: str, **overrides: Any) -> AsyncIterator[RunningProxy]:
    """Serve *origin_url* on a free port of loopback until the block is left."""
    # Most tests look at what the origin was asked, or change rows past the proxy: they want no cache unless they say so.
    flags = {"origin": origin_url, "listen": "127.0.0.1:0", "admin_listen": "off", "cache": "off", **overrides}
    tables = {name: flags.pop(name) for name in ("users", "databases", "tables") if name in flags}
    settings = replace(loader_for(None, flags, env={}).load(), **tables)
    async with App(settings) as app:
        dsn = app.dsn
        password = f":{dsn.password}" if dsn.password is not None else ""
        yield RunningProxy(app, f"postgresql://{dsn.user}{password}@127.0.0.1:{app.port}/{dsn.database}")
