"""Held-back transactions as conversations without sockets: E-2, E-3, E-4 and E-7 of the wire reference."""

import pytest

from hyperdrive.metrics import Saved
from hyperdrive.pgwire import messages
from hyperdrive.session.pipe import Eager, Switches
from hyperdrive.sql.verdict import Isolation
from hyperdrive.testing.frontend import close_portal, execute, parse, query, sync
from hyperdrive.testing.playbook import VIEW, Playbook, backend, make_pipe
from tests.hyperdrive.session.holding import BEGUN, ROW, accept, ahead, apart, begin, carried, extended, live

# --- E-2 ---


@pytest.mark.parametrize(
    ("sql", "tag"),
    [
        ("begin", "BEGIN"),
        ("BEGIN WORK;", "BEGIN"),
        ("begin isolation level repeatable read read only", "BEGIN"),
        ("start transaction read write, deferrable", "START TRANSACTION"),
        ("/* orm */ start transaction isolation level serializable", "START TRANSACTION"),
    ],
)
def test_begin_is_answered_here_and_travels_with_the_first_statement(sql: str, tag: str) -> None:
    with Playbook() as book:
        book.a.sends(query(sql))
        book.a.gets(backend(f"C {tag}", "Z T"))
        assert book.server in book.free
        book.a.sends(query("select 1"))
        text = sql.removesuffix(";").removeprefix("/* orm */ ") if "orm" in sql else sql.removesuffix(";")
        assert query("select 1") == book.server.take().removeprefix(ahead(text))
        book.server.sends(carried(tag) + ROW + backend("Z T"))
        book.a.gets(ROW, backend("Z T"))
        book.a.sends(query("commit"))
        book.server.gets(query("commit"))
        book.server.sends(backend("C COMMIT", "Z I"))
        book.a.gets(backend("C COMMIT", "Z I"))


def test_begin_in_the_extended_protocol_is_answered_message_by_message() -> None:
    with Playbook() as book:
        book.a.sends(extended("begin"))
        book.a.gets(backend("1", "2", "n", "C BEGIN", "Z T"))
        book.a.sends(extended("select 1"))
        book.server.gets(ahead("begin", closes=False), extended("select 1"))
        book.server.sends(carried("BEGIN", closes=False) + backend("1", "2") + ROW + backend("Z T"))
        book.a.gets(backend("1", "2"), ROW, backend("Z T"))
        book.a.sends(extended("rollback"))
        book.a.gets(backend("1", "2", "n", "C ROLLBACK", "Z I"))
        book.server.gets(query("ROLLBACK"))
        book.server.sends(backend("C ROLLBACK", "Z I"))


@pytest.mark.parametrize(
    ("answered", "sent"),
    [
        ([extended("savepoint a")], ahead("begin", "savepoint a", closes=False)),
        ([extended("savepoint a"), query("savepoint b")], ahead("begin", "savepoint a", "savepoint b")),
        ([query("savepoint a"), extended("release a")], ahead("begin", "SAVEPOINT _hd", "RELEASE _hd", closes=False)),
        ([query("savepoint a"), extended("rollback to a")], ahead("begin", "savepoint a")),
        ([extended("show timezone")], ahead("begin", "show timezone", closes=False)),
        ([extended("show timezone"), query("show timezone")], ahead("begin")),
        ([extended("savepoint a"), query("")], ahead("begin", "savepoint a", closes=False)),
    ],
)
def test_the_unnamed_portal_of_what_was_held_is_the_one_that_the_client_believes_in(
    answered: list[bytes], sent: bytes
) -> None:
    """At the origin it stays to the end of the transaction, or to the next run or Query."""
    book = Playbook()
    begin(book)
    for data in answered:
        book.a.sends(data)
        book.a.take()
    book.a.sends(execute() + sync())
    book.server.gets(sent, execute(), sync())


