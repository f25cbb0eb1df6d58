"""What only the schema can change, and what has provably only read: E-5 and E-8 of the wire reference, with and without the cache."""

from __future__ import annotations

import pytest

from hyperdrive.metrics import Saved
from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import bind, describe_portal, execute, parse, query, sync
from hyperdrive.testing.scene import eventually
from hyperdrive.testing.wire import WireConnection

TABLES = "select relname from pg_catalog.pg_class where relname like 'known%' order by 1"


def trips(scene: CachedScene) -> int:
    return sum(stats.origin_round_trips for stats in scene.proxy.app.proxy.stats.values())


def saved(scene: CachedScene, how: Saved) -> int:
    return sum(stats.origin_round_trips_saved[how] for stats in scene.proxy.app.proxy.stats.values())


async def ready(scene: CachedScene, cache: str, **overrides: object) -> WireConnection:
    """A client of which it is known who it is."""
    await scene.start(cache=cache, **overrides)
    conn = await super(CachedScene, scene).client()

    async def knows() -> bool:
        await conn.query("select pg_catalog.version()")
        return saved(scene, Saved.KNOWN) > 0 or scene.how(conn) == "hit"

    await eventually(knows, "the catalog is loaded")
    return conn


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_what_drivers_ask_of_each_new_connection_is_asked_once(scene: CachedScene, cache: str) -> None:
    await ready(scene, cache)
    for sql in ("select pg_catalog.version()", "select current_schema()", TABLES):
        first = await super(CachedScene, scene).client()
        expected = await first.query(sql)
        other = await super(CachedScene, scene).client()
        before = trips(scene)
        assert expected == (await other.query(sql))
        assert before == trips(scene), sql


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_in_a_transaction_of_which_nothing_has_reached_the_origin_as_well(scene: CachedScene, cache: str) -> None:
    conn = await ready(scene, cache)
    before = trips(scene)
    await conn.query("begin")
    replies = await conn.query("select pg_catalog.version()")
    assert ("TDCZ", "T") == (replies.letters, replies.statuses)
    assert (await conn.query("rollback")).statuses == "I"
    assert before == trips(scene)


async def test_not_where_it_would_fix_the_snapshot(scene: CachedScene) -> None:
    conn = await ready(scene, "off")
    before = trips(scene)
    await conn.query("begin isolation level repeatable read")
    await conn.query("select pg_catalog.version()")
    assert before + 1 == trips(scene)
    await conn.query("rollback")


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_a_change_of_the_schema_through_us_is_seen_at_once(scene: CachedScene, cache: str) -> None:
    conn = await ready(scene, cache)
    other = await super(CachedScene, scene).client()
    try:
        assert (await conn.query(TABLES)).rows == []
        assert (await conn.query(TABLES)).rows == []
        await other.query("create table known_one (a int)")
        assert (await conn.query(TABLES)).rows == [("known_one",)]
        await other.query("begin; create table known_two (a int)")
        assert (await conn.query(TABLES)).rows == [("known_one",)]
        await other.query("commit")
        assert (await conn.query(TABLES)).rows == [("known_one",), ("known_two",)]
    finally:
        await conn.query("drop table if exists known_one, known_two")


MAKES_A_TABLE = """
create function makes_a_table() returns void language plpgsql as $$ begin create table known_three (a int); end $$;
"""


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_a_change_of_the_schema_by_a_function_is_looked_for_at_once(scene: CachedScene, cache: str) -> None:
    """Not when the next poll is due: nothing that the origin says tells of it."""
    conn = await ready(scene, cache, catalog_poll="1h")
    await conn.query(MAKES_A_TABLE)
    try:
        await eventually(lambda: _is(conn, []), "what is known is known again")
        assert (await conn.query("select makes_a_table()")).errors == []
        await eventually(lambda: _is(conn, [("known_three",)]), "the new table is known")
    finally:
        await conn.query("drop table if exists known_three; drop function makes_a_table()")


async def _is(conn: WireConnection, rows: list[tuple[str]]) -> bool:
    return (await conn.query(TABLES)).rows == rows


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_the_extended_protocol_has_answers_of_its_own(scene: CachedScene, cache: str) -> None:
    conn = await ready(scene, cache)
    sql = "select typname from pg_type where oid = $1"
    scope = parse(sql) + bind("", ["23"]) + describe_portal() + execute() + sync()
    expected = await conn.scope(scope)
    before = trips(scene)
    other = await super(CachedScene, scene).client()
    assert expected == (await other.scope(scope))
    assert before == trips(scene)
    assert (await other.scope(parse(sql) + bind("", ["25"]) + describe_portal() + execute() + sync())).rows == [
        ("text",)
    ]


