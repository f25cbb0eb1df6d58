"""The scripted origin answers a client as a very simple PostgreSQL would."""

from __future__ import annotations

import pytest

from hyperdrive.testing import backend
from hyperdrive.testing.fake_origin import FakeOrigin, FakeSession
from hyperdrive.testing.frontend import bind, execute, extended, parse, query, sync
from hyperdrive.testing.wire import ConnectionClosed, LoginFailed, connect


async def test_transactions_move_the_status_byte() -> None:
    async with FakeOrigin() as origin, await connect(origin.url) as conn:
        statuses = [(await conn.query(sql)).statuses for sql in ("select 1", "begin", "insert into t", "commit")]
        assert statuses == ["I", "T", "T", "I"]
        assert origin.sessions[0].queries == ["select 1", "begin", "insert into t", "commit"]


async def test_an_error_skips_to_the_sync() -> None:
    async with FakeOrigin() as origin, await connect(origin.url) as conn:
        replies = await conn.scope(
            bind("gone") + execute() + parse("select 1") + sync() + extended("select 2") + sync(), 2
        )
        assert replies.letters == "EZ12TDCZ"


async def test_a_rule_replaces_an_answer() -> None:
    async with FakeOrigin() as origin, await connect(origin.url) as conn:
        origin.on("select odd", backend.complete("ODD"))
        assert (await conn.query("SELECT odd")).tags == ["ODD"]


@pytest.mark.parametrize("after", [0, 3, 30])
async def test_a_rule_may_cut(after: int) -> None:
    async with FakeOrigin() as origin, await connect(origin.url) as conn:
        rows = backend.row_description(["x"]) + backend.data_row(["one"])
        origin.on("cut", lambda session: session.cut(rows, after))
        conn.send(query("select cut"))
        with pytest.raises(ConnectionClosed):
            await conn.read_until("Z")


async def test_a_refusal() -> None:
    async with FakeOrigin() as origin:
        origin.refusal = backend.error("28000", "no", "FATAL")
        with pytest.raises(LoginFailed):
            await connect(origin.url)


async def test_words_out_of_turn() -> None:
    async def chatter(session: FakeSession) -> None:
        session.send(backend.notification(7, "ch", "hello"), backend.complete("SELECT 0"))

    async with FakeOrigin() as origin, await connect(origin.url) as conn:
        origin.on("chatter", chatter)
        assert (await conn.query("chatter")).letters == "ACZ"


async def test_cancels_are_recorded() -> None:
    async with FakeOrigin() as origin, await connect(origin.url) as conn:
        assert await conn.cancel() == b""
        assert origin.cancels == [(conn.pid, conn.secret)]
