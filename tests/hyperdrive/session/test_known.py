"""Parse and Describe of known statements as conversations without sockets: E-6 of the wire reference."""

import pytest

from hyperdrive.pgwire import messages
from hyperdrive.session.pipe import Switches
from hyperdrive.testing.frontend import bind, describe_statement, execute, message, parse, query, sync
from hyperdrive.testing.playbook import Playbook, backend, make_pipe
from tests.hyperdrive.session.holding import carried

SQL = "select a from t where b = $1"
ASK = parse(SQL, "s1") + describe_statement("s1") + sync()
TOLD = backend("t 23", "T a")
RUN = bind("s1", ["1"]) + execute() + sync()
ROW = backend("D 7", "C SELECT 1")


def learned(**switches: bool) -> Playbook:
    """Client b has had the statement described."""
    book = Playbook(servers=2, pipe=make_pipe(switches=Switches(**switches)))
    first = book.free[-1]
    book.b.sends(ASK)
    first.gets(parse(SQL, "_hd_1"), describe_statement("_hd_1"), sync())
    first.sends(backend("1") + TOLD + backend("Z I"))
    book.b.gets(backend("1"), TOLD, backend("Z I"))
    return book


def test_a_known_statement_is_described_without_the_origin() -> None:
    with learned() as book:
        book.a.sends(ASK)
        book.a.gets(backend("1"), TOLD, backend("Z I"))
        book.a.sends(RUN)
        server = book.a.server
        assert server is not None
        server.gets(bind("_hd_1", ["1"]), execute(), sync())
        server.sends(backend("2") + ROW + backend("Z I"))
        book.a.gets(backend("2"), ROW, backend("Z I"))


def test_parse_alone_is_enough_for_those_who_describe_the_portal() -> None:
    with learned() as book:
        book.a.sends(parse(SQL, "own") + sync())
        book.a.gets(backend("1", "Z I"))


@pytest.mark.parametrize("is_same", [True, False])
def test_a_server_that_lacks_it_is_asked_on_the_way_for_what_the_client_was_told(is_same: bool) -> None:
    """The late Parse has the parameter types that the client was told, and the description is compared."""
    with learned() as book:
        book.pipe.is_read_only = lambda texts, label: True
        book.a.sends(ASK)
        book.a.take()
        book.free.reverse()  # the other server
        book.a.sends(RUN)
        server = book.a.server
        assert server is not None
        types = b"\0\1\0\0\0\x17"
        late = message("P", b"_hd_1\0" + SQL.encode() + b"\0" + types)
        server.gets(late, describe_statement("_hd_1"), bind("_hd_1", ["1"]), execute(), sync())
        server.sends(backend("1", "t 23", "T a" if is_same else "T a b") + backend("2") + ROW + backend("Z I"))
        if is_same:
            book.a.gets(backend("2"), ROW, backend("Z I"))
        else:
            book.a.gets(messages.error_response("cached plan must not change result type", "0A000"), backend("Z I"))
            assert server.is_gone


def test_what_may_write_waits_for_the_comparison() -> None:
    with learned() as book:
        book.a.sends(ASK)
        book.a.take()
        book.free.reverse()
        book.a.sends(RUN)
        server = book.a.server
        assert server is not None
        server.gets_letters("P D H")
        server.sends(backend("1", "t 23", "T a"))
        server.gets(bind("_hd_1", ["1"]), execute(), sync())
        server.sends(backend("2") + ROW + backend("Z I"))
        book.a.gets(backend("2"), ROW, backend("Z I"))


@pytest.mark.parametrize(
    "sql", ["alter table t add c int", "do $$ begin end $$", "create view v as select 1", "grant select on t to r"]
)
def test_a_change_of_the_schema_ends_what_is_known(sql: str) -> None:
    with learned() as book:
        book.b.sends(query(sql))
        server = book.b.server
        assert server is not None
        server.gets(query(sql))
        server.sends(backend("C ALTER TABLE", "Z I"))
        book.b.take()
        book.a.sends(ASK)
        assert book.a.server is not None
        book.a.server.sends(backend("1") + TOLD + backend("Z I"))
        book.a.take()
        for one in book.servers:
            one.take()


@pytest.mark.parametrize(("sql", "ends"), [("alter table t add c int", True), ("call p()", True), ("select 1", False)])
def test_a_change_whose_client_left_and_whose_server_was_closed_ends_it_too(sql: str, ends: bool) -> None:
    """Nobody will ever hear whether it was made."""
    with learned() as book:
        epoch = book.pipe.epoch
        book.b.sends(query(sql))
        book.b.server.take()
        book.b.leaves()
        assert ends == (book.pipe.epoch > epoch)


