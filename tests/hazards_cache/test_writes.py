"""What a statement may change (caching rules §10.5), on real catalogs."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import pytest

from hyperdrive.sql.catalog import Declarations, ForeignKey
from hyperdrive.sql.readers import WriteVerdicts
from hyperdrive.sql.writes import targets

NOTHING: set[str] = set()

WRITES = [
    # --- the targets that the text names ---
    ("insert into txt values (1)", {"txt"}),
    ("insert into txt values (1) on conflict (id) do update set c = 'x' returning *", {"txt"}),
    ("update txt set c = 'x' from t where t.id = txt.id", {"txt"}),
    ("delete from txt using t where t.id = txt.id", {"txt"}),
    ("merge into txt using t on t.id = txt.id when matched then delete", {"txt"}),
    ("with x as (insert into txt values (1) returning id) select * from x, t", {"txt"}),
    ("with x as (delete from txt returning id) insert into aunt select id from x", {"txt", "aunt"}),
    ("copy txt from stdin", {"txt"}),
    ("copy txt to stdout", NOTHING),
    ("copy (delete from txt returning *) to stdout", {"txt"}),
    ("truncate txt, aunt", {"txt", "aunt"}),
    ("explain analyze delete from txt", {"txt"}),
    ("declare c cursor for select * from t", NOTHING),
    ("insert into other.t values (1)", {"other.t"}),
    ("insert into unlogged_t values (1)", {"unlogged_t"}),
    ("refresh materialized view mat", {"mat"}),
    ("select 1; delete from txt; insert into aunt values (1)", {"txt", "aunt"}),
    # --- inheritance and partitions: rows arrive in children ---
    ("insert into parted values (1, 'x')", {"parted", "parted_1", "parted_2", "parted_2x"}),
    ("update parted_1 set b = 'x'", {"parted_1"}),
    ("delete from parent", {"parent", "heir"}),
    ("insert into heir values (1)", {"heir"}),
    # --- foreign keys ---
    ("delete from t", {"t", "child", "grandchild"}),
    ("update t set v = 1", {"t", "child"}),
    ("insert into t values (1)", {"t"}),
    ("delete from child", {"child", "grandchild"}),
    ("truncate t cascade", {"t", "child", "grandchild", "aunt"}),
    ("truncate t", {"t"}),
    # --- triggers, rules, views ---
    ("insert into triggered values (1)", "unknown"),
    ("insert into triggering values (1)", {"triggering"}),
    ("delete from cascading", "unknown"),
    ("update cascading set id = 1", {"cascading"}),
    ("insert into tsv values (1, 'x')", {"tsv"}),
    ("insert into ruled values (1)", "unknown"),
    ("insert into updatable values (1)", {"updatable", "txt"}),
    ("update plain_view set v = 1", {"plain_view", "t", "child"}),
    ("insert into instead_view values (1)", "unknown"),
    ("insert into defaulted default values", "unknown"),
    # --- code that we do not see ---
    ("select u(1)", "unknown"),
    ("select us(1)", "unknown"),
    ("select smuggled(1)", "unknown"),
    ("select pg_catalog.smuggled_stable(1)", "unknown"),
    ("select =#= 1", "unknown"),
    ("select ui(1)", NOTHING),
    ("select * from call_view", "unknown"),
    ("select t.u from t", "unknown"),
    ("select 1 === 'a'", "unknown"),
    ("insert into txt select u(1)", "unknown"),
    ("select shaky(v) from t", "unknown"),
    ("select 1::shaky_domain", "unknown"),
    ("insert into shaky_typed values (1, 1)", "unknown"),
    # --- IMMUTABLE is believed, except of what does not pass rule 14, and where PostgreSQL itself knows better ---
    ("insert into txt values (ui(1))", {"txt"}),
    ("select ud(1)", "unknown"),
    ("insert into txt values (ud(1))", "unknown"),
    ("select u_by_default()", "unknown"),
    ("insert into txt values (u_by_default())", "unknown"),
    ("insert into defaulted_by_default (id) values (1)", "unknown"),
    ("select ui_by_default(), atomic_ui(1)", NOTHING),
    ("insert into txt values (atomic_u(1))", "unknown"),
    ("insert into txt values (atomic_ui(1))", {"txt"}),
    ("insert into indexed_atomic values (1)", "unknown"),
    # --- domains, wherever a value becomes one ---
    ("insert into in_default default values", "unknown"),
    ("insert into in_nested_default default values", "unknown"),
    ("insert into in_array values ('{1}')", "unknown"),
    ("update in_row set a = null", "unknown"),
    ("insert into in_domain_over_row values (null)", "unknown"),
    ("copy in_span from stdin", "unknown"),
    ("merge into in_spans using t on true when matched then delete", "unknown"),
    ("insert into in_operator values (1)", "unknown"),
    ("insert into in_cast values (1)", "unknown"),
    ("insert into checked_by_cast values (1)", "unknown"),
    ("insert into checked_by_operator values (1)", "unknown"),
    ("insert into defaulted_by_cast values (1)", "unknown"),
    ("insert into indexed values (1)", "unknown"),
    ("insert into txt(id) values ('1'::nested)", "unknown"),
    ("select 1::nested", "unknown"),
    ("select '{1}'::nested[]", "unknown"),
    ("select '{1}'::_nested", "unknown"),
    ("select nested(1)", "unknown"),
    ("select _nested('{1}')", "unknown"),
    ("select (v).nested from t", "unknown"),
    ("select '(1)'::holding", "unknown"),
    ("select '{}'::holding_more", "unknown"),
    ("select '[1,2)'::shaky_span", "unknown"),
    ("select '{}'::shaky_multirange", "unknown"),
    ("select 1::by_cast", "unknown"),
    ("select null::in_row", "unknown"),
    ("select takes_nested('1')", "unknown"),
    ("select * from json_to_record('{}') as x(a nested)", "unknown"),
    ("select json_populate_record(null::in_array, '{}')", "unknown"),
    ("select jsonb_populate_record(r, '{}') from in_row r", "unknown"),
    ("select array_append(a, '1') from in_array", "unknown"),
    ("select array_cat(a, '{1}') from in_array", "unknown"),
    ("select a || '1' from in_array", "unknown"),
    ("select * from in_row, in_array, in_span", NOTHING),
    ("insert into calm_rows values (1, '{1}', '(1,a)', '2020-01-01')", {"calm_rows"}),
    ("select 5::positive, '{1}'::positive[], '(1,a)'::calm, ui(1), my_date('2020-01-01')", NOTHING),
    ("do 'begin update t set v = 1; end'", "unknown"),
    ("do 'begin Alter table t add x int; end'", "epoch"),
    ("do $$begin\nalter\ntable t add x int;\nend$$", "epoch"),
    ("do language plpgsql 'begin execute concat(''cre'', ''ate table x ()''); end'", "epoch"),
    (r"do e'begin \x61lter table t add x int; end'", "epoch"),
    (r"do e'begin perform \'\\\\x61lter\'; end'", "epoch"),
    ("explain analyze execute p", "unknown"),
    ("explain analyze create table newer as select 1", "epoch"),
    ("create temp table newer as execute p", "unknown"),
    ("call p()", "unknown"),
    ("execute p", "unknown"),
    ("select query_to_xml('select u(1)', true, true, '')", "unknown"),
    ("select * from ts_stat('select u(1)::text::tsvector')", "unknown"),
    ("commit prepared 'x'", "epoch"),
    ("insert into foreign_t values (1)", "unknown"),
    ("select nowhere(1)", "unknown"),
    ("insert into nowhere values (1)", "unknown"),
    ("select * from nowhere", "unknown"),
    # --- harmless ---
    ("select * from t", NOTHING),
    ("select * from clock_view, rls", NOTHING),
    ("select * from t for update", NOTHING),
    (
        "select nextval('s'), random(), now(), pg_advisory_lock(1), pg_notify('a', 'b'), set_config('a.b', 'c', false)",
        NOTHING,
    ),
    ("select * from pg_class, information_schema.tables", NOTHING),
    ("with txt as (select 1) select * from txt", NOTHING),
    ("begin", NOTHING),
    ("commit", NOTHING),
    ("rollback prepared 'x'", NOTHING),
    ("set a.b = 'c'", NOTHING),
    ("show all", NOTHING),
    ("lock table t", NOTHING),
    ("vacuum t", NOTHING),
    ("analyze", NOTHING),
    ("fetch 10 from c", NOTHING),
    ("listen c", NOTHING),
    # --- temporary tables: nobody else sees them ---
    ("create temp table n (a int)", NOTHING),
    ("create table pg_temp.n (a int)", NOTHING),
    ("create temp table n as select 1", NOTHING),
    ("select 1 into temp n", NOTHING),
    ("drop table nobody_knows_it", NOTHING),
    ("drop table pg_temp.t", NOTHING),
    ("", NOTHING),
    # --- what ends the epoch ---
    ("create table n (a int)", "epoch"),
    ("create temp table n as select u(1)", "unknown"),
    ("drop table n, pg_temp.n2", NOTHING),
    ("drop table if exists t", "epoch"),
    ("drop table cache_rules.public.t", "epoch"),
    ("drop view n", "epoch"),
    ("alter table t add x int", "epoch"),
    ("drop table t", "epoch"),
    ("select 1 into n", "epoch"),
    ("create table n as select 1", "epoch"),
    ("grant select on t to reader", "epoch"),
    ("revoke select on t from reader", "epoch"),
    ("grant reader to member", "epoch"),
    ("create role r", "epoch"),
    ("alter role reader set search_path = other", "epoch"),
    ("create policy q on t using (true)", "epoch"),
    ("alter table t enable row level security", "epoch"),
    ("create extension x", "epoch"),
    ("create or replace view plain_view as select 1", "epoch"),
    ("alter system set work_mem = 1", "epoch"),
    ("create index on t (v)", "epoch"),
    ("insert into pg_class values (1)", "epoch"),
    ("select 1; drop table t", "epoch"),
    ("no sql at all", "epoch"),
    ("comment on table t is 'x'", "epoch"),
]


@pytest.mark.parametrize(("sql", "expected"), [pytest.param(sql, expected, id=sql[:60]) for sql, expected in WRITES])
def test_targets(database: Any, sql: str, expected: set[str] | str) -> None:
    assert expected == database.written(sql)


def test_a_declared_trigger_is_followed(database: Any) -> None:
    declared = Declarations(functions={"public.on_write": ("public.txt",)})
    found = database.writes("insert into triggered values (1)", declared)
    assert {"triggered", "txt"} == database.named(found.relations)
    declared = Declarations(functions={"public.u": ("public.txt",), "public.us": ("public.txt",)})
    assert {"txt"} == database.named(database.writes("select u(1)", declared).relations)
    assert frozenset() == database.writes("select us(1)", declared).relations
    declared = Declarations(functions={"public.on_write": ()})
    assert {"triggered"} == database.named(database.writes("insert into triggered values (1)", declared).relations)


def test_long_lists_of_rows_are_known_and_other_long_texts_unknown(database: Any) -> None:
    rows = ", ".join(f"({number}, 'x{number}{chr(92)}n')" for number in range(5000))
    assert {"txt"} == database.written(f"insert into txt values {rows}")
    assert {"t", "child", "grandchild"} == database.written(
        f"delete from t where v in ({', '.join(map(str, range(20_000)))})"
    )
    calls = ", ".join(["(ui(1), 'x')"] * 5000)
    assert "unknown" == database.written(f"insert into txt values {calls}")
    assert "epoch" == database.written(f"do $${rows}$$")


def test_what_hangs_on_a_literal_is_shared_by_no_shape(database18: Any) -> None:
    verdicts = WriteVerdicts()
    verdicts.use(database18.catalog)
    for sql, ends_epoch in ((b"do 'begin end'", False), (b"do 'drop table t'", True), (b"do 'end'", False)):
        assert ends_epoch == verdicts.targets(sql, database18.path).ends_epoch


def test_what_a_row_that_changes_its_partition_takes_along(database18: Any) -> None:
    """Up to 14 it was deleted from the one, and what refers to it was, too."""
    catalog = copy(database18.catalog)
    oids = {relation.name: oid for oid, relation in catalog.relations.items()}
    key = ForeignKey(oids["aunt"], oids["parted"], "a", "c")
    catalog.foreign_keys_by_parent = {**catalog.foreign_keys_by_parent, oids["parted"]: [key]}
    sql = b"update parted set a = 2"
    for version, expected in ((150000, False), (140000, True)):
        catalog.identity = replace(catalog.identity, version=version)
        assert expected == (oids["aunt"] in (targets(sql, catalog, database18.path).relations or ()))


@pytest.mark.parametrize(
    "sql",
    [
        "create role x", "alter role reader superuser", "alter role reader set search_path = x", "drop role reader",
        "grant reader to member", "revoke reader from member", "alter database x set search_path = y", "drop database x",
        "alter system set work_mem = '1MB'", "alter role reader rename to writer", "select 1; drop role reader",
    ],
)  # fmt: skip
def test_what_concerns_all_databases(database18: Any, sql: str) -> None:
    assert database18.writes(sql).is_shared
    assert not database18.writes("alter table t rename to t2; drop view v; do 'create'").is_shared


def test_who_declares_a_function_vouches_for_what_it_calls(database: Any) -> None:
    declared = Declarations(functions={"public.atomic_u": (), "public.takes_nested": ()})
    assert database.writes("insert into txt values (atomic_u(1))").relations is None
    assert database.writes("insert into txt values (atomic_u(1))", declared).relations
    # That the argument becomes a value of a domain is its caller's doing.
    assert database.writes("insert into txt values (takes_nested('1'))", declared).relations is None
