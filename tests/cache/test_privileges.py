"""Never a row too many: who may read what, however that changes (caching-rules §5.2, §7.3 and §15.3)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hyperdrive.config.entries import UserSettings
from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.databases import run_sql
from hyperdrive.testing.frontend import bind, execute, parse, sync
from hyperdrive.testing.scene import eventually
from hyperdrive.testing.wire import WireConnection

READS = {
    "direct": "select v from t where id = 1",
    "through a view": "select v from seen where id = 1",
    "prepared": "select v from t where id = $1",
}

SETUP = """
set client_min_messages = error;
drop role if exists cache_reader; drop role if exists cache_outsider; drop role if exists cache_grouped;
create role cache_reader; create role cache_outsider; create role cache_grouped;
grant select on t to cache_reader; create view seen as select id, v from t; grant select on seen to cache_reader;
"""
TEARDOWN = """
drop view if exists seen; drop owned by cache_reader, cache_outsider, cache_grouped; drop role cache_reader, cache_outsider, cache_grouped;
"""


@pytest.fixture
async def people(scene: CachedScene) -> AsyncIterator[CachedScene]:
    """A stage with roles: ``cache_reader`` may read ``t`` and the view ``seen``, ``cache_outsider`` and ``cache_grouped`` may not."""
    await scene.sql(SETUP)
    yield scene
    stack = scene._stack.pop_all()
    await stack.aclose()
    await run_sql(scene.origin_url, TEARDOWN)


async def read(conn: WireConnection, how: str) -> list[str]:
    """The value, or the SQLSTATE of the refusal."""
    if how == "prepared":
        replies = await conn.scope(parse(READS[how]) + bind("", ["1"]) + execute() + sync())
    else:
        replies = await conn.query(READS[how])
    return replies.errors or [str(row[0]) for row in replies.rows]


async def become(scene: CachedScene, conn: WireConnection, sql: str) -> None:
    assert not (await conn.query(sql)).errors
    await scene.settle(conn)


CHANGES = [
    pytest.param("revoke select on t from cache_reader; revoke select on seen from cache_reader", id="REVOKE"),
    pytest.param("alter table t enable row level security; alter view seen owner to cache_grouped", id="RLS on"),
    pytest.param(
        "create policy p on t for select using (false); alter table t enable row level security; alter view seen set (security_invoker = on)",
        id="policy",
    ),
    pytest.param("revoke usage on schema public from public", id="REVOKE USAGE"),
    pytest.param("drop view seen; alter table t rename to gone; create table t (id int, v text)", id="another table"),
]


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("through_us", [True, False])
async def test_what_is_taken_away_is_gone(people: CachedScene, how: str, change: str, through_us: bool) -> None:
    """Through us at once, past us within the interval of the poll: no row that the origin would not give."""
    scene = people
    await scene.start(catalog_poll="1h" if through_us else "30ms")
    conn, direct = await scene.client(), await scene.direct()
    await become(scene, conn, "set role cache_reader")
    await direct.query("set role cache_reader")
    for _ in range(2):
        assert ["v1"] == await read(conn, how)
    assert "hit" == scene.how(conn)
    if through_us:
        owner = await scene.client()
        for one in change.split("; "):
            assert not (await owner.query(one)).errors, one
        assert await read(direct, how) == await read(conn, how) != ["v1"]
    else:
        await scene.sql(change)

        async def is_seen() -> bool:
            return await read(conn, how) != ["v1"]

        await eventually(is_seen, "the change")
        assert await read(direct, how) == await read(conn, how)


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param("set role cache_outsider", id="SET ROLE"),
        pytest.param("set session authorization cache_outsider", id="SET SESSION AUTHORIZATION"),
        pytest.param("select set_config('role', 'cache_outsider', false)", id="set_config"),
    ],
)
async def test_a_session_that_became_somebody_else_reads_as_that(people: CachedScene, how: str, change: str) -> None:
    """Pgpool-II's CVE-2024-45624: rows of one user for another."""
    scene = people
    conn = await scene.client()
    for _ in range(2):
        assert ["v1"] == await read(conn, how)
    assert "hit" == scene.how(conn)
    await conn.query(change)
    for _ in range(3):
        assert ["42501"] == await read(conn, how)
    await scene.settle(conn)
    for _ in range(3):
        assert ["42501"] == await read(conn, how)
    await conn.query("reset role" if "authorization" not in change else "reset session authorization")
    assert ["v1"] == await read(conn, how)