def test_functions_of_which_nobody_knows_what_they_do_raise_a_doubt_once_they_are_committed() -> None:
    with learned() as book:
        doubts: list[int] = []
        book.pipe.schema_doubted = lambda functions: doubts.append(book.pipe.epoch)
        for sql, *tags in [("begin; select own()", "C BEGIN", "C SELECT 1"), ("select 1", "C SELECT 1")]:
            book.b.sends(query(sql))
            book.b.server.sends(backend(*tags, "Z T"))
        assert doubts == []
        book.b.sends(query("commit"))
        book.b.server.sends(backend("C COMMIT", "Z I"))
        assert doubts == [book.pipe.epoch]
        book.b.sends(query("select 1"))
        book.b.server.sends(backend("C RESET", "Z I", "C SELECT 1", "Z I"))  # what it may have set is set right first
        assert doubts == [book.pipe.epoch]
        for side in (book.b, *book.servers):
            side.take()


def test_a_change_that_is_not_committed_yet_ends_it_again_at_its_commit() -> None:
    """Others are still told the old result between the two."""
    with learned() as book:
        for sql, tag, status in [("begin; select 1", "SELECT 1", "T"), ("alter table t add c int", "ALTER TABLE", "T")]:
            book.b.sends(query(sql))
            book.b.server.sends(backend(f"C {tag}", f"Z {status}"))
        book.a.sends(ASK)
        book.a.server.sends(backend("1") + TOLD + backend("Z I"))
        epoch = book.pipe.epoch
        book.b.sends(query("commit"))
        book.b.server.sends(backend("C COMMIT", "Z I"))
        assert epoch < book.pipe.epoch
        for side in (book.a, book.b, *book.servers):
            side.take()


def test_what_an_open_change_shows_its_own_transaction_is_not_remembered() -> None:
    with Playbook(servers=2) as book:
        book.a.sends(query("begin; create table t (a int)"))
        book.a.server.sends(backend("C BEGIN", "C CREATE TABLE", "Z T"))
        book.a.sends(ASK)
        book.a.server.sends(backend("1") + TOLD + backend("Z T"))
        book.b.sends(ASK)
        assert book.b.server is not None
        book.b.server.sends(backend("E 42P01 relation t does not exist", "Z I"))
        book.a.leaves()
        for side in (book.a, book.b, *book.servers):
            side.take()


@pytest.mark.parametrize("code", ["0A000", "42P01", "42703"])
def test_a_statement_that_fails_to_bind_is_known_no_longer(code: str) -> None:
    with learned() as book:
        book.b.sends(RUN)
        server = book.b.server
        server.sends(backend(f"E {code} gone", "Z I"))
        book.a.sends(ASK)
        assert book.a.server is not None
        book.a.server.sends(backend("1") + TOLD + backend("Z I"))
        for side in (book.a, book.b, *book.servers):
            side.take()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_where_parse_would_fix_the_snapshot_the_origin_parses(level: str) -> None:
    with learned() as book:
        book.a.sends(query(f"begin isolation level {level}"))
        book.a.take()
        book.a.sends(ASK)
        assert book.a.server is not None
        book.a.leaves()
        for server in book.servers:
            server.take()


def test_switched_off_the_origin_is_asked() -> None:
    with learned(known_statements=False) as book:
        book.a.sends(ASK)
        server = book.a.server
        assert server is not None
        server.sends(TOLD + backend("Z I"))
        for side in (book.a, *book.servers):
            side.take()


TABLE = "select a from t"
OF_B = backend("1", "t", "T a_of_b")


LOCAL = "set local search_path to 'b'"
ASK_TABLE = parse(TABLE, "s1") + describe_statement("s1") + sync()


def is_asked(book: Playbook) -> bool:
    """Whether client b's Parse of the text is the origin's to answer."""
    book.b.sends(ASK_TABLE)
    asked = book.b.take() == b""
    for server in book.servers:
        server.take()
    book.b.leaves()
    return asked


