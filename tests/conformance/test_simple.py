"""Simple queries, direct and through us (protocol-flow#PROTOCOL-FLOW-SIMPLE-QUERY)."""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import function_call, query, sync
from hyperdrive.testing.script import Compare, Script, say

SCRIPTS = [
    Script("one row", [say(query("select 1, 'a'::text, null, true"))]),
    Script("no rows", [say(query("select * from t where false"))]),
    Script("many rows", [say(query("select i, repeat('x', i % 50) from generate_series(1, 3000) i"))]),
    Script("one large value", [say(query("select repeat('0123456789', 200000)"))]),
    Script("empty query", [say(query("")), say(query("  ")), say(query(";")), say(query(";;")), say(query("-- nothing"))]),
    Script("lone sync", [say(sync()), say(sync() * 3, 3)]),
    Script("utf-8", [say(query("select 'grüße, мир, 世界, 🐘' as \"ключ\""))]),
    Script("error with position", [say(query("select nothing from t"))]),
    Script("error with detail and constraint", [say(query("insert into t values (1, 'again')"))]),
    Script(
        "error with hint and context",
        [
            say(query("do $$ begin raise exception 'own' using errcode = 'HD001', hint = 'h', detail = 'd', table = 't'; end $$")),
            say(query("select 1")),
        ],
    ),
    Script("syntax error", [say(query("selec 1")), say(query("select 1"))]),
    Script("bytes that are no utf-8", [say(query(b"select '\xff'")), say(query("select 1"))]),
    Script("two statements", [say(query("select 1; select 2"))]),
    Script("error in the second statement", [say(query("insert into t values (4, 'x'); select 1/0")), say(query("table t"))]),
    Script("error in the first statement", [say(query("select 1/0; insert into t values (4, 'x')")), say(query("table t"))]),
    Script("commit inside a list", [say(query("insert into t values (4, 'x'); commit; select 1/0")), say(query("table t"))]),
    Script("begin inside a list", [say(query("select 1; begin; insert into t values (4, 'x')")), say(query("rollback"))]),
    Script("rollback inside a list", [say(query("insert into t values (4, 'x'); rollback; table t")), say(query("table t"))]),
    Script("begin and commit in one list", [say(query("begin; insert into t values (4, 'x'); commit")), say(query("table t"))]),
    Script("failed block in one list", [say(query("begin; select 1/0; commit")), say(query("select 1")), say(query("rollback"))]),
    Script("insert, update, delete, merge tags", [
        say(query("insert into t values (7, 'a'), (8, 'b')")),
        say(query("update t set v = v || '!' where id > 6 returning *")),
        say(query("merge into t using (values (7)) s(i) on id = i when matched then delete"), 1),
        say(query("delete from t where id = 8")),
        say(query("truncate t")),
    ]),
    Script("utility tags", [
        say(query("create table u (a int)")),
        say(query("create index on u (a)")),
        say(query("comment on table u is 'x'")),
        say(query("analyze u")),
        say(query("vacuum u")),
        say(query("explain (costs off) select * from t")),
        say(query("drop table u")),
        say(query("create table as_made as select * from t")),
        say(query("select * into into_made from t")),
    ]),
    Script("vacuum in a list", [say(query("select 1; vacuum t"))]),
    Script("notices", [
        say(query("do $$ begin raise notice 'one'; raise warning 'two'; raise info 'three'; end $$")),
        say(query("drop table if exists nobody")),
        say(query("do $$ begin raise notice 'before the error'; perform 1/0; end $$")),
    ]),
    Script("notices of another level", [
        say(query("set client_min_messages = debug1")),
        say(query("do $$ begin raise debug 'seen'; end $$")),
        say(query("set client_min_messages = error")),
        say(query("do $$ begin raise warning 'not seen'; end $$")),
    ]),
    Script("pipelined queries", [say(query("select 1") + query("select 2/0") + query("select 3"), 3)]),
    Script("forty pipelined queries", [say(b"".join(query(f"select {i}") for i in range(40)), 40)]),
    Script("cut everywhere", [say(query("select 'cut', 1/0") + query("select 'whole'"), 2, cuts=range(1, 60))]),
    Script("function call", [say(function_call(1714, [b"\0\0\0\x07"])), say(function_call(1397, [b"\xff\xff\xff\xfd"]))]),
    Script("function call in text", [say(function_call(1397, [b"-3"], binary=False))]),
    Script("function call of nothing", [say(function_call(1, [])), say(query("select 1"))]),
    Script("function call with null", [say(function_call(1397, [None]))]),
    Script("function call in a transaction", [
        say(query("begin")),
        say(function_call(1397, [b"\xff\xff\xff\xfd"])),
        say(function_call(1, [])),
        say(function_call(1397, [b"\xff\xff\xff\xfd"])),
        say(query("rollback")),
    ]),
    Script("do and call", [
        say(query("create procedure p(inout a int) language plpgsql as $$ begin insert into log values ('p', a); commit; a := a + 1; end $$")),
        say(query("call p(1)")),
        say(query("begin")),
        say(query("call p(2)")),
        say(query("rollback")),
        say(query("table log")),
        say(query("do $$ begin insert into log values ('d', 1); commit; insert into log values ('d', 2); rollback; end $$")),
        say(query("table log")),
    ]),
    Script("long statement", [say(query("select length('" + "y" * 300_000 + "')"))]),
    Script("many columns", [say(query("select " + ", ".join(f"{i} as c{i}" for i in range(1600))))]),
]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
async def test_simple_queries_are_the_same(script: Script, compare: Compare) -> None:
    await compare(script)
