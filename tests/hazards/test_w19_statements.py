"""W-19 … W-29: statements, portals and cursors, with two clients on one server."""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import (
    bind,
    close_statement,
    describe_portal,
    describe_statement,
    execute,
    extended,
    flush,
    parse,
    query,
    sync,
)
from hyperdrive.testing.scene import Scene
from hyperdrive.testing.transcript import Replies
from hyperdrive.testing.wire import WireConnection

S = sync()


async def run(conn: WireConnection, name: str, *values: str) -> Replies:
    return await conn.scope(bind(name, values) + describe_portal() + execute() + S)


async def test_w19_one_name_two_clients_two_statements(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    await a.scope(parse("select 'a', $1::text", "s1") + S)
    await b.scope(parse("select 'b'", "s1") + S)
    for _ in range(2):
        assert (await run(a, "s1", "x")).rows == [("a", "x")]
        assert (await run(b, "s1")).rows == [("b",)]
    await b.scope(close_statement("s1") + S)
    assert (await run(b, "s1")).errors == ["26000"]
    assert (await run(a, "s1", "y")).rows == [("a", "y")]


async def test_w19_equal_text_is_parsed_once_per_server(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    for conn in (a, b):
        await conn.scope(parse("select 'shared'", f"mine{conn.pid}") + S)
        assert (await run(conn, f"mine{conn.pid}")).rows == [("shared",)]
    count = "select count(*) from pg_prepared_statements where statement = 'select ''shared'''"
    assert await a.value(count) == "1"


async def test_w19_same_text_other_types(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    await a.scope(parse("select pg_typeof($1)", "s1", [23]) + S)
    await b.scope(parse("select pg_typeof($1)", "s1", [25]) + S)
    assert (await run(a, "s1", "1")).rows == [("integer",)]
    assert (await run(b, "s1", "1")).rows == [("text",)]


async def test_w19_same_text_other_search_path(scene: Scene) -> None:
    await scene.sql("create schema one create table w (v text); create schema two create table w (v int)")
    await scene.sql("insert into one.w values ('one'); insert into two.w values (2)")
    a, b = await scene.client(), await scene.client()
    await a.query("set search_path = one")
    await b.query("set search_path = two")
    for conn, row, oid in ((a, "one", 25), (b, "2", 23)) * 2:
        described = await conn.scope(
            parse("select * from w", "s") + describe_statement("s") + bind("s") + execute() + close_statement("s") + S
        )
        assert described.rows == [(row,)]
        [fields] = described.of("T")
        assert int.from_bytes(fields.body[10:14], "big") == oid


async def test_w19_same_text_other_role(scene: Scene) -> None:
    await scene.sql(
        "drop role if exists hazard_reader; create role hazard_reader; grant usage on schema public to hazard_reader;"
        " insert into t values (1, 'postgres')"
    )
    a, b = await scene.client(), await scene.client()
    await b.query("set role hazard_reader")
    await a.scope(parse("select who from t", "s") + S)
    assert (await run(a, "s")).rows == [("postgres",)]
    await b.scope(parse("select who from t", "s") + S)
    assert (await run(b, "s")).errors == ["42501"]
    assert (await run(a, "s")).rows == [("postgres",)]


async def test_w19_a_failed_parse_is_not_remembered(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    assert (await a.scope(parse("select * from later", "s") + S)).errors == ["42P01"]
    assert (await run(a, "s")).errors == ["26000"]
    await scene.sql("create table later (v int); insert into later values (7)")
    for conn in (b, a):
        assert (await conn.scope(parse("select * from later", "s") + bind("s") + execute() + S)).rows == [("7",)]


async def test_w19_names_count_63_bytes(scene: Scene) -> None:
    a = await scene.client()
    await a.scope(parse("select 'long'", "n" * 63) + S)
    assert (await a.scope(parse("select 'again'", "n" * 63 + "other end") + S)).errors == ["42P05"]
    assert (await run(a, "n" * 80)).rows == [("long",)]


@pytest.mark.parametrize("limit", [1, 2])
async def test_w20_more_statements_than_a_server_may_keep(scene: Scene, limit: int) -> None:
    await scene.start(max_prepared_statements=limit)
    a, b = await scene.client(), await scene.client()
    for conn, who in ((a, "a"), (b, "b")):
        await conn.scope(b"".join(parse(f"select '{who}', {i}", f"s{i}") for i in range(6)) + S)
    for turn in range(3):
        for i in (0, 5, turn, 3, 3):
            assert (await run(a, f"s{i}")).rows == [("a", str(i))]
            assert (await run(b, f"s{i}")).rows == [("b", str(i))]
    # All in one scope: no statement may be evicted that a Bind further on still needs.
    pipeline = b"".join(bind(f"s{i}") + execute() for i in (0, 1, 2, 3, 4, 5, 0, 1))
    assert (await a.scope(pipeline + S)).rows == [("a", str(i)) for i in (0, 1, 2, 3, 4, 5, 0, 1)]
    several = b"".join(bind(f"s{i}") + execute() + S for i in (5, 4, 3, 5))
    assert (await b.scope(several, 4)).rows == [("b", str(i)) for i in (5, 4, 3, 5)]


async def test_w20_the_error_of_a_late_parse_is_the_clients(scene: Scene) -> None:
    await scene.sql("create table gone (v int)")
    await scene.start(max_prepared_statements=1)
    a = await scene.client()
    await a.scope(parse("select * from gone", "s") + parse("select 1", "other") + S)
    await run(a, "other")
    await scene.sql("drop table gone")
    replies = await run(a, "s")
    assert (replies.letters, replies.errors) == ("EZ", ["42P01"])
    assert (await run(a, "other")).rows == [("1",)]


@pytest.mark.parametrize(
    "text", ["select set_config('work_mem', $1, false)", "select 1 where $1 = 'x'", 'select $1 as "a"']
)
async def test_w20_parameters_that_only_the_text_has_are_counted(scene: Scene, text: str) -> None:
    """Drivers need not declare them, and a server that lacks the statement gets it with the Bind."""
    await scene.start(servers=1, max_prepared_statements=1)
    client = await scene.client()
    await client.scope(parse(text, "s1") + S)
    await client.scope(parse("select 1", "s2") + S)
    assert (await client.scope(bind("s1", ["1MB"]) + execute() + S)).errors == []
    await client.scope(parse("select 1", "s3") + S)
    assert (await client.scope(bind("s1") + execute() + S)).errors == ["08P01"]


async def test_w20_too_few_values_are_told_before_a_late_parse_fails(scene: Scene) -> None:
    """The origin counts first; here a Parse has to go ahead, which fails as the transaction has."""
    await scene.start(servers=1, max_prepared_statements=1)
    for conn in (await scene.direct(), await scene.client()):
        await conn.scope(parse("select 1 where $1::text = $2::text", "s1") + describe_statement("s1") + S)
        await conn.scope(parse("select 1", "s2") + S)
        pipelined = query("begin") + query("select 1/0") + bind("s1", ["1"]) + execute() + S + query("rollback")
        found = (await conn.scope(pipelined, ready=4)).errors
        assert found == ["22012", "08P01"], conn.conversation()


async def test_w20_a_statement_that_was_not_evicted_after_all(scene: Scene) -> None:
    """Its Close stood in a scope that failed, so its name on the server is taken, and no later scope of the flight runs it by chance."""
    await scene.start(max_prepared_statements=2)
    a = await scene.client()
    for name, text in (("boom", "select 1/$1::int"), ("s1", "insert into t values (1, 'never')")):
        await a.scope(parse(text, name) + S)
    boom = bind("boom", ["0"]) + execute()
    fails = boom + parse("select 2", "s2") + S  # s1 makes room
    came = await a.scope(fails + parse("insert into t values (1, 'never')", "s3") + S + bind("s3") + execute() + S, 3)
    assert came.errors == ["22012"]
    assert (await a.query("select * from t")).rows == [("1", "never")]
    await a.query("delete from t")
    await a.scope(close_statement("s3") + S + parse("select 3", "s4") + bind("s4") + execute() + S, 2)
    again = boom + close_statement("s1") + parse("insert into t values (1, 'never')", "s3") + S
    came = await a.scope(again + bind("s3") + execute() + S, 2)
    assert came.errors == ["22012", "26000"]
    assert (await a.query("select * from t")).rows == []


async def test_w21_the_unnamed_statement_is_everybodys_own(scene: Scene) -> None:
    """``P S`` of one client, the other works, then ``B E S`` of the first: its own SQL runs."""
    a, b = await scene.client(), await scene.client()
    await a.scope(parse("select 'a', $1::int + 1") + S)
    await b.scope(parse("select 'b'") + S)
    await b.query("set work_mem = '3MB'")
    assert (await a.scope(bind("", ["1"]) + execute() + S)).rows == [("a", "2")]
    assert (await b.scope(extended("select 'b2'") + S)).rows == [("b2",)]
    described = await a.scope(describe_statement() + bind("", ["5"]) + execute() + S)
    assert described.rows == [("a", "6")]


async def test_w21_a_query_destroys_the_unnamed_statement(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    await a.scope(parse("select 'a'") + S)
    await b.scope(parse("select 'b'") + S)
    await a.query("select 1")
    assert (await a.scope(bind() + execute() + S)).errors == ["26000"]
    await a.scope(parse("select 'a'") + S)
    assert (await a.scope(parse("selec") + S)).errors == ["42601"]
    assert (await a.scope(bind() + execute() + S)).errors == ["26000"]


async def test_w21_other_clients_unnamed_statements_cannot_be_reached(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    await a.scope(parse("select 'secret of a'") + S)
    for data in (bind() + execute() + S, describe_statement() + S):
        replies = await b.scope(data)
        assert replies.errors == ["26000"]
        assert replies.rows == []


@pytest.mark.parametrize("state", ["idle", "held", "live", "failed"])
@pytest.mark.parametrize(
    ("data", "sqlstate"),
    [
        (bind("gone") + execute(), "26000"),
        (describe_statement("gone"), "26000"),
        (describe_portal("gone"), "34000"),
        (execute("gone"), "34000"),
        (parse("select 2", "known"), "42P05"),
    ],
    ids=["bind", "describe", "describe-portal", "execute", "parse"],
)
async def test_w22_wrong_names_fail_the_scope_and_nothing_else(
    scene: Scene, data: bytes, sqlstate: str, state: str
) -> None:
    a, b = await scene.client(), await scene.client()
    await a.scope(parse("select 'known'", "known") + S)
    if state != "idle":
        await a.query("begin")
    if state in ("live", "failed"):
        await a.query("insert into t values (1, 'a')")
    if state == "failed":
        await a.query("select 1/0")
    replies = await a.scope(data + bind("known") + execute() + S)
    if state == "failed" and sqlstate == "42P05":
        sqlstate = "25P02"
    assert (replies.letters, replies.errors) == ("EZ", [sqlstate])
    assert replies.statuses == ("I" if state == "idle" else "E")
    if state != "idle":
        assert (await a.query("select 1")).errors == ["25P02"]
        assert (await a.query("commit")).tags == ["ROLLBACK"]
    assert (await run(a, "known")).rows == [("known",)]
    assert (await b.query("select 'b'")).rows == [("b",)]
    assert await scene.ask("select count(*) from t") == "0"


async def test_w22_close_of_anything_succeeds(scene: Scene) -> None:
    a = await scene.client()
    assert (await a.scope(close_statement("gone") + close_statement() + S)).letters == "33Z"


@pytest.mark.parametrize("how", ["deallocate all", "do $$ begin execute 'deallocate all'; end $$", "discard all"])
async def test_w23_names_that_vanish_behind_our_back_are_parsed_again(scene: Scene, how: str) -> None:
    """One client empties the server's namespace: its own names are gone, the other's work on."""
    a, b = await scene.client(), await scene.client()
    await a.scope(parse("select 'a', $1::text", "s1") + S)
    await run(a, "s1", "x")
    assert (await b.query(how)).errors == []
    assert (await run(a, "s1", "y")).rows == [("a", "y")]
    await b.query(how)
    assert (await a.scope(describe_statement("s1") + S)).errors == []


async def test_w23_deallocate_frees_the_clients_names(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    for conn in (a, b):
        await conn.scope(parse("select 'x'", "s1") + parse("select 'y'", "s2") + S)
    assert (await a.query("deallocate s1")).tags == ["DEALLOCATE"]
    assert (await run(a, "s1")).errors == ["26000"]
    assert (await run(a, "s2")).rows == [("y",)]
    assert (await a.query("deallocate all")).tags == ["DEALLOCATE ALL"]
    assert (await run(a, "s2")).errors == ["26000"]
    assert (await run(b, "s1")).rows == [("x",)]
    assert (await a.query("deallocate gone")).errors == ["26000"]


async def test_w24_sql_prepare_lasts_as_long_as_it_is_wanted(scene: Scene) -> None:
    await scene.start(servers=2)
    a, b = await scene.client(), await scene.client()
    await a.query("prepare p (int) as select 'a', $1")
    await b.query("prepare p as select 'b'")
    assert (await a.query("execute p(1)")).rows == [("a", "1")]
    assert (await run(a, "p", "2")).rows == [("a", "2")]
    assert (await b.query("execute p")).rows == [("b",)]
    assert (await a.query("deallocate p")).tags == ["DEALLOCATE"]
    assert (await a.query("execute p(1)")).errors == ["26000"]
    # Unpinned again: a third client finds a place while both others are idle.
    assert (await (await scene.client()).query("select 'c'")).rows == [("c",)]


async def test_w25_describe_in_a_failed_transaction(scene: Scene) -> None:
    a = await scene.client()
    await a.scope(parse("select 1", "s") + parse("", "empty") + S)
    await a.query("begin; select 1/0")
    assert (await a.scope(describe_statement("s") + S)).errors == ["25P02"]
    assert (await a.scope(describe_statement("gone") + S)).errors == ["26000"]
    assert (await a.query("")).letters == "IZ"
    assert (await a.scope(bind("empty") + S)).errors == ["25P02"]
    assert (await a.query("rollback")).statuses == "I"


@pytest.mark.parametrize(
    ("text", "letters"), [("", "tnZ"), ("delete from t where id = $1", "tnZ"), ("select id from t where id = $1", "EZ")]
)
async def test_w25_describe_of_what_a_server_in_a_failed_transaction_lacks(
    scene: Scene, text: str, letters: str
) -> None:
    """It takes no Parse then, so what it would say is said here: of what gives no rows, that."""
    await scene.start(servers=2, max_prepared_statements=1)
    a = await scene.client()
    await a.scope(parse(text, "s") + describe_statement("s") + S)
    await a.scope(parse("select 2", "another") + S)
    await a.query("begin; select 1/0")
    assert (await a.scope(describe_statement("s") + S)).letters == letters
    direct = await scene.direct()
    await direct.scope(parse(text, "s") + S)
    await direct.query("begin; select 1/0")
    assert (await direct.scope(describe_statement("s") + S)).letters == letters


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("copy t to stdout", "tnZ"),
        ("do $$ begin end $$", "tnZ"),
        ("create table u ()", "tnZ"),
        ("create rule r as on insert to t do also delete from t where id = new.id", "tnZ"),
        ("declare c cursor for select 1", "tnZ"),
        ("notify n", "tnZ"),
        ("lock table t", "tnZ"),
        ("truncate t", "tnZ"),
        ("create table v as select 1", "tnZ"),
        ("explain select 1", "EZ"),
        ("show timezone", "EZ"),
        ("fetch c", "EZ"),
        ("table t", "EZ"),
    ],
)
async def test_w25_describe_of_what_nobody_has_described_before(scene: Scene, text: str, letters: str) -> None:
    """Of a utility statement its kind tells whether it gives rows."""
    await scene.start(servers=2, max_prepared_statements=1)
    a, direct = await scene.client(), await scene.direct()
    for conn in (a, direct):
        await conn.query("begin; declare c cursor with hold for select 1; commit")
        await conn.scope(parse(text, "s") + S)
        await conn.scope(parse("select 2", "another") + S)
        await conn.query("close c")
        await conn.query("begin; select 1/0")
        assert (await conn.scope(describe_statement("s") + S)).letters == letters, conn is direct
        await conn.query("rollback")


@pytest.mark.parametrize(
    "text",
    [
        "prepare inner_one (int) as select $1",
        "create or replace function hazard_f(int) returns int language sql as 'select $1'",
        "create or replace function hazard_g(int) returns int language sql return $1",
        "explain select $1::int",
        "declare c cursor with hold for select $1::int",
        "create temporary table u as select $1::int as n",
        "select $1::int",
    ],
)
async def test_w28_a_bind_gives_as_many_values_as_the_statement_takes(scene: Scene, text: str) -> None:
    """Which numbers in a text are its own parameters, the origin says; a server that lacks the statement makes no difference."""
    await scene.start(servers=2, max_prepared_statements=1)
    a, direct = await scene.client(), await scene.direct()
    for conn in (a, direct):
        await conn.scope(parse(text, "s") + S)
        await conn.scope(parse("select 2", "another") + S)
    for values in ([], ["1"], ["1", "2"]):
        for conn in (a, direct):
            await conn.query("deallocate inner_one; drop table if exists u; close c")
        came, expected = [await conn.scope(bind("s", values) + execute() + S) for conn in (a, direct)]
        assert (came.letters, came.errors) == (expected.letters, expected.errors), values


async def test_w26_a_changed_result_type_heals_itself(scene: Scene) -> None:
    await scene.sql("create table c (a int); insert into c values (1)")
    a, b = await scene.client(), await scene.client()
    for conn in (a, b):
        await conn.scope(parse("select * from c", "s") + S)
        assert (await conn.scope(bind("s") + execute() + S)).rows == [("1",)]
    await scene.sql("alter table c add column b text default 'new'")
    # Nobody was told the old columns, so nobody need see 0A000.
    for conn in (a, b):
        assert (await conn.scope(bind("s") + describe_portal() + execute() + S)).rows == [("1", "new")]


async def test_w26_who_was_told_the_old_columns_sees_the_error(scene: Scene) -> None:
    await scene.sql("create table c (a int); insert into c values (1)")
    a = await scene.client()
    await a.scope(parse("select * from c", "s") + describe_statement("s") + S)
    await run(a, "s")
    await scene.sql("alter table c add column b text default 'new'")
    assert (await a.scope(bind("s") + execute() + S)).errors == ["0A000"]
    await a.scope(close_statement("s") + S)
    assert (await a.scope(parse("select * from c", "s") + bind("s") + execute() + S)).rows == [("1", "new")]


async def test_w26_in_a_transaction_nothing_is_sent_twice(scene: Scene) -> None:
    await scene.sql("create table c (a int); insert into c values (1)")
    a = await scene.client()
    await a.scope(parse("select * from c", "s") + bind("s") + execute() + S)
    await scene.sql("alter table c add column b text")
    await a.query("begin; select 1")
    replies = await a.scope(bind("s") + execute() + S)
    # Whoever parses anew in time need not fail; nobody was told the old columns.
    assert replies.errors == ["0A000"] or replies.rows == [("1", None)], replies
    await a.query("rollback")


async def test_w26_a_text_is_refused_when_its_table_is_gone(scene: Scene) -> None:
    """The server still has it, under a name of ours: that says nothing of whether the origin would take it again."""
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    await a.query("create table gone (v int)")
    assert not (await a.scope(parse("select v from gone", "s1") + S)).errors
    await a.query("drop table gone")
    for client in (a, b):
        assert ["42P01"] == (await client.scope(parse("select v from gone", "s2") + S)).errors
        assert ["26000"] == (await client.scope(bind("s2") + execute() + S)).errors
    await a.query("create table gone (v int)")
    for client in (a, b):
        assert ["SELECT 0"] == (await client.scope(parse("select v from gone", "s2") + bind("s2") + execute() + S)).tags
    await a.query("drop table gone")


@pytest.mark.parametrize("writes", [False, True])
async def test_w26_the_unnamed_statement_is_what_its_client_was_told(scene: Scene, writes: bool) -> None:
    """Another client had the server meanwhile, so it is parsed anew, in another schema: rows of another type would be misread."""
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    await a.query("create table changes (v int); insert into changes values (1)")
    text = "insert into changes values (2) returning v" if writes else "select v from changes"
    run_it = bind() + execute() + S
    assert (await a.scope(parse(text) + describe_statement() + S)).letters == "1tTZ"
    await b.scope(extended("select 'b'") + S)
    assert (await a.scope(run_it)).letters[:2] == "2D"
    await b.query("alter table changes alter v type text")
    for _ in range(2):
        assert (await a.scope(run_it)).errors == ["0A000"]
    assert (await b.query("select count(*) from changes")).rows == [("2" if writes else "1",)]
    await a.scope(parse(text) + describe_statement() + S)
    await b.scope(extended("select 'b'") + S)
    assert (await a.scope(run_it)).letters[:2] == "2D"
    await a.query("drop table changes")


async def test_w26_describe_of_an_unnamed_statement_that_has_changed(scene: Scene) -> None:
    """Changed behind our back, so nobody but the origin knows: it says so, and the statement stays the unnamed one."""
    await scene.start(servers=1)
    direct, a, b = await scene.direct(), await scene.client(), await scene.client()
    await direct.query("create table behind (v int)")
    await a.scope(parse("select v from behind") + S)
    await direct.query("alter table behind alter v type text")
    for _ in range(2):
        assert (await a.scope(describe_statement() + S)).errors == ["0A000"]
    await b.scope(extended("select 'of b'") + S)
    assert (await a.scope(describe_statement() + S)).of("T")[0].body.startswith(b"\0\1v\0")
    assert (await a.scope(parse("select v from behind") + describe_statement() + S)).letters == "1tTZ"
    assert (await a.scope(bind() + execute() + S)).tags == ["SELECT 0"]
    await direct.query("drop table behind")


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
async def test_w27_an_open_portal_holds_its_server(scene: Scene, limit: int) -> None:
    a, b = await scene.client(), await scene.client()
    await a.query("begin")
    first = await a.scope(
        parse("select i from generate_series(1, 3) i") + bind("", portal="p") + execute("p", limit) + S
    )
    assert first.letters[-2] == ("s" if limit <= 3 else "C")
    b.send(query("select 'b'"))
    rest = await a.scope(execute("p") + S)
    assert len(first.rows) + len(rest.rows) == 3
    assert (await a.query("commit")).statuses == "I"
    assert (await a.scope(execute("p") + S)).errors == ["34000"]
    assert (await b.read_until("Z")).rows == [("b",)]


async def test_w27_an_autocommit_portal_dies_at_the_sync_and_not_at_the_flush(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    a.send(parse("select i from generate_series(1, 3) i") + bind("", portal="p") + execute("p", 1) + flush())
    await a.read_until("s")
    b.send(query("select 'b'"))
    assert (await a.scope(execute("p", 1) + S)).rows == [("2",)]
    assert (await a.scope(execute("p", 1) + S)).errors == ["34000"]
    assert (await b.read_until("Z")).rows == [("b",)]


async def test_w28_a_setting_leaves_the_suspended_portal_alone(scene: Scene) -> None:
    a = await scene.client()
    await a.query("begin")
    await a.scope(parse("select i from generate_series(1, 5) i", "s") + bind("s") + execute("", 2) + S)
    await a.query("set work_mem = '3MB'")
    replies = await a.scope(execute("", 2) + S)
    direct = await scene.direct()
    await direct.query("begin")
    await direct.scope(parse("select i from generate_series(1, 5) i", "s") + bind("s") + execute("", 2) + S)
    await direct.query("set work_mem = '3MB'")
    assert (await direct.scope(execute("", 2) + S)).letters == replies.letters
    await a.query("rollback")


async def test_w29_a_cursor_with_hold_survives_and_pins(scene: Scene) -> None:
    await scene.start(servers=2)
    a, b = await scene.client(), await scene.client()
    await a.query("begin")
    await a.query("declare h cursor with hold for select i from generate_series(1, 4) i")
    await a.query("commit")
    for number in ("1", "2"):
        await b.query("select 'b'")
        assert (await a.query("fetch 1 from h")).rows == [(number,)]
    assert (await b.query("fetch 1 from h")).errors == ["34000"]
    assert (await a.query("close h")).tags == ["CLOSE CURSOR"]
    assert (await a.query("fetch 1 from h")).errors == ["34000"]


async def test_w29_a_plain_cursor_needs_its_transaction(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    assert (await a.query("declare c cursor for select 1")).errors == ["25P01"]
    await a.query("begin")
    await a.query("declare c cursor for select i from generate_series(1, 3) i")
    assert (await a.query("fetch 2 from c")).rows == [("1",), ("2",)]
    await a.query("commit")
    await b.query("select 'b'")
    assert (await a.query("fetch 1 from c")).errors == ["34000"]
