"""What looks like the chatter of drivers and moves all the same: it is asked each time, whatever its form (E-8).

Each form is asked directly and through us. That the answers agree would prove little of a clock that moves at midnight, so it is counted
as well: each ask has to cross.
"""

from __future__ import annotations

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import bind, describe_portal, execute, parse, query, sync
from hyperdrive.testing.scene import eventually
from hyperdrive.testing.transcript import Replies
from hyperdrive.testing.wire import WireConnection

TEXT, DATE, TIMESTAMP, TIMESTAMPTZ, TIMETZ, UNKNOWN, INT4 = 25, 1082, 1114, 1184, 1266, 705, 23

CLOCKS = """
select 'now'::timestamptz
select 'n\\ow'::text::timestamptz
select e'n\\x6fw'::timestamptz
select U&'n\\006fw'::timestamptz
select ('no' || 'w')::timestamptz
select cast('tod' || 'ay' as date)
select ('yester' || 'day')::timestamp
select ('n' || 'ow')::time
select '10:00'::timetz
select ('no' || 'w')::text::pg_catalog.timestamptz
select date('tod' || 'ay')
select timestamptz('no' || 'w')
select pg_catalog.date('tod' || 'ay')
select _timestamptz('{no' || 'w}')
select ('no' || 'w').timestamptz
select (('{to' || 'day}')::text)._date
select ('tod' || 'ay'::text).mine
select mine('tod' || 'ay')
select ('tod' || 'ay')::mine
select ('{tod' || 'ay}')::date[]
select ('[tod' || 'ay,)')::daterange
select reverse('yad' || 'ot')::date
select max(x::date) from (values ('tod' || 'ay')) v(x)
select (select string_agg(c, '') from (values ('n'), ('ow')) v(c))::timestamptz
with w(a) as (select 'n' || 'ow') select a::timestamptz from w
select convert_from(decode('6e6f77', 'hex'), 'UTF8')::timestamptz
select chr(110) || chr(111) || chr(119) || '' = 'x', (chr(110) || 'ow')::timestamptz
select json_populate_record(null::moving, '{"a": "now"}')
select * from json_to_record('{"a": "to"}') as x(a date)
select relname, ('no' || 'w')::timestamptz from pg_class where relname = 't'
select current_timestamp
select current_time
select localtime
select localtimestamp(3)
select current_date
select now()
select clock_timestamp(), version()
select timeofday()
select age('2020-01-01'::timestamp)
select extract(epoch from now())
select now() as n union select null
select (select now())
select count(*) filter (where now() > '2020-01-01') from pg_class
values (now())
select typname from pg_type order by now() limit 1
select (clock_timestamp).x from (select 1 as clock_timestamp) q where false
""".strip().splitlines()

SESSIONS = """
select pg_backend_pid()
select version(), pg_backend_pid()
select current_setting('application_name')
select inet_client_port()
select inet_server_addr()
select txid_current()
select pg_current_xact_id()
select pg_current_snapshot()
select pg_sleep(0)
select random()
select gen_random_uuid()
select current_query()
select pg_conf_load_time()
select pg_postmaster_start_time()
select pg_my_temp_schema()
select current_schemas(true)
select pg_listening_channels()
select pg_current_wal_lsn()
select pg_trigger_depth()
select pg_table_size('t')
select pg_relation_filenode('t')
select pg_stat_get_live_tuples('t'::regclass)
select pg_stat_get_numscans(oid) from pg_class where relname = 't'
select age(relfrozenxid) from pg_class where relname = 't'
select pg_indexes_size(oid) from pg_class where relname = 't'
select pg_catalog.pg_total_relation_size(c.oid) from pg_class c where relname = 't'
select * from pg_stat_user_tables where relname = 't'
select * from pg_stats where tablename = 't'
select * from pg_settings where name = 'application_name'
select * from pg_sequences
select * from pg_locks
select * from pg_prepared_statements
select * from pg_timezone_names limit 1
select datname, datfrozenxid from pg_database where datname = current_database()
select xmin from pg_class where relname = 't'
select "ctid" from pg_class where relname = 't'
select relname from pg_class tablesample system (100)
select pg_column_size(c) from pg_class c where relname = 't'
select query_to_xml('select 1', true, true, '')
""".strip().splitlines()