async def test_set_role_in_a_transaction_that_is_rolled_back(people: CachedScene) -> None:
    conn = await people.client()
    for _ in range(2):
        await read(conn, "direct")
    await conn.query("begin")
    await conn.query("set local role cache_outsider")
    assert ["42501"] == await read(conn, "direct")
    await conn.query("rollback")
    assert ["v1"] == await read(conn, "direct")
    await conn.query("begin")
    await conn.query("set role cache_outsider")
    await conn.query("rollback")
    assert ["v1"] == await read(conn, "direct")
    await conn.query("begin")
    await conn.query("set role cache_outsider")
    await conn.query("commit")
    assert ["42501"] == await read(conn, "direct")


async def test_membership_that_is_taken_away(people: CachedScene) -> None:
    """GRANT of role membership fires no event trigger (§7.3): through us it ends the epoch, past us the poll finds it."""
    scene = people
    await scene.start(catalog_poll="30ms")
    await scene.sql("grant cache_reader to cache_grouped")
    conn = await scene.client()
    await become(scene, conn, "set role cache_grouped")
    for _ in range(2):
        assert ["v1"] == await read(conn, "direct")
    await scene.sql("revoke cache_reader from cache_grouped")

    async def is_seen() -> bool:
        return await read(conn, "direct") == ["42501"]

    await eventually(is_seen, "the lost membership")


async def test_row_security_is_never_cached(people: CachedScene) -> None:
    """Rule 13: two tenants, also through a view."""
    scene = people
    await scene.sql(
        "create table secrets (tenant text, v text); insert into secrets values ('a', 'of a'), ('b', 'of b');"
        "alter table secrets enable row level security; grant select on secrets to cache_reader;"
        "create policy own on secrets using (tenant = current_setting('app.tenant', true));"
        "create view peek with (security_invoker = on) as select v from secrets; grant select on peek to cache_reader"
    )
    one, two = await scene.client(), await scene.client()
    for conn, tenant in ((one, "a"), (two, "b")):
        await become(scene, conn, "set role cache_reader")
        await become(scene, conn, f"set app.tenant = '{tenant}'")
    for table in ("secrets", "peek"):
        for _ in range(3):
            assert [("of a",)] == (await one.query(f"select v from {table}")).rows
            assert "row-security" == scene.how(one) or table == "peek"
            assert [("of b",)] == (await two.query(f"select v from {table}")).rows
    assert scene.how(two) in ("row-security", "view")


@pytest.mark.parametrize(
    "sql", ["alter role cache_reader set search_path = one", "alter database cached set timezone = 'Asia/Tokyo'"]
)
async def test_defaults_that_change_are_not_mixed(people: CachedScene, sql: str) -> None:
    """§2: a server opened before and one opened after differ; their answers are never one another's."""
    scene = people
    conn = await scene.client()
    read_zone = "select '2020-06-01 00:00+00'::timestamptz"
    await scene.ask_twice(conn, read_zone)
    try:
        assert not (await conn.query(sql)).errors
        direct = await scene.direct()
        fresh = await scene.client()
        for _ in range(3):
            assert (await direct.query(read_zone)).rows == (await fresh.query(read_zone)).rows
    finally:
        await scene.sql("alter database cached reset timezone")


async def test_temporary_tables_shadow_permanent_ones(people: CachedScene) -> None:
    """Rule 5: ``create temp table t``; the session keeps its server, and takes no part."""
    scene = people
    conn, other = await scene.client(), await scene.client()
    for _ in range(2):
        await conn.query("select v from t where id = 1")
    await conn.query("create temp table t (id int, v text)")
    assert [] == (await conn.query("select v from t where id = 1")).rows
    await scene.settle(other)
    assert [("v1",)] == (await other.query("select v from t where id = 1")).rows
    await conn.query("discard all")
    assert [("v1",)] == (await conn.query("select v from t where id = 1")).rows


async def test_a_session_that_holds_a_lock_reads_fresh_data(people: CachedScene) -> None:
    """Rule 5: lock-then-read."""
    scene = people
    conn = await scene.client()
    await scene.ask_twice(conn, "select v from t where id = 1")
    await conn.query("select pg_advisory_lock(1)")
    await scene.sql("update t set v = 'past us' where id = 1")
    assert [("past us",)] == (await conn.query("select v from t where id = 1")).rows
    await conn.query("select pg_advisory_unlock(1)")


