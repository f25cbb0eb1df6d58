"""The decision procedure, rule by rule: the smallest text of each (caching rules §4, §5.1), on real catalogs."""

from __future__ import annotations

from typing import Any

import pytest

from hyperdrive.sql.catalog import Declarations
from hyperdrive.sql.reads import analyse
from hyperdrive.sql.resolve import Cacheable
from hyperdrive.sql.rules import Refused, Rule

R06_MULTI_STATEMENT = ["select 1; delete from t", "select 1; select 2", "begin; select v from t; commit"]

R08_NOT_SELECT = [
    "with x as (delete from t returning *) select * from x", "select 1 into y", "explain analyze delete from t", "explain select 1",
    "show timezone", "copy t to stdout", "call p()", "do 'begin end'", "execute p", "fetch c", "merge into t using txt on t.id = txt.id when matched then delete",
    "insert into t values (1)", "update t set v = 1", "delete from t", "with x as (insert into t values (1) returning 1) table x",
    "select * from (with x as (update t set v = 1 returning v) select * from x) s", "declare c cursor for select 1", "with x as (merge into t using txt on t.id = txt.id when matched then delete returning 1) select * from x", "prepare p as select 1", "",
]  # fmt: skip

R09_LOCKING = [
    "select * from t for update", "select * from (select * from t for update) s", "with x as (select * from t for share) select * from x",
    "select 1 where exists (select 1 from t for no key update)", "select 1 union (select v from t for key share)",
]  # fmt: skip

R10_RELATION = [
    "select * from pg_class", "select * from pg_catalog.pg_class", "select * from information_schema.tables", "select last_value from s",
    "select * from unlogged_t", "select * from foreign_t", "select * from t tablesample system (1)", "select * from nowhere",
    "select * from other.nowhere", "select * from nowhere.t", "select count(*) from pg_stat_activity", "select * from catalog_view",
    "select * from app.public.t", "select 1 from (select 2) x, pg_type", "select * from pg_settings",
]  # fmt: skip

R11_SYSTEM_COLUMN = [
    "select ctid from t",
    "select t.xmax from t",
    "select 1 from t where cmin = '1'",
    "select (t).cmax from t",
    "select t.xmin from t",
]

R12_VIEW = [
    "select n from clock_view", "select id from clock_view", "select * from deep_view", "select * from word_view", "select * from lock_view",
    "select * from call_view", "with x as (select id from clock_view) select count(*) from x", "select (select max(id) from deep_view)",
]  # fmt: skip

R13_ROW_SECURITY = ["select * from rls", "select * from rls_view", "select 1 from t where id in (select id from rls)"]

R14_FUNCTION = [
    "select random()", "select current_date", "select u(1)", "select smuggled(1)", "select pg_catalog.smuggled_stable(1)", "select t.u from t", "select (t).u from t", "select us(1)", "select ud(1)", "select udef()",
    "select now()", "select pg_catalog.now()", 'select "now"()', "select clock_timestamp()", "select localtime", "select localtimestamp(3)", "select current_time",
    "select current_user", "select session_user", "select current_schema", "select current_catalog", "select current_role", "select user",
    "select current_setting('a.b')", "select version()", "select pg_backend_pid()", "select has_table_privilege('t', 'select')",
    "select age(ts) from t", "select nextval('s')", "select currval('s')", "select lastval()", "select gen_random_uuid()", "select pg_advisory_lock(1)",
    "select set_config('a.b', 'c', false)", "select pg_sleep(0)", "select pg_notify('c', '')", "select txid_current()", "select lo_create(1)",
    "select table_to_xml('t', true, true, '')", "select query_to_xml('table t', true, true, '')", "select database_to_xml(true, true, '')",
    "select schema_to_xml('public', true, true, '')", "select * from ts_stat('select v from tsv')", "select ts_rewrite('a'::tsquery, 'select 1')",
    "select pg_get_viewdef(1)", "select format_type(1, 2)", "select pg_typeof(v) from t", "select pg_relation_size(1)", "select to_regclass('t')", "select regclass('t')",
    "select pg_table_is_visible(1)", "select inet_client_addr()", "select shaky(v) from t", "select shaky(v) over () from t", "select nowhere(1)",
    "select public.now()", "select * from u(1)", "select * from rows from (ui(1), us(2)) x", "select v from t order by random()", "select 1 limit u(1)",
    "select count(*) filter (where random() > 0.5) from t", "select sum(v) over (order by u(v)) from t", "select case when random() > 0.5 then 1 end",
    "select array(select u(1))", "select coalesce(random(), 1)", "values (random())", "select xmlelement(name a, random())", "select json_object('a': random())",
    "select * from t join txt on random() > 0.5", "select 1 group by random()", "select * from json_populate_record(null::t, '{}')",
    "select * from json_to_record('{}') as x(a date)", "select jsonb_populate_record(null::t, '{}')", "select obj_description(1)",
    "select pg_column_size(v) from t", "select hour at time zone 'UTC' from t", "select timezone('UTC', hour) from t", "select a.b.c.d()",
    "select dblink('x')", "select statement_timestamp()", "select timeofday()", "select transaction_timestamp()", "select pg_conf_load_time()", "select pg_partition_root('parted')",
]  # fmt: skip