@pytest.mark.parametrize("is_held", [True, False])
def test_what_a_local_setting_shows_a_transaction_is_nobody_elses(is_held: bool) -> None:
    with Playbook(servers=2) as book:
        if is_held:
            book.b.sends(query(LOCAL))
            book.b.server.sends(backend("N 25P01 no transaction", "C SET", "Z I"))
            book.b.take()
        book.a.sends(query("begin"))
        book.a.sends(query(LOCAL))
        server = book.a.server
        if server is not None:
            server.sends(carried("BEGIN") + backend("C SET", "Z T"))
        book.a.gets(backend("C BEGIN", "Z T", "C SET", "Z T"))
        book.a.sends(ASK_TABLE)
        server = book.a.server
        assert server is not None
        server.sends((carried("BEGIN", "SET") if is_held else b"") + OF_B + backend("Z T"))
        book.a.gets(OF_B, backend("Z T"))
        book.a.leaves()
        assert is_asked(book)


def test_a_local_setting_is_not_answered_with_what_others_were_told() -> None:
    with Playbook() as book:
        book.asks(book.b, query("set local search_path to 'b'"), backend("N 25P01 no transaction", "C SET", "Z I"))
        book.b.sends(parse(TABLE, "x") + describe_statement("x") + sync())
        book.server.take()
        book.server.sends(backend("1", "t", "T a", "Z I"))
        book.b.take()
        book.a.sends(query("begin"))
        book.a.sends(query("set local search_path to 'b'"))
        book.a.gets(backend("C BEGIN", "Z T", "C SET", "Z T"))
        book.a.sends(parse(TABLE, "s1") + describe_statement("s1") + sync())
        book.a.gets()
        book.server.gets_letters("PBE PBE C P DS")
        book.a.leaves()


def test_what_is_described_behind_a_set_in_the_same_write_is_not_remembered() -> None:
    with Playbook() as book:
        book.a.sends(query("set search_path to 'b'") + parse(TABLE, "s1") + describe_statement("s1") + sync())
        book.server.gets_letters("Q PDS")
        book.server.sends(backend("C SET", "Z I") + OF_B + backend("Z I"))
        book.a.gets(backend("C SET", "Z I"), OF_B, backend("Z I"))
        assert is_asked(book)


def test_a_client_that_was_told_the_old_result_never_gets_rows_of_the_new_one() -> None:
    """Another client of the same statement, which was told nothing, gets a new one; the old one keeps its error (W-26)."""
    with Playbook() as book:
        book.b.sends(parse(TABLE, "x") + sync())
        book.server.gets(parse(TABLE, "_hd_1"), sync())
        book.server.sends(backend("1", "Z I"))
        book.b.gets(backend("1", "Z I"))
        book.a.sends(parse(TABLE, "s1") + describe_statement("s1") + sync())
        book.server.gets(describe_statement("_hd_1"), sync())
        book.server.sends(backend("t", "T a", "Z I"))
        book.a.gets(backend("1", "t", "T a", "Z I"))
        book.b.sends(bind("x") + execute() + sync())
        book.server.gets(bind("_hd_1"), execute(), sync())
        book.server.sends(backend("E 0A000 cached plan must not change result type", "Z I"))
        book.server.gets(parse(TABLE, "_hd_2"), bind("_hd_2"), execute(), sync())
        book.server.sends(backend("1", "2", "D 1 2", "C SELECT 1", "Z I"))
        book.b.gets(backend("2", "D 1 2", "C SELECT 1", "Z I"))
        book.a.sends(bind("s1") + execute() + sync())
        book.server.gets(bind("_hd_1"), execute(), sync())
        book.server.sends(backend("E 0A000 cached plan must not change result type", "Z I"))
        book.a.gets(backend("E 0A000 cached plan must not change result type", "Z I"))


def test_a_server_that_has_the_new_result_is_asked_each_time() -> None:
    with Playbook(servers=2) as book:
        book.a.sends(parse(TABLE, "s1") + describe_statement("s1") + sync())
        server = book.a.server
        assert server is not None
        server.take()
        server.sends(backend("1", "t", "T a", "Z I"))
        book.a.take()
        book.free.reverse()  # the other server
        for letters, closed in [("PDH", b""), ("CPDH", backend("3"))]:
            book.a.sends(bind("s1") + execute() + sync())
            server = book.a.server
            assert server is not None
            server.gets_letters(letters)
            server.sends(closed + backend("1", "t", "T a b"))
            server.gets_letters("BS")
            server.sends(backend("E 26000 the poison", "Z I"))
            book.a.gets(messages.error_response("cached plan must not change result type", "0A000"), backend("Z I"))
