"""What is served, to whom, and for how long: rules 1, 7, 18, 19, 21 and 22 (caching-rules §4), and the shapes of the two protocols."""

from __future__ import annotations

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import (
    bind,
    describe_portal,
    describe_statement,
    execute,
    extended,
    parse,
    query,
    sync,
)
from hyperdrive.testing.scene import eventually

INT4 = 23


def whole(sql: str, *values: str | bytes | None, described: bool = True, formats: list[int] | None = None) -> bytes:
    """A whole extended scope of an unnamed statement."""
    return (
        parse(sql)
        + bind("", list(values), result_formats=formats or [])
        + (describe_portal() if described else b"")
        + execute()
        + sync()
    )


SCOPES = [
    pytest.param(query("select id, v from t where id = 2"), id="simple"),
    pytest.param(whole("select id, v from t where id = 2"), id="extended"),
    pytest.param(whole("select id, v from t where id = $1", "2"), id="parameter"),
    pytest.param(whole("select id, v from t where id = $1", "2", described=False), id="without Describe"),
    pytest.param(whole("select id, v from t where id = $1", "2", formats=[1]), id="binary results"),
    pytest.param(
        parse("select id, v from t where id = $1", oids=[INT4])
        + bind("", [b"\0\0\0\2"], formats=[1])
        + describe_portal()
        + execute()
        + sync(),
        id="binary parameter",
    ),
    pytest.param(whole("select id from t where v = $1", None), id="null, no rows"),
    pytest.param(query("select"), id="no columns"),
    pytest.param(query("values (1, 'a'), (2, null)"), id="values"),
    pytest.param(query("table t"), id="table"),
    pytest.param(query("with x as (select * from t) select count(*) from x"), id="with"),
    pytest.param(query("select json_agg(t order by id) from t"), id="json_agg"),
    pytest.param(query("select repeat('x', 100000)"), id="large"),
    pytest.param(query("select n, repeat('y', 500) from generate_series(1, 500) n"), id="many reads of the socket"),
    pytest.param(query("select * from shown"), id="view"),
    pytest.param(query("select * from parted order by k"), id="partitioned"),
    pytest.param(query("select * from counted"), id="materialized view"),
]


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_served_answer_is_the_origins_byte_for_byte(scene: CachedScene, scope: bytes) -> None:
    conn, direct = await scene.client(), await scene.direct()
    expected = await direct.scope(scope)
    first = await conn.scope(scope)
    assert ("miss", expected) == (scene.how(conn), first)
    second = await conn.scope(scope)
    assert ("hit", expected) == (scene.how(conn), second)


async def test_named_statements_are_served_and_share_their_entry_with_unnamed_ones(scene: CachedScene) -> None:
    """The name is in no key (§2): a driver that prepares and one that does not share what they read."""
    conn = await scene.client()
    await conn.scope(parse("select v from t where id = $1", "mine", [INT4]) + describe_statement("mine") + sync())
    run = bind("mine", ["3"]) + execute() + sync()
    first, second = await conn.scope(run), await conn.scope(run)
    assert (first, "hit") == (second, scene.how(conn))
    other = await scene.client()
    again = await other.scope(
        parse("select v from t where id = $1", oids=[INT4]) + bind("", ["3"]) + execute() + sync()
    )
    assert ("hit", "12DCZ", first.rows) == (scene.how(other), again.letters, again.rows)


async def test_describe_is_served_to_named_statements_too(scene: CachedScene) -> None:
    conn = await scene.client()
    await conn.scope(parse("select v from t where id = $1", "mine") + sync())
    run = bind("mine", ["3"]) + describe_portal() + execute() + sync()
    first, second = await conn.scope(run), await conn.scope(run)
    assert ("hit", "2TDCZ", first) == (scene.how(conn), second.letters, second)


async def test_other_sessions_of_the_same_identity_hit(scene: CachedScene) -> None:
    one, two = await scene.client(application_name="one"), await scene.client(application_name="two")
    await one.query("select v from t where id = 1")
    assert [("v1",)] == (await two.query("select v from t where id = 1")).rows
    assert "hit" == scene.how(two)


