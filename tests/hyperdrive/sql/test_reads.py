"""The walk over a SELECT skips what it knows to hold nothing; the verdict on a relation is remembered, and by nobody's depth."""

from __future__ import annotations

import pytest
from pglast import ast

from hyperdrive.sql.catalog import Catalog, Identity, build
from hyperdrive.sql.reading import Reading
from hyperdrive.sql.reads import analyse
from hyperdrive.sql.resolve import Cacheable, resolve
from hyperdrive.sql.rules import Refused, Rule

# What the walk knows of nodes below which it goes by field, not by whatever is there.
SEEN = {
    "ResTarget": {"val", "indirection"},
    "BoolExpr": {"args"},
    "A_Expr": {"name", "lexpr", "rexpr"},
    "FuncCall": {"funcname", "args", "agg_order", "agg_filter", "over"},
    "TypeCast": {"arg", "typeName"},
    "TypeName": {"names", "typmods", "arrayBounds"},
    "ColumnRef": {"fields"},
    "RangeVar": {"alias"},
    "Alias": {"colnames"},
    "ParamRef": set(),
}


@pytest.mark.parametrize("node", SEEN)
def test_the_parser_knows_no_other_place_for_a_node(node: str) -> None:
    """A newer grammar that adds a field fails here, before something in it goes unseen."""
    fields = getattr(ast, node).__slots__.items()
    assert SEEN[node] == {name for name, type_ in fields if type_.c_type.endswith("*") and type_.c_type != "char*"}


@pytest.mark.parametrize(
    "place",
    [
        "select {}",
        "select a and not {} from t",
        "select 1 + {} from t",
        "select 1 in (2, {}) from t",
        "select - {} from t",
        "select lower({}) from t",
        "select max(a order by {}) from t",
        "select max(a) filter (where {} > 0) from t",
        "select max(a) over (partition by {}) from t",
        "select max(a) over (order by a rows {} preceding) from t",
        "select {}::text from t",
        "select a from t group by {}",
        "select a from t join u on {} > 0",
        "select (array[{}])[1] from t",
        "select case a when 1 then {} end from t",
        "select a from t limit {}",
        "select a from (select {} as b) x",
        "with x as (select {} as b) select a from x",
    ],
)
def test_nothing_hides_in_any_place(place: str) -> None:
    found = analyse(place.format("random()").encode())
    assert isinstance(found, Refused), place
    assert (Rule.FUNCTION, "random()") == (found.rule, found.object)
    harmless = analyse(place.format("abs(other_column)").encode())
    assert isinstance(harmless, Reading)
    assert "other_column" in harmless.columns


def catalog(views: int) -> Catalog:
    """A table ``t`` below a tower of views ``v1`` … ."""
    names = ["t", *[f"v{number}" for number in range(1, views + 1)]]
    rows = {
        "schemas": [(11, "pg_catalog", 10), (2200, "public", 10)],
        "relations": [
            (100 + place, 2200, name, "v" if place else "r", "p", False, False) for place, name in enumerate(names)
        ],
        "views": [(100 + place, f"select id from public.{names[place - 1]}") for place in range(1, len(names))],
        "columns": [(100 + place, 1, "id", 23) for place in range(len(names))],
        "types": [(23, 11, "int4", "b", "N", 0, 1007, 0, 0)],
    }
    return build(rows, Identity(1, 1, 5, 180000))


def ask(known: Catalog, sql: bytes) -> Cacheable | Refused:
    reading = analyse(sql)
    assert isinstance(reading, Reading)
    return resolve(reading, known, (11, 2200))


def test_a_view_depends_on_all_that_is_behind_it_whoever_asked_before() -> None:
    first, then = catalog(3), catalog(3)
    expected = Cacheable((100, 101, 102, 103), ("public.t", "public.v1", "public.v2", "public.v3"), ())
    assert expected == ask(first, b"select id from v3")
    for name in (b"t", b"v1", b"v2"):
        ask(then, b"select id from " + name)
    assert expected == ask(then, b"select id from v3")
    assert expected == ask(then, b"select v3.id from v3, public.t, v1")
    assert Cacheable((100,), ("public.t",), ()) == ask(then, b"select id from t")


def test_a_tower_of_views_is_refused_and_what_it_stands_on_is_not() -> None:
    known = catalog(40)
    found = ask(known, b"select id from v40")
    assert isinstance(found, Refused)
    assert (Rule.VIEW, "views are nested too deeply") == (found.rule, found.hint)
    assert isinstance(ask(known, b"select id from v9"), Cacheable)
    assert isinstance(ask(known, b"select id from v20"), Cacheable)
    assert found == ask(known, b"select id from v40")


def test_a_plain_tables_dependence_is_shared() -> None:
    known = catalog(0)
    first, then = ask(known, b"select id from t"), ask(known, b"select id as x from t")
    assert isinstance(first, Cacheable)
    assert isinstance(then, Cacheable)
    assert (first.tags, first.names) == ((100,), ("public.t",))
    assert first.tags is then.tags
