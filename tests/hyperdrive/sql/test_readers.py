"""Verdicts are remembered by text and by shape, within a bound, until the catalog changes."""

from __future__ import annotations

import pytest

from hyperdrive.sql import readers
from hyperdrive.sql.catalog import Catalog, Identity, build
from hyperdrive.sql.generations import ENTRY_BYTES, Generations
from hyperdrive.sql.readers import ReadVerdicts, WriteVerdicts
from hyperdrive.sql.resolve import Cacheable
from hyperdrive.sql.rules import Refused, Rule
from hyperdrive.sql.writes import NOTHING, UNKNOWN, UNKNOWN_AND_EPOCH, Writes

PUBLIC, PATH = 2200, (11, 2200)


def catalog(oid: int = 100) -> Catalog:
    """One table ``t`` with an int4 ``id``, built by hand."""
    rows = {
        "schemas": [(11, "pg_catalog", 10), (PUBLIC, "public", 10)],
        "relations": [(oid, PUBLIC, "t", "r", "p", False, False)],
        "columns": [(oid, 1, "id", 23), (oid, 2, "txt", 25)],
        "types": [(23, 11, "int4", "b", "N", 0, 1007, 0, 0), (25, 11, "text", "b", "S", 0, 1009, 0, 0)],
        "operators": [(11, "=", 23, 23, 16, 65)],
    }
    return build(rows, Identity(1, 1, 5, 180000))


def test_nothing_is_cached_before_the_catalog_is_loaded() -> None:
    found = ReadVerdicts().read(b"select * from t", PATH)
    assert isinstance(found, Refused)
    assert Rule.ORIGIN_UNKNOWN is found.rule


def test_a_text_is_parsed_once() -> None:
    verdicts = ReadVerdicts()
    verdicts.use(catalog())
    first = verdicts.read(b"select id from t where id = $1", PATH, (23,))
    assert Cacheable((100,), ("public.t",), ()) == first
    for _ in range(3):
        assert verdicts.read(b"select id from t where id = $1", PATH, (23,)) is first
    assert 1 == verdicts.parsed


def test_other_literals_are_no_new_text() -> None:
    verdicts = ReadVerdicts()
    verdicts.use(catalog())
    for number in range(100):
        found = verdicts.read(b"select id from t where id = %d and txt = 'n%d'" % (number, number), PATH)
        assert isinstance(found, Cacheable)
    assert (1, 99) == (verdicts.parsed, verdicts.shared)
    assert 1 == len(verdicts)  # no text was stored: none came twice


def test_a_text_of_which_only_digits_are_new_needs_no_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = ReadVerdicts()
    verdicts.use(catalog())
    known = [verdicts.read(b"select id from t where id = %d" % number, PATH) for number in range(10, 13)]
    monkeypatch.setattr(readers, "shape", None)
    assert known[0] is verdicts.read(b"select id from t where id = 13", PATH)
    with pytest.raises(TypeError):
        verdicts.read(b"select id from t where id = 130", PATH)
    with pytest.raises(TypeError):
        verdicts.read(b"select id from t where id = 14", (11,))


def test_names_and_parameters_that_differ_in_digits_are_told_apart() -> None:
    """However often each was seen."""
    verdicts = ReadVerdicts()
    rows = {
        "schemas": [(11, "pg_catalog", 10), (PUBLIC, "public", 10)],
        "relations": [(oid, PUBLIC, name, "r", "p", False, False) for oid, name in ((1, "t1"), (2, "t2"), (3, "t 3"))],
        "columns": [(oid, 1, "id", 23) for oid in (1, 2, 3)],
        "types": [(23, 11, "int4", "b", "N", 0, 1007, 0, 0)],
    }
    verdicts.use(build(rows, Identity(1, 1, 5, 180000)))
    for number in range(100, 110):
        for sql, tags, scan in (
            (b"select id, %d from t1", 1, ()),
            (b"select id, %d from t2", 2, ()),
            (b'select id, %d from "t 3"', 3, ()),
            (b"select $1, %d from t1", 1, (1,)),
            (b"select $2, %d from t1", 1, (1, 2)),
        ):
            found = verdicts.read(sql % number, PATH)
            assert isinstance(found, Cacheable)
            assert ((tags,), scan) == (found.tags, found.scan)
        for sql in (b"select id, %d from t3", b'select id, %d from "t 4"'):
            assert isinstance(verdicts.read(sql % number, PATH), Refused)


