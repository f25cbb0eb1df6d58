"""Each refusal explains itself: the rule, the object that triggered it, and what would lift it (caching rules §1.3)."""

from __future__ import annotations

from typing import Any

from hyperdrive.sql.explaining import WORDS, explain, summary
from hyperdrive.sql.rules import Rule


def lines(database: Any, sql: str) -> list[str]:
    return explain(database.judge(sql), database.catalog, database.writes(sql))


def test_every_rule_has_words() -> None:
    assert set(Rule) == set(WORDS)


def test_a_refusal_says_rule_object_and_what_would_help(database: Any) -> None:
    assert [
        "not cacheable, rule function: a function's result depends on more than the tables and the settings",
        "because of now()",
        "what would help: pass the time as a parameter",
    ] == lines(database, "select now()")


def test_what_is_behind_a_view_is_told(database: Any) -> None:
    assert [
        "not cacheable, rule view: what is wrong is in the view's body",
        "because of public.clock_view",
        "what would help: pass the time as a parameter",
        "  because of now() (rule function)",
        "  what would help: pass the time as a parameter",
    ] == lines(database, "select * from deep_view")
    assert "view: public.clock_view (function: now())" == summary(database.judge("select * from deep_view"))


def test_a_cacheable_read_says_on_what_it_depends(database: Any) -> None:
    assert [
        "cacheable",
        "depends on public.parted",
        "dropped as well when these change: public.parted_1, public.parted_2, public.parted_2x",
        "not when $1 says now, today, tomorrow or yesterday",
    ] == lines(database, "select * from parted where a = $1")
    assert ["cacheable", "depends on no relation: it stays until it expires or the schema changes"] == lines(
        database, "select 1"
    )
    assert "cacheable: public.t, public.txt" == summary(database.judge("select * from t, txt"))


def test_a_write_says_what_it_drops(database: Any) -> None:
    assert "drops what depends on public.child, public.grandchild, public.t" == lines(database, "delete from t")[-1]
    assert lines(database, "do 'begin end'")[-1].startswith("may change anything")
    assert lines(database, "drop table t")[-1].startswith("changes what statements mean")


def test_every_refusal_of_the_vectors_names_an_object(database: Any) -> None:
    from tests.hazards_cache.test_rules import VECTORS

    for parameter in VECTORS:
        found = database.judge(parameter.values[1])
        assert found.object, parameter.values[1]
