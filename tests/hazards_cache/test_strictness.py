"""A disguise never makes a verdict laxer: case, comments, white space, nesting, CTEs, views (caching rules §15.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperdrive.sql.rules import Refused
from tests.hazards_cache.test_rules import CACHEABLE, VECTORS

REFUSED = [parameter.values[1] for parameter in VECTORS]
QUERIES = [sql for sql in REFUSED if re.match(r"select|table|values", sql) and ";" not in sql and " into " not in sql]

SPACE = st.sampled_from([" ", "\n", "\t ", "/**/", " /* it's */ ", ' -- "x\n', "/* a /* b */ */"])


@st.composite
def disguised(draw: st.DrawFn, texts: list[str]) -> tuple[str, str]:
    """A text, and the same in other case and with comments and white space between its words."""
    sql = draw(st.sampled_from(texts))
    if any(mark in sql for mark in ("'", '"', "--", "/*", "$")):
        return sql, draw(SPACE) + sql + draw(SPACE) + draw(st.sampled_from(["", ";"]))
    words = [draw(st.sampled_from([word, word.upper(), word.title()])) for word in sql.split(" ")]
    return sql, words[0] + "".join(draw(SPACE) + word for word in words[1:])


@given(pair=disguised(REFUSED))
def test_case_comments_and_white_space_do_not_matter(database18: Any, pair: tuple[str, str]) -> None:
    before, after = (database18.rule(sql) for sql in pair)
    assert before == after


@given(pair=disguised(CACHEABLE))
def test_nor_do_they_make_anything_refused(database18: Any, pair: tuple[str, str]) -> None:
    before, after = (database18.judge(sql) for sql in pair)
    assert before == after


WRAPPERS = [
    "select * from ({}) wrapped_1", "with wrapped_2 as ({}) select * from wrapped_2", "select 1 union all select 1 from ({}) wrapped_3", "select exists ({})",
    "select array(select 1 from ({}) wrapped_4)", "select 1 from t where exists (select 1 from ({}) wrapped_5)", "with wrapped_6 as materialized ({}) select count(*) from wrapped_6",
    "select case when exists ({}) then 1 end", "select x.* from t, lateral ({}) x", "({}) limit 5", "select * from t where (select count(*) from ({}) wrapped_7) > 0",
    "(select 1 limit 0) union all select 1 from ({}) wrapped_8", "select v from t order by (select count(*) from ({}) wrapped_9)",
]  # fmt: skip


@given(sql=st.sampled_from(QUERIES), wrappers=st.lists(st.sampled_from(WRAPPERS), min_size=1, max_size=4))
def test_nesting_hides_nothing(database18: Any, sql: str, wrappers: list[str]) -> None:
    for wrapper in wrappers:
        sql = wrapper.format(sql)
    assert "cacheable" != database18.rule(sql), sql


@contextmanager
def views(database: Any, texts: list[str]) -> Iterator[dict[str, str]]:
    """Views over each of *texts* that a view can be made of: names and bodies."""
    made = {}
    with psycopg.connect(database.url, autocommit=True) as connection:
        for number, sql in enumerate(texts):
            name = f"disguise_{number}"
            try:
                connection.execute(f"create view {name} as select 1 as one from ({sql}) disguised")  # type: ignore[call-overload]
            except psycopg.Error:
                continue  # parameters, names that do not exist
            made[name] = sql
    try:
        database.reload()
        yield made
    finally:
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute(f"drop view {', '.join(made)}")  # type: ignore[call-overload]
        database.reload()


# What PostgreSQL evaluates when the view is made is no clock word any more.
FROZEN = re.compile(r"(?i)now|today|tomorrow|yesterday|n\\\\?ow|n\\x6fw|u&'n|'no'")


def test_a_view_hides_nothing(database: Any) -> None:
    """Each refused query as the body of a view: whoever reads the view is refused."""
    with views(database, QUERIES) as made:
        assert len(made) > 80
        lax = [sql for name, sql in made.items() if database.rule(f"select * from {name}") == "cacheable"]
        assert [] == [sql for sql in lax if not FROZEN.search(sql.replace('"', ""))]


def test_a_view_of_what_is_cacheable_is_cacheable(database: Any) -> None:
    """The body as PostgreSQL prints it is understood, or views would be worth nothing."""
    with views(database, CACHEABLE) as made:
        assert len(made) > 50
        assert {} == {
            sql: found
            for name, sql in made.items()
            if (found := database.judge(f"select * from {name}")) and isinstance(found, Refused)
        }


@settings(max_examples=200)
@given(st.lists(st.sampled_from(REFUSED + CACHEABLE), min_size=2, max_size=3))
def test_several_statements_are_always_refused(database18: Any, texts: list[str]) -> None:
    if all(texts):
        assert database18.rule("; ".join(texts)) in ("multi-statement", "syntax")
