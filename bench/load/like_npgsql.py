"""What Npgsql sends, from its documented and published behaviour, for machines without .NET: a replay and not the driver.

The first connection of a data source asks for the version and for all types in one Query of four statements; a transaction's BEGIN
travels in one write with its first command; a connection that comes from the driver's pool is reset in one write with its first
command. The texts are ours and ask for the same, in the same shape.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from bench.targets import Running
from hyperdrive.testing.frontend import extended, query, sync
from hyperdrive.testing.wire import WireConnection, open_wire

TYPES: Final = """SELECT version();

SELECT n.nspname, t.oid, t.typname, t.kind, t.typnotnull, t.made_of
FROM (
    -- Each type with its kind, and the type that it is made of
    SELECT y.oid, y.typname, y.typnamespace, y.typnotnull, c.relkind,
           CASE WHEN p.proname = 'array_recv' THEN 'a' ELSE y.typtype END AS kind,
           CASE WHEN p.proname = 'array_recv' THEN y.typelem
                WHEN y.typtype = 'r' THEN r.rngsubtype
                WHEN y.typtype = 'm' THEN (SELECT rngtypid FROM pg_range WHERE rngmultitypid = y.oid)
                WHEN y.typtype = 'd' THEN y.typbasetype END AS made_of
    FROM pg_type AS y
    LEFT JOIN pg_class AS c ON c.oid = y.typrelid
    LEFT JOIN pg_proc AS p ON p.oid = y.typreceive
    LEFT JOIN pg_range AS r ON r.rngtypid = y.oid
) AS t
JOIN pg_namespace AS n ON n.oid = t.typnamespace
WHERE t.kind IN ('b', 'r', 'm', 'e', 'd', 'a') OR (t.kind = 'c' AND t.relkind = 'c')
   OR (t.kind = 'p' AND t.typname IN ('record', 'void'))
ORDER BY CASE t.kind WHEN 'r' THEN 1 WHEN 'm' THEN 2 WHEN 'c' THEN 3 WHEN 'd' THEN 4 WHEN 'a' THEN 5 ELSE 0 END;

-- The fields of composite types
SELECT y.oid, a.attname, a.atttypid
FROM pg_type AS y
JOIN pg_class AS c ON c.oid = y.typrelid
JOIN pg_attribute AS a ON a.attrelid = y.typrelid
WHERE y.typtype = 'c' AND c.relkind = 'c' AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY y.oid, a.attnum;

-- The labels of enums
SELECT y.oid, e.enumlabel FROM pg_enum AS e JOIN pg_type AS y ON y.oid = e.enumtypid ORDER BY y.oid, e.enumsortorder;
"""
BEGIN: Final = query("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED")


async def _answered(connection: WireConnection, data: bytes, scopes: int) -> None:
    """Send *data* and read the answers to its *scopes*, with less computing than a test's connection spends on each message."""
    connection.writer.write(data)
    came, at = b"", 0
    while scopes:
        more = await connection.reader.read(1 << 20)
        if not more:
            raise RuntimeError("the connection was closed")
        came, at = came[at:] + more, 0
        while at + 5 <= len(came) and (end := at + 1 + int.from_bytes(came[at + 1 : at + 5], "big")) <= len(came):
            if came[at : at + 1] == b"E":
                raise RuntimeError(repr(came[at:end]))
            scopes -= came[at : at + 1] == b"Z"
            at = end


class LikeNpgsql:
    """One connection, on a loop of its own."""

    def __init__(self, target: Running) -> None:
        self._target = target
        self.runner = asyncio.Runner()
        self.connection: WireConnection | None = None
        self.runner.get_loop()

    def _run(self, data: bytes, scopes: int = 1) -> None:
        assert self.connection is not None
        self.runner.run(_answered(self.connection, data, scopes))

    def connect(self) -> None:
        """Log in after a question for TLS, and ask for the types."""

        async def login() -> WireConnection:
            made = await open_wire(self._target.dsn)
            await made.start_tls(ssl._create_unverified_context())
            await made.login({"client_encoding": "UTF8"})
            return made

        self.connection = self.runner.run(login())
        self._run(query(TYPES))

    def read(self, sql: str) -> None:
        """A command outside of a transaction."""
        self._run(extended(sql) + sync())

    def connect_and_read(self, sql: str) -> None:
        self.connect()
        self.read(sql)

    def read_from_pool(self, sql: str) -> None:
        """The first command on a connection that comes from the driver's pool."""
        self._run(query("DISCARD ALL") + extended(sql) + sync(), 2)

    def transact(self, sql: str) -> None:
        """A transaction with one command."""
        self._run(BEGIN + extended(sql) + sync(), 2)
        self._run(query("COMMIT"))

    def close(self) -> None:
        if self.connection is not None:
            self.runner.run(self.connection.terminate())
        self.runner.close()
