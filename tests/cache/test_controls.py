"""``hyperdrive.*``: what a session sets and is shown, without a round trip, in both protocols and whatever state it is in."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import pytest

from hyperdrive import __version__
from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import (
    PROTOCOL_3_0,
    bind,
    close_statement,
    describe_portal,
    describe_statement,
    execute,
    flush,
    parse,
    query,
    sync,
)
from hyperdrive.testing.wire import LoginFailed, WireConnection

READ = "select v from t where id = 1"


def both(sql: str) -> Sequence[object]:
    return [
        pytest.param(query(sql), id=f"simple {sql}"),
        pytest.param(parse(sql) + bind() + describe_portal() + execute() + sync(), id=f"extended {sql}"),
    ]


async def shown(conn: WireConnection, name: str) -> str | None:
    return await conn.value(f"show {name}")


async def round_trips(scene: CachedScene) -> int:
    return sum(one.origin_round_trips for one in scene.proxy.app.proxy.stats.values())


async def test_last_read_says_how(scene: CachedScene) -> None:
    conn = await scene.client()
    await conn.query(READ)
    assert "miss rule=no-entry" == await shown(conn, "hyperdrive.last_read")
    await conn.query(READ)
    scene.clock.advance(1.5)
    await conn.query(READ)
    assert str(await shown(conn, "hyperdrive.last_read")).startswith("hit age=1.5")
    await conn.query("select now()")
    assert "bypass rule=function object=now()" == await shown(conn, "hyperdrive.last_read")


@pytest.mark.parametrize("scope", both("show hyperdrive.version"))
async def test_shows_are_answered_here(scene: CachedScene, scope: bytes) -> None:
    conn = await scene.client()
    before = await round_trips(scene)
    replies = await conn.scope(scope)
    assert [(__version__,)] == replies.rows
    assert "hyperdrive.version" in str(replies)
    assert ["SHOW"] == replies.tags
    assert before == await round_trips(scene)


@pytest.mark.parametrize("scope", both("set hyperdrive.cache = off"))
async def test_the_cache_can_be_switched_off_for_a_session(scene: CachedScene, scope: bytes) -> None:
    conn, other = await scene.client(), await scene.client()
    before = await round_trips(scene)
    assert ["SET"] == (await conn.scope(scope)).tags
    assert before == await round_trips(scene)
    assert "off" == await shown(conn, "hyperdrive.cache")
    assert "off" == (await scene.ask_twice(conn, READ))[0]
    assert "hit" == (await scene.ask_twice(other, READ))[0]
    await conn.query("reset hyperdrive.cache")
    await conn.query(READ)
    assert "hit" == scene.how(conn)


async def test_a_session_can_bound_staleness(scene: CachedScene) -> None:
    """§1: a read that cannot meet it goes to the origin; 0 always does."""
    conn = await scene.client()
    await conn.query(READ)
    await conn.query("set hyperdrive.max_staleness = '2s'")
    scene.clock.advance(1)
    await conn.query(READ)
    assert "hit" == scene.how(conn)
    scene.clock.advance(2)
    await conn.query(READ)
    assert "miss" == scene.how(conn)
    await conn.query("set hyperdrive.max_staleness = 0")
    for _ in range(3):
        await conn.query(READ)
        assert "expired" == scene.how(conn)
    await conn.query("set hyperdrive.max_staleness to default")
    await conn.query(READ)
    assert "hit" == scene.how(conn)


async def test_a_session_can_have_a_max_age_of_its_own(scene: CachedScene) -> None:
    conn, other = await scene.client(), await scene.client()
    await conn.query("set hyperdrive.max_age = 5")
    await conn.query("set hyperdrive.stale_while_revalidate = 0")
    await conn.query(READ)
    scene.clock.advance(6)
    await other.query(READ)
    assert "hit" == scene.how(other) or "miss" == scene.how(other)
    await conn.query(READ)
    scene.clock.advance(6)
    await conn.query(READ)
    assert "miss" == scene.how(conn)


async def test_settings_come_with_the_start_up_too(scene: CachedScene) -> None:
    await scene.client()
    by_name = await scene.client(PROTOCOL_3_0, **{"hyperdrive.cache": "off"})
    by_options = await scene.client(options="-c hyperdrive.max_staleness=5s")
    assert "off" == (await scene.ask_twice(by_name, READ))[0]
    assert "5s" == await shown(by_options, "hyperdrive.max_staleness")
    await by_options.query("set hyperdrive.max_staleness = 1")
    await by_options.query("reset all")
    assert "5s" == await shown(by_options, "hyperdrive.max_staleness")
    with pytest.raises(LoginFailed, match="invalid value for parameter"):
        await scene.client(PROTOCOL_3_0, **{"hyperdrive.cache": "perhaps"})


ERRORS = [
    ("set hyperdrive.cache = perhaps", "22023"),
    ("set hyperdrive.max_staleness = 'soon'", "22023"),
    ("set hyperdrive.nothing = 1", "42704"),
    ("show hyperdrive.nothing", "42704"),
    ("set hyperdrive.version = '9'", "55P02"),
    ("set hyperdrive.token = 'hd1:1:1:1:a:1'", "55P02"),
    ("set hyperdrive.min_token = 'yesterday'", "22023"),
]


@pytest.mark.parametrize(("sql", "sqlstate"), ERRORS)
async def test_what_makes_no_sense_is_an_error(scene: CachedScene, sql: str, sqlstate: str) -> None:
    conn = await scene.client()
    assert [sqlstate] == (await conn.query(sql)).errors
    extended = await conn.scope(parse(sql) + bind() + execute() + sync())
    assert ([sqlstate], "I") == (extended.errors, extended.statuses)


async def test_none_of_them_reaches_the_origin(scene: CachedScene) -> None:
    await scene.start(servers=1)
    conn, other = await scene.client(), await scene.client()
    await conn.query("set hyperdrive.cache = off")
    assert [("",)] == (await conn.query("select coalesce(current_setting('hyperdrive.cache', true), '')")).rows
    await other.query(READ)
    assert [("",)] == (await other.query("select coalesce(current_setting('hyperdrive.cache', true), '')")).rows


@pytest.mark.parametrize("begin", ["begin", "begin; select 1"])
async def test_a_rollback_undoes_them(scene: CachedScene, begin: str) -> None:
    """In a transaction that no server knows of, and in one that a server has."""
    conn = await scene.client()
    for sql in begin.split("; "):
        await conn.query(sql)
    replies = await conn.query("set hyperdrive.cache = off")
    assert (["SET"], "T") == (replies.tags, replies.statuses)
    assert "off" == await shown(conn, "hyperdrive.cache")
    await conn.query("rollback")
    assert "on" == await shown(conn, "hyperdrive.cache")
    for sql in begin.split("; "):
        await conn.query(sql)
    await conn.query("set hyperdrive.cache = off")
    await conn.query("commit")
    assert "off" == await shown(conn, "hyperdrive.cache")


async def test_they_can_be_shown_inside_a_transaction(scene: CachedScene) -> None:
    conn = await scene.client()
    await conn.query("begin")
    await conn.query("update t set v = 'x' where id = 1")
    replies = await conn.query("show hyperdrive.last_read")
    assert (1, "T") == (len(replies.rows), replies.statuses)
    extended = await conn.scope(parse("show hyperdrive.cache") + bind() + describe_portal() + execute() + sync())
    assert ([("on",)], "12TDCZ") == (extended.rows, extended.letters)
    await conn.query("rollback")


async def test_discard_all_and_drivers_resets_undo_them(scene: CachedScene) -> None:
    conn = await scene.client()
    for reset in ("discard all", "reset all"):
        await conn.query("set hyperdrive.cache = off")
        await conn.query(reset)
        assert "on" == await shown(conn, "hyperdrive.cache")


async def test_without_a_cache_they_are_answered_as_well(scene: CachedScene) -> None:
    await scene.start(cache="off")
    conn = await super(CachedScene, scene).client()
    await conn.query("set hyperdrive.cache = on")
    assert "bypass rule=off" == await shown(conn, "hyperdrive.last_read")


SEVERAL_SCOPES = [
    (
        [parse("show hyperdrive.version", "mine") + describe_statement("mine") + sync(), bind("mine") + execute() + sync()],
        ["1tTZ", "2DCZ"],
    ),
    (
        [parse("show hyperdrive.version", "mine") + describe_statement("mine") + flush(), bind("mine") + execute("", 1) + sync()],
        ["1tT", "2DsZ"],
    ),
    (
        [parse("show hyperdrive.version", "mine") + sync(), bind("mine", result_formats=[1]) + describe_portal() + execute() + sync()],
        ["1Z", "2TDCZ"],
    ),
    (
        [parse("show hyperdrive.version") + describe_statement() + sync(), bind() + execute() + sync()],
        ["1tTZ", "2DCZ"],
    ),
    (
        [parse("show hyperdrive.version", "mine") + bind("mine") + describe_portal() + execute() + sync()],
        ["12TDCZ"],
    ),
    (
        [parse("set hyperdrive.cache = off", "mine") + describe_statement("mine") + sync(), bind("mine") + execute() + sync()],
        ["1tnZ", "2CZ"],
    ),
]  # fmt: skip


@pytest.mark.parametrize("begin", [None, "begin", "begin; select 1"], ids=["idle", "held", "live"])
async def test_prepared_statements_about_them_are_answered_here(scene: CachedScene, begin: str | None) -> None:
    """asyncpg, pgx and others prepare whatever they run; the origin could describe no such setting."""
    conn = await scene.client()
    for sql in (begin or "").split("; "):
        await conn.query(sql)
    for scopes, letters in SEVERAL_SCOPES:
        before = await round_trips(scene)
        for scope, expected in zip(scopes, letters, strict=True):
            conn.send(scope)
            replies = await conn.read_until(expected[-1])
            assert expected == replies.letters
        if "D" in letters[-1]:
            assert [(__version__,)] == replies.rows
        if b"mine" in scopes[0]:
            assert [] == (await conn.scope(bind("mine") + execute() + sync())).errors
        assert before == await round_trips(scene)
        if b"mine" in scopes[0]:
            assert "3Z" == (await conn.scope(close_statement("mine") + sync())).letters


async def test_drivers_that_prepare_are_shown_how_they_were_answered(scene: CachedScene) -> None:
    await scene.client()
    through = await asyncpg.connect(scene.proxy.url)
    try:
        assert __version__ == await through.fetchval("show hyperdrive.version")
        for _ in range(3):
            await through.fetchval("select v from t where id = $1", 1)
        assert (await through.fetchval("show hyperdrive.last_read")).startswith("hit age=")
        async with through.transaction():
            await through.execute("set local hyperdrive.cache = off")
            assert "off" == await through.fetchval("show hyperdrive.cache")
            with pytest.raises(asyncpg.UndefinedObjectError):
                await through.fetchval("show hyperdrive.nonsense")
    finally:
        await through.close()


async def test_a_taken_name_and_a_wrong_value_are_errors_as_ever(scene: CachedScene) -> None:
    conn = await scene.client()
    make = parse("show hyperdrive.version", "mine") + sync()
    await conn.scope(make)
    assert ["42P05"] == (await conn.scope(make)).errors
    wrong = parse("set hyperdrive.cache = maybe", "wrong") + sync()
    assert "1Z" == (await conn.scope(wrong)).letters
    assert ["22023"] == (await conn.scope(bind("wrong") + execute() + sync())).errors
    assert ["42704"] == (await conn.scope(parse("show hyperdrive.no", "no") + describe_statement("no") + sync())).errors


@pytest.mark.parametrize("begin", ["begin", "begin; select 1"], ids=["held", "live"])
async def test_set_local_lasts_until_the_transaction_ends(scene: CachedScene, begin: str) -> None:
    await scene.start(cache_in_transactions="always")
    conn = await scene.client()
    assert "hit" == (await scene.ask_twice(conn, READ))[0]
    for setting in ("set local hyperdrive.cache = off", "select set_config('hyperdrive.cache', 'off', true)"):
        for end in ("commit", "rollback"):
            for sql in begin.split("; "):
                await conn.query(sql)
            await conn.query(setting)
            assert "off" == await shown(conn, "hyperdrive.cache")
            await conn.query(READ)
            assert "hit" != scene.how(conn)
            await conn.query(end)
            assert "on" == await shown(conn, "hyperdrive.cache")
            await conn.query(READ)
            assert "hit" == scene.how(conn)


async def test_savepoints_and_later_settings_undo_set_local_as_in_postgresql(scene: CachedScene) -> None:
    conn = await scene.client()
    await conn.query("set hyperdrive.max_staleness = '9s'")
    for sql, expected in [
        ("begin", "9s"),
        ("set local hyperdrive.max_staleness = '1s'", "1s"),
        ("savepoint a", "1s"),
        ("set local hyperdrive.max_staleness to default", ""),
        ("set local hyperdrive.max_staleness = '2s'", "2s"),
        ("rollback to a", "1s"),
        ("set hyperdrive.max_staleness = '3s'", "3s"),
        ("set local hyperdrive.max_staleness = '4s'", "4s"),
        ("commit", "3s"),
        ("begin", "3s"),
        ("set local hyperdrive.max_staleness = '5s'", "5s"),
        ("reset hyperdrive.max_staleness", ""),
        ("rollback", "3s"),
        ("begin", "3s"),
        ("set local hyperdrive.max_staleness = '6s'", "6s"),
        ("reset all", ""),
        ("commit", ""),
    ]:
        assert [] == (await conn.query(sql)).errors, sql
        assert expected == await shown(conn, "hyperdrive.max_staleness"), sql


async def test_what_undoes_settings_undoes_ours(scene: CachedScene) -> None:
    conn = await scene.client()
    for undo in ("reset hyperdrive.cache", "reset all", "discard all", "set hyperdrive.cache to default"):
        await conn.query("set hyperdrive.cache = off")
        assert "off" == (await scene.ask_twice(conn, READ))[0]
        await conn.query(undo)
        assert "on" == await shown(conn, "hyperdrive.cache")
        assert "hit" == (await scene.ask_twice(conn, READ))[0]


async def test_set_local_outside_a_transaction_is_the_origins_warning(scene: CachedScene) -> None:
    conn = await scene.client()
    assert ["25P01"] == (await conn.query("set local hyperdrive.cache = off")).notices
    assert "on" == await shown(conn, "hyperdrive.cache")