R15_OPERATOR = [
    "select 1 === 'a'",
    "select 1 operator(public.===) 'a'",
    "select 1 operator(other.+) 'a'",
    "select * from t where id === txt",
    "select 1 !@#!@# 2",
    "select =#= 1",
]
R15_CAST = [
    "select length(col) from tc",
    "select col from tc",
    "select * from tc",
    "select tc from tc",
    "select (1, 'a')::comp",
    "select count(*) from tc where col is null",
]
R15_TYPE = [
    "select 't'::regclass", "select $1::regtype", "select c from treg", "select * from ttz", "select tz from ttz", "select '10:00'::timetz",
    "select hour::timetz from t", "select 1::shaky_domain", "select p from shaky_typed", "select shaky_domain(1)", "select 'x'::nowhere", "select null::aclitem", "select (1).shaky_domain", "select ('10:00').timetz",
]  # fmt: skip

R16_CLOCK_WORD = [
    "select 'today10:00'::timestamp", "select '[n\"o\"w,)'::tstzrange", "select '{n\\ow}'::timestamptz[]", "select c::date from txt", "select e'n\\x6fw'::timestamptz",
    "select 'NOW'::timestamptz", "select timestamp 'Tomorrow'", "select date 'yesterday'", "select u&'n\\006fw'::date", "select 'no'\n'w'::date", "select cast(' now ' as date)",
    "select date(c) from txt", "select timestamptz(c) from txt", "select (j->>'d')::timestamptz from t", "select my_date(c) from txt", "select c::my_date from txt",
    "select array[c]::date[] from txt", "select (c, 1)::text::date from txt", "select c::tstzrange from txt", "select (c || '')::date from txt", "select lower(c)::date from txt",
    "select max(c)::date from txt", "with x as (select c as y from txt) select y::date from x", "select y::date from (select c from txt) x(y)",
    "select ts::date from (select c as ts from txt) x, t", "select (case when true then c end)::date from txt", "select coalesce(c, 'x')::date from txt",
    "select $1::text::date", "select (select c from txt limit 1)::date", "select string_to_array(c, ',')::date[] from txt", "select nullif(c, '')::date from txt",
    "select x::date from (select null as x union select c from txt) y", "select x::date from (select ts as x from t union all select null) y, (select c as x from txt) z",
    "select x::timestamp from unnest(array['a']) x", "select $$now$$::date", "select * from t where ts > 'yesterday'", "select 'now'",
    "with recursive w(x) as (select c from txt union select x from w) select x::date from w", "select j::text::timestamptz from t", "select (t.j #>> '{a}')::date from t",
    "select d::date from jsonb_array_elements_text('[]') d", "select txt::date from t", "select c::span from txt", "select json_value(j, '$.a' returning date) from t", "select json_query(j, '$.a' returning timestamptz[]) from t",
    "select * from json_table('[]'::jsonb, '$' columns (d date path '$'))", "select * from xmltable('/a' passing xml '<a/>' columns d date path '.')",
    "select xmlparse(content c)::text::date from txt", "select (array[c])[1]::date from txt", "select c::date[] from txt", "select (select txt from t limit 1)::timestamptz",
    "select least(c, 'x')::date from txt", "select * from t where ts = any (array[(select c from txt)]::timestamptz[])", "select row(c)::comp_date from txt",
    "select (c).date from txt", "select (t.txt).timestamptz from t", "select ('tod' || 'ay').date", "select (c)._date from txt", "select (c).my_date from txt",
    "select ((c)::text).date from txt", "select (array[c])[1].date from txt", "select (a.b).date from (select txt as b from t) a",
]  # fmt: skip

VECTORS = [
    pytest.param(rule, sql, id=f"{rule}-{number}-{sql[:40]}")
    for rule, texts in {
        "multi-statement": R06_MULTI_STATEMENT, "not-select": R08_NOT_SELECT, "locking": R09_LOCKING, "relation": R10_RELATION,
        "system-column": R11_SYSTEM_COLUMN, "view": R12_VIEW, "row-security": R13_ROW_SECURITY, "function": R14_FUNCTION,
        "operator": R15_OPERATOR, "cast": R15_CAST, "type": R15_TYPE, "clock-word": R16_CLOCK_WORD,
    }.items()
    for number, sql in enumerate(texts)
]  # fmt: skip


