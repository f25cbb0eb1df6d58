"""Transactions, savepoints, cursors and locks, direct and through us."""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import bind, describe_portal, execute, extended, parse, query, sync
from hyperdrive.testing.script import Compare, Script, Step, say

S = sync()


def queries(*statements: str) -> list[Step]:
    return [say(query(sql)) for sql in statements]


ISOLATION = "show transaction_isolation"

SCRIPTS = [
    Script("commit", queries("begin", "insert into t values (4, 'x')", "commit", "table t")),
    Script("rollback", queries("begin", "insert into t values (4, 'x')", "rollback", "table t")),
    Script("other words", queries("start transaction", "insert into t values (4, 'x')", "end", "begin work", "select 1", "abort",
                                  "begin transaction", "commit transaction", "table t")),
    Script("nothing in between", queries("begin", "commit", "begin", "rollback", "start transaction", "commit", "select 1")),
    Script("begin as an extended query", [
        say(parse("begin") + bind() + describe_portal() + execute() + S), say(query("insert into t values (4, 'x')")),
        say(parse("commit") + bind() + describe_portal() + execute() + S), say(query("table t")),
    ]),
    Script("begin and the first statement in one write", [
        say(query("begin") + query("insert into t values (4, 'x')"), 2), say(query("commit") + query("table t"), 2),
        say(extended("begin") + S + extended("select 1") + S + extended("commit") + S, 3),
        say(extended("begin") + extended("select 1") + extended("commit") + S),
    ]),
    Script("an error and commit", queries("begin", "insert into t values (4, 'x')", "select 1/0", "select 1", "commit", "table t")),
    Script("an error first", queries("begin", "select 1/0", "select 1", "commit", "select 1")),
    Script("a syntax error first", queries("begin", "selec", "rollback", "select 1")),
    Script("no transaction", queries("commit", "rollback", "end", "abort", "commit and chain", "rollback and chain", "savepoint a",
                                     "release a", "rollback to a", "lock t", "declare c cursor for select 1", "set local work_mem = '1MB'",
                                     "set transaction read only", "set constraints all deferred")),
    Script("a second begin", queries("begin", "begin", "select 1", "begin", "commit")),
    Script("chains", queries("begin isolation level repeatable read", "select 1", "commit and chain", ISOLATION, "rollback and chain",
                             ISOLATION, "select 1/0", "commit and chain", ISOLATION, "rollback and no chain", ISOLATION)),
    Script("modes", queries("begin isolation level serializable, read only, deferrable", ISOLATION, "show transaction_read_only",
                            "show transaction_deferrable", "commit", "begin read only", "insert into t values (4, 'x')", "rollback",
                            "begin read write", "insert into t values (4, 'x')", "rollback", "begin isolation level nonsense", "commit")),
    Script("set transaction", queries("begin", "set transaction isolation level repeatable read", ISOLATION, "set transaction read only",
                                      "select 1", "set transaction isolation level serializable", "rollback", ISOLATION)),
    Script("session characteristics", queries("set session characteristics as transaction isolation level repeatable read", ISOLATION,
                                              "begin", ISOLATION, "commit", "set session characteristics as transaction read only",
                                              "insert into t values (4, 'x')", "reset default_transaction_read_only",
                                              "insert into t values (4, 'x')", "reset all", ISOLATION)),
    Script("default isolation set before a transaction", queries("set default_transaction_isolation = 'serializable'", "begin", ISOLATION,
                                                                 "commit", "set default_transaction_read_only = on", "begin",
                                                                 "insert into t values (4, 'x')", "rollback")),
    Script("savepoints", queries("begin", "savepoint a", "insert into t values (4, 'a')", "savepoint b", "insert into t values (5, 'b')",
                                 "rollback to b", "table t", "release a", "rollback to b", "rollback to savepoint a", "commit", "table t")),
    Script("savepoint and error", queries("begin", "insert into t values (4, 'x')", "savepoint a", "select 1/0", "select 1",
                                          "rollback to a", "select 1", "commit", "table t")),
    Script("savepoint first", queries("begin", "savepoint a", "rollback to a", "savepoint a", "release a", "commit")),
    Script("unknown savepoint", queries("begin", "rollback to nowhere", "rollback to nowhere", "rollback", "begin", "release nowhere", "commit")),
    Script("savepoint names compare as written", queries("begin", 'savepoint "A"', "rollback to a", "rollback to \"A\"", "commit")),
    Script("cursors", queries("begin", "declare c cursor for select i from generate_series(1, 5) i", "fetch 2 from c", "move 1 in c",
                              "fetch all from c", "fetch 1 from c", "close c", "close c", "rollback")),
    Script("scroll cursors", queries("begin", "declare c scroll cursor for table t", "fetch last c", "fetch first c", "fetch backward 1 c",
                                     "fetch absolute 2 c", "update t set v = 'here' where current of c", "commit")),
    Script("cursors die with their transaction", queries("begin", "declare c cursor for table t", "commit", "fetch 1 from c")),
    Script("cursors with hold", queries("declare h cursor with hold for select i from generate_series(1, 5) i", "fetch 2 from h",
                                        "begin", "fetch 1 from h", "commit", "fetch 1 from h", "close h", "fetch 1 from h"), servers=2),
    Script("cursor with hold rolled back", queries("begin", "declare h cursor with hold for table t", "rollback", "fetch 1 from h"), servers=2),
    Script("binary cursor", queries("begin", "declare c binary cursor for select 7::int4", "fetch 1 from c", "rollback")),
    Script("deferred constraint at commit", queries("begin", "insert into child values (1)", "commit", "table child", "begin",
                                                    "insert into child values (1)", "set constraints all immediate", "rollback"),
           setup="create table parent (id int primary key); create table child (id int references parent deferrable initially deferred);"),
    Script("two-phase commit", queries("begin", "insert into t values (4, 'x')", "prepare transaction 'one'", "select 1",
                                       "commit prepared 'one'", "table t", "begin", "insert into t values (5, 'x')",
                                       "prepare transaction 'two'", "rollback prepared 'two'", "rollback prepared 'none'", "table t",
                                       "begin", "select 1/0", "prepare transaction 'three'", "select 1")),
    Script("exported snapshot of one's own", queries("begin isolation level repeatable read", "select count(pg_export_snapshot())",
                                                     "commit", "begin isolation level repeatable read",
                                                     "set transaction snapshot '00000003-0000001B-1'", "rollback")),
    Script("read only lets some through", queries("begin read only", "select pg_advisory_xact_lock(7)", "notify nobody", "commit",
                                                  "begin read only", "select nextval('s')", "rollback"), setup="create sequence s;"),
    Script("sequence and currval in one transaction", queries("begin", "select nextval('s')", "select currval('s'), lastval()", "commit"),
           setup="create sequence s;"),
    Script("statement_timeout", queries("set statement_timeout = '20ms'", "select pg_sleep(5)", "begin", "select pg_sleep(5)", "rollback",
                                        "reset statement_timeout", "select pg_sleep(0.03)")),
    Script("two clients", [
        say(query("begin")), say(query("select 1"), client="b"), say(query("insert into t values (4, 'a')")),
        say(query("select count(*) from t"), client="b"), say(query("commit")), say(query("select count(*) from t"), client="b"),
        say(query("begin") + query("select 'b'"), 2, client="b"), say(query("select 'a'")), say(query("rollback"), client="b"),
    ], servers=3),
    Script("a lock not available", [
        say(query("begin; select * from t for update")), say(query("select * from t for update nowait"), client="b"), say(query("rollback")),
        say(query("select * from t for update nowait"), client="b"),
    ], servers=3),
    *[
        Script(f"{first} and modes behind it", queries(*[sql for again in range(2) for modes in (
            "set transaction isolation level serializable", "begin isolation level serializable", "begin read only, read write")
            for sql in ("begin", first, modes, "show transaction_isolation", "rollback")]))
        for first in ("deallocate all", "discard plans", "discard temp", "unlisten *", "close all", "show work_mem", "begin", "",
                      "set local work_mem = '1MB'", "savepoint a", "select 1")
    ],
    Script("serialization failure", [
        say(query("begin isolation level repeatable read; table t")), say(query("update t set v = 'b' where id = 1"), client="b"),
        say(query("update t set v = 'a' where id = 1")), say(query("commit")), say(query("table t")),
    ], servers=3),
]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
async def test_transactions_are_the_same(script: Script, compare: Compare) -> None:
    await compare(script)
