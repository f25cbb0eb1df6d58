"""SQL that names a statement which the client prepared by protocol: EXPLAIN, EXECUTE and DEALLOCATE, direct and through us."""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import bind, close_statement, execute, extended, parse, query, sync
from hyperdrive.testing.scene import Scene
from hyperdrive.testing.transcript import transcript

S = sync()

NAMED_IN_SQL = {
    "explain execute": [
        query("explain (costs off) execute s1"),
        query("explain (analyze, costs off, timing off, summary off) execute s1"),
    ],
    "explain as an extended query": [extended("explain (costs off) execute s1") + S, extended("execute s1") + S],
    "create table as": [query("create temp table made as execute s1"), query("table made"), query("drop table made")],
    "deallocate among others": [query("select 0; deallocate s1; select 3"), query("execute s1")],
    "deallocate of a name that is not there": [query("select 0; deallocate nobody; select 3"), query("execute s1")],
    "deallocate all among others": [query("select 0; deallocate all; select 3"), query("execute s1")],
    "deallocate and prepare": [
        query("deallocate s1; prepare s1 as select 4; execute s1"),
        query("execute s1"),
        query("deallocate s1"),
    ],
    "prepare among others": [query("select 0; prepare s1 as select 4"), query("execute s1")],
    "execute among others": [query("select 0; execute s1; select 3")],
    "in a transaction": [
        query("begin; execute s1"),
        query("explain (costs off) execute s1"),
        query("select 0; deallocate s1"),
        query("rollback"),
    ],
    "the failed transaction": [
        query("begin; selec"),
        query("explain execute s1"),
        query("select 0; deallocate s1"),
        query("rollback"),
    ],
    "an error behind it": [query("deallocate s1; select 1/0"), query("execute s1")],
    "a close that is skipped": [
        query("execute s1"),
        parse("selec") + close_statement("s1") + S,
        query("execute s1"),
    ],
    "sql's own, closed by the protocol": [
        query("prepare s2 as select 4"),
        close_statement("s2") + S,
        parse("select 6", "s2") + bind("s2") + execute() + S,
    ],
    "lent in a scope that fails": [
        parse("selec") + parse("execute s1") + bind() + execute() + S,
        query("execute s1"),
    ],
    "closed by the protocol": [query("execute s1"), close_statement("s1") + S, query("execute s1")],
}


@pytest.mark.parametrize("case", NAMED_IN_SQL)
async def test_sql_that_names_what_the_protocol_prepared(scene: Scene, case: str) -> None:
    await scene.start(servers=2)
    said = []
    for conn in (await scene.direct(), await scene.client()):
        lines = []
        for data in (
            parse("select 1", "s1") + S,
            *NAMED_IN_SQL[case],
            bind("s1") + execute() + S,
            parse("select 2", "s1") + S,
        ):
            lines += transcript(await conn.scope(data))
        said.append(lines)
    assert said[0] == said[1]
    other = await scene.client()
    assert (await other.scope(parse("select 5", "s1") + bind("s1") + execute() + S)).rows == [("5",)]
