"""The memory of verdicts: bounded, and not swept out by texts that never come again."""

from __future__ import annotations

import pytest

from hyperdrive.sql import Kind, Reason, VerdictCache, classify


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
    cache.classify(b"select 1")
    assert len(cache) == 0
    cache.classify(b"select 1")
    assert len(cache) == 1
    cache.classify(b"select 1")
    assert cache.misses == 2


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
