"""What a server says goes to the linked client, in its order and nothing else, however the bytes are cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.errors import LedgerMismatch, OriginLost
from hyperdrive.session import replies
from hyperdrive.session.client import ClientSession
from hyperdrive.session.replies import Action, Expected
from hyperdrive.session.server import FAILED, IDLE, IN_TRANSACTION, ServerSession
from hyperdrive.session.settings import EMPTY, values
from hyperdrive.testing.frontend import message
from hyperdrive.testing.playbook import VIEW, backend, make_pipe

CLOSED = backend("3")


def linked(*entries: Expected, view: dict[bytes, bytes] | None = None) -> ServerSession:
    """A server that owes *entries* to a client."""
    server = ServerSession(values(view if view is not None else VIEW))
    server.client = ClientSession(make_pipe(), EMPTY, values(VIEW))
    server.queue.extend(entries)
    return server


def state(server: ServerSession) -> tuple[object, ...]:
    return ([repr(entry) for entry in server.queue], server.status, dict(server.view), server.is_clean, server.copy_in)


# A conversation: what is owed, what the server says, what the client gets.
Case = tuple[Callable[[], Sequence[Expected]], bytes, bytes]
ROWS = backend("T x", "D 1", "D 2", "C SELECT 2", "Z I")
CASES = [
    pytest.param((lambda: [replies.QUERY], ROWS, ROWS), id="query"),
    pytest.param(
        (lambda: [replies.SKIP_QUERY, replies.QUERY], backend("C RESET", "C SET", "Z I") + ROWS, ROWS), id="prefix"
    ),
    pytest.param(
        (
            lambda: [replies.PARSE, replies.BIND, replies.DESCRIBE_PORTAL, replies.EXECUTE, replies.SYNC],
            backend("1", "2", "T x", "D 1", "C SELECT 1", "Z I"),
            backend("1", "2", "T x", "D 1", "C SELECT 1", "Z I"),
        ),
        id="extended",
    ),
    pytest.param(
        (
            lambda: [replies.fake(CLOSED), replies.BIND, replies.fake(CLOSED), replies.EXECUTE, replies.SYNC],
            backend("2", "D 1", "s", "Z T"),
            backend("3", "2", "3", "D 1", "s", "Z T"),
        ),
        id="fakes among real replies",
    ),
    pytest.param(
        (
            lambda: [replies.BIND, replies.fake(CLOSED), replies.EXECUTE, replies.SYNC, replies.QUERY],
            backend("E 26000 no", "Z I") + ROWS,
            backend("E 26000 no", "Z I") + ROWS,
        ),
        id="an error drops the fakes behind it",
    ),
    pytest.param(
        (
            lambda: [
                Expected("B", Action.REPLACE, payload=backend("E 42P05 ours")),
                replies.fake(CLOSED),
                replies.SYNC,
            ],
            backend("E 26000 no such", "Z E"),
            backend("E 42P05 ours", "Z E"),
        ),
        id="our error in place of the poison scope's",
    ),
    pytest.param(
        (
            lambda: [Expected("Q", Action.INSTEAD, payload=backend("C RESET"))],
            backend("C RESET", "T x", "D 1", "C SELECT 1", "S TimeZone=CET", "Z I"),
            backend("C RESET", "S TimeZone=CET", "Z I"),
        ),
        id="more was asked than the client did",
    ),
    pytest.param(
        (
            lambda: [replies.QUERY],
            backend("N 01000 hm", "T x", "S TimeZone=CET", "D 1", "C SELECT 1", "Z I"),
            backend("N 01000 hm", "T x", "S TimeZone=CET", "D 1", "C SELECT 1", "Z I"),
        ),
        id="asynchronous messages",
    ),
    pytest.param(
        (lambda: [replies.QUERY], backend("S TimeZone=UTC", "C SET", "Z I"), backend("C SET", "Z I")), id="no news"
    ),
    pytest.param(
        (
            lambda: [replies.QUERY],
            backend("H", "d one", "d two", "c", "C COPY 2", "Z I"),
            backend("H", "d one", "d two", "c", "C COPY 2", "Z I"),
        ),
        id="copy out",
    ),
    pytest.param((lambda: [replies.FUNCTION_CALL], backend("V x", "Z I"), backend("V x", "Z I")), id="function call"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_replies_do_not_depend_on_how_bytes_arrive(case: Case) -> None:
    make, wire, expected = case
    for pieces in ([wire], [bytes([byte]) for byte in wire]):
        server = linked(*make())
        out = server.fire_fakes() + b"".join(map(server.receive, pieces))
        assert expected == out
        assert not server.queue
        assert server.broken is None
    server = linked(*make())
    assert expected == server.fire_fakes() + server.receive(wire + b"Z\0\0")  # the beginning of more
    assert server.broken is None


@given(data=st.data())
def test_cuts_change_neither_bytes_nor_state(data: st.DataObject) -> None:
    make, wire, expected = data.draw(st.sampled_from([case.values[0] for case in CASES]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire)), max_size=6)) | {0, len(wire)})
    whole, cut = linked(*make()), linked(*make())
    at_once = whole.fire_fakes() + whole.receive(wire)
    in_pieces = cut.fire_fakes()
    for start, end in itertools.pairwise(cuts):
        in_pieces += cut.receive(wire[start:end])
    assert expected == at_once == in_pieces
    assert state(whole) == state(cut)


@pytest.mark.parametrize("position", range(5))
def test_an_error_at_each_position_is_told_there_and_drops_the_rest_of_its_scope(position: int) -> None:
    """W-11: fakes ahead of it are delivered, those behind are not, and the next scope is untouched."""
    entries = [
        replies.fake(CLOSED),
        replies.PARSE,
        replies.BIND,
        replies.fake(CLOSED),
        replies.DESCRIBE_PORTAL,
        replies.EXECUTE,
    ]
    answers = ["1", "2", "n", "C SET"]
    good = [*answers[:position], "E 22012 no"] if position < 4 else answers
    server = linked(*entries, replies.SYNC, replies.fake(CLOSED), replies.SYNC)
    out = server.fire_fakes() + server.receive(backend(*good, "Z I") + backend("Z I"))
    behind = 1 + sum(1 for entry in entries[3:4] if position >= 2)
    told = backend(*(["3"] * 1), *good[: min(position, 2)])
    told += CLOSED * (behind - 1) + backend(*good[2:] if position >= 2 else good[position:])
    assert told + backend("Z I", "3", "Z I") == out


def test_a_large_row_passes_in_pieces() -> None:
    """A result of any size needs no more memory than one read (W-18)."""
    row = message("D", b"x" * 1_000_000)
    server = linked(replies.QUERY)
    wire = backend("T x") + row + backend("C SELECT 1", "Z I")
    out, sizes = b"", []
    for start in range(0, len(wire), 65536):
        piece = server.receive(wire[start : start + 65536])
        sizes.append(len(piece))
        out += piece
        assert not server.is_clean or (server.status == IDLE and not server.queue)
    assert wire == out
    assert max(sizes) <= 65536 + 5
    assert server.is_clean


def test_a_small_row_waits_for_its_end() -> None:
    """If the connection is lost in between, the client has whole messages and can be told (W-54)."""
    server = linked(replies.QUERY)
    row = backend("D abc")
    assert b"" == server.receive(row[:-1])
    assert not server.is_mid_message
    assert row == server.receive(row[-1:])


def test_a_large_message_of_a_skipped_reply_does_not_pass() -> None:
    server = linked(Expected("Q", Action.SKIP))
    row = message("D", b"x" * 100_000)
    assert b"" == server.receive(row[:50_000]) + server.receive(row[50_000:] + backend("C SELECT 1", "Z I"))
    assert server.is_clean


@pytest.mark.parametrize(
    ("entries", "wire", "delivered"),
    [
        pytest.param([], backend("D 1"), b"", id="idle"),
        pytest.param([replies.QUERY], backend("C SET", "Z I", "D 1"), backend("C SET", "Z I"), id="more than asked"),
        pytest.param([replies.BIND, replies.SYNC], backend("1"), b"", id="another reply"),
        pytest.param([replies.PARSE, replies.SYNC], backend("1", "2"), backend("1"), id="another reply behind"),
        pytest.param([replies.SYNC], backend("C SET"), b"", id="instead of ReadyForQuery"),
        pytest.param([replies.QUERY], backend("1"), b"", id="extended in simple"),
        pytest.param([replies.SYNC], b"Z\0\0\0\x04", b"", id="without a status"),
        pytest.param([Expected("B", Action.REPLACE, payload=b"!")], backend("2"), b"", id="the poison was accepted"),
    ],
)
def test_a_reply_that_nobody_asked_for_breaks_the_connection(
    entries: list[Expected], wire: bytes, delivered: bytes
) -> None:
    """What came before it is right and is delivered all the same; nothing behind it is (§1)."""
    server = linked(*entries)
    assert delivered == server.receive(wire + backend("Z I"))
    assert isinstance(server.broken, LedgerMismatch)


def test_a_message_that_is_impossibly_long_is_not_waited_for() -> None:
    server = linked(replies.QUERY)
    assert b"" == server.receive(b"A\x7f\xff\xff\xffxx")
    assert isinstance(server.broken, LedgerMismatch)


def test_refused_settings_end_the_connection() -> None:
    """The client's scope behind them would run under others' settings."""
    server = linked(replies.RESTORE, replies.QUERY)
    assert b"" == server.receive(backend("E 22023 no", "Z I") + ROWS)
    assert isinstance(server.broken, OriginLost)


def test_a_fatal_error_is_kept_for_whoever_tells_the_client() -> None:
    """Nothing follows but the end of the connection (W-14)."""
    for entries in ([], [replies.QUERY]):
        server = linked(*entries)
        assert b"" == server.receive(backend("F 57P01 terminating"))
        assert backend("F 57P01 terminating") == server.fatal


def test_parameter_status_updates_the_view_and_is_told_once() -> None:
    """W-33: also while the server is idle and linked to nobody."""
    server = linked()
    assert backend("S TimeZone=CET") == server.receive(backend("S TimeZone=CET"))
    assert b"" == server.receive(backend("S TimeZone=CET"))
    server.client = None
    assert b"" == server.receive(backend("S TimeZone=EST"))
    assert b"EST" == server.view[b"TimeZone"]
    assert server.view is values({**VIEW, b"TimeZone": b"EST"})


def test_notices_belong_to_the_running_entry() -> None:
    """One of a skipped reply is not the client's (W-33)."""
    server = linked(replies.SKIP_QUERY, replies.QUERY)
    notice = backend("N 01000 hm")
    assert notice + backend("C SET", "Z I") == server.receive(
        notice + backend("C RESET", "Z I") + notice + backend("C SET", "Z I")
    )


