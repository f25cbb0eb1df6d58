"""What may be answered for a whole schema epoch, and what looks like it and may not (E-8)."""

import asyncpg.introspection
import pytest

from bench.load.like_npgsql import TYPES
from hyperdrive.sql import classify
from hyperdrive.sql.introspection import is_introspection

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
    "select c.relname::text, c.oid::regclass, c.reloptions from pg_catalog.pg_class c where c.relkind = any(array['r', 'v']::\"char\"[])",
    "select pg_catalog.pg_get_viewdef(c.oid, true), has_table_privilege(c.oid, 'select') from pg_class c",
    "select data_type::information_schema.character_data from information_schema.columns",
    "select (information_schema._pg_expandarray(i.indkey)).n from pg_catalog.pg_index i",
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
    # clocks made of pieces, or spelt otherwise
    "select $1::timestamptz",
    "select $1::text::timestamptz",
    "select ('no' || 'w')::timestamptz",
    "select cast('no' || 'w' as pg_catalog.date)",
    "select timestamptz('no' || 'w')",
    "select \"date\"(concat('no', 'w'))",
    "select (array['no' || 'w'])::time[]",
    "select ('[' || 'no' || 'w' || ',)')::tstzrange",
    "select ('no' || 'w')::own_domain",
    "select e'\\x6eow'::text",
    "select u&'\\006eow'::text",
    'select u&"\\006eow"()',
    "select ('no' || 'w').timestamptz",
    "select (t.typname).own_domain from pg_type t",
    "select to_timestamp(1)",
    "select pg_sequence_last_value(1)",
    "select pg_get_publication_tables('p')",
    "select table_to_xml('pg_catalog.pg_type', true, true, '')",
    "select json_populate_record(null::own_row, $1)",
    # what ANALYZE counts, by other names
    "select x from pg_class c (a, b, x)",
    "select j from (pg_class c join pg_type t on t.oid = c.reltype) j",
    "select j.* from (pg_class c join pg_type t on t.oid = c.reltype) j",
    "select c.text from pg_class c",
    "select c.row_to_json from pg_class c",
    'select u&"\\0072eltuples" from pg_class',
    "table pg_class",
]


@pytest.mark.parametrize(
    "sql", [b"select '\xff'", "select 'ä' from pg_type".encode(), b"select " + b"(" * 900 + b"1" + b")" * 900]
)
def test_what_is_not_read_is_none(sql: bytes) -> None:
    """Bytes that are no UTF-8, and nesting that is too deep, cost nobody the connection."""
    assert not is_introspection(sql, classify(sql)) or sql.isascii()


@pytest.mark.parametrize("sql", YES)
def test_what_only_the_schema_changes(sql: str) -> None:
    assert is_introspection(sql.encode(), classify(sql.encode()))


@pytest.mark.parametrize("sql", NO)
def test_what_something_else_changes(sql: str) -> None:
    assert not is_introspection(sql.encode(), classify(sql.encode()))
