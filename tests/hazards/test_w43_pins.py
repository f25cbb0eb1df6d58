"""W-43 … W-49: what truly needs a session, and how a pin ends. Pools of two, so that others have a place."""

from __future__ import annotations

import struct
import subprocess

import pytest

from hyperdrive.testing.frontend import extended, function_call, query, sync
from hyperdrive.testing.scene import Scene, eventually
from hyperdrive.testing.wire import WireConnection

S = sync()
PID = "select pg_backend_pid()"


async def crowd(scene: Scene, conn: WireConnection, turns: int = 3) -> set[str]:
    """Which servers *others* get while *conn* is idle."""
    found = set()
    for _ in range(turns):
        async with await scene.client() as other:
            found.add(str(await other.value(PID)))
    return found


PINS = [
    pytest.param("listen ch", "unlisten ch", "select count(*) from pg_listening_channels()", "1", id="listen"),
    pytest.param("create temp table own (a int)", "drop table own", "select count(*) from own", "0", id="temp-table"),
    pytest.param("create temporary sequence own", "discard temp", "select nextval('own') > 0", "t", id="temp-sequence"),
    pytest.param(
        "select 1 as a into temp own", "drop table own", "select count(*) from own", "1", id="select-into-temp"
    ),
    pytest.param("create table pg_temp.own (a int)", "discard temp", "select count(*) from own", "0", id="pg_temp"),
    pytest.param("create temp view own as select 7 as a", "discard all", "select a from own", "7", id="temp-view"),
    pytest.param(
        "select pg_advisory_lock(7)",
        "select pg_advisory_unlock(7)",
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
        "1",
        id="advisory-lock",
    ),
    pytest.param(
        "select pg_catalog.pg_try_advisory_lock_shared(7, 8)",
        "select pg_advisory_unlock_all()",
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
        "1",
        id="advisory-lock-qualified",
    ),
    pytest.param("prepare p as select 7", "deallocate p", "execute p", "7", id="prepare"),
    pytest.param("declare h cursor with hold for select 7", "close h", "fetch absolute 1 from h", "7", id="hold"),
    pytest.param(
        "declare h scroll cursor with hold for select 7", "close all", "fetch first from h", "7", id="hold-close-all"
    ),
]


@pytest.mark.parametrize(("begin", "end", "use", "expected"), PINS)
async def test_w43_a_pin_keeps_its_server_and_ends(scene: Scene, begin: str, end: str, use: str, expected: str) -> None:
    await scene.start(servers=2)
    a = await scene.client()
    assert (await a.query(begin)).errors == []
    mine = str(await a.value(PID))
    assert mine not in await crowd(scene, a)
    assert await a.value(use) == expected
    assert str(await a.value(PID)) == mine
    assert (await a.query(end)).errors == []
    # Unpinned: with both places taken by transactions, the server that was pinned must be one of them.
    b, c = await scene.client(), await scene.client()
    for conn in (b, c):
        assert (await conn.query("begin; select 1")).errors == []
    assert mine in {await b.value(PID), await c.value(PID)}


@pytest.mark.parametrize(("begin", "end", "use", "expected"), PINS)
async def test_w43_a_pinned_client_that_leaves_leaves_nothing_behind(
    scene: Scene, begin: str, end: str, use: str, expected: str
) -> None:
    await scene.start(servers=1)
    a = await scene.client()
    await a.query(begin)
    await a.close()
    b = await scene.client()
    replies = await b.query(use)
    assert replies.errors or replies.rows == [("0",)], replies
    held = "select count(*) from pg_locks where locktype = 'advisory' and objid in (7, 8)"
    assert await scene.ask(held) == "0"
    assert await b.value("select count(*) from pg_listening_channels()") == "0"


async def test_w43_a_pin_that_is_rolled_back_is_none(scene: Scene) -> None:
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    for sql in ("listen ch", "create temp table own (a int)", "declare h cursor with hold for select 1"):
        await a.query("begin")
        await a.query(sql)
        await a.query("rollback")
        assert (await b.query("select 'b'")).rows == [("b",)]
    await a.query("begin; create temp table own (a int) on commit drop")
    await a.query("commit")
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_w43_discard_all_ends_every_pin(scene: Scene) -> None:
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    await a.query("listen ch; prepare p as select 1; create temp table own (a int); select pg_advisory_lock(7)")
    assert (await a.query("discard all")).tags == ["DISCARD ALL"]
    assert (await b.query("select 'b'")).rows == [("b",)]
    assert await b.value("select count(*) from pg_listening_channels()") == "0"
    assert await scene.ask("select count(*) from pg_locks where locktype = 'advisory' and objid = 7") == "0"


async def test_w43_advisory_locks_are_counted(scene: Scene) -> None:
    await scene.start(servers=2)
    a = await scene.client()
    await a.query("select pg_advisory_lock(7)")
    await a.query("select pg_advisory_lock(7)")
    mine = str(await a.value(PID))
    await a.query("select pg_advisory_unlock(7)")
    assert mine not in await crowd(scene, a), "one of the two locks is still held"
    assert await a.value("select pg_advisory_unlock(7)") == "t"