def test_a_parse_of_begin_alone_begins_nothing() -> None:
    with Playbook() as book:
        book.a.sends(parse("begin") + sync())
        book.server.gets(parse("begin"), sync())
        book.server.sends(backend("1", "Z I"))
        book.a.gets(backend("1", "Z I"))


def test_what_the_client_pipelines_behind_begin_travels_as_it_was_sent() -> None:
    with Playbook() as book:
        data = query("begin") + query("select 1") + query("commit")
        book.a.sends(data)
        book.server.gets(data)
        reply = BEGUN + ROW + backend("Z T", "C COMMIT", "Z I")
        book.server.sends(reply)
        book.a.gets(reply)


def test_a_second_scope_waits_until_the_first_has_carried_begin() -> None:
    """If BEGIN failed, the second would run in autocommit (E-0)."""
    with Playbook() as book:
        begin(book)
        book.a.sends(query("select 1") + query("insert"))
        book.server.gets(ahead("begin"), query("select 1"))
        book.server.sends(carried("BEGIN") + ROW + backend("Z T"))
        book.server.gets(query("insert"))
        book.server.sends(backend("C INSERT 0 1", "Z T"))
        book.a.gets(ROW, backend("Z T", "C INSERT 0 1", "Z T"))
        book.a.sends(query("rollback"))
        book.a.gets(backend("C ROLLBACK", "Z I"))
        book.server.gets(query("ROLLBACK"))
        book.server.sends(backend("C ROLLBACK", "Z I"))


def test_a_first_statement_that_is_wrong_fails_the_transaction() -> None:
    with Playbook() as book:
        begin(book)
        book.a.sends(query("select 1/0"))
        book.server.gets(ahead("begin"), query("select 1/0"))
        book.server.sends(carried("BEGIN") + backend("E 22012 division by zero", "Z E"))
        book.a.gets(backend("E 22012 division by zero", "Z E"))
        book.a.sends(query("commit"))
        book.a.gets(backend("C ROLLBACK", "Z I"))
        book.server.gets(query("ROLLBACK"))
        book.server.sends(backend("C ROLLBACK", "Z I"))


def test_a_second_begin_is_the_origins_to_warn_of() -> None:
    with Playbook() as book:
        begin(book)
        book.a.sends(query("begin"))
        book.server.gets(ahead("begin"), query("begin"))
        reply = backend("N 25001 there is already a transaction in progress") + BEGUN
        book.server.sends(carried("BEGIN") + reply)
        book.a.gets(reply)
        book.a.leaves()


@pytest.mark.parametrize("sql", ["begin isolation level serializable", "begin read write"])
def test_a_standby_says_itself_what_it_does_not_begin(sql: str) -> None:
    with Playbook(view={**VIEW, b"in_hot_standby": b"on"}) as book:
        book.asks(book.a, query(sql), backend("E 0A000 no", "Z I"))
        begin(book, "begin read only")
        book.a.leaves()


def test_savepoints_and_modes_are_held_in_order() -> None:
    statements = ["begin", "set transaction isolation level repeatable read", "savepoint a", "savepoint b"]
    with Playbook() as book:
        begin(book)
        for sql, tag in zip(statements[1:], ["SET", "SAVEPOINT", "SAVEPOINT"], strict=True):
            book.a.sends(query(sql))
            book.a.gets(backend(f"C {tag}", "Z T"))
        book.a.sends(query("select 1"))
        book.server.gets(ahead(*statements), query("select 1"))
        book.server.sends(carried("BEGIN", "SET", "SAVEPOINT", "SAVEPOINT") + ROW + backend("Z T"))
        book.a.gets(ROW, backend("Z T"))
        book.a.leaves()


