"""Each way of saving a round trip is counted under its name, and each can be switched off."""

from __future__ import annotations

from collections import Counter

from hyperdrive.control.rows import LocalRows
from hyperdrive.metrics import Saved
from hyperdrive.pool.interfaces import PoolKey
from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import close_statement, describe_statement, parse, query, sync
from hyperdrive.testing.scene import eventually
from hyperdrive.testing.wire import WireConnection, connect

ONE = parse("select v from t where id = $1", "s1") + sync()
CLOSE = close_statement("s1") + sync()
DESCRIBE = describe_statement("s1") + sync()
WRITE, READ = query("update t set v = 'x' where id = 1"), query("select id from t")
BEGIN, COMMIT, ROLLBACK = query("begin"), query("commit"), query("rollback")
WAYS: list[tuple[Saved, list[bytes]]] = [
    (Saved.BEGIN, [BEGIN, query("savepoint a"), ROLLBACK]),
    (Saved.COMMIT, [BEGIN, COMMIT]),
    (Saved.COMMIT, [BEGIN, READ, COMMIT]),
    (Saved.ROLLBACK, [BEGIN, ROLLBACK]),
    (Saved.ROLLBACK, [BEGIN, WRITE, ROLLBACK]),
    (Saved.SETTING, [query("set work_mem = '3MB'")] * 2),
    (Saved.SETTING, [query("show timezone")]),
    (Saved.DISCARD, [query("unlisten *")]),
    (Saved.DISCARD, [query("discard plans")]),
    (Saved.PARSE, [ONE, CLOSE, ONE, CLOSE]),
    (Saved.DESCRIBE, [ONE, DESCRIBE, DESCRIBE, CLOSE]),
    (Saved.EMPTY, [query("")]),
    (Saved.KNOWN, [query("select current_schema()")] * 4),
]
OFF: dict[str, object] = {
    "hold_begin": False,
    "eager_rollback": "off",
    "eager_commit": False,
    "local_settings": False,
    "known_statements": False,
    "known_answers": False,
}


def counted(scene: CachedScene) -> Counter[Saved]:
    found: Counter[Saved] = Counter()
    for stats in scene.proxy.app.proxy.stats.values():
        found += stats.origin_round_trips_saved
    return found


async def ready(scene: CachedScene, **switches: object) -> WireConnection:
    """A client of which it is known who it is and what it may read; no cache of reads saves anything in the place of others."""
    await scene.start(**{"cache": "off", **switches})
    conn = await super(CachedScene, scene).client()
    session = scene.proxy.app.proxy.clients[conn.pid].session
    if not switches:
        await eventually(lambda: session.pipe.is_read_only([b"select id from t"], session.journal.wanted))
    return conn


async def test_each_is_counted(scene: CachedScene) -> None:
    conn = await ready(scene)
    for saved, steps in WAYS:
        before = counted(scene)[saved]
        for step in steps:
            assert (await conn.scope(step)).errors == []
        assert counted(scene)[saved] > before, (saved, steps)


async def test_each_can_be_switched_off(scene: CachedScene) -> None:
    conn = await ready(scene, **OFF)
    for _, steps in WAYS:
        for step in steps:
            assert (await conn.scope(step)).errors == []
    # Names of statements exist here only: there is nobody else to free them.
    closed = sum(steps.count(CLOSE) for _, steps in WAYS)
    assert counted(scene) == {Saved.DISCARD: closed}


async def test_logins_and_hits_are_counted_too(scene: CachedScene) -> None:
    conn = await scene.client()
    rows = LocalRows(scene.proxy.app.proxy, lambda: scene.proxy.app.whole, PoolKey("", ""))

    def samples() -> dict[str, float]:
        (family,) = [one for one in rows.families() if one.name == "hyperdrive_origin_round_trips_saved_total"]
        return {dict(labels)["how"]: value for labels, value in family.samples.items()}

    before = samples()
    for _ in range(3):
        await conn.query("select v from t where id = 2")
    async with await connect(scene.proxy.url):
        after = samples()
    assert after["connect"] == before["connect"] + 1
    assert after["cache"] >= before["cache"] + 1
    assert set(after) <= {how.value for how in Saved}
