"""COPY in both directions, and every way to fail in it (protocol-flow#PROTOCOL-COPY)."""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import bind, copy_data, copy_done, copy_fail, execute, flush, parse, query, sync
from hyperdrive.testing.script import Compare, Script, say, until

S = sync()
ROWS = copy_data(b"10\tten\n") + copy_data(b"11\televen\n")
COPY_IN = "copy t from stdin"
AFTER = [say(query("table t")), say(query("select 'in order'"))]
EXTENDED_IN = parse(COPY_IN) + bind() + execute()

SCRIPTS = [
    Script("in", [until(query(COPY_IN), "G"), say(ROWS + copy_done()), *AFTER]),
    Script("in, all in one write", [say(query(COPY_IN) + ROWS + copy_done() + query("select 1"), 2), *AFTER]),
    Script("in, rows cut anywhere", [until(query(COPY_IN), "G"), say(ROWS + copy_done(), cuts=range(1, 60)), *AFTER]),
    Script("in, one row over many messages", [until(query(COPY_IN), "G"), say(b"".join(copy_data(b"%c" % c) for c in b"20\tmany\n") + copy_done()), *AFTER]),
    Script("in, empty data", [until(query(COPY_IN), "G"), say(copy_data(b"") + copy_done()), *AFTER]),
    Script("in, nothing", [until(query(COPY_IN), "G"), say(copy_done()), *AFTER]),
    Script("in, much", [until(query(COPY_IN), "G"), say(b"".join(copy_data(b"%d\t%s\n" % (i, b"x" * 1000)) for i in range(100, 1100)) + copy_done()),
                        say(query("select count(*), sum(length(v)) from t"))]),
    Script("in, with a transaction around", [say(query("begin")), until(query(COPY_IN), "G"), say(ROWS + copy_done()), say(query("rollback")), *AFTER]),
    Script("in, first of a transaction that fails", [say(query("begin")), until(query(COPY_IN), "G"), say(copy_data(b"x\n") + copy_done()),
                                                     say(query("commit")), *AFTER]),
    Script("in, stopped by the client", [until(query(COPY_IN), "G"), say(ROWS + copy_fail("enough")), *AFTER]),
    Script("in, error in the first row, the rest comes late", [
        until(query(COPY_IN), "G"), say(copy_data(b"not a number\n") + copy_data(b"x" * 100_000)), say(ROWS + copy_done() + query("select 1")), *AFTER]),
    Script("in, error, then fail", [until(query(COPY_IN), "G"), say(copy_data(b"bad\n") * 3 + copy_done()), say(copy_fail() + query("select 1")), *AFTER]),
    Script("stray copy messages", [say(ROWS + copy_done() + query("select 1")), say(copy_fail() + query("select 2")), say(copy_data(b"x") + S)]),
    Script("in a list", [until(query("copy t from stdin; select 2"), "G"), say(ROWS + copy_done()), *AFTER]),
    Script("two in a list", [until(query("copy t from stdin; copy t from stdin; table t"), "G"), until(copy_data(b"21\ta\n") + copy_done(), "G"),
                             say(copy_data(b"22\tb\n") + copy_done()), *AFTER]),
    Script("in a list that fails", [until(query("copy t from stdin; select 1/0"), "G"), say(ROWS + copy_done()), *AFTER]),
    Script("in, table unknown", [say(query("copy nowhere from stdin")), say(query("select 1"))]),
    Script("in, other formats", [
        until(query("copy t from stdin (format csv, header)"), "G"), say(copy_data(b"id,v\n30,\"a,b\"\n") + copy_done()),
        until(query("copy t from stdin (format binary)"), "G"),
        say(copy_data(b"PGCOPY\n\xff\r\n\0" + b"\0" * 8 + b"\0\2\0\0\0\4\0\0\0\x1f\0\0\0\3bin" + b"\xff\xff") + copy_done()), *AFTER]),
    Script("in, extended", [until(EXTENDED_IN + flush(), "G"), say(ROWS + copy_done() + S), *AFTER]),
    Script("in, extended, sync during the copy does not count", [until(EXTENDED_IN + S, "G"), say(S + ROWS + flush() + S + copy_done() + S), *AFTER]),
    Script("in, extended, all in one write", [say(EXTENDED_IN + S + ROWS + copy_done() + S + query("select 1"), 2), *AFTER]),
    Script("in, extended, described", [until(parse(COPY_IN, "c1") + bind("c1") + execute() + S, "G"), say(ROWS + copy_done() + S),
                                       until(bind("c1") + execute() + S, "G"), say(copy_data(b"40\tagain\n") + copy_done() + S), *AFTER]),
    Script("in, extended, stopped", [until(EXTENDED_IN + S, "G"), say(copy_fail("enough") + S), *AFTER]),
    Script("in, extended, error in the first row", [until(EXTENDED_IN + S, "G"), until(copy_data(b"bad\n" + b"x" * 100_000) * 2, "E"), say(ROWS + copy_done() + S), *AFTER]),
    Script("in, extended, in a transaction", [say(query("begin")), until(EXTENDED_IN + S, "G"), say(ROWS + copy_done() + S), say(query("commit")), *AFTER]),
    Script("in, more of the scope behind it", [until(EXTENDED_IN + flush(), "G"), say(ROWS + copy_done() + parse("select 7") + bind() + execute() + S), *AFTER]),
    Script("out", [say(query("copy t to stdout")), say(query("copy t to stdout (format csv, header)")), say(query("copy t to stdout (format binary)"))]),
    Script("out of a query", [say(query("copy (select i from generate_series(1, 2000) i) to stdout"))]),
    Script("out, empty", [say(query("copy (select 1 where false) to stdout"))]),
    Script("out, fails half way", [say(query("copy (select 10 / (5 - i) from generate_series(1, 9) i) to stdout")), say(query("select 1"))]),
    Script("out, extended", [say(parse("copy t to stdout") + bind() + execute() + S), say(query("select 1"))]),
    Script("out in a list", [say(query("copy t to stdout; select 2; copy t to stdout"))]),
    Script("out in a pipeline", [say(query("copy t to stdout") + query("select 1") + parse("copy t to stdout") + bind() + execute() + S, 3)]),
    Script("out in a transaction", [say(query("begin")), say(query("copy t to stdout")), say(query("commit"))]),
]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
async def test_copy_is_the_same(script: Script, compare: Compare) -> None:
    await compare(script)
