"""Bytes that nobody who knows the protocol would send: only documented errors escape, and every call ends.

Whatever a client sends, ``ClientSession`` raises ProtocolViolation at most; whatever an origin sends, ``ServerSession`` raises
nothing and says in ``broken`` why the connection cannot be used.
"""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperdrive.errors import HyperdriveError, ProtocolViolation
from hyperdrive.session import replies
from hyperdrive.session.client import ClientSession
from hyperdrive.session.server import ServerSession
from hyperdrive.session.settings import EMPTY, values
from hyperdrive.testing.frontend import bind, close_statement, describe_statement, execute, message, parse, query, sync
from hyperdrive.testing.playbook import VIEW, backend, make_pipe

EXAMPLES = 20_000 if os.environ.get("HYPERDRIVE_SOAK") else 200

FRONTEND = (
    query("select 1"),
    query("begin"),
    query("set work_mem to '1MB'"),
    query(""),
    parse("select 1"),
    parse("select 1", "s"),
    bind(),
    bind("s"),
    bind("", ["x", None], formats=[1], result_formats=[0]),
    describe_statement("s"),
    close_statement("s"),
    execute(),
    sync(),
    *(message(letter) for letter in "QPBDECFdcf"),
)
BACKEND = tuple(message(letter) for letter in "ZCSENAtTDV") + tuple(
    backend(reply)
    for reply in (
        *("1", "2", "3", "n", "I", "s", "t 23", "T x", "D 1", "C SELECT 1", "C DISCARD ALL", "Z I", "Z T", "Z E"),
        *("E 22012 no", "F 57P01 gone", "N 01000 hm", "A news", "S TimeZone=CET", "G", "H", "W", "d x", "c", "V x"),
    )
)
ENTRIES = (
    replies.PARSE,
    replies.BIND,
    replies.DESCRIBE_STATEMENT,
    replies.DESCRIBE_PORTAL,
    replies.EXECUTE,
    replies.CLOSE,
    replies.SYNC,
    replies.QUERY,
    replies.FUNCTION_CALL,
    replies.SKIP_QUERY,
    replies.HELD_PARSE,
    replies.COPY_ENDS,
    replies.fake(b"3\0\0\0\x04"),
    replies.Expected("Q", replies.Action.CAPTURE),
    replies.Expected("B", replies.Action.REPLACE, payload=b"E"),
    replies.Expected("Q", replies.Action.INSTEAD, payload=b"C"),
)


@st.composite
def damaged(draw: st.DrawFn, messages: tuple[bytes, ...]) -> list[bytes]:
    """Messages, some of them damaged, cut anywhere."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(messages), max_size=8))))
    for _ in range(draw(st.integers(0, 4))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from("xid")):
            case "x":
                data[at] = draw(st.integers(0, 255))
            case "i":
                data[at:at] = draw(st.binary(min_size=1, max_size=6))
            case _:
                del data[at : at + draw(st.integers(1, 6))]
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=5)))
    edges = [0, *cuts, len(data)]
    return [bytes(data[a:b]) for a, b in pairwise(edges) if a < b]


@pytest.mark.timeout(3600)
@settings(max_examples=EXAMPLES)
@given(chunks=st.one_of(damaged(FRONTEND), st.lists(st.binary(min_size=1, max_size=40), max_size=5)))
def test_a_client_can_send_anything(chunks: list[bytes]) -> None:
    client = ClientSession(make_pipe(), EMPTY, values(VIEW))
    server = ServerSession(values(VIEW))
    server.client = client
    try:
        for chunk in chunks:
            if client.receive(chunk):
                client.compose(server)
                server.fire_fakes()
    except ProtocolViolation:
        pass


@pytest.mark.timeout(3600)
@settings(max_examples=EXAMPLES)
@given(chunks=st.one_of(damaged(FRONTEND), st.lists(st.binary(min_size=1, max_size=40), max_size=5)))
def test_a_client_without_a_server_can_send_anything(chunks: list[bytes]) -> None:
    client = ClientSession(make_pipe(), EMPTY, values(VIEW))
    try:
        for chunk in chunks:
            if client.receive(chunk) and client.needs_look:
                client.answer()
    except ProtocolViolation:
        return
    assert isinstance(client.refuse(b""), bytes)
    assert not client.ops


@pytest.mark.timeout(3600)
@settings(max_examples=EXAMPLES)
@given(
    entries=st.lists(st.sampled_from(ENTRIES), max_size=6),
    chunks=st.one_of(damaged(BACKEND), st.lists(st.binary(min_size=1, max_size=40), max_size=5)),
    is_linked=st.booleans(),
)
def test_an_origin_can_send_anything(entries: list[replies.Expected], chunks: list[bytes], is_linked: bool) -> None:
    server = ServerSession(values(VIEW))
    if is_linked:
        server.client = ClientSession(make_pipe(), EMPTY, values(VIEW))
    server.queue.extend(entries)
    server.fire_fakes()
    for chunk in chunks:
        assert isinstance(server.receive(chunk), bytes)
        if server.broken is not None:
            assert isinstance(server.broken, HyperdriveError)
            break
