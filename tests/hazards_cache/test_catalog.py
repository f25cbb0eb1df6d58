"""The catalog is read whole, and its fingerprint changes whenever anything changes that a verdict or a privilege depends on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from hyperdrive.clock import ManualClock, SystemClock
from hyperdrive.net.connect import Address
from hyperdrive.net.contexts import SslMode, TlsPolicy
from hyperdrive.pgwire.passwords import OriginCredentials
from hyperdrive.proxy.catalog import CatalogWatch, Connect, connector, fingerprint, load
from hyperdrive.proxy.connect import Origin
from hyperdrive.sql.catalog import Catalog
from hyperdrive.testing.databases import database_of
from hyperdrive.testing.postgres import SUPERUSER, SUPERUSER_PASSWORD, Postgres
from hyperdrive.testing.relay import Relay

PREPARE = """
drop schema if exists public cascade; create schema public; drop role if exists fp_role; drop role if exists fp_member;
create table a (id int primary key, v text); create table b (id int references a); create view w as select * from a;
create table part (x int) partition by list (x); create table part_1 (x int);
create function f(int) returns int language sql immutable as 'select 1'; create type mood as enum ('a');
create role fp_role; create role fp_member; create domain dom as int; create materialized view mv as select 1 as x;
"""

CHANGES = [
    "create table c (a int)", "alter table a add column n int", "alter table b rename to b2; alter table b2 rename to b", "drop view w", "create or replace view w as select id, v from a where id > 0",
    "create or replace function f(int) returns int language sql volatile as 'select 1'", "alter function f(int) security definer", "alter type mood add value 'b'",
    "alter table a enable row level security", "create policy p on a using (true)", "grant select on a to fp_role", "grant select (id) on a to fp_role",
    "grant usage on schema public to fp_role", "revoke execute on function f(int) from public", "grant fp_role to fp_member", "alter role fp_role superuser",
    "alter role fp_role bypassrls", "alter role fp_role set search_path = x", "create role fp_new", "alter table part attach partition part_1 for values in (1)",
    "create trigger t before update on a for each row execute function suppress_redundant_updates_trigger()", "create rule r as on insert to a do also nothing",
    "alter domain dom add check (value > 0)", "alter table a alter column v set default 'x'", "create schema s", "refresh materialized view mv",
    "create operator === (leftarg = int, rightarg = int, function = int4eq)", "create cast (mood as int) with inout", "alter table b drop constraint b_id_fkey",
    "create publication pub for table a", "vacuum full a", "alter table b set unlogged",
    "create text search configuration conf (copy = simple)", "alter text search configuration conf alter mapping for asciiword with english_stem",
    "create default conversion conv for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8",
    "create operator family fam using btree; alter operator family fam using btree add operator 1 < (int, int), function 1 (int, int) btint4cmp(int, int)", "create collation coll (locale = 'C')", "select pg_reload_conf()",
]  # fmt: skip
NO_CHANGES = [
    "insert into a values (1, 'x')", "update a set v = 'y'", "delete from a", "analyze a", "vacuum a", "create temp table tt (a int)", "create index on a (v)", "select 1",
    "create temp view tv as select 1",
]  # fmt: skip


@pytest.fixture
async def connection(postgres: Postgres) -> AsyncIterator[Any]:
    url = await database_of(postgres.url, "fingerprints")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("set client_min_messages = error")
        await connection.execute(PREPARE)
        yield connection
        await connection.execute(
            "reset role; drop role if exists fp_new; drop publication if exists pub; drop schema if exists s"
        )
        await connection.execute("drop owned by fp_role, fp_member; drop role fp_role; drop role fp_member")
    finally:
        await connection.close()


async def test_every_change_shows_in_the_fingerprint(connection: Any) -> None:
    before = await fingerprint(connection)
    for sql in CHANGES:
        await connection.execute(sql)
        if "reload" in sql:
            await asyncio.sleep(0.3)  # the postmaster tells its children; there is nothing to wait for
            await connection.fetchval("select 1")
        after = await fingerprint(connection)
        assert before != after, sql
        before = after


async def test_data_statistics_and_temporary_objects_do_not(connection: Any) -> None:
    before = await fingerprint(connection)
    for sql in NO_CHANGES:
        await connection.execute(sql)
        assert before == await fingerprint(connection), sql


def address_of(postgres: Postgres) -> Origin:
    return Origin((Address(postgres.host, postgres.port),), TlsPolicy(SslMode.PREFER))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def watching(
    connect: Connect, clock: Any = None, **options: Any
) -> AsyncIterator[tuple[CatalogWatch, list[Catalog | None]]]:
    seen: list[Catalog | None] = []
    watch = CatalogWatch(connect, seen.append, clock or SystemClock(), **options)
    watch.start("test")
    try:
        yield watch, seen
    finally:
        await watch.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_watch_reads_polls_and_notices(postgres: Postgres) -> None:
    url = await database_of(postgres.url, "watched")
    connect = connector(
        address_of(postgres), OriginCredentials(SUPERUSER.encode(), SUPERUSER_PASSWORD.encode()), "watched"
    )
    async with connected(url) as other, watching(connect, poll_seconds=0.05) as (watch, seen):
        await other.execute("drop table if exists noticed, told")
        await until(lambda: watch.catalog)
        first = watch.catalog
        assert first is not None
        assert postgres.major == first.identity.version // 10000
        await until(lambda: watch.metrics.polls > 2)
        assert ([first], 1) == (seen, watch.metrics.loads)  # nothing had changed
        await other.execute("create table noticed (a int)")
        await until(lambda: watch.catalog not in (None, first))
        second = watch.catalog
        assert second is not None
        assert second.relation(("public", "noticed"), ()) is not None
        assert [first, None, second] == seen
        assert first.epoch < second.epoch

        # What was committed through us does not wait for the poll.
        await other.execute("create table told (a int)")
        watch.end_epoch()
        assert watch.catalog is None
        await until(lambda: watch.catalog)
        assert watch.catalog is not None
        assert watch.catalog.relation(("public", "told"), ()) is not None


async def test_an_epoch_that_ends_while_the_catalog_is_read_voids_what_is_read(postgres: Postgres) -> None:
    """DDL through us may be committed behind the loader's snapshot."""
    url = await database_of(postgres.url, "watched")
    watch: CatalogWatch

    class Slow:
        def __init__(self, real: Any) -> None:
            self._real = real
            self.fetched = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        async def copy_from_query(self, sql: str, **options: Any) -> Any:
            found = await self._real.copy_from_query(sql, **options)
            self.fetched += 1
            if self.fetched == 1:
                watch.end_epoch()
            return found

    async def connect() -> Any:
        return Slow(await asyncpg.connect(url))

    async with watching(connect, poll_seconds=5.0) as (watch, seen):
        await until(lambda: watch.catalog)
        assert 2 == watch.metrics.loads
        assert watch.catalog is not None
        assert [watch.catalog] == seen
        assert watch.epoch == watch.catalog.epoch


