"""Reads with a row limit (caching-rules §4, rules 7 and 21): asyncpg's ``fetchrow`` and ``fetchval``, JDBC's ``setMaxRows``.

The limit is in the key, so that what it cuts off answers the same limit only; and nobody can ask a portal for more that ended with its
scope. Everything here is held against a direct connection, cold and warm.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack

import asyncpg
import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import bind, close_portal, describe_portal, describe_statement, execute, parse, sync

FIVE = "select id, v from t order by id"
LIMITS = [1, 2, 5, 6, 2**31 - 1, -1]


def limited(sql: str, limit: int, *values: str, described: bool = False, formats: list[int] | None = None) -> bytes:
    """A whole scope of the unnamed statement with a limit; 0 is none."""
    described_ = describe_portal() if described else b""
    return parse(sql) + bind("", list(values), result_formats=formats or []) + described_ + execute("", limit) + sync()


@pytest.mark.parametrize(("described", "formats"), [(True, []), (False, [1])], ids=["described", "binary"])
async def test_rule_7_each_limit_gets_what_the_origin_gives_it(
    scene: CachedScene, described: bool, formats: list[int]
) -> None:
    """With as many rows as the limit PostgreSQL says PortalSuspended, with fewer CommandComplete; so does a hit, in any order."""
    conn, direct = await scene.client(), await scene.direct()
    found = {}
    for warm in (False, True, True):
        for limit in random.sample([0, *LIMITS], 1 + len(LIMITS)):
            scope = limited(FIVE, limit, described=described, formats=formats)
            found[limit] = await conn.scope(scope)
            assert await direct.scope(scope) == found[limit], limit
            assert ("hit" if warm else "miss") == scene.how(conn), limit
    whole = "12TDDDDDCZ" if described else "12DDDDDCZ"
    cut = "12TDsZ" if described else "12DsZ"
    assert (whole, cut, whole) == (found[0].letters, found[1].letters, found[6].letters)
    assert "DDDDDsZ" == found[5].letters[-7:]


async def test_rule_18_a_limit_of_another_is_no_entry(scene: CachedScene) -> None:
    conn = await scene.client()
    for limit in (0, 1, 2):
        await conn.scope(limited(FIVE, limit))
        assert "miss" == scene.how(conn)
    for limit, rows in ((0, 5), (1, 1), (2, 2)):
        assert rows == len((await conn.scope(limited(FIVE, limit))).rows)
        assert "hit" == scene.how(conn)


async def test_named_and_unnamed_statements_share_limited_answers(scene: CachedScene) -> None:
    conn = await scene.client()
    sql = "select v from t where id < $1 order by id"
    await conn.scope(parse(sql, "mine") + describe_statement("mine") + sync())
    run = bind("mine", ["4"]) + execute("", 2) + sync()
    first = await conn.scope(run)
    assert (first, "2DDsZ", "hit") == (await conn.scope(run), first.letters, scene.how(conn))
    other = await scene.client()
    again = await other.scope(limited(sql, 2, "4"))
    assert ("hit", "12DDsZ", first.rows) == (scene.how(other), again.letters, again.rows)


async def test_rule_19_a_write_drops_limited_answers(scene: CachedScene) -> None:
    conn = await scene.client()
    for _ in range(2):
        await conn.scope(limited(FIVE, 1))
    await conn.query("insert into t values (0, 'first')")
    assert [("0", "first")] == (await conn.scope(limited(FIVE, 1))).rows
    assert "miss" == scene.how(conn)


async def test_a_refresh_asks_with_the_same_limit(scene: CachedScene) -> None:
    from hyperdrive.testing.scene import eventually

    conn = await scene.client()
    scope = limited(FIVE, 2, described=True)
    first = await conn.scope(scope)
    stored = scene.cache.metrics.stored
    scene.clock.advance(61)
    assert (first, "stale") == (await conn.scope(scope), scene.how(conn))
    await eventually(lambda: scene.cache.metrics.stored > stored, "the refresh")
    assert (first, "hit") == (await conn.scope(scope), scene.how(conn))


async def test_rule_21_an_error_behind_the_limit_is_not_met_and_one_before_it_is_not_stored(scene: CachedScene) -> None:
    conn, direct = await scene.client(), await scene.direct()
    sql = "select 1 / (id - 2) from t order by id"
    for _ in range(2):
        assert await direct.scope(limited(sql, 1)) == await conn.scope(limited(sql, 1))
    assert "hit" == scene.how(conn)
    for _ in range(2):
        assert ["22012"] == (await conn.scope(limited(sql, 2))).errors
        assert "miss" == scene.how(conn)


NOT_ONE_EXECUTE = [
    parse(FIVE) + bind() + execute("", 2) + execute("", 2) + sync(),
    parse(FIVE) + bind() + execute() + execute() + sync(),
    parse(FIVE) + bind() + execute("", 5) + execute("", 5) + sync(),
    parse(FIVE) + bind("", portal="p") + execute("p", 2) + execute("p") + sync(),
    parse(FIVE) + bind("", portal="p") + execute("p", 2) + close_portal("p") + sync(),
    parse(FIVE) + bind() + execute("", 2) + bind() + execute("", 1) + sync(),
    parse(FIVE) + describe_statement() + bind() + execute("", 2) + sync(),
]


async def test_rule_7_what_is_not_one_execute_is_the_origins(scene: CachedScene) -> None:
    """Half a result is not continued, and a finished portal gives no rows again."""
    conn, direct = await scene.client(), await scene.direct()
    for limit in (1, 2, 5):
        await conn.scope(limited(FIVE, limit))
    for scope in [*NOT_ONE_EXECUTE, *NOT_ONE_EXECUTE]:
        assert await direct.scope(scope) == await conn.scope(scope), scope
        assert "portal" == scene.how(conn), scope


async def test_a_portal_does_not_outlive_the_scope_that_a_hit_answered(scene: CachedScene) -> None:
    """Outside a transaction Sync ends it: an Execute behind a hit meets the origin's own error."""
    conn, direct = await scene.client(), await scene.direct()
    for _ in range(2):
        assert await direct.scope(limited(FIVE, 2)) == await conn.scope(limited(FIVE, 2))
    assert "hit" == scene.how(conn)
    more = execute("", 2) + sync()
    expected = await direct.scope(more)
    assert ["34000"] == expected.errors
    assert expected.letters == (await conn.scope(more)).letters