def test_savepoints_that_never_reached_the_origin_are_released_and_rolled_back_to_here() -> None:
    with Playbook() as book:
        accept(book, "set timezone to 'CET'", "S TimeZone=CET")
        book.b.sends(query("reset timezone"))
        book.server.take()
        book.server.sends(backend("C RESET", "S TimeZone=UTC", "Z I"))
        book.b.take()
        begin(book)
        for sql, *replies in [
            ("savepoint a", "C SAVEPOINT"),
            ("savepoint b", "C SAVEPOINT"),
            ("set timezone to 'CET'", "C SET", "S TimeZone=CET"),
            ("rollback to a", "C ROLLBACK", "S TimeZone=UTC"),
            ("savepoint c", "C SAVEPOINT"),
            ("set timezone to 'CET'", "C SET", "S TimeZone=CET"),
            ("release a", "C RELEASE"),
        ]:
            book.a.sends(query(sql))
            book.a.gets(backend(*replies, "Z T"))
        book.a.sends(query("release c"))
        book.server.gets(ahead("begin", "set timezone to 'CET'"), query("release c"))
        book.server.sends(carried("BEGIN", "SET") + backend("E 3B001 no such savepoint", "S TimeZone=UTC", "Z E"))
        book.a.gets(backend("E 3B001 no such savepoint", "S TimeZone=UTC", "Z E"))
        book.a.leaves()


@pytest.mark.parametrize(
    ("begun", "shown"),
    [(None, "serializable"), ("begin", "serializable"), ("begin isolation level read committed", "read committed")],
)
def test_the_level_of_a_transaction_that_the_origin_has_not_seen_is_shown_here(begun: str | None, shown: str) -> None:
    with Playbook() as book:
        book.pipe.default_isolation = lambda label: Isolation.SERIALIZABLE
        if begun is not None:
            begin(book, begun)
        book.a.sends(query("show transaction isolation level"))
        told = messages.row_description([(b"transaction_isolation", 25, -1)]) + messages.data_row([shown.encode()])
        book.a.gets(told, backend("C SHOW", "Z T" if begun else "Z I"))
        if begun:
            book.a.leaves()


def test_isolation_behind_a_savepoint_is_the_origins_to_refuse() -> None:
    """25001, as directly."""
    late = "set transaction isolation level serializable"
    with Playbook() as book:
        begin(book)
        book.a.sends(query("savepoint a"))
        book.a.gets(backend("C SAVEPOINT", "Z T"))
        book.a.sends(query(late))
        book.server.gets(ahead("begin", "savepoint a"), query(late))
        book.server.sends(carried("BEGIN", "SAVEPOINT") + backend("E 25001 too late", "Z E"))
        book.a.gets(backend("E 25001 too late", "Z E"))
        book.a.leaves()


def test_switched_off_begin_is_forwarded() -> None:
    with Playbook(pipe=make_pipe(switches=Switches(hold_begin=False))) as book:
        book.asks(book.a, query("begin"), BEGUN)
        book.asks(book.a, query("rollback"), backend("C ROLLBACK", "Z I"))


def test_a_held_transaction_whose_server_is_lost_before_it_answers_goes_to_another_one() -> None:
    """Nothing can have been committed: the scope has no end of a transaction in it."""
    with Playbook(servers=2) as book:
        begin(book)
        book.a.sends(query("insert into t values (1)"))
        first = book.servers[0]
        first.gets(ahead("begin"), query("insert into t values (1)"))
        first.breaks()
        (second,) = book.servers
        second.gets(ahead("begin"), query("insert into t values (1)"))
        second.sends(carried("BEGIN") + backend("C INSERT 0 1", "Z T"))
        book.a.gets(backend("C INSERT 0 1", "Z T"))
        book.a.leaves()


def test_a_first_scope_that_commits_is_not_sent_twice() -> None:
    with Playbook(servers=2) as book:
        begin(book)
        book.a.sends(query("insert into t values (1); commit"))
        first = book.servers[0]
        first.take()
        first.breaks(backend("E 08006 lost"))
        book.a.gets(backend("E 08006 lost", "Z E"))
        book.a.sends(query("rollback"))
        book.a.gets(backend("C ROLLBACK", "Z I"))


