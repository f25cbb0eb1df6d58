"""Settings and pins follow the outcome of a transaction, never its text alone (W-35, W-43)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hyperdrive.session.outcome import Journal, Parameters, Watch
from hyperdrive.session.settings import EMPTY, UNKNOWN, Label, label
from hyperdrive.sql import Statement, classify
from hyperdrive.testing.frontend import bind

START = label({b"work_mem": b"SELECT start"})


def run(journal: Journal, *script: str) -> Journal:
    """Statements as they complete, with the tag that PostgreSQL gives; ``| I`` and ``| failed`` end the scope."""
    for step in script:
        if step in ("I", "failed"):
            journal.settle(failed=step == "failed")
            continue
        sql, _, tag = step.partition(" -> ")
        (statement,) = classify(sql.encode()).statements or ()
        journal.completed(statement, (tag or sql.split()[0].upper()).encode())
    return journal


def wanted(journal: Journal) -> dict[str, str]:
    return {name.decode(): sql.decode() for name, sql in journal.wanted.items.items()}


A1, A2 = "SET work_mem TO '1MB'", "SET work_mem TO '2MB'"
KEPT, KEPT2 = {"work_mem": A1}, {"work_mem": A2}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param([A1, "I"], KEPT, id="autocommit"),
        pytest.param([A1, "failed"], {}, id="an error behind it in the same scope takes it back"),
        pytest.param(["BEGIN", A1, "COMMIT", "I"], KEPT, id="committed"),
        pytest.param(["BEGIN", A1, "ROLLBACK", "I"], {}, id="rolled back"),
        pytest.param(["BEGIN", A1, "COMMIT -> ROLLBACK", "I"], {}, id="a COMMIT that rolls back"),
        pytest.param([A1, "I", "BEGIN", A2, "ROLLBACK", "I"], KEPT, id="back to what it was"),
        pytest.param(["BEGIN", A1, "SAVEPOINT s", A2, "ROLLBACK TO s", "COMMIT", "I"], KEPT, id="savepoint"),
        pytest.param(["BEGIN", "SAVEPOINT s", A1, "RELEASE s", "COMMIT", "I"], KEPT, id="released"),
        pytest.param(
            ["BEGIN", "SAVEPOINT s", A1, "SAVEPOINT s", A2, "ROLLBACK TO s", "COMMIT", "I"], KEPT, id="the inner one"
        ),
        pytest.param(
            ["BEGIN", "SAVEPOINT s", A1, "SAVEPOINT t", A2, "ROLLBACK TO s", "ROLLBACK TO s", A2, "COMMIT", "I"],
            KEPT2,
            id="twice to the same savepoint",
        ),
        pytest.param(["BEGIN", "SET LOCAL work_mem TO '1MB'", "COMMIT", "I"], {}, id="SET LOCAL"),
        pytest.param([A1, "RESET work_mem", "I"], {}, id="RESET"),
        pytest.param([A1, "SET work_mem TO DEFAULT -> SET", "I"], {}, id="TO DEFAULT"),
        pytest.param([A1, "RESET ALL", "I"], {}, id="RESET ALL"),
        pytest.param([A1, "DISCARD ALL", "I"], {}, id="DISCARD ALL"),
        pytest.param(["BEGIN", A1, "COMMIT AND CHAIN -> COMMIT", A2, "ROLLBACK", "I"], KEPT, id="AND CHAIN"),
        pytest.param(["BEGIN", A1, "PREPARE TRANSACTION 'x' -> PREPARE TRANSACTION", "I"], KEPT, id="two-phase"),
        pytest.param(["BEGIN", A1, "PREPARE TRANSACTION 'x' -> ROLLBACK", "I"], {}, id="two-phase that rolls back"),
        pytest.param(["BEGIN", A1, "COMMIT", A2, "failed"], KEPT, id="only the failed part of a list"),
    ],
)
def test_settings_follow_the_outcome(script: Sequence[str], expected: dict[str, str]) -> None:
    journal = run(Journal(EMPTY), *script)
    assert expected == wanted(journal)
    assert journal.actual is journal.wanted


def test_reset_goes_back_to_the_start_up_value() -> None:
    """The server knows nothing of it (W-05): what the client wants and what the server has differ."""
    for command in ("RESET work_mem", "RESET ALL", "SET work_mem TO DEFAULT -> SET", "DISCARD ALL"):
        journal = run(Journal(START), A1, "I", command)
        assert (START, EMPTY) == (journal.wanted, journal.actual), command
        journal.restored()
        assert START is journal.actual


@pytest.mark.parametrize(
    ("sql", "is_known"),
    [
        ("select set_config('role', $1, false)", True),
        ("select set_config('role', $1::text, false)", True),
        ("select set_config('role', $1::int::text, false)", False),
    ],
)
def test_set_config_by_a_parameter_in_binary(sql: str, is_known: bool) -> None:
    """As asyncpg sends it; what is cast from something else is no text (W-33, W-36)."""
    (statement,) = classify(sql.encode()).statements or ()
    journal = Journal(EMPTY)
    message = b"B\0\0\0\0\0\0" + b"\0\1\0\1" + b"\0\1" + b"\0\0\0\6reader" + b"\0\0"
    journal.completed(statement, b"SELECT 1", Parameters(message, 7))
    journal.settle(failed=False)
    assert ({"role": "SET \"role\" TO 'reader'"} if is_known else {}) == wanted(journal)
    assert (UNKNOWN is journal.actual) is not is_known


def test_reset_all_keeps_the_identity() -> None:
    """RESET ALL forgets neither role nor session_authorization (W-36); DISCARD ALL does."""
    journal = run(Journal(EMPTY), "SET ROLE reader", A1, "RESET ALL", "I")
    assert {"role": "SET ROLE reader"} == wanted(journal)
    journal = run(Journal(EMPTY), "SET ROLE reader", "DISCARD ALL", "I")
    assert {} == wanted(journal)


def test_reset_all_skips_what_is_at_its_default() -> None:
    """PostgreSQL passes over a setting that SET LOCAL has put to its default, and COMMIT brings back what that had hidden (W-35)."""
    local = "SET LOCAL work_mem TO DEFAULT -> SET"
    journal = run(Journal(EMPTY), "BEGIN", A1, local, "RESET ALL", "COMMIT", "I")
    assert KEPT == wanted(journal)
    assert journal.actual is journal.wanted
    journal = run(Journal(EMPTY), "BEGIN", A1, "SET LOCAL work_mem TO '3MB' -> SET", "RESET ALL", "COMMIT", "I")
    assert {} == wanted(journal)
    journal = run(Journal(START), "BEGIN", A1, local)
    assert [(A1.encode(), b"SELECT start")] == journal.hidden()
    run(journal, "RESET ALL")
    journal.restored()
    run(journal, "COMMIT", "I")
    assert KEPT == wanted(journal)


def test_reset_all_leaves_a_role_of_the_transaction() -> None:
    """What is prepared behind it is prepared as that role (W-36)."""
    journal = run(Journal(EMPTY), "BEGIN", "SET LOCAL ROLE reader -> SET", "RESET ALL")
    assert b"role" in journal.in_force.items
    run(journal, "COMMIT", "I")
    assert EMPTY is journal.in_force


def test_reset_all_does_not_tell_what_a_role_is_that_nobody_saw() -> None:
    journal = Journal(EMPTY)
    journal.completed_unknown()
    run(journal, "RESET ALL", "I")
    assert UNKNOWN is journal.actual


def test_a_new_session_authorization_takes_the_role_away() -> None:
    journal = run(Journal(EMPTY), "SET ROLE reader", "SET SESSION AUTHORIZATION owner", "I")
    assert {"session_authorization": "SET SESSION AUTHORIZATION owner"} == wanted(journal)
    run(journal, "SET ROLE reader", "RESET SESSION AUTHORIZATION", "I")
    assert {} == wanted(journal)


def test_session_characteristics_are_three_settings() -> None:
    sql = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY"
    journal = run(Journal(EMPTY), sql, "I")
    assert {"default_transaction_isolation", "default_transaction_read_only"} == set(wanted(journal))


@pytest.mark.parametrize(
    ("sql", "values", "expected"),
    [
        pytest.param("select set_config('work_mem', '1MB', false)", None, "1MB", id="constants"),
        pytest.param("select set_config('Work_Mem', '1MB', false)", None, "1MB", id="case"),
        pytest.param("select set_config($1, $2, $3)", ["work_mem", "1MB", "f"], "1MB", id="parameters"),
        pytest.param("select set_config($1, $2, $3)", ["work_mem", "1MB", "true"], None, id="local parameter"),
        pytest.param("select set_config('work_mem', '1MB', true)", None, None, id="local"),
    ],
)
def test_set_config_is_followed(sql: str, values: list[str | bytes | None] | None, expected: str | None) -> None:
    journal = Journal(EMPTY)
    (statement,) = classify(sql.encode()).statements or ()
    parameters = Parameters(bind("", values), 7) if values is not None else None
    journal.completed(statement, b"SELECT 1", parameters)
    journal.settle(failed=False)
    names = wanted(journal)
    assert (expected is None and not names) or f"'{expected}'" in names["work_mem"]
    assert journal.actual is not UNKNOWN


@pytest.mark.parametrize(
    "sql",
    [
        "select set_config(n, v, false) from t",
        "select set_config('work_mem', $1, false)",
        "select f()",
        "do $$ begin end $$",
        "call p()",
        "set work_mem from current",
    ],
)
def test_what_cannot_be_followed_makes_the_label_unknown(sql: str) -> None:
    """Also after a rollback: a function may have done what a rollback does not undo (W-37)."""
    for end in ("COMMIT", "ROLLBACK"):
        journal = Journal(EMPTY)
        statements = classify(sql.encode()).statements
        for statement in statements or ():
            journal.completed(statement, b"SELECT 1")
        if statements is None:
            journal.completed_unknown()
        run(journal, end, "I")
        assert journal.actual is UNKNOWN, end


def test_an_unknown_class_leaves_the_wishes_alone() -> None:
    journal = run(Journal(EMPTY), A1, "I")
    journal.completed_unknown()
    journal.settle(failed=False)
    assert KEPT == wanted(journal)
    assert journal.actual is UNKNOWN


# W-43, line by line: what begins a pin, and what ends it.
PINS = [
    pytest.param("LISTEN a", "UNLISTEN a", "LISTEN", id="LISTEN"),
    pytest.param("LISTEN a", "UNLISTEN *", "LISTEN", id="UNLISTEN all"),
    pytest.param("CREATE TEMP TABLE t (a int) -> CREATE TABLE", "DROP TABLE t", "temporary object", id="temp table"),
    pytest.param("CREATE TEMP TABLE t (a int) -> CREATE TABLE", "DISCARD TEMP", "temporary object", id="DISCARD TEMP"),
    pytest.param("CREATE TABLE pg_temp.t (a int) -> CREATE TABLE", "DROP TABLE t", "temporary object", id="pg_temp"),
    pytest.param("SELECT 1 INTO TEMP t", "DROP TABLE t", "temporary object", id="SELECT INTO TEMP"),
    pytest.param("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE c", "WITH HOLD cursor", id="WITH HOLD"),
    pytest.param("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE ALL", "WITH HOLD cursor", id="CLOSE ALL"),
    pytest.param("PREPARE p AS SELECT 1", "DEALLOCATE p", "PREPARE", id="PREPARE"),
    pytest.param("PREPARE p AS SELECT 1", "DEALLOCATE ALL", "PREPARE", id="DEALLOCATE ALL"),
    pytest.param("SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)", "advisory lock", id="advisory lock"),
    pytest.param(
        "SELECT pg_catalog.pg_try_advisory_lock_shared(1, 2)",
        "SELECT pg_advisory_unlock_shared(1, 2)",
        "advisory lock",
        id="shared, two keys, qualified",
    ),
    pytest.param(
        "SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock_all()", "advisory lock", id="advisory unlock all"
    ),
    pytest.param(
        "SELECT set_config('a.b', x, false) FROM t", "SET a.b = 'x'", "set_config of a computed value", id="SET"
    ),
    pytest.param(
        "SELECT set_config('a.b', x, false) FROM t", "RESET a.b", "set_config of a computed value", id="RESET"
    ),
    pytest.param(
        "SELECT set_config('a.b', x, false) FROM t",
        "DISCARD ALL",
        "set_config of a computed value",
        id="set_config, any",
    ),
    pytest.param(
        "SELECT set_config('A.b', 1e3::text, false)", "RESET ALL", "set_config of a computed value", id="RESET ALL"
    ),
    pytest.param(
        "UPDATE pg_settings SET setting = 'x'", "DISCARD ALL", "set_config of a computed value", id="pg_settings"
    ),
]


@pytest.mark.parametrize(("begin", "end", "reason"), PINS)
def test_a_pin_begins_and_ends(begin: str, end: str, reason: str) -> None:
    journal = run(Journal(EMPTY), begin, "I")
    assert [reason] == journal.reasons()
    run(journal, end, "I")
    assert not journal.is_pinned
    run(journal, begin, "DISCARD ALL", "I")
    assert not journal.is_pinned


@pytest.mark.parametrize(
    ("begin", "does_rollback_end_it"),
    [
        ("LISTEN a", True),
        ("SELECT set_config('a.b', x, false) FROM t", True),
        ("CREATE TEMP TABLE t (a int) -> CREATE TABLE", True),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", True),
        ("PREPARE p AS SELECT 1", False),
        ("SELECT pg_advisory_lock(1)", False),
    ],
)
def test_what_a_rollback_undoes_is_no_pin(begin: str, does_rollback_end_it: bool) -> None:
    journal = run(Journal(EMPTY), "BEGIN", begin, "ROLLBACK", "I")
    assert does_rollback_end_it != journal.is_pinned


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT set_config('a.b', x, true) FROM t",
        "CREATE VIEW v AS SELECT set_config('a.b', 'x', false)",
        "SELECT f()",
        "DO $$ BEGIN PERFORM set_config('a.b', 'x', false); END $$",
    ],
)
def test_what_ends_with_the_transaction_or_is_out_of_sight_is_no_pin(sql: str) -> None:
    journal = run(Journal(EMPTY), sql, "I")
    assert not journal.is_pinned


def test_reset_all_leaves_the_server_of_what_may_be_a_role() -> None:
    for name in ("'role'", "n"):
        journal = run(Journal(EMPTY), f"SELECT set_config({name}, x, false) FROM t", "RESET ALL", "I")
        assert journal.is_pinned


@pytest.mark.parametrize("sql", ["LOAD 'x'", "SELECT setseed(0.5)", "SET SEED TO 0.5", "SELECT pg_backup_start('x')"])
def test_some_pins_only_end_with_the_client(sql: str) -> None:
    """The console shows why (``reasons``)."""
    journal = run(Journal(EMPTY), sql, "I")
    assert 1 == len(journal.reasons())
    run(journal, "RESET ALL", "UNLISTEN *", "I")
    assert journal.is_pinned


def test_an_object_made_on_commit_drop_is_no_pin_after_the_commit() -> None:
    create = "CREATE TEMP TABLE t (a int) ON COMMIT DROP -> CREATE TABLE"
    journal = run(Journal(EMPTY), "BEGIN", create)
    assert journal.is_pinned
    run(journal, "COMMIT", "I")
    assert not journal.is_pinned


def test_locks_are_counted() -> None:
    journal = run(Journal(EMPTY), *["SELECT pg_advisory_lock(1)"] * 2, "SELECT pg_advisory_unlock(1)", "I")
    assert journal.is_pinned
    run(journal, "SELECT pg_advisory_unlock(2)", "I")
    assert journal.is_pinned, "another key"
    run(journal, "SELECT pg_advisory_unlock(1)", "I")
    assert not journal.is_pinned


def test_a_lost_server_takes_transaction_and_pins_with_it() -> None:
    journal = run(Journal(EMPTY), A1, "LISTEN a", "I", "BEGIN", A2)
    journal.abandoned()
    assert (KEPT, False) == (wanted(journal), journal.is_pinned)
    assert journal.actual is journal.wanted


class Told:
    """Hears what a Watch hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes | None, bytes]] = []

    def completed(
        self, statement: Statement | None, tag: bytes, parameters: Parameters | None, *, restored: bool = False
    ) -> None:
        self.heard.append((statement.sql if statement is not None else None, tag))


