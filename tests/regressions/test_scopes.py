"""Batches that a client sends in one piece, where the scope before them is open, failed or a copy; and replies said once."""

from __future__ import annotations

from hyperdrive.testing.frontend import (
    bind,
    close_statement,
    copy_data,
    copy_done,
    describe_portal,
    execute,
    flush,
    parse,
    query,
    sync,
)
from hyperdrive.testing.scene import Scene, eventually
from hyperdrive.testing.transcript import transcript
from hyperdrive.testing.wire import WireConnection

S, H = sync(), flush()
ONE = parse("select 1") + bind() + describe_portal() + execute() + S
SLOW_TRIGGER = """
create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.2); return new; end $$;
create trigger slow before insert on t for each row execute function slow();
"""


async def both(scene: Scene) -> list[WireConnection]:
    """A direct connection and a client, to be told the same."""
    return [await scene.direct(), await scene.client()]


async def same(scene: Scene, *steps: tuple[bytes, int] | bytes) -> list[str]:
    """Say *steps*, each with how many ReadyForQuery to wait for, direct and to the proxy; return what both answered."""
    said = []
    for conn in await both(scene):
        lines = []
        for step in steps:
            data, ready = step if isinstance(step, tuple) else (step, 1)
            lines += transcript(await conn.scope(data, ready))
        said.append(lines)
    assert said[0] == said[1]
    return said[0]


async def test_a_whole_batch_in_a_failed_scope_is_skipped(scene: Scene) -> None:
    for conn in await both(scene):
        conn.send(parse("selec x") + H)
        await conn.read_until("E")
        assert (await conn.scope(ONE)).letters == "Z"
        assert (await conn.query("select 2")).rows == [("2",)]


async def test_a_whole_batch_ends_an_open_scope(scene: Scene) -> None:
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    a.send(parse("select 1") + bind() + execute() + H)
    await a.read_until("C")
    assert (await a.scope(ONE)).letters == "12TDCZ"
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_a_query_in_a_copy_breaks_that_client_only(scene: Scene) -> None:
    await scene.start(servers=1)
    for conn in await both(scene):
        conn.send(query("copy t from stdin"))
        await conn.read_until("G")
        conn.send(query("select 1"))
        last = (await conn.read_to_end())[-1].error
        assert (last["S"], last["C"]) == ("FATAL", "08P01")
    b = await scene.client()
    assert (await b.query("select 'b'")).rows == [("b",)]
    assert scene.proxy.metrics.ledger_mismatches == 0


async def test_a_scope_that_got_no_server_is_over_with_its_sync(scene: Scene) -> None:
    await scene.start(servers=1, query_wait_timeout=0.2)
    a, b = await scene.client(), await scene.client()
    await a.query("begin; select 1")
    b.send(parse("select 1") + bind() + execute() + H)
    assert (await b.read_until("E")).errors == ["53300"]
    assert (await b.scope(ONE)).letters == "Z"
    await a.query("commit")
    assert (await b.query("select 2")).rows == [("2",)]


async def test_a_copy_that_fails_at_once_behind_an_early_sync(scene: Scene) -> None:
    await scene.sql("create view v as select 1 as a")
    await same(scene, parse("copy v from stdin") + bind() + execute() + S, query("select 2"))


async def test_replies_are_not_repeated_when_a_plan_was_outdated(scene: Scene) -> None:
    await scene.sql("create table w (a int); insert into w values (1)")
    a = await scene.client()
    await a.scope(parse("select 'first'", "s1") + parse("select * from w", "s2") + S)
    batch = bind("s1") + execute() + bind("s2") + execute() + S
    assert (await a.scope(batch)).rows == [("first",), ("1",)]
    await scene.sql("alter table w alter a type text")
    replies = await a.scope(batch)
    assert replies.rows.count(("first",)) == 1
    assert replies.errors == ["0A000"] or replies.rows == [("first",), ("1",)]
    assert (await a.query("select 2")).rows == [("2",)]


async def test_replies_are_not_repeated_when_a_statement_was_gone(scene: Scene) -> None:
    await scene.start(servers=1)
    a = await scene.client()
    await a.scope(parse("select 'first'", "s1") + parse("select 'second'", "s2") + S)
    batch = bind("s1") + execute() + bind("s2") + execute() + S
    await a.scope(batch)
    await a.query("do $$ begin execute 'deallocate _hd_2'; end $$")
    replies = await a.scope(batch)
    assert replies.rows.count(("first",)) == 1
    assert replies.errors == ["26000"] or replies.rows == [("first",), ("second",)]


async def test_a_name_whose_parse_was_lost_with_the_server_is_free(scene: Scene) -> None:
    await scene.start(servers=1)
    a = await scene.client()
    pid = await a.value("select pg_backend_pid()")
    a.send(parse("select 1 from pg_sleep(5)", "s0") + bind("s0") + execute() + parse("select 1", "s1") + S)
    await eventually(lambda: scene.is_waiting("PgSleep"))
    await scene.sql(f"select pg_terminate_backend({pid})")
    await a.read_until("Z")
    assert (await a.scope(parse("select 2", "s1") + S)).letters == "1Z"
    assert (await a.scope(bind("s1") + execute() + S)).rows == [("2",)]


async def test_many_answers_of_our_own_in_one_write(scene: Scene) -> None:
    a = await scene.client()
    await a.query("begin; select 1")
    replies = await a.scope(query("deallocate all") * 600, 600)
    assert replies.tags == ["DEALLOCATE ALL"] * 600


async def test_queries_behind_a_copy_that_is_not_over(scene: Scene) -> None:
    await scene.sql(SLOW_TRIGGER)
    for at, conn in enumerate(await both(scene)):
        conn.send(query("copy t from stdin") + copy_data(b"%d\tx\n" % at) + copy_done())
        await eventually(lambda: scene.is_waiting("PgSleep"))
        replies = await conn.scope(query("select 5") + query("select 6"), 3)
        assert replies.letters == "GCZTDCZTDCZ"


async def test_a_close_that_was_skipped_closes_nothing(scene: Scene) -> None:
    await same(
        scene,
        parse("select 1", "s1") + S,
        parse("selec bad") + close_statement("s1") + S,
        bind("s1") + execute() + S,
    )


async def test_a_statement_is_not_pushed_out_by_a_parse_that_was_skipped(scene: Scene) -> None:
    await scene.start(servers=1, max_prepared_statements=2)
    a = await scene.client()
    for number in (1, 2):
        await a.scope(parse(f"select {number}", f"s{number}") + S)
    assert (await a.scope(parse("selec bad") + parse("select 3", "s3") + S)).errors == ["42601"]
    assert (await a.scope(bind("s1") + execute() + S)).rows == [("1",)]
    assert (await a.scope(bind("s2") + execute() + S)).rows == [("2",)]
