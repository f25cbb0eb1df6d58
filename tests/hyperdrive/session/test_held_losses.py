"""What goes wrong around a held-back transaction: servers lost, none to be had, statements that changed (E-2, E-3, W-54)."""

import pytest

from hyperdrive.pgwire import messages
from hyperdrive.testing.frontend import (
    bind,
    close_statement,
    describe_statement,
    execute,
    flush,
    parse,
    query,
    sync,
)
from hyperdrive.testing.playbook import Playbook, backend
from tests.hyperdrive.session.holding import ROW, ahead, begin, carried

TAKEN = backend("E 53300 none free")
ABORTED = messages.error_response(
    "current transaction is aborted, commands ignored until end of transaction block", "25P02"
)


def occupy(book: Playbook) -> None:
    """Client b has the only server."""
    book.b.sends(query("begin; select 1"))
    book.server.gets(query("begin; select 1"))
    book.server.sends(backend("C BEGIN") + ROW + backend("Z T"))
    book.b.gets(backend("C BEGIN"), ROW, backend("Z T"))


@pytest.mark.parametrize(
    ("first", "to_server"),
    [
        pytest.param(
            parse("insert into t values (1)", "s1") + bind("s1") + execute() + sync(),
            parse("insert into t values (1)", "_hd_1") + bind("_hd_1") + execute() + sync(),
            id="named",
        ),
        pytest.param(
            parse("select 1", "s1") + describe_statement("s1") + flush(),
            parse("select 1", "_hd_1") + describe_statement("_hd_1") + flush(),
            id="asked only",
        ),
        pytest.param(parse("select 1") + bind() + execute() + flush(), None, id="unnamed"),
    ],
)
def test_a_first_scope_that_is_sent_again_is_prepared_again(first: bytes, to_server: bytes | None) -> None:
    with Playbook(servers=2) as book:
        begin(book)
        book.a.sends(first)
        book.servers[0].breaks()
        (second,) = book.servers
        second.gets(ahead("begin"), to_server or first)
        book.a.gets()
        book.a.leaves()


@pytest.mark.parametrize("sql", ["select own_function()", "insert into t select own_function()"])
def test_what_may_have_acted_elsewhere_is_not_sent_twice(sql: str) -> None:
    with Playbook(servers=2) as book:
        begin(book)
        book.a.sends(query(sql))
        first = book.servers[0]
        first.gets(ahead("begin"), query(sql))
        first.breaks(backend("E 08006 lost"))
        book.a.gets(backend("E 08006 lost", "Z E"))
        book.a.leaves()


def test_a_changed_result_in_a_transaction_is_told_and_not_tried_again() -> None:
    """The transaction has failed: a second try would be answered 25P02."""
    with Playbook() as book:
        book.a.sends(parse("select a from t", "s1") + sync())
        book.server.gets(parse("select a from t", "_hd_1"), sync())
        book.server.sends(backend("1", "Z I"))
        book.a.gets(backend("1", "Z I"))
        begin(book)
        book.a.sends(bind("s1") + execute() + sync())
        book.server.gets(ahead("begin"), bind("_hd_1"), execute(), sync())
        book.server.sends(carried("BEGIN") + backend("E 0A000 changed", "Z E"))
        book.a.gets(backend("E 0A000 changed", "Z E"))
        book.a.leaves()


@pytest.mark.parametrize(
    "late",
    [
        "set transaction read only",
        "set transaction read write",
        "set transaction deferrable",
        "set transaction not deferrable",
    ],
)
def test_modes_inside_a_savepoint_are_the_origins(late: str) -> None:
    """All but READ ONLY are 25001, and that ends with the savepoint (verified 16, 18: tests/regressions)."""
    with Playbook() as book:
        begin(book, "begin read only")
        book.a.sends(query("savepoint a"))
        book.a.gets(backend("C SAVEPOINT", "Z T"))
        book.a.sends(query(late))
        book.server.gets(ahead("begin read only", "savepoint a"), query(late))
        book.server.sends(carried("BEGIN", "SAVEPOINT") + backend("E 25001 too late", "Z E"))
        book.a.gets(backend("E 25001 too late", "Z E"))
        book.a.leaves()


def test_a_rollback_behind_a_refused_statement_ends_the_transaction() -> None:
    with Playbook() as book:
        occupy(book)
        begin(book)
        book.a.sends(query("select 1") + query("select 2") + query("rollback") + query("select 3"))
        book.a.refuse(TAKEN)
        book.a.gets(TAKEN, backend("Z E"), ABORTED, backend("Z E", "C ROLLBACK", "Z I"))
        assert book.a.is_waiting
        book.b.sends(query("commit"))
        book.server.gets(query("commit"))
        book.server.sends(backend("C COMMIT", "Z I"))
        book.b.gets(backend("C COMMIT", "Z I"))
        book.server.gets(query("select 3"))
        book.server.sends(ROW + backend("Z I"))
        book.a.gets(ROW, backend("Z I"))