async def test_w43_locks_of_a_transaction_do_not_pin(scene: Scene) -> None:
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    await a.query("begin")
    await a.query("select pg_advisory_xact_lock(7)")
    await a.query("commit")
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_w43_notify_reaches_a_listener_that_does_nothing(scene: Scene) -> None:
    await scene.start(servers=2)
    a, b = await scene.client(), await scene.client()
    await a.query("listen ch")
    await b.query("notify ch, 'from b'")
    got = await a.receive()
    assert (got.kind, got.body[4:]) == ("A", b"ch\0from b\0")
    # In a transaction it waits for the end, and comes before ReadyForQuery.
    await a.query("begin")
    await b.query("notify ch, 'second'")
    assert (await a.query("select 1")).letters == "TDCZ"
    assert (await a.query("commit")).letters in ("CAZ", "CZ")


async def test_w44_currval_never_reads_another_clients_value(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    await a.query("select nextval('s')")
    for sql in ("select currval('s')", "select lastval()", "select pg_catalog.lastval()"):
        replies = await b.query(sql)
        assert (replies.rows, replies.errors[:1]) in (([], ["0A000"]), ([], ["55000"])), replies
        assert (await b.scope(extended(sql) + S)).rows == []


async def test_w44_currval_works_in_the_transaction_that_wrote(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    await b.query("select nextval('s') from generate_series(1, 5)")
    await a.query("begin")
    value = await a.value("select nextval('s')")
    assert await a.value("select currval('s')") == value
    assert await a.value("select lastval()") == value
    await a.query("commit")


async def test_w45_a_read_only_transaction_may_still_do_things(scene: Scene) -> None:
    await scene.start(servers=2)
    a, b = await scene.client(), await scene.client()
    await b.query("listen ch")
    await a.query("begin read only")
    await a.query("notify ch, 'x'")
    assert (await a.query("commit")).tags == ["COMMIT"]
    assert (await b.receive()).kind == "A"


async def test_w46_two_phase_commit_on_any_server(scene: Scene) -> None:
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    await a.query("begin")
    await a.query("insert into t values (1, 'a')")
    assert (await a.query("prepare transaction 'hazard'")).statuses == "I"
    assert (await b.query("select count(*) from t")).rows == [("0",)]
    assert (await b.query("commit prepared 'hazard'")).tags == ["COMMIT PREPARED"]
    assert (await a.query("select count(*) from t")).rows == [("1",)]


async def test_w46_prepare_transaction_of_a_failed_one(scene: Scene) -> None:
    a, direct = await scene.client(), await scene.direct()
    heard = []
    for conn in (direct, a):
        await conn.query("begin")
        await conn.query("select 1/0")
        replies = await conn.query("prepare transaction 'never'")
        heard.append((replies.tags, replies.errors, replies.statuses))
        await conn.query("rollback")
    assert heard[0] == heard[1]


async def test_w47_function_calls(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    minus_three = function_call(1397, [struct.pack("!i", -3)])
    assert (await a.scope(minus_three)).letters == "VZ"
    assert (await a.scope(function_call(1, []))).letters == "EZ"
    assert (await b.query("select 'b'")).rows == [("b",)]
    await a.query("begin")
    replies = await a.scope(minus_three + query("select 1") + minus_three, 3)
    assert (replies.letters, replies.statuses) == ("VZTDCZVZ", "TTT")
    await a.query("commit")
    assert (await b.query("select 'b'")).rows == [("b",)]


async def test_w48_replication_has_a_server_of_its_own(scene: Scene) -> None:
    await scene.start(servers=1)
    b = await scene.client()
    await b.query("begin; select 1")
    a = await scene.client(replication="database")
    assert (await a.query("IDENTIFY_SYSTEM")).letters == "TDCZ"
    assert (await a.query("select 'sql, too'")).rows == [("sql, too",)]
    a.send(query('CREATE_REPLICATION_SLOT "hazard" TEMPORARY LOGICAL "pgoutput" (SNAPSHOT \'nothing\')'))
    assert (await a.read_until("Z")).errors == []
    a.send(query("START_REPLICATION SLOT hazard LOGICAL 0/0 (proto_version '1', publication_names 'none')"))
    assert (await a.receive()).kind == "W"
    await a.close()
    assert (await b.query("commit")).tags == ["COMMIT"]
    assert (await b.query("select 'b'")).rows == [("b",)]
    await eventually(lambda: _no_slot(scene), "the slot ends with its connection")


async def _no_slot(scene: Scene) -> bool:
    return await scene.ask("select count(*) from pg_replication_slots where slot_name = 'hazard'") == "0"


async def test_w48_pg_receivewal_through_us(scene: Scene, request: pytest.FixtureRequest, tmp_path: object) -> None:
    import asyncio

    server = request.getfixturevalue(f"pg{scene.major}")
    proxy = await scene.start()
    end = await scene.ask("select pg_switch_wal()")
    program = await asyncio.create_subprocess_exec(
        str(server.program("pg_receivewal")),
        "-D",
        str(tmp_path),
        "-d",
        proxy.url,
        "--no-loop",
        "--endpos",
        str(end),
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(15):
            _, said = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    assert program.returncode == 0, said


async def test_w49_exported_snapshots(scene: Scene) -> None:
    await scene.start(servers=2)
    a, b = await scene.client(), await scene.client()
    await a.query("begin isolation level repeatable read")
    name = await a.value("select pg_export_snapshot()")
    await scene.sql("insert into t values (1, 'later')")
    await b.query("begin isolation level repeatable read")
    assert (await b.query(f"set transaction snapshot '{name}'")).errors == []
    assert await b.value("select count(*) from t") == "0"
    await b.query("commit")
    assert (await a.query("commit")).tags == ["COMMIT"]
    await b.query("begin isolation level repeatable read")
    assert (await b.query(f"set transaction snapshot '{name}'")).errors
    await b.query("rollback")
