"""The express lane in C: whatever is said, it does to every object what Python does; and it is not forgotten when Python changes."""

from __future__ import annotations

import ast
import random
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum
from hashlib import sha256
from typing import Any, cast

import pytest

from bench.book import Book
from hyperdrive.cache.entry import Entry
from hyperdrive.cache.tags import Space
from hyperdrive.clock import ManualClock
from hyperdrive.errors import ConfigError
from hyperdrive.net.transport import Transport
from hyperdrive.pgwire import messages as m
from hyperdrive.pgwire.framing import QUERY
from hyperdrive.pool.interfaces import PoolKey
from hyperdrive.pool.settings import PoolSettings
from hyperdrive.proxy import lane, mirrored
from hyperdrive.proxy.asked import glanced_key
from hyperdrive.proxy.cache import CacheSettings, Mode
from hyperdrive.proxy.client import ClientConnection
from hyperdrive.proxy.identity import Identity, effective
from hyperdrive.proxy.proxy import Proxy, ProxySettings
from hyperdrive.proxy.server import ServerConnection
from hyperdrive.session.client import ClientSession
from hyperdrive.session.settings import EMPTY
from hyperdrive.sql import catalog

VIEW = {b"client_encoding": b"UTF8", b"standard_conforming_strings": b"on", b"server_version": b"18.0"}
SELECT = b"SELECT abalance FROM pgbench_accounts WHERE aid = "
PATH = (11, 2200)
ROWS = {
    "schemas": [(11, "pg_catalog", 10), (2200, "public", 10)],
    "relations": [(100, 2200, "pgbench_accounts", "r", "p", False, False)],
    "columns": [(100, 1, "aid", 23), (100, 2, "abalance", 23)],
    "types": [(23, 11, "int4", "b", "N", 0, 1007, 0, 0)],
    "operators": [(11, "=", 23, 23, 16, 65)],
}
CATALOG = catalog.build(ROWS, catalog.Identity(1, 1, 5, 180000))

compiled = pytest.mark.skipif(not lane.IS_COMPILED, reason=lane.described())


# --- two worlds, one with the lane and one without -----------------------------------------------------------------------------


class Wire:
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []
        self.unread = b""

    def write(self, data: bytes) -> None:
        self.events.append(("write", bytes(data)))
        self.unread += data

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given: self.events.append((name, None))


class Origin(Book):
    """One that knows which statements it has, and after an error ignores what comes up to Sync."""

    def __init__(self) -> None:
        super().__init__()
        self._skips = False

    def _one(self, message: bytes) -> bytes:
        kind = message[:1]
        if self._skips and kind not in b"S":
            return b""
        self._skips = False
        if kind == b"B" and message[5:].split(b"\0", 2)[1] not in self._statements:
            self._skips = True
            return m.error_response("no such statement", "26000")
        return super()._one(message)