def test_a_capture_keeps_what_came() -> None:
    asked = Expected("Q", Action.CAPTURE)
    server = linked(asked)
    assert b"" == server.receive(backend("T x", "D 1", "C SELECT 1", "Z I"))
    assert backend("T x", "D 1", "C SELECT 1") == asked.captured.removesuffix(backend("Z I"))


def test_the_status_is_the_servers_own() -> None:
    server = linked(replies.QUERY, replies.QUERY, replies.QUERY)
    for status, expected in (("T", IN_TRANSACTION), ("E", FAILED), ("I", IDLE)):
        server.receive(backend("C X", f"Z {status}"))
        assert expected == server.status
    assert server.is_clean


# --- COPY (W-30, W-31) ---


def test_copy_in_drops_the_syncs_that_were_sent_ahead() -> None:
    server = linked(replies.BIND, replies.EXECUTE, replies.SYNC)
    assert backend("2", "G") == server.receive(backend("2", "G"))
    assert server.copy_in
    assert server.open_scope
    assert ["<forward E>"] == [repr(entry) for entry in server.queue]


def test_copy_in_keeps_the_sync_behind_the_end_that_was_sent_ahead() -> None:
    """P B E S, data, CopyDone, S in one write: only the first S is ignored."""
    server = linked(replies.EXECUTE, replies.SYNC, replies.COPY_ENDS, replies.SYNC)
    assert backend("G") == server.receive(backend("G"))
    assert not server.copy_in
    assert backend("C COPY 1", "Z I") == server.receive(backend("C COPY 1", "Z I"))
    assert server.is_clean


def test_a_query_that_copies_may_be_ended_ahead() -> None:
    server = linked(replies.QUERY, replies.COPY_ENDS, replies.QUERY)
    assert backend("G", "C COPY 1", "Z I") == server.receive(backend("G", "C COPY 1", "Z I"))
    assert not server.copy_in
    assert ROWS == server.receive(ROWS)


def test_a_failed_copy_is_over() -> None:
    server = linked(replies.QUERY)
    server.receive(backend("G"))
    assert server.copy_in
    assert backend("E 22P02 bad", "Z I") == server.receive(backend("E 22P02 bad", "Z I"))
    assert not server.copy_in
    assert server.is_clean


def test_whoever_works_is_running() -> None:
    """A cancel reaches only the client's own statement (W-51)."""
    server = linked(replies.SKIP_QUERY)
    assert not server.is_running
    server.queue.append(replies.QUERY)
    assert server.is_running