def test_a_rollback_behind_a_lost_statement_ends_the_transaction() -> None:
    with Playbook() as book:
        begin(book)
        book.a.sends(query("update t set a = own()") + query("rollback"))
        server = book.server
        server.gets(ahead("begin"), query("update t set a = own()"))
        server.breaks(backend("E 08006 lost"))
        book.a.gets(backend("E 08006 lost", "Z E", "C ROLLBACK", "Z I"))


def test_the_error_waits_for_the_statement_that_asks_for_it() -> None:
    with Playbook() as book:
        begin(book)
        book.a.sends(query("select 1"))
        server = book.server
        server.take()
        server.sends(carried("BEGIN") + ROW + backend("Z T"))
        book.a.gets(ROW, backend("Z T"))
        server.breaks(backend("E 08006 lost"))
        book.a.sends(sync() + query(""))
        book.a.gets(backend("Z E", "I", "Z E"))
        book.a.sends(query("select 1"))
        book.a.gets(backend("E 08006 lost", "Z E"))
        book.a.leaves()


COMMITS = {
    "simple": (query("commit"), backend("E 08006 lost", "Z I")),
    "extended": (parse("commit") + bind() + execute() + sync(), backend("1", "2", "E 08006 lost", "Z I")),
}


@pytest.mark.parametrize("how", COMMITS)
def test_a_commit_fails_if_the_client_has_not_heard_that_its_transaction_is_lost(how: str) -> None:
    """It would have got the tag ROLLBACK, which drivers do not look at, and gone on in the belief that all was saved (W-16)."""
    sent, expected = COMMITS[how]
    with Playbook() as book:
        begin(book)
        book.a.sends(query("insert into t values (1)"))
        server = book.server
        server.take()
        server.sends(carried("BEGIN") + backend("C INSERT 0 1", "Z T"))
        book.a.gets(backend("C INSERT 0 1", "Z T"))
        server.breaks(backend("E 08006 lost"))
        book.a.sends(sent)
        book.a.gets(expected)
        book.a.leaves()


def test_what_became_of_one_transaction_is_not_told_in_the_next() -> None:
    with Playbook(servers=2) as book:
        begin(book)
        book.a.sends(query("select 1"))
        first, second = book.servers
        first.take()
        first.sends(carried("BEGIN") + ROW + backend("Z T"))
        book.a.gets(ROW, backend("Z T"))
        first.breaks(backend("E 08006 lost"))
        book.a.sends(query("rollback"))
        book.a.gets(backend("C ROLLBACK", "Z I"))
        begin(book)
        book.a.sends(query("select own()"))
        second.take()
        second.breaks(backend("E 08006 lost again"))
        book.a.gets(backend("E 08006 lost again", "Z E"))
        book.a.sends(query("select 1"))
        book.a.gets(ABORTED, backend("Z E"))
        book.a.leaves()


def test_names_that_a_lost_transaction_closes_and_prepares_are_closed_and_prepared() -> None:
    with Playbook() as book:
        book.a.sends(parse("select 1", "s1") + sync())
        book.server.take()
        book.server.sends(backend("1", "Z I"))
        book.a.gets(backend("1", "Z I"))
        occupy(book)
        begin(book)
        book.a.sends(query("select 1"))
        book.a.refuse(TAKEN)
        book.a.gets(TAKEN, backend("Z E"))
        book.a.sends(close_statement("s1") + sync())
        book.a.gets(backend("3", "Z E"))
        book.a.sends(parse("rollback", "r1") + describe_statement("r1") + bind("r1") + execute() + sync())
        book.a.gets(backend("1", "t", "n", "2", "C ROLLBACK", "Z I"))
        assert [b"r1"] == book.a.session.statement_names()
        book.b.leaves()


def test_an_unnamed_statement_that_a_failed_transaction_does_not_take_is_still_the_clients() -> None:
    """Its Bind is refused with 25P02 each time, not with 26000 the second."""
    with Playbook() as book:
        begin(book)
        book.a.sends(parse("select 1") + sync())
        book.server.gets(ahead("begin"), parse("select 1"), sync())
        book.server.sends(carried("BEGIN") + backend("1", "Z T"))
        book.a.gets(backend("1", "Z T"))
        book.asks(
            book.a, parse("select 2", "s1") + sync(), backend("1", "Z T"), to_server=parse("select 2", "_hd_1") + sync()
        )
        book.a.sends(parse("select 3", "s1") + sync())  # the name is taken; the text is looked at under one of ours
        book.server.gets_letters("CPBS")
        book.server.sends(backend("3", "1", "E 26000 the poison", "Z E"))
        book.a.gets_letters("E ZE")
        for _ in range(2):
            book.a.sends(bind() + execute() + sync())
            book.server.gets_letters("BES")
            book.server.sends(backend("E 25P02 aborted", "Z E"))
            assert b"C25P02\0" in book.a.gets_letters("E ZE")
        book.a.leaves()
