"""The effective search path is the server's own ``current_schemas`` (caching rules §2, field 4)."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql as pg

PATHS = [
    '"$user", public', "public", "public, other", "other, public, other", '"$user"', '""', "nowhere, public", "hidden, other, public",
    "pg_catalog, public", "public, pg_catalog, other", "OTHER, Public", '"Other", public', "information_schema", 'other,"public"',
]  # fmt: skip


@pytest.mark.parametrize("role", ["postgres", "reader", "member", "pg_read_all_data"])
def test_the_effective_path_is_the_servers(database: Any, role: str) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(pg.SQL("set role {}").format(pg.Identifier(role)))
        for path in PATHS:
            connection.execute("select set_config('search_path', %s, false)", (path,))
            row = connection.execute(
                "select current_setting('search_path'), array(select n.oid::int8 from unnest(current_schemas(true)) with ordinality "
                "u(name, place) join pg_namespace n on n.nspname = u.name order by place)"
            ).fetchone()
            assert row is not None
            oid = database.catalog.roles[role].oid
            assert tuple(row[1]) == database.catalog.path(row[0], oid), (role, path)


@pytest.mark.parametrize("path", ["pg_temp, public", "public,", '"open', ",public", "pg_temp_3"])
def test_a_path_that_cannot_be_told_is_none(database: Any, path: str) -> None:
    assert database.catalog.path(path, database.catalog.roles["postgres"].oid) is None


def test_an_unknown_role_has_no_path(database: Any) -> None:
    assert database.catalog.path("public", 1) is None


def test_the_path_decides_what_a_name_means(database: Any) -> None:
    other, public = database.catalog.schemas["other"], database.catalog.schemas["public"]
    for path, schema in [((11, other, public), "other.t"), ((11, public, other), "public.t")]:
        found = database.judge("select * from t", path=path)
        assert (schema,) == found.names
    # What stands before pg_catalog in the path wins over it.
    assert "operator" == database.judge("select 1 + 'a'", path=(11, other)).rule.value
    assert "cacheable" == database.rule("select 1 + 2")