# Text, OIDs as in Parse, values, and whether they are binary.
PARAMETERS = [
    ("select $1::text::timestamptz", (), ["now"], False),
    ("select $1::text::timestamptz", (), ["now"], True),
    ("select $1::timestamptz", (), [" NOW "], False),
    ("select $1::text::date", (TEXT,), ["yesterday"], False),
    ("select $1::date", (), ["tomorrow"], False),
    ("select $1", (DATE,), ["today"], False),
    ("select $1", (TIMESTAMPTZ,), ["now"], False),
    ("select $1", (TIMESTAMP,), ["now"], False),
    ("select $1", (TIMETZ,), ["10:00"], False),
    ("select $1, $2", (TEXT, DATE), ["x", "tomorrow"], False),
    ("select ($1::text || $2::text)::timestamptz", (), ["no", "w"], False),
    ("select ($1::text || $2::text)::timestamptz", (TEXT, TEXT), ["no", "w"], True),
    ("select ($1 || $2).timestamptz", (TEXT, TEXT), ["no", "w"], False),
    ("select cast(concat($1::text, $2::text) as date)", (), ["to", "day"], False),
    ("select date($1::text)", (), ["today"], False),
    ("select date(lower($1))", (), ["TOMOR" + "ROW"], False),
    ("select $1::text[]::date[]", (), ["{to\\day}"], False),
    ("select to_timestamp($1), now()", (), ["1"], False),
    ("select coalesce(created, $1) from information_schema.triggers", (), ["now"], False),
    ("select typname from pg_type where oid = $1 and now() > $2", (INT4, UNKNOWN), ["23", "today"], False),
]

STATISTICS = """
select reltuples from pg_class where relname = 't'
select c.reltuples as n from pg_class c where relname = 't'
select "reltuples" from pg_class where relname = 't'
select U&"rel\\0074uples" from pg_class where relname = 't'
select pg_class.reltuples from pg_catalog.pg_class where relname = 't'
select n from (select reltuples as n from pg_class where relname = 't') x
select * from pg_class where relname = 't'
select c.* from pg_class c where relname = 't'
select pg_catalog.pg_class.* from pg_catalog.pg_class where relname = 't'
select c from pg_class c where relname = 't'
select row_to_json(c) from pg_class c where relname = 't'
select to_json(c) ->> 'reltuples' from pg_class c where relname = 't'
select row_to_json(pg_class) from pg_class where relname = 't'
select c::text from pg_class c where relname = 't'
select (c).reltuples from pg_class c where relname = 't'
select (c).* from pg_class c where relname = 't'
select (row_to_json(x)) from (select * from pg_class where relname = 't') x
select array_agg(c) from pg_class c where relname = 't'
select row(c.*) from pg_class c where relname = 't'
select j from (select 1 as a) y, lateral (select * from pg_class where relname = 't') j
select (select c from pg_class c where relname = 't')
select exists (select 1 from pg_class where relname = 't' and reltuples > 100)
select count(*) from pg_class where relname = 't' having max(reltuples) > 100
select relname from pg_class where relname in ('t', 'other') order by reltuples < 100, relname
with w as (table pg_class) select * from w where relname = 't'
with w as (select * from pg_class) select count(*) from w where relname = 't' and reltuples > 100
with w(n) as (select reltuples from pg_class where relname = 't') select n from w
select a11 from pg_class as c(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11) where a2 = 't'
select j.* from (pg_class c join pg_namespace n on n.oid = c.relnamespace) as j where j.relname = 't'
select j from (pg_class c cross join (select 1) y) as j where j.relname = 't'
select count(*) from pg_class c natural join (select relname, reltuples from pg_class where reltuples > 100) y where relname = 't'
select count(*) from pg_class c join (select 105::float4 as reltuples) y using (reltuples) where relname = 't'
table pg_class
select relname, relpages + reltuples from pg_class where relname = 't' union all select null, 0
""".strip().splitlines()

MADE = """
create domain mine as date; create type moving as (a timestamptz);
create index other_v on other (v); create table heir () inherits (other); drop table heir;
analyze t; analyze other
"""


def trips(scene: CachedScene) -> int:
    return sum(stats.origin_round_trips for stats in scene.proxy.app.proxy.stats.values())


def extended(sql: str, oids: tuple[int, ...] = (), values: list[str] | None = None, is_binary: bool = False) -> bytes:
    formats = (1,) if is_binary else ()
    return parse(sql, oids=oids) + bind("", values or (), formats=formats) + describe_portal() + execute() + sync()