async def test_switched_off_the_origin_is_asked(scene: CachedScene) -> None:
    await scene.start(cache="off", known_answers=False)
    conn = await super(CachedScene, scene).client()
    for _ in range(3):
        before = trips(scene)
        await conn.query("select pg_catalog.version()")
        assert before + 1 == trips(scene)


@pytest.mark.parametrize(
    ("sql", "proven"),
    [
        ("select * from t", True),
        ("select count(*) from t where id = 1", True),
        ("select typname from pg_type where oid = 23", True),
        ("select * from known_view", False),
        ("select known_writes()", False),
        ("select * from t for share", False),
        ("update t set v = v", False),
        ("with w as (update t set v = v returning 1) select * from w", False),
        ("select pg_advisory_xact_lock(1)", False),
    ],
)
async def test_commit_is_answered_ahead_of_what_has_provably_only_read(
    scene: CachedScene, sql: str, proven: bool
) -> None:
    conn = await ready(scene, "off")
    await conn.query(
        "create or replace function known_writes() returns int language plpgsql as"
        " 'begin update t set v = v; return 1; end'; create or replace view known_view as select known_writes() from t"
    )
    try:

        async def commits_ahead(sql: str) -> bool:
            before = saved(scene, Saved.COMMIT)
            await conn.query("begin")
            assert (await conn.query(sql)).errors == []
            assert (await conn.query("commit")).tags == ["COMMIT"]
            return saved(scene, Saved.COMMIT) > before

        await eventually(lambda: commits_ahead("select 1 from t"), "the catalog is loaded anew")
        assert proven == await commits_ahead(sql)
    finally:
        await conn.query("drop view known_view; drop function known_writes()")


async def test_a_transaction_that_has_only_read_is_served_inside_and_fills_the_cache(scene: CachedScene) -> None:
    """Not only before its first statement has reached the origin (E-9); its own writes end that."""
    await scene.start(cache="on", cache_in_transactions="always")
    conn = await scene.client()
    await eventually(lambda: _is_hit_inside(scene, conn), "what it reads inside is stored, and served inside")
    await conn.query("begin")
    await conn.query("select v from t where id = 3 /* not stored yet */")
    await conn.query("update t set v = 'own' where id = 2")
    assert (await conn.query("select v from t where id = 2")).rows == [("own",)]
    assert (await conn.query("rollback")).tags == ["ROLLBACK"]
    assert (await conn.query("select v from t where id = 2")).rows == [("v2",)]


async def _is_hit_inside(scene: CachedScene, conn: WireConnection) -> bool:
    await conn.query("begin")
    await conn.query("select id from other where id = 7")
    await conn.query("select v from t where id = 2")
    before = trips(scene)
    replies = await conn.query("select v from t where id = 2")
    assert (replies.rows, replies.statuses) == ([("v2",)], "T")
    is_hit = before == trips(scene) and scene.how(conn) == "hit"
    await conn.query("rollback")
    return is_hit


async def test_a_transaction_that_may_have_written_is_not_served_inside(scene: CachedScene) -> None:
    await scene.start(cache="on", cache_in_transactions="always")
    conn = await scene.client()
    other = await scene.client()
    assert (await scene.ask_twice(other, "select v from t where id = 2"))[0] == "hit"
    for first in (
        "select clock_timestamp()",
        "update t set v = v where id = 1",
        "select v from t for update",
        "select pg_sleep(0)",
    ):
        await conn.query("begin")
        await conn.query(first)
        before = trips(scene)
        assert (await conn.query("select v from t where id = 2")).rows == [("v2",)]
        assert before + 1 == trips(scene), first
        await conn.query("rollback")


