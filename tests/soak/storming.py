"""What one client of a storm does: a deed at random, with values that only it has, and a check of whatever it hears.

A deed either checks an answer whole, or ends in ``Refused`` with the SQLSTATE that came, or in a closed connection. What a client was
told of its own writes is kept in its ``Ledger``: a write that was acknowledged happened, one that was refused did not, and only for
``08007`` and a connection that was cut is either allowed.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from hyperdrive.pgwire.trace import trace_message
from hyperdrive.testing.frontend import (
    bind,
    copy_data,
    copy_done,
    copy_fail,
    describe_portal,
    execute,
    extended,
    flush,
    message,
    parse,
    query,
    sync,
)
from hyperdrive.testing.transcript import Message, Replies
from hyperdrive.testing.wire import Address, WireConnection

TABLES = """
create table tally (owner int primary key, n int not null);
create table note (owner int, n int, primary key (owner, n));
create table blob (owner int, part text);
create sequence spent;
"""
PATIENCE_SECONDS = 60.0

# Where the connection goes on, and the outcome is unknown: a write may have happened.
UNKNOWN = "08007"


class Refused(Exception):
    """An ErrorResponse that the deed did not ask for."""

    def __init__(self, sqlstate: str, text: str = "") -> None:
        super().__init__(f"{sqlstate} {text}")
        self.sqlstate = sqlstate


class Wrong(AssertionError):
    """An answer that cannot be right. The storm stops here."""


class QuietConnection(WireConnection):
    """A raw client that remembers its last messages as bytes, and prints them only when they are asked for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: Address) -> None:
        super().__init__(reader, writer, address)
        self.deadline_seconds = PATIENCE_SECONDS
        self.last: deque[tuple[str, bytes]] = deque(maxlen=60)

    @classmethod
    async def to(cls, url: str) -> QuietConnection:
        address = Address.of(url)
        return cls(*await address.open(), address)

    def _note_sent(self, data: bytes) -> None:
        self.last.append(("F", data[:400]))

    async def receive(self) -> Message:
        async with asyncio.timeout(self.deadline_seconds):
            head = await self.reader.readexactly(5)
            body = await self.reader.readexactly(int.from_bytes(head[1:], "big") - 4)
        self.last.append(("B", head + body[:400]))
        return Message(chr(head[0]), body)

    def conversation(self, last: int = 60) -> str:
        lines = [f"F {data!r}" if who == "F" else trace_message("B", chr(data[0]), data[5:]) for who, data in self.last]
        return "\n".join(lines)


@dataclass
class Ledger:
    """What one client knows of its own rows."""

    tally: int = 0
    unknown: int = 0
    notes: set[int] = field(default_factory=set)
    perhaps: set[int] = field(default_factory=set)


@dataclass
class Actor:
    """One client: its number, its connection, and what it believes."""

    number: int
    url: str
    chance: random.Random
    count: Counter[str]
    ledger: Ledger = field(default_factory=Ledger)
    conn: QuietConnection | None = None
    asked: int = 0
    settings: dict[str, str] = field(default_factory=dict)
    prepared: dict[str, str] = field(default_factory=dict)

    def mark(self) -> str:
        """A text that nobody else asks for, and nobody twice."""
        self.asked += 1
        return f"c{self.number}-{self.asked}"

    @property
    def wire(self) -> QuietConnection:
        assert self.conn is not None
        return self.conn

    async def ask(self, data: bytes, ready: int = 1) -> Replies:
        """Send, read to the last ReadyForQuery; the first error that came is raised at the end."""
        replies = await self.wire.scope(data, ready)
        for reply in replies:
            if reply.kind == "E":
                raise Refused(reply.error["C"], reply.error["M"])
        return replies

    async def sql(self, text: str) -> Replies:
        return await self.ask(query(text))

    def same(self, expected: object, found: object) -> None:
        if expected != found:
            raise Wrong(f"client {self.number}: {found!r} instead of {expected!r}\n{self.wire.conversation()}")


Deed = Callable[[Actor], Awaitable[None]]


async def simple(me: Actor) -> None:
    mark = me.mark()
    me.same([(mark,)], (await me.sql(f"select '{mark}'")).rows)


async def parameter(me: Actor) -> None:
    mark = me.mark()
    me.same([(mark,)], (await me.ask(extended("select $1::text", [mark]) + sync())).rows)


async def named(me: Actor) -> None:
    """Names that all clients use, each for a text of its own; many of them."""
    name = f"s{me.chance.randrange(40)}"
    mark = me.mark()
    if name not in me.prepared:
        await me.ask(parse(f"select $1::text, 'p{me.number}', '{name}'", name) + sync())
        me.prepared[name] = name
    me.same([(mark, f"p{me.number}", name)], (await me.ask(bind(name, [mark]) + execute() + sync())).rows)


