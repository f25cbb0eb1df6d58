"""W-55 on a real standby: recovery takes rows away that a client still sees, and ends its statement or its session.

A statement is cancelled with 40001; a session that is idle in a transaction, or whose database goes, is terminated
(hot-standby#HOT-STANDBY-CONFLICT).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hyperdrive.localserver import LocalServer
from hyperdrive.testing.databases import run_sql
from hyperdrive.testing.frontend import query
from hyperdrive.testing.postgres import SETTINGS, SUPERUSER, SUPERUSER_PASSWORD, Postgres, PostgresFarm
from hyperdrive.testing.proxy import running_proxy
from hyperdrive.testing.scene import eventually
from hyperdrive.testing.wire import connect

SNAPSHOT = "begin isolation level repeatable read"
COUNT = "select count(*) from much"
GONE = (["3D000"], ["55000"])
"""The standby says for a moment that the database is invalid, before it says that there is none; a refusal is repeated for a while."""


class Pair:
    """A primary, and a standby that waits for no reader."""

    def __init__(self, primary: Postgres, standby: Postgres) -> None:
        self.primary, self.standby = primary, standby

    async def fill(self) -> None:
        """The standby has the table, too."""
        await run_sql(self.primary.url, "drop table if exists much")
        await run_sql(self.primary.url, "create table much as select n from generate_series(1, 1000) n")
        await eventually(self.is_even, "the standby has it")

    async def take_away(self) -> None:
        """What readers of the standby may still see is removed there."""
        await run_sql(self.primary.url, "delete from much")
        await run_sql(self.primary.url, "vacuum much")
        await eventually(self.is_even, "the standby has replayed it")

    async def is_even(self) -> bool:
        async with await connect(self.primary.url) as conn:
            end = await conn.value("select pg_current_wal_flush_lsn()")
        async with await connect(self.standby.url) as conn:
            return await conn.value(f"select pg_last_wal_replay_lsn() >= '{end}'") == "t"


@pytest.fixture
def pair(farm: PostgresFarm) -> Iterator[Pair]:
    one = farm.make(18)
    primary = farm.prepare(one)
    one.stop_sync()
    # A copy of a server that was shut down, with the same identity, goes on where that goes on.
    (one.data_dir.resolve() / "standby.signal").touch()
    other = LocalServer(
        farm.directory / f"{one.data_dir.name}-standby",
        major=18,
        user=SUPERUSER,
        password=SUPERUSER_PASSWORD,
        template=one.data_dir,
        settings={
            **SETTINGS,
            "primary_conninfo": f"host=127.0.0.1 port={one.port} user={SUPERUSER} password={SUPERUSER_PASSWORD}",
            "max_standby_streaming_delay": "0",
            "wal_retrieve_retry_interval": "100ms",
        },
    )
    try:
        other.start_sync()
        (one.data_dir.resolve() / "standby.signal").unlink()
        one.start_sync()
        yield Pair(primary, Postgres(other))
    finally:
        farm.discard(other)
        farm.discard(one)


async def test_w55_conflicts_with_recovery_on_a_standby(pair: Pair) -> None:
    await pair.fill()
    async with (
        running_proxy(pair.standby.url, pool_size=2) as proxy,
        await connect(proxy.url) as reader,
        await connect(proxy.url) as other,
    ):
        # A statement that is running: cancelled, in the origin's words, and the session goes on.
        await reader.query(SNAPSHOT)
        reader.send(query(f"{COUNT}; select pg_sleep(20)"))
        await eventually(lambda: _sleeps(pair), "it sleeps")
        await pair.take_away()
        replies = await reader.read_until("Z")
        assert (replies.errors, replies.statuses) == (["40001"], "E")
        assert (await reader.query("rollback")).statuses == "I"
        assert await reader.value(COUNT) == "0"

        # Idle in a transaction: the session is terminated. The client's own lives on, and its transaction has failed.
        await pair.fill()
        await reader.query(SNAPSHOT)
        assert await reader.value(COUNT) == "1000"
        await pair.take_away()
        assert await other.value(COUNT) == "0"
        replies = await reader.query(COUNT)
        assert replies.statuses == "E"
        assert replies.errors in (["08006"], ["25P02"]), replies
        assert (await reader.query("commit")).tags == ["ROLLBACK"]
        assert await reader.value(COUNT) == "0"


async def _sleeps(pair: Pair) -> bool:
    async with await connect(pair.standby.url) as conn:
        return await conn.value("select count(*) from pg_stat_activity where wait_event = 'PgSleep'") == "1"


async def test_w55_a_database_goes_on_the_primary(pair: Pair) -> None:
    """Idle servers of it are terminated by recovery: nobody is lent one, and who comes next hears that it is gone."""
    await run_sql(pair.primary.url, "create database gone")
    await eventually(pair.is_even)
    url = pair.standby.server.url("gone")
    async with running_proxy(url, pool_size=2) as proxy, await connect(proxy.url) as conn:
        assert await conn.value("select 1") == "1"
        await run_sql(pair.primary.url, "drop database gone")
        await eventually(pair.is_even)
        replies = await conn.query("select 2")
        assert replies.errors in GONE, replies
        async with await connect(proxy.url) as late:  # greeted from memory (W-08)
            assert (await late.query("select 3")).errors in GONE
