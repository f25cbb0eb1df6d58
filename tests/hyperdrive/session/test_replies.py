"""What each entry of the reply queue expects, and what becomes of it."""

from __future__ import annotations

import pytest

from hyperdrive.session import replies
from hyperdrive.session.replies import FINISH, LOOK, READY, STAY, Action, Expected
from hyperdrive.session.statements import Named, StatementRegistry
from hyperdrive.sql import classify

# The table of the protocol: which replies a frontend message has, and which of them is its last (protocol-flow).
TABLE = [
    ("P", "", "1"),
    ("B", "", "2"),
    ("DS", "t", "Tn"),
    ("DP", "", "Tn"),
    ("E", "DHdc", "CIs"),
    ("C", "", "3"),
    ("Q", "TDCIHdc", "Z"),
    ("F", "V", "Z"),
    ("S", "", "Z"),
]


@pytest.mark.parametrize(("kind", "inside", "last"), TABLE)
def test_each_message_expects_what_the_protocol_says(kind: str, inside: str, last: str) -> None:
    moves = Expected(kind).moves
    assert moves is not None
    assert {*inside} == {chr(t) for t, move in moves.items() if move == STAY}
    assert {*last} == {chr(t) for t, move in moves.items() if move in (FINISH, READY)}
    assert ("Z" in last) == Expected(kind).ends_scope
    assert ord("E") not in moves, "errors are always looked at"
    assert not {ord(t) for t in "NAS"} & set(moves), "asynchronous messages belong to no entry"


def test_copy_in_is_looked_at() -> None:
    for entry in (replies.EXECUTE, replies.QUERY):
        assert entry.moves is not None
        assert LOOK == entry.moves[ord("G")] == entry.moves[ord("W")]
        assert STAY == entry.moves[ord("H")]


def test_everything_of_an_entry_that_is_not_forwarded_is_looked_at() -> None:
    for action in set(Action) - {Action.FORWARD, Action.FAKE}:
        assert Expected("Q", action).moves == {}


def test_a_fake_fires_by_itself_and_knows_its_name() -> None:
    shared = StatementRegistry().intern(b"select 1\0\0\0", (), classify(b"select 1"))
    named = Named(shared, b"s1")
    entry = replies.fake(b"1", kind="P", named=named)
    assert (None, b"1", shared, b"s1") == (entry.moves, entry.payload, entry.statement, entry.name)
    assert not entry.ends_scope


def test_entries_say_what_they_are() -> None:
    assert "<forward Q>" == repr(replies.QUERY)
    assert "<skip S>" == repr(replies.SKIP_SYNC)