async def test_a_temporary_table_is_read_inside_a_transaction_and_behind_its_end(scene: CachedScene) -> None:
    """It stands in the place of the permanent one, of which an answer is stored (rule 5)."""
    await scene.start(cache="on", cache_in_transactions="always")
    conn, other = await scene.client(), await scene.client()
    read = "select v from t where id = 2"
    await conn.query("create temp table t (id int, v text); insert into t values (2, 'own')")
    await scene.settle(other)
    assert (await scene.ask_twice(other, read))[0] == "hit"
    for _ in range(2):
        await conn.query("begin")
        await conn.query("select 1 from other where id = 1")
        assert (await conn.query(read)).rows == [("own",)]
        conn.send(query("rollback"))
        await conn.read_until("Z")
        assert (await conn.query(read)).rows == [("own",)]


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize("sql", ["select format_type(1)", "select c.looked from pg_class c where relname = 't'"])
async def test_not_what_calls_a_users_function_by_another_name(scene: CachedScene, cache: str, sql: str) -> None:
    """An overload of a built-in, and one that looks like a column: they read whatever they like."""
    await scene.sql(
        "create function format_type(int) returns bigint language sql volatile as 'select count(*) from t';"
        " create function looked(pg_class) returns bigint language sql stable as 'select count(*) from t'"
    )
    conn = await ready(scene, cache)
    for count in range(5, 8):
        assert [(str(count),)] == (await conn.query(sql)).rows
        await scene.sql(f"insert into t values ({count + 1}, 'more')")


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_what_truncate_changes_is_not_known(scene: CachedScene, cache: str) -> None:
    conn = await ready(scene, cache)
    sql = "select pg_relation_filenode('other')"
    first = [(await conn.query(sql)).rows for _ in range(2)]
    await scene.sql("truncate other")
    assert (await conn.query(sql)).rows not in first


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize("ddl", ["select mk()", "explain analyze create table known_made as select 1 as a"])
async def test_a_change_of_the_schema_that_no_ddl_tells_of_is_seen_at_once(
    scene: CachedScene, cache: str, ddl: str
) -> None:
    """By the session that made it, and by everybody who asks after it was told."""
    await scene.sql(
        "create function mk() returns void language plpgsql as $$begin create table known_made (a int); end$$"
    )
    conn = await ready(scene, cache)
    assert [[], []] == [(await conn.query(TABLES)).rows for _ in range(2)]
    assert not (await conn.query(ddl)).errors
    assert [("known_made",)] == (await conn.query(TABLES)).rows


async def test_a_function_that_changes_nothing_leaves_what_is_known(scene: CachedScene) -> None:
    await scene.sql("create function pure(int) returns int language sql immutable as 'select $1'")
    conn = await ready(scene, "off")
    await conn.query(TABLES)
    await conn.query("select pure(1)")
    before = saved(scene, Saved.KNOWN)
    await conn.query(TABLES)
    assert before + 1 == saved(scene, Saved.KNOWN)


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize("sql", ["reindex index concurrently t_pkey", "cluster t using t_pkey"])
async def test_what_becomes_of_indexes_is_seen_at_once(scene: CachedScene, cache: str, sql: str) -> None:
    """One gives them other OIDs, the other a mark."""
    conn = await ready(scene, cache)
    asked = "select indexrelid, indisclustered from pg_index where indrelid = 't'::regclass"
    before = [(await conn.query(asked)).rows for _ in range(2)]
    assert not (await conn.query(sql)).errors
    assert (await conn.query(asked)).rows not in before


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize(
    ("sql", "value", "oid"),
    [
        ("select $1", "now", 1184),
        ("select $1", " Now ", 1083),
        ("select $1::text, pg_catalog.version()", "now", 0),
        ("select $1::timestamptz", "now", 0),
        ("select $1::text::timestamptz", "now", 25),
        ("select ($1 || 'w')::timestamptz", "no", 0),
        ("select extract(epoch from $1)", "now", 1184),
        ("select date_trunc('microseconds', $1)", "now", 1184),
    ],
)
async def test_a_clock_in_a_parameter_is_asked_each_time(
    scene: CachedScene, cache: str, sql: str, value: str, oid: int
) -> None:
    conn = await ready(scene, cache)
    scope = parse(sql, oids=[oid]) + bind("", [value]) + describe_portal() + execute() + sync()
    seen = []
    for _ in range(3):
        before = trips(scene)
        replies = await conn.scope(scope)
        assert not replies.errors, replies
        seen.append(replies.rows)
        assert before < trips(scene)
    assert seen[0] != seen[1] or value in str(seen[0])


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize(
    "sql",
    [
        "select j from (pg_class c join pg_type t on t.oid = c.reltype) j where c.relname = 'analyzed_rows'",
        "select c.text from pg_class c where relname = 'analyzed_rows'",
        "select rows from pg_class c (a, rows) where false union all select to_json(c) ->> 'reltuples' from pg_class c where relname = 'analyzed_rows'",
        "select u&\"\\0072eltuples\" from pg_class where relname = 'analyzed_rows'",
    ],
)
async def test_what_analyze_counts_is_not_known(scene: CachedScene, cache: str, sql: str) -> None:
    await scene.sql(
        "drop table if exists analyzed_rows; create table analyzed_rows as select from generate_series(1, 10)"
    )
    conn = await ready(scene, cache)
    for _ in range(3):
        direct = await scene.direct()
        await direct.query("insert into analyzed_rows select from generate_series(1, 1000); analyze analyzed_rows")
        # The row is the same but for what has been analyzed_rows: it is enough that it is that of now.
        ours, theirs = await conn.query(sql), await direct.query(sql)
        assert (ours.errors, ours.rows) == (theirs.errors, theirs.rows)
