"""What may be answered for a whole schema epoch, and what looks like it and may not (E-8)."""

import asyncpg.introspection
import pytest

from bench.load.like_npgsql import TYPES
from hyperdrive.sql import classify
from hyperdrive.sql.introspection import introspected, may_hold

YES = [
    "select 1",
    "select 1; select 2",
    "select 1;",
    TYPES,
    "select pg_catalog.version()",
    "select current_schema()",
    "SELECT current_database(), current_user",
    "select t.oid, t.typarray from pg_catalog.pg_type t join pg_namespace n on n.oid = t.typnamespace where t.typname = $1",
    "SELECT typname AS name, oid, typarray AS array_oid, oid::regtype::text AS regtype FROM pg_type t WHERE t.oid = to_regtype($1)",
    "select relname from pg_class where relkind = 'r' and pg_catalog.pg_table_is_visible(oid)",
    "select count(*) from pg_class",
    "select pg_catalog.format_type(a.atttypid, a.atttypmod) from pg_catalog.pg_attribute a where a.attrelid = 1",
    "select table_name from information_schema.tables where table_schema = 'public'",
    "with recursive t as (select oid from pg_type) select * from pg_type",
    "with recursive t as (select oid from pg_type union all select oid from t where false) select oid from t",
    "with t as (select oid from pg_type), u as (select oid from t) select oid from u union select oid from t",
    "select t.*, c.relname from pg_type t left join pg_class c on c.oid = t.typrelid where t.typname = $1",
    "select (information_schema._pg_expandarray(i.indkey)).n from pg_index i",
    "select c.relname from pg_class c where relname like '%nextval(%' and relkind = any(array['r', 'v']::\"char\"[])",
    "with c as (select relname from pg_class) select * from c",
    "select $1::text[], $2::pg_catalog.regclass, current_schemas(false)",
    "select column_name::information_schema.sql_identifier from information_schema.columns",
    asyncpg.introspection.INTRO_LOOKUP_TYPES,
    asyncpg.introspection.TYPE_BY_NAME,
]
NO = [
    "select now()",
    "select current_timestamp",
    "select clock_timestamp(), version()",
    "select random()",
    "select id from items",
    "select * from pg_type, items",
    "select * from pg_class",
    "select c.* from pg_class c",
    "select c from pg_class c",
    "select row_to_json(pg_class) from pg_class",
    "select * from (select c.* from pg_class c) x",
    "select * from pg_type t join pg_class c on c.oid = t.typrelid",
    "with c as (select * from pg_class) select oid from c",
    "select (c).relname from pg_class c",
    "select relname, reltuples from pg_class",
    "select * from pg_stat_activity",
    "select * from pg_locks",
    "select setting from pg_settings",
    "select current_setting('work_mem')",
    "select pg_backend_pid()",
    "select pg_relation_size('t')",
    "select last_value from s",
    "select nextval('s')",
    "select pg_advisory_lock(1)",
    "select own()",
    "select 1 from pg_type for update",
    "select version(); insert into t values (1)",
    "select version(); select id from items",
    "select version(); set work_mem = '1MB'",
    "select version(); show work_mem",
    "begin; select version()",
    ";",
    "insert into t values (1)",
    "select * from other.pg_type",
    "select * from information_schema.user_mappings",
    "select 'today'::date",
    "select xmin from pg_type",
    "select 1 into t",
    "with t as (select oid from t) select oid from t",
    "with t as (select oid from u), u as (select oid from pg_type) select oid from t",
    "select oid from pg_type where exists (with t as (select 1) select 1 from t) and exists (select 1 from t)",
    "with t as (select oid from pg_type) select oid from public.t",
    "with x as (delete from t returning 1) select 1 from pg_type",
    "select $1::text::timestamptz",
    "select date($1)",
    "select ($1).date",
    "select ($1)._date",
    "select t.age from pg_type t",
    "select ('no' || 'w')::timestamptz",
    "select '10:00'::timetz",
    "select $1::interval",
    "select $1::information_schema.time_stamp",
    "select $1::mine",
    "select $1::pg_type.typname%type",
    "select current_schemas(true)",
    "select pg_get_wal_summarizer_state()",
    "select pg_get_multixact_members('1')",
    "select public.version()",
    'select U&"rel\\0074uples" from pg_class',
    "select pg_catalog.pg_class.* from pg_catalog.pg_class",
    "select j.* from (pg_class c join pg_type t on true) as j",
    "select a from pg_class as c(a)",
    "select count(*) from pg_class natural join pg_type",
    "table pg_class",
    "select * from pg_tables",
    "select ispopulated from pg_matviews",
    "select a.* from pg_attribute a",
    "select relhasindex from pg_class",
    "select oid from pg_type tablesample system (1)",
    "select xmlelement(name a)",
    "select * from json_to_record('{}') as x(a int)",
]


@pytest.mark.parametrize(
    "sql", [b"select '\xff'", "select 'ä' from pg_type".encode(), b"select " + b"(" * 900 + b"1" + b")" * 900]
)
def test_what_is_not_read_is_none(sql: bytes) -> None:
    """Bytes that are no UTF-8, and nesting that is too deep, cost nobody the connection."""
    assert introspected(sql, classify(sql)) is None or sql.isascii()


@pytest.mark.parametrize("sql", YES)
def test_what_only_the_schema_changes(sql: str) -> None:
    assert introspected(sql.encode(), classify(sql.encode())) is not None


@pytest.mark.parametrize("sql", NO)
def test_what_something_else_changes(sql: str) -> None:
    assert introspected(sql.encode(), classify(sql.encode())) is None


@pytest.mark.parametrize("oid", [1082, 1083, 1114, 1184, 1266, 1186, 2249, 3912, 16384])
def test_types_of_parameters_that_may_be_the_clock_or_a_users(oid: int) -> None:
    assert may_hold((0, 23, 25, 705, 1009, 2205))
    assert not may_hold((25, oid))


def test_what_a_user_may_mean_by_it_is_told() -> None:
    sql = b"select (x).y, t.z, 'a'::text === lower('b') from pg_type t, information_schema.tables where oid = 1"
    asked = introspected(sql, classify(sql))
    assert asked is not None
    assert {"y", "z", "lower"} <= asked.functions
    assert {"===", "="} <= asked.operators
    assert {"y", "text", "pg_type"} == asked.objects
