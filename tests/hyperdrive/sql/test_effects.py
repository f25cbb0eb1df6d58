"""What a statement leaves behind in the session, or needs of it: W-35 to W-49, E-4 and E-5."""

from __future__ import annotations

import pytest

from hyperdrive.sql import (
    AdvisoryLock,
    AdvisoryUnlock,
    Dropped,
    Effect,
    Kind,
    Mark,
    Parameter,
    Relation,
    SetConfig,
    TempObject,
    classify,
    parse,
)

UNLOCK_ALL = Mark.ADVISORY_UNLOCK_ALL
EFFECTS: list[tuple[str, list[Effect]]] = [
    # LISTEN
    ("LISTEN c", [Mark.LISTEN]),
    ("UNLISTEN c", []),
    # temporary objects
    ("CREATE TEMP TABLE t (a int)", [TempObject(b"t")]),
    ("CREATE LOCAL TEMPORARY TABLE t (a int) ON COMMIT DROP", [TempObject(b"t", on_commit_drop=True)]),
    ("CREATE TEMP TABLE t ON COMMIT DELETE ROWS AS SELECT 1", [TempObject(b"t")]),
    ("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1", [TempObject(b"t", on_commit_drop=True)]),
    ("CREATE TEMP VIEW v AS SELECT 1", [TempObject(b"v")]),
    ("CREATE TEMP SEQUENCE s", [TempObject(b"s")]),
    ("CREATE TABLE pg_temp.t (a int)", [TempObject(b"t")]),
    ('CREATE TABLE "pg_temp_3".t (a int)', [TempObject(b"t")]),
    ("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'select 1'", [TempObject(None)]),
    ("CREATE TYPE pg_temp.x AS (a int)", [TempObject(None)]),
    ("ALTER TABLE t SET SCHEMA pg_temp", [TempObject(None)]),
    ("SELECT 1 INTO TEMP t", [TempObject(b"t")]),
    ("SELECT 1 INTO pg_temp.t", [TempObject(b"t")]),
    ("SELECT 1 INTO TEMP t UNION SELECT 2", [TempObject(b"t")]),
    ("SET search_path = pg_temp, public", [TempObject(None)]),
    ("CREATE TABLE t (a int)", []),
    ("SELECT 1 INTO t", []),
    ("DROP TABLE a, pg_temp.b, public.c", [Dropped((b"a", b"b"))]),
    ("DROP VIEW v", [Dropped((b"v",))]),
    ("DROP TABLE public.c", []),
    ("DROP INDEX i", []),
    # session advisory locks
    ("SELECT pg_advisory_lock(1)", [AdvisoryLock((b"1",), False)]),
    ("SELECT pg_catalog.pg_advisory_lock(1)", [AdvisoryLock((b"1",), False)]),
    ('SELECT "pg_advisory_lock"(1)', [AdvisoryLock((b"1",), False)]),
    ("SELECT PG_TRY_ADVISORY_LOCK_SHARED(-1, 2::int4) AS x", [AdvisoryLock((b"-1", b"2"), True)]),
    ("SELECT pg_advisory_lock($1), pg_advisory_lock_shared(2)",
     [AdvisoryLock((Parameter(1),), False), AdvisoryLock((b"2",), True)]),
    ("SELECT pg_advisory_lock(id) FROM t", [AdvisoryLock(None, False)]),
    ("SELECT pg_advisory_lock(1), generate_series(1, 3)", [AdvisoryLock(None, False)]),
    ("SELECT pg_advisory_lock(generate_series(1, 3))", [AdvisoryLock(None, False)]),
    ("SELECT 1 WHERE pg_try_advisory_lock(1)", [AdvisoryLock(None, False)]),
    ("INSERT INTO t SELECT pg_advisory_lock(1)", [AdvisoryLock(None, False)]),
    ("EXPLAIN ANALYZE SELECT pg_advisory_lock(1)", [AdvisoryLock(None, False)]),
    ("SELECT pg_advisory_unlock(1)", [AdvisoryUnlock((b"1",), False)]),
    ("SELECT pg_advisory_unlock_shared($1, $2)", [AdvisoryUnlock((Parameter(1), Parameter(2)), True)]),
    ("SELECT pg_advisory_unlock(id) FROM t", []),
    ("SELECT pg_advisory_unlock(1), generate_series(1, 0)", []),
    ("SELECT pg_advisory_unlock(1) WHERE false", []),
    ("SELECT pg_advisory_unlock_all()", [UNLOCK_ALL]),
    ("SELECT pg_advisory_unlock_all() WHERE false", []),
    ("SELECT pg_advisory_xact_lock(1)", []),
    # cursors, prepared statements
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", [Mark.HOLD_CURSOR]),
    ("DECLARE c CURSOR FOR SELECT 1", []),
    ("DECLARE c CURSOR FOR SELECT pg_advisory_lock(1)", [AdvisoryLock(None, False)]),
    ("PREPARE p AS SELECT 1", [Mark.PREPARE]),
    ("PREPARE p AS SELECT pg_advisory_lock(1)", [AdvisoryLock(None, False), Mark.PREPARE]),
    # what never ends
    ("LOAD 'x'", [Mark.LOAD]),
    ("SELECT setseed(0.5)", [Mark.SETSEED]),
    ("SET SEED TO 0.5", [Mark.SETSEED]),
    ("SELECT pg_replication_origin_session_setup('o')", [Mark.SESSION_FUNCTION]),
    # settings changed by function
    ("SELECT set_config('Search_Path', 'x', false)", [SetConfig(b"search_path", b"x", False, False, True)]),
    ("SELECT pg_catalog.set_config('a.b', $1, true)", [SetConfig(b"a.b", Parameter(1), False, True, True)]),
    ("SELECT set_config('a', NULL, $2)", [SetConfig(b"a", None, True, Parameter(2), True)]),
    ("SELECT set_config($1, $2, 'f')", [SetConfig(Parameter(1), Parameter(2), False, False, True)]),
    ("SELECT set_config(is_local => true, setting_name => 'a', new_value => 'b')",
     [SetConfig(b"a", b"b", False, True, True)]),
    ("SELECT set_config('a', b, c) FROM t", [SetConfig(b"a", None, False, None, False)]),
    ("SELECT set_config('a', '1', false), set_config('a', '2', false)",
     [SetConfig(b"a", b"1", False, False, True), SetConfig(b"a", b"2", False, False, True)]),
    ("SELECT set_config('search_path', 'pg_temp', false)",
     [SetConfig(b"search_path", b"pg_temp", False, False, True), TempObject(None)]),
    ("SELECT * FROM (SELECT set_config('a', 'b', false)) s", [SetConfig(b"a", b"b", False, False, False)]),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "effects"), EFFECTS, ids=[case[0][:60] for case in EFFECTS])
