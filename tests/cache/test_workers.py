"""One cache per worker: what is written by one is known to the others before its client hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from hyperdrive.app import App, Membership
from hyperdrive.config.loader import loader_for
from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.scene import eventually
from hyperdrive.testing.wire import WireConnection, connect

READ = "select v from t where id = 1"


class Workers:
    """Apps in one process that think they are workers of one port; each has a port of its own."""

    def __init__(self, scene: CachedScene, directory: Path) -> None:
        self.scene, self.directory = scene, str(directory)
        self.apps: dict[int, App] = {}
        self._stack = AsyncExitStack()

    async def start(self, number: int, count: int = 2, **overrides: str) -> App:
        flags = {"origin": self.scene.origin_url, "listen": "127.0.0.1:0", "admin_listen": "off", "catalog_poll": "1h"}
        flags |= overrides
        settings = loader_for(None, flags, env={}).load()
        app = App(settings, member=Membership(number, count, self.directory))
        await app.__aenter__()
        self.apps[number] = app
        return app

    async def stop(self, number: int) -> None:
        await self.apps.pop(number).close()

    async def client(self, number: int) -> WireConnection:
        """A client of that worker whose reads may be served."""
        app = self.apps[number]
        dsn = app.dsn
        url = f"postgresql://{dsn.user}:{dsn.password}@127.0.0.1:{app.port}/{dsn.database}"
        conn = await self._stack.enter_async_context(await connect(url))

        said = ""

        async def is_known() -> bool:
            nonlocal said
            await conn.query("select 'settled'")
            reader = app.proxy.clients[conn.pid].reader
            said = reader.last_read() if reader is not None else ""
            return self.how(number, conn) in ("hit", "miss")

        try:
            await eventually(is_known, "a session whose reads may be served")
        except AssertionError as error:
            raise AssertionError(f"{said}; {app.proxy.cache.suspended}; {app.proxy.cache.databases}") from error
        return conn

    def how(self, number: int, conn: WireConnection) -> str:
        reader = self.apps[number].proxy.clients[conn.pid].reader
        assert reader is not None
        return str(reader.last_rule.value) if reader.last_kind == "bypass" and reader.last_rule else reader.last_kind

    async def close(self) -> None:
        await self._stack.aclose()
        for number in list(self.apps):
            await self.stop(number)


@pytest.fixture
async def workers(scene: CachedScene, tmp_path: Path) -> AsyncIterator[Workers]:
    found = Workers(scene, tmp_path)
    yield found
    await found.close()


async def test_a_write_by_one_worker_is_read_by_the_other_at_once(workers: Workers) -> None:
    """Two hundred times: whoever has heard of a commit never meets what was there before it, whichever worker it asks."""
    await workers.start(0)
    await workers.start(1)
    writer, reader = await workers.client(0), await workers.client(1)
    hits = 0
    for number in range(200):
        assert ["UPDATE 1"] == (await writer.query(f"update t set v = '{number}' where id = 1")).tags
        for _ in range(2):
            assert [(str(number),)] == (await reader.query(READ)).rows
        hits += workers.how(1, reader) == "hit"
    assert hits > 150, "a cache that serves nothing proves nothing"


async def test_unknown_writes_and_ddl_are_told_too(workers: Workers) -> None:
    await workers.start(0)
    await workers.start(1)
    writer, reader = await workers.client(0), await workers.client(1)
    for change in (
        "do $$begin update t set v = 'done' where id = 1; end$$",
        "alter table t alter column v set default 'x'",
        "begin; update t set v = 'again' where id = 1; commit",
    ):
        await reader.query(READ)
        await writer.query(change)
        expected = await workers.scene.ask(READ)
        assert [(expected,)] == (await reader.query(READ)).rows, change


async def test_a_worker_that_dies_takes_nothing_with_it_and_comes_back(workers: Workers) -> None:
    """Nothing is heard of it: everything is dropped, since its last words are missing; when it is back it is heard again."""
    await workers.start(0)
    await workers.start(1)
    reader = await workers.client(1)
    for _ in range(2):
        await reader.query(READ)
    await workers.stop(0)
    await workers.scene.sql("update t set v = 'by nobody' where id = 1")
    await eventually(lambda: not workers.apps[1].proxy.cache.suspended, "it is known to be gone")
    assert [("by nobody",)] == (await reader.query(READ)).rows
    await workers.start(0)
    writer = await workers.client(0)
    for number in range(20):
        await writer.query(f"update t set v = '{number}' where id = 1")
        assert [(str(number),)] == (await reader.query(READ)).rows


async def test_a_link_that_breaks_is_made_anew_and_nothing_is_served_meanwhile(workers: Workers) -> None:
    first, second = await workers.start(0), await workers.start(1)
    writer, reader = await workers.client(0), await workers.client(1)
    assert first._fanout is not None
    for _ in range(2):
        await reader.query(READ)
    before = second.proxy.cache.metrics.invalidations_unknown
    first._fanout._links[1].close()
    await eventually(lambda: second.proxy.cache.metrics.invalidations_unknown > before, "noticed")
    await reader.query(READ)
    await eventually(lambda: not second.proxy.cache.suspended and 1 in first._fanout._links, "linked again")
    for number in range(20):
        await writer.query(f"update t set v = '{number}' where id = 1")
        assert [(str(number),)] == (await reader.query(READ)).rows


async def test_while_a_worker_is_not_heard_of_nothing_is_served(workers: Workers) -> None:
    """Nor to those that were served before, whose settings need no second look; nor is anything stored."""
    await workers.start(0)
    reader = await workers.client(0)
    suspended = workers.apps[0].proxy.cache.suspended
    for _ in range(2):
        await reader.query(READ)
    assert "hit" == workers.how(0, reader)
    suspended.add(7)
    workers.apps[0].proxy.cache.databases[workers.apps[0].dsn.database].domain.touch_all()
    for sql in (READ, READ, "select typname from pg_type where oid = 25"):
        await reader.query(sql)
        assert "stream-down" == workers.how(0, reader)
    suspended.clear()
    for _ in range(2):
        await reader.query(READ)
    assert "hit" == workers.how(0, reader)


async def test_a_gap_drops_everything(workers: Workers) -> None:
    first, second = await workers.start(0), await workers.start(1)
    reader = await workers.client(1)
    for _ in range(2):
        await reader.query(READ)
    assert first._fanout is not None
    link = first._fanout._links[1]
    link.number += 5
    heard: list[bool] = []
    announcement = first._fanout.announce(first.proxy.cache.databases[first.dsn.database], [1], False)
    assert announcement is not None
    announcement.when_heard(lambda: heard.append(True))
    await eventually(lambda: heard, "the answer")
    await reader.query(READ)
    assert "miss" == workers.how(1, reader)
    assert second.proxy.cache.metrics.invalidations_unknown >= 1


async def test_nothing_is_lost_when_a_link_is_made_anew(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two may be asked for at once when workers begin: what was said on the first, and is still here, must arrive, and be answered."""
    first, second = await workers.start(0), await workers.start(1)
    assert first._fanout is not None
    assert second._fanout is not None
    applied: list[int] = []
    monkeypatch.setattr(second._fanout, "_apply", lambda said: applied.append(said["n"]))
    client = await workers.client(0)
    database = first.proxy.clients[client.pid].reader._pool.database  # type: ignore[union-attr]
    applied.clear()
    heard: list[None] = []
    for _ in range(100):
        announcement = first._fanout.announce(database, range(20_000), False)
        assert announcement is not None
        announcement.when_heard(lambda: heard.append(None))
    await first._fanout.link(1)
    await eventually(lambda: len(heard) == 100, "all were heard")
    assert len(applied) == 100


