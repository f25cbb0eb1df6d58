"""ParameterStatus is the truth at every moment, whatever was answered here and whatever became of it (W-34, W-35)."""

import pytest

from hyperdrive.session.client import ClientSession
from hyperdrive.session.settings import label, statement_for, transition, values
from hyperdrive.testing.frontend import close_portal, close_statement, flush, parse, query, sync
from hyperdrive.testing.playbook import VIEW, ClientSide, Playbook, backend, make_pipe
from tests.hyperdrive.session.holding import ROW, accept, ahead, apart, begin, carried, live

CET = "set timezone to 'CET'"
EST = "set timezone to 'EST'"


def learn(book: Playbook) -> None:
    """The origin has accepted both, and the server is as it was."""
    accept(book, CET, "S TimeZone=CET")
    accept(book, EST, "S TimeZone=EST")
    book.asks(book.b, query("reset timezone"), backend("C RESET", "S TimeZone=UTC", "Z I"))


def sets(book: Playbook, sql: str, status: str) -> None:
    """Client a's SET is answered here."""
    book.a.sends(query(sql))
    book.a.gets(backend("C SET", f"S TimeZone={sql.split(chr(39))[1]}", f"Z {status}"))


def shows(book: Playbook, zone: str) -> None:
    book.a.sends(query("show timezone"))
    book.a.gets(backend("T TimeZone", f"D {zone}", "C SHOW", "Z I"))


def test_what_a_rollback_carried_out_behind_reports_is_old_news() -> None:
    with Playbook() as book:
        learn(book)
        live(book)
        sets(book, CET, "T")
        book.a.sends(query("select 1"))
        book.server.gets(apart(CET), query("select 1"))
        book.server.sends(backend("1", "2", "C SET", "3") + ROW + backend("S TimeZone=CET", "Z T"))
        book.a.gets(ROW, backend("Z T"))
        book.a.sends(query("rollback"))
        book.a.gets(backend("C ROLLBACK", "S TimeZone=UTC", "Z I"))
        sets(book, EST, "I")
        book.server.gets(query("ROLLBACK"))
        book.server.sends(backend("C ROLLBACK", "S TimeZone=UTC", "Z I"))
        shows(book, "EST")


def test_a_value_from_before_begin_is_not_told_again_when_it_travels() -> None:
    """The rows behind it are made under what was set in the transaction."""
    with Playbook() as book:
        learn(book)
        sets(book, EST, "I")
        begin(book)
        sets(book, CET, "T")
        book.a.sends(query("select 1"))
        book.server.gets(query(EST), ahead("begin", CET), query("select 1"))
        book.server.sends(backend("C SET", "S TimeZone=EST", "Z I") + carried("BEGIN", "SET") + ROW)
        book.server.sends(backend("S TimeZone=CET", "Z T"))
        book.a.gets(ROW, backend("Z T"))
        book.a.leaves()


def test_a_set_that_an_error_takes_back_before_it_was_reported_is_told() -> None:
    with Playbook() as book:
        learn(book)
        begin(book)
        sets(book, CET, "T")
        book.a.sends(query("select 1/0"))
        book.server.gets(ahead("begin", CET), query("select 1/0"))
        book.server.sends(carried("BEGIN", "SET") + backend("E 22012 division by zero", "Z E"))
        book.a.gets(backend("E 22012 division by zero", "S TimeZone=UTC", "Z E"))
        book.a.leaves()


def test_a_set_that_a_savepoint_takes_back_before_it_was_reported_is_told() -> None:
    with Playbook() as book:
        learn(book)
        live(book)
        book.asks(book.a, query("savepoint a"), backend("C SAVEPOINT", "Z T"))
        sets(book, CET, "T")
        book.a.sends(query("rollback to a"))
        book.server.gets(apart(CET), query("rollback to a"))
        book.server.sends(backend("1", "2", "C SET", "3", "C ROLLBACK", "Z T"))
        book.a.gets(backend("C ROLLBACK", "S TimeZone=UTC", "Z T"))
        book.a.leaves()


@pytest.mark.parametrize("end", ["commit and chain", "commit; begin"])
def test_what_is_committed_on_the_way_stays_when_the_next_transaction_is_rolled_back(end: str) -> None:
    with Playbook() as book:
        learn(book)
        begin(book)
        sets(book, CET, "T")
        book.a.sends(query("select 1"))
        book.server.take()
        book.server.sends(carried("BEGIN", "SET") + ROW + backend("S TimeZone=CET", "Z T"))
        book.a.gets(ROW, backend("Z T"))
        tags = ["C COMMIT"] if end.endswith("chain") else ["C COMMIT", "C BEGIN"]
        book.asks(book.a, query(end), backend(*tags, "Z T"))
        book.asks(book.a, query("rollback"), backend("C ROLLBACK", "Z I"))
        shows(book, "CET")


