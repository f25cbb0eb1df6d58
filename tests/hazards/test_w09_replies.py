"""W-09 … W-18: replies, pipelines and messages of any size."""

from __future__ import annotations

import asyncio
import random
import resource
import struct

import pytest

from hyperdrive.testing import backend
from hyperdrive.testing.fake_origin import FakeOrigin, FakeSession
from hyperdrive.testing.frontend import (
    bind,
    cstring,
    describe_portal,
    describe_statement,
    execute,
    extended,
    flush,
    function_call,
    message,
    parse,
    query,
    sync,
)
from hyperdrive.testing.scene import Scene, eventually
from hyperdrive.testing.wire import WireConnection

S = sync()


def owned(owner: str, number: int) -> tuple[bytes, tuple[str, str]]:
    """A scope, and the row that only its owner may see."""
    row = (owner, str(number))
    sql = f"select '{owner}', {number}"
    return (
        query(sql) if number % 3 == 0 else extended(sql) + S if number % 3 == 1 else extended(sql) + flush() + S
    ), row


async def test_w09_several_scopes_in_one_write(scene: Scene) -> None:
    """Two clients on one server, pipelines of random length cut at random places: everybody sees all of his rows, in order."""
    await scene.start(servers=1)
    clients = {name: await scene.client() for name in "abc"}

    async def talk(name: str, conn: WireConnection) -> None:
        dice = random.Random(name)
        number = 0
        for _ in range(12):
            count = dice.randint(1, 7)
            scopes = [owned(name, number + i) for i in range(count)]
            number += count
            data = b"".join(scope for scope, _ in scopes)
            await conn.send_cut(data, [dice.randrange(1, len(data)) for _ in range(dice.randint(0, 4))])
            replies = await conn.read_until("Z", count)
            assert [row for _, row in scopes] == replies.rows
            assert replies.statuses == "I" * count

    await asyncio.gather(*(talk(name, conn) for name, conn in clients.items()))


