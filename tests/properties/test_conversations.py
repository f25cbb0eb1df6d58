"""Random clients on few servers are each told exactly what a server of their own would have told them.

Two to three clients with random scopes share one or two servers; writes and replies are cut anywhere. Behind the session stands a
model of PostgreSQL, and a second one is asked directly (``model.py``). The invariants: each client's replies are a prefix of the
direct ones at any moment and equal in the end (so every row is its owner's, in order); servers come back clean; what we believe of
a server's statements and settings is true. ``HYPERDRIVE_SOAK=1`` runs thousands.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from hyperdrive.session.settings import EMPTY, UNKNOWN, label, statement_for
from hyperdrive.testing.frontend import (
    bind,
    close_portal,
    close_statement,
    copy_data,
    copy_done,
    copy_fail,
    describe_portal,
    describe_statement,
    execute,
    flush,
    parse,
    query,
    sync,
)
from hyperdrive.testing.playbook import Playbook, ServerSide, letters, pieces
from tests.properties.model import Model

EXAMPLES = 2000 if os.environ.get("HYPERDRIVE_SOAK") else 60

Unit = tuple[str, Callable[[str], bytes]]
"""What one client sends in one go, and its name; the argument is the client's own name, to be put into rows."""

STARTUP = {"work_mem": "1MB"}

NAMES = ("s1", "s2", "s" * 63)
PORTALS = ("", "", "", "p")
ROWS = ("select 'A'", "select $1::text", "values ('x'), ('y'), ('z')", "select 1/0", "show work_mem", "show timezone")
CONTROL = (
    "begin",
    "commit",
    "rollback",
    "start transaction read only",
    "begin isolation level repeatable read",
    "set transaction read write",
    "commit and chain",
    "rollback and chain",
    "end",
    "abort",
    "savepoint one",
    "savepoint two",
    "rollback to one",
    "rollback to two",
    "release one",
)
SETTINGS = (
    "set work_mem to '2MB'",
    "set work_mem to '3MB'",
    "set timezone to 'CET'",
    "set timezone to 'UTC'",
    "set search_path to 'other'",
    "set local work_mem to '9MB'",
    "set local timezone to 'MST'",
    "reset work_mem",
    "reset timezone",
    "reset all",
    "select pg_catalog.set_config('work_mem', '8MB', false)",
)
WRONG = ("selec 'x'", "select gone", "")
NAMED = ("deallocate s1", "deallocate s2", "deallocate all", "discard all")
MULTI = (
    "select 'A'; select 'B'",
    "set work_mem to '5MB'; select 1/0",
    "set timezone to 'EST'; select 'x'",
    "begin; set work_mem to '6MB'; commit; select 1/0",
    "begin; set work_mem to '7MB'",
    "select 'x'; rollback; select 'y'",
)


def _simple(sql: str) -> Unit:
    return f"Q {sql}", lambda owner: query(sql.replace("'A'", f"'{owner}'"))


def _item(what: tuple[str, ...]) -> Unit:
    match what:
        case ("P", name, sql):
            return f"P {name[:4]} {sql}", lambda owner: parse(sql, name)
        case ("B", name, portal):
            return f"B {name[:4]} {portal}", lambda owner: bind(name, [owner], portal=portal)
        case ("DS", name):
            return f"DS {name[:4]}", lambda owner: describe_statement(name)
        case ("DP", portal):
            return f"DP {portal}", lambda owner: describe_portal(portal)
        case ("E", portal, limit):
            return f"E {portal} {limit}", lambda owner: execute(portal, int(limit))
        case ("CS", name):
            return f"CS {name[:4]}", lambda owner: close_statement(name)
        case ("CP", portal):
            return f"CP {portal}", lambda owner: close_portal(portal)
        case ("H",):
            return "H", lambda owner: flush()
        case ("S",):
            return "S", lambda owner: sync()
    raise AssertionError(what)


def _sequence(units: list[Unit]) -> Unit:
    return "[" + ", ".join(name for name, _ in units) + "]", lambda owner: b"".join(make(owner) for _, make in units)


names = st.sampled_from(NAMES)
portals = st.sampled_from(PORTALS)
sqls = st.sampled_from(ROWS + CONTROL[:3] + SETTINGS[:5] + WRONG)
items = st.one_of(
    st.tuples(st.just("P"), names, sqls),
    st.tuples(st.just("P"), st.just(""), sqls),
    st.tuples(st.just("B"), names, portals),
    st.tuples(st.just("B"), st.just(""), portals),
    st.tuples(st.just("DS"), names),
    st.tuples(st.just("DP"), portals),
    st.tuples(st.just("E"), portals, st.sampled_from(("0", "0", "1", "2"))),
    st.tuples(st.just("CS"), names),
    st.tuples(st.just("CP"), portals),
    st.just(("H",)),
)


