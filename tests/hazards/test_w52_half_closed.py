"""W-52: a client that shuts its sending side down and reads on is answered what it is owed, as by PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest

from hyperdrive.testing.frontend import copy_data, execute, extended, flush, parse, query, sync
from hyperdrive.testing.scene import Scene, eventually
from hyperdrive.testing.transcript import Replies
from hyperdrive.testing.wire import WireConnection

S = sync()
INSERT = "insert into t values (1, 'a')"


async def say_and_shut(conn: WireConnection, data: bytes) -> Replies:
    """What *conn* gets for *data* and the end of its stream; parameters that repeat what it knows are no answer."""
    conn.send(data)
    conn.writer.write_eof()
    replies = await conn.read_to_end()
    return Replies([m for m in replies if m.kind != "S"])


OWED = {
    "a query that takes a while": (query("select 'a' from pg_sleep(0.3)"), ["a"], "I"),
    "several scopes": (
        extended("select 'a' from pg_sleep(0.1)") + S + query("select 'b'") + query(""),
        ["a", "b"],
        "III",
    ),
    "answered here": (query("begin") + query("commit") + query(""), [], "TII"),
    "held, then sent": (query("begin") + query(INSERT) + query("select who from t"), ["a"], "TTT"),
    "a large result": (query("select 'x' from generate_series(1, 50000)"), ["x"] * 50_000, "I"),
}


@pytest.mark.parametrize("case", OWED)
async def test_w52_a_half_closed_client_is_answered(scene: Scene, case: str) -> None:
    data, values, statuses = OWED[case]
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    replies = await say_and_shut(a, data)
    assert ([row[0] for row in replies.rows], replies.statuses) == (values, statuses)
    assert (await b.query("select count(*) from t")).rows == [("0",)]
    await eventually(lambda: len(scene.proxy.app.proxy.clients) == 1, "only b is left")


async def test_w52_a_half_closed_client_keeps_its_place_in_the_queue(scene: Scene) -> None:
    await scene.start(servers=1)
    a, b, c = await scene.client(), await scene.client(), await scene.client()
    await a.query("begin; select 1")
    waiting = asyncio.ensure_future(say_and_shut(b, query("insert into t values (1, 'b') returning who")))
    await eventually(lambda: sum(pool.waiting for pool in scene.proxy.pools) == 1, "b waits")
    c.send(query("select who from t"))
    await a.query("commit")
    assert (await waiting).rows == [("b",)]
    assert (await c.read_until("Z")).rows == [("b",)]


async def test_w52_a_client_that_is_gone_leaves_the_queue(scene: Scene) -> None:
    """Its end of stream looks like that of the half-closed one, until something is sent to it."""
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    await a.query("begin; select 1")
    b.send(query(INSERT))
    await eventually(lambda: sum(pool.waiting for pool in scene.proxy.pools) == 1, "b waits")
    await b.close()
    await eventually(lambda: sum(pool.waiting for pool in scene.proxy.pools) == 0, "b is forgotten")
    await a.query("commit")
    assert await scene.ask("select count(*) from t") == "0"


UNFINISHED = {
    "open scope": parse(INSERT) + flush(),
    "open scope that wrote": extended(INSERT) + flush(),
    "open scope, nothing flushed": extended(INSERT),
    "copy in": query("copy t from stdin") + copy_data(b"1\ta\n"),
    "copy in, late": query("select pg_sleep(0.1)") + query("copy t from stdin"),
    "suspended portal": extended("select generate_series(1, 9)", limit=2) + flush() + execute("", 1) + flush(),
    "half a message": query("select 'a'") + query(INSERT)[:9],
}


@pytest.mark.parametrize("case", UNFINISHED)
async def test_w52_what_a_half_closed_client_did_not_finish_is_undone(scene: Scene, case: str) -> None:
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    await say_and_shut(a, UNFINISHED[case])
    assert (await b.query("select count(*) from t")).rows == [("0",)]
    assert scene.proxy.metrics.ledger_mismatches == 0
