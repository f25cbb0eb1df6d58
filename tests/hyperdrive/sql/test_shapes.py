"""Verdicts are shared by shape only where literals cannot make a difference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.sql.cache import FOLD
from hyperdrive.sql.reading import Reading
from hyperdrive.sql.reads import analyse
from hyperdrive.sql.rules import Refused, Rule
from hyperdrive.sql.shapes import example, folded, may_hold_clock_word, shape

SAME = [
    ("select v from t where id = 17", "select v from t where id = 18"),
    ("select v from t where a = 'x' and b = 1.5", "select v from t where a = 'its' and b = 20.25"),
    ('select "T 1"."a" from "T 1" where "a" = 5', 'select "T 1"."a" from "T 1" where "a" = 6'),
    ("select t1.c2 from t1 where x in (1,2,3)", "select t1.c2 from t1 where x in (7,8,9)"),
    ("select $1 + 5", "select $1 + 6"),
    ("select '--', 1", "select '/*', 2"),
    ("select ';'", "select 'a;b'"),
    ("select '\"'", "select ''"),
    ("select '\\'", "select '{\\}'"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_literals_do_not_make_a_shape(one: str, other: str) -> None:
    assert shape(one.encode()) is not None
    assert shape(one.encode()) == shape(other.encode())


DIFFERENT = [
    ('select "a 1" from t', 'select "a 2" from t'),
    ("select a1 from t", "select a2 from t"),
    ("select $1", "select $2"),
    ("select 1", "select '1'"),
    ("select a-1", "select a+1"),
    ("select 1e5", "select 1e6"),
    ("select 'A' x", "select 'A' y"),
    ("select t from x", "select T from x"),
    ("select 'a''b'", "select 'ab'"),
    ("select interval '1'", "select interval 1"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_everything_else_does(one: str, other: str) -> None:
    assert shape(one.encode()) != shape(other.encode())


_PIECES = st.sampled_from(
    ["1", "20", ".", "e", "$", "a", "_", " ", ",", "-", '"', "'", "/*", "*/", "--", "&", "\\", "u", "é", "\n"]
)


@given(st.lists(_PIECES, max_size=14).map("".join))
def test_one_digit_is_as_good_as_another(text: str) -> None:
    """``ReadVerdicts`` finds by its fold a shape that has no digit left: that is the shape of each text with that fold."""
    sql = text.encode()
    form, of_fold = shape(sql), shape(sql.translate(FOLD))
    assert (form is None) is (of_fold is None)
    if form is not None:
        assert form.encode().translate(FOLD) == (of_fold or "").encode()


SHAPELESS = [
    "select e'n\\x6fw'", "select $$now$$", "select $a$now$a$", "select 'no'\n'w'", "select 'no' \t\n 'w'", "select u&'n!006fw' uescape '!'",
    'select u&"d!0061t" uescape \'!\'', "select 1 -- it's", "select /* ' */ 1", "select 'open", 'select "open', "select e'\\'", "select 1 /* x */", "select \\ 1", "select date'\\'", "select a$1",
    "select '\0'", "select \"it's\", 'x'",
]  # fmt: skip


@pytest.mark.parametrize("sql", SHAPELESS)
def test_where_the_lexer_is_needed_there_is_no_shape(sql: str) -> None:
    assert shape(sql.encode()) is None


CLOCKS = ["'n\\ow'", "'now'", "'TODAY'", "'[n\"o\"w,)'", "'\"to\"morrow'", "'yesterday'", "' Now '"]


@pytest.mark.parametrize("literal", CLOCKS)
def test_clock_words_are_seen(literal: str) -> None:
    assert may_hold_clock_word(f"select {literal}".encode())


# Pieces that mean something to a lexer; "{}" is where a literal goes.
PIECES = st.sampled_from(
    [
        "select", "from t", "where a =", "and", "or", ",", "(", ")", "'{}'", "{}", "'{}'::date", "date '{}'", "interval '{}'", "$1", "f(", "t.", "a", "b1",
        '"c 1"', '"c{}"', "limit {}", "order by {}", "x'{}'", "b'{}'", "e'{}'", "n'{}'", "u&'{}'", "like '{}' escape '{}'", "in ({}, {})", "::numeric({}, {})",
        "now()", "random()", ";", "delete from t", "--", "/*", "*/", "\n", "'", '"', "$$", "-", "+", ".", "{}.5", "[{}]", "union", "for update", "into", "with x as (",
        "group by {}", "u(", "t.u", "ctid", "as", "::float({})", "null", "case when {} then '{}' end", "json_value(j, '{}')", "é", "array['{}', '{}']", "between {} and {}",
    ]
)  # fmt: skip
STRINGS = st.sampled_from(
    [
        "",
        "x",
        "2020-01-01",
        "it''s",
        "--",
        "/*",
        "*/",
        ";",
        "select",
        '"',
        "$1",
        "1",
        "$$",
        "''",
        "é",
        "U&",
        "!",
        " ",
        "\n",
        "or 1=1",
        "%d",
    ]
)
NUMBERS = st.sampled_from(["0", "1", "17", "99999999999", "1.5", "007"])


@st.composite
def pair(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two texts that differ in their literals only, as far as whoever wrote them thinks."""
    template = draw(st.sampled_from([" ", ""])).join(["select", *draw(st.lists(PIECES, max_size=10))])
    texts = []
    for _ in range(2):
        parts = template.split("{}")
        text = parts[0]
        for part in parts[1:]:
            text += draw(STRINGS if text.endswith("'") and text.count("'") % 2 else NUMBERS) + part
        texts.append(text.encode())
    return texts[0], texts[1]


