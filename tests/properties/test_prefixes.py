"""What goes ahead of a statement may fail or be lost: that surfaces at the statement that carried it, and nothing is done twice (E-0.8).

A client holds a random transaction back, then sends its first scopes. The origin (``model.py``) refuses any one of the held statements,
or its connection ends after any number of bytes. Whatever happens, each scope has one answer; either all is as if nothing had
happened, or the statement fails with the origin's error and its transaction with it, and nothing more of that reaches a server.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest
from hypothesis import event, given, note, settings
from hypothesis import strategies as st

from hyperdrive.testing.frontend import bind, execute, extended, parse, query, sync
from hyperdrive.testing.playbook import Playbook, ServerSide, backend, letters, pieces
from tests.properties.model import Model, Refusal

EXAMPLES = 3000 if os.environ.get("HYPERDRIVE_SOAK") else 150

BEGINS = ("begin", "start transaction read only", "begin isolation level repeatable read")
SETS = ("set work_mem to '2MB'", "set timezone to 'CET'", "set search_path to 'other'")
LOCAL = "set local work_mem to '9MB'"
HELD = (*SETS, LOCAL, "savepoint one", "savepoint two")
CODE = "57014"

PLAIN = "values ('w')"
FIRST = {
    "a Query": query(PLAIN),
    "a scope": extended(PLAIN) + sync(),
    "a prepared statement": bind("s1") + execute() + sync(),
    "a list": query("values ('w'); select 'y'"),
    "a list that commits": query("values ('w'); commit"),
    "a notification": query("listen w"),
}
REPEATABLE = ("a Query", "a scope", "a prepared statement")


class Refusing(Model):
    """A backend that refuses the statements in *refused*, each once, whoever asks."""

    def __init__(self, refused: set[str]) -> None:
        super().__init__()
        self.refused = refused

    def _run(self, sql: str, *, is_multi: bool = False) -> bytes:
        if sql in self.refused:
            self.refused.discard(sql)
            raise Refusal(CODE, "not now")
        return super()._run(sql, is_multi=is_multi)


@dataclass
class World:
    """The book, and a backend behind each of its servers; *left* bytes of replies are delivered before a connection ends."""

    book: Playbook = field(default_factory=lambda: Playbook("ab", 2))
    refused: set[str] = field(default_factory=set)
    models: dict[ServerSide, Refusing] = field(default_factory=dict)
    left: int | None = None
    told: bytes = b""

    def run(self) -> None:
        """Until nobody has anything to say."""
        while True:
            asked = [server for server in [*self.book.servers] if server.unread]
            if not asked:
                break
            for server in asked:
                self.answer(server)
            while len(self.book.servers) < 2:
                self.book.open_server()
        self.told += self.book.a.take()
        self.book.b.take()

    def answer(self, server: ServerSide) -> None:
        model = self.models.setdefault(server, Refusing(self.refused))
        reply = model.receive(server.take())
        if server is not self.book.a.server or self.left is None or self.left >= len(reply):
            if server is self.book.a.server and self.left is not None:
                self.left -= len(reply)
            if not server.is_gone:
                server.sends(reply)
            return
        cut, self.left = self.left, None
        if cut:
            server.sends(reply[:cut])
        if not server.is_gone:
            server.breaks(backend("E 08006 lost"))

    def hears(self, data: bytes) -> bytes:
        """What client a is told to *data*."""
        self.told = b""
        self.book.a.sends(data)
        self.run()
        return self.told

    def runs(self, sql: str) -> int:
        """On how many servers *sql* ran."""
        return sum(sql in model.seen for model in self.models.values())


def ready(names: list[str], begin: str) -> World:
    """Client a holds *begin* and *names* back, all of them known to be accepted."""
    world = World()
    book = world.book
    for sql in (*SETS, "reset all", "begin", PLAIN, LOCAL, "rollback", "reset all"):
        book.b.sends(query(sql))
        world.run()
    world.hears(parse(PLAIN, "s1") + sync())
    for sql in (begin, *names):
        assert "Z" in letters(world.hears(query(sql)))
    assert book.a.session.held is not None
    assert not any(server.session.queue for server in book.servers)
    for model in world.models.values():
        model.seen.clear()
    return world


def goes_on(world: World) -> None:
    """Behind its end the client works as if nothing had been."""
    assert world.hears(query("show work_mem")) == backend("T work_mem", "D 4MB", "C SHOW", "Z I")
    assert letters(world.hears(query("select 'end'"))) == "TDCZI"
    assert not world.book.a.is_closed
    assert all(model.is_idle for server, model in world.models.items() if server in world.book.servers)


def fails(world: World, heard: bytes, code: str, scopes: int) -> None:
    """The first scope has the error, what is behind it was ignored, and nothing more reaches a server until the client has ended it."""
    statuses = [message[5:] for message in pieces(heard) if message[:1] == b"Z"]
    errors = [message for message in pieces(heard) if message[:1] == b"E"]
    assert [b"E"] * scopes == statuses
    assert f"C{code}".encode() in errors[0]
    assert all(b"C25P02" in error for error in errors[1:])
    assert scopes == len(errors)
    seen = [list(model.seen) for model in world.models.values()]
    assert b"C25P02" in world.hears(query("select 'after'"))
    assert letters(world.hears(query("commit"))) in ("CZI", "CSZI")
    assert b"C\0\0\0\rROLLBACK\0" in world.told
    assert seen == [model.seen for model in world.models.values()]
    goes_on(world)


held = st.lists(st.sampled_from(HELD), max_size=4, unique=True)
first = st.sampled_from(sorted(FIRST))


@pytest.mark.timeout(3600 if EXAMPLES > 1000 else 120)
@settings(max_examples=EXAMPLES, deadline=None)
@given(begin=st.sampled_from(BEGINS), names=held, first=first, which=st.integers(0, 4), is_followed=st.booleans())
def test_a_refused_prefix_is_the_first_statements_error(
    begin: str, names: list[str], first: str, which: int, is_followed: bool
) -> None:
    world = ready(names, begin)
    refused = [begin, *names][which % (1 + len(names))]
    note(f"{refused} is refused")
    world.refused.add(refused)
    heard = world.hears(FIRST[first] + (query(PLAIN) if is_followed else b""))
    assert world.refused == set()
    assert world.runs(PLAIN) == 0
    assert world.runs("listen w") == 0
    fails(world, heard, CODE, 1 + is_followed)


@pytest.mark.timeout(3600 if EXAMPLES > 1000 else 120)
@settings(max_examples=EXAMPLES, deadline=None)
@given(begin=st.sampled_from(BEGINS), names=held, first=first, left=st.integers(0, 250), is_followed=st.booleans())
def test_a_lost_prefix_is_done_elsewhere_or_fails_its_statement(
    begin: str, names: list[str], first: str, left: int, is_followed: bool
) -> None:
    world = ready(names, begin)
    world.left = left
    heard = world.hears(FIRST[first] + (query("select 'behind'") if is_followed else b""))
    was_lost = world.left is None
    event(f"lost: {was_lost}")
    what = "listen w" if first == "a notification" else PLAIN
    if first not in REPEATABLE:
        assert world.runs(what) <= 1
    if world.book.a.is_closed:  # what it listens to went with the server that it would have kept
        event("closed")
        assert what == "listen w" and was_lost
        return
    assert letters(heard).count("Z") == 1 + is_followed
    if was_lost and b"C08006" in heard:
        event("failed")
        assert world.runs(what) == 1
        if first != "a list that commits":  # of which it is not known whether it did
            assert heard.endswith(b"E")
            world.hears(query("rollback"))
            goes_on(world)
        return
    if was_lost:
        event("done elsewhere")
        assert world.runs(what) == 2
        assert first in REPEATABLE
    assert letters(heard).count("E") == 0
    if first in ("a notification", "a list that commits"):
        return  # it is kept, or was done
    world.left = None
    world.hears(query("rollback"))
    goes_on(world)