def test_no_server_in_time_fails_the_transaction_and_not_only_the_statement() -> None:
    """Told ``I``, a driver would go on in autocommit."""
    with Playbook() as book:
        book.b.sends(query("begin; select 1"))
        book.server.gets(query("begin; select 1"))
        book.server.sends(backend("C BEGIN") + ROW + backend("Z T"))
        book.b.gets(backend("C BEGIN"), ROW, backend("Z T"))
        begin(book)
        for sql, tag in [("savepoint one", "SAVEPOINT"), ("savepoint two", "SAVEPOINT")]:
            book.a.sends(query(sql))
            book.a.gets(backend(f"C {tag}", "Z T"))
        book.a.sends(query("select 1"))
        book.a.refuse(backend("E 53300 none free"))
        book.a.gets(backend("E 53300 none free", "Z E"))
        book.a.sends(query("select 1"))
        book.a.gets(
            messages.error_response(
                "current transaction is aborted, commands ignored until end of transaction block", "25P02"
            ),
            backend("Z E"),
        )
        # What was held is still there: the savepoint brings it back.
        book.a.sends(query("rollback to one"))
        book.a.gets(backend("C ROLLBACK", "Z T"))
        book.b.sends(query("commit"))
        book.server.gets(query("commit"))
        book.server.sends(backend("C COMMIT", "Z I"))
        book.b.gets(backend("C COMMIT", "Z I"))
        book.a.sends(query("select 1"))
        book.server.gets(ahead("begin", "savepoint one"), query("select 1"))
        book.server.sends(carried("BEGIN", "SAVEPOINT") + ROW + backend("Z T"))
        book.a.gets(ROW, backend("Z T"))
        book.a.leaves()


def test_an_error_to_what_was_held_reaches_the_statement_that_carried_it() -> None:
    with Playbook() as book:
        begin(book)
        server = book.server
        book.a.sends(query("insert into t values (1)"))
        server.take()
        server.sends(backend("E 57014 canceling"))
        assert server.is_gone
        book.a.gets(backend("E 57014 canceling", "Z E"))
        book.a.sends(query("commit"))
        book.a.gets(backend("C ROLLBACK", "Z I"))


# --- E-3 ---


@pytest.mark.parametrize("end", ["commit", "rollback", "end", "abort"])
def test_a_transaction_that_never_reached_the_origin_ends_here(end: str) -> None:
    with Playbook() as book:
        begin(book)
        book.a.sends(query(end))
        book.a.gets(backend("C COMMIT" if end in ("commit", "end") else "C ROLLBACK", "Z I"))
        book.server.gets()
        assert {Saved.BEGIN, Saved.COMMIT if end in ("commit", "end") else Saved.ROLLBACK} == set(book.pipe.saved)


def test_commit_and_chain_is_the_origins() -> None:
    with Playbook() as book:
        begin(book)
        book.a.sends(query("commit and chain"))
        book.server.gets(ahead("begin"), query("commit and chain"))
        book.server.sends(carried("BEGIN") + backend("C COMMIT", "Z T"))
        book.a.gets(backend("C COMMIT", "Z T"))
        book.a.leaves()


# --- E-4 ---


def test_rollback_is_answered_at_once_and_the_next_scope_goes_behind_it() -> None:
    with Playbook() as book:
        live(book)
        book.a.sends(query("rollback"))
        book.a.gets(backend("C ROLLBACK", "Z I"))
        book.server.gets(query("ROLLBACK"))
        book.a.sends(query("select 1"))
        book.server.gets(query("select 1"))
        assert book.server not in book.free
        book.server.sends(backend("C ROLLBACK", "Z I"))
        book.server.sends(ROW + backend("Z I"))
        book.a.gets(ROW, backend("Z I"))
        assert book.server in book.free


def test_nobody_else_gets_the_server_before_it_has_rolled_back() -> None:
    with Playbook() as book:
        live(book)
        book.a.sends(query("rollback"))
        book.b.sends(query("select 1"))
        book.server.gets(query("ROLLBACK"))
        book.server.sends(backend("C ROLLBACK", "Z I"))
        book.server.gets(query("select 1"))
        book.server.sends(ROW + backend("Z I"))
        book.a.gets(backend("C ROLLBACK", "Z I"))
        book.b.gets(ROW, backend("Z I"))