NO_KEY_OF_OURS = [
    pytest.param("set timezone = 'America/New_York'", "select '2020-06-01 00:00+00'::timestamptz", id="TimeZone"),
    pytest.param("set datestyle = 'German'", "select '2020-06-01'::date", id="DateStyle"),
    pytest.param("set intervalstyle = 'iso_8601'", "select '1 day'::interval", id="IntervalStyle"),
    pytest.param("set bytea_output = 'escape'", "select '\\x41'::bytea", id="bytea_output"),
    pytest.param("set extra_float_digits = 0", "select 0.1::float8 + 0.2::float8", id="extra_float_digits"),
    pytest.param("set quote_all_identifiers = on", "select quote_ident('a')", id="quote_all_identifiers"),
    pytest.param("set xmlbinary = 'hex'", "select xmlelement(name a, '\\x41'::bytea)", id="xmlbinary"),
    pytest.param("set client_encoding = 'LATIN1'", "select chr(233)", id="client_encoding"),
    pytest.param("set search_path = one, public", "select v from t where id = 1", id="search_path"),
    pytest.param(
        "select set_config('timezone', 'Asia/Tokyo', false)",
        "select '2020-06-01 00:00+00'::timestamptz",
        id="set_config",
    ),
]


@pytest.mark.parametrize(("setting", "sql"), NO_KEY_OF_OURS)
async def test_other_settings_are_another_key(scene: CachedScene, setting: str, sql: str) -> None:
    """Rule 18, and §2: each misses, gets what the origin says, and hits by itself."""
    await scene.sql(
        "create schema one; create table one.t (id int primary key, v text); insert into one.t values (1, 'one')"
    )
    conn, other, direct = await scene.client(), await scene.client(), await scene.direct()
    how, first, _ = await scene.ask_twice(conn, sql)
    await other.query(setting)
    await direct.query(setting)
    await scene.settle(other)
    expected = await direct.query(sql)
    found = await other.query(sql)
    if "hit" == how:
        assert expected != first, "the setting must make a difference for this to prove anything"
        assert ("miss", "hit") == (scene.how(other), (await scene.ask_twice(other, sql))[0])
    assert expected == found == await other.query(sql)
    assert first == await conn.query(sql)


async def test_settings_on_which_no_answer_depends_share(scene: CachedScene) -> None:
    one, two = await scene.client(), await scene.client()
    await two.query("set statement_timeout = '1min'")
    await two.query("set work_mem = '8MB'")
    await one.query("select v from t where id = 1")
    await two.query("select v from t where id = 1")
    assert "hit" == scene.how(two)


async def test_custom_settings_are_another_key(scene: CachedScene) -> None:
    """``pg_settings`` does not show those of programs, so their texts are in the key."""
    one, two = await scene.client(), await scene.client()
    await one.query("select v from t where id = 1")
    await two.query("set app.tenant = '7'")
    await scene.settle(two)
    await two.query("select v from t where id = 1")
    assert "miss" == scene.how(two)


async def test_case_and_literals_are_not_folded(scene: CachedScene) -> None:
    conn = await scene.client()
    await conn.query("select 'a'")
    assert [("A",)] == (await conn.query("select 'A'")).rows
    await conn.query('select id as "x" from t where id = 1')
    assert "X" in str(await conn.query('select id as "X" from t where id = 1'))


async def test_comments_are_no_part_of_the_key(scene: CachedScene) -> None:
    """Tracing comments are new each time."""
    conn = await scene.client()
    await conn.query("select v from t where id = 1 /* trace 1 */")
    await conn.query("select v from t where id = 1 /* trace 2 */")
    assert "hit" == scene.how(conn)
    await conn.scope(whole("select v from t where id = $1 -- trace 3", "1"))
    await conn.scope(whole("select v from t where id = $1 -- trace 4", "1"))
    assert "hit" == scene.how(conn)
    assert [("/* no comment */",)] == (await conn.query("select '/* no comment */'")).rows


async def test_a_hint_switches_the_cache_off(scene: CachedScene) -> None:
    """Rule 1, and its smallest case."""
    conn = await scene.client()
    how, _, _ = await scene.ask_twice(conn, "/* hyperdrive: cache=off */ select 1")
    assert "off" == how