async def pipeline(me: Actor) -> None:
    """Scopes one after the other without waiting, some of which fail."""
    marks, fails, data = [], [], b""
    for _ in range(me.chance.randrange(2, 9)):
        marks.append(me.mark())
        fails.append(me.chance.random() < 0.2)
        sql = "select $1::text, 1 / 0" if fails[-1] else "select $1::text, 1"
        data += extended(sql, [marks[-1]]) + (flush() if me.chance.random() < 0.3 else b"") + sync()
    found, one = [], Replies()
    for reply in await me.wire.scope(data, len(marks)):
        one.append(reply)
        if reply.kind == "Z":
            found.append(one)
            one = Replies()
    others = {state for part in found for state in part.errors} - {"22012"}
    if others:
        raise Refused(others.pop())
    me.same([[] if fail else [(mark, "1")] for mark, fail in zip(marks, fails, strict=True)], [p.rows for p in found])


async def settings(me: Actor) -> None:
    """What a session set is what it finds, and nothing else."""
    name = me.chance.choice(["application_name", "TimeZone", "search_path", "work_mem", "statement_timeout"])
    value = {
        "application_name": me.mark(),
        "TimeZone": me.chance.choice(["UTC", "Asia/Tokyo", "Europe/Paris"]),
        "search_path": f"public, s{me.number}",
        "work_mem": f"{me.chance.randrange(100, 900)}kB",
        "statement_timeout": f"{me.chance.randrange(40, 59)}s",
    }[name]
    await me.sql(f"set {name} = '{value}'" if name != "search_path" else f"set search_path = {value}")
    me.settings[name] = value
    await check_settings(me)


async def check_settings(me: Actor) -> None:
    for name, value in me.settings.items():
        me.same([(value,)], (await me.sql(f"select current_setting('{name}')")).rows)


async def add(me: Actor) -> None:
    """One more in this client's row: autocommit, simple or extended."""
    me.ledger.unknown += 1  # until something else is heard
    sql = "update tally set n = n + 1 where owner = "
    try:
        if me.chance.random() < 0.5:
            await me.sql(f"{sql}{me.number}")
        else:
            await me.ask(extended(f"{sql}$1", [str(me.number)]) + sync())
        me.ledger.tally += 1
    except Refused as error:
        if error.sqlstate == UNKNOWN:
            raise
        me.ledger.unknown -= 1
        raise
    me.ledger.unknown -= 1
    await look(me)


async def look(me: Actor) -> None:
    """Its own row, by a read that the cache may serve: never less than it was told of, never more than it asked for."""
    sql = f"select n from tally where owner = {me.number}"
    data = query(sql) if me.chance.random() < 0.5 else extended(sql) + sync()
    rows = (await me.ask(data)).rows
    if not (len(rows) == 1 and len(rows[0]) == 1 and str(rows[0][0]).isdecimal()):
        raise Wrong(f"client {me.number} read {rows}\n{me.wire.conversation()}")
    found = int(str(rows[0][0]))
    if not me.ledger.tally <= found <= me.ledger.tally + me.ledger.unknown:
        raise Wrong(f"client {me.number} read {found}, knows of {me.ledger}\n{me.wire.conversation()}")


async def transaction(me: Actor) -> None:
    """Rows in a transaction that ends in one of four ways."""
    first = me.asked = me.asked + 2
    rows = {first, first + 1}
    how = me.chance.choice(["commit", "commit", "rollback", "error", "leave"])
    await me.sql("begin")
    await me.sql(f"insert into note values ({me.number}, {first})")
    await me.ask(extended("insert into note values ($1, $2)", [str(me.number), str(first + 1)]) + sync())
    found = (await me.sql(f"select n from note where owner = {me.number} and n >= {first} order by n")).rows
    me.same([(str(first),), (str(first + 1),)], found)
    if how == "leave":
        me.wire.abort()
        raise ConnectionResetError("left in the middle")
    if how == "error":
        replies = await me.wire.scope(query("select 1 / 0"))
        if replies.errors != ["22012"]:
            raise Refused(replies.errors[0] if replies.errors else "none")
        me.same("E", replies.statuses)
    if how != "commit":
        await me.sql("rollback")
        return
    me.ledger.perhaps |= rows
    try:
        me.same(["COMMIT"], (await me.sql("commit")).tags)
    except Refused as error:
        if error.sqlstate != UNKNOWN:
            me.ledger.perhaps -= rows
        raise
    me.ledger.notes |= rows
    me.ledger.perhaps -= rows


async def many(me: Actor) -> None:
    mark, count = me.mark(), me.chance.randrange(1, 2000)
    found = (await me.sql(f"select '{mark}' from generate_series(1, {count})")).rows
    me.same((count, {(mark,)}), (len(found), set(found)))


