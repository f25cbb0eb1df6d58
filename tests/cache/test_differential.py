"""Random sessions, direct and through the cache, cold and warm: the same bytes (caching-rules §15.4).

Two databases with the same content; whatever is sent to one is sent to the other. What may differ is masked: object identifiers that a
database gave itself, source positions of errors.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.frontend import bind, describe_portal, execute, parse, query, sync
from hyperdrive.testing.transcript import Message, Replies
from hyperdrive.testing.wire import WireConnection, connect

TABLES = """
set client_min_messages = error; drop schema if exists public, one, two cascade; create schema public; create schema one;
grant usage on schema public, one to public;
create table t (id int primary key, v text, at timestamptz, n numeric, f float8, b bytea, d date, i interval, j jsonb);
insert into t select g, 'v' || g, '2020-01-01 00:00+00'::timestamptz + g * interval '1 day 1 hour', g / 3.0, sqrt(g), decode('41' || lpad(g::text, 2, '0'), 'hex'),
 date '2021-03-04' + g, g * interval '1 mon 2 days 03:04:05', jsonb_build_object('g', g) from generate_series(1, 6) g;
create table one.t (id int primary key, v text); insert into one.t values (1, 'in one');
create table u (id int primary key, t_id int references t on delete cascade, w text); insert into u select g, g, 'w' || g from generate_series(1, 6) g;
create view vt as select id, v, at from t where id > 2;
create function plus(int) returns int language sql immutable as 'select $1 + 1';
grant select on all tables in schema public to public; grant select on one.t to public; grant insert, update, delete on t, u to public;
"""
ROLES = "do $$begin create role diff_reader; exception when duplicate_object then null; end$$"

READS = [
    "select id, v from t order by id",
    "select * from t where id = 2",
    "select at, d, i from t order by id",
    "select f, n, b from t order by id",
    "select j, to_jsonb(t) from t where id = 3",
    "select json_agg(x order by x.id) from (select id, at from t) x",
    "select to_char(at, 'TMDay DD TMMonth'), date_trunc('month', at) from t order by id",
    "select count(*), sum(n), string_agg(v, ',' order by id) from t",
    "select * from vt order by id",
    "select t.v, u.w from t join u on u.t_id = t.id order by 1, 2",
    "select plus(id) from t order by 1",
    "select format('%s %L %I', v, v, v) from t order by id",
    "select '2020-06-01 12:00'::timestamptz, date '2020-06-01', interval '1 day'",
    "select v from t where id = any('{1,2}') order by 1",
    "select coalesce((select v from t where id = 99), 'none')",
    "select now() is not null, current_user, current_schemas(false)",
    "select nextval is null from (select null::int as nextval) s",
    "select 1 / (id - 3) from t order by id",
    "select relname from pg_class where relname = 't'",
    "select v from t order by id limit 2 offset 1",
    "select distinct v from t where v like 'v%' order by 1",
    "with x as (select id from t) select count(*) from x",
    "values (1, 'a'), (2, null)",
    "select '[1,5)'::int4range, array[1, null, 3], row(1, 'a')",
]
PARAMETERS: list[tuple[str, Callable[[random.Random], list[str | None]]]] = [
    ("select id, v from t where id = $1", lambda draw: [str(draw.randrange(1, 8))]),
    ("select at from t where id = $1 and v <> $2", lambda draw: [str(draw.randrange(1, 8)), draw.choice(["x", None])]),
    ("select $1::timestamptz", lambda draw: [draw.choice(["2020-06-01 12:00", "epoch", None])]),
    ("select count(*) from u where t_id = $1", lambda draw: [str(draw.randrange(1, 8))]),
]
EVERY_READ = {*READS, *(sql for sql, _ in PARAMETERS)}
WRITES = [
    "update t set v = v || '+' where id = {n}",
    "delete from t where id = {n}",
    "insert into t (id, v) values ({n}, 'again') on conflict (id) do update set v = excluded.v",
    "update u set w = 'x{n}' where id = {n}",
    "insert into one.t values ({n} + 10, 'more') on conflict do nothing",
    "with gone as (delete from u where id = {n} returning id) select count(*) from gone",
    "do $$begin update t set n = {n} where id = {n}; end$$",
]
SETTINGS = [
    "set timezone = 'Asia/Tokyo'",
    "set timezone = 'America/New_York'",
    "set datestyle = 'German'",
    "set datestyle = 'SQL, DMY'",
    "set intervalstyle = 'iso_8601'",
    "set bytea_output = 'escape'",
    "set extra_float_digits = 0",
    "set search_path = one, public",
    "set search_path = public",
    "set lc_numeric = 'C'",
    "set client_encoding = 'LATIN1'",
    "set role diff_reader",
    "reset role",
    "reset all",
    "discard all",
    "set statement_timeout = '1min'",
    "select set_config('timezone', 'Europe/Berlin', false)",
    "set app.tenant = '{n}'",
    "set quote_all_identifiers = on",
]
SCHEMA = [
    "create temp table t (id int, v text)",
    "drop table if exists pg_temp.t",
    "alter table t add column if not exists extra int default {n}",
    "alter table t drop column if exists extra",
    "create or replace view vt as select id, v, at from t where id > {n}",
    "create or replace function plus(int) returns int language sql immutable as 'select $1 + {n}'",
    "revoke select on u from public",
    "grant select on u to public",
    "comment on table t is '{n}'",
    "create index if not exists by_v on t (v)",
]
FRAMES = [
    "begin",
    "begin read only",
    "begin isolation level repeatable read",
    "commit",
    "rollback",
    "savepoint a",
    "rollback to a",
]


def masked(message: Message) -> Message:
    """Without what each database gives itself."""
    if message.kind == "E":
        fields = message.error
        return Message("E", f"{fields['C']} {fields['M']}".encode())
    if message.kind == "N":
        return Message("N", message.error["C"].encode())
    if message.kind != "T":
        return message
    body, at = bytearray(message.body), 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(b"\0", at)
        if int.from_bytes(body[end + 1 : end + 5], "big") >= 16384:
            body[end + 1 : end + 5] = bytes(4)
        if int.from_bytes(body[end + 7 : end + 11], "big") >= 16384:
            body[end + 7 : end + 11] = bytes(4)
        at = end + 19
    return Message("T", bytes(body))


def comparable(replies: Replies) -> list[Message]:
    """Values of settings that come unasked are compared where they are asked for."""
    return [masked(message) for message in replies if message.kind != "S"]


def extended(draw: random.Random, sql: str, values: list[str | None]) -> bytes:
    described = describe_portal() if draw.random() < 0.6 else b""
    formats = draw.choice([[], [1]])
    limit = draw.choice([0, 0, 0, 1, 2])
    return parse(sql) + bind("", values, result_formats=formats) + described + execute("", limit) + sync()


def phrase(draw: random.Random) -> tuple[str, bytes]:
    """One thing that a session says, with a name for it."""
    n = draw.randrange(1, 7)
    what = draw.random()
    if what < 0.45:
        sql = draw.choice(READS)
        return sql, query(sql) if draw.random() < 0.5 else extended(draw, sql, [])
    if what < 0.65:
        sql, make = draw.choice(PARAMETERS)
        values = make(draw)
        return f"{sql} {values}", extended(draw, sql, values)
    for limit, several in ((0.72, WRITES), (0.89, SETTINGS), (0.92, SCHEMA), (1.0, FRAMES)):
        if what < limit:
            sql = draw.choice(several).format(n=n)
            return sql, query(sql)
    raise AssertionError


@pytest.fixture
async def twins(request: pytest.FixtureRequest, pg18: object) -> AsyncIterator[tuple[CachedScene, str]]:
    """A stage on one database, and the URL of its twin."""
    url = await database_of(pg18.url, "diff_one")  # type: ignore[attr-defined]
    twin = await database_of(pg18.url, "diff_two")  # type: ignore[attr-defined]
    for one in (url, twin):
        await run_sql(one, ROLES)
        await run_sql(one, TABLES)
    async with AsyncExitStack() as stack:
        yield CachedScene(url, stack, 18), twin


@pytest.mark.parametrize("mode", ["auto", "always"])
@pytest.mark.parametrize("seed", range(6))
async def test_random_sessions_get_the_origins_bytes(twins: tuple[CachedScene, str], seed: int, mode: str) -> None:
    """Three sessions take turns; what one has asked the others ask, too, each in its own settings, so that a key that lacks one of
    them is found out; and each asks again, so that the second is warm."""
    scene, twin = twins
    draw = random.Random(f"{seed} {mode}")
    await scene.start(servers=6, cache_in_transactions=mode)
    async with AsyncExitStack() as stack:
        pairs: list[tuple[WireConnection, WireConnection]] = []
        for _ in range(3):
            pairs.append((await scene.client(), await stack.enter_async_context(await connect(twin))))
        said: list[str] = []
        busy: int | None = None
        asked = hits = 0
        for _ in range(150):
            # A session in a transaction may hold locks that others would wait for, so it is the one that goes on.
            number = busy if busy is not None else draw.randrange(3)
            name, data = phrase(draw) if busy is None or draw.random() < 0.8 else ("commit", query("commit"))
            is_read = name.split(" ['")[0].split(" [None")[0] in EVERY_READ
            order = [number, *((number + 1) % 3, (number + 2) % 3)] if is_read and busy is None else [number]
            for one in order:
                ours, theirs = pairs[one]
                if is_read and busy is None:
                    await scene.settle(ours)
                for _ in range(draw.choice([1, 2])):
                    said.append(f"{one}: {name}")
                    expected, found = await theirs.scope(data), await ours.scope(data)
                    assert comparable(expected) == comparable(found), "\n".join(said[-40:])
                    asked += is_read
                    hits += scene.how(ours) in ("hit", "stale")
                busy = one if found.statuses[-1] != "I" else None
            if draw.random() < 0.02:
                scene.clock.advance(61)
        assert hits > asked / 8, f"{hits} hits of {asked} reads: nothing is proven"
        assert 0 == scene.proxy.metrics.ledger_mismatches
