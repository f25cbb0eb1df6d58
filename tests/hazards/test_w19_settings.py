"""W-19: literals are converted, and texts read, under the settings at Parse; a Parse that is made later changes nothing of that.

PostgreSQL reads a text once. Names in it are looked up anew under the current ``search_path`` (plancache.c), the rest stays as it was
read: the same statement on another server must mean the same, and no other client may get one that was read under other settings.
"""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import bind, describe_statement, execute, parse, query, sync
from hyperdrive.testing.scene import Scene
from hyperdrive.testing.wire import WireConnection

S = sync()
PID = "select pg_backend_pid()"

SETTINGS = {
    "DateStyle": ("set datestyle = 'ISO, DMY'", "set datestyle = 'ISO, MDY'", b"select '01/02/2020'::date"),
    "TimeZone": (
        "set timezone = 'Asia/Tokyo'",
        "set timezone = 'UTC'",
        b"select '2020-01-01 00:00'::timestamptz at time zone 'UTC'",
    ),
    "IntervalStyle": (
        "set intervalstyle = 'sql_standard'",
        "set intervalstyle = 'postgres'",
        b"select extract(epoch from '-1 2:00:00'::interval)",
    ),
    "standard_conforming_strings": (
        "set standard_conforming_strings = off",
        "set standard_conforming_strings = on",
        b"select length('a\\\\b')",
    ),
    "client_encoding": ("set client_encoding = 'LATIN1'", "set client_encoding = 'UTF8'", b"select ascii('\xe9')"),
    "transform_null_equals": (
        "set transform_null_equals = on",
        "set transform_null_equals = off",
        b"select ($1::int = null) is null",
    ),
}


def _bind(name: str, sql: bytes) -> bytes:
    return bind(name, ["1"] if b"$1" in sql else []) + execute()


async def _conversation(conn: WireConnection, old: str, new: str, sql: bytes, *, then: str = "") -> list[str | None]:
    """Parse under *old*, run under *new*, on whatever server that is."""
    await conn.query(old)
    assert (await conn.scope(parse(sql, "s") + S)).errors == []
    await conn.query(new)
    if then:
        await conn.query(then)
    replies = await conn.scope(_bind("s", sql) + S)
    assert replies.errors == [], replies
    return [row[0] for row in replies.rows]


@pytest.mark.parametrize("in_transaction", [False, True])
@pytest.mark.parametrize("setting", SETTINGS)
async def test_w19_a_statement_means_the_same_on_another_server(
    scene: Scene, setting: str, in_transaction: bool
) -> None:
    old, new, sql = SETTINGS[setting]
    direct = await scene.direct()
    expected = await _conversation(direct, old, new, sql)
    await scene.start(servers=2)
    a, holder = await scene.client(), await scene.client()
    await a.query(old)
    assert (await a.scope(parse(sql, "s") + S)).errors == []
    assert [row[0] for row in (await a.scope(_bind("s", sql) + S)).rows] == expected
    await a.query(new)
    first = await a.value(PID)
    await holder.query("begin")
    assert await holder.value(PID) == first
    if in_transaction:
        await a.query("begin")
        assert await a.value(PID) != first
    replies = await a.scope(_bind("s", sql) + S)
    assert (replies.errors, [row[0] for row in replies.rows]) == ([], expected)
    assert await a.value(PID) != first
    shows = f"select current_setting('{setting}')"
    assert await a.value(shows) == await direct.value(shows)


@pytest.mark.parametrize("setting", SETTINGS)
async def test_w19_nobody_gets_a_statement_that_was_read_under_other_settings(scene: Scene, setting: str) -> None:
    """The one client has moved on, the other begins where it began."""
    old, new, sql = SETTINGS[setting]
    direct = await scene.direct()
    expected = await _conversation(direct, old, new, sql)
    await scene.start(servers=2)
    a, b, holder = await scene.client(), await scene.client(), await scene.client()
    await a.query(old)
    await a.scope(parse(sql, "s") + S + _bind("s", sql) + S, 2)
    await a.query(new)
    await holder.query("begin")
    await holder.query("select 1")
    await a.scope(_bind("s", sql) + S)
    await b.query(old)
    await b.scope(parse(sql, "s") + S)
    replies = await b.scope(_bind("s", sql) + S)
    assert (replies.errors, [row[0] for row in replies.rows]) == ([], expected)


@pytest.mark.parametrize("how", ["set local", "set_config"])
async def test_w19_what_was_read_under_set_local_is_the_clients_own(scene: Scene, how: str) -> None:
    sql = b"select '01/02/2020'::date"
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    await a.query("begin")
    await a.query("select 1")
    if how == "set local":
        await a.query("set local datestyle = 'ISO, DMY'")
    else:
        await a.query("select set_config('datestyle', 'ISO, DMY', true)")
    await a.scope(parse(sql, "s") + S)
    assert (await a.scope(_bind("s", sql) + S)).rows == [("2020-02-01",)]
    await a.query("commit")
    await b.scope(parse(sql, "s") + S)
    assert (await b.scope(_bind("s", sql) + S)).rows == [("2020-01-02",)]
    assert (await a.scope(_bind("s", sql) + S)).rows == [("2020-02-01",)]


async def test_w19_a_set_in_the_same_write_as_the_parse(scene: Scene) -> None:
    """The Parse is read under what the SET says, whatever we believed when both came."""
    sql = b"select '01/02/2020'::date"
    await scene.start(servers=1, local_settings=False)
    a, b = await scene.client(), await scene.client()
    await a.scope(query("set datestyle = 'ISO, DMY'") + parse(sql, "s") + S + _bind("s", sql) + S, 3)
    await b.scope(parse(sql, "s") + S)
    assert (await b.scope(_bind("s", sql) + S)).rows == [("2020-01-02",)]


async def test_w19_a_result_that_changed_meanwhile_is_noticed(scene: Scene) -> None:
    """Read again under old settings, the statement has another result than its client was told (W-26)."""
    await scene.sql("create table w (v int); insert into w values (1)")
    await scene.start(servers=2)
    a, holder = await scene.client(), await scene.client()
    await a.query("set datestyle = 'ISO, DMY'")
    await a.scope(parse("select v, '01/02/2020'::date from w", "s") + describe_statement("s") + S)
    await a.scope(bind("s") + execute() + S)
    await a.query("set datestyle = 'ISO, MDY'")
    await a.value(PID)
    await holder.query("begin")
    await holder.value(PID)
    await scene.sql("alter table w alter v type text using 'x'")
    replies = await a.scope(bind("s") + execute() + S)
    assert replies.errors == ["0A000"] or replies[-1].error["C"] == "0A000", replies


async def test_w19_a_statement_whose_table_is_gone_is_an_error_once(scene: Scene) -> None:
    await scene.sql("create table w (v int)")
    await scene.start(servers=2)
    a, holder = await scene.client(), await scene.client()
    await a.query("set datestyle = 'ISO, DMY'")
    await a.scope(parse("select v, '01/02/2020'::date from w", "s") + S)
    await a.query("set datestyle = 'ISO, MDY'")
    await a.value(PID)
    await holder.query("begin")
    await holder.value(PID)
    await scene.sql("drop table w")
    for _ in range(2):
        assert (await a.scope(bind("s") + execute() + S)).letters == "EZ"
    assert (await a.query("select 1")).rows == [("1",)]