async def ready(scene: CachedScene, cache: str) -> WireConnection:
    """A client that is known to ask what is known of nobody."""
    await scene.sql(MADE)
    await scene.start(cache=cache)
    conn = await super(CachedScene, scene).client()

    async def knows() -> bool:
        before = trips(scene)
        await conn.query("select pg_catalog.version()")
        return before == trips(scene)

    await eventually(knows, "the catalog is loaded")
    return conn


async def _served(scene: CachedScene, conn: WireConnection, data: bytes) -> bool:
    """Whether one of three equal asks has not crossed."""
    before = trips(scene)
    for _ in range(3):
        await conn.scope(data)
    return trips(scene) - before < 3


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_clocks_and_sessions_are_asked_each_time(scene: CachedScene, cache: str) -> None:
    conn = await ready(scene, cache)
    forms = [form for sql in (*CLOCKS, *SESSIONS) for form in (query(sql), extended(sql))]
    assert [] == [form for form in forms if await _served(scene, conn, form)]


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_parameters_that_are_the_clock_are_asked_each_time(scene: CachedScene, cache: str) -> None:
    conn = await ready(scene, cache)
    found = []
    for form in PARAMETERS:
        sql, oids, values, is_binary = form
        if await _served(scene, conn, extended(sql, oids, values, is_binary)):
            found.append(form)
        named = parse(sql, "s", oids) + sync()
        again = bind("s", values, formats=(1,) if is_binary else ()) + execute() + sync()
        await conn.scope(named)
        if await _served(scene, conn, again):
            found.append(form)
        await conn.query("deallocate all")
    assert [] == found


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_what_analyze_counts_is_the_origins(scene: CachedScene, cache: str) -> None:
    conn = await ready(scene, cache)
    direct = await scene.direct()
    forms = [form for sql in STATISTICS for form in (query(sql), extended(sql))]
    before = [_told(await conn.scope(form)) for form in forms for _ in range(2)][::2]
    await scene.sql("insert into t select n, 'more' from generate_series(6, 105) n; analyze t")
    after = [_told(await conn.scope(form)) for form in forms]
    assert [_told(await direct.scope(form)) for form in forms] == after
    assert [] == [form for form, one, other in zip(forms, before, after, strict=True) if one == other]


def _told(replies: Replies) -> object:
    return replies.errors, replies.rows


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize(
    ("ddl", "sql"),
    [
        ("drop index other_v", "select relhasindex from pg_class where relname = 'plain'"),
        ("drop table plain_heir", "select relhassubclass from pg_class where relname = 'plain'"),
        ("drop index other_v", "select hasindexes from pg_tables where tablename = 'plain'"),
        ("drop index other_v", "select * from pg_tables where tablename = 'plain'"),
    ],
)
async def test_what_is_cleared_some_time_after_the_ddl(scene: CachedScene, cache: str, ddl: str, sql: str) -> None:
    """By VACUUM or ANALYZE, which are no DDL (catalog-pg-class)."""
    await scene.sql("create table plain (a int); create table plain_heir () inherits (plain)")
    conn = await ready(scene, cache)
    await scene.sql("drop index other_v; create index other_v on plain (a)")
    assert not (await conn.query(ddl)).errors
    await eventually(lambda: _is_asked(scene, conn), "known is known again")
    before = [(await conn.query(sql)).rows for _ in range(2)]
    direct = await scene.direct()
    for upkeep in ("vacuum plain", "analyze plain"):
        assert not (await direct.query(upkeep)).errors
    assert (await direct.query(sql)).rows == (await conn.query(sql)).rows
    assert (await conn.query(sql)).rows not in before


async def _is_asked(scene: CachedScene, conn: WireConnection) -> bool:
    before = trips(scene)
    await conn.query("select pg_catalog.version()")
    return before == trips(scene)