class World:
    """Three clients and two servers of one pool; *methods* are what they receive with."""

    def __init__(self, methods: tuple[Any, Any], settings: CacheSettings | None) -> None:
        nothing = cast("Any", None)
        self.from_client, self.from_server = methods
        self.clock = ManualClock()
        pool = PoolSettings(pool_size=2, min_size=0, lifetime_jitter=0)
        self.proxy = Proxy(nothing, nothing, ProxySettings(), lambda _: pool, self.clock, cache=settings)
        self.context = self.proxy.context(PoolKey("app", "app"))
        self.view = self.context.logged_in(VIEW)
        self.servers = [self._server(number) for number in range(2)]
        self.clients = [self._client(number) for number in range(3)]
        self.books = [Origin() for _ in self.servers]
        self.spaces: list[Space] = []
        if self.proxy.cache is not None:
            self.proxy.cache.chance = lambda: 0.5

    def _server(self, pid: int) -> ServerConnection:
        server = ServerConnection(self.context, pid, b"key", self.view, "nowhere")
        server.attach(cast("Transport", Wire()))
        if self.proxy.cache is not None and self.proxy.cache.is_on:
            server.session.noted = {}  # as after login
        self.context.pool.adopt(server)
        return server

    def _client(self, pid: int) -> ClientConnection:
        session = ClientSession(self.context.pipe, EMPTY, self.view)
        client = ClientConnection(self.context, session, cast("Transport", Wire()), pid, b"key")
        self.context.clients.add(client)
        self.proxy.clients[pid] = client
        return client

    def says(self, number: int, data: bytes) -> None:
        self.from_client(self.clients[number], data)

    def hears(self, number: int, spoil: Callable[[bytes], list[bytes]]) -> None:
        """The origin behind server *number* answers what it was sent, in pieces."""
        wire = cast("Wire", self.servers[number].transport)
        written, wire.unread = wire.unread, b""
        for piece in spoil(self.books[number].answer(written)):
            if piece and self.servers[number].pool_state.value != "closed":
                self.from_server(self.servers[number], piece)

    def stores(self, number: int, key: bytes, body: bytes) -> None:
        """Client *number* would find an answer in the cache."""
        space = self._settle(number)
        self.spaces.append(space)
        entry = Entry(space, key, body, (), seq=space.domain.seq, fill_no=1, sent_at=self.clock.now())
        entry.early_from = self.clock.now() + 10
        entry.info = "verdict"
        space.entries[key] = entry

    def asks_anew(self, number: int, data: bytes, *, is_choosy: bool) -> None:
        """Client *number*, who is known, says *data* while the catalog is, and while the store takes or does not take what it never saw."""
        self._settle(number)
        cache = self.context.cache
        assert cache is not None
        cache.database.learn(CATALOG)
        cache.cache.store.door.is_strict = is_choosy
        cache._asking.add(effective(self.clients[number].session.journal.wanted))  # nobody runs a loop here
        try:
            self.says(number, data)
        finally:
            cache.database.catalog = None  # others' sessions are nobody's

    def _settle(self, number: int) -> Space:
        """The cache knows who client *number* is."""
        client, cache = self.clients[number], self.context.cache
        reader = client.reader
        assert reader is not None
        assert cache is not None
        domain = cache.database.domain
        reader._wanted, reader._told = client.session.journal.wanted, client.session.told
        reader._identity = Identity(key=b"somebody", epoch=domain.epoch, path=PATH)
        reader._space = domain.space(b"somebody")
        return reader._space

    def forget(self) -> None:
        for one in (*self.clients, *self.servers):
            cast("Wire", one.transport).events.clear()

    def picture(self) -> dict[str, object]:
        """All that the two sides know, in values that can be compared."""
        known = {id(one): f"client {n}" for n, one in enumerate(self.clients)}
        known |= {id(one): f"server {n}" for n, one in enumerate(self.servers)}
        for n, client in enumerate(self.clients):
            known |= {id(client.session): f"session {n}", id(client.session.journal): f"journal {n}"}
        roots: list[object] = [*self.clients, *self.servers, self.context.pool, self.context.stats]
        roots += [x for one in self.clients for x in (one.session, one.session.journal, one.reader, one.transport)]
        roots += [x for one in self.servers for x in (one.session, one.transport)]
        if self.context.cache is not None:
            store, database = self.context.cache.cache.store, self.context.cache.database
            roots += [store, store.door, store.metrics, self.context.cache.cache.reads, *database.shapes.values()]
            roots += [entry for space in self.spaces for entry in space.entries.values()]
        return {
            f"{place} {type(one).__name__}.{name}": shown(getattr(one, name, None), known)
            for place, one in enumerate(roots)
            for name in names_of(one)
        }


def names_of(one: object) -> list[str]:
    if isinstance(one, Wire):
        return ["events"]
    names = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
    return [name for name in names if name not in ("__weakref__", "serial")]  # a serial number is the whole process's


def shown(value: object, known: dict[int, str]) -> object:
    if id(value) in known:
        return known[id(value)]
    if value is None or isinstance(value, bytes | str | int | float):
        return type(value).__name__, value
    if isinstance(value, array):
        return hash(value.tobytes())
    if isinstance(value, list | tuple | deque):
        return type(value).__name__, [shown(one, known) for one in value]
    if isinstance(value, dict | OrderedDict):
        return [(shown(k, known), shown(v, known)) for k, v in value.items()]
    return str(value) if isinstance(value, Enum) else type(value).__name__


# --- what is said --------------------------------------------------------------------------------------------------------------


def scope(name: bytes, value: bytes, *, described: bool = True, rows: int = 0) -> bytes:
    return m.bind(b"", name, [value]) + (m.describe(b"P") if described else b"") + m.execute(b"", rows) + m.SYNC