def test_effects(sql: str, effects: list[Effect]) -> None:
    verdict = classify(sql.encode())
    assert effects == list(verdict.effects)
    assert not (effects and verdict.is_plain)


def test_asyncpg_resets_its_session_in_four_statements() -> None:
    sql = b"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"
    verdict = classify(sql)
    assert verdict.statements is not None
    kinds = [Kind.PLAIN, Kind.CLOSE_ALL, Kind.UNLISTEN_ALL, Kind.RESET_ALL]
    assert kinds == [one.kind for one in verdict.statements]
    assert verdict.effects == (UNLOCK_ALL,)


NOT_SUSPECT = [
    "SELECT count(*), max(a), now(), current_user FROM t",
    "SELECT a FROM t WHERE b = 'evil(1)'",
    "SELECT pg_catalog.format_type(a, b) FROM pg_attribute",
    "SELECT (information_schema._pg_expandarray(i.indkey)).n FROM pg_index i",
    "SELECT json('{}'), regclass('t'), date(a), int4(b), text(c) FROM t",
    "SELECT EXTRACT(year FROM a), a AT TIME ZONE 'UTC', trim(both FROM b), position('a' IN b) FROM t",
    "SELECT gen_random_uuid(), random(), nextval('s'), pg_notify('a', 'b')",
    "INSERT INTO t DEFAULT VALUES",
    "UPDATE t SET a = coalesce(b, 1) WHERE c IN (1, 2)",
    "CREATE INDEX ON t (lower(a))",
    "VACUUM",
    "COPY t FROM STDIN",
]
SUSPECT = [
    "SELECT evil()",
    "SELECT public.count(1)",
    'SELECT "Count"(1)',
    "SELECT a FROM t ORDER BY evil(a)",
    "SELECT * FROM evil(1)",
    "SELECT * FROM ROWS FROM (generate_series(1, 2), evil(2))",
    "SELECT count(*) FILTER (WHERE evil(a)) FROM t",
    "SELECT sum(evil(a)) OVER w FROM t WINDOW w AS (PARTITION BY evil(b))",
    "SELECT 1 LIMIT evil()",
    "SELECT (SELECT evil())",
    "SELECT CASE WHEN evil() THEN 1 END",
    "SELECT ARRAY[evil()]",
    "SELECT a[evil()] FROM t",
    "SELECT XMLELEMENT(name a, evil())",
    "SELECT JSON_OBJECT('a': evil())",
    "SELECT query_to_xml('select set_config(''a'', ''b'', false)', true, true, '')",
    "WITH a AS (SELECT evil()) SELECT * FROM a",
    "INSERT INTO t VALUES (evil(1))",
    "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = evil()",
    "INSERT INTO t VALUES (1) RETURNING evil(a)",
    "UPDATE t SET a = evil()",
    "DELETE FROM t WHERE evil(a)",
    "MERGE INTO t USING u ON evil(1) WHEN MATCHED THEN DELETE",
    "DO 'begin end'",
    "CALL f()",
    "EXECUTE p",
    "EXPLAIN SELECT evil()",
    "PREPARE p AS SELECT evil()",
    "COPY (SELECT evil()) TO STDOUT",
    "DECLARE c CURSOR FOR SELECT evil()",
    "ALTER TABLE t ADD a int DEFAULT evil()",
    "CREATE TABLE t AS SELECT evil()",
    "LOAD 'x'",
    "SELECT 1; SELECT evil()",
]


