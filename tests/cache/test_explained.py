"""What ``hyperdrive explain`` calls cacheable is served, and nothing else is: each statement is judged, and then run twice through the proxy."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import pytest

from hyperdrive.cli.explain import decided
from hyperdrive.proxy.catalog import load
from hyperdrive.sql.catalog import Declarations
from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import bind, describe_portal, describe_statement, execute, parse, query, sync

OBJECTS = """
set client_min_messages = error;
create function plus(int, int) returns int language sql immutable as 'select $1 + $2';
create function plus(text, text) returns text language plpgsql immutable as 'begin return $1 || $2; end';
create function mixed(int) returns int language sql immutable as 'select $1';
create function mixed(text) returns text language sql volatile as 'select $1';
create function steady(int) returns bigint language sql stable as 'select count(*) from t where id > $1';
create function declared(int) returns bigint language sql stable as 'select count(*) from t where id > $1';
create function clocked() returns timestamptz language sql stable as 'select now()';
create function writes() returns int language plpgsql as 'begin insert into other values (9, ''nine''); return 1; end';
create function definer(int) returns int language sql immutable security definer as 'select $1';
create function optional(a int, b int default 2) returns int language sql immutable as 'select a + b';
create function several(int) returns setof int language sql immutable rows 3 as 'select generate_series(1, $1)';
create function pair(int) returns table (a int, b text) language plpgsql immutable as 'begin return query select $1, ''b''::text; end';
create function loud(t) returns text language sql immutable as 'select upper($1.v)';
create function quiet(t) returns text language sql volatile as 'select upper($1.v)';
create function keep(int, int) returns int language sql immutable as 'select greatest($1, $2)';
create aggregate most(int) (sfunc = keep, stype = int);
create function tally(int, int) returns int language sql volatile as 'select $1 + $2';
create aggregate told(int) (sfunc = tally, stype = int);
create operator === (leftarg = int, rightarg = int, function = int4eq);
create function near(int, int) returns boolean language sql immutable as 'select abs($1 - $2) < 2';
create operator ~~~ (leftarg = int, rightarg = int, function = near);
create function far(int, int) returns boolean language sql volatile as 'select abs($1 - $2) > 2';
create operator !~~ (leftarg = int, rightarg = int, function = far);
create domain positive as int check (value > 0);
create domain even as int check (near(value, value));
create type mood as enum ('sad', 'happy');
create type point2 as (x int, y int);
create table typed (id int primary key, m mood, p point2, d positive, e even, n numeric, j jsonb, a int[], day date, at timestamptz,
                    clock timetz, r int4range, g int generated always as (id * 2) stored);