@pytest.mark.parametrize("begin", ["begin", "begin read only"])
async def test_rule_4_inside_a_transaction_a_portal_goes_on_and_is_the_origins(scene: CachedScene, begin: str) -> None:
    await scene.start(cache_in_transactions="always")
    conn, direct = await scene.client(), await scene.direct()
    for _ in range(2):
        await conn.scope(limited(FIVE, 2))
    for one in (conn, direct):
        await one.query(begin)
    for scope in (limited(FIVE, 2), execute("", 2) + sync(), execute("", 2) + sync(), limited(FIVE, 2)):
        assert await direct.scope(scope) == await conn.scope(scope)
    assert "portal" == scene.how(conn)


async def test_asyncpg_mixes_fetch_fetchrow_and_fetchval_in_any_order(scene: CachedScene) -> None:
    draw = random.Random(7)
    await scene.client()
    texts = [(FIVE, ()), ("select v from t where id = $1", (2,)), ("select v from t where id = $1", (99,))]
    async with AsyncExitStack() as stack:
        through, direct = [await asyncpg.connect(url) for url in (scene.proxy.url, scene.origin_url)]
        stack.push_async_callback(through.close)
        stack.push_async_callback(direct.close)
        await through.fetch("select 'settled'")
        before = scene.cache.store.hits
        for _ in range(60):
            (sql, values), how = draw.choice(texts), draw.choice(["fetch", "fetchrow", "fetchval"])
            assert await getattr(direct, how)(sql, *values) == await getattr(through, how)(sql, *values)
        assert scene.cache.store.hits - before >= 60 - 2 * len(texts) - 3
