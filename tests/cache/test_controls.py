"""``hyperdrive.*``: what a session sets and is shown, without a round trip, in both protocols and whatever state it is in."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hyperdrive import __version__
from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import PROTOCOL_3_0, bind, describe_portal, execute, parse, query, sync
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