def _prepared(name: str, sql: str, *, describe: bool, split: bool) -> Unit:
    """The way drivers do it: Parse and Describe, then, perhaps in a scope of its own, Bind and Execute."""
    first = [("P", name, sql)] + ([("DS", name)] if describe else []) + ([("S",)] if split else [])
    return _sequence([_item(what) for what in [*first, ("B", name, ""), ("E", "", "0"), ("S",)]])


def _reuse(name: str) -> Unit:
    return _sequence([_item(what) for what in [("B", name, ""), ("DP", ""), ("E", "", "0"), ("S",)]])


def _whole(sql: str) -> Unit:
    return _sequence([_item(what) for what in [("P", "", sql), ("B", "", ""), ("DP", ""), ("E", "", "0"), ("S",)]])


def _copy(lines: list[str], end: str, way: str, *, early_sync: bool, late_flush: bool) -> Unit:
    """COPY from stdin, sent without waiting for CopyInResponse."""
    data = b"".join(copy_data(line.encode()) for line in lines) + (flush() if late_flush else b"")
    data += copy_done() if end == "c" else copy_fail()
    if way == "Q":
        return f"copy Q {lines} {end}", lambda owner: query("copy t from stdin") + data
    start = parse("copy t from stdin") + bind() + execute() + (sync() if early_sync else b"")
    return f"copy E {lines} {end} {early_sync}", lambda owner: start + data + sync() + close_statement() + sync()


without_copy = st.one_of(
    st.sampled_from(ROWS[:1] + ROWS[2:] + WRONG).map(_simple),
    st.sampled_from(CONTROL).map(_simple),
    st.sampled_from(SETTINGS).map(_simple),
    st.sampled_from(NAMED + MULTI).map(_simple),
    st.sampled_from(ROWS + SETTINGS + CONTROL + NAMED).map(_whole),
    st.builds(_prepared, names, sqls, describe=st.booleans(), split=st.booleans()),
    names.map(_reuse),
    st.lists(items, min_size=1, max_size=6).map(lambda found: _sequence([_item(what) for what in [*found, ("S",)]])),
)
units = st.one_of(
    without_copy,
    st.builds(
        _copy,
        st.lists(st.sampled_from(("one", "two", "bad")), max_size=3),
        st.sampled_from("ccf"),
        st.sampled_from("QE"),
        early_sync=st.booleans(),
        late_flush=st.booleans(),
    ),
)

talks = st.lists(st.sampled_from(CONTROL + SETTINGS + ROWS[3:] + WRONG[:2]).map(_simple), max_size=6).map(
    lambda found: [_simple("begin"), *found]
)
"""A transaction whose client waits for each answer."""

Step = tuple[str, object, Any, int]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from("abc"), units, st.integers(0, 40)),
        st.tuples(st.just("ask"), st.sampled_from("abc"), without_copy.map(lambda unit: [unit]), st.just(0)),
        st.tuples(st.just("ask"), st.sampled_from("abc"), talks, st.just(0)),
        st.tuples(st.just("hear"), st.integers(0, 1), st.none(), st.sampled_from((1, 3, 7, 20, 1000))),
    ),
    min_size=1,
    max_size=25,
)


