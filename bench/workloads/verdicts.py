"""What it costs to decide whether a read may be cached. CPU in this process, with the origin's real catalog, no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

from bench.micro.classify import microseconds
from bench.results import Outcome
from bench.suite import Suite
from bench.targets import USER
from hyperdrive.proxy.catalog import load
from hyperdrive.sql.catalog import Catalog
from hyperdrive.sql.readers import ReadVerdicts

KNOWN_US = 1.0
FIRST_US = 60.0

# {0} is another name each time (a new shape), {1} another number.
READS = {
    "by key": "SELECT name AS a{0}, price FROM bench_items WHERE id = {1}",
    "with a comment": "SELECT name AS a{0}, price FROM bench_items WHERE id = {1} /* traceparent='00-5bd6-a371-01' */",
    "aggregate": "SELECT count(*) AS a{0}, sum(amount) FROM bench_facts WHERE kind = {1} AND id IN (1, 2, 3)",
    "join": "SELECT p.name AS a{0}, c.name FROM shop_product p JOIN shop_category c ON c.id = p.category_id WHERE p.id = {1}",
    "WITH": "WITH x AS (SELECT id, v FROM (SELECT id, n AS v FROM bench_counters) s) SELECT x.v AS a{0} FROM x WHERE x.id = {1}",
}


def verdicts(suite: Suite) -> Outcome:
    """Reads of several kinds; the promise is about a read by key."""
    outcome = Outcome(
        "verdicts",
        "deciding about a statement",
        "Microseconds of CPU to say whether a read may be cached and on what it depends: when PostgreSQL's parser has to read it, when its "
        "shape is known and a literal is another, and when the text is known. The promise is for a read by primary key; others are "
        "longer to read.",
    )
    catalog = asyncio.run(_catalog(suite))
    for number in range(suite.plan.rounds):
        suite.live.where = f"{outcome.title}, round {number + 1}/{suite.plan.rounds}"
        for name, text in READS.items():
            suite.live.now(name)
            for what, act in _acts(catalog, text).items():
                outcome.add(f"{what}, {name}", "us", "µs", microseconds(act))
    suite.live.where = ""
    for what, limit in (("known", KNOWN_US), ("first sight", FIRST_US)):
        found = outcome.find(f"{what}, by key", "us")
        outcome.promise(f"a verdict, {what}", "at most", limit, "µs", found.samples if found else [])
    return outcome


async def _catalog(suite: Suite) -> Catalog:
    import asyncpg

    connection = await asyncpg.connect(suite.address.url)
    try:
        found = await load(connection)
    finally:
        await connection.close()
    if found is None:
        raise RuntimeError("the catalog could not be loaded")
    return found


def _acts(catalog: Catalog, text: str) -> dict[str, Callable[[], object]]:
    """The three ways to meet *text*."""
    path = catalog.path("public", catalog.roles[USER].oid)
    assert path is not None
    cache, numbers = ReadVerdicts(), count()
    cache.use(catalog)
    known = text.format(0, 0).encode()
    for _ in range(3):  # what has literals in it is stored on second sight
        cache.read(known, path)

    def first_sight() -> object:
        number = next(numbers)
        return cache.read(text.format(number, number).encode(), path)

    def known_shape() -> object:
        return cache.read(text.format(0, next(numbers)).encode(), path)

    return {
        "first sight": first_sight,
        "another literal": known_shape,
        "known": lambda: cache.read(known, path),
    }