insert into typed values (1, 'sad', '(1,2)', 3, 4, 1.50, '{"a": 1}', '{1,2}', '2020-01-01', '2020-01-01', '10:00+00', '[1,5)');
create view called as select id, plus(id, 1) as more from t;
create view unsteady as select id, now() as n from t;
create view layered as select * from called where more > 2;
create unlogged table light (id int);
create table secret (id int); alter table secret enable row level security;
create sequence numbers;
drop schema if exists apart cascade; create schema apart; create table apart.hidden (id int); create function apart.near(int) returns int language sql immutable as 'select $1';
"""

DECLARED = Declarations(functions={"public.declared": ("public.t",)})

STATEMENTS = """
select 1
select id, v from t order by id
select * from t where id = 2
table t
values (1, 'a'), (2, 'b')
select plus(1, 2)
select plus(id, 1) from t
select plus('a'::text, v) from t
select public.plus(id, id) from t where plus(id, 1) > 2
select mixed(1)
select mixed(id) from t
select steady(1)
select declared(1)
select declared(id), plus(id, 1) from t
select clocked()
select writes() where false
select definer(1)
select optional(1)
select optional(1, 3)
select optional(a => 1, b => 2)
select several(3)
select * from several(3)
select * from pair(1)
select t.id, s from t, lateral several(t.id) s
select (pair(id)).* from t
select t.loud from t
select (t).loud from t
select loud(t) from t
select t.quiet from t
select quiet(t) from t
select most(id) from t
select most(id) over (order by id) from t
select told(id) from t
select id from t where id === 1
select id from t where id ~~~ 1
select id from t where id operator(public.~~~) 1
select id from t where id !~~ 1
select 5::positive
select 4::even
select d from typed
select e from typed
select m from typed
select m from typed where m = 'sad'
select enum_range(null::mood)
select p from typed
select (p).x from typed
select row(1, 2)::point2
select n * 2 from typed
select j ->> 'a' from typed
select j -> 'a', jsonb_pretty(j) from typed
select a[1], array_length(a, 1) from typed
select unnest(a) from typed
select day from typed
select day + 1 from typed
select at at time zone 'UTC' from typed
select date_trunc('month', at) from typed
select to_char(at, 'YYYY') from typed
select clock from typed
select r @> 3 from typed
select g from typed
select lower(r), upper_inf(r) from typed
select * from called
select * from layered order by id
select * from unsteady
select more from called where id = 1
select * from shown
select * from counted
select * from parted
select * from parted_1
select * from light
select * from secret
select last_value from numbers
select nextval('numbers')
select currval('numbers') where false
select * from pg_class limit 1
select * from information_schema.tables limit 1
select apart.near(1)
select * from apart.hidden
select nowhere(1) where false
select now()
select current_date
select current_user
select 'now'::timestamptz
select 'today' as word
select v::date from t where false
select random()
select gen_random_uuid()
select pg_sleep(0)
select set_config('a.b', 'c', false)
select current_setting('timezone')
select pg_advisory_lock(1), pg_advisory_unlock(1)
select id from t for update
select * from (select * from t for share) s
with w as (select plus(id, 1) as p from t) select * from w
with w as (delete from other where false returning *) select * from w
with recursive r(n) as (select 1 union all select plus(n, 1) from r where n < 4) select * from r
select count(*), max(plus(id, 1)) from t group by plus(id, 0) order by 2
select id from t union select plus(id, 9) from t order by 1
select t.id from t join other on plus(t.id, 0) = other.id
select exists (select from t where near(id, 1))
select (select max(plus(id, 1)) from t)
select case when near(id, 1) then 'near' else 'far' end from t
select string_agg(v, ',' order by id) from t
select percentile_cont(0.5) within group (order by id) from t
select count(*) filter (where near(id, 2)) from t
select rank() over (partition by near(id, 1) order by id) from t
select * from generate_series(1, 3)
select * from json_to_recordset('[{"a": 1}]') as x(a int)
select array(select plus(id, 1) from t order by 1)
select * from t tablesample system (100)
select * from t tablesample system (100) repeatable (1)
select ctid from t
select tableoid from t
select id::text || v from t
select concat(id, v), format('%s', v) from t
select md5(v), length(v), v ~ '^v' from t
select to_json(t) from t
select row_to_json(t), json_agg(t) over () from t
select 'v1' collate "C" < v from t
select coalesce(nullif(v, 'v1'), 'none'), greatest(id, 2) from t
select id from t where v like 'v%' limit 2 offset 1
select distinct on (v) v, id from t order by v
select * from t where id in (1, 2, plus(1, 2))
select /* a comment */ plus(1, 2) -- and another
select plus(1, 2);
select 1; select plus(1, 2)
select into other2 from t where false
explain select 1
show timezone
""".strip().splitlines()


async def _judge(scene: CachedScene) -> Callable[[str], bool]:
    """What ``hyperdrive explain`` says, with the catalog of now."""
    connection = await asyncpg.connect(scene.origin_url)
    try:
        search_path, role = await connection.fetchrow("select current_setting('search_path'), current_user::text")
        catalog = await load(connection, declarations=DECLARED)
    finally:
        await connection.close()
    assert catalog is not None
    return lambda sql: decided(sql, catalog, search_path, role)[0].startswith(("cacheable", "answered from memory"))


def _simple(sql: str, name: str) -> bytes:
    return query(sql)


def _unnamed(sql: str, name: str) -> bytes:
    return parse(sql) + bind() + describe_portal() + execute() + sync()


def _prepared(sql: str, name: str) -> bytes:
    return bind(name) + execute() + sync()


@pytest.mark.parametrize("shape", [_simple, _unnamed, _prepared])
async def test_what_explain_calls_cacheable_is_served_the_second_time_and_nothing_else(
    scene: CachedScene, shape: Callable[[str, str], bytes]
) -> None:
    await scene.sql(OBJECTS)
    await scene.start(cache_functions="public.declared=public.t")
    is_cacheable = await _judge(scene)
    conn, direct = await scene.client(), await scene.direct()
    wrong = []
    for number, sql in enumerate(STATEMENTS):
        name, expected = f"s{number}", is_cacheable(sql)
        if shape is _prepared:
            for one in (conn, direct):
                await one.scope(parse(sql, name) + describe_statement(name) + sync())
        scene.reader(conn).last_kind = ""
        cold = await conn.scope(shape(sql, name))
        warm = await conn.scope(shape(sql, name))
        said = str((await conn.query("show hyperdrive.last_read")).rows[0][0])
        if said.startswith("hit") != expected:
            wrong.append((sql, expected, said))
        if expected:
            assert cold == warm == await direct.scope(shape(sql, name)), sql
    assert [] == wrong


LIARS = """
create function sets(int) returns int language plpgsql immutable as
    'begin perform set_config(''bytea_output'', ''escape'', false); return $1; end';
