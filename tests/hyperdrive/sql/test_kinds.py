"""What each statement is, its tag and its details: the table of the wire reference §4, and more."""

from __future__ import annotations

from typing import Any

import pytest

from hyperdrive.sql import Command, Form, Isolation, Kind, Modes, Reason, classify, parse

SINGLE: list[tuple[str, Kind, bytes | None, dict[str, Any]]] = [
    ("BEGIN", Kind.BEGIN, b"BEGIN", {"modes": Modes()}),
    ("begin work", Kind.BEGIN, b"BEGIN", {}),
    ("START TRANSACTION", Kind.BEGIN, b"START TRANSACTION", {}),
    ("BEGIN ISOLATION LEVEL SERIALIZABLE", Kind.BEGIN, b"BEGIN", {"modes": Modes(Isolation.SERIALIZABLE)}),
    (
        "begin transaction isolation level read uncommitted, read write not deferrable",
        Kind.BEGIN,
        b"BEGIN",
        {"modes": Modes(Isolation.READ_UNCOMMITTED, False, False)},
    ),
    ("BEGIN READ ONLY DEFERRABLE", Kind.BEGIN, b"BEGIN", {"modes": Modes(None, True, True)}),
    ("BEGIN READ ONLY READ WRITE", Kind.BEGIN, b"BEGIN", {"modes": Modes(None, False)}),
    ("COMMIT", Kind.COMMIT, b"COMMIT", {"chain": False}),
    ("END", Kind.COMMIT, b"COMMIT", {}),
    ("COMMIT AND CHAIN", Kind.COMMIT, b"COMMIT", {"chain": True}),
    ("COMMIT AND NO CHAIN", Kind.COMMIT, b"COMMIT", {"chain": False}),
    ("ROLLBACK", Kind.ROLLBACK, b"ROLLBACK", {}),
    ("abort work", Kind.ROLLBACK, b"ROLLBACK", {}),
    ("ROLLBACK AND CHAIN", Kind.ROLLBACK, b"ROLLBACK", {"chain": True}),
    ('SAVEPOINT "A"', Kind.SAVEPOINT, b"SAVEPOINT", {"name": b"A"}),
    ("SAVEPOINT A", Kind.SAVEPOINT, b"SAVEPOINT", {"name": b"a"}),
    ("SAVEPOINT " + "x" * 70, Kind.SAVEPOINT, b"SAVEPOINT", {"name": b"x" * 63}),
    ("RELEASE a", Kind.RELEASE, b"RELEASE", {"name": b"a"}),
    ("ROLLBACK TO SAVEPOINT a", Kind.ROLLBACK_TO, b"ROLLBACK", {"name": b"a"}),
    ("PREPARE TRANSACTION 'g'", Kind.PREPARE_TRANSACTION, b"PREPARE TRANSACTION", {"name": b"g", "may_write": True}),
    ("COMMIT PREPARED 'g'", Kind.COMMIT_PREPARED, b"COMMIT PREPARED", {"name": b"g"}),
    ("ROLLBACK PREPARED 'g'", Kind.ROLLBACK_PREPARED, b"ROLLBACK PREPARED", {"name": b"g"}),
    ("SET TRANSACTION READ ONLY", Kind.SET_TRANSACTION, b"SET", {"modes": Modes(None, True)}),
    ("SET TRANSACTION SNAPSHOT '1-2'", Kind.SET_TRANSACTION, b"SET", {"modes": Modes(snapshot=b"1-2")}),
    (
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        Kind.SET_SESSION_CHARACTERISTICS,
        b"SET",
        {"modes": Modes(Isolation.REPEATABLE_READ)},
    ),
    ("SET CONSTRAINTS ALL DEFERRED", Kind.SET_CONSTRAINTS, b"SET CONSTRAINTS", {}),
    ("RESET ALL", Kind.RESET_ALL, b"RESET", {"setting": None}),
    ("SHOW TimeZone", Kind.SHOW, b"SHOW", {"name": b"timezone", "is_read": True}),
    ("SHOW TIME ZONE", Kind.SHOW, b"SHOW", {"name": b"timezone"}),
    ("SHOW ALL", Kind.SHOW, b"SHOW", {"name": b"all"}),
    ("SHOW TRANSACTION ISOLATION LEVEL", Kind.SHOW, b"SHOW", {"name": b"transaction_isolation"}),
    ("SHOW SESSION AUTHORIZATION", Kind.SHOW, b"SHOW", {"name": b"session_authorization"}),
    ("SHOW hyperdrive.last_read", Kind.SHOW, b"SHOW", {"name": b"hyperdrive.last_read"}),
    ("DISCARD ALL", Kind.DISCARD_ALL, b"DISCARD ALL", {}),
    ("DISCARD PLANS", Kind.DISCARD_PLANS, b"DISCARD PLANS", {}),
    ("DISCARD SEQUENCES", Kind.DISCARD_SEQUENCES, b"DISCARD SEQUENCES", {}),
    ("DISCARD TEMPORARY", Kind.DISCARD_TEMP, b"DISCARD TEMP", {}),
    ("DEALLOCATE PREPARE s1", Kind.DEALLOCATE, b"DEALLOCATE", {"name": b"s1"}),
    ("DEALLOCATE ALL", Kind.DEALLOCATE_ALL, b"DEALLOCATE ALL", {"name": None}),
    ("DEALLOCATE PREPARE ALL", Kind.DEALLOCATE_ALL, b"DEALLOCATE ALL", {}),
    ("PREPARE p AS SELECT 1", Kind.PREPARE, b"PREPARE", {"name": b"p"}),
    ("EXECUTE p(1)", Kind.EXECUTE, None, {"name": b"p", "suspect": True}),
    ("LISTEN c", Kind.LISTEN, b"LISTEN", {"name": b"c"}),
    ("UNLISTEN c", Kind.UNLISTEN, b"UNLISTEN", {"name": b"c"}),
    ("UNLISTEN *", Kind.UNLISTEN_ALL, b"UNLISTEN", {"name": None}),
    ("NOTIFY c, 'x'", Kind.NOTIFY, b"NOTIFY", {"name": b"c", "may_write": True}),
    ("DECLARE c CURSOR FOR SELECT 1", Kind.DECLARE, b"DECLARE CURSOR", {"name": b"c", "hold": False}),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Kind.DECLARE, b"DECLARE CURSOR", {"hold": True}),
    ("CLOSE c", Kind.CLOSE, b"CLOSE CURSOR", {"name": b"c"}),
    ("CLOSE ALL", Kind.CLOSE_ALL, b"CLOSE CURSOR ALL", {}),
    ("FETCH 5 FROM c", Kind.FETCH, None, {"name": b"c"}),
    ("MOVE c", Kind.FETCH, None, {"name": b"c"}),
    ("COPY t FROM STDIN", Kind.COPY, None, {"may_write": True}),
    ("LOCK t IN SHARE MODE", Kind.LOCK, b"LOCK TABLE", {"takes_locks": True}),
    ("LOAD 'auto_explain'", Kind.LOAD, b"LOAD", {}),
    ("CALL f(1)", Kind.CALL, b"CALL", {"suspect": True}),
    ("DO 'begin end'", Kind.DO, b"DO", {"suspect": True}),
    ("EXPLAIN ANALYZE DELETE FROM t", Kind.EXPLAIN, b"EXPLAIN", {"may_write": True, "is_read": False}),
    ("TRUNCATE t", Kind.UTILITY, b"TRUNCATE TABLE", {"may_write": True, "ends_epoch": False}),
    ("VACUUM", Kind.UTILITY, None, {"suspect": False}),
    ("SET LOCAL SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Kind.UTILITY, None, {"suspect": True}),
    ("CREATE TABLE t (a int)", Kind.DDL, None, {"ends_epoch": True}),
    ("GRANT SELECT ON t TO u", Kind.DDL, None, {"ends_epoch": True}),
    ("COMMENT ON TABLE t IS 'x'", Kind.DDL, None, {"ends_epoch": True}),
    ("SELECT 1 INTO t", Kind.DDL, None, {"ends_epoch": True, "is_read": False}),
    ("ALTER ROLE u SET a = b", Kind.DDL, None, {"alters_defaults": True}),
    ("ALTER DATABASE d SET a = b", Kind.DDL, None, {"alters_defaults": True}),
    ("ALTER SYSTEM SET a = b", Kind.DDL, None, {"alters_defaults": True}),
    ("ALTER TABLE t ADD a int", Kind.DDL, None, {"alters_defaults": False}),
    ("VALUES (1)", Kind.PLAIN, None, {"command": Command.SELECT, "is_read": True}),
    ("TABLE t", Kind.PLAIN, None, {"command": Command.SELECT, "is_read": True}),
    ("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", Kind.PLAIN, None, {"command": Command.INSERT}),
    ("MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE", Kind.PLAIN, None, {"command": Command.MERGE}),
]