def test_the_next_transaction_is_held_while_the_last_one_is_rolled_back() -> None:
    with Playbook() as book:
        live(book)
        book.a.sends(query("rollback"))
        begin_reply = backend("C ROLLBACK", "Z I") + BEGUN
        book.a.sends(query("begin"))
        book.a.gets(begin_reply)
        book.a.sends(query("select 1"))
        book.server.gets(query("ROLLBACK"), ahead("begin"), query("select 1"))
        book.server.sends(backend("C ROLLBACK", "Z I") + carried("BEGIN") + ROW + backend("Z T"))
        book.a.gets(ROW, backend("Z T"))
        book.a.leaves()


@pytest.mark.parametrize(
    ("sql", "eager", "is_ahead"),
    [
        ("select 1 from t for update", Eager.ON, False),
        ("select 1 from t for update", Eager.ALWAYS, True),
        ("lock table t", Eager.ON, False),
        ("select own_function()", Eager.ON, False),
        ("update t set a = 1", Eager.ON, True),
        ("update t set a = 1", Eager.OFF, False),
    ],
)
def test_locks_that_others_wait_for_are_released_before_the_client_hears_of_it(
    sql: str, eager: Eager, is_ahead: bool
) -> None:
    with Playbook(pipe=make_pipe(switches=Switches(eager_rollback=eager))) as book:
        begin(book)
        book.a.sends(query(sql))
        book.server.gets(ahead("begin"), query(sql))
        book.server.sends(carried("BEGIN") + backend("C SELECT 0", "Z T"))
        book.a.gets(backend("C SELECT 0", "Z T"))
        book.a.sends(query("rollback"))
        assert is_ahead == bool(book.a.take())
        book.server.take()
        book.server.sends(backend("C ROLLBACK", "Z I"))
        assert is_ahead != bool(book.a.take())


def test_a_server_that_ends_a_transaction_otherwise_than_told_is_closed_and_nobody_hears_of_it() -> None:
    with Playbook() as book:
        live(book)
        server = book.server
        book.a.sends(query("rollback"))
        book.a.gets(backend("C ROLLBACK", "Z I"))
        server.take()
        server.sends(backend("C COMMIT", "Z I"))
        assert server.is_gone
        book.a.gets()


def test_a_server_that_is_lost_while_it_rolls_back_is_no_loss() -> None:
    with Playbook() as book:
        live(book)
        book.a.sends(query("rollback"))
        book.a.gets(backend("C ROLLBACK", "Z I"))
        book.server.take()
        book.server.breaks()
        book.a.gets()
        begin(book)
        book.a.sends(query("commit"))
        book.a.gets(backend("C COMMIT", "Z I"))


# --- E-5 ---


@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize("sql", ["begin", "begin isolation level serializable"])
def test_commit_of_what_has_provably_only_read_is_answered_at_once(sql: str, proven: bool) -> None:
    with Playbook() as book:
        book.pipe.default_isolation = lambda label: Isolation.READ_COMMITTED
        book.pipe.is_read_only = lambda texts, label: proven and list(texts) == [b"select 1"]
        live(book, sql)
        book.a.sends(query("commit"))
        is_ahead = proven and "serializable" not in sql
        assert is_ahead == bool(book.a.take())
        book.server.gets(query("COMMIT" if is_ahead else "commit"))
        book.server.sends(backend("C COMMIT", "Z I"))
        assert is_ahead != bool(book.a.take())


# --- E-7 ---