async def test_a_lost_origin_makes_the_catalog_unknown_and_comes_back_unchanged(postgres: Postgres) -> None:
    url = await database_of(postgres.url, "watched")
    clock = ManualClock()
    is_down = False
    opened: list[Any] = []

    async def connect() -> Any:
        if is_down:
            raise OSError("nobody listens")
        opened.append(await asyncpg.connect(url))
        return opened[-1]

    async with watching(connect, clock, poll_seconds=0.05, lost_seconds=10.0) as (watch, seen):
        await until(lambda: watch.catalog)
        first = watch.catalog
        is_down = True
        opened[-1].terminate()
        await until(lambda: watch.metrics.failures > 1)
        assert watch.catalog is first  # not for long enough
        clock.advance(11.0)
        await until(lambda: watch.catalog is None)
        is_down = False
        await until(lambda: watch.catalog)
        assert [first, None, first] == seen
        assert 1 == watch.epoch


async def test_another_pace_takes_effect_at_once(postgres: Postgres) -> None:
    """RELOAD with another ``catalog_poll``: what was changed past us is not left unseen for the rest of the old interval."""
    url = await database_of(postgres.url, "watched")

    async def connect() -> Any:
        return await asyncpg.connect(url)

    async with watching(connect, poll_seconds=3600.0) as (watch, _):
        await until(lambda: watch.catalog)
        assert 0 == watch.metrics.polls
        watch.change(poll_seconds=0.02, lost_seconds=None)
        await until(lambda: watch.metrics.polls > 2)
        watch.change(poll_seconds=3600.0, lost_seconds=None)
        await until(lambda: watch.metrics.polls > 3)
        polls = watch.metrics.polls
        watch.change(poll_seconds=3600.0, lost_seconds=None)
        await asyncio.sleep(0.1)
        assert polls == watch.metrics.polls