async def test_serializable_sessions_take_no_part(people: CachedScene) -> None:
    """Rule 5: what is served takes no part in the detection of conflicts."""
    scene = people
    conn = await scene.client()
    await conn.query("set default_transaction_isolation = 'serializable'")
    await scene.settle(conn)
    await scene.ask_twice(conn, "select v from t where id = 1")
    assert "session-state" == scene.how(conn)


async def test_replication_role_takes_no_part(people: CachedScene) -> None:
    scene = people
    conn = await scene.client()
    await conn.query("set session_replication_role = replica")
    await scene.settle(conn)
    await scene.ask_twice(conn, "select v from t where id = 1")
    assert "session-state" == scene.how(conn)


LOGINS = """
set client_min_messages = error;
drop role if exists cache_login_a; drop role if exists cache_login_b;
create role cache_login_a login password 'pw'; create role cache_login_b login password 'pw'; grant select on t to cache_login_a;
"""


@pytest.fixture
async def logins(people: CachedScene) -> AsyncIterator[CachedScene]:
    """Two users who log in, of whom ``cache_login_a`` may read ``t``; nothing but their names tells them apart."""
    scene = people
    await scene.sql(LOGINS)
    people_of = {name: UserSettings(password="pw") for name in ("cache_login_a", "cache_login_b")}
    await scene.start(auth_method="trust", users=people_of)
    yield scene
    stack = scene._stack.pop_all()
    await stack.aclose()
    await run_sql(
        scene.origin_url, "drop owned by cache_login_a, cache_login_b; drop role cache_login_a, cache_login_b"
    )


@pytest.mark.parametrize("how", ["direct", "prepared"])
async def test_what_one_user_may_read_another_is_refused(logins: CachedScene, how: str) -> None:
    """Two logins with the same settings: answers belong to a role, whichever session fills first."""
    scene = logins
    may, may_not = await scene.client(user="cache_login_a"), await scene.client(user="cache_login_b")
    for _ in range(2):
        assert ["v1"] == await read(may, how)
    assert "hit" == scene.how(may)
    for _ in range(3):
        assert ["42501"] == await read(may_not, how)
    await scene.sql("grant select on t to cache_login_b")
    assert ["v1"] == await read(may_not, how)


async def test_what_depends_on_who_asks_is_each_ones_own(logins: CachedScene) -> None:
    """A view that hides rows by user: its text is the same, and so are all settings."""
    scene = logins
    await scene.sql(
        "create view of_a as select v from t where pg_has_role('cache_login_a', 'member'); grant select on of_a to public"
    )
    one, other, direct = (
        await scene.client(user="cache_login_a"),
        await scene.client(user="cache_login_b"),
        await scene.direct(),
    )
    await direct.query("set role cache_login_b")
    expected = (await direct.query("select v from of_a")).rows
    for _ in range(2):
        assert 5 == len((await one.query("select v from of_a")).rows)
        assert expected == (await other.query("select v from of_a")).rows == []


@pytest.mark.parametrize("through_us", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("alter role cache_reader superuser", "alter role cache_reader nosuperuser", id="superuser"),
        pytest.param("alter role cache_reader bypassrls", "alter role cache_reader nobypassrls", id="bypassrls"),
        pytest.param("grant pg_read_all_data to cache_reader", "revoke pg_read_all_data from cache_reader", id="pg_read_all_data"),
    ],
)  # fmt: skip
async def test_an_attribute_that_is_taken_away_is_gone(
    people: CachedScene, before: str, after: str, through_us: bool
) -> None:
    """ALTER ROLE fires no event trigger, and what it gave was cached."""
    scene = people
    rls = "bypassrls" in before
    await scene.sql(
        "create table hidden (v text); insert into hidden values ('h');"
        + ("alter table hidden enable row level security; grant select on hidden to cache_reader;" if rls else "")
        + before
    )
    await scene.start(catalog_poll="1h" if through_us else "30ms")
    conn, owner, direct = await scene.client(), await scene.client(), await scene.direct()
    await become(scene, conn, "set role cache_reader")
    await direct.query("set role cache_reader")
    sql = "select v from hidden"
    for _ in range(2):
        assert [("h",)] == (await conn.query(sql)).rows
    if through_us:
        assert not (await owner.query(after)).errors
        found, wanted = await conn.query(sql), await direct.query(sql)
        assert (wanted.rows, wanted.errors) == (found.rows, found.errors)
        assert [("h",)] != found.rows
        return
    await scene.sql(after)

    async def is_seen() -> bool:
        return (await conn.query(sql)).rows != [("h",)]

    await eventually(is_seen, "the change")
