"""One writer, many readers, all through the proxy: every answer is held against the history (caching-rules §15.1, 2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import bind, copy_data, copy_done, describe_portal, execute, parse, query, sync
from hyperdrive.testing.wire import WireConnection

SECONDS = 3.0
KEYS = 4
TABLES = """
create table a (k int primary key, version int); insert into a select n, 0 from generate_series(0, 3) n;
create table b (k int primary key, version int); insert into b select n, 0 from generate_series(0, 3) n;
create table c (k int primary key references a on update cascade on delete cascade, version int);
insert into c select n, 0 from generate_series(0, 3) n;
create view ab as select a.k, a.version as va, b.version as vb from a join b using (k);
create function copies() returns trigger language plpgsql as
 $$begin update c set version = new.version where k = new.k; return new; end$$;
create trigger copies after update on b for each row execute function copies();
create function bumps(int, int) returns int language plpgsql as
 $$begin update a set version = $2 where k = $1; return $2; end$$;
"""

# How the version of a key of table a or b is written. Each is one transaction that the writer is told the end of.
WRITES: list[tuple[str, Callable[[WireConnection, int, int], Awaitable[object]]]] = [
    ("a", lambda conn, k, v: conn.query(f"update a set version = {v} where k = {k}")),
    (
        "a",
        lambda conn, k, v: conn.scope(
            parse("update a set version = $1 where k = $2") + bind("", [str(v), str(k)]) + execute() + sync()
        ),
    ),
    ("a", lambda conn, k, v: conn.query(f"select bumps({k}, {v})")),
    ("a", lambda conn, k, v: conn.query(f"do $$begin update a set version = {v} where k = {k}; end$$")),
    ("a", lambda conn, k, v: conn.query(f"select 1; update a set version = {v} where k = {k}; select 2")),
    ("a", lambda conn, k, v: in_transaction(conn, f"update a set version = {v} where k = {k}")),
    (
        "a",
        lambda conn, k, v: conn.query(
            f"merge into a using (values ({k})) x(k) on a.k = x.k when matched then update set version = {v}"
        ),
    ),
    ("a", lambda conn, k, v: by_copy(conn, k, v)),
    ("b", lambda conn, k, v: conn.query(f"update b set version = {v} where k = {k}")),
]

READS = {
    "a": "select version from a where k = {}",
    "b": "select version from b where k = {}",
    "c": "select version from c where k = {}",
    "va": "select va from ab where k = {}",
    "sub": "select (select version from a where a.k = b.k) from b where k = {}",
    # Its snapshot is some milliseconds older than its answer: time enough for a write to be told of in between.
    "slow": "select version from a where k = {} and (select count(*) from generate_series(1, 20000)) > 0",
}
WEIGHTS = [3, 3, 3, 3, 3, 1]
OF = {"a": "a", "b": "b", "c": "b", "va": "a", "sub": "a", "slow": "a"}


async def in_transaction(conn: WireConnection, sql: str) -> object:
    await conn.query("begin")
    await conn.query(sql)
    return await conn.query("commit")


async def by_copy(conn: WireConnection, k: int, v: int) -> object:
    """A COPY into a table of its own, and an update from it, in one transaction."""
    await conn.query("begin")
    await conn.query("create temp table if not exists incoming (k int, v int) on commit delete rows")
    conn.send(query("copy incoming from stdin"))
    await conn.read_until("G")
    conn.send(copy_data(b"%d\t%d\n" % (k, v)) + copy_done())
    await conn.read_until("Z")
    await conn.query("update a set version = v from incoming i where a.k = i.k")
    return await conn.query("commit")


class History:
    """Per table and key: the last version the writer was told of, and the last one it has begun."""

    def __init__(self) -> None:
        self.told = {(table, k): 0 for table in "ab" for k in range(KEYS)}
        self.begun = dict(self.told)
        self.version = 0
        self.reads = self.hits = 0
        self.over = False


async def write(scene: CachedScene, history: History, seed: int, writes: list[int]) -> None:
    draw = random.Random(seed)
    conn = await scene.client()
    end = asyncio.get_running_loop().time() + SECONDS
    while asyncio.get_running_loop().time() < end:
        table, how = WRITES[draw.choice(writes)]
        place = table, draw.randrange(KEYS)
        history.version += 1
        history.begun[place] = history.version
        await how(conn, place[1], history.version)
        history.told[place] = history.version
        # Its own write, at once.
        found = await conn.value(READS[table].format(place[1]))
        assert found == str(history.version), (place, found)
        if draw.random() < 0.5:
            await asyncio.sleep(draw.random() * 0.02)
    history.over = True


async def read(scene: CachedScene, history: History, seed: int) -> None:
    draw = random.Random(seed)
    conn = await scene.client()
    for name, sql in READS.items():
        await conn.scope(parse(sql.format("$1"), name) + sync())
    while not history.over:
        name, k = draw.choices(list(READS), WEIGHTS)[0], draw.randrange(KEYS)
        place = OF[name], k
        at_least = history.told[place]
        sql = READS[name]
        how = draw.randrange(4)
        if how == 0:
            replies = await conn.query(sql.format(k))
        elif how == 1:
            replies = await conn.scope(
                parse(sql.format("$1")) + bind("", [str(k)]) + describe_portal() + execute() + sync()
            )
        elif how == 2:
            replies = await conn.scope(bind(name, [str(k)]) + execute() + sync())
        else:
            await conn.query("begin read only")
            replies = await conn.query(sql.format(k))
            await conn.query("commit")
        found = int(str(replies.rows[0][0]))
        assert at_least <= found <= history.begun[place], (name, k, how, scene.last(conn))
        history.reads += 1
        history.hits += scene.how(conn) == "hit"


async def alter(scene: CachedScene, history: History, seed: int) -> None:
    """Now and then the schema changes, what is stored expires, or is purged."""
    draw = random.Random(seed)
    conn = await scene.client()
    while not history.over:
        await asyncio.sleep(0.6)
        match draw.randrange(4):
            case 0:
                await conn.query("comment on table a is 'changed'")
            case 1:
                scene.clock.advance(61)
            case 2:
                scene.cache.purge(lambda entry: True)
            case 3:
                await conn.query("create table fresh (x int); drop table fresh")


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "writes", [pytest.param([0, 1, 5, 6], id="known writes"), pytest.param(list(range(len(WRITES))), id="all writes")]
)
async def test_readers_never_see_less_than_the_writer_was_told(
    scene: CachedScene, seed: int, writes: list[int]
) -> None:
    """Whoever asks after a commit was told of sees it, whatever wrote it and however it is asked."""
    await scene.sql(TABLES)
    await scene.start(servers=6)
    history = History()
    async with asyncio.TaskGroup() as group:
        group.create_task(write(scene, history, seed, writes))
        group.create_task(alter(scene, history, seed))
        for number in range(4):
            group.create_task(read(scene, history, 100 * seed + number))
    assert history.reads > 200
    # Most of all writes are unknown ones, behind which everything is asked again.
    assert history.hits > (history.reads / 50 if len(writes) == 4 else 0), (
        f"{history.hits} hits of {history.reads}: nothing is proven"
    )
    conn = await scene.client()
    for (table, k), version in history.told.items():
        for _ in range(2):
            assert str(version) == await conn.value(READS[table].format(k)), "at rest it is the present"
    assert 0 == scene.proxy.metrics.ledger_mismatches
