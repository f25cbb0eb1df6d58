"""Server connections that break at any moment: each client goes on in step, and hears nothing of another's.

The same random clients as in ``test_conversations``; at random steps a server's connection ends. Nothing can be compared with a
direct connection then, but each Query and each Sync is answered with exactly one ReadyForQuery (W-54), rows reach their owner only,
and in the end nobody waits.
"""

from __future__ import annotations

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from hyperdrive.testing.playbook import Playbook, ServerSide, letters, pieces
from tests.properties.model import Model
from tests.properties.test_conversations import EXAMPLES, Unit, without_copy

steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from("ab"), without_copy, st.integers(0, 40)),
        st.tuples(st.just("hear"), st.integers(0, 1), st.none(), st.sampled_from((1, 7, 20, 60, 1000))),
        st.tuples(st.just("lose"), st.integers(0, 1), st.none(), st.just(0)),
    ),
    min_size=1,
    max_size=25,
)


class Run:
    def __init__(self, servers: int) -> None:
        self.book = Playbook("ab", servers)
        self.size = servers
        self.models: dict[ServerSide, Model] = {}
        self.owed: dict[ServerSide, bytes] = {}
        self.said = {"a": b"", "b": b""}
        self.told = {"a": b"", "b": b""}
        self.outbox = {"a": b"", "b": b""}

    def say(self, name: str, unit: Unit, cut: int) -> None:
        note(f"{name}: {unit[0]} -{cut}")
        data = self.outbox[name] + unit[1](name)
        cut = min(cut, len(data) - 1)
        now, self.outbox[name] = data[: len(data) - cut], data[len(data) - cut :]
        self.said[name] += now
        self.book.clients[name].sends(now)
        self.look()

    def hear(self, index: int, size: int) -> None:
        server = self.book.servers[index % len(self.book.servers)]
        data = self.owed.get(server, b"")
        if data:
            note(f"{server.name}: {letters(data[:size])}")
            self.owed[server] = data[size:]
            server.sends(data[:size])
        self.look()

    def lose(self, index: int) -> None:
        server = self.book.servers[index % len(self.book.servers)]
        note(f"{server.name} is lost")
        server.breaks()
        self.look()

    def look(self) -> None:
        while len(self.book.servers) < self.size:
            self.book.open_server()
        for server in self.book.servers:
            model = self.models.setdefault(server, Model())
            self.owed[server] = self.owed.get(server, b"") + model.receive(server.take())
            assert server.session.broken is None, server.session.broken
        for name, client in self.book.clients.items():
            self.told[name] += client.take()
            assert client.error is None, client.error

    def finish(self) -> None:
        for name in self.said:
            self.say(name, ("end", lambda _: b"Q\0\0\0\x0drollback\0"), 0)
        while any(self.owed.get(server) for server in self.book.servers):
            for index in range(len(self.book.servers)):
                self.hear(index, 1 << 20)
        self.book.check()
        for name, client in self.book.clients.items():
            came = pieces(self.told[name])
            rows = {message[11:] for message in came if message[:1] == b"D"}
            assert not rows & ({b"a", b"b"} - {name.encode()})
            if not client.is_closed:  # it was in the middle of a message, or pinned
                asked = sum(message[:1] in (b"Q", b"S") for message in pieces(self.said[name]))
                assert asked == sum(message[:1] == b"Z" for message in came), name


@pytest.mark.timeout(3600 if EXAMPLES > 1000 else 120)
@settings(max_examples=EXAMPLES)
@given(steps=steps, servers=st.integers(1, 2))
def test_every_scope_is_answered_once_whatever_breaks(steps: list[tuple[str, object, Unit, int]], servers: int) -> None:
    run = Run(servers)
    for kind, who, unit, size in steps:
        if kind == "say":
            run.say(str(who), unit, size)
        elif kind == "hear":
            run.hear(int(str(who)), size)
        else:
            run.lose(int(str(who)))
    run.finish()
