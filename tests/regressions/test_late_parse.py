"""What E-6 and E-2 build on, asked of real servers: a Parse with the types that Describe told, and what BEGIN and savepoints refuse."""

from __future__ import annotations

import pytest

from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.frontend import describe_statement, parse, query, sync
from hyperdrive.testing.wire import connect

SETUP = """
set client_min_messages = error;
drop schema if exists late cascade; create schema late; set search_path = late;
create type mood as enum ('sad', 'ok'); create domain posint as int check (value > 0); create domain word as varchar(10);
create type pair as (a int, b text);
create table t (i int, b bigint, n numeric(10, 2), v varchar(20), c char(3), x text, m mood, ms mood[], p posint, w word,
    ps posint[], r pair, d date, ts timestamptz, iv interval, j jsonb, u uuid, bs bytea, ir int4range, a int[], nm name, o oid);
"""

TEXTS = [
    "select * from t where i = $1",
    "select * from t where b = $1 and n > $2",
    "select v from t where v = $1 or c = $2 or x like $3",
    "select * from t where m = $1",
    "select * from t where m = any($1)",
    "select * from t where ms @> $1",
    "select * from t where p = $1 and w = $2",
    "insert into t (i, b, n, v, c, x, m, ms) values ($1, $2, $3, $4, $5, $6, $7, $8) returning *",
    "insert into t (p, w, ps, r, d, ts, iv, j, u, bs, ir, a, nm, o) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    "update t set p = $1, m = $2 where i in ($3, $4) returning p, m",
    "update t set n = n + $1, ts = ts + $2",
    "select $1",
    "select $1, $2::int, $3 || 'x'",
    "select $1::int is null, coalesce($2, 'x'), coalesce($3, 1), nullif($4, i) from t",
    "select array_append(a, $1), array_append($2, 3), array[$3, $4], $5 = any(a) from t",
    "select unnest($1::mood[]), unnest($2::int[])",
    "select case when $1 then $2 else 'x' end",
    "select i + $1, $2 + i, i * $3, -i * $4, ts - $5 from t",
    "select greatest($1, 2.5), least($2, i) from t",
    "select to_char(ts, $1), date_trunc($2, ts), extract(epoch from ts - $3) from t",
    "select j -> $1, j ->> $2, j #> $3, j @> $4, jsonb_build_object($5::text, $6::text) from t",
    "select row($1::int, 2), ($2)::pair, r = $3 from t",
    "select generate_series($1, 10), generate_series(1, $2)",
    "select * from t order by i limit $1 offset $2",
    "select * from (values ($1, 'a'), (2, $2)) v (k, w) where k = $3",
    'select x collate "C" < $1, overlay(x placing $2 from $3) from t',
    "select string_agg(x, $1), sum(i) filter (where i > $2), percentile_cont($3) within group (order by i) from t",
    "select ir && $1, $2 <@ ir, bs || $3, u = $4 from t",
    "select i from t where (i, x) = ($1, $2) and i between $3 and $4",
    "with q as (insert into t (i) values ($1) returning i) select i + $2 from q",
    "merge into t using (values ($1::int)) s (k) on t.i = s.k when matched then update set x = $2",
    "select format($1, variadic $2::text[]), concat_ws($3, x, $4::mood) from t",
    "select $1::regclass, nm = $2, o = $3 from t",
]


@pytest.mark.parametrize("server", ["pg16", "pg18"])
async def test_a_parse_with_the_types_that_were_told_is_the_same_statement(
    server: str, request: pytest.FixtureRequest
) -> None:
    url = await database_of(request.getfixturevalue(server).url, "late_parse")
    await run_sql(url, SETUP)
    async with await connect(url) as conn:
        await conn.query("set search_path = late")
        for sql in TEXTS:
            first = await conn.scope(parse(sql, "s") + describe_statement("s") + sync())
            assert not first.errors, (sql, first.errors, first)
            told = {m.kind: m.body for m in first if m.kind in "tTn"}
            types = told["t"]
            oids = [int.from_bytes(types[at : at + 4], "big") for at in range(2, len(types), 4)]
            again = await conn.scope(parse(sql, "s2", oids) + describe_statement("s2") + sync())
            assert not again.errors, (sql, oids, again.errors)
            assert told == {m.kind: m.body for m in again if m.kind in "tTn"}, sql
            await conn.query("deallocate all")


@pytest.mark.parametrize("server", ["pg16", "pg18"])
@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("read only", None),
        ("read write", "25001"),
        ("deferrable", "25001"),
        ("not deferrable", "25001"),
        ("isolation level serializable", "25001"),
    ],
)
async def test_what_set_transaction_may_say_inside_a_savepoint(
    server: str, mode: str, code: str | None, request: pytest.FixtureRequest
) -> None:
    async with await connect(request.getfixturevalue(server).url) as conn:
        await conn.query("begin read only")
        await conn.query("savepoint a")
        replies = await conn.scope(query(f"set transaction {mode}"))
        assert ([code] if code else []) == replies.errors


@pytest.mark.parametrize("server", ["pg16", "pg18"])
async def test_read_only_set_inside_a_savepoint_ends_with_its_release(
    server: str, request: pytest.FixtureRequest
) -> None:
    async with await connect(request.getfixturevalue(server).url) as conn:
        for sql in ("begin", "savepoint a", "set transaction read only", "release a"):
            assert not (await conn.query(sql)).errors
        assert await conn.value("show transaction_read_only") == "off"