def phrases(dice: random.Random) -> bytes:
    """One read from a client: mostly the usual, and everything that is nearly it."""
    n = str(dice.randrange(1000)).encode()
    usual = [
        m.query(SELECT + n + b";"),
        m.query(SELECT + b"7"),
        m.parse(b"", SELECT + b"$1") + scope(b"", n),
        m.parse(b"", SELECT + b"$1") + scope(b"", n, described=False),
        scope(b"s1", n),
        scope(b"s1", n, described=False),
        scope(b"s1", n, rows=1),
        m.parse(b"", SELECT + b"$1") + scope(b"", n, rows=5),
        m.query(b"UPDATE pgbench_accounts SET abalance = 1 WHERE aid = " + n),
    ]
    unusual = [
        m.parse(b"s1", SELECT + b"$1") + m.SYNC,
        m.parse(b"s1", SELECT + b"$1") + m.describe(b"S", b"s1") + m.SYNC,
        m.close(b"S", b"s1") + m.SYNC,
        scope(b"nobody", n),
        m.parse(b"", b"select version()") + scope(b"", n),
        m.parse(b"", b"SET search_path TO x") + m.bind() + m.execute() + m.SYNC,
        m.query(b"select version()"),
        m.query(b"SELECT relname from pg_class"),
        m.query(b"SELECT table_name FROM Information_Schema.tables"),
        m.query(b""),
        m.query(b"SELECT 1; SELECT 2"),
        m.query(b"BEGIN"),
        m.query(b"COMMIT"),
        m.query(b"ROLLBACK"),
        m.query(b"SET search_path TO a"),
        m.query(b"RESET search_path"),
        m.query(b"SELECT f() FROM t"),
        m.query(SELECT + n) + m.query(SELECT + b"1"),
        m.query(SELECT + n)[:-1] + b"x",
        m.parse(b"", SELECT + b"$1")[:-2] + b"xx" + scope(b"", n),
        m.SYNC,
        m.execute() + m.SYNC,
    ]
    return dice.choice(usual if dice.random() < 0.75 else unusual)


def answers(dice: random.Random) -> Callable[[bytes], list[bytes]]:
    """How a reply comes: mostly at once."""
    roll, at = dice.random(), dice.random()
    error, notice = m.error_response("no", "42P01"), m.notice_response("careful", "01000")

    def spoil(reply: bytes) -> list[bytes]:
        cut = int(len(reply) * at)
        if roll < 0.7 or not reply:
            return [reply]
        if roll < 0.85:
            return [reply[:cut], reply[cut:]]
        if roll < 0.9:
            return [notice + reply]
        if roll < 0.95 and reply.count(m.READY_IDLE) == 1 and reply.endswith(m.READY_IDLE):
            return [error + m.READY_IDLE]
        return [reply + m.parameter_status(b"application_name", b"x")]

    return spoil


def steps(dice: random.Random, begun: dict[int, bytes], *, cached: bool) -> Callable[[World], None]:
    """One thing that happens; *begun* has the rests of what clients have sent in part."""
    roll, number = dice.random(), dice.randrange(3)
    if roll < 0.45 or number in begun:
        data = begun.pop(number, b"") or phrases(dice)
        if roll < 0.03 and len(data) > 1:
            cut = dice.randrange(1, len(data))
            data, begun[number] = data[:cut], data[cut:]
        return lambda world: world.says(number, data)
    if roll < 0.82:
        spoil, which = answers(dice), dice.randrange(2)
        return lambda world: world.hears(which, spoil)
    if roll < 0.84:
        return lambda world: world.clients[number].pause_writing()
    if roll < 0.9:
        return lambda world: world.clients[number].resume_writing()
    if cached and roll < 0.91:
        later = dice.choice([0.0, 1.0, 1000.0])
        return lambda world: setattr(world.proxy.cache, "vouched_until", world.clock.now() + later)
    if cached and roll < 0.94:
        n = str(dice.randrange(1000)).encode()
        described = m.parse(b"", SELECT + b"$1") + scope(b"", n)
        tail = len(m.describe(b"P") + m.execute() + m.SYNC)
        body = m.parse(b"", SELECT + b"$1")[6:] + m.bind(b"", b"", [n])[7:]
        key, asked = dice.choice(
            [(m.query(SELECT + n), m.query(SELECT + n)), (b"D" + body, described), (b"D" + body, scope(b"s1", n))]
        )
        assert described[-tail:]

        def find(world: World) -> None:
            world.stores(number, key, b"the answer")
            world.says(number, asked)
            world.says(number, asked)

        return find
    if cached and roll < 0.99:
        return anew(dice, number)
    seconds = dice.choice([0.1, 1.0, 30.0])
    return lambda world: world.clock.advance(seconds)