@pytest.mark.parametrize(("sql", "kind", "tag", "details"), SINGLE, ids=[case[0][:50] for case in SINGLE])
def test_a_single_statement(sql: str, kind: Kind, tag: bytes | None, details: dict[str, Any]) -> None:
    verdict = parse(sql.encode())
    assert verdict.single is not None
    assert (kind, tag) == (verdict.single.kind, verdict.single.tag)
    assert kind is verdict.kind
    assert details == {name: getattr(verdict.single, name) for name in details}
    assert classify(sql.encode()).kind is kind


SETTINGS = [
    ("SET TimeZone = 'UTC'", Kind.SET, b"timezone", Form.VALUE, (b"UTC",)),
    ('SET "DateStyle" TO iso, mdy', Kind.SET, b"datestyle", Form.VALUE, (b"iso", b"mdy")),
    ("SET search_path = a, 'b, c'", Kind.SET, b"search_path", Form.VALUE, (b"a", b"b, c")),
    ("SET SESSION x.y = -1.5", Kind.SET, b"x.y", Form.VALUE, (b"-1.5",)),
    ("SET a TO on", Kind.SET, b"a", Form.VALUE, (b"on",)),
    ("SET a TO true", Kind.SET, b"a", Form.VALUE, (b"true",)),
    ("SET a TO 0", Kind.SET, b"a", Form.VALUE, (b"0",)),
    ("SET sort_mem = 64", Kind.SET, b"work_mem", Form.VALUE, (b"64",)),
    ("SET a TO DEFAULT", Kind.SET, b"a", Form.DEFAULT, None),
    ("SET a FROM CURRENT", Kind.SET, b"a", Form.CURRENT, None),
    ("SET LOCAL statement_timeout = '5s'", Kind.SET_LOCAL, b"statement_timeout", Form.VALUE, (b"5s",)),
    ("SET TIME ZONE 'Europe/Rome'", Kind.SET, b"timezone", Form.VALUE, (b"Europe/Rome",)),
    ("SET TIME ZONE LOCAL", Kind.SET, b"timezone", Form.DEFAULT, None),
    ("SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE", Kind.SET, b"timezone", Form.VALUE, None),
    ("SET NAMES 'LATIN1'", Kind.SET, b"client_encoding", Form.VALUE, (b"LATIN1",)),
    ("SET NAMES DEFAULT", Kind.SET, b"client_encoding", Form.DEFAULT, None),
    ("SET SCHEMA 's'", Kind.SET, b"search_path", Form.VALUE, (b"s",)),
    ("SET XML OPTION DOCUMENT", Kind.SET, b"xmloption", Form.VALUE, (b"DOCUMENT",)),
    ("SET ROLE NONE", Kind.SET, b"role", Form.VALUE, (b"none",)),
    ("SET ROLE 'r'", Kind.SET, b"role", Form.VALUE, (b"r",)),
    ("SET SESSION AUTHORIZATION u", Kind.SET, b"session_authorization", Form.VALUE, (b"u",)),
    ("SET SESSION AUTHORIZATION DEFAULT", Kind.SET, b"session_authorization", Form.DEFAULT, None),
    ("SET SEED TO 0.5", Kind.SET, b"seed", Form.VALUE, (b"0.5",)),
    ("SET hyperdrive.max_staleness = '2s'", Kind.SET, b"hyperdrive.max_staleness", Form.VALUE, (b"2s",)),
    ("RESET TimeZone", Kind.RESET, b"timezone", Form.RESET, None),
    ("RESET TIME ZONE", Kind.RESET, b"timezone", Form.RESET, None),
    ("RESET ROLE", Kind.RESET, b"role", Form.RESET, None),
    ("RESET SESSION AUTHORIZATION", Kind.RESET, b"session_authorization", Form.RESET, None),
]