def test_a_set_that_the_origin_has_accepted_travels_with_the_next_statement() -> None:
    with Playbook() as book:
        accept(book, "set work_mem to '2MB'")
        book.a.sends(query("set work_mem to '2MB'"))
        book.a.gets(backend("C SET", "Z I"))
        book.b.sends(query("reset all"))
        book.server.gets(query("reset all"))
        book.server.sends(backend("C RESET", "Z I"))
        book.b.gets(backend("C RESET", "Z I"))
        book.a.sends(query("select 1"))
        book.server.gets(query("set work_mem to '2MB'"), query("select 1"))
        book.server.sends(backend("C SET", "Z I") + ROW + backend("Z I"))
        book.a.gets(ROW, backend("Z I"))


def test_a_reported_setting_is_reported_as_the_origin_did() -> None:
    with Playbook() as book:
        accept(book, "set timezone to 'cet'", "S TimeZone=CET")
        book.a.sends(query("set timezone to 'cet'"))
        book.a.gets(backend("C SET", "S TimeZone=CET", "Z I"))
        book.a.sends(query("show timezone"))
        book.a.gets(backend("T TimeZone", "D CET", "C SHOW", "Z I"))


def test_a_set_that_failed_is_asked_again() -> None:
    with Playbook() as book:
        for client in (book.b, book.a):
            book.asks(client, query("set work_mem to 'x'"), backend("E 22023 no", "Z I"))


@pytest.mark.parametrize("sql", ["set role to 'r'", "set default_tablespace to 'x'", "set plug.key to 'y'"])
def test_what_depends_on_catalogs_or_rights_is_always_the_origins(sql: str) -> None:
    with Playbook() as book:
        for _ in range(2):
            book.asks(book.a, query(sql), backend("C SET", "Z I"))
        book.a.leaves()


@pytest.mark.parametrize(("end", "kept"), [("commit", True), ("rollback", False)])
def test_sets_of_a_held_transaction_end_with_it(end: str, kept: bool) -> None:
    with Playbook() as book:
        accept(book, "set timezone to 'CET'", "S TimeZone=CET")
        book.b.sends(query("reset timezone"))
        book.server.gets(query("reset timezone"))
        book.server.sends(backend("C RESET", "S TimeZone=UTC", "Z I"))
        book.b.gets(backend("C RESET", "S TimeZone=UTC", "Z I"))
        begin(book)
        book.a.sends(query("set timezone to 'CET'"))
        book.a.gets(backend("C SET", "S TimeZone=CET", "Z T"))
        book.a.sends(query(end))
        told = [] if kept else ["S TimeZone=UTC"]
        book.a.gets(backend(f"C {end.upper()}", *told, "Z I"))
        book.a.sends(query("select 1"))
        restored = [query("set timezone to 'CET'")] if kept else []
        book.server.gets(*restored, query("select 1"))
        book.server.sends(backend(*["C SET", "S TimeZone=CET", "Z I"] if kept else []) + ROW + backend("Z I"))
        book.a.gets(ROW, backend("Z I"))


def test_a_held_set_travels_inside_the_transaction() -> None:
    with Playbook() as book:
        accept(book, "set work_mem to '2MB'")
        book.asks(book.b, query("reset work_mem"), backend("C RESET", "Z I"))
        begin(book)
        book.a.sends(query("set work_mem to '2MB'"))
        book.a.gets(backend("C SET", "Z T"))
        book.a.sends(query("select 1"))
        book.server.gets(ahead("begin", "set work_mem to '2MB'"), query("select 1"))
        book.server.sends(carried("BEGIN", "SET") + ROW + backend("Z T"))
        book.a.gets(ROW, backend("Z T"))
        book.a.sends(query("rollback"))
        book.a.gets(backend("C ROLLBACK", "Z I"))
        book.server.gets(query("ROLLBACK"))
        book.server.sends(backend("C ROLLBACK", "Z I"))
        assert {} == book.server.session.label.items
        assert {} == book.a.session.journal.wanted.items