def anew(dice: random.Random, number: int) -> Callable[[World], None]:
    """Somebody who is known asks for what was perhaps never asked for, and perhaps once more."""
    n = str(dice.randrange(1000)).encode()
    data = dice.choice(
        [
            *[m.query(SELECT + n)] * 4,
            m.query(SELECT + b"/* " + n + b" */ 1"),
            m.query(SELECT + n + b" AND nobody = 1"),
            m.query(b"SELECT abalance FROM others WHERE aid = " + n),
            m.query(b"UPDATE pgbench_accounts SET abalance = 1 WHERE aid = " + n),
            m.parse(b"", SELECT + b"$1") + scope(b"", n),
        ]
    )
    is_choosy, times = dice.random() < 0.8, dice.choice([1, 1, 2])

    def ask(world: World) -> None:
        for _ in range(times):
            world.asks_anew(number, data, is_choosy=is_choosy)
            for which in (0, 1):
                world.hears(which, lambda reply: [reply])

    return ask


CACHES = {
    "none": None,
    "catalogs only": CacheSettings(knows=True),
    "reads": CacheSettings(mode=Mode.ON),
}


@compiled
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("seed", range(3))
async def test_the_compiled_lane_does_what_python_does(seed: int, cache: str) -> None:
    """Whatever clients and origin say, and however it is cut: the same bytes, and the same state of every object, after each step."""
    dice = random.Random(seed)
    assert lane.COMPILED is not None
    ours, python = World(lane.COMPILED, CACHES[cache]), World(lane.PYTHON, CACHES[cache])
    begun: dict[int, bytes] = {}
    for _ in range(150):
        step = steps(dice, begun, cached=cache == "reads")
        step(ours)
        step(python)
        assert python.picture() == ours.picture()
        python.forget()
        ours.forget()
        if len(python.context.pool._servers) < 2 or len(python.context.clients) < 3:
            break
    assert python.context.stats.released > 0


@compiled
@pytest.mark.parametrize("cache", CACHES)
async def test_the_usual_never_reaches_python(cache: str) -> None:
    """Otherwise all of this would hold, and nothing would be gained."""
    module, _ = lane.load()
    assert module is not None
    calls: list[bytes] = []

    def python(which: Callable[..., None]) -> Callable[..., None]:
        def call(one: object, data: bytes) -> None:
            calls.append(data)
            which(one, data)

        return call

    world = World(lane.around(module, *map(python, lane.PYTHON)), CACHES[cache])
    prepare = m.parse(b"s1", SELECT + b"$1") + m.describe(b"S", b"s1") + m.SYNC
    usual = [m.query(SELECT + b"1"), m.parse(b"", SELECT + b"$1") + scope(b"", b"1"), scope(b"s1", b"1")]
    for data in (prepare, *usual, *usual):
        world.says(0, data)
        for number in (0, 1):
            world.hears(number, lambda reply: [reply])
    calls.clear()
    limited = (
        []
        if cache == "reads"
        else [scope(b"s1", b"1", rows=1), m.parse(b"", SELECT + b"$1") + scope(b"", b"1", rows=1)]
    )
    for data in usual + limited:
        if cache == "reads":
            world.stores(0, key_of(world.clients[0], data), b"the answer")
        world.says(0, data)
        if cache != "reads":
            world.hears(1, lambda reply: [reply])
            assert cast("Wire", world.clients[0].transport).unread.endswith(m.READY_IDLE)
    assert [] == calls