create function tells(int) returns int language plpgsql immutable as 'begin raise notice ''seen %%'', $1; return $1; end';
""".replace("%%", "%")


@pytest.mark.parametrize("shape", [_simple, _unnamed])
async def test_a_function_that_lies_is_believed_for_its_answer_and_not_for_what_it_does_to_a_session(
    scene: CachedScene, shape: Callable[[str, str], bytes]
) -> None:
    """Marked IMMUTABLE it changes settings all the same (xfunc-volatility): its answer is kept, and its server is reset before others."""
    await scene.sql(LIARS)
    await scene.start(servers=1)
    conn, other = await scene.client(), await scene.client()
    for expected in ("miss", "hit"):
        await conn.scope(shape("select sets(1)", ""))
        assert expected == scene.how(conn)
        for one in (other, conn):
            assert [("\\x01", expected)] == (await one.query(f"select decode('01', 'hex'), '{expected}'")).rows


WRITERS = """
create function inserts() returns int language plpgsql volatile as $$begin insert into other select max(id) + 1, 'more' from other; return 1; end$$;
create function by_itself() returns int language plpgsql immutable as $$begin insert into other values (99, 'more'); return 1; end$$;
create function by_text() returns int language plpgsql stable as $$begin execute 'insert into other values (99)'; return 1; end$$;
create function in_sql() returns int language sql immutable as $$insert into other values (99) returning 1$$;
create function immutable_writes() returns int language plpgsql immutable as $$begin perform inserts(); return 1; end$$;
create function stable_writes() returns int language plpgsql stable as $$begin perform inserts(); return 1; end$$;
create function definer_writes() returns int language plpgsql immutable security definer as $$begin perform inserts(); return 1; end$$;
create function default_writes(int default inserts()) returns int language sql immutable as 'select $1';
create function atomic_writes(int) returns int language sql immutable begin atomic select inserts() + $1; end;
create function two_write(int, int) returns int language plpgsql stable as $$begin perform inserts(); return 1; end$$;
create operator %%% (leftarg = int, rightarg = int, function = two_write);
create table into_here (a int);
"""
OTHER = "select count(*) from other"


@pytest.mark.parametrize(
    "sql",
    [
        "select inserts()",
        "select stable_writes()",
        "select definer_writes()",
        "select default_writes()",
        "select 1 %%% 2",
        "insert into into_here select stable_writes()",
        "insert into into_here select definer_writes()",
        "insert into into_here select default_writes()",
        "insert into into_here select atomic_writes(1)",
        "insert into into_here select 1 %%% 2",
        "delete from into_here where inserts() = 1",
    ],
)
async def test_a_mark_that_proves_nothing_makes_an_unknown_write(scene: CachedScene, sql: str) -> None:
    """What does not pass rule 14 may have written (caching rules §11): everything that was stored before is dropped."""
    await scene.sql(f"{WRITERS}; insert into into_here values (1)")
    reader, writer = await scene.client(), await scene.client()
    kind, _, before = await scene.ask_twice(reader, OTHER)
    assert "hit" == kind
    assert not (await writer.query(sql)).errors
    assert before.rows != (await reader.query(OTHER)).rows == [(await scene.ask(OTHER),)]


@pytest.mark.parametrize("shape", [_simple, _unnamed])
async def test_what_immutable_is_believed_for_ends_with_the_answers_age_and_with_the_setting(
    scene: CachedScene, shape: Callable[[str, str], bytes]
) -> None:
    """PostgreSQL refuses a write in a function that is not VOLATILE, unless it calls one that is (xfunc-volatility). Whoever marks such a
    one IMMUTABLE is believed: what it wrote is seen when an answer is too old, or at once where no mark is trusted."""
    await scene.sql(WRITERS)
    direct = await scene.direct()
    for refused in ("by_itself()", "by_text()", "in_sql()"):
        assert ["0A000"] == (await direct.query(f"select {refused}")).errors
    for trusted in (True, False):
        await scene.start(cache_trust_immutable=trusted, max_age=60.0, stale_while_revalidate=0.0)
        reader, writer = await scene.client(), await scene.client()
        assert "hit" == (await scene.ask_twice(reader, OTHER))[0]
        before = await scene.ask(OTHER)
        assert not (await writer.scope(shape("select immutable_writes()", ""))).errors
        after = await scene.ask(OTHER)
        assert before != after
        assert [(before if trusted else after,)] == (await reader.query(OTHER)).rows
        scene.clock.advance(61.0)
        assert [(after,)] == (await reader.query(OTHER)).rows


@pytest.mark.parametrize("shape", [_simple, _unnamed])
async def test_rule_21_a_notice_forbids_storing(scene: CachedScene, shape: Callable[[str, str], bytes]) -> None:
    """Whoever were served without it would have missed what the function says."""
    await scene.sql(LIARS)
    conn, direct = await scene.client(), await scene.direct()
    expected = await direct.scope(shape("select tells(id) from t where id = 1", ""))
    assert "N" in expected.letters
    for _ in range(3):
        assert expected == await conn.scope(shape("select tells(id) from t where id = 1", ""))
        assert "miss" == scene.how(conn)
    assert 3 == scene.cache.metrics.not_stored_reply


async def test_a_write_drops_what_a_declared_function_reads(scene: CachedScene) -> None:
    await scene.sql(OBJECTS)
    await scene.start(cache_functions="public.declared=public.t")
    conn, other = await scene.client(), await scene.client()
    sql = "select declared(0)"
    assert "hit" == (await scene.ask_twice(conn, sql))[0]
    await other.query("insert into t values (6, 'v6')")
    assert [("6",)] == (await conn.query(sql)).rows
    assert "hit" == (await scene.ask_twice(conn, sql))[0]
    await other.query("insert into other values (6, 'v6')")
    assert ("hit", [("6",)]) == ((await scene.ask_twice(conn, sql))[0], (await conn.query(sql)).rows)


async def test_a_function_that_is_made_anew_ends_what_was_kept_of_it(scene: CachedScene) -> None:
    await scene.sql(OBJECTS)
    conn, other = await scene.client(), await scene.client()
    assert "hit" == (await scene.ask_twice(conn, "select plus(1, 2)"))[0]
    await other.query("create or replace function plus(int, int) returns int language sql immutable as 'select 7'")
    assert [("7",)] == (await conn.query("select plus(1, 2)")).rows
    await other.query("create function plus(bigint, int) returns int language sql volatile as 'select 8'")
    await scene.settle(conn)
    assert "function" == (await scene.ask_twice(conn, "select plus(1, 2)"))[0]


async def test_reads_with_functions_of_ones_own_are_served_in_read_only_transactions(scene: CachedScene) -> None:
    await scene.sql(OBJECTS)
    conn = await scene.client()
    first = await conn.query("select plus(id, 1) from t")
    for expected in ("hit", "hit"):
        await conn.query("begin read only")
        assert first.rows == (await conn.query("select plus(id, 1) from t")).rows
        assert expected == scene.how(conn)
        assert "T" == (await conn.query("select plus(id, 1) from t")).statuses
        await conn.query("rollback")
