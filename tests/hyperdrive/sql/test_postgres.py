"""What we say of statements, held against PostgreSQL itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from hyperdrive.sql import Kind, parse
from hyperdrive.sql.functions import READ, VOLATILE
from hyperdrive.sql.generate_builtins import _FUNCTIONS
from hyperdrive.sql.text import quote_identifier_if_needed
from hyperdrive.testing.postgres import Postgres

# One session's life; each statement must succeed where it stands.
SCRIPT = """
BEGIN | START TRANSACTION | SAVEPOINT a | RELEASE a | SAVEPOINT b | ROLLBACK TO b | COMMIT | BEGIN READ ONLY | END | BEGIN | ABORT
| BEGIN | COMMIT AND CHAIN | ROLLBACK AND CHAIN | ROLLBACK
| SET TimeZone = 'UTC' | SET LOCAL TimeZone = 'UTC' | SET TIME ZONE LOCAL | SET NAMES 'UTF8' | SET SCHEMA 'public' | SET SEED TO 0.5
| SET XML OPTION DOCUMENT | SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE | SET TRANSACTION READ ONLY | SET ROLE NONE
| SET SESSION AUTHORIZATION DEFAULT | RESET TimeZone | RESET ALL | RESET ROLE | RESET SESSION AUTHORIZATION | SET CONSTRAINTS ALL DEFERRED
| SHOW TimeZone | SHOW ALL | LISTEN c | NOTIFY c | UNLISTEN c | UNLISTEN *
| PREPARE p AS SELECT 1 | DEALLOCATE p | DEALLOCATE ALL | DEALLOCATE PREPARE ALL
| BEGIN | DECLARE k CURSOR FOR SELECT 1 | CLOSE k | COMMIT | DECLARE h CURSOR WITH HOLD FOR SELECT 1 | CLOSE ALL
| DISCARD PLANS | DISCARD SEQUENCES | DISCARD TEMPORARY | DISCARD TEMP | DISCARD ALL
| CREATE TEMP TABLE t (a int) | BEGIN | LOCK t | COMMIT | TRUNCATE t | EXPLAIN SELECT 1 | DO 'begin end' | CHECKPOINT | REINDEX TABLE t
| CREATE PROCEDURE pg_temp.f() LANGUAGE sql AS '' | CALL pg_temp.f()
"""


@pytest.fixture
def connection(postgres: Postgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize(
    "name", ["a", "_a1", "user", "select", "int", "left", "abort", "A", "a b", "1a", "a$b", "ü", 'a"b', "$user"]
)
def test_names_are_quoted_where_the_server_does(connection: psycopg.Connection[Any], name: str) -> None:
    row = connection.execute("select quote_ident(%s)", (name,)).fetchone()
    assert row == (quote_identifier_if_needed(name.encode()).decode(),)


def test_command_tags_are_those_of_the_server(connection: psycopg.Connection[Any]) -> None:
    checked = 0
    for sql in SCRIPT.split("|"):
        result = connection.pgconn.exec_(sql.strip().encode())
        assert not result.error_message, sql
        single = parse(sql.encode()).single
        assert single is not None
        if single.tag is not None:
            checked += 1
            assert single.tag == result.command_status, sql
    assert checked > 60


def test_each_setting_has_its_own_lower_case_name(connection: psycopg.Connection[Any]) -> None:
    """No two settings differ in case only, so folding is sound; and each name parses."""
    names = [name for (name,) in connection.execute("select name from pg_settings")]
    assert len(names) == len({name.lower() for name in names})
    for name in names:
        single = parse(f"SHOW {name}".encode()).single
        assert single is not None
        assert (Kind.SHOW, name.lower().encode()) == (single.kind, single.name)


def test_the_list_of_functions_is_no_more_trusting_than_the_catalog(connection: psycopg.Connection[Any]) -> None:
    """Each name that a proven read may call exists in this version and is not volatile in any overload."""
    catalog: dict[bytes, int] = {
        name.encode(): int(volatility) for name, volatility in connection.execute(_FUNCTIONS).fetchall()
    }
    assert not {name for name in READ if catalog.get(name, 0) == 2}
    types = {name.encode() for (name,) in connection.execute("select typname from pg_type")}
    assert not {name for name in READ | VOLATILE if name not in catalog and name not in types}


def test_w38_the_slice_of_a_set_replays_it(connection: psycopg.Connection[Any]) -> None:
    """The slice of a SET is the SET: replayed, it gives the same value."""
    sql = b"/* a */ SET search_path = a, 'b, c', \"D\" -- x"
    single = parse(sql).single
    assert single is not None
    assert single.setting is not None
    for text in (sql, single.setting.sql):
        connection.execute(text)
        assert connection.execute("show search_path").fetchone() == ('a, "b, c", "D"',)
