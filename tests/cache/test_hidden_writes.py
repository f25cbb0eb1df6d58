"""Writes that no status byte, no path and no single text tells of drop what they change all the same (caching-rules §10.5)."""

from __future__ import annotations

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import bind, execute, parse, query, sync
from hyperdrive.testing.scene import eventually
from hyperdrive.testing.wire import WireConnection

T = "select id, v from t order by id"
OTHER = "select id, v from other order by id"
INSERT = "insert into t values (50, 'new')"

TR = """
create function tr() returns trigger language plpgsql as $$begin insert into other values (new.id, 'by trigger'); return new; end$$;
"""


async def stored(scene: CachedScene, sql: str, conn: WireConnection | None = None) -> WireConnection:
    """A client by which *sql* was stored, whatever the catalog had to be loaded for before."""
    conn = conn or await scene.client()
    reader = conn

    async def is_hit() -> bool:
        await reader.query(sql)
        return scene.how(reader) == "hit"

    await eventually(is_hit, f"a stored read: {scene.last(conn)}")
    return conn


async def is_served_right(scene: CachedScene, conn: WireConnection, sql: str) -> bool:
    direct = await scene.direct()
    return (await direct.query(sql)).rows == (await conn.query(sql)).rows


def extended(sql: str) -> bytes:
    return parse(sql) + bind() + execute() + sync()


@pytest.mark.parametrize(
    ("messages", "ready"),
    [
        pytest.param([query(INSERT) + query("begin")], [2], id="a pipelined BEGIN"),
        pytest.param([extended(INSERT) + extended("begin")], [2], id="the same, extended"),
        pytest.param([query("begin"), query(INSERT), query("commit and chain")], [1, 1, 1], id="AND CHAIN"),
        pytest.param([query("begin"), query(INSERT), extended("commit and chain")], [1, 1, 1], id="the same, extended"),
        pytest.param([query(f"begin; {INSERT}; commit; begin")], [1], id="a list of statements"),
        pytest.param([query(f"{INSERT}; commit; begin; select 1")], [1], id="a list that goes on"),
    ],
)
async def test_a_commit_behind_which_another_transaction_begins(
    scene: CachedScene, messages: list[bytes], ready: list[int]
) -> None:
    """The session is never idle, and what it wrote is committed."""
    reader, writer = await stored(scene, T), await scene.client()
    for data, count in zip(messages, ready, strict=True):
        replies = await writer.scope(data, count)
        assert not replies.errors
    assert await is_served_right(scene, reader, T)


BY_DOMAINS = """
create function writes() returns int language plpgsql as
    $$begin insert into other select max(id) + 1, 'by a domain' from other; return 1; end$$;
create function looks(int) returns bool language plpgsql as $$begin return writes() = 1; end$$;
create domain late as int default writes();
create domain later as late;
create domain checked as int check (looks(value));
create domain nested as checked;
create type holding as (a nested);
create type span as range (subtype = nested);
create table by_default (id int, a late);
create table by_default_of_base (id int, a later);
create table by_array (a nested[]);
create table by_row (a holding);
create table by_span (a span);
create table by_cast (id int, a int default '1'::nested);
"""


@pytest.mark.parametrize("is_extended", [False, True])
async def test_domains_whose_functions_write(scene: CachedScene, is_extended: bool) -> None:
    """Their defaults and CHECKs run where a value becomes one, at whatever depth, in a read as well."""
    await scene.sql(BY_DOMAINS)
    reader, writer = await scene.client(), await scene.client()
    for sql in (
        "insert into by_default (id) values (1)",
        "insert into by_default_of_base (id) values (1)",
        "insert into by_array values ('{1}')",
        "insert into by_row values ('(1)')",
        "insert into by_span values ('[1,2)')",
        "insert into by_cast (id) values (1)",
        "select '1'::nested",
        "select '{1}'::nested[]",
        "select '(1)'::holding",
        "select '[1,2)'::span",
        "select nested(1)",
        "select (1).nested",
        "select * from json_to_record('{\"a\": 1}') as x(a nested)",
        "select jsonb_populate_record(r, '{\"a\": 1}') from (select null::by_array) x, (select null::holding as r) r",
        "select array_append(a, '1') from by_array",
        "with w as (select '1'::checked) select * from w, t",
    ):
        await stored(scene, OTHER, reader)
        before = await scene.ask("select count(*) from other")
        replies = await writer.scope(extended(sql) if is_extended else query(sql))
        assert not replies.errors, sql
        assert before != await scene.ask("select count(*) from other"), sql
        assert await is_served_right(scene, reader, OTHER), sql


async def test_settings_of_a_pinned_session_that_changed_unseen(scene: CachedScene) -> None:
    """Its names may mean other tables than its label says."""
    await scene.sql(
        "create schema one; create table one.t (id int, v text); create function go() returns void language plpgsql"
        " as $$begin perform set_config('search_path', 'one', false); end$$"
    )
    sql = "select id, v from one.t"
    writer = await scene.client()
    await writer.query("listen something")
    await writer.query("select go()")
    reader = await stored(scene, sql)
    assert not (await writer.query("insert into t values (8, 'in one')")).errors
    assert await is_served_right(scene, reader, sql)


async def test_a_temporary_view_in_the_place_of_a_table(scene: CachedScene) -> None:
    """What is written through it arrives elsewhere."""
    writer = await scene.client()
    await writer.query("create temp view t as select id, v from other")
    reader = await stored(scene, OTHER)
    assert not (await writer.query("insert into T values (8, 'through the view')")).errors
    assert await is_served_right(scene, reader, OTHER)