async def giant(me: Actor) -> None:
    """One value of megabytes, read slowly."""
    mark, length = me.mark(), me.chance.randrange(1, 4 << 20)
    me.wire.send(query(f"select '{mark}' || repeat('x', {length})"))
    await asyncio.sleep(me.chance.random())
    replies = await me.wire.read_until("Z")
    if replies.errors:
        raise Refused(replies.errors[0])
    value = str(replies.rows[0][0])
    me.same((len(mark) + length, mark), (len(value), value[: len(mark)]))


async def cancelled(me: Actor) -> None:
    """It is cancelled or it is not; nobody else is."""
    me.wire.send(query(f"select pg_sleep({me.chance.random() * 0.3}), '{me.mark()}'"))
    await asyncio.sleep(me.chance.random() * 0.3)
    try:
        await me.wire.cancel()
    except OSError:
        me.count["cancel refused"] += 1
    replies = await me.wire.read_until("Z")
    if replies.errors and replies.errors != ["57014"]:
        raise Refused(replies.errors[0])


async def copy_in(me: Actor) -> None:
    """Rows by COPY, which is given up now and then, or left."""
    me.wire.send(query("copy blob from stdin"))
    replies = await me.wire.read_until("GZ")
    if replies[-1].kind == "Z":
        raise Refused(replies.errors[0])
    mark = me.mark()
    for _ in range(me.chance.randrange(1, 5)):
        me.wire.send(copy_data(f"{me.number}\t{mark}\n".encode() * 500))
        await asyncio.sleep(0)
    how = me.chance.random()
    if how < 0.2:
        me.wire.abort()
        raise ConnectionResetError("left in a COPY")
    replies = await me.wire.scope(copy_fail("enough") if how < 0.4 else copy_done())
    if how < 0.4 and replies.errors == ["57014"]:
        return
    if replies.errors:
        raise Refused(replies.errors[0])


async def copy_out(me: Actor) -> None:
    mark = me.mark()
    replies = await me.sql(f"copy (select '{mark}' from generate_series(1, 1000)) to stdout")
    me.same({mark.encode() + b"\n"}, {reply.body for reply in replies if reply.kind == "d"})


async def pinned(me: Actor) -> None:
    """A temporary table of a name that all use."""
    mark = me.mark()
    await me.sql(f"create temp table if not exists mine as select '{mark}'::text as m")
    me.same([(mark,)], (await me.sql("select m from mine")).rows)
    await me.sql("discard all")
    me.settings.clear()
    me.prepared.clear()


async def listening(me: Actor) -> None:
    """A notification on a channel of its own, sent by itself: before its own ReadyForQuery."""
    mark = me.mark()
    await me.sql(f"listen ch{me.number}")
    replies = await me.sql(f"notify ch{me.number}, '{mark}'")
    me.same([f"ch{me.number}\0{mark}\0".encode()], [reply.body[4:] for reply in replies if reply.kind == "A"])
    await me.sql("unlisten *")


async def garbage(me: Actor) -> None:
    """Bytes that are no protocol; the connection is lost, and only this one."""
    junk = me.chance.randbytes(me.chance.randrange(1, 60))
    how = me.chance.randrange(4)
    data = [junk, message("Q", junk), b"Q\xff\xff\xff\xff", parse("select 1")[: me.chance.randrange(1, 12)]][how]
    me.wire.send(data)
    await asyncio.sleep(me.chance.random() * 0.1)
    me.wire.abort()
    raise ConnectionResetError("garbage")


async def vanish(me: Actor) -> None:
    """In the middle of an answer."""
    me.wire.send(query(f"select '{me.mark()}' from generate_series(1, 100000)"))
    await asyncio.sleep(me.chance.random() * 0.05)
    me.wire.abort()
    raise ConnectionResetError("vanished")


async def half_open(me: Actor) -> None:
    """A scope that is never finished: what it inserts must not be there (W-53)."""
    me.asked += 1
    me.wire.send(
        parse("insert into note values ($1, $2)") + bind("", [str(me.number), str(-me.asked)]) + execute() + flush()
    )
    if me.chance.random() < 0.5:
        await me.wire.read_until("CE")
    me.wire.abort()
    raise ConnectionResetError("left an open scope")


async def suspended(me: Actor) -> None:
    """A portal read row by row within a transaction."""
    mark = me.mark()
    await me.sql("begin")
    data = (
        parse("select $1::text || n from generate_series(1, 5) n") + bind("", [mark], portal="p") + describe_portal("p")
    )
    replies = await me.ask(data + execute("p", 2) + sync())
    replies += await me.ask(execute("p", 0) + sync())
    me.same([(f"{mark}{n}",) for n in range(1, 6)], replies.rows)
    await me.sql("commit")


COMMON: tuple[Deed, ...] = (simple, simple, parameter, named, named, pipeline, add, add, look, transaction, settings)
RARE: tuple[Deed, ...] = (
    *(many, giant, cancelled, copy_in, copy_out, pinned, listening, garbage, vanish, half_open, suspended),
    check_settings,
)
