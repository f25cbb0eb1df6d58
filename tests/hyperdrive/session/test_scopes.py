"""A whole scope in one entry decides nothing that its steps would not decide."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.errors import LedgerMismatch
from hyperdrive.pgwire import messages
from hyperdrive.session import scopes
from hyperdrive.session.client import ClientSession
from hyperdrive.session.scopes import Whole
from hyperdrive.session.server import IN_TRANSACTION, ServerSession
from hyperdrive.session.settings import EMPTY, values
from hyperdrive.testing.playbook import VIEW, backend, make_pipe

WHOLES = [scopes.QUERY, scopes.COMMIT, *scopes.BEHIND_PARSE.values(), *scopes.BEHIND_BIND.values()]
MESSAGES = [
    *(
        "1",
        "2",
        "3",
        "n",
        "t 23",
        "T x",
        "D 1",
        "D 2",
        "C SELECT 1",
        "C SET",
        "I",
        "s",
        "Z I",
        "Z T",
        "Z E",
        "G",
        "H",
        "W",
    ),
    *("d x", "c", "V", "E 22012 no", "N hello", "S TimeZone=Mars", "A channel", "K"),
]
ROW = ["D 1", "C SELECT 1", "Z I"]
USUAL = {
    scopes.QUERY: ["T x", *ROW],
    **dict(zip(scopes.BEHIND_PARSE.values(), [["1", "2", "T x", *ROW], ["1", "2", *ROW]], strict=True)),
    **dict(zip(scopes.BEHIND_BIND.values(), [["2", "n", *ROW], ["2", *ROW]], strict=True)),
}
OUT_OF_ORDER = [
    (whole, position, other)
    for whole, usual in USUAL.items()
    for position, expected in enumerate(usual)
    for other in ("1", "3", "V", "K", "Z I")
    if other != expected and not (other == "Z I" and whole is scopes.QUERY)
]


def linked() -> ServerSession:
    server = ServerSession(values(VIEW))
    server.client = ClientSession(make_pipe(), EMPTY, values(VIEW))
    return server


def in_one(whole: Whole) -> ServerSession:
    server = linked()
    server.put(whole, None)
    assert [whole] == list(server.queue)
    return server


def in_steps(whole: Whole) -> ServerSession:
    server = linked()
    server.look_closer()
    server.queue.extend(whole.steps)
    return server


def state(server: ServerSession) -> tuple[object, ...]:
    server.look_closer()
    broken = server.broken and (type(server.broken), str(server.broken))
    seen = server.status, dict(server.view), server.fatal, broken
    return [repr(entry) for entry in server.queue], *seen, server.failed, server.open_scope, server.copy_in


def say(server: ServerSession, data: bytes, cut: int) -> bytes:
    out = b""
    for start in range(0, len(data), cut):
        out += server.receive(data[start : start + cut])
        if server.broken is not None:
            break
    return out


def conversations(whole: Whole) -> st.SearchStrategy[list[str]]:
    """The usual reply, here and there something else."""
    usual = USUAL.get(whole, USUAL[scopes.QUERY])
    near = st.lists(st.one_of(st.sampled_from(MESSAGES), st.none()), min_size=len(usual), max_size=len(usual)).map(
        lambda changes: [other or kept for other, kept in zip(changes, usual, strict=True)]
    )
    return st.one_of(near, st.lists(st.sampled_from(MESSAGES), max_size=8))


@given(st.sampled_from(WHOLES).flatmap(lambda w: st.tuples(st.just(w), conversations(w))), st.integers(1, 80))
def test_one_entry_says_what_its_steps_say(case: tuple[Whole, list[str]], cut: int) -> None:
    """Whatever the origin says, in whatever pieces: the same bytes for the client, the same state afterwards."""
    whole, said = case
    one, steps = in_one(whole), in_steps(whole)
    assert say(steps, backend(*said), cut) == say(one, backend(*said), cut)
    assert state(steps) == state(one)


@pytest.mark.parametrize("whole", list(USUAL))
def test_the_usual_reply_leaves_the_server_usual(whole: Whole) -> None:
    server = in_one(whole)
    reply = backend(*USUAL[whole])
    assert reply is server.receive(reply)
    assert server.usual
    assert server.is_clean


@pytest.mark.parametrize(("whole", "position", "other"), OUT_OF_ORDER)
def test_a_reply_out_of_order_is_a_broken_ledger(whole: Whole, position: int, other: str) -> None:
    """Of a scope in one entry, too, each step is checked."""
    server = in_one(whole)
    server.receive(backend(*USUAL[whole][:position], other))
    assert isinstance(server.broken, LedgerMismatch)


UNUSUAL: list[tuple[str, Callable[[ServerSession], object]]] = [
    ("a notice", lambda server: server.receive(backend("N hello"))),
    ("half a message", lambda server: server.receive(b"S\0\0")),
    ("messages of the client's that are looked at", lambda server: server.look_closer()),
]


@pytest.mark.parametrize(("name", "happens"), UNUSUAL, ids=[name for name, _ in UNUSUAL])
def test_what_is_unusual_keeps_scopes_behind_others_in_steps(
    name: str, happens: Callable[[ServerSession], object]
) -> None:
    server = linked()
    happens(server)
    server.put(scopes.QUERY, None)
    server.put(scopes.QUERY, None)
    assert [scopes.QUERY, *scopes.QUERY.steps] == list(server.queue)
    assert not server.usual


def test_rest_ends_what_was_unusual_unless_half_a_message_is_there() -> None:
    server = linked()
    server.receive(backend("N hello"))
    server.rest()
    assert server.usual
    server.receive(b"S\0\0")
    server.rest()
    assert not server.usual


def test_a_transaction_stays_usual() -> None:
    server = in_one(scopes.QUERY)
    server.receive(backend("C BEGIN", "Z T"))
    assert (True, IN_TRANSACTION) == (server.usual, server.status)
    server.put(scopes.QUERY, None)
    assert [scopes.QUERY] == list(server.queue)


@pytest.mark.parametrize("limit", [1, 2, 2**31 - 1])
def test_a_row_limit_makes_the_same_scope_and_its_portal_is_suspended(limit: int) -> None:
    """asyncpg's ``fetchrow`` sends one: as usual as any other scope."""
    client, server = ClientSession(make_pipe(), EMPTY, values(VIEW)), linked()
    assert client.receive(
        messages.parse(b"", b"select 1") + messages.bind(b"", b"") + messages.execute(b"", limit) + messages.SYNC
    )
    assert scopes.BEHIND_PARSE[messages.execute() + messages.SYNC] is client.whole
    client.compose_whole(server)
    reply = backend("1", "2", "D 1", "s", "Z I")
    assert reply == server.receive(reply)
    assert server.usual and server.is_clean


def test_the_bind_of_a_prepared_statement_keeps_its_name_when_it_fails() -> None:
    """W-20: the client hears its own name of the statement."""
    client = ClientSession(make_pipe(), EMPTY, values(VIEW))
    server = ServerSession(values(VIEW))
    server.client = client
    assert client.receive(messages.parse(b"mine", b"select 1") + messages.SYNC)
    client.compose(server)
    server.receive(backend("1", "Z I"))
    server.rest()
    assert client.receive(messages.bind(b"", b"mine") + messages.execute() + messages.SYNC)
    client.compose_whole(server)
    assert [scopes.BEHIND_BIND[messages.execute() + messages.SYNC]] == list(server.queue)
    told = server.receive(messages.error_response('bind supplies 0 parameters to "_hd_1"', "08P01"))
    assert b'"mine"' in told
    assert b"_hd_" not in told