async def test_explain_that_executes_what_was_prepared(scene: CachedScene) -> None:
    reader, writer = await stored(scene, T), await scene.client()
    await writer.query(f"prepare ins as {INSERT}")
    assert not (await writer.query("explain analyze execute ins")).errors
    assert await is_served_right(scene, reader, T)


async def test_explain_that_makes_a_table(scene: CachedScene) -> None:
    """It stands in the path before the one that was read."""
    await scene.sql("create schema one")
    reader, writer = await scene.client(), await scene.client()
    await reader.query("set search_path = one, public")
    await stored(scene, "select * from t", reader)
    assert not (await writer.query("explain analyze create table one.t as select 'newer' as id")).errors
    assert [("newer",)] == (await reader.query("select * from t")).rows


async def test_drop_table_with_the_name_of_the_database(scene: CachedScene) -> None:
    reader, writer = await stored(scene, OTHER), await scene.client()
    database = scene.proxy.app.dsn.database
    assert not (await writer.query(f"drop table {database}.public.other")).errors
    assert (await reader.query(OTHER)).errors


@pytest.mark.parametrize(
    "ddl",
    [
        pytest.param(["do $${sql};$$"], id="DO"),
        pytest.param(["begin", "{sql}", "prepare transaction 'late'", "commit prepared 'late'"], id="COMMIT PREPARED"),
    ],
)
async def test_a_trigger_made_by_hidden_ddl(scene: CachedScene, ddl: list[str]) -> None:
    """The write closure knows it at once."""
    if ddl[-1].startswith("commit prepared") and await scene.ask("show max_prepared_transactions") == "0":
        pytest.skip("this server prepares no transactions")
    await scene.sql(TR)
    writer = await scene.client()
    made = "begin create trigger x after insert on t for each row execute function tr(); end"
    if len(ddl) > 1:
        made = "create trigger x after insert on t for each row execute function tr()"
    for sql in ddl:
        assert not (await writer.query(sql.replace("{sql}", made))).errors
    reader = await stored(scene, OTHER)
    assert not (await writer.query(INSERT)).errors
    assert await is_served_right(scene, reader, OTHER)


async def test_a_trigger_made_by_a_function(scene: CachedScene) -> None:
    """It is looked for at once, and not when the next poll is due; until then everything of before is dropped."""
    await scene.sql(TR)
    await scene.sql(
        "create function mk() returns void language plpgsql as"
        " $$begin create trigger x after insert on t for each row execute function tr(); end$$"
    )
    reader, writer = await stored(scene, OTHER), await scene.client()
    epoch = scene.database.domain.epoch
    assert not (await writer.query("select mk()")).errors
    await eventually(lambda: scene.database.domain.epoch > epoch, "the trigger is seen")
    await stored(scene, OTHER, reader)
    assert not (await writer.query(INSERT)).errors
    assert await is_served_right(scene, reader, OTHER)


async def test_code_that_changes_no_schema_ends_no_epoch(scene: CachedScene) -> None:
    await scene.sql("create function busy() returns void language plpgsql as $$begin update t set v = 'busy'; end$$")
    reader, writer = await stored(scene, T), await scene.client()
    epoch = scene.database.domain.epoch
    polls = sum(watch.metrics.polls for watch in scene.proxy.app._watches)
    for _ in range(20):
        assert not (await writer.query("select busy()")).errors
    await eventually(lambda: sum(w.metrics.polls for w in scene.proxy.app._watches) > polls, "a poll")
    assert epoch == scene.database.domain.epoch
    await stored(scene, T, reader)
    assert await is_served_right(scene, reader, T)


async def test_roles_are_changed_by_way_of_another_database(scene: CachedScene) -> None:
    """Roles are the whole server's: what they may do in one database changes by a statement in any."""
    await scene.sql(
        "drop role if exists low, many; create role many; create role low in role many; grant select on t to many"
    )
    try:
        reader, writer = await scene.client(), await scene.client(database="postgres")
        await reader.query("set role low")
        await stored(scene, T, reader)
        assert not (await writer.query("revoke many from low")).errors
        assert ["42501"] == (await reader.query(T)).errors
    finally:
        await scene.sql("drop owned by low, many; drop role low, many")


async def test_a_commit_that_is_heard_of_before_its_text_is_done(scene: CachedScene) -> None:
    """The tag comes with the rows behind it, long before ReadyForQuery."""
    reader, writer = await stored(scene, T), await scene.client()
    writer.send(query(f"{INSERT}; commit; select repeat('x', 100000); select pg_sleep(1)"))
    replies = await writer.read_until("C", 2)
    assert ["INSERT 0 1", "COMMIT"] == replies.tags
    assert await is_served_right(scene, reader, T)
    await writer.read_until("Z")


async def test_a_name_in_another_encoding(scene: CachedScene) -> None:
    """The bytes of one table's name in LATIN1 are those of another's in UTF-8."""
    await scene.sql('create table "ä" (id int); create table "Ã¤" (id int)')
    sql = 'select count(*) from "Ã¤"'
    reader, writer = await stored(scene, sql), await scene.client(client_encoding="LATIN1")
    assert not (await writer.scope(query('insert into "Ã¤" values (1)'.encode("latin-1")))).errors
    assert await is_served_right(scene, reader, sql)