@pytest.mark.parametrize("sql", NOT_SUSPECT)
def test_w37_what_postgresql_brings_is_not_suspect(sql: str) -> None:
    assert not classify(sql.encode()).suspect
    assert not parse(sql.encode()).suspect


@pytest.mark.parametrize("sql", SUSPECT)
def test_w37_unknown_functions_are_suspect_wherever_they_stand(sql: str) -> None:
    verdict = classify(sql.encode())
    assert verdict.suspect
    assert not verdict.is_plain
    assert not verdict.is_read


def test_unknown_functions_are_named() -> None:
    verdict = classify(b'SELECT evil(), s."F"(evil(2))')
    assert verdict.single is not None
    assert {b"evil", b"s.F"} == set(verdict.single.unknown_functions)


NO_READS = [
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM (SELECT * FROM t FOR KEY SHARE) s",
    "(SELECT 1) UNION (SELECT a FROM t FOR SHARE)",
    "SELECT 1 INTO t",
    "SELECT 1 INTO t UNION SELECT 2",
    "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT 1",
    "WITH x AS (MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE RETURNING *) SELECT 1",
    "SELECT random()",
    "SELECT nextval('s')",
    "SELECT pg_export_snapshot()",
    "SELECT pg_notify('a', 'b')",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT lo_unlink(1)",
    "SELECT table_to_xml('v', true, true, '')",
    "SELECT evil()",
    "INSERT INTO t VALUES (1)",
    "EXPLAIN ANALYZE DELETE FROM t",
    "FETCH c",
    "SELECT 1; DELETE FROM t",
    "BEGIN",
    "NOTIFY c",
    "LOCK t",
]