async def test_what_cannot_be_understood_is_unknown_and_tried_again(postgres: Postgres) -> None:
    """The watch outlives whatever it meets: a catalog that nobody polls would be believed for ever."""
    url = await database_of(postgres.url, "watched")
    broken = True

    class Odd:
        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        async def copy_from_query(self, sql: str, **options: Any) -> Any:
            if broken:
                raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a name in another encoding")
            return await self._real.copy_from_query(sql, **options)

    async def connect() -> Any:
        return Odd(await asyncpg.connect(url))

    async with watching(connect, poll_seconds=0.05) as (watch, seen):
        await until(lambda: watch.metrics.failures > 1)
        assert (None, []) == (watch.catalog, seen)
        broken = False
        await until(lambda: watch.catalog)
        broken = True
        await until(lambda: watch.catalog is None)


async def test_loading_takes_three_round_trips_and_a_poll_one(postgres: Postgres) -> None:
    """Login excluded: an origin far away is known soon after the first connection."""
    await database_of(postgres.url, "watched")
    async with Relay((postgres.host, postgres.port), delay_seconds=0.005) as relay:
        origin = Origin((Address(relay.host, relay.port),), TlsPolicy(SslMode.DISABLE))
        credentials = OriginCredentials(SUPERUSER.encode(), SUPERUSER_PASSWORD.encode())
        connection = await connector(origin, credentials, "watched")()
        try:
            relay.reset_counters()
            catalog = await load(connection)
            assert (True, 3) == (catalog is not None, relay.round_trips)
            relay.reset_counters()
            await fingerprint(connection)
            assert 1 == relay.round_trips
        finally:
            await connection.close()


async def test_names_of_any_kind_come_as_they_are(postgres: Postgres) -> None:
    """They travel as JSON in the text format of COPY, and each of the two escapes in its own way."""
    names = ["tab\tand\nline", "back\\slash \\n \\\\", 'quoted "name"', "ünïcode ☃", "\\.", "a,b]"]
    url = await database_of(postgres.url, "watched")
    async with connected(url) as connection:
        await connection.execute("drop schema if exists odd cascade; create schema odd")
        for name in names:
            quoted = name.replace('"', '""')
            await connection.execute(f'create table odd."{quoted}" ("{quoted}" int)')
        catalog = await load(connection)
        await connection.execute("drop schema odd cascade")
    assert catalog is not None
    for name in names:
        relation = catalog.relation(("odd", name), ())
        assert relation is not None, name
        assert [name] == list(catalog.columns[relation.oid]), name


async def test_what_may_not_be_known_is_unknown(postgres: Postgres) -> None:
    """A role that may not ask for the system identifier gets no catalog: nothing is cached (rule origin-unknown)."""
    url = await database_of(postgres.url, "watched")
    async with connected(url) as connection:
        await connection.execute("revoke execute on function pg_control_system() from public")
        try:
            await connection.execute("drop role if exists nobody_much; create role nobody_much; set role nobody_much")
            assert await load(connection) is None
        finally:
            await connection.execute(
                "reset role; grant execute on function pg_control_system() to public; drop role if exists nobody_much"
            )


async def test_an_ordinary_role_reads_the_catalog(postgres: Postgres) -> None:
    async with connected(postgres.app_url) as connection:
        catalog = await load(connection, epoch=7)
    assert catalog is not None
    assert 7 == catalog.epoch
    assert catalog.functions["now"][0].volatility == "s"
    assert catalog.roles["app"].is_superuser is False


async def test_a_driver_that_stumbles_over_a_lost_connection_is_no_fault_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """asyncpg says InternalClientError when the server goes in the middle of its answer: the catalog is read anew, without a traceback."""
    asked = 0

    async def connect() -> Any:
        nonlocal asked
        asked += 1
        raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")

    async with watching(connect) as (watch, _):
        await until(lambda: asked and watch.metrics.failures)
    assert ["WARNING"] == [record.levelname for record in caplog.records][:1]
