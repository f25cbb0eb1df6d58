"""Corners that the random transactions found, one script each: what is told ahead of the origin, and what has to be taken back."""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import bind, describe_portal, describe_statement, execute, extended, parse, query, sync
from hyperdrive.testing.script import Compare, Script, Step, say

S = sync()


def queries(*statements: str) -> list[Step]:
    return [say(query(sql)) for sql in statements]


KNOWN = queries("set datestyle = 'German'", "reset datestyle")
"""From now on both are answered without the origin."""

SCRIPTS = [
    Script("a held SET that its first flight undoes", [*KNOWN, *queries(
        "begin", "savepoint a", "set datestyle = 'German'", "rollback to a", "show datestyle", "commit", "show datestyle")]),
    Script("a held SET that an error undoes", [*KNOWN, *queries(
        "begin", "set datestyle = 'German'", "rollback to nowhere", "select 1", "commit", "show datestyle")]),
    Script("a held SET in a savepoint that an error undoes", [*KNOWN, *queries(
        "begin", "set datestyle = 'German'", "savepoint a", "set timezone = 'EST'", "select 1/0", "rollback to a", "show datestyle", "rollback",
        "set timezone = 'EST'", "begin", "set datestyle = 'German'", "savepoint a", "set timezone = 'UTC'", "select 1/0", "rollback")]),
    Script("a SET behind the first flight that its scope undoes", [*KNOWN, *queries(
        "begin", "select 1", "set datestyle = 'German'", "select 1/0", "rollback", "begin", "select 1", "set datestyle = 'German'",
        "select 1", "reset datestyle", "set local datestyle = 'German'", "select 1", "commit", "show datestyle")]),
    Script("a query that sets", [step for _ in range(3) for step in (
        *queries("select set_config('timezone', 'EST', false)", "show timezone", "select set_config('TimeZone', 'UTC', false) as zone",
                 "select pg_catalog.set_config('datestyle', 'German', false)", "select date '2020-03-04'", "reset datestyle",
                 "begin", "select set_config('timezone', 'MST', false)", "rollback", "show timezone", "select set_config('timezone', 'MST', true)",
                 "select set_config('timezone', 'nowhere', false)", "select set_config('timezone', null, false)", "select set_config('work_mem', '3MB', false)",
                 "select set_config('timezone', 'EST', false), 1", "show timezone",
                 "set search_path = public, pg_catalog", "select set_config('timezone', 'EST', false)", "reset search_path"),
        say(parse("select set_config('timezone', 'MST', false)") + bind() + describe_portal() + execute() + S), *queries("show timezone"),
        say(parse("select set_config('timezone', 'EST', false) zone", "s1") + describe_statement("s1") + bind("s1") + execute() + S),
        say(bind("s1") + execute(limit=1) + S), say(bind("s1", result_formats=[1]) + describe_portal() + execute() + S),
        say(bind("s1") + execute() + S), *queries("show timezone", "deallocate all", "reset all"))]),
    Script("a SET held while the server has other settings", queries(
        "set timezone = 'EST'", "reset timezone", "begin", "set timezone = 'EST'", "select 1", "rollback", "select 1", "begin",
        "set timezone = 'EST'", "select 1", "commit", "show timezone")),
    Script("characteristics of the session are reported", queries(
        "set session characteristics as transaction read only", "set session characteristics as transaction read write",
        "set session characteristics as transaction read only", "reset default_transaction_read_only",
        "begin", "set session characteristics as transaction read only", "rollback")),
    Script("SET LOCAL to a start-up value", queries(
        "set local timezone to default", "begin", "set local timezone = 'UTC'", "set local timezone to default", "show timezone", "commit",
        "begin", "select 1", "set local timezone = 'UTC'", "select 1", "set local timezone to default", "show timezone", "rollback", "show timezone"),
        parameters={"timezone": "Asia/Tokyo"}),
    Script("RESET to a start-up value takes no snapshot", [
        *queries("begin isolation level repeatable read", "reset timezone", "reset all"), say(query("insert into t values (4, 'b')"), client="b"),
        *queries("select count(*) from t", "commit")], parameters={"timezone": "Asia/Tokyo"}, servers=3),
    Script("the modes of a transaction are no settings of the session", queries(
        "set transaction_isolation = 'serializable'", "set transaction_read_only = on", "select set_config('transaction_read_only', 'on', false)",
        "select 1", "begin", "set transaction_isolation = 'serializable'", "select 1", "commit", "select 1", "show transaction_isolation")),
    Script("DEALLOCATE is a Query and ends the unnamed statement", [
        *queries("begin"), say(parse("select 1") + S), *queries("deallocate all"), say(bind() + execute() + S), *queries("rollback"),
        *queries("begin", "select 1"), say(parse("select 1") + S), *queries("deallocate all"), say(bind() + execute() + S), *queries("rollback")]),
    Script("a Parse that fails, and a DEALLOCATE behind it that fails too", [
        *queries("begin", "select 1/0"),
        say(parse("select 1", "s1") + S + bind("s1") + execute() + S + parse("deallocate all") + bind() + execute() + S + extended("rollback") + S, 4),
        say(parse("select 2", "s1") + describe_statement("s1") + bind("s1") + execute() + S)]),
    Script("a DEALLOCATE that fails, and a Parse behind it that fails too", [
        say(parse("select 1", "s1") + S), *queries("begin", "select 1/0"),
        say(parse("deallocate all") + bind() + execute() + S + parse("select 2", "s1") + S, 2),
        *queries("rollback"), say(describe_statement("s1") + bind("s1") + execute() + S)]),
    Script("a name that is taken, in a failed transaction", [
        say(parse("select 1", "s1") + S), *queries("begin", "select 1/0"), say(parse("", "s1") + S), say(parse("selec", "s1") + S),
        say(parse("select 'open", "s1") + S), say(parse("select 1; select 2", "s1") + S), say(parse("select 1", "s1") + S),
        say(parse("rollback", "s1") + S), *queries("rollback"), say(bind("s1") + execute() + S)]),
    Script("the unnamed statement outlives a transaction that failed", [
        say(parse("select 1") + S), *queries("begin"), say(parse("select 1/0", "s1") + bind("s1") + execute() + S),
        say(parse("select 1", "s1") + S), say(bind() + execute() + S), say(bind() + execute() + S)]),
    Script("what is asked of a statement in a failed transaction", [
        say(parse("begin work", "s1") + describe_statement("s1") + bind("s1") + execute() + S), *queries("selec"),
        say(bind("s1", ["1"]) + execute() + S), say(describe_statement("s1") + S), say(bind("s1") + execute() + S), *queries("rollback"),
        say(parse("begin") + bind() + execute() + S), say(parse("select 1/0", "s2") + bind("s2") + execute() + S),
        say(describe_statement() + S), say(bind("", ["1"]) + execute() + S), say(bind() + execute() + S), *queries("rollback"),
        say(parse("select v from t where id = $1", "s3") + describe_statement("s3") + S), *queries("begin"),
        say(parse("select 1/0", "s4") + bind("s4") + execute() + S), say(describe_statement("s3") + S), say(bind("s3", ["1"]) + execute() + S),
        *queries("rollback")]),
    Script("the same in one write with what fails too", [
        say(parse("begin work", "s1") + bind("s1") + execute() + S), *queries("selec"),
        say(query("select 1") + parse("select 2", "s1") + S + bind("s1", ["1"]) + execute() + S + describe_statement("s1") + S, 4),
        say(query("select 1") + query("rollback") + bind("s1", ["1"]) + execute() + S, 3),
        *queries("begin", "savepoint a", "selec"), say(query("rollback to a") + bind("s1", ["1"]) + execute() + S, 2), *queries("rollback")]),
    Script("names that a failed transaction keeps", [
        say(parse("select 1", "s1") + S), *queries("begin", "select 1/0"),
        say(bind("s1") + execute() + S + parse("deallocate s1") + bind() + execute() + S + bind("s1") + execute() + S, 3),
        say(parse("deallocate all") + bind() + execute() + S + bind("s1") + execute() + S, 2), *queries("rollback"), say(bind("s1") + execute() + S)]),
    Script("what is answered in a transaction takes the unnamed portal", [*queries("set work_mem = '3MB'", "reset work_mem"), *[
        step for told in (query("set work_mem = '3MB'"), query("reset work_mem"), query("show timezone"), query("deallocate all"),
                          extended("set work_mem = '3MB'") + S, query("set work_mem = '3MB'") + parse("select 1", "s1") + S)
        for step in (*queries("begin"), say(extended("select generate_series(1, 3)", limit=1) + S), say(told, 1 + told.count(b"s1")),
                     say(execute(limit=1) + S), *queries("rollback", "deallocate all"))]]),
    Script("the unnamed portal of what was held", [
        *queries("set work_mem = '3MB'", "reset work_mem"), *[
        step for held in (
            [extended("begin")], [query("begin"), extended("savepoint a")], [extended("begin"), query("savepoint a")],
            [extended("begin"), query("")], [query("begin"), query("savepoint a"), extended("release a")],
            [query("begin"), query("savepoint a"), extended("rollback to a")], [query("begin"), extended("show timezone")],
            [query("begin"), extended("set work_mem = '3MB'")], [query("begin"), extended("deallocate all")])
        for first in (b"", parse("selec"), parse("select 1", "s1"), query("select 1/0"))
        for step in (*[say(data if data[:1] == b"Q" else data + S) for data in held], say(first if first[:1] == b"Q" else first + S),
                     say(describe_portal() + S), say(execute() + S), say(execute() + S), *queries("rollback", "deallocate all"))]]),
    Script("BEGIN in one write with what it is for", [
        say(query("begin") + extended("select 1") + S, 2), *queries("commit"),
        say(query("begin") + extended("select 1/0") + S, 2), *queries("commit"),
        say(query("begin") + query("select 'open"), 2), *queries("rollback"),
        say(query("begin read only") + extended("insert into t values (4, 'four')") + S, 2), *queries("end"),
        say(query("begin") + extended("selec") + S + query("select 1") + extended("rollback") + S, 4),
        say(query("begin") + query("begin"), 2), say(query("start transaction") + query("commit"), 2), *queries("table t")]),
    Script("BEGIN in the scope of its first statement", [
        say(extended("begin") + extended("select 1") + S), *queries("commit"),
        say(extended("begin") + extended("select 1/0") + S), *queries("commit"),
        say(extended("begin") + extended("insert into t values (4, 'four')") + extended("commit") + S), *queries("commit"),
        say(extended("begin") + bind() + execute() + S), *queries("rollback"),
        say(extended("begin") + describe_portal() + execute() + S), *queries("rollback"),
        say(parse("begin", "s1") + bind("s1") + execute() + parse("select 1") + bind() + execute() + S), *queries("rollback", "table t"),
        say(bind("s1") + execute() + S), *queries("rollback")]),
    Script("ends that have names", [
        *queries("begin"), say(parse("COMMIT", "S_1") + bind("S_1") + execute(limit=1) + S), *queries("begin", "select 1"),
        say(bind("S_1") + execute(limit=1) + S), *queries("begin", "select 1/0"), say(bind("S_1") + describe_portal() + execute() + S),
        *queries("begin", "select 1/0"), say(parse("rollback", "S_2") + describe_statement("S_2") + bind("S_2") + execute() + S),
        say(describe_statement("S_2") + S), *queries("begin"), say(parse("commit", "S_2") + bind("S_2") + execute() + S), *queries("rollback"),
        *queries("begin"), say(parse("rollback", "S_3") + bind("S_3") + execute() + S), *queries("discard all"),
        say(bind("S_1") + execute() + S)]),
    Script("runs that are not plain", [
        say(parse("show timezone") + bind() + describe_portal() + execute(limit=1) + S), say(parse("commit", "s1", [65536]) + bind("s1") + execute() + S),
        *queries("begin"), say(parse("commit") + bind("", ["1"]) + execute() + S), *queries("rollback"),
        *queries("begin"), say(parse("commit") + bind(portal="p") + execute("p") + S),
        *queries("begin"), say(parse("rollback", "s2") + bind("s2", result_formats=[1]) + execute() + S)]),
    *[Script(f"{what} in a transaction is a query to what would choose its isolation", servers=2, steps=[
        say(parse("select v from t", "s1") + S), *[step for ahead in ((), ("savepoint a",), ("notify x",))
        for choose in ("set transaction isolation level serializable", "begin isolation level serializable", "set transaction read only")
        for step in (*queries("begin", *ahead), say(data), *queries("release a" if ahead == ("savepoint a",) else "notify y", choose, "rollback"),
                     say(parse("select v from t", "s3") + S), *queries("deallocate s3"))]])
      for what, data in (("deallocate all", query("deallocate all")), ("discard plans", query("discard plans")),
                         ("discard sequences", query("discard sequences")), ("discard temp", extended("discard temp") + S),
                         ("DEALLOCATE in a scope", extended("deallocate all") + S), ("a Parse that is known", parse("select v from t", "s3") + S),
                         ("DEALLOCATE in a scope with more", extended("deallocate all") + extended("set transaction read write") + S),
                         ("a Parse of what takes no snapshot", parse("show work_mem", "s4") + S))],
    *[Script(f"{what} takes the snapshot that REPEATABLE READ keeps", servers=2, steps=[
        say(parse("select v from t", "s1") + S), *queries("begin isolation level repeatable read"), say(data),
        say(query("insert into t values (9, 'b')"), client="b"), *queries("select count(*) from t", "rollback")])
      for what, data in (("deallocate all", query("deallocate all")), ("discard plans", query("discard plans")),
                         ("DEALLOCATE in a scope", extended("deallocate s1") + S))],
    Script("Parse and Describe of a statement with a name, in the scope that runs it", [
        say(parse("select v from t where id = 1", "s1") + describe_statement("s1") + bind("s1") + execute() + S),
        say(parse("select v from t where id = 1", "s2") + describe_statement("s2") + bind("s2") + execute() + S),
        say(parse("select v from t where id = 1", "s3") + bind("s3") + describe_portal() + execute() + S),
        say(parse("select v from t where id = 1", "s3") + describe_statement("s3") + bind("s3") + execute() + S),
        *queries("alter table t add w int"),
        say(parse("select v from t where id = 1", "s4") + describe_statement("s4") + bind("s4") + execute() + S),
        say(parse("select 1/(id - 1) from t", "s5") + describe_statement("s5") + bind("s5") + execute() + S),
        say(parse("select 1/(id - 1) from t", "s6") + describe_statement("s6") + bind("s6") + execute() + S)]),
]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
async def test_what_is_told_ahead_is_right(script: Script, compare: Compare) -> None:
    await compare(script)
