"""What people see of the cache, and how they drop what is in it: console, HTTP, command line, metrics."""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import bind, execute, parse, sync
from hyperdrive.testing.wire import WireConnection, connect

READ = "select v from t where id = 1"


async def console(scene: CachedScene, command: str) -> list[dict[str, Any]]:
    """What a command says, by column."""
    url = scene.proxy.url.rpartition("/")[0] + "/hyperdrive"
    async with await connect(url) as conn:
        replies = await conn.query(command)
        assert not replies.errors, replies
        described = next((m for m in replies if m.kind == "T"), None)
        if described is None:
            return [{"tag": replies.tags[0]}]
        names, at = [], 2
        for _ in range(int.from_bytes(described.body[:2], "big")):
            end = described.body.index(b"\0", at)
            names.append(described.body[at:end].decode())
            at = end + 19
        return [dict(zip(names, row, strict=True)) for row in replies.rows]


async def test_show_cache(scene: CachedScene) -> None:
    conn = await scene.client()
    for _ in range(3):
        await conn.query(READ)
    total, database = await console(scene, "SHOW CACHE")
    assert ("*", "on") == (total["database"], total["state"])
    assert int(total["hits"]) >= 2
    assert int(total["size"]) > 0
    assert ("cached", "on", total["entries"]) == (database["database"], database["state"], database["entries"])


async def test_show_tables(scene: CachedScene) -> None:
    await scene.sql("create unlogged table volatile (id int); alter table other enable row level security")
    conn = await scene.client()
    await conn.query("select * from t join parted on k = id")
    rows = {row["table"]: row for row in await console(scene, "SHOW TABLES")}
    assert ("1", "75 s", "yes", "1") == tuple(rows["public.t"][k] for k in ("rung", "bound", "cached", "entries"))
    assert "1" == rows["public.parted_2"]["entries"]
    assert "no" == rows["public.volatile"]["cached"]
    assert "row security" in rows["public.other"]["why"]
    assert not any(name.startswith("pg_catalog") for name in rows)


async def test_show_statements(scene: CachedScene) -> None:
    conn = await scene.client()
    for _ in range(4):
        await conn.query(READ)
        await conn.query("select now()")
    rows = {row["statement"]: row for row in await console(scene, "SHOW STATEMENTS")}
    good, bad = rows["select v from t where id = ?"], rows["select now()"]
    assert ("cacheable", "public.t", "4", "3", "1") == tuple(
        good[k] for k in ("verdict", "depends_on", "calls", "hits", "misses")
    )
    assert ("refused", "function", "now()", "4") == tuple(bad[k] for k in ("verdict", "rule", "object", "bypasses"))


async def test_shadow_mode_serves_nothing_and_counts(scene: CachedScene) -> None:
    """§15.10: would-be hits, and would-be-stale answers."""
    await scene.start(cache="shadow")
    conn = await scene.client()
    for _ in range(3):
        await conn.query(READ)
        assert "miss" == scene.how(conn)
    await scene.sql("update t set v = 'past us' where id = 1")
    assert [("past us",)] == (await conn.query(READ)).rows
    (row,) = [
        row for row in await console(scene, "SHOW STATEMENTS") if row["statement"] == "select v from t where id = ?"
    ]
    assert ("3", "1", "0") == (row["would_be_hits"], row["would_be_stale"], row["hits"])


async def test_shadow_mode_counts_what_would_have_been_served_until_it_expires(scene: CachedScene) -> None:
    """An answer of the origin does not make the shadow younger: served, it would be wrong again and again."""
    await scene.start(cache="shadow")
    conn = await scene.client()
    await conn.query(READ)
    await scene.sql("update t set v = 'past us' where id = 1")
    for _ in range(3):
        assert [("past us",)] == (await conn.query(READ)).rows
    reads = scene.cache.reads
    assert (3, 3) == (reads.shadow_hits, reads.shadow_stale)
    assert reads.shadow_saved_seconds > 0.0
    scene.clock.advance(61)
    await conn.query(READ)
    assert (4, 4) == (reads.shadow_hits, reads.shadow_stale), "stale, and asked for again"
    await conn.query(READ)
    assert (5, 4) == (reads.shadow_hits, reads.shadow_stale)
    await conn.query("update t set v = 'through us' where id = 1")
    await conn.query(READ)
    assert (5, 4) == (reads.shadow_hits, reads.shadow_stale), "dropped: it would have been a miss"
    row = next(r for r in await console(scene, "SHOW STATEMENTS") if r["statement"] == "select v from t where id = ?")
    assert ("5", "4", "0") == (row["would_be_hits"], row["would_be_stale"], row["hits"])
    assert 0 == scene.cache.store.hits


@pytest.mark.parametrize(
    "ahead",
    ["begin", "set hyperdrive.max_staleness = 0.000001", "set hyperdrive.cache = off"],
    ids=["in a transaction that may write", "too old for the session", "off"],
)
async def test_shadow_mode_does_not_count_what_would_not_have_been_served(scene: CachedScene, ahead: str) -> None:
    await scene.start(cache="shadow")
    conn = await scene.client()
    await conn.query(READ)
    await conn.query(ahead)
    await conn.query(READ)
    assert 0 == scene.cache.reads.shadow_hits


async def test_shadow_mode_admits_as_if_it_served(scene: CachedScene) -> None:
    """A hit rate of zero would make it choosy, as nothing is ever served."""
    await scene.start(cache="shadow")
    conn = await scene.client()
    for _ in range(600):
        await conn.query("select v from t where id = 3")
    assert not scene.cache.store.door.is_strict