KEPT = [
    ("select pg_catalog.version()", (), []),
    ("select current_schema(), current_schemas(false), current_user, session_user", (), []),
    ("select $1::text", (), ["now" + "here"]),
    ("select typname from pg_type where oid = $1", (INT4,), ["23"]),
    ("select c.relname, t.* from pg_type t join pg_class c on c.oid = t.typrelid where c.relname = $1", (), ["t"]),
    ("select to_regclass($1), format_type(23, -1), 't'::regclass::oid", (), ["other"]),
    (
        "select has_table_privilege($1, 'select'), pg_get_userbyid(relowner) from pg_class where relname = 't'",
        (),
        ["t"],
    ),
    ("select (information_schema._pg_expandarray(indkey)).n from pg_index where indrelid = 't'::regclass", (), []),
    ("select column_name::text from information_schema.columns where table_name = $1 order by 1", (), ["t"]),
]


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_what_drivers_ask_stays_known(scene: CachedScene, cache: str) -> None:
    conn = await ready(scene, cache)
    direct = await scene.direct()
    for sql, oids, values in KEPT:
        data = extended(sql, oids, values)
        expected = await direct.scope(data)
        assert [] == expected.errors
        assert expected == await conn.scope(data)
        before = trips(scene)
        assert expected == await conn.scope(data)
        assert before == trips(scene), sql


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize(
    ("made", "sql"),
    [
        pytest.param(
            "create table own.pg_type (typname text); insert into own.pg_type values ('mine')",
            "select count(*) from pg_type, pg_namespace n where n.nspname = 'own'",
            id="a relation",
        ),
        pytest.param(
            "create function counted(text, text) returns bigint language sql stable as 'select count(*) from own.rows';"
            " create operator own.@@@ (leftarg = text, rightarg = text, function = counted)",
            "select 'a'::text @@@ 'b'::text",
            id="an operator",
        ),
        pytest.param(
            "create domain own.oid as date check (counted(value) > 0)", "select ('2020-01-01'::text)::oid", id="a type"
        ),
    ],
)
async def test_a_users_object_in_the_place_of_postgresqls(scene: CachedScene, cache: str, made: str, sql: str) -> None:
    """Before pg_catalog in the path, it is meant, and it may change with any write, or with none."""
    await scene.sql(
        "drop schema if exists own cascade; create schema own; create table own.rows (a int);"
        " create function counted(date) returns int language sql volatile as 'select 1'"
    )
    await scene.sql(made)
    await ready(scene, cache)
    conn = await super(CachedScene, scene).client(search_path="own, pg_catalog, public")
    await eventually(lambda: _is_asked(scene, conn), "who it is is known")
    direct = await scene.direct()
    await direct.query("set search_path = own, pg_catalog, public")
    try:
        for _ in range(3):
            before = trips(scene)
            told = await conn.query(sql)
            assert ([], before + 1) == (told.errors, trips(scene))
            assert (await direct.query(sql)).rows == told.rows
            await scene.sql("insert into own.rows values (1)")
            if "own.pg_type" in made:
                await scene.sql("insert into own.pg_type values ('another')")
    finally:
        await scene.sql("drop schema own cascade")


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_a_session_with_temporary_tables_sees_its_own(scene: CachedScene, cache: str) -> None:
    conn = await ready(scene, cache)
    other = await super(CachedScene, scene).client()
    asked = "select to_regclass('brief'), exists (select 1 from pg_class where relname = 'brief' and pg_table_is_visible(oid))"
    assert [(None, "f")] == (await conn.query(asked)).rows == (await other.query(asked)).rows
    await conn.query("create temp table brief (a int)")
    for _ in range(2):
        assert [("brief", "t")] == (await conn.query(asked)).rows
        assert [(None, "f")] == (await other.query(asked)).rows
    await conn.query("drop table brief")
    assert [(None, "f")] == (await conn.query(asked)).rows


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_names_are_told_by_each_ones_path_and_rights_by_each_ones_role(scene: CachedScene, cache: str) -> None:
    await scene.sql("create schema one; create type one.it as enum ('a'); drop role if exists low; create role low")
    conn = await ready(scene, cache)
    named = (
        "select format_type('one.it'::regtype, -1), 'one.it'::regtype::text, to_regtype('it'), current_schemas(false)"
    )
    allowed = "select current_user, has_table_privilege('t', 'select')"
    direct = await scene.direct()
    try:
        for sql in ("reset role", "set search_path = one", "set search_path = public", "set role low", "reset role"):
            assert (await direct.query(sql)).errors == (await conn.query(sql)).errors == []
            for _ in range(3):
                assert (await direct.query(allowed)).rows == (await conn.query(allowed)).rows
                assert (await direct.query(named)).rows == (await conn.query(named)).rows
    finally:
        await scene.sql("drop role low; drop schema one cascade")