async def test_links_that_are_made_at_the_same_time_come_to_one(workers: Workers) -> None:
    """As when all workers begin: one that has been replaced before it was answered is not written to any more."""
    first, second = await workers.start(0), await workers.start(1)
    assert first._fanout is not None
    assert second._fanout is not None
    await asyncio.gather(*(first._fanout.link(1) for _ in range(5)), *(second._fanout.link(0) for _ in range(5)))
    followed = [first._fanout._followed, second._fanout._followed]
    await eventually(lambda: followed == [{1: 1}, {0: 1}], "one link each way")
    writer, reader = await workers.client(0), await workers.client(1)
    await reader.query(READ)
    await writer.query("update t set v = 'linked' where id = 1")
    assert "linked" in str(await reader.query(READ))


async def test_a_link_that_is_cut_after_another_took_its_place_drops_everything(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was still to be said on it is not known, and the other counts from one."""
    first, second = await workers.start(0), await workers.start(1)
    assert first._fanout is not None
    assert second._fanout is not None
    old = first._fanout._links[1]
    dropped: list[None] = []
    monkeypatch.setattr(second._fanout, "_drop_all", lambda: dropped.append(None))
    monkeypatch.setattr(old, "retire", lambda: None)
    await first._fanout.link(1)
    old.close()
    await eventually(lambda: dropped, "everything is dropped")
    assert second._fanout._followed[0] == 1


async def test_a_worker_that_does_not_answer_holds_nobody_up_for_ever(workers: Workers) -> None:
    from hyperdrive.control import fanout

    first = await workers.start(0)
    await workers.start(1)
    writer = await workers.client(0)
    assert first._fanout is not None
    link = first._fanout._links[1]
    link.answered = lambda number: None  # type: ignore[method-assign]
    started = asyncio.get_running_loop().time()
    await writer.query("update t set v = 'slow' where id = 1")
    assert asyncio.get_running_loop().time() - started < fanout.HEARD_SECONDS + 2


async def test_purges_are_told(workers: Workers) -> None:
    first, second = await workers.start(0), await workers.start(1)
    readers = [await workers.client(0), await workers.client(1)]
    for reader in readers:
        for _ in range(2):
            await reader.query(READ)
    before = len(first.proxy.cache.store) + len(second.proxy.cache.store)
    assert before == await first.control.purge("all", "")
    assert (0, 0) == (len(first.proxy.cache.store), len(second.proxy.cache.store))


async def test_nothing_is_served_while_another_worker_says_nothing(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stands still is given up by the others, who go on writing, before it can know. So it has to have heard of them lately."""
    from hyperdrive.control import fanout

    monkeypatch.setattr(fanout, "BEAT_SECONDS", 3600.0)
    first, second = await workers.start(0), await workers.start(1)
    assert first._fanout is not None
    link = first._fanout._links[1]
    reader = await workers.client(1)
    link.beat()
    for _ in range(3):
        await reader.query(READ)
    assert "hit" == workers.how(1, reader)
    assert second._fanout is not None
    second._fanout._vouch(0, fanout.SystemClock.now() - fanout.VOUCHED_SECONDS)
    for _ in range(2):
        await reader.query(READ)
        assert "miss" == workers.how(1, reader)
    link.beat()

    async def is_served() -> bool:
        await reader.query(READ)
        return workers.how(1, reader) == "hit"

    await eventually(is_served, "it is heard of again")


async def test_a_worker_that_always_has_something_to_say_is_not_given_up(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its words is answered at once; that there is always one on its way is no sign of a slow worker."""
    from hyperdrive.control import fanout

    monkeypatch.setattr(fanout, "HEARD_SECONDS", 0.3)
    first, _ = await workers.start(0), await workers.start(1)
    await workers.client(0)
    assert first._fanout is not None
    link = first._fanout._links[1]
    database = first.proxy.cache.databases[first.dsn.database]
    end = asyncio.get_running_loop().time() + 1.0
    while asyncio.get_running_loop().time() < end:
        first._fanout.announce(database, [1], False)  # an answer takes more than one turn of the loop
        await asyncio.sleep(0)
        assert link.waiting
    assert first._fanout._links[1] is link


async def test_a_write_passes_although_the_link_has_just_been_cut(workers: Workers) -> None:
    """What cannot be said to a worker that was given up is nobody's fault; that worker serves nothing by then."""
    first = await workers.start(0)
    await workers.start(1)
    writer = await workers.client(0)
    assert first._fanout is not None
    first._fanout._links[1].writer.transport.abort()
    replies = await writer.query("update t set v = 'cut' where id = 1")
    assert (["UPDATE 1"], []) == (replies.tags, replies.errors)
