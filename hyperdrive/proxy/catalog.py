"""Loading a database's catalogs with asyncpg, and polling whether they have changed.

One connection per database, opened when it is needed and kept for the polls. Everything is read in one REPEATABLE READ READ ONLY
snapshot with an empty search_path. Knows asyncpg and how to wait; what the rows mean is ``sql.catalog``'s. All of it runs beside
the hot path: while nothing is known, every read is refused with ``origin-unknown``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg

from hyperdrive.sql import catalog_queries as queries
from hyperdrive.sql.catalog import Catalog, Declarations, Identity, build

Connect = Callable[[], Awaitable[Any]]
"""Opens an asyncpg connection to the database, with our own knowledge of addresses, TLS and passwords."""

_CHUNK_ROWS: Final = 2000
"""Rows decoded at a time; between them others have their turn."""


async def load(connection: Any, *, epoch: int = 1, declarations: Declarations | None = None) -> Catalog | None:
    """Return the catalog of the database that the asyncpg *connection* is in; ``None`` if its identity cannot be told.

    Raises what asyncpg raises. Cancelling leaves the connection in a state to be closed.
    """
    rows: dict[str, list[tuple[Any, ...]]] = {}
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute("set local search_path = ''")
        identity = await _identity(connection)
        if identity is None:
            return None
        fingerprint = await connection.fetchval(queries.FINGERPRINT)
        for name, sql in queries.QUERIES.items():
            if name == "memberships" and identity.version >= 160000:
                sql = queries.MEMBERSHIPS_16
            rows[name] = await _fetch(connection, sql)
    return await asyncio.to_thread(
        build, rows, identity, epoch=epoch, fingerprint=fingerprint, declarations=declarations
    )


async def fingerprint(connection: Any) -> str:
    """Return a text that changes whenever anything changes that the catalog says, or privileges, or our sight (§7.3)."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return str(await connection.fetchval(queries.FINGERPRINT))


async def _identity(connection: Any) -> Identity | None:
    database, version, in_recovery = await connection.fetchrow(queries.IDENTITY)
    try:
        async with connection.transaction():  # a savepoint: a provider may have closed these functions
            control = await connection.fetchrow(queries.CONTROL)
    except asyncpg.InsufficientPrivilegeError:
        return None
    return Identity(int(control[0]), control[1], database, version, in_recovery)


async def _fetch(connection: Any, sql: str) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    cursor = await connection.cursor(sql)
    while chunk := await cursor.fetch(_CHUNK_ROWS):
        found += [tuple(row) for row in chunk]
        await asyncio.sleep(0)
    return found