async def test_w09_the_server_is_not_lent_before_the_last_ready(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    a.send(query("select 'a', 1") + query("select 'a', pg_sleep(0.05)") + query("select 'a', 3"))
    b.send(query("select 'b', 1") + query("select 'b', 2"))
    assert [row[0] for row in (await a.read_until("Z", 3)).rows] == ["a"] * 3
    assert (await b.read_until("Z", 2)).rows == [("b", "1"), ("b", "2")]


@pytest.mark.parametrize("position", range(1, 6))
async def test_w10_flush_without_sync_is_forwarded_at_once(scene: Scene, position: int) -> None:
    """After each prefix of ``P D B D E``, Flush brings all replies, and the server stays linked for the rest."""
    messages = [parse("select 'a'"), describe_statement(), bind(), describe_portal(), execute()]
    awaited = ["1", "T", "2", "T", "C"]
    a, b = await scene.client(), await scene.client()
    a.send(b"".join(messages[:position]) + flush())
    got = (await a.read_until(awaited[position - 1], 2 if position == 4 else 1)).letters
    b.send(query("select 'b'"))
    if position < 5:
        assert await b.is_silent(0.05)
    a.send(b"".join(messages[position:]) + S)
    rest = await a.read_until("Z")
    assert (got + rest.letters).replace("t", "") == "1T2TDCZ"
    assert (await b.read_until("Z")).rows == [("b",)]


async def test_w10_an_open_scope_is_not_ended_by_waiting(scene: Scene) -> None:
    await scene.start(query_wait_timeout=0.2)
    a = await scene.client()
    a.send(parse("select 'a'") + flush())
    assert (await a.receive()).kind == "1"
    b = await scene.client()
    assert (await b.query("select 'b'")).errors == ["53300"]
    assert (await a.scope(bind() + execute() + S)).rows == [("a",)]


@pytest.mark.parametrize("where", range(5))
async def test_w11_an_error_skips_to_the_sync_among_known_names(scene: Scene, where: int) -> None:
    """Names that we could answer ourselves are in the pipeline; what stands behind the error must get no answer."""
    a, b = await scene.client(), await scene.client()
    await a.scope(parse("select 'known'", "k") + S)
    await b.query("select 'b'")
    pieces = [parse("select 'new'", "n"), bind("k"), execute(), message("C", b"Sgone\0"), query("select 'skipped?'")][
        :4
    ]
    data = b"".join(
        [*pieces[:where], parse("select 1/(random() * 0)::int"), bind(portal="bad"), execute("bad"), *pieces[where:]]
    )
    replies = await a.scope(data + query("select 'in the skipped part'") + S)
    letters = {0: "12", 1: "1" + "12", 2: "12" + "12", 3: "12DC" + "12", 4: "12DC3" + "12"}[where]
    assert replies.letters == letters + "EZ"
    assert (await b.query("select 'b'")).rows == [("b",)]
    # A statement counts as there only if its Parse was reached.
    second = await a.scope(bind("n") + execute() + S)
    assert second.errors == (["26000"] if where == 0 else [])
    assert (await a.scope(bind("k") + execute() + S)).rows == [("known",)]


async def test_w11_skipped_queries_and_function_calls_get_no_reply(scene: Scene) -> None:
    a = await scene.client()
    replies = await a.scope(
        parse("selec") + query("select 1") + function_call(1397, [b"\0\0\0\1"]) + S + query("select 2"), 2
    )
    assert replies.letters == "EZTDCZ"


@pytest.mark.parametrize(
    ("sql", "tags", "errors"),
    [
        ("select 1; commit; select 2", ["SELECT 1", "COMMIT", "SELECT 1"], []),
        ("begin; insert into t values (1, 'a'); commit; select 1/0", ["BEGIN", "INSERT 0 1", "COMMIT"], ["22012"]),
        ("insert into t values (1, 'a'); select 1/0", ["INSERT 0 1"], ["22012"]),
    ],
)
async def test_w12_only_the_status_byte_counts(scene: Scene, sql: str, tags: list[str], errors: list[str]) -> None:
    a, b = await scene.client(), await scene.client()
    replies = await a.query(sql)
    assert (replies.tags, replies.errors, replies.statuses) == (tags, errors, "I")
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_w12_a_comment_or_string_is_no_begin(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    for sql in (
        "/* begin */ select 1",
        "select 'begin'",
        "-- begin\nselect 1",
        "select 1 as begin",
        'select 1 as "commit"',
    ):
        assert (await a.query(sql)).statuses == "I"
        assert (await b.query("select 'b'")).rows == [("b",)]
    assert (await a.query("/* x */ bEgIn -- y")).statuses == "T"
    assert (await a.query("/* x */ rollBACK /* y */;")).statuses == "I"


async def test_w13_no_acknowledged_insert_is_lost_behind_our_settings(scene: Scene) -> None:
    """Settings replayed ahead of a Query must not open a scope around it: on 18 the insert would be gone."""
    a, b = await scene.client(), await scene.client()
    await a.query("set timezone = 'Asia/Tokyo'")
    await a.query("set work_mem = '3MB'")
    for number in range(5):
        await b.query("set timezone = 'UTC'")
        replies = await a.query(f"insert into t values ({number}, 'a')")
        assert (replies.tags, replies.statuses) == (["INSERT 0 1"], "I")
        assert (await a.query("select 1")).errors == []
    await a.close()
    await b.close()
    assert await scene.ask("select count(*) from t") == "5"


async def test_w13_a_clients_own_query_in_an_open_scope_gets_what_the_origin_does(scene: Scene) -> None:
    data = parse("insert into t values (9, 'a')") + bind() + execute() + query("select 1") + S
    async with await scene.direct() as direct:
        expected = await direct.scope(data, 2)
    kept = await scene.ask("select count(*) from t")
    await scene.sql("truncate t")
    a, b = await scene.client(), await scene.client()
    got = await a.scope(data, 2)
    assert (expected.letters, expected.statuses) == (got.letters, got.statuses)
    assert (await b.query("select 'b'")).rows == [("b",)]
    assert await scene.ask("select count(*) from t") == kept


@pytest.mark.parametrize("state", ["simple", "extended", "transaction", "held", "pipelined"])
async def test_w14_a_killed_server_ends_every_entry(scene: Scene, state: str) -> None:
    """FATAL comes without ReadyForQuery; the client is answered all the same, and the next one has a good server."""
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    pid = await a.value("select pg_backend_pid()")
    sleep = "select pg_sleep(10)"
    data = {
        "simple": query(sleep),
        "extended": extended(sleep) + S,
        "transaction": query(sleep),
        "held": query(sleep),
        "pipelined": query(sleep) + query("select 2") + extended("select 3") + S,
    }[state]
    if state in ("transaction", "held"):
        await a.query("begin")
    if state == "transaction":
        await a.query("select 1")
    a.send(data)
    await eventually(lambda: scene.is_waiting("PgSleep"), "the query runs")
    await scene.sql(f"select pg_terminate_backend({pid})")
    replies = await a.read_until("Z", 3 if state == "pipelined" else 1)
    assert replies.errors[0] in ("08006", "08007", "57P01"), replies
    assert replies[-1].body == (b"E" if state in ("transaction", "held") else b"I")
    assert (await b.query("select 'b'")).rows == [("b",)]
    if state in ("transaction", "held"):
        assert (await a.query("select 1")).errors == ["25P02"]
        assert (await a.query("commit")).tags == ["ROLLBACK"]
    assert (await a.query("select 'a'")).rows == [("a",)]


async def test_w15_success_is_ready_for_query_and_not_the_tag(scene: Scene) -> None:
    await scene.sql(
        "create table parent (id int primary key);"
        "create table child (id int references parent deferrable initially deferred)"
    )
    a, b = await scene.client(), await scene.client()
    replies = await a.scope(parse("insert into child values (1)") + bind() + execute() + S)
    assert replies.letters == "12CEZ"
    assert replies.errors == ["23503"]
    assert (await b.query("select count(*) from child")).rows == [("0",)]
    # A setting in such a scope is reverted with it.
    await a.scope(
        parse("set timezone = 'Asia/Tokyo'")
        + bind()
        + execute()
        + parse("insert into child values (1)")
        + bind()
        + execute()
        + S
    )
    assert await a.value("show timezone") == await b.value("show timezone")


async def test_w16_commit_of_a_failed_transaction_says_rollback(scene: Scene) -> None:
    a = await scene.client()
    for begin in ("begin", "begin; select 1", "start transaction"):
        await a.query(begin)
        assert (await a.query("insert into t values (1/0, 'a')")).statuses == "E"
        assert (await a.query("commit")).tags == ["ROLLBACK"]
    await a.query("begin; select 1")
    await a.query("select 1/0")
    chained = await a.query("commit and chain")
    assert (chained.tags, chained.statuses) == (["ROLLBACK"], "T")
    await a.query("rollback")
    assert await scene.ask("select count(*) from t") == "0"


@pytest.mark.parametrize(
    "data",
    [
        b"Q" + struct.pack("!i", 3),
        b"Q" + struct.pack("!i", 0),
        b"Q" + struct.pack("!i", -5) + b"x" * 10,
        b"S" + struct.pack("!i", 20_000) + b"x" * 100,
        b"X" + struct.pack("!i", 0x7FFFFFFF),
        b"P" + struct.pack("!I", 0xFFFFFFF0),
        b"\0\0\0\0\0\0\0\0",
        b"j" + struct.pack("!i", 4),
        b"p" + struct.pack("!i", 8) + b"abc\0",
    ],
    ids=["3", "0", "negative", "long-sync", "long-terminate", "huge-parse", "zeros", "unknown-type", "password"],
)
async def test_w17_a_framing_error_closes_only_the_client(scene: Scene, data: bytes) -> None:
    a, b = await scene.client(), await scene.client()
    pid = await b.value("select pg_backend_pid()")
    a.send(query("select 'before'") + data)
    replies = await a.read_to_end()
    assert set(replies.errors) <= {"08P01"}, replies
    assert await b.value("select pg_backend_pid()") == pid, "the server was lost with the client"


@pytest.mark.parametrize("inside", ["", "begin; select 1"], ids=["idle", "in-transaction"])
@pytest.mark.parametrize(
    "bad",
    [
        message("B", b"no end"),
        message("P", b"x\0select 1"),
        message("P", b"x\0select 1\0\0\2"),
        message("B", b"\0\0\0\1\0"),
        message("B", b"\0\0\0\0\0\1\0\0\0\5abc"),
        message("D", b"Zx\0"),
        message("C", b""),
        message("E", b"\0\0"),
        message("D", b"S"),
    ],
    ids=[
        "bind",
        "parse",
        "parse-types",
        "bind-formats",
        "bind-values",
        "describe",
        "close",
        "execute",
        "describe-empty",
    ],
)
async def test_w17_a_bad_body_costs_its_scope_only(scene: Scene, bad: bytes, inside: str) -> None:
    a, b = await scene.client(), await scene.client()
    pid = await b.value("select pg_backend_pid()")
    if inside:
        await a.query(inside)
    replies = await a.scope(parse("select 'x'") + bad + execute() + S)
    assert replies.errors == ["08P01"], replies
    assert replies.statuses == ("E" if inside else "I")
    if inside:
        assert (await a.query("rollback")).statuses == "I"
    assert (await a.query("select 'a'")).rows == [("a",)]
    assert await b.value("select pg_backend_pid()") == pid


async def test_w17_counts_are_unsigned(scene: Scene) -> None:
    a = await scene.client()
    sql = "select array_length(array[" + ",".join(f"${i}::text" for i in range(1, 65536)) + "], 1)"
    assert (await a.scope(parse(sql) + bind("", ["x"] * 65535) + execute() + S)).rows == [("65535",)]


async def test_w17_an_origin_that_answers_what_nobody_asked_is_closed(fake_scene: Scene, fake: FakeOrigin) -> None:
    async def twice(session: FakeSession) -> None:
        session.send(
            backend.complete("SELECT 0"), backend.ready(), backend.row_description(["x"]), backend.data_row(["foreign"])
        )

    fake.on("select odd", twice)
    await fake_scene.start(servers=1)
    a, b = await fake_scene.client(), await fake_scene.client()
    a.send(query("select odd"))
    await a.read_until("Z")
    replies = await b.query("select 'b'")
    assert ("foreign",) not in replies.rows
    await eventually(lambda: fake.sessions[0].closed, "the server is closed")


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def test_w18_a_large_bind_is_streamed(scene: Scene) -> None:
    """The value is sent in pieces; were it held whole anywhere here, the peak would grow by its size."""
    if scene.major != 18:
        pytest.skip("one version says it")
    a = await scene.client()
    await a.query("select 1")
    size, piece = 96 << 20, b"x" * (1 << 20)
    head = cstring("") + cstring("") + struct.pack("!hHi", 0, 1, size)
    a.send(
        parse("select length($1::bytea::text), octet_length($1)", oids=[17])[:0]
        + parse("select octet_length($1)", oids=[17])
    )
    head = cstring("") + cstring("") + struct.pack("!HhHi", 1, 1, 1, size)
    a.writer.write(b"B" + struct.pack("!i", 4 + len(head) + size + 2) + head)
    await a.writer.drain()
    before = peak_kib()
    for _ in range(size >> 20):
        a.writer.write(piece)
        await a.writer.drain()
    a.writer.write(struct.pack("!h", 0) + execute() + S)
    a.deadline_seconds = 30
    assert (await a.read_until("Z")).rows == [(str(size),)]
    assert peak_kib() - before < 40 << 10


async def test_w18_a_large_result_is_streamed_to_a_slow_reader(scene: Scene) -> None:
    if scene.major != 18:
        pytest.skip("one version says it")
    a = await scene.client()
    await a.query("select 1")
    before = peak_kib()
    a.writer.write(query("select repeat('x', 1000) from generate_series(1, 100000)"))
    total = 0
    async with asyncio.timeout(40):
        while True:
            chunk = await a.reader.read(1 << 16)
            total += len(chunk)
            if chunk.endswith(b"Z\0\0\0\x05I"):
                break
    assert total > 100_000_000
    assert peak_kib() - before < 40 << 10


async def test_w18_nothing_is_written_between_the_pieces_of_a_message(scene: Scene) -> None:
    """A half-sent message holds the server; another client waits, and a cancel of nobody's does not slip in."""
    a, b = await scene.client(), await scene.client()
    data = parse("select octet_length($1)", oids=[17]) + bind("", [b"y" * 3_000_000], formats=[1]) + execute() + S
    a.writer.write(data[:2_000_000])
    await a.writer.drain()
    b.send(query("select 'b'"))
    a.writer.write(data[2_000_000:])
    assert (await a.read_until("Z")).rows == [("3000000",)]
    assert (await b.read_until("Z")).rows == [("b",)]
