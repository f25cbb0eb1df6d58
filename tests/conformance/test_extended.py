"""Extended queries and pipelines, direct and through us (protocol-flow#PROTOCOL-FLOW-EXT-QUERY)."""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import (
    bind,
    close_portal,
    close_statement,
    describe_portal,
    describe_statement,
    execute,
    extended,
    flush,
    function_call,
    message,
    parse,
    query,
    sync,
)
from hyperdrive.testing.script import Compare, Script, say, until

INT4, TEXT = 23, 25
S = sync()
MANY = "select i from generate_series(1, 5) i"
OPEN = [say(query("begin"))]
DONE = [say(query("rollback"))]

SCRIPTS = [
    Script("all messages of one statement", [
        say(parse("select id, v from t where id = $1", "s1", [INT4]) + describe_statement("s1") + bind("s1", ["2"])
            + describe_portal() + execute() + close_statement("s1") + S),
    ]),
    Script("nothing described", [say(parse("select 1") + bind() + execute() + S)]),
    Script("no data", [say(extended("insert into t values (9, 'n')") + S), say(extended("create table u()") + S)]),
    Script("types left open", [say(parse("select $1 + 1, $2 || 'x', $3", "s1", [0, 0, TEXT]) + describe_statement("s1") + S)]),
    Script("no type to be found", [say(parse("select $1 from nowhere") + S), say(parse("select * from t where id = $2") + S)]),
    Script("binary both ways", [
        say(parse("select $1::int4 + 1, $2::text", "", [INT4, TEXT])
            + bind("", [b"\0\0\0\x07", "seven"], formats=[1, 0], result_formats=[1, 0]) + describe_portal() + execute() + S),
        say(parse("select $1::int8") + bind("", [b"\0" * 8], formats=[1], result_formats=[1]) + describe_portal() + execute() + S),
    ]),
    Script("null and empty values", [say(parse("select $1::text is null, $2::text = ''") + bind("", [None, ""]) + execute() + S)]),
    Script("wrong values", [
        say(parse("select $1::int4") + bind("", ["seven"]) + execute() + S),
        say(parse("select $1::int4") + bind("", [b"\0\0"], formats=[1]) + execute() + S),
        say(parse("select $1::int4") + bind("", []) + execute() + S),
        say(parse("select 1") + bind("", ["1"]) + execute() + S),
        say(parse("select $1::int4") + bind("", ["1"], formats=[0, 1, 0]) + execute() + S),
        say(parse("select $1::int4") + bind("", ["1"], formats=[7]) + execute() + S),
        say(parse("select 1") + bind("", result_formats=[0, 0]) + execute() + S),
    ]),
    Script("statement kept over scopes", [
        say(parse("select v from t where id = $1", "s1") + S),
        say(bind("s1", ["1"]) + execute() + S),
        say(bind("s1", ["2"]) + describe_portal() + execute() + S),
        say(describe_statement("s1") + S),
        say(close_statement("s1") + S),
        say(bind("s1", ["3"]) + execute() + S),
    ]),
    Script("unnamed statement kept over scopes", [
        say(parse("select v from t where id = $1") + S),
        say(describe_statement() + S),
        say(bind("", ["1"]) + execute() + S),
        say(bind("", ["2"]) + execute() + S),
        say(query("select 'simple'")),
        say(bind("", ["3"]) + execute() + S),
    ]),
    Script("a failed parse destroys the unnamed statement", [
        say(parse("select 'first'") + S), say(parse("selec") + S), say(bind() + execute() + S), say(query("select 1")),
    ]),
    Script("close destroys the unnamed statement", [
        say(parse("select 'first'") + S), say(close_statement() + S), say(bind() + execute() + S),
    ]),
    Script("closing what does not exist", [say(close_statement("gone") + close_portal("gone") + S)]),
    Script("unknown names", [
        say(bind("gone") + execute() + S), say(describe_statement("gone") + S), say(describe_portal("gone") + S),
        say(execute("gone") + S), say(describe_portal() + S), say(execute() + S), say(query("select 1")),
    ]),
    Script("duplicate names", [
        say(parse("select 1", "s1") + S), say(parse("select 2", "s1") + S), say(bind("s1") + execute() + S),
        say(parse("select 1") + bind("", portal="p") + bind("", portal="p") + S), say(query("select 1")),
    ]),
    Script("duplicate statement in a transaction", [
        say(parse("select 1", "s1") + S), *OPEN, say(query("insert into t values (4, 'x')")), say(parse("select 2", "s1") + S),
        say(query("select 1")), say(bind("s1") + execute() + S), say(query("commit")), say(query("table t")),
        say(bind("s1") + execute() + S),
    ]),
    Script("unknown statement in a transaction", [
        *OPEN, say(query("insert into t values (4, 'x')")), say(bind("gone") + execute() + S), say(query("select 1")),
        say(describe_statement("gone") + S), say(query("commit")), say(query("table t")),
    ]),
    Script("unknown statement first in a transaction", [*OPEN, say(bind("gone") + execute() + S), say(query("select 1")), *DONE]),
    Script("duplicate inside one scope", [say(parse("select 1", "s1") + parse("select 2", "s1") + bind("s1") + execute() + S),
                                          say(bind("s1") + execute() + S)]),
    Script("same name after close", [
        say(parse("select 1", "s1") + close_statement("s1") + parse("select 2, 2", "s1") + bind("s1") + describe_portal() + execute() + S),
        say(bind("s1") + execute() + S),
    ]),
    Script("names of 63 bytes and more", [
        say(parse("select 'long'", "n" * 70) + S), say(bind("n" * 70) + execute() + S), say(close_statement("n" * 70) + S),
    ]),
    Script("names with odd characters", [
        say(parse("select 'odd'", 'a"b \\ é%s') + S), say(bind('a"b \\ é%s') + execute() + S), say(bind('a"b \\ é%') + execute() + S),
    ]),
    Script("many statements", [
        say(b"".join(parse(f"select {i}", f"s{i}") for i in range(30)) + S),
        *[say(bind(f"s{i}") + execute() + S) for i in (0, 29, 13)],
        say(b"".join(bind(f"s{i}") + execute() for i in range(30)) + S),
        say(b"".join(close_statement(f"s{i}") for i in range(0, 30, 2)) + S),
        say(bind("s1") + execute() + S), say(bind("s2") + execute() + S),
    ]),
    Script("errors at each message", [
        say(parse("select") + parse("selec") + bind() + execute() + S),
        say(parse("select 1") + bind("gone") + execute() + S),
        say(parse("select 1") + bind() + describe_portal("gone") + execute() + S),
        say(parse("select 1/0") + bind() + describe_portal() + execute() + execute() + S),
        say(parse("select 1") + bind() + execute("gone") + execute() + S),
        say(query("select 1")),
    ]),
    Script("an error skips to the sync, also queries and function calls", [
        say(parse("selec") + query("select 'skipped'") + function_call(1397, [b"\0\0\0\1"]) + parse("select 1", "s9") + S),
        say(bind("s9") + execute() + S),
    ]),
    Script("parse survives an error later in its scope", [
        say(parse("select 'kept'", "s1") + parse("select 1/0") + bind() + execute() + S), say(bind("s1") + execute() + S),
    ]),
    Script("parse survives a rollback", [
        *OPEN, say(parse("select 'kept'", "s1") + S), *DONE, say(bind("s1") + execute() + S),
    ]),
    Script("close survives a rollback", [
        say(parse("select 'kept'", "s1") + S), *OPEN, say(close_statement("s1") + S), *DONE, say(bind("s1") + execute() + S),
    ]),
    Script("several scopes in one write", [
        say(extended("select 1") + S + extended("select 2") + S + query("select 3"), 3),
        say((extended("select 1") + S + extended("select 1/0") + execute() + S + query("select 2/0") + extended("select 4") + S) * 3, 12),
    ]),
    Script("a scope without execute", [say(parse("select 1") + S + parse("select 2", "s1") + S + describe_statement("s1") + S, 3)]),
    Script("flush after every message", [
        until(parse("select v from t where id = $1") + flush(), "1"),
        until(describe_statement() + flush(), "T"),
        until(bind("", ["1"]) + flush(), "2"),
        until(describe_portal() + flush(), "T"),
        until(execute() + flush(), "C"),
        say(S),
    ]),
    Script("flush, then an error", [
        until(parse("select $1::int") + flush(), "1"), until(bind("", ["x"]) + flush(), "E"), say(bind("", ["1"]) + execute() + S),
        say(query("select 1")),
    ]),
    Script("the driver's way: parse, describe, flush; then bind, execute, sync", [
        until(parse("select v, id from t where id = $1") + describe_statement() + flush(), "T"),
        say(bind("", ["3"], result_formats=[1]) + execute() + S),
        until(parse("insert into t values ($1, $2)") + describe_statement() + flush(), "n"),
        say(bind("", ["4", "x"]) + execute() + S),
    ]),
    Script("flush alone", [say(flush() * 5 + S)]),
    Script("query while a scope is open, behind a parse", [say(parse("select 1", "s1") + query("select 2") + bind("s1") + execute() + S, 2)]),
    Script("query behind an executed begin", [
        say(parse("begin") + bind() + execute() + query("insert into t values (4, 'x')") + S, 2), say(query("commit")), say(query("table t")),
    ]),
    Script("query behind an executed insert", versions=(13, 14, 15, 16), steps=[
        say(parse("insert into t values (4, 'x')") + bind() + execute() + query("select 1") + S, 2), say(query("table t")),
    ]),
    Script("function call while a scope is open", [say(parse("select 1", "s1") + function_call(1397, [b"\0\0\0\1"]) + S, 2)]),
    Script("row limits", [
        say(parse(MANY) + bind() + execute("", limit) + execute("", limit) + execute("", 0) + execute("", 0) + S)
        for limit in (1, 4, 5, 6)
    ]),
    Script("a limited insert", [say(parse("insert into t values (4, 'x'), (5, 'y') returning id") + bind() + execute("", 1) + execute() + S)]),
    Script("portals in a transaction", [
        *OPEN,
        say(parse(MANY, "s1") + bind("s1", portal="p1") + bind("s1", portal="p2") + execute("p1", 2) + S),
        say(execute("p2", 1) + execute("p1", 2) + S),
        say(query("fetch 1 from p2")),
        say(describe_portal("p1") + close_portal("p1") + S),
        say(execute("p2") + S),
        say(execute("p1") + S),
        *DONE,
    ]),
    Script("portals die with their transaction", [
        *OPEN, say(parse(MANY) + bind("", portal="p1") + execute("p1", 2) + S), say(query("commit")), say(execute("p1", 2) + S),
        say(parse(MANY) + bind("", portal="p1") + execute("p1", 2) + S), say(execute("p1", 2) + S),
    ]),
    Script("an autocommit portal lives on after a flush", [
        until(parse(MANY) + bind("", portal="p") + execute("p", 2) + flush(), "s"), until(execute("p", 2) + flush(), "s"),
        say(execute("p", 2) + S),
    ]),
    Script("the unnamed portal suspended in a transaction", [
        *OPEN, say(parse(MANY) + bind() + execute("", 2) + S), say(execute("", 2) + S), say(query("select 1")), say(execute("", 2) + S), *DONE,
    ]),
    Script("a suspended portal and a setting in between", [
        *OPEN, say(parse(MANY, "s1") + bind("s1", portal="") + execute("", 2) + S),
        say(parse("set work_mem = '2MB'", "s2") + bind("s2", portal="other") + execute("other") + S),
        say(execute("", 2) + S), *DONE,
    ]),
    Script("empty statements", [
        say(parse("") + bind() + describe_portal() + execute() + S), say(parse("", "e1") + describe_statement("e1") + S),
        *OPEN, say(query("select 1/0")), say(query("")), say(parse("") + bind() + execute() + S), *DONE,
    ]),
    Script("several statements in one parse", [say(parse("select 1; select 2") + bind() + execute() + S)]),
    Script("a failed transaction, each message", [
        say(parse("select 1", "s1") + parse("rollback", "r1") + S), *OPEN, say(query("select 1/0")),
        say(parse("select 1") + S), say(describe_statement("s1") + S), say(bind("s1") + S), say(describe_statement("r1") + S),
        say(describe_statement("gone") + S), say(bind("gone") + S), say(execute() + S), say(describe_portal() + S),
        say(close_statement("s1") + S), say(flush() + S), say(S), say(query("selec")), say(query("set work_mem = '1MB'")),
        say(query("show work_mem")), say(query("begin")), say(query("savepoint a")), say(query("release a")),
        say(bind("r1") + execute() + S), say(query("select 1")), say(bind("s1") + execute() + S),
    ]),
    Script("changed result type", setup="create table c (a int, b int);", steps=[
        say(parse("select * from c", "s1") + describe_statement("s1") + S), say(query("alter table c add column d text")),
        *OPEN, say(bind("s1") + execute() + S), say(query("rollback")),
    ]),
    Script("deferred constraint at the sync", setup="create table parent (id int primary key);"
           "create table child (id int references parent deferrable initially deferred);", steps=[
        say(parse("insert into child values (1)") + bind() + execute() + S), say(query("insert into child values (1)")),
        say(query("table child")),
    ]),
    Script("bad bodies", [
        say(message("B", b"no terminator") + S), say(message("D", b"Xs1\0") + S), say(message("C", b"Xs1\0") + S),
        say(message("P", b"s1\0select 1\0\0\2\0\0\0\x17") + S), say(message("E", b"\0\0\0") + S), say(message("Q", b"select 1\0x")),
        say(message("B", b"\0\0\0\0\0\1\0\0\0\5abc") + S), say(query("select 1")),
    ]),
    Script("cut everywhere", [
        say(extended("select v from t where id = $1", ["2"]) + S + extended("select 1/0") + S, 2, cuts=range(1, 200)),
    ]),
    Script("65535 parameters", [
        say(parse("select " + "+".join(f"$1{'' if i else '::int'}" for i in range(50))) + bind("", ["1"]) + execute() + S),
        say(parse("select array[" + ",".join(f"${i}::int2" for i in range(1, 65536)) + "] is null") + bind("", ["1"] * 65535) + execute() + S),
    ]),
]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
async def test_extended_queries_are_the_same(script: Script, compare: Compare) -> None:
    await compare(script)