async def test_a_hint_sets_max_age(scene: CachedScene) -> None:
    conn = await scene.client()
    sql = "select v from t where id = 1 /* hyperdrive: max_age=5 swr=0 */"
    await conn.query(sql)
    scene.clock.advance(4)
    await conn.query(sql)
    assert "hit" == scene.how(conn)
    scene.clock.advance(2)
    await conn.query(sql)
    assert "miss" == scene.how(conn)


async def test_without_a_hint_the_origins_policy_holds_for_the_same_entry(scene: CachedScene) -> None:
    conn = await scene.client()
    await conn.query("select v from t where id = 1 /* hyperdrive: max_age=600 */")
    scene.clock.advance(100)
    await conn.query("select v from t where id = 1 /* hyperdrive: max_age=600 */")
    assert "hit" == scene.how(conn)
    await conn.query("select v from t where id = 1")
    assert "miss" == scene.how(conn)


async def test_literals_converted_at_parse_are_not_served_under_other_settings(scene: CachedScene) -> None:
    """Rule 7: Parse, then SET, then Bind and Execute."""
    await scene.start(servers=1)  # another server would have to parse it anew, under the settings of now
    conn, direct = await scene.client(), await scene.direct()
    make = parse("select '2020-06-01 00:00'::timestamptz", "s") + sync()
    run = bind("s") + execute() + sync()
    for one in (conn, direct):
        await one.scope(make)
        await one.query("set timezone = 'America/New_York'")
    await scene.settle(conn)
    expected = await direct.scope(run)
    for _ in range(3):
        assert expected == await conn.scope(run)
    assert "portal" == scene.how(conn)
    other = await scene.client()
    await other.query("set timezone = 'America/New_York'")
    await other.scope(make)
    assert expected != await other.scope(run)


async def test_errors_are_never_stored(scene: CachedScene) -> None:
    """Rule 21: a row, then an error."""
    conn, direct = await scene.client(), await scene.direct()
    sql = "select 1 / (id - 2) from t order by id"
    for _ in range(3):
        assert (await direct.query(sql)).letters == (await conn.query(sql)).letters
        assert "miss" == scene.how(conn)
    assert 3 == scene.cache.metrics.not_stored_reply


async def test_an_answer_over_the_cap_streams_and_is_not_stored(scene: CachedScene) -> None:
    """Rule 22."""
    await scene.start(cache_entry_size="100KiB")
    conn, direct = await scene.client(), await scene.direct()
    sql = "select n, repeat('x', 1000) from generate_series(1, 300) n"
    for _ in range(2):
        assert await direct.query(sql) == await conn.query(sql)
        assert "miss" == scene.how(conn)
    assert 2 == scene.cache.metrics.not_stored_size


async def test_an_expired_answer_is_served_and_refreshed_once_behind(scene: CachedScene) -> None:
    conn = await scene.client()
    sql = "select v from t where id = 1"
    await conn.query(sql)
    await scene.sql("update t set v = 'past us' where id = 1")
    scene.clock.advance(61)
    assert [("v1",)] == (await conn.query(sql)).rows
    assert "stale" == scene.how(conn)
    await eventually(lambda: scene.cache.metrics.stored >= 3, "the refresh")
    assert [("past us",)] == (await conn.query(sql)).rows
    assert ("hit", 1) == (scene.how(conn), scene.cache.metrics.refreshes)


async def test_past_its_stale_window_an_answer_is_a_miss(scene: CachedScene) -> None:
    """Rule 19."""
    conn = await scene.client()
    sql = "select v from t where id = 1"
    await conn.query(sql)
    await scene.sql("update t set v = 'past us' where id = 1")
    scene.clock.advance(76)
    assert [("past us",)] == (await conn.query(sql)).rows
    assert ("miss", "expired") == (scene.how(conn), scene.reader(conn).last_rule.value)


async def test_a_refresh_has_the_identity_of_the_session(scene: CachedScene) -> None:
    """§5.2: with the identical roles and settings, or not at all."""
    conn, direct = await scene.client(), await scene.direct()
    for one in (conn, direct):
        await one.query("set timezone = 'Asia/Tokyo'")
    await scene.settle(conn)
    sql = "select '2020-06-01 00:00+00'::timestamptz, v from t where id = 1"
    run = whole("select '2020-06-01 00:00+00'::timestamptz, v from t where id = $1", "1")
    for scope in (query(sql), run):
        await conn.scope(scope)
        stored = scene.cache.metrics.stored
        scene.clock.advance(61)
        await conn.scope(scope)
        assert "stale" == scene.how(conn)
        await eventually(lambda stored=stored: scene.cache.metrics.stored > stored, "the refresh")
        assert await direct.scope(scope) == await conn.scope(scope)
        assert "hit" == scene.how(conn)


