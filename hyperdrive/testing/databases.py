"""Databases for tests on a server that many tests share."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from hyperdrive.testing.wire import connect

_made: dict[tuple[str, str], str] = {}


def with_database(url: str, database: str) -> str:
    """*url* with another database name."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


async def database_of(url: str, name: str) -> str:
    """Make the database *name* on the server of *url*, once per process and empty; return its URL."""
    if (url, name) not in _made:
        async with await connect(url) as conn:
            for sql in (f"drop database if exists {name} with (force)", f"create database {name}"):
                replies = await conn.query(sql)
                assert not replies.errors, replies
        _made[url, name] = with_database(url, name)
    return _made[url, name]


async def run_sql(url: str, sql: str) -> None:
    """Run *sql* on a connection of its own; any error fails the test."""
    async with await connect(url) as conn:
        replies = await conn.query(sql)
        assert not replies.errors, replies
