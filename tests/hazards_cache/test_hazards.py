"""The hazards of a statement, row by row (caching rules §5.1): the smallest text of each, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

HAZARDS: dict[str, list[tuple[str, str]]] = {
    "volatile functions": [("select random()", "function"), ("select nextval('s')", "function"), ("select lo_get(1)", "function"), ("select pg_notify('a', 'b')", "function")],
    "clock": [("select now()", "function"), ("select age(ts) from t", "function"), ("select localtimestamp", "function"), ("select age(ts, at) from t", "cacheable")],
    "clock words": [("select 'now'::timestamp", "clock-word"), ("select '[today,)'::tsrange", "clock-word"), ("select e'n\\x6fw'::date", "clock-word"), ("select '2020-01-01'::date", "cacheable")],
    "clock words in data": [
        ("select c::date from txt", "clock-word"), ("select date(c) from txt", "clock-word"), ("select (j->>'d')::timestamptz from t", "clock-word"),
        ("select * from json_to_record('{}') as x(d date)", "function"), ("select * from jsonb_populate_record(null::t, '{}')", "function"),
        ("select json_value(j, '$.d' returning date) from t", "clock-word"), ("select ts::date from t", "cacheable"),
    ],
    "timetz": [("select tz from ttz", "type"), ("select hour::timetz from t", "type"), ("select hour at time zone 'UTC' from t", "function"), ("select current_time", "function"), ("select ts at time zone 'UTC' from t", "cacheable")],
    "stable through settings only": [("select json_agg(t), concat(v, ts), to_char(ts, 'HH24') from t", "cacheable"), ("select json_agg(tz) from ttz", "type")],
    "overloads of mixed volatility": [("select date_trunc('day', ts), extract(day from at), to_tsvector(txt) from t", "cacheable")],
    "aggregates": [("select shaky(v) from t", "function"), ("select steady(v), jsonb_object_agg(id, v) from t", "cacheable")],
    "column notation": [("select t.u from t", "function"), ("select (t).u from t", "function"), ("select x.u from t x", "function"), ("select x.u from (select * from t) x", "function"), ("select t.v, t.pure from t", "cacheable")],
    "default arguments": [("select udef()", "function"), ("select udef(ts) from t", "cacheable")],
    "user functions": [("select ui(1)", "cacheable"), ("select us(1)", "function"), ("select u(1)", "function"), ("select ud(1)", "function")],
    "tables in disguise": [("select table_to_xml('t', true, true, '')", "function"), ("select * from ts_stat('select 1')", "function"), ("select query_to_xml('select 1', true, true, '')", "function")],
    "operators": [("select 1 === 'a'", "operator"), ("select 1 ==== 'a'", "cacheable"), ("select d > ts, ts - interval '1 day', v || txt, txt @@ 'x' from t", "cacheable")],
    "casts": [("select length(col) from tc", "cast"), ("select 't'::regclass", "type"), ("select shaky_domain(1)", "type"), ("select 1::positive", "cacheable"), ("select my_date(c) from txt", "clock-word")],
    "views": [("select n from clock_view", "view"), ("select * from deep_view", "view"), ("select * from plain_view", "cacheable")],
    "foreign tables": [("select * from foreign_t", "relation")],
    "execute, call, do, explain analyze, merge": [
        ("execute p", "not-select"), ("call p()", "not-select"), ("do ''", "not-select"), ("explain analyze select 1", "not-select"), ("select 1; select 2", "multi-statement"),
        ("merge into t using txt on true when matched then delete", "not-select"),
    ],
    "no order by": [("select v from t limit 1", "cacheable")],
    "empty results": [("select * from t where false", "cacheable")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "expected"),
    [pytest.param(sql, expected, id=f"{name}: {sql[:50]}") for name, rows in HAZARDS.items() for sql, expected in rows],
)
def test_hazards_of_a_statement(database: Any, sql: str, expected: str) -> None:
    assert expected == database.rule(sql)


def test_partitions_are_tagged_and_written_with_their_family(database: Any) -> None:
    """Changes arrive under the child's OID; what reads the root, or a sister through it, hears of them."""
    assert {"parted", "parted_1", "parted_2", "parted_2x"} == database.tags("select * from parted")
    for write in ("insert into parted values (1)", "update parted_1 set b = 'x'", "delete from parted_2x"):
        assert database.written(write) & database.tags("select * from parted"), write
    assert database.written("insert into parted values (2, 'x')") & database.tags("select * from parted_2x")
    assert not database.written("update parted_1 set b = 'x'") & database.tags("select * from parted_2x")


def test_a_materialized_view_changes_when_it_is_refreshed_only(database: Any) -> None:
    assert {"mat"} == database.tags("select * from mat") == database.written("refresh materialized view mat")
    assert not database.written("delete from t") & {"mat"}


def test_empty_results_depend_on_their_tables(database: Any) -> None:
    """ "The name is available" must not outlive the INSERT that takes it."""
    assert database.tags("select 1 from txt where c = 'taken'") & database.written(
        "insert into txt values (1, 'taken')"
    )