def outcome(sql: bytes) -> Reading | Rule:
    found = analyse(sql)
    return found.rule if isinstance(found, Refused) else found


@given(pair())
def test_texts_of_one_shape_are_judged_alike(texts: tuple[bytes, bytes]) -> None:
    """If one of them is refused, so is the other; a text that does not parse may be called anything: it never gets an answer."""
    one, other = texts
    if shape(one) is None or shape(one) != shape(other) or may_hold_clock_word(one) or may_hold_clock_word(other):
        return
    first, second = outcome(one), outcome(other)
    if Rule.SYNTAX not in (first, second):
        assert first == second


@given(st.binary(max_size=40))
def test_any_bytes_will_do(sql: bytes) -> None:
    assert isinstance(shape(sql), str | None)
    assert may_hold_clock_word(sql) in (True, False)


def test_a_literal_that_decides_is_no_literal_of_a_shape() -> None:
    """What parses to a different tree has a different shape: the tree of a shape is that of its texts, constants apart."""
    first, second = (
        outcome(b"select a from t where b = 1 and c = 'x'"),
        outcome(b"select a from t where b = 22 and c = 'y''s'"),
    )
    assert isinstance(first, Reading)
    assert first.relations == second.relations if isinstance(second, Reading) else False


FOLDED = [
    (
        "insert into t values (1, 'a'), (2, null), (-3, 'it''s'::text), ($1, default) returning id",
        "insert into t values (1) returning id",
    ),
    (
        "select * from t where a IN (1, 2, 3) and b in ('x') and f(1, 2) in (f(3), 4)",
        "select * from t where a IN (1) and b in (1) and f(1, 1) in (f(1), 1)",
    ),
    ("insert into t values (1, now()), (2, f(1, 2))", "insert into t values (1, now()), (1, f(1, 1))"),
    ("select f(1, 2), (3)", "select f(1, 1), (1)"),
]


@pytest.mark.parametrize(("sql", "expected"), FOLDED)
def test_long_lists_of_constants_are_folded(sql: str, expected: str) -> None:
    form = shape(sql.encode())
    assert form is not None
    assert expected == example(folded(form)).replace("''", "1")