@pytest.mark.parametrize("sql", ["reset timezone", "set timezone to default"])
def test_reset_goes_back_to_what_this_client_began_with(sql: str) -> None:
    with Playbook() as book:
        accept(book, CET, "S TimeZone=CET")
        book.asks(book.b, query(sql), backend("C RESET", "S TimeZone=UTC", "Z I"))
        base = label({b"timezone": statement_for(b"timezone", b"EST")})
        other = ClientSide(book, "c", ClientSession(book.pipe, base, values({**VIEW, b"TimeZone": b"EST"})))
        book.clients["c"] = other
        other.sends(query(CET))
        other.gets(backend("C SET", "S TimeZone=CET", "Z I"))
        other.sends(query(sql))
        book.server.gets(query(CET), query("SET \"timezone\" TO 'EST'"))
        book.server.sends(backend("C SET", "S TimeZone=CET", "Z I", "C SET", "S TimeZone=EST", "Z I"))
        other.gets(backend(f"C {sql.split()[0].upper()}", "S TimeZone=EST", "Z I"))


def test_settings_that_wait_travel_even_if_nothing_behind_them_needs_the_origin() -> None:
    """Without Sync and without Flush the origin would never speak."""
    with Playbook() as book:
        learn(book)
        book.a.sends(parse("select a from t", "s1") + sync())
        book.server.take()
        book.server.sends(backend("1", "Z I"))
        book.a.gets(backend("1", "Z I"))
        live(book)
        sets(book, CET, "T")
        book.a.sends(query("deallocate s1"))
        book.server.gets(apart(CET), flush())
        book.server.sends(backend("1", "2", "C SET", "3"))
        book.a.gets(backend("C DEALLOCATE", "Z T"))
        book.a.sends(close_statement("s1") + sync())
        book.server.gets(close_portal(), sync())
        book.server.sends(backend("3", "S TimeZone=CET", "Z T"))
        book.a.gets(backend("3", "Z T"))
        book.a.leaves()


# --- DateStyle: a SET of it may say only half ---


def test_both_halves_of_datestyle_reach_the_next_server() -> None:
    order, style = "set datestyle to 'SQL, DMY'", "set datestyle to 'ISO'"
    with Playbook() as book:
        book.asks(book.a, query(order), backend("C SET", "S DateStyle=SQL, DMY", "Z I"))
        book.asks(book.a, query(style), backend("C SET", "S DateStyle=ISO, DMY", "Z I"))
        wanted = book.a.session.journal.wanted
        assert {b"datestyle": statement_for(b"datestyle", b"ISO, DMY")} == wanted.items
        assert wanted is book.server.session.label


def test_datestyle_is_not_merged_with_what_another_client_set() -> None:
    have, want = (label({b"datestyle": sql}) for sql in (b"set datestyle to 'SQL, DMY'", b"set datestyle to 'ISO'"))
    assert b"RESET \"datestyle\"; set datestyle to 'ISO'" == transition(have, want)
    assert b"" == transition(want, want)


# --- a server of one's own ---


@pytest.mark.parametrize("mine", ["create temp table t (a int)", "listen ch"])
def test_what_a_function_did_is_not_taken_from_a_client_that_keeps_its_server(mine: str) -> None:
    """RESET ALL, DISCARD TEMP and UNLISTEN are for the next owner (W-37, W-43)."""
    with Playbook() as book:
        book.asks(book.a, query(mine), backend(f"C {mine.split()[0].upper()}", "Z I"))
        book.asks(book.a, query("select own_function()"), ROW + backend("Z I"))
        book.asks(book.a, query("select 1"), ROW + backend("Z I"))
        book.asks(book.a, query("set work_mem to '2MB'"), backend("C SET", "Z I"))
        book.asks(book.a, query("set work_mem to '2MB'"), backend("C SET", "Z I"))
        book.a.leaves()


def test_session_pooling_leaves_a_function_its_settings_and_asyncpg_its_reset() -> None:
    reset = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"
    with Playbook(pipe=make_pipe()) as book:
        book.a.session.keeps_server = True
        book.asks(book.a, query("select own_function()"), ROW + backend("Z I"))
        begin(book)
        book.a.sends(query("select 1"))
        book.server.gets(ahead("begin"), query("select 1"))
        book.server.sends(carried("BEGIN") + ROW + backend("Z T"))
        book.a.gets(ROW, backend("Z T"))
        book.asks(book.a, query("commit"), backend("C COMMIT", "Z I"))
        done = backend("T x", "D x", "C SELECT 1", "C CLOSE CURSOR ALL", "C UNLISTEN", "C RESET", "Z I")
        book.asks(book.a, query(reset), done)
        book.a.leaves()
