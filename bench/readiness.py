"""When the cache of a target is ready: it has to know the origin's catalogs first, which takes longer the farther away that is."""

from __future__ import annotations

import time

from bench.targets import Running

LIMIT_SECONDS = 20.0
_READ = "SELECT name, price FROM bench_items WHERE id = 7"


def await_hits(target: Running, limit_seconds: float = LIMIT_SECONDS) -> str | None:
    """Read until a read is a hit; after *limit_seconds* the reason why none was."""
    import psycopg

    deadline = time.monotonic() + limit_seconds
    said = "nothing was read"
    # Simple protocol, and a statement of psycopg's own is never prepared.
    with psycopg.connect(target.dsn, autocommit=True, prepare_threshold=None) as connection:
        while time.monotonic() < deadline:
            connection.execute(_READ).fetchone()
            row = connection.execute("SHOW hyperdrive.last_read").fetchone()
            said = str(row[0]) if row is not None else said
            if said.startswith("hit"):
                return None
            time.sleep(0.05)
    return said