@pytest.mark.parametrize(("sql", "kind", "name", "form", "values"), SETTINGS, ids=[case[0] for case in SETTINGS])
def test_a_setting(sql: str, kind: Kind, name: bytes, form: Form, values: tuple[bytes, ...] | None) -> None:
    verdict = classify(f" /* a */ {sql} -- b\n ;".encode())
    assert verdict.single is not None
    setting = verdict.single.setting
    assert setting is not None
    assert (kind, name, form, values) == (verdict.kind, setting.name, setting.form, setting.values)
    assert setting.is_local is (kind is Kind.SET_LOCAL)
    assert sql.encode() == setting.sql  # the client's text as it was, fit to be joined with others
    assert (False, False) == (verdict.may_write, verdict.suspect)
    assert verdict.single.tag == (b"RESET" if form is Form.RESET else b"SET")


@pytest.mark.parametrize("sql", [b"", b" \n", b";", b"; ;", b"-- nothing", b"/* a /* b */ */ ;"])
def test_an_empty_query_has_no_statement(sql: bytes) -> None:
    verdict = classify(sql)
    assert (Kind.EMPTY, (), False, False) == (verdict.kind, verdict.statements, verdict.suspect, verdict.may_write)


def test_several_statements_are_sliced_in_bytes() -> None:
    sql = "begin ;; /*é*/ insert into \"é\" values ('ü;') ;select 1 -- ;".encode()
    verdict = classify(sql)
    assert verdict.is_multi
    assert not verdict.is_plain
    assert verdict.statements is not None
    assert [Kind.BEGIN, Kind.PLAIN, Kind.PLAIN] == [one.kind for one in verdict.statements]
    slices = ["begin", "insert into \"é\" values ('ü;')", "select 1 -- ;"]
    assert [piece.encode() for piece in slices] == [one.sql for one in verdict.statements]
    assert all(sql[one.location :].startswith(one.sql) for one in verdict.statements)


