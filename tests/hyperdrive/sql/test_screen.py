"""The look and the parser never disagree, and disguises never make a verdict less strict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.sql import Kind, Verdict, classify, parse
from hyperdrive.sql.screen import screen

ORDINARY = [
    "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
    "UPDATE pgbench_accounts SET abalance = abalance + -3042 WHERE aid = 81234;",
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (10, 1, 73821, -4220, CURRENT_TIMESTAMP);",
    "SELECT 1",
    "select count(*) from t where id in (1, 2, 3) and updated_at < now()",
    'SELECT "auth_user"."id", "auth_user"."email" FROM "auth_user" WHERE "auth_user"."id" = 1 LIMIT 21',
    'INSERT INTO "t" ("a", "b") VALUES (1, \'x; y\') RETURNING "t"."id"'.replace("; ", ", "),
    "DELETE FROM t WHERE a = $1 AND b IN ($2, $3)",
    "SELECT t.a, max(u.b) FROM t JOIN u ON (t.id = u.id) GROUP BY t.a ORDER BY t.a",
    "SELECT a FROM t WHERE b = 'for update; (evil)'",
    "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = excluded.a",
    "SELECT * FROM t FOR UPDATE",
    "WITH x AS (SELECT 1) SELECT * FROM x",
    "VALUES (1), (2)",
    "SELECT gen_random_uuid()",
    "SELECT nextval('s')",
    "select a from t -- why not",
]

EFFECTFUL = [
    "BEGIN", "COMMIT", "ROLLBACK TO a", "SET a = b", "SET LOCAL a = b", "RESET ALL", "SHOW a", "DISCARD ALL", "LISTEN c", "NOTIFY c",
    "PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE ALL", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE ALL", "LOAD 'x'",
    "CREATE TEMP TABLE t (a int)", "SELECT 1 INTO TEMP t", "SELECT a INTO t FROM u", "DROP TABLE t", "DO 'begin end'", "CALL f()",
    "SELECT evil()", "SELECT public.count(1)", "SELECT set_config('a', 'b', false)", "SELECT pg_advisory_lock(1)",
    "SELECT pg_catalog.pg_advisory_lock(1)", "SELECT setseed(0.5)", "SELECT currval('s')", "SELECT lastval()",
    "INSERT INTO t VALUES (evil(1))", "UPDATE t SET a = set_config('a', 'b', false)", "DELETE FROM t WHERE evil(a)",
    "SELECT 1; SELECT 2", "BEGIN; SELECT 1; COMMIT", "COPY t FROM STDIN", "EXPLAIN SELECT 1", "LOCK t", "VACUUM", "TRUNCATE t",
    "SELECT a FROM evil (1) AS t(a)", "SELECT 1 WHERE evil /* ( */ (1)",
]  # fmt: skip

CORPUS = ORDINARY + EFFECTFUL


@pytest.mark.parametrize("sql", ORDINARY[:9])
def test_what_pgbench_and_drivers_send_needs_no_parser(sql: str) -> None:
    verdict = screen(sql.encode())
    assert verdict is not None
    assert verdict is classify(sql.encode())
    assert verdict.is_plain


@pytest.mark.parametrize("sql", ORDINARY)
def test_ordinary_statements_are_plain(sql: str) -> None:
    assert classify(sql.encode()).is_plain
    assert parse(sql.encode()).is_plain


@pytest.mark.parametrize("sql", EFFECTFUL)
def test_nothing_with_an_effect_passes_the_look(sql: str) -> None:
    assert screen(sql.encode()) is None
    assert not classify(sql.encode()).is_plain


def agrees(looked: Verdict, parsed: Verdict) -> bool:
    """True if the look promised nothing that the parser would not. What does not parse has no effect at the origin either."""
    if parsed.kind in (Kind.UNKNOWN, Kind.EMPTY):
        return True
    return (
        parsed.is_plain
        and not (looked.is_read and not parsed.is_read)
        and not (parsed.may_write and not looked.may_write)
        and not (parsed.takes_locks and not looked.takes_locks)
        and looked.single is not None
        and parsed.single is not None
        and looked.single.command is parsed.single.command
    )


# Pieces that mean something to a lexer or to the look, so that random texts are near misses.
PIECES = st.sampled_from(
    [
        *(
            "select",
            "insert into t",
            "update t set a = ",
            "delete from t where",
            "values",
            "from t",
            "where",
            "returning",
            "union",
        ),
        *(
            "into",
            "into temp x",
            "for",
            "for update",
            "for share",
            "on conflict",
            "do nothing",
            "with x as",
            "begin",
            "set",
            "over",
        ),
        *(
            "evil",
            "evil(1)",
            '"evil"',
            '"evil"(1)',
            "count(*)",
            "pg_advisory_lock(1)",
            "set_config('a','b',false)",
            "currval('s')",
        ),
        *(
            "now()",
            "now",
            "current_date",
            "pg_catalog.",
            "public.",
            "in",
            "and",
            "or",
            "cast",
            "as",
            "int",
            "::int",
            "a",
            "b.c",
            "é",
        ),
        *(
            "(",
            ")",
            "(1)",
            ",",
            ";",
            "'",
            '"',
            "$$",
            "$a$",
            "--",
            "/*",
            "*/",
            "\\",
            "E'",
            "U&'",
            "=",
            "+",
            "-",
            "/",
            "#",
            "@>",
            "[1]",
        ),
        *("1", "$1", "\n", " ", "\t", "\x0b", "\x0c"),
    ]
)


@given(st.lists(PIECES, max_size=14), st.sampled_from(["", " ", "\n", "/**/"]))
def test_the_parser_agrees_with_the_look_on_near_misses(pieces: list[str], between: str) -> None:
    sql = between.join(pieces).encode()
    looked = screen(sql)
    assert looked is None or agrees(looked, parse(sql))


@given(st.sampled_from(CORPUS), st.sampled_from(CORPUS), st.integers(0, 200), st.integers(0, 200))
def test_the_parser_agrees_with_the_look_on_spliced_texts(first: str, second: str, cut: int, resume: int) -> None:
    sql = (first[:cut] + second[resume:]).encode()
    looked = screen(sql)
    assert looked is None or agrees(looked, parse(sql))


@given(st.binary(max_size=60), st.booleans(), st.booleans())
def test_random_bytes_never_raise(sql: bytes, ascii_safe: bool, standard_strings: bool) -> None:
    assert isinstance(classify(sql, ascii_safe=ascii_safe, standard_strings=standard_strings), Verdict)
    assert isinstance(parse(sql), Verdict)


SPACE = st.sampled_from([" ", "\n", "\t ", "/**/", "/* it's ; */", '-- "x\n', "/* a /* b */ */"])


@st.composite
def disguised(draw: st.DrawFn) -> tuple[str, str]:
    """A text of the corpus, and the same in other case and with comments and white space between its words."""
    sql = draw(st.sampled_from(CORPUS))
    words = sql.split(" ")
    if any(mark in sql for mark in ("'", '"', "--", "/*")):
        mutated = draw(SPACE) + sql + draw(SPACE)
    else:
        words = [draw(st.sampled_from([word, word.upper(), word.lower(), word.title()])) for word in words]
        mutated = words[0] + "".join(draw(SPACE) + word for word in words[1:])
    return sql, mutated + draw(st.sampled_from(["", ";", " ; ", " -- end"]))


@given(disguised())
def test_disguises_make_no_verdict_less_strict(pair: tuple[str, str]) -> None:
    before, after = (classify(sql.encode()) for sql in pair)
    assert after.kind is before.kind
    for strict in ("may_write", "suspect", "takes_locks", "reads_currval", "ends_epoch"):
        assert getattr(after, strict) or not getattr(before, strict), strict
    for lax in ("is_plain", "is_read"):
        assert getattr(before, lax) or not getattr(after, lax), lax
    assert len(after.effects) == len(before.effects)


WRAPPERS = [
    "SELECT ({})", "SELECT * FROM ({}) s", "WITH s AS ({}) SELECT * FROM s", "INSERT INTO t {}", "SELECT 1 UNION ALL ({})",
    "SELECT CASE WHEN EXISTS ({}) THEN 1 END", "EXPLAIN ANALYZE {}", "COPY ({}) TO STDOUT", "CREATE TABLE t AS {}", "SELECT 1; {}",
    "SELECT ARRAY({})", "DELETE FROM t WHERE a IN ({})", "PREPARE p AS {}", "DECLARE c CURSOR FOR {}",
]  # fmt: skip


@given(
    st.lists(st.sampled_from(WRAPPERS[:6]), max_size=3),
    st.sampled_from(WRAPPERS),
    st.sampled_from(
        ["SELECT evil(1)", "SELECT set_config('a', 'b', false)", "SELECT pg_advisory_lock(1)", "SELECT setseed(0.5)"]
    ),
)
def test_nesting_hides_nothing(inner: list[str], outer: str, sql: str) -> None:
    for wrapper in [*inner, outer]:
        sql = wrapper.format(sql)
    verdict = classify(sql.encode())
    assert verdict.suspect or verdict.effects
    assert not verdict.is_plain
    assert not verdict.is_read


@pytest.mark.parametrize(
    "sql",
    [
        'select "evil" (1)', "select evil\n(1)", "select evil/**/(1)", "select evil--\n(1)", "select 1 /* a */ + evil /* b */ (1)",
        "select '/*', evil(1) /* ' */", "select $$/*$$, evil(1) /* $$ */", "select '\\'; begin -- '", "insert into t select evil (1)",
        "insert into t values (1), (evil(1))", "select count(*),evil(1)", "update t set a=evil(1)", "select(evil(1))",
        "select U&\"\\0065vil\"(1)", "select a into temp b", "select 1; begin", "insert\ninto t select evil(1)",
    ],
)  # fmt: skip
def test_tricks_that_a_look_could_fall_for(sql: str) -> None:
    assert screen(sql.encode()) is None


@pytest.mark.parametrize(
    "sql",
    [
        b"select 1 /* traceparent='00-4bf9' */", b"/* app:x */ select 1", b"select 'it''s' /* a */ ;",
        b"insert into t (a, b) values " + b", ".join([b"(1, 'x')"] * 2000), b"SELECT a, (b + c) * (d) FROM t WHERE (e) IN (1,2)",
    ],
)  # fmt: skip
def test_what_a_look_is_enough_for(sql: bytes) -> None:
    assert screen(sql) is not None
