"""The proxy as a library: a pool for one program, in its own process.

``Pool`` runs the same proxy as ``hyperdrive serve`` on a private unix socket and speaks to it with asyncpg, so there is one data
path, not two. Whoever can read the socket's directory (mode 0700) is let in; nothing listens on TCP.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg

from hyperdrive.app import App
from hyperdrive.config.loader import loader_for

if TYPE_CHECKING:
    from typing import Self

    from asyncpg.pool import PoolConnectionProxy

_PORT = 6543
"""Only a part of the socket's name."""


class Pool:
    """Connections to the Postgres at *url*, warm and shared.

    *settings* are those of ``hyperdrive.toml`` (``pool_size=5``, ``query_wait_timeout="2s"``); *max_connections* is how many of the
    program's own tasks may hold a connection at a time: holding one costs no server unless a transaction is open. Use it as
    ``async with`` or call ``open`` and ``close``. Queries raise asyncpg's exceptions.

    Raises:
        ConfigError: *url* or a setting is wrong; from the constructor.
    """

    def __init__(self, url: str, *, max_connections: int = 100, **settings: Any) -> None:
        flags = {"origin": url, "admin_listen": "off", "auth_method": "trust", **settings}
        self._settings = replace(loader_for(None, flags, env={}).load(), listen=())
        self._max_connections = max_connections
        self._app: App | None = None
        self._pool: asyncpg.Pool[Any] | None = None
        self._directory = ""

    async def open(self) -> None:
        """Start the proxy. Nothing is left behind when this fails or is cancelled."""
        self._directory = tempfile.mkdtemp(prefix="hyperdrive-")
        try:
            app = App(replace(self._settings, unix_socket_dir=self._directory))
            self._app = await app.__aenter__()
            self._pool = await asyncpg.create_pool(
                host=self._directory,
                port=_PORT,
                user=app.dsn.user,
                database=app.dsn.database,
                min_size=0,
                max_size=self._max_connections,
            )
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Wait for connections in use, then end everything. May be called twice."""
        pool, self._pool = self._pool, None
        app, self._app = self._app, None
        try:
            if pool is not None:
                await pool.close()
        finally:
            if app is not None:
                await app.close()
            if self._directory:
                shutil.rmtree(self._directory, ignore_errors=True)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def _open_pool(self) -> asyncpg.Pool[Any]:
        if self._pool is None:
            raise RuntimeError("the pool is not open; use `async with hyperdrive.Pool(url) as pool`")
        return self._pool

    async def fetch(self, sql: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """All rows of *sql*, as asyncpg records. *timeout* in seconds."""
        rows: list[Any] = await self._open_pool.fetch(sql, *args, timeout=timeout)
        return rows

    async def fetchrow(self, sql: str, *args: Any, timeout: float | None = None) -> Any:
        """The first row, or ``None``."""
        return await self._open_pool.fetchrow(sql, *args, timeout=timeout)

    async def fetchval(self, sql: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """One value of the first row, or ``None``."""
        return await self._open_pool.fetchval(sql, *args, column=column, timeout=timeout)

    async def execute(self, sql: str, *args: Any, timeout: float | None = None) -> str:
        """Run *sql*; returns its command tag."""
        tag: str = await self._open_pool.execute(sql, *args, timeout=timeout)
        return tag

    async def executemany(self, sql: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None) -> None:
        """Run *sql* once for each sequence of *args*, in one transaction."""
        await self._open_pool.executemany(sql, args, timeout=timeout)

    @asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[PoolConnectionProxy[Any]]:
        """A connection of one's own, for session settings, LISTEN, COPY and cursors."""
        async with self._open_pool.acquire(timeout=timeout) as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[PoolConnectionProxy[Any]]:
        """A connection with a transaction around the block: committed at its end, rolled back when it raises.

        *options* are asyncpg's: ``isolation``, ``readonly``, ``deferrable``.
        """
        async with self._open_pool.acquire() as connection, connection.transaction(**options):
            yield connection