async def test_policies_of_tables(scene: CachedScene) -> None:
    from hyperdrive.config.entries import TableSettings

    await scene.start(
        tables={
            "public.other": TableSettings(cache=False),
            "public.t": TableSettings(max_age=5.0, stale_while_revalidate=0.0),
        }
    )
    conn = await scene.client()
    assert "off" == (await scene.ask_twice(conn, "select * from other"))[0]
    assert "off" == (await scene.ask_twice(conn, "select * from t join other using (id)"))[0]
    assert "hit" == (await scene.ask_twice(conn, "select * from t"))[0]
    scene.clock.advance(6)
    await conn.query("select * from t")
    assert "miss" == scene.how(conn)


async def test_the_kill_switch_drops_everything(scene: CachedScene) -> None:
    conn = await scene.client()
    await scene.ask_twice(conn, "select v from t where id = 1")
    proxy = scene.proxy.app.proxy
    from dataclasses import replace

    from hyperdrive.proxy.cache import Mode

    proxy.change_cache(replace(scene.cache.settings, mode=Mode.OFF))
    assert 0 == len(scene.cache.store)
    await scene.sql("update t set v = 'past us' where id = 1")
    assert [("past us",)] == (await conn.query("select v from t where id = 1")).rows
    proxy.change_cache(replace(scene.cache.settings, mode=Mode.ON))
    await scene.settle(conn)
    assert "hit" == (await scene.ask_twice(conn, "select v from t where id = 1"))[0]


async def test_unnamed_statement_after_a_served_batch_is_the_clients(scene: CachedScene) -> None:
    """A Bind without Parse runs what the served batch parsed, and a served Query has closed it."""
    conn, direct = await scene.client(), await scene.direct()
    scope = whole("select v from t where id = $1", "1")
    for _ in range(2):
        await conn.scope(scope)
        await direct.scope(scope)
    assert "hit" == scene.how(conn)
    again = bind("", ["2"]) + execute() + sync()
    assert await direct.scope(again) == await conn.scope(again)
    for one in (conn, direct):
        await one.query("select 1")
        await one.query("select 1")
    assert "hit" == scene.how(conn)
    assert (await direct.scope(again)).errors == (await conn.scope(again)).errors == ["26000"]


async def test_what_is_pipelined_behind_a_miss_is_answered_in_order(scene: CachedScene) -> None:
    conn, direct = await scene.client(), await scene.direct()
    flight = (
        query("select v from t where id = 1") + query("select v from t where id = 2") + extended("select 3") + sync()
    )
    for _ in range(3):
        assert await direct.scope(flight, 3) == await conn.scope(flight, 3)


async def test_a_statement_described_before_ddl_is_run_by_the_origin_once(scene: CachedScene) -> None:
    """W-26: a client that decodes by an old description must hear "cached plan must not change result type", not new bytes."""
    await scene.start(servers=1)
    conn, other = await scene.client(), await scene.client()
    await conn.scope(parse("select * from other where id = $1", "mine") + describe_statement("mine") + sync())
    run = bind("mine", ["1"]) + execute() + sync()
    for _ in range(2):
        await conn.scope(run)
    assert "hit" == scene.how(conn)
    await other.query("comment on table t is 'ends the epoch and changes nothing'")
    await scene.settle(conn)
    for expected in ("miss", "miss", "hit"):
        assert [("1", "other")] == (await conn.scope(run)).rows
        assert expected == scene.how(conn)
    await other.query("alter table other add column w int default 7")
    await scene.settle(other)
    await scene.ask_twice(other, "select * from other where id = 1")
    assert [("1", "other", "7")] == (
        await other.scope(whole("select * from other where id = $1", "1", described=False))
    ).rows
    await scene.settle(conn)
    assert ["0A000"] == (await conn.scope(run)).errors