def test_sets_from_before_begin_go_ahead_of_it() -> None:
    """default_transaction_isolation holds for the BEGIN behind it only if that is another scope (W-40)."""
    level = "set default_transaction_isolation to 'serializable'"
    with Playbook() as book:
        accept(book, level)
        book.a.sends(query(level))
        book.a.gets(backend("C SET", "Z I"))
        book.asks(book.b, query("reset all"), backend("C RESET", "Z I"))
        begin(book)
        book.a.sends(query("select 1"))
        book.server.gets(query(level), ahead("begin"), query("select 1"))
        book.server.sends(backend("C SET", "Z I") + carried("BEGIN") + ROW + backend("Z T"))
        book.a.gets(ROW, backend("Z T"))
        book.a.leaves()


@pytest.mark.parametrize(
    "sql", ["unlisten *", "unlisten ch", "discard plans", "discard temp", "discard sequences", "close all"]
)
def test_what_an_unpinned_session_has_nothing_of_is_answered_here(sql: str) -> None:
    tag = {"unlisten ch": "UNLISTEN", "unlisten *": "UNLISTEN", "close all": "CLOSE CURSOR ALL"}.get(sql, sql.upper())
    with Playbook() as book:
        book.a.sends(query(sql))
        book.a.gets(backend(f"C {tag}", "Z I"))


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_set_inside_a_transaction_travels_with_its_next_statement(end: str) -> None:
    sql = "set work_mem to '2MB'"
    with Playbook() as book:
        accept(book, sql)
        book.asks(book.b, query("reset work_mem"), backend("C RESET", "Z I"))
        live(book)
        book.a.sends(query(sql))
        book.a.gets(backend("C SET", "Z T"))
        book.a.sends(extended("select 1"))
        book.server.gets(apart(sql), close_portal(), extended("select 1"))
        book.server.sends(backend("1", "2", "C SET", "3", "3", "1", "2") + ROW + backend("Z T"))
        book.a.gets(backend("1", "2"), ROW, backend("Z T"))
        book.a.sends(query(end))
        book.server.gets(query(end if end == "commit" else "ROLLBACK"))
        book.server.sends(backend(f"C {end.upper()}", "Z I"))
        book.a.gets(backend(f"C {end.upper()}", "Z I"))
        assert ({b"work_mem"} if end == "commit" else set()) == set(book.server.session.label.items)


def test_a_set_inside_a_transaction_goes_with_its_commit_and_not_with_its_rollback() -> None:
    sql = "set timezone to 'CET'"
    with Playbook() as book:
        accept(book, sql, "S TimeZone=CET")
        book.b.sends(query("reset timezone"))
        book.server.take()
        book.server.sends(backend("C RESET", "S TimeZone=UTC", "Z I"))
        book.b.take()
        for end in ("rollback", "commit"):
            live(book)
            book.a.sends(query(sql))
            book.a.gets(backend("C SET", "S TimeZone=CET", "Z T"))
            book.a.sends(query(end))
            if end == "rollback":
                book.a.gets(backend("C ROLLBACK", "S TimeZone=UTC", "Z I"))
                book.server.gets(query("ROLLBACK"))
                book.server.sends(backend("C ROLLBACK", "Z I"))
            else:
                book.server.gets(apart(sql), query(end))
                book.server.sends(backend("1", "2", "C SET", "3", "C COMMIT", "S TimeZone=CET", "Z I"))
                book.a.gets(backend("C COMMIT", "Z I"))
        assert {b"timezone"} == set(book.server.session.label.items)


def test_a_set_that_is_refused_all_the_same_fails_the_transaction_with_the_origins_error() -> None:
    sql = "set work_mem to '2MB'"
    with Playbook() as book:
        accept(book, sql)
        book.asks(book.b, query("reset work_mem"), backend("C RESET", "Z I"))
        live(book)
        book.a.sends(query(sql))
        book.a.gets(backend("C SET", "Z T"))
        server = book.server
        book.a.sends(query("select 1"))
        server.take()
        server.sends(backend("E 22023 no longer"))
        assert server.is_gone
        book.a.gets(backend("E 22023 no longer", "Z E"))
        book.a.sends(query("rollback"))
        book.a.gets(backend("C ROLLBACK", "Z I"))