def test_clock_words_are_never_shared() -> None:
    verdicts = ReadVerdicts()
    verdicts.use(catalog())
    assert isinstance(verdicts.read(b"select id from t where txt = 'x'", PATH), Cacheable)
    for text in (b"select id from t where txt = 'now'", b"select id from t where txt = 'n\"o\"w'"):
        found = verdicts.read(text, PATH)
        assert isinstance(found, Refused)
        assert Rule.CLOCK_WORD is found.rule


def test_path_and_parameter_types_are_part_of_the_question() -> None:
    verdicts = ReadVerdicts()
    verdicts.use(catalog())
    assert Cacheable((100,), ("public.t",), (1,)) == verdicts.read(b"select $1 from t", PATH)
    assert Cacheable((100,), ("public.t",), ()) == verdicts.read(b"select $1 from t", PATH, (23,))
    found = verdicts.read(b"select $1 from t", (11,))
    assert isinstance(found, Refused)
    assert Rule.RELATION is found.rule
    assert 1 == verdicts.parsed


def test_another_catalog_voids_what_was_resolved_and_nothing_else() -> None:
    verdicts = ReadVerdicts()
    verdicts.use(catalog())
    verdicts.read(b"select * from t", PATH)
    verdicts.use(catalog(200))
    assert Cacheable((200,), ("public.t",), ()) == verdicts.read(b"select * from t", PATH)
    verdicts.use(None)
    assert isinstance(verdicts.read(b"select * from t", PATH), Refused)
    assert 1 == verdicts.parsed


def test_memory_is_bounded() -> None:
    verdicts = ReadVerdicts(max_bytes=100_000)
    verdicts.use(catalog())
    for number in range(2000):
        verdicts.read(b"select id as a%d from t" % number, PATH)
    assert verdicts.size_bytes <= 100_000
    for number in range(2000):
        for _ in range(3):
            verdicts.read(b"select id, %d from t where id = %s" % (number, b"1" * (number // 10)), PATH)
    assert verdicts.size_bytes <= 100_000
    verdicts.read(b"select " + b"1" * 20_000, PATH)
    assert verdicts.size_bytes <= 100_000


def test_writes_are_shared_by_shape() -> None:
    verdicts = WriteVerdicts()
    verdicts.use(catalog())
    for number in range(50):
        assert Writes(frozenset((100,))) == verdicts.targets(
            b"insert into t values (%d, 'now%d')" % (number, number), PATH
        )
    assert 1 == verdicts.parsed


def test_writes_are_unknown_without_catalog_or_path_and_ddl_ends_the_epoch_all_the_same() -> None:
    verdicts = WriteVerdicts()
    for path in (PATH, None):
        assert UNKNOWN == verdicts.targets(b"insert into t values (1)", path)
        assert UNKNOWN_AND_EPOCH == verdicts.targets(b"alter table t add x int", path)
        assert NOTHING == verdicts.targets(b"set a = b", path)
    verdicts.use(catalog())
    assert UNKNOWN == verdicts.targets(b"insert into t values (1)", None)
    assert Writes(frozenset((100,))) == verdicts.targets(b"insert into t values (1)", PATH)


def test_generations_keep_what_is_asked_for() -> None:
    kept: Generations[int, str] = Generations(10 * (ENTRY_BYTES + 10))
    kept.put(0, "kept", 10)
    for number in range(1, 100):
        kept.put(number, "once", 10)
        assert "kept" == kept.get(0)
    assert kept.get(1) is None
    assert kept.size_bytes <= 10 * (ENTRY_BYTES + 10)
    kept.put(5, "too large", 10_000)
    assert kept.get(5) != "too large"
    kept.clear()
    assert (0, 0) == (len(kept), kept.size_bytes)
