"""The memory of verdicts: bounded, and not swept out by texts that never come again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.sql import Kind, Reason, VerdictCache, classify
from hyperdrive.sql.cache import FOLD
from hyperdrive.sql.functions import BEFORE_PARENTHESIS

_TOKENS = [
    *(
        b"select ",
        b"update t set a = ",
        b"insert into t values ",
        b"into ",
        b"for update",
        b"1",
        b"2",
        b"0",
        b"md5(a)",
        b"md6(a)",
    ),
    *(
        b"int4(",
        b"log10(",
        b"f1(",
        b"f0(",
        b")",
        b"'7'",
        b"$1",
        b"$2$;$2$",
        b"--1\n",
        b"/*3*/",
        b";",
        b" ",
        b'"a1"(',
        b"U&'\\0041'",
    ),
]


def test_a_known_text_gives_the_same_verdict() -> None:
    cache = VerdictCache()
    first = cache.classify(b"BEGIN ISOLATION LEVEL SERIALIZABLE")
    assert cache.classify(b"BEGIN ISOLATION LEVEL SERIALIZABLE"[:]) is first
    assert cache.misses == 1


def test_keys_are_exact_bytes() -> None:
    cache = VerdictCache()
    names = [cache.classify(sql).single for sql in (b"savepoint a", b'savepoint "A"', b"savepoint  a")]
    assert [b"a", b"A", b"a"] == [single.name for single in names if single is not None]
    assert len(cache) == 3


def test_screened_texts_are_stored_on_second_sight() -> None:
    cache = VerdictCache()
    cache.classify(b"select md5(a)")
    assert len(cache) == 0
    cache.classify(b"select md5(a)")
    assert len(cache) == 1
    cache.classify(b"select md5(a)")
    assert cache.misses == 2


def test_texts_that_differ_in_digits_are_one() -> None:
    cache = VerdictCache()
    verdicts = [cache.classify(b"select a from t where id = %d" % number) for number in range(10, 100)]
    assert {id(verdicts[0])} == set(map(id, verdicts))
    assert (1, 2) == (len(cache), cache.misses)


def test_a_fold_stands_for_no_function_that_was_not_looked_at() -> None:
    """``md5(x)`` is PostgreSQL's, ``md6(x)`` is somebody's."""
    cache = VerdictCache()
    for _ in range(3):
        assert cache.classify(b"select md5(a) from t").is_plain
        assert not cache.classify(b"select md6(a) from t").is_plain
        assert not cache.classify(b"select md0(a) from t").is_plain


@given(st.lists(st.lists(st.sampled_from(_TOKENS), max_size=6).map(b"".join), max_size=30))
def test_what_is_remembered_says_what_is_judged(texts: list[bytes]) -> None:
    """Whatever was seen before: other digits, the same letters."""
    cache = VerdictCache()
    for sql in texts * 3:
        expected = classify(sql)
        found = cache.classify(sql)
        assert (expected.kind, expected.is_plain, expected.is_read) == (found.kind, found.is_plain, found.is_read)


def test_no_word_that_may_stand_before_a_parenthesis_is_the_fold_of_another() -> None:
    assert [] == [word for word in BEFORE_PARENTHESIS if word.translate(FOLD) == word and b"0" in word]


def test_texts_with_new_literals_do_not_sweep_out_the_others() -> None:
    cache = VerdictCache(max_bytes=20_000)
    begin = cache.classify(b"begin")
    for number in range(20_000):
        cache.classify(b"update t set a = %d" % number)
    assert cache.classify(b"begin") is begin
    assert cache.size_bytes < 20_000


def test_memory_is_bounded_and_what_is_in_use_stays() -> None:
    cache = VerdictCache(max_bytes=50_000)
    kept = cache.classify(b"begin")
    for number in range(2_000):
        cache.classify(b"savepoint s%d" % number)
        assert cache.classify(b"begin") is kept
    assert cache.size_bytes <= 50_000
    assert len(cache) < 200


def test_a_text_larger_than_the_bound_is_judged_and_not_kept() -> None:
    cache = VerdictCache(max_bytes=1_000)
    long = b"savepoint " + b"x" * 2_000
    assert {Kind.SAVEPOINT} == {cache.classify(long).kind for _ in range(3)}
    assert len(cache) == 0


def test_parse_replaces_a_look() -> None:
    cache = VerdictCache()
    assert cache.classify(b"select * from t").is_screened
    parsed = cache.parse(b"select * from t")
    assert not parsed.is_screened
    assert parsed.single is not None
    assert parsed.single.relations
    assert cache.classify(b"select * from t") is parsed
    assert cache.parse(b"select * from t") is parsed


def test_parse_keeps_a_text_that_only_looked_like_sql_as_unknown() -> None:
    cache = VerdictCache()
    assert cache.classify(b"select from where").is_plain
    assert cache.parse(b"select from where").reason is Reason.DOES_NOT_PARSE


def test_clear_forgets() -> None:
    cache = VerdictCache()
    cache.classify(b"begin")
    cache.clear()
    assert (0, 0) == (len(cache), cache.size_bytes)


@pytest.mark.parametrize("sql", [b"", b"select 1", b"begin", b"selec"])
def test_the_cache_agrees_with_classify(sql: bytes) -> None:
    cache = VerdictCache()
    for _ in range(3):
        assert cache.classify(sql).kind is classify(sql).kind


@pytest.mark.parametrize("ascii_safe", [True, False])
@pytest.mark.parametrize("standard_strings", [True, False])
@pytest.mark.parametrize("sql", [b"begin", b"select '\x95'; commit", rb"select 'a\'b'; commit"])
def test_w41_w42_a_reader_says_what_classify_says(sql: bytes, ascii_safe: bool, standard_strings: bool) -> None:
    read = VerdictCache().reader(ascii_safe=ascii_safe, standard_strings=standard_strings)
    expected = classify(sql, ascii_safe=ascii_safe, standard_strings=standard_strings)
    assert (expected.kind, expected.reason) == (read(sql).kind, read(sql).reason)


@pytest.mark.parametrize("ascii_safe", [True, False])
def test_w42_texts_without_a_backslash_are_read_whatever_literals_are(ascii_safe: bool) -> None:
    read = VerdictCache().reader(ascii_safe=ascii_safe, standard_strings=False)
    assert read(b"select 'a'; commit").kind is Kind.MULTI
    assert read(rb"select 'a\'b'; commit").reason is Reason.STRINGS


def test_w41_letters_in_an_unsafe_encoding_stay_unknown() -> None:
    for standard_strings in (True, False):
        read = VerdictCache().reader(ascii_safe=False, standard_strings=standard_strings)
        assert read(b"select '\x95'; commit").reason is Reason.ENCODING