@pytest.mark.parametrize(("rule", "sql"), VECTORS)
def test_each_rule_refuses_its_smallest_case(database: Any, rule: str, sql: str) -> None:
    assert rule == database.rule(sql)


CACHEABLE = [
    "select 1", "select * from t", "table t", "values (1), (2)", "select v from t where id = $1", "select * from t where id = 1 order by v desc limit 10 offset 5",
    "select count(*), max(v), avg(v), array_agg(v order by id), string_agg(txt, ',') from t group by d having count(*) > 1",
    "select t.id, c.c from t join txt c using (id) left join child on child.t_id = t.id", "select * from t natural join txt",
    "with x as (select * from t) select x.v from x", "with recursive w(n) as (select 1 union all select n + 1 from w where n < 10) select * from w",
    "select distinct on (v) v, id from t", "select row_number() over (partition by v order by id) from t", "select * from t where v in (1, 2) and txt like 'a%' escape '!'",
    "select * from t where exists (select 1 from child where t_id = t.id)", "select v from t union all select id from txt", "select * from plain_view", "select * from count_view",
    "select * from mat", "select ui(1), t.pure, steady(v) from t group by t.*", "select json_agg(t), to_jsonb(t), row_to_json(t) from t", "select * from parted", "select * from parent",
    "select jsonb_build_object('a', v), j->>'b', j @> '{}', j ? 'x' from t", "select to_char(ts, 'YYYY'), date_trunc('day', ts), extract(year from ts), age(ts, at) from t",
    "select format('%s', v), concat(v, txt), quote_literal(txt), array_to_string(nums, ',') from t", "select to_tsvector('english', txt) @@ plainto_tsquery('x') from t",
    "select ts::date, at::timestamptz, d::timestamp, date(ts), ts::time from t", "select max(ts)::date, (ts - interval '1 day')::date, (ts + '1 day')::date from t group by ts",
    "select g::date from generate_series('2024-01-01'::timestamptz, '2024-02-01', '1 day') g", "select coalesce(ts, $1)::date from t", "select $1::timestamptz",
    "select '2020-01-01'::date, timestamp '2020-01-01 00:00'", "select ts at time zone 'UTC' from t", "select m, p, ms, sp, my from typed", "select 1 ==== 'a'", "select col from tcalm",
    "select nums[1], nums[1:2], (select 1), array(select v from t) from t", "select percentile_cont(0.5) within group (order by v) from t", "select 5::positive, 'sad'::mood",
    "select x.* from t cross join lateral (select t.v + 1 as y) x", "select * from unnest(array[1, 2]) with ordinality", "select * from t tablesample system (1) repeatable (1)",
    "select v from t where ts between $1 and $2", "select grouping(v), v from t group by rollup (v)", "select udef('2020-01-01'::timestamptz)", "select ts::my_date from t",
    "select now from (select 1 as now) x", "select xmlelement(name a, v), xmlforest(v) from t", "select t from t", "select (t).v from t",
    "select (ts).date from t", "select ('2020-01-01').date", "select (x.c).a from (select row(now)::comp_date as c from (select null::date as now) y) x",
    "select nullif(v, 1), greatest(v, 2), coalesce(v, 3), case v when 1 then 'a' else 'b' end from t", "select v is null, v is not distinct from 3, not v > 3 from t",
    "select 'todayish'", "select 'nowhere'", "select * from only parent", "select interval '1 day' * 3", "select count(*) from t where d >= $1::date", "select other.t.id from other.t",
    "select json_value(j, '$.a'), json_query(j, '$.b'), json_exists(j, '$.c'), json_value(j, '$.d' returning int) from t", "select json_arrayagg(v), json_objectagg(txt: v returning jsonb) from t",
    "select * from json_table('[]'::jsonb, '$' columns (a int path '$.a', b text path '$.b'))", "select * from xmltable('/a' passing xml '<a/>' columns b int path 'b')",
    "select (array[ts])[1]::date from t", "select least(ts, at)::date from t", "select extract(epoch from hour) from t", "select d + hour from t", "select t.* from t order by t.*",
]  # fmt: skip


@pytest.mark.parametrize("sql", CACHEABLE)
def test_what_is_harmless_is_cacheable(database: Any, sql: str) -> None:
    found = database.judge(sql)
    assert isinstance(found, Cacheable), f"{found} {getattr(found, 'because', '')}"