@compiled
async def test_the_answer_to_a_miss_never_reaches_python() -> None:
    """Of what is asked while the cache is on, much is decided in Python; what comes back is as usual as without it, but for writes."""
    module, _ = lane.load()
    assert module is not None
    calls: list[bytes] = []

    def python(one: object, data: bytes) -> None:
        calls.append(data)
        lane.PYTHON[1](one, data)

    world = World(lane.around(module, lane.PYTHON[0], python), CACHES["reads"])
    reads = [m.query(SELECT + b"1"), m.parse(b"", SELECT + b"$1") + scope(b"", b"1"), m.query(SELECT + b"2")]
    for data in reads:
        world.says(0, data)
        noted = world.servers[1].session.noted
        assert noted is not None
        noted.clear()  # as if a catalog had shown that it writes nothing
        world.hears(1, lambda reply: [reply])
        assert cast("Wire", world.clients[0].transport).unread.endswith(m.READY_IDLE)
    assert [] == calls
    world.says(0, m.query(b"UPDATE pgbench_accounts SET abalance = 1"))
    world.hears(1, lambda reply: [reply])
    assert 1 == len(calls)


@compiled
async def test_a_read_never_seen_before_never_reaches_python_but_to_be_judged() -> None:
    """While only what comes again is kept: what it may do is asked of Python, and that is all; asked again, it is copied, which is not."""
    module, _ = lane.load()
    assert module is not None
    calls: list[bytes] = []

    def python(which: Callable[..., None]) -> Callable[..., None]:
        def call(one: object, data: bytes) -> None:
            calls.append(data)
            which(one, data)

        return call

    world = World(lane.around(module, *map(python, lane.PYTHON)), CACHES["reads"])
    cache = world.context.cache
    assert cache is not None

    def ask(number: int) -> None:
        world.asks_anew(0, m.query(SELECT + b"%d" % number), is_choosy=True)
        for which in (0, 1):
            world.hears(which, lambda reply: [reply])

    for number in range(10, 13):
        ask(number)  # the text's fold is known at its second sight
    calls.clear()
    misses = cache.cache.reads.queries_miss
    for number in range(13, 23):
        ask(number)
        assert world.servers[1].session.noted == {}
        assert cast("Wire", world.clients[0].transport).unread.endswith(m.READY_IDLE)
    assert [] == calls
    assert 10 == cache.cache.reads.queries_miss - misses
    assert 13 == next(iter(cache.database.shapes.values())).misses
    ask(22)
    assert 2 == len(calls)
    world.asks_anew(0, m.query(SELECT + b"1; "), is_choosy=True)
    assert 2 < len(calls), "what it is has to be seen once"


def key_of(client: ClientConnection, data: bytes) -> bytes:
    return data if data[0] == QUERY else glanced_key(data[0], data, client.session)


# --- it keeps up with Python -----------------------------------------------------------------------------------------------------

SEAL = "96efd2ebfb085f9b"


def sealed() -> str:
    """Stands for the code, not the comments, of what the lane repeats."""
    found = sha256()
    for place in mirrored.FUNCTIONS:
        file, _, name = place.partition(":")
        nodes: list[ast.stmt] = ast.parse((mirrored.PACKAGE / file).read_text()).body
        node: Any = None
        for part in name.split("."):
            node = next(one for one in nodes if getattr(one, "name", "") == part)
            nodes = node.body
        docless = [one for one in node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
        found.update(place.encode() + b"".join(ast.unparse(one).encode() for one in docless))
    return found.hexdigest()[:16]


def test_the_lane_was_looked_at_when_python_changed() -> None:
    """One of ``mirrored.FUNCTIONS`` is another than when somebody last compared it with ``_lane.c``: compare it, change the C if it has
    to say the same, and put the new seal here."""
    assert SEAL == sealed()


def test_a_lane_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrored, "digest", lambda: "of another day")
    module, why_not = lane.load()
    assert module is None
    assert why_not


def test_it_can_be_forbidden_and_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lane.VARIABLE, "0")
    assert (None, "HYPERDRIVE_COMPILED=0") == lane.load()
    monkeypatch.setenv(lane.VARIABLE, "1")
    monkeypatch.setattr(lane, "IS_COMPILED", False)
    with pytest.raises(ConfigError, match="HYPERDRIVE_COMPILED=1"):
        lane.check()


@compiled
def test_what_has_lost_a_slot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed attribute is found when the process starts, not by reading from the wrong place."""
    module, _ = lane.load()
    assert module is not None
    monkeypatch.setitem(lane._CLASSES, "journal", World)
    with pytest.raises(AttributeError, match="wanted"):
        lane.around(module, *lane.PYTHON)
    monkeypatch.undo()
    lane.around(module, *lane.PYTHON)
