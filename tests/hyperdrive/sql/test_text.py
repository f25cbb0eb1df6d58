"""Quoting, comments, encodings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.sql import is_ascii_safe, parse, quote_identifier, quote_literal, strip_comments
from hyperdrive.sql.text import parameters_in


@pytest.mark.parametrize(
    ("value", "quoted"),
    [(b"", b"''"), (b"it's", b"'it''s'"), (b"a\\b'", b" E'a\\\\b'''"), ("é".encode(), "'é'".encode())],
)
def test_quote_literal(value: bytes, quoted: bytes) -> None:
    assert quote_literal(value) == quoted


@pytest.mark.parametrize(("name", "quoted"), [(b"a", b'"a"'), (b'A"b', b'"A""b"'), (b"a.b", b'"a.b"')])
def test_quote_identifier(name: bytes, quoted: bytes) -> None:
    assert quote_identifier(name) == quoted


@pytest.mark.parametrize("bad", [b"a\0b", b"\0"])
def test_a_zero_byte_cannot_be_quoted(bad: bytes) -> None:
    with pytest.raises(ValueError, match="zero byte"):
        quote_literal(bad)
    with pytest.raises(ValueError, match="not a name"):
        quote_identifier(bad)
    with pytest.raises(ValueError, match="not a name"):
        quote_identifier(b"")


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=15)


@given(TEXT)
def test_what_is_quoted_reads_back(value: str) -> None:
    (single,) = parse(b"set a = " + quote_literal(value.encode())).statements or ()
    assert single.setting is not None
    assert single.setting.values == (value.encode(),)


@given(TEXT.filter(lambda name: 0 < len(name.encode()) < 64))
def test_a_quoted_name_reads_back(name: str) -> None:
    (single,) = parse(b"savepoint " + quote_identifier(name.encode())).statements or ()
    assert single.name == name.encode()


@pytest.mark.parametrize(
    ("sql", "stripped"),
    [
        (b"select 1", b"select 1"),
        (b"select/* a /* b */ c */1", b"select 1"),
        (b"select 1 -- a\n, 2", b"select 1  \n, 2"),
        (b"select '--', \"/*\", $$--$$ /**/", b"select '--', \"/*\", $$--$$  "),
        (b"select E'\\'--' -- x", b"select E'\\'--'  "),
        ("select 'é' /* é */ , 'ü'".encode(), "select 'é'   , 'ü'".encode()),
        (b"select '\xe9' /* \xe9 */, '\xfc'", b"select '\xe9'  , '\xfc'"),
        (b"-- only", b" "),
    ],
)
def test_strip_comments(sql: bytes, stripped: bytes) -> None:
    assert strip_comments(sql) == stripped


@pytest.mark.parametrize("sql", [b"/* open", b"select '--", b"select \0 --"])
def test_strip_comments_of_what_is_no_sql(sql: bytes) -> None:
    with pytest.raises(ValueError):
        strip_comments(sql)


@pytest.mark.parametrize(
    "name", ["SJIS", "Shift_JIS", "shift_jis_2004", "BIG5", "GBK", "GB18030", "UHC", "JOHAB", "win932", "WIN949"]
)
def test_w41_encodings_with_ascii_bytes_inside_characters(name: str) -> None:
    assert not is_ascii_safe(name.encode())


@pytest.mark.parametrize("name", ["UTF8", "utf-8", "LATIN1", "SQL_ASCII", "EUC_JP", "WIN1252", "KOI8R"])
def test_w41_encodings_with_none(name: str) -> None:
    assert is_ascii_safe(name.encode())


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (b"select 1", 0),
        (b"select '$'", 0),
        (b"select $1, $12, $3", 12),
        (b"select set_config('a$b', $2, false)", 2),
        (b"select 1 where $1='x'and $2", 2),
        (b"select $1::int + $2", 2),
        (b"select $$text $3$$", None),
        (b"select $a$text$a$", None),
        (b"select a$1 from t", None),
        (b'select $1 as "a$2"', None),
        (b"select $1 -- $2", None),
        (b"select $1 /* $2 */", None),
        (b"select $1, E'it\\'s $2'", None),
        (b"select $1, 'open $2", None),
    ],
)
def test_parameters_are_counted_where_that_takes_no_lexer(sql: bytes, expected: int | None) -> None:
    assert expected == parameters_in(sql)
