"""W-30 … W-32: COPY, and messages that come too early or too late."""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import (
    bind,
    copy_data,
    copy_done,
    copy_fail,
    execute,
    flush,
    parse,
    query,
    sync,
)
from hyperdrive.testing.scene import Scene

S = sync()
COPY_IN = "copy t from stdin"
EXTENDED_IN = parse(COPY_IN) + bind() + execute()


async def test_w30_sync_and_flush_during_a_copy_count_for_nothing(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    a.send(EXTENDED_IN + S)
    await a.read_until("G")
    b.send(query("select 'b'"))
    a.send(S + copy_data(b"1\ta\n") + flush() + S + copy_data(b"2\ta\n") + copy_done())
    assert await b.is_silent(0.1), "the server was lent before the scope's end"
    assert (await a.scope(S)).letters == "CZ"
    assert (await b.read_until("Z")).rows == [("b",)]
    assert await scene.ask("select count(*) from t") == "2"


async def test_w30_a_pipelined_sync_in_one_write(scene: Scene) -> None:
    """As drivers do: the Sync behind Execute is swallowed by the copy, the one behind CopyDone ends the scope."""
    a, b = await scene.client(), await scene.client()
    replies = await a.scope(EXTENDED_IN + S + copy_data(b"1\ta\n") + copy_done() + S + query("select 'a'"), 2)
    assert replies.letters == "12GCZTDCZ"
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_w30_another_message_in_a_copy_ends_the_connection_and_nobody_elses(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    a.send(query(COPY_IN))
    await a.read_until("G")
    a.send(parse("select 1"))
    replies = await a.read_to_end()
    assert replies.errors[:1] == ["08P01"]
    assert (await b.query("select 'b'")).rows == [("b",)]
    assert await scene.ask("select count(*) from t") == "0"


@pytest.mark.parametrize("shape", ["simple", "extended"])
async def test_w31_rows_that_come_after_the_error_reach_nobody(scene: Scene, shape: str) -> None:
    a, b = await scene.client(), await scene.client()
    a.send(query(COPY_IN) if shape == "simple" else EXTENDED_IN + S)
    await a.read_until("G")
    a.send(copy_data(b"not a number\n" + b"x" * 100_000))
    replies = await a.read_until("Z" if shape == "simple" else "E")
    assert replies.errors == ["22P02"]
    late = copy_data(b"9\tlate\n") * 50 + copy_done()
    if shape == "simple":
        assert (await b.query("select 'b'")).rows == [("b",)]
        a.send(late)
        assert (await b.query("select 'b'")).rows == [("b",)]
        assert (await a.query("select 'a'")).rows == [("a",)]
    else:
        assert (await a.scope(late + S)).letters == "Z"
        assert (await b.query("select 'b'")).rows == [("b",)]
    assert await scene.ask("select count(*) from t") == "0"


async def test_w31_stray_copy_messages_are_dropped(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    a.send(copy_data(b"x" * 1000) + copy_done() + copy_fail())
    assert (await b.query("select 'b'")).rows == [("b",)]
    assert (await a.query("select 'a'")).letters == "TDCZ"


@pytest.mark.parametrize("shape", ["simple", "extended"])
async def test_w32_copy_fail(scene: Scene, shape: str) -> None:
    a, b = await scene.client(), await scene.client()
    a.send(query(COPY_IN) if shape == "simple" else EXTENDED_IN + flush())
    await a.read_until("G")
    a.send(copy_data(b"1\ta\n") + copy_fail("no more"))
    if shape == "extended":
        assert (await a.receive()).error["C"] == "57014"
        a.send(S)
        assert (await a.receive()).kind == "Z"
    else:
        assert (await a.read_until("Z")).errors == ["57014"]
    assert (await b.query("select count(*) from t")).rows == [("0",)]


async def test_w32_copy_in_a_list_goes_on_behind_it(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    a.send(query("copy t from stdin; select 'after'; copy t to stdout"))
    await a.read_until("G")
    b.send(query("select 'b'"))
    replies = await a.scope(copy_data(b"1\ta\n") + copy_done())
    assert replies.rows == [("after",)]
    assert [m.body for m in replies.of("d")] == [b"1\ta\n"]
    assert (await b.read_until("Z")).rows == [("b",)]


async def test_w32_a_client_that_stops_reading_copy_out_costs_nobody(scene: Scene) -> None:
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    a.send(query("copy (select repeat('x', 1000) from generate_series(1, 20000)) to stdout"))
    await a.read_until("H")
    a.abort()
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_w32_copy_is_known_by_its_reply_and_not_by_its_text(scene: Scene) -> None:
    """A function's name or a comment may say copy; a copy may hide behind a comment."""
    a = await scene.client()
    assert (await a.query("select 'copy t from stdin'")).letters == "TDCZ"
    a.send(query("/* select */ copy\tt from stdin"))
    await a.read_until("G")
    assert (await a.scope(copy_data(b"1\ta\n") + copy_done())).tags == ["COPY 1"]