def test_bytes_that_are_no_utf8_are_letters() -> None:
    """LATIN1 and its kin: the statement is known, its names come back as the client wrote them."""
    sql = b"select '\xe9\xe9'; savepoint \xe9t\xe9"
    verdict = classify(sql)
    assert verdict.statements is not None
    assert verdict.statements[1].name == b"\xe9t\xe9"
    assert verdict.statements[1].sql == b"savepoint \xe9t\xe9"
    assert verdict.statements[1].location == 13


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (b"selec 1", Reason.DOES_NOT_PARSE),
        (b"begin; selec 1", Reason.DOES_NOT_PARSE),
        (b"show a \0", Reason.DOES_NOT_PARSE),
        (b"begin \0; commit", Reason.DOES_NOT_PARSE),
        (b"show '" + b"x" * 40_000 + b"'", Reason.TOO_LONG),
        (b"values " + b"(" * 20_000 + b"1" + b")" * 20_000, Reason.TOO_LONG),
    ],
)
def test_what_is_unknown_may_do_anything(sql: bytes, reason: Reason) -> None:
    verdict = classify(sql)
    assert (Kind.UNKNOWN, None, reason) == (verdict.kind, verdict.statements, verdict.reason)
    assert (False, False) == (verdict.is_plain, verdict.is_read)
    assert verdict.may_write
    assert verdict.suspect
    assert verdict.takes_locks
    assert verdict.ends_epoch


@pytest.mark.parametrize("quote_at", range(len("select 1")))
def test_w41_unsafe_encodings_are_not_read(quote_at: int) -> None:
    """A quote may be the second byte of a character; pure ASCII texts have none such."""
    sql = b"select 1"[:quote_at] + b"\x95'" + b"select 1"[quote_at:]
    assert classify(sql, ascii_safe=False).reason is Reason.ENCODING
    assert classify(b"begin", ascii_safe=False).kind is Kind.BEGIN


def test_w42_other_literals_are_not_read() -> None:
    """A backslash may keep a literal from ending; texts without one are read as ever."""
    assert classify(b"select '\\'; begin; --'", standard_strings=False).reason is Reason.STRINGS
    assert classify(b"begin", standard_strings=False).kind is Kind.BEGIN
    assert classify(b"select 'a'", standard_strings=False).is_plain
