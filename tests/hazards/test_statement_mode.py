"""Statement pooling: a server for each statement, and no transaction that would need one for longer."""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import bind, execute, extended, parse, query, sync
from hyperdrive.testing.scene import Scene

S = sync()
INSERT = "insert into t values (1, 'a')"


async def test_statements_of_two_clients_take_turns(scene: Scene) -> None:
    await scene.start(servers=1, pool_mode="statement")
    a, b = await scene.client(), await scene.client()
    await a.scope(parse("select $1::text", "s") + S)
    await a.query("set work_mem = '3MB'")
    for n in range(3):
        assert (await a.scope(bind("s", [str(n)]) + execute() + S)).rows == [(str(n),)]
        assert (await b.query(f"insert into t values ({n}, 'b')")).tags == ["INSERT 0 1"]
    assert await a.value("show work_mem") == "3MB"
    assert await b.value("show work_mem") == "4MB"


@pytest.mark.parametrize(
    "data",
    [
        query("begin"),
        query(f"begin; {INSERT}"),
        query("begin") + query(INSERT),
        extended("begin") + S,
        parse("begin", "b") + bind("b") + execute() + S,
        extended("begin") + extended(INSERT) + S,
    ],
    ids=["begin", "in one text", "pipelined", "extended", "prepared", "in one scope"],
)
async def test_a_transaction_is_refused_and_undone(scene: Scene, data: bytes) -> None:
    await scene.start(servers=1, pool_mode="statement")
    a, b = await scene.client(), await scene.client()
    a.send(data)
    replies = await a.read_to_end()
    assert replies.errors[-1:] == ["08P01"]
    assert "statement pooling" in replies[-1].error["M"]
    assert (await b.query("select count(*) from t")).rows == [("0",)]


@pytest.mark.parametrize(
    ("data", "ready"),
    [
        (query(f"begin; {INSERT}; commit"), 1),
        (query("begin") + query(INSERT) + query("commit"), 3),
        (extended("begin") + S + extended(INSERT) + S + extended("commit") + S, 3),
    ],
    ids=["in one text", "queries", "extended"],
)
async def test_a_transaction_in_one_write_is_one_statement_to_us(scene: Scene, data: bytes, ready: int) -> None:
    """It holds the server no longer than its one flight; docs/transaction-pooling.md says so."""
    await scene.start(servers=1, pool_mode="statement")
    a, b = await scene.client(), await scene.client()
    replies = await a.scope(data, ready)
    assert replies.errors == []
    assert replies[-1].body == b"I"
    assert (await b.query("select who from t")).rows == [("a",)]
