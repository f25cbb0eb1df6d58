"""One run of one statement in the ways of drivers, and fronts of scopes, as conversations without sockets (E-2, E-3, E-6, E-8)."""

import pytest

from hyperdrive.sql.verdict import Isolation
from hyperdrive.testing.frontend import bind, describe_portal, describe_statement, execute, parse, query, sync
from hyperdrive.testing.playbook import Playbook, backend
from tests.hyperdrive.session.holding import BEGUN, ROW, ahead, begin, carried, extended, live
from tests.hyperdrive.session.test_known import ASK, SQL, TOLD, learned
from tests.hyperdrive.session.test_known import ROW as KNOWN_ROW

PREPARED_COMMIT = parse("COMMIT", "S_1") + bind("S_1") + execute(limit=1) + sync()
COMMIT_AGAIN = bind("S_1") + execute(limit=1) + sync()


# --- BEGIN in one write with what it is for ---


@pytest.mark.parametrize("first", [extended("select 1"), query("select 1")], ids=["extended", "simple"])
def test_a_begin_with_its_first_scope_behind_it_is_held_for_that_scope(first: bytes) -> None:
    """So do JDBC and Npgsql: it is one flight either way, and now its end can be answered here."""
    with Playbook() as book:
        book.pipe.is_read_only = lambda texts, label: True
        book.pipe.default_isolation = lambda label: Isolation.READ_COMMITTED
        book.a.sends(query("BEGIN") + first)
        book.a.gets(BEGUN)
        book.server.gets(ahead("BEGIN"), first)
        reply = ROW if first[:1] == b"Q" else backend("1", "2") + ROW
        book.server.sends(carried("BEGIN") + reply + backend("Z T"))
        book.a.gets(reply, backend("Z T"))
        book.a.sends(PREPARED_COMMIT)
        book.a.gets(backend("1", "2", "C COMMIT", "Z I"))
        book.server.gets(query("COMMIT"))
        book.server.sends(backend("C COMMIT", "Z I"))


def test_a_begin_in_the_scope_of_its_first_statement_is_held_for_the_rest_of_it() -> None:
    """So does psycopg in pipeline mode."""
    with Playbook() as book:
        rest = parse("select 1") + bind() + describe_portal() + execute() + sync()
        book.a.sends(parse("BEGIN") + bind() + describe_portal() + execute() + rest)
        book.a.gets(backend("1", "2", "n", "C BEGIN"))
        book.server.gets(ahead("BEGIN", closes=False), rest)
        book.server.sends(carried("BEGIN", closes=False) + backend("1", "2", "E 42P01 gone", "Z E"))
        book.a.gets(backend("1", "2", "E 42P01 gone", "Z E"))
        book.a.sends(query("rollback"))
        book.a.gets(backend("C ROLLBACK", "Z I"))
        book.server.gets(query("ROLLBACK"))
        book.server.sends(backend("C ROLLBACK", "Z I"))


@pytest.mark.parametrize(
    "behind",
    [query("select 1") + query("commit"), extended("select 1") * 2, extended("select 1")[:-5] + query("select 1")],
    ids=["two queries", "two scopes", "a Query in a scope"],
)
def test_a_begin_with_more_than_one_scope_behind_it_is_one_flight_as_it_is(behind: bytes) -> None:
    book = Playbook()
    book.a.sends(query("begin") + behind)
    book.server.gets(query("begin") + behind)
    book.a.gets()


def test_a_begin_whose_first_scope_gets_no_server_fails_with_it() -> None:
    with Playbook(servers=0) as book:
        book.a.sends(query("begin") + extended("select 1"))
        book.a.gets(BEGUN)
        book.a.refuse(backend("E 53300 no server"))
        book.a.gets(backend("E 53300 no server", "Z E"))
        book.a.sends(query("rollback"))
        book.a.gets(backend("C ROLLBACK", "Z I"))


# --- statements with names ---


def test_a_commit_with_a_name_ends_what_never_reached_the_origin_and_may_be_run_again() -> None:
    with Playbook() as book:
        begin(book)
        book.a.sends(PREPARED_COMMIT)
        book.a.gets(backend("1", "2", "C COMMIT", "Z I"))
        begin(book)
        book.a.sends(COMMIT_AGAIN)
        book.a.gets(backend("2", "C COMMIT", "Z I"))
        begin(book)
        book.a.sends(bind("S_1") + describe_statement("S_1") + execute() + sync())
        book.a.gets(backend("2", "t", "n", "C COMMIT", "Z I"))
        assert book.server in book.free