@pytest.mark.parametrize("sql", NO_READS)
def test_e5_no_proven_read(sql: str) -> None:
    assert not classify(sql.encode()).is_read
    assert not parse(sql.encode()).is_read


READS = [
    "SELECT 1",
    "SELECT a, count(*) FROM t LEFT JOIN u USING (a) WHERE b = $1 GROUP BY a HAVING count(*) > 1 ORDER BY 2 DESC LIMIT 5",
    "SELECT a FROM t WHERE b IN (SELECT b FROM u WHERE c LIKE 'x%' AND d BETWEEN 1 AND 2) AND NOT e IS NULL",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r",
    "SELECT row_number() OVER (PARTITION BY a ORDER BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
    "SELECT * FROM t CROSS JOIN LATERAL (SELECT 1) s, generate_series(1, 2) WITH ORDINALITY g",
    "SELECT a::numeric(10, 2), CAST(b AS text), ARRAY[1, 2], ROW(1, 2), (c).d, e[1:2], f COLLATE \"C\" FROM t",
    "SELECT CASE a WHEN 1 THEN 2 ELSE 3 END, coalesce(a, b), greatest(1, 2), nullif(a, b), a IS TRUE FROM t",
    "SELECT a FROM t TABLESAMPLE system (1)",
    "SELECT a FROM t GROUP BY GROUPING SETS ((a), ())",
    "SELECT json_agg(a), jsonb_build_object('a', 1), b ->> 'c', JSON_VALUE(d, '$.x') FROM t",
    "SELECT * FROM JSON_TABLE('[]', '$' COLUMNS (a int PATH '$.a'))",
    "SELECT XMLFOREST(a AS b) FROM t",
    "SHOW ALL",
    "SELECT 1; SHOW TimeZone",
]  # fmt: skip


@pytest.mark.parametrize("sql", READS)
def test_e5_reads_as_far_as_a_text_can_tell(sql: str) -> None:
    for verdict in (classify(sql.encode()), parse(sql.encode())):
        assert verdict.is_read
        assert not verdict.may_write
        assert not verdict.takes_locks


@pytest.mark.parametrize(
    ("sql", "takes_locks"),
    [
        ("LOCK t", True),
        ("SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED", True),
        ("INSERT INTO t SELECT * FROM u FOR UPDATE", True),
        ("select * from t\n for\n\t update", True),
        ("SELECT pg_try_advisory_xact_lock(1)", True),
        ("SELECT pg_advisory_unlock(1)", True),
        ("SELECT evil()", True),
        ("DO 'begin end'", True),
        ("UPDATE t SET a = 1", False),
        ("SELECT updated, for_share FROM t", False),
    ],
)
def test_e4_locks_whose_release_is_a_signal(sql: str, takes_locks: bool) -> None:
    assert classify(sql.encode()).takes_locks is takes_locks


@pytest.mark.parametrize(
    ("sql", "reads_currval"),
    [
        ("SELECT currval('s')", True),
        ("SELECT lastval()", True),
        ("INSERT INTO u VALUES (currval('s'))", True),
        ("SELECT nextval('s'), currval('s')", False),
        ("INSERT INTO t VALUES (1); SELECT lastval()", False),
        ("SELECT 1; SELECT lastval()", True),
        ("CREATE TABLE t (a int DEFAULT currval('s'))", False),
        ("SELECT nextval('s')", False),
    ],
)
def test_w44_currval_needs_a_nextval_before_it(sql: str, reads_currval: bool) -> None:
    verdict = classify(sql.encode())
    assert verdict.reads_currval is reads_currval
    assert not (reads_currval and verdict.is_plain)


def test_relations_are_named_with_their_schema() -> None:
    verdict = parse(b'SELECT * FROM a JOIN s."B" USING (x) WHERE y IN (SELECT z FROM c)')
    assert verdict.single is not None
    assert {Relation(None, b"a"), Relation(b"s", b"B"), Relation(None, b"c")} == set(verdict.single.relations)