class Run:
    """The playbook, a model behind each server, and one model per client that is asked directly."""

    def __init__(self, *, clients: int, servers: int, max_statements: int, with_startup: bool) -> None:
        base = label({k.encode(): statement_for(k.encode(), v.encode()) for k, v in STARTUP.items()})
        self.book = Playbook(
            "abc"[:clients], servers, max_statements=max_statements, base=base if with_startup else EMPTY
        )
        defaults = STARTUP if with_startup else {}
        self.direct = {name: Model(defaults) for name in self.book.clients}
        self.expected = dict.fromkeys(self.book.clients, b"")
        self.told = dict.fromkeys(self.book.clients, b"")
        self.outbox = dict.fromkeys(self.book.clients, b"")
        self.models: dict[ServerSide, Model] = {}
        self.owed: dict[ServerSide, bytes] = {}
        self.max_statements = max_statements
        self.with_startup = with_startup

    def say(self, name: str, unit: Unit, cut: int) -> None:
        """The client sends what it still has, and of *unit* all but the last *cut* bytes."""
        if name not in self.direct or (self.with_startup and "reset" in unit[0]):
            return
        data = unit[1](name)
        note(f"{name}: {unit[0]} -{cut}")
        self.expected[name] += self.direct[name].receive(data)
        ahead = self.outbox[name] + data
        keep = min(cut, len(data)) if cut < len(data) else 0
        now, self.outbox[name] = ahead[: len(ahead) - keep], ahead[len(ahead) - keep :]
        if now:
            self.book.clients[name].sends(now)
        self.look()

    def hear(self, index: int, size: int) -> None:
        """A server's next *size* bytes arrive."""
        servers = self.book.servers
        server = servers[index % len(servers)]
        data = self.owed.get(server, b"")
        if data:
            note(f"{server.name}: {letters(data[:size])}")
            self.owed[server] = data[size:]
            server.sends(data[:size])
        self.look()

    def look(self) -> None:
        """Carry bytes to the models, and check what has to hold at any moment."""
        for server in self.book.servers:
            if server not in self.models:
                self.models[server] = Model()
                self.owed[server] = b""
            self.owed[server] += self.models[server].receive(server.take())
            assert server.session.broken is None, server.session.broken
        for name, client in self.book.clients.items():
            assert client.error is None, client.error
            self.told[name] += client.take()
            told = self.told[name]
            if not self.expected[name].startswith(told):
                assert pieces(self.expected[name])[: len(pieces(told))] == pieces(told), name
        for server in self.book.free:
            self.check_free(server)

    def check_free(self, server: ServerSide) -> None:
        """Whoever gets this server next finds what we believe of it."""
        state, model = server.session, self.models[server]
        assert state.is_clean
        assert model.is_idle
        assert not self.owed[server]
        certain = {shared.name.decode() for shared, present in state.statements.items() if present}
        possible = {shared.name.decode() for shared in state.statements}
        actual = set(model.statements) - {""}
        assert certain <= actual <= possible
        if state.label is not UNKNOWN:
            assert {name.decode() for name in state.label.items} == set(model.values.session), state.label

    def warm(self) -> None:
        """Settings that the origin has accepted are answered here from then on; descriptions likewise."""
        for sql in (*SETTINGS[:8], "set timezone to 'UTC'"):
            self.ask("a", _simple(sql))
        for sql in ROWS[:3]:
            self.ask("a", _prepared("warm", sql, describe=True, split=True))
            self.ask("a", _sequence([_item(("CS", "warm")), _item(("S",))]))

    def ask(self, name: str, unit: Unit) -> None:
        """The client waits for all that it is owed."""
        self.say(name, unit, 0)
        self.arrive()

    def arrive(self) -> None:
        """Everything that servers owe comes."""
        progress = True
        while progress:
            progress = False
            for index, server in enumerate(self.book.servers):
                while self.owed.get(server):
                    progress = True
                    self.hear(index, 1 << 20)

    def finish(self) -> None:
        """Everything is sent, everything arrives: nobody waits, and all is as it would have been directly."""
        for name in self.direct:
            for sql in ("rollback", "show work_mem", "show timezone"):
                self.say(name, _simple(sql), 0)
        self.arrive()
        for name in self.direct:
            assert pieces(self.expected[name]) == pieces(self.told[name]), name
        self.book.check()
        assert set(self.book.free) == set(self.book.servers)
        for server in self.book.servers:
            assert len(server.session.statements) <= self.max_statements + 12  # a scope may need more than fit


@pytest.mark.timeout(3600 if os.environ.get("HYPERDRIVE_SOAK") else 120)
@settings(max_examples=EXAMPLES)
@given(
    steps=steps,
    clients=st.integers(1, 3),
    servers=st.integers(1, 2),
    max_statements=st.sampled_from((1, 2, 100)),
    with_startup=st.booleans(),
    is_warm=st.booleans(),
)
def test_a_client_cannot_tell_a_shared_server_from_its_own(
    steps: list[Step],
    clients: int,
    servers: int,
    max_statements: int,
    with_startup: bool,
    is_warm: bool,
) -> None:
    run = Run(clients=clients, servers=servers, max_statements=max_statements, with_startup=with_startup)
    if is_warm:
        run.warm()
    for kind, who, unit, size in steps:
        if kind == "say":
            run.say(str(who), unit, size)
        elif kind == "ask":
            for one in unit:
                run.ask(str(who), one)
        else:
            run.hear(int(str(who)), size)
    run.finish()