def test_what_was_prepared_here_is_prepared_at_the_server_that_needs_it() -> None:
    with Playbook() as book:
        begin(book)
        book.a.sends(PREPARED_COMMIT)
        book.a.take()
        live(book)
        book.a.sends(COMMIT_AGAIN)  # nothing proves that it only read
        book.server.gets(parse("COMMIT", "_hd_1"), bind("_hd_1"), execute(limit=1), sync())
        book.server.sends(backend("1", "2", "C COMMIT", "Z I"))
        book.a.gets(backend("2", "C COMMIT", "Z I"))


def test_a_name_that_is_taken_is_the_origins_to_refuse() -> None:
    with Playbook() as book:
        begin(book)
        book.a.sends(PREPARED_COMMIT)
        book.a.take()
        begin(book)
        book.a.sends(PREPARED_COMMIT)
        book.server.gets_letters("PBEC C P B S")  # the text under a name of ours, and what fails the scope
        book.server.sends(carried("BEGIN") + backend("3", "1", "E 26000 _hd_fail", "Z E"))
        assert b"42P05" in book.a.take()
        book.a.sends(query("rollback"))
        book.a.take()
        book.server.take()
        book.server.sends(backend("C ROLLBACK", "Z I"))


@pytest.mark.parametrize(
    ("run", "letters"),
    [
        (parse("show timezone") + bind() + execute(limit=1) + sync(), "PBES"),
        (parse("commit") + bind("", ["1"]) + execute() + sync(), "PBEC PBES"),
        (parse("commit") + bind(portal="p") + execute("p") + sync(), "PBEC PBES"),
    ],
    ids=["rows and a limit", "a parameter too many", "a portal with a name"],
)
def test_what_is_not_plainly_one_run_is_the_origins(run: bytes, letters: str) -> None:
    book = Playbook()
    if letters != "PBES":
        begin(book)
    book.a.sends(run)
    book.server.gets_letters(letters)


# --- Parse and Describe in one scope with what they are for ---


def test_a_known_read_that_is_asked_for_and_run_in_one_scope_is_asked_for_here() -> None:
    """So do postgres.js and whoever else reads without parameters: what is left is a whole scope, which memory may answer."""
    run = bind("s1", ["1"]) + execute() + sync()
    with learned() as book:
        book.pipe.is_read_only = lambda texts, label: True
        book.a.sends(ASK.removesuffix(sync()) + run)
        book.a.gets(backend("1"), TOLD)
        server = book.a.server
        assert server is not None
        server.gets(bind("_hd_1", ["1"]), execute(), sync())
        server.sends(backend("2") + KNOWN_ROW + backend("Z I"))
        book.a.gets(backend("2"), KNOWN_ROW, backend("Z I"))


def test_what_would_have_to_wait_for_a_comparison_travels_as_it_was_sent() -> None:
    run = bind("s1", ["1"]) + execute() + sync()
    with learned() as book:
        book.a.sends(parse(SQL, "s1") + describe_statement("s1") + run)
        server = book.a.server
        assert server is not None
        server.gets(describe_statement("_hd_1"), bind("_hd_1", ["1"]), execute(), sync())
        server.sends(TOLD + backend("2") + KNOWN_ROW + backend("Z I"))
        book.a.gets(backend("1"), TOLD, backend("2"), KNOWN_ROW, backend("Z I"))


def test_a_deallocate_under_a_name_that_is_taken_pins_nobody() -> None:
    with Playbook() as book:
        book.asks(
            book.a,
            parse("select 1", "s1") + sync(),
            backend("1", "Z I"),
            to_server=parse("select 1", "_hd_1") + sync(),
        )
        book.a.sends(parse("deallocate s1", "s1") + bind("s1") + execute() + sync())
        book.server.gets_letters("C P B S")  # the text under a name of ours, and what fails the scope
        book.server.sends(backend("3", "1", "E 26000 the poison", "Z I"))
        assert b"42P05" in book.a.take()
        assert book.a.session.pins() == []
        assert book.server in book.free
