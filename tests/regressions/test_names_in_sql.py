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


FREES = parse("deallocate s1", "free") + bind("free", portal="later")

FREED: dict[str, list[list[bytes]]] = {
    "behind another scope": [[parse("select 1") + S, extended("deallocate s1") + S, bind() + execute() + S]],
    "alone": [[extended("deallocate s1") + S]],
    "in a transaction": [[query("begin")], [extended("deallocate s1") + S], [query("rollback")]],
    "only parsed": [[parse("deallocate s1", "free") + S]],
}
FREED_THERE = FREED | {
    "by a portal of an earlier scope": [[query("begin")], [FREES + S], [execute("later") + S], [query("commit")]],
}
"""Here the origin has to have the name, so it has to be able to read the text."""


@pytest.mark.parametrize(
    ("case", "is_gone"), [(case, True) for case in FREED] + [(case, False) for case in FREED_THERE]
)
async def test_a_statement_is_freed_though_its_table_is_gone(scene: Scene, case: str, is_gone: bool) -> None:
    """DEALLOCATE reads no statement, so what has become of its table cannot fail it."""
    await scene.start(servers=1)
    said = []
    for conn in (await scene.direct(), await scene.client()):
        await conn.query("create table gone (v int)")
        await conn.scope(parse("select v from gone", "s1") + S)
        if is_gone:
            await conn.query("drop table gone")
        lines = []
        for flight in [*FREED_THERE[case], [parse("select 2", "s1") + S]]:
            lines += transcript(await conn.scope(b"".join(flight), ready=len(flight)))
        said.append(lines)
        await conn.query("drop table if exists gone")
    assert said[0] == said[1]


async def test_a_name_that_cannot_be_lent_fails_its_scope(scene: Scene) -> None:
    """The client hears why, and the name can be lent when the table is there again (W-24)."""
    await scene.start(servers=1)
    client = await scene.client()
    await client.query("create table gone (v int)")
    await client.scope(parse("select v from gone", "s1") + S)
    await client.query("drop table gone")
    for _ in range(2):
        replies = await client.scope(parse("select 1") + S + extended("execute s1") + S, ready=2)
        assert replies.errors == ["42P01"]
        assert replies[-1].kind == "Z"
    await client.query("create table gone (v int)")
    assert (await client.scope(extended("execute s1") + S)).tags == ["SELECT 0"]
    await client.query("drop table gone")