PURGES = [
    ("PURGE", {"t", "other", "tagged"}),
    ("PURGE ALL", {"t", "other", "tagged"}),
    ("PURGE TABLE t", {"t", "tagged"}),
    ("PURGE TABLE public.other", {"other"}),
    ("PURGE TAG products", {"tagged"}),
    (f"PURGE STATEMENT '{READ}'", {"t"}),
    ("PURGE STATEMENT 'select v from t where id = 99'", {"t"}),
    ("PURGE ROLE postgres", {"t", "other", "tagged"}),
    ("PURGE TAG nothing", set[str]()),
]


async def filled(scene: CachedScene) -> tuple[WireConnection, Callable[[], Any]]:
    conn = await scene.client()
    reads = {
        "t": READ,
        "other": "select * from other",
        "tagged": "select count(*) from t /* hyperdrive: tag=products */",
    }
    for sql in reads.values():
        await scene.ask_twice(conn, sql)
        assert "hit" == scene.how(conn)

    async def missing() -> set[str]:
        found = set()
        for name, sql in reads.items():
            await conn.query(sql)
            if scene.how(conn) == "miss":
                found.add(name)
        return found

    return conn, missing


@pytest.mark.parametrize(("command", "gone"), PURGES)
async def test_purge_in_the_console(scene: CachedScene, command: str, gone: set[str]) -> None:
    _, missing = await filled(scene)
    (said,) = await console(scene, command)
    assert said["tag"].startswith("PURGE ")
    assert gone == await missing()


async def test_a_tag_of_a_hint_is_added_on_a_hit(scene: CachedScene) -> None:
    """§2: the entry was made without it, and a purge by that tag must find it all the same."""
    conn = await scene.client()
    spaced = f"{READ}  "  # each comment is one space in the key
    await scene.ask_twice(conn, spaced)
    await conn.query(f"{READ} /* hyperdrive: tag=late */")
    assert "hit" == scene.how(conn)
    await console(scene, "PURGE TAG late")
    await conn.query(spaced)
    assert "miss" == scene.how(conn)


async def test_what_is_under_way_is_not_stored_behind_a_purge(scene: CachedScene) -> None:
    conn = await scene.client()
    async with await scene.direct() as locker:
        await locker.query("begin; lock table t in access exclusive mode")
        conn.send(parse(READ) + bind() + execute() + sync())
        while not await scene.is_waiting("relation"):
            await asyncio.sleep(0.01)
        await console(scene, "PURGE")
        await locker.query("commit")
        await conn.read_until("Z")
    stored = scene.cache.metrics.stored
    await conn.scope(parse(READ) + bind() + execute() + sync())
    assert ("miss", stored + 1) == (scene.how(conn), scene.cache.metrics.stored)


async def test_purge_needs_an_admin_and_a_table_that_exists(scene: CachedScene) -> None:
    await scene.client()
    url = scene.proxy.url.rpartition("/")[0] + "/hyperdrive"
    async with await connect(url) as conn:
        assert ["42P01"] == (await conn.query("PURGE TABLE nowhere.nothing")).errors
        assert ["42601"] == (await conn.query("PURGE EVERYTHING NOW")).errors


def post(
    port: int, body: bytes, *, content_type: str = "application/json", host: str = "localhost"
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", "/api/purge", body, {"content-type": content_type, "host": host})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


async def test_purge_by_http(scene: CachedScene) -> None:
    await scene.start(admin_listen="127.0.0.1:0")
    _, missing = await filled(scene)
    port = scene.proxy.app.admin_port
    status, body = await asyncio.to_thread(post, port, b'{"table": "public.t"}')
    assert (200, {"purged": 2}) == (status, json.loads(body))
    assert {"t", "tagged"} == await missing()
    assert 415 == (await asyncio.to_thread(post, port, b'{"all": true}', content_type="text/plain"))[0]
    assert 403 == (await asyncio.to_thread(lambda: post(port, b'{"all": true}', host="evil.example")))[0]
    assert 400 == (await asyncio.to_thread(post, port, b'{"all": true, "tag": "x"}'))[0]
    assert 400 == (await asyncio.to_thread(post, port, b'{"table": "nothing"}'))[0]
    assert set() == await missing()


async def test_purge_by_the_command_line(scene: CachedScene) -> None:
    await scene.start(admin_listen="127.0.0.1:0")
    _, missing = await filled(scene)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hyperdrive", "purge", "--tag", "products"),
        *("--admin", f"127.0.0.1:{scene.proxy.app.admin_port}"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert (0, b"1 answer dropped\n") == (process.returncode, out)
    assert {"tagged"} == await missing()


async def test_metrics(scene: CachedScene) -> None:
    conn = await scene.client()
    for _ in range(3):
        await conn.query(READ)
    await conn.query("select now()")
    families = {family.name: family for family in scene.proxy.app.control.families()}
    queries = families["hyperdrive_queries_total"].samples
    assert queries[(("cache", "hit"),)] >= 2
    assert queries[(("cache", "miss"),)] >= 1
    assert families["hyperdrive_cache_bypasses_total"].samples[(("rule", "function"),)] == 1
    assert families["hyperdrive_cache_bytes"].samples[()] == scene.cache.store.size_bytes > 0
    assert families["hyperdrive_cache_entries"].samples[()] == len(scene.cache.store)