def test_a_watch_hands_each_completion_to_its_statement() -> None:
    told = Told()
    watch = Watch(told, classify(b"set a.b to 1; reset a.b").statements)
    watch.completed(b"SET", suspended=False)
    watch.completed(b"RESET", suspended=False)
    watch.completed(b"MORE", suspended=False)  # a rule or a trigger may add some: whatever that was
    assert [(b"set a.b to 1", b"SET"), (b"reset a.b", b"RESET"), (None, b"MORE")] == told.heard


def test_a_suspended_portal_stays_with_its_statement() -> None:
    told = Told()
    watch = Watch(told, classify(b"select f()").statements)
    watch.completed(b"", suspended=True)
    watch.completed(b"SELECT 1", suspended=False)
    assert [b"select f()", b"select f()"] == [sql for sql, _ in told.heard]


def test_parameters_are_read_as_text_only() -> None:
    message = bind("", ["a", None, b"\0\x01"], formats=[0, 0, 1])
    assert [b"a", None, None, None] == [Parameters(message, 7).text(number) for number in (1, 2, 3, 4)]
    assert b"x" == Parameters(bind("", ["x"]), 7).text(1)
    assert None is Parameters(bind("", ["x"], formats=[1]), 7).text(1)


def test_labels_in_a_journal_are_shared() -> None:
    """Two sessions with the same settings have the same label: nothing has to travel between them."""
    one: Label = run(Journal(EMPTY), A1, "I").wanted
    assert one is run(Journal(EMPTY), "BEGIN", A1, "COMMIT", "I").wanted
