"""Every built-in function once: what the decision calls cacheable gives the same answer twice, in two sessions at two times."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from hyperdrive.sql.catalog import PG_CATALOG, Catalog, Function

# A value of each type that functions take; what has none here is called with NULL.
VALUES = {
    "int2": "2::int2", "int4": "3", "int8": "4::int8", "float4": "1.5::float4", "float8": "2.5::float8", "numeric": "7.25", "bool": "true", "text": "'abc'::text",
    "varchar": "'abd'::varchar", "bpchar": "'abe'::bpchar", "name": "'abf'::name", "bytea": "'\\x6162'::bytea", "json": "'{\"a\": [1, 2]}'::json",
    "jsonb": "'{\"a\": [1, 2]}'::jsonb", "date": "'2020-03-01'::date", "time": "'10:00'::time", "timestamp": "'2020-03-01 10:00'::timestamp",
    "timestamptz": "'2020-03-01 10:00+02'::timestamptz", "interval": "'1 day 2 hours'::interval", "uuid": "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "oid": "23::oid",
    "inet": "'192.168.1.5/24'::inet", "cidr": "'192.168.1.0/24'::cidr", "macaddr": "'08:00:2b:01:02:03'::macaddr", "bit": "b'101'", "varbit": "b'101'::varbit",
    "point": "'(1,2)'::point", "box": "'((0,0),(1,1))'::box", "circle": "'<(0,0),2>'::circle", "path": "'[(0,0),(1,1)]'::path", "polygon": "'((0,0),(1,1),(1,0))'::polygon",
    "lseg": "'[(0,0),(1,1)]'::lseg", "line": "'{1,2,3}'::line", "money": "'12.34'::money", "tsvector": "'a b'::tsvector", "tsquery": "'a'::tsquery", "xml": "'<a/>'::xml",
    "jsonpath": "'$.a'::jsonpath", "anyarray": "array[1, 2]", "anycompatiblearray": "array[1, 2]", "anyelement": "5", "anycompatible": "5", "anynonarray": "5", "any": "5",
    "anyrange": "int4range(1, 5)", "int4range": "int4range(1, 5)", "anymultirange": "int4multirange(int4range(1, 5))", "_text": "array['a', 'b']", "_int4": "array[1, 2]",
    "_float8": "array[1.5]::float8[]", "record": "row(1, 'a')", "regconfig": "'english'::regconfig", "xid": "'3'::xid", "pg_lsn": "'0/1'::pg_lsn", "anyenum": "'a'::probe_mood",
    "char": "'a'::\"char\"", "_any": "5",
}  # fmt: skip
SETUP = "set timezone = 'Europe/Berlin'; set client_min_messages = error; create temp table if not exists nothing ();"


def call_of(catalog: Catalog, function: Function) -> str:
    arguments = []
    for oid in function.argument_types:
        name = catalog.types[oid].name
        arguments.append(VALUES.get(name, f"null::{catalog.qualified(catalog.types[oid])}"))
    call = f'pg_catalog."{function.name}"({", ".join(arguments)})'
    if function.kind == "w":
        return f"select {call} over () from (values (1), (2)) rows"
    return f"select {call} from (values (1), (2)) rows"


def answer(connection: psycopg.Connection[Any], sql: str) -> Any:
    result = connection.pgconn.exec_(sql.encode())
    if result.error_message:
        return result.error_field(67)  # its SQLSTATE
    return [result.get_value(row, 0) for row in range(result.ntuples)]


def test_a_builtin_that_is_cacheable_answers_the_same_twice(database: Any) -> None:
    catalog = database.catalog
    calls = []
    with (
        psycopg.connect(database.url, autocommit=True) as first,
        psycopg.connect(database.url, autocommit=True) as second,
    ):
        first.execute("drop type if exists probe_mood; create type probe_mood as enum ('a', 'b')")
        database.reload()
        catalog = database.catalog
        for group in catalog.functions.values():
            for function in group:
                if function.schema != PG_CATALOG or function.kind == "p":
                    continue
                sql = call_of(catalog, function)
                if database.rule(sql) == "cacheable":
                    calls.append(sql)
        for connection in (first, second):
            connection.execute(SETUP)
        before = [answer(first, sql) for sql in calls]
        first.execute("create table if not exists moved (a int); insert into moved values (1)")
        time.sleep(1.1)  # so that whatever shows seconds shows others
        after = [answer(second, sql) for sql in calls]
        first.execute("drop type probe_mood; drop table moved")
    database.reload()
    differing = [(sql, one, other) for sql, one, other in zip(calls, before, after, strict=True) if one != other]
    assert [] == differing
    answered = sum(isinstance(one, list) for one in before)
    assert answered > 1200, f"{answered} of {len(calls)}"