def test_r03_too_long_and_not_utf8() -> None:
    for sql, rule in [
        (b"select 1 " + b" " * 20_000, Rule.TOO_LONG),
        (b"select '\xff'", Rule.ENCODING),
        (b"select \0", Rule.SYNTAX),
        (b"selec 1", Rule.SYNTAX),
        (b"select " + b"(select " * 1500 + b"1" + b")" * 1500, Rule.SYNTAX),
    ]:
        found = analyse(sql)
        assert isinstance(found, Refused)
        assert rule is found.rule


def test_a_refusal_names_what_triggered_it(database: Any) -> None:
    found = database.judge("select * from deep_view")
    assert ("view", "public.clock_view") == (found.rule.value, found.object)
    assert found.because is not None
    assert ("function", "now()") == (found.because.rule.value, found.because.object)
    assert "public.rls" == database.judge("select * from rls_view").object


TAGS = [
    ("select * from t join txt using (id)", {"t", "txt"}),
    ("select 1", set()),
    ("select * from parted", {"parted", "parted_1", "parted_2", "parted_2x"}),
    ("select * from parted_2x", {"parted", "parted_2", "parted_2x"}),
    ("select * from parent", {"parent", "heir"}),
    ("select * from heir", {"heir"}),
    ("select * from plain_view", {"plain_view", "t"}),
    ("select * from mat", {"mat"}),
    ("with txt as (select * from t) select * from txt", {"t", "txt"}),
    ("select (select count(*) from child) from t", {"t", "child"}),
]


@pytest.mark.parametrize(("sql", "expected"), TAGS)
def test_tags_are_everything_that_could_change_the_answer(database: Any, sql: str, expected: set[str]) -> None:
    assert expected == database.tags(sql)


INT4, TEXT, TIMESTAMPTZ, TIMETZ, REGCLASS = 23, 25, 1184, 1266, 2205

PARAMETERS = [
    ("select * from t where id = $1", (), (1,)),
    ("select * from t where id = $1", (0,), (1,)),
    ("select * from t where id = $1", (INT4,), ()),
    ("select * from t where txt = $1 and ts < $2", (TEXT, TIMESTAMPTZ), (2,)),
    ("select * from t where txt = $1 and ts < $2", (TEXT,), (2,)),
    ("select $1::date", (INT4,), ()),
]


@pytest.mark.parametrize(("sql", "types", "scan"), PARAMETERS)
def test_r16_parameters_are_scanned_unless_their_type_knows_no_clock(
    database: Any, sql: str, types: tuple[int, ...], scan: tuple[int, ...]
) -> None:
    found = database.judge(sql, *types)
    assert isinstance(found, Cacheable)
    assert scan == found.scan


def test_r16_a_text_parameter_that_becomes_a_date_is_refused(database: Any) -> None:
    assert "clock-word" == database.rule("select $1::date", TEXT)


def test_r15_parameters_pass_the_type_audit(database: Any) -> None:
    assert "type" == database.rule("select $1", TIMETZ)
    assert "type" == database.rule("select $1", REGCLASS)
    assert "type" == database.rule("select $1", 999_999)


def test_r10_age_only_by_the_operators_leave(database: Any) -> None:
    leave = Declarations(age_only=("public.unlogged*", "public.foreign_t"))
    for sql in ("select * from unlogged_t", "select * from foreign_t"):
        found = database.judge(sql, declared=leave)
        assert isinstance(found, Cacheable)
        assert found.age_only
    assert "cacheable" == database.rule("select * from t", declared=leave)
    assert "relation" == database.rule("select last_value from s", declared=leave)


def test_r14_declared_functions_are_tagged_with_their_tables(database: Any) -> None:
    declared = Declarations(functions={"public.us": ("public.txt",), "public.u": ("public.txt",), "public.ud": ()})
    found = database.judge("select us(1)", declared=declared)
    assert isinstance(found, Cacheable)
    assert {"txt"} == database.named(found.tags)
    assert "function" == database.rule("select u(1)", declared=declared)  # VOLATILE never
    assert "function" == database.rule("select ud(1)", declared=declared)  # SECURITY DEFINER never


def test_r14_a_switch_distrusts_immutable_functions(database: Any) -> None:
    distrust = Declarations(trust_immutable=False)
    assert "function" == database.rule("select ui(1)", declared=distrust)
    assert "operator" == database.rule("select 1 ==== 'a'", declared=distrust)
    assert "cacheable" == database.rule("select lower(txt) from t", declared=distrust)


def test_r16_an_operator_may_vouch_for_the_data(database: Any) -> None:
    vouched = Declarations(no_clock_words_in_data=True)
    assert "cacheable" == database.rule("select c::date from txt", declared=vouched)
    assert "clock-word" == database.rule("select 'today'::date", declared=vouched)
    found = database.judge("select $1::date", TEXT, declared=vouched)
    assert isinstance(found, Cacheable)
    assert (1,) == found.scan
