"""What drops what (caching-rules §10.5): writes through us, applied before the client hears that they are done."""

from __future__ import annotations

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.frontend import bind, copy_data, copy_done, execute, parse, query, sync
from hyperdrive.testing.scene import eventually

READS = {
    "t": "select id, v from t order by id",
    "other": "select id, v from other",
    "child": "select id, parent from child order by id",
    "shown": "select id, v from shown order by id",
    "parted": "select k, v from parted order by k",
    "parted_1": "select k, v from parted_1",
    "counted": "select n from counted",
}


async def fill(scene: CachedScene) -> object:
    """A client by which every read of ``READS`` was stored."""
    conn = await scene.client()
    for sql in READS.values():
        await conn.query(sql)
        await conn.query(sql)
        assert "hit" == scene.how(conn), sql
    return conn


WRITES = [
    pytest.param("update t set v = 'new' where id = 1", {"t", "shown"}, id="update"),
    pytest.param("insert into t values (9, 'nine')", {"t", "shown"}, id="insert"),
    pytest.param(
        "insert into t values (1, 'x') on conflict (id) do update set v = 'x'", {"t", "shown", "child"}, id="upsert"
    ),
    pytest.param("delete from t where id = 1", {"t", "shown", "child"}, id="delete cascades"),
    pytest.param("update t set id = 100 where id = 1", {"t", "shown", "child"}, id="key update cascades"),
    pytest.param(
        "with gone as (delete from other returning id) select count(*) from gone", {"other"}, id="data-modifying CTE"
    ),
    pytest.param("update shown set v = 'through the view'", {"t", "shown"}, id="updatable view"),
    pytest.param("insert into parted values (1, 'more')", {"parted", "parted_1"}, id="partitioned table"),
    pytest.param("update parted_1 set v = 'child'", {"parted", "parted_1"}, id="partition"),
    pytest.param("truncate other", {"other"}, id="truncate"),
    pytest.param("refresh materialized view counted", {"counted"}, id="materialized view"),
    pytest.param("do $$begin update other set v = 'do'; end$$", set(READS), id="DO"),
    pytest.param("select 1; update other set v = 'second'", {"other"}, id="multi-statement"),
    pytest.param("explain analyze update other set v = 'explained'", {"other"}, id="EXPLAIN ANALYZE"),
    pytest.param("update t set v = v", {"t", "shown"}, id="no change"),
]


@pytest.mark.parametrize(("write", "dropped"), WRITES)
async def test_a_write_drops_what_it_may_have_changed(scene: CachedScene, write: str, dropped: set[str]) -> None:
    """And what it drops is asked again, right away, by the writer and by everybody else."""
    await fill(scene)
    writer, reader, direct = await scene.client(), await scene.client(), await scene.direct()
    assert not (await writer.query(write)).errors
    missed = set()
    for name, sql in READS.items():
        expected = await direct.query(sql)
        assert expected == await reader.query(sql), name
        if "hit" != scene.how(reader):
            missed.add(name)
        assert expected == await writer.query(sql), name
    # An upsert may do more than insert, and over-dropping costs a miss; an entry too many would cost a stale row.
    assert dropped <= missed or write.startswith("insert into t values (1"), missed
    if dropped != set(READS):
        assert missed <= dropped | {"child"}, missed


@pytest.mark.parametrize("protocol", ["simple", "unnamed", "named"])
async def test_writes_of_each_protocol_are_seen(scene: CachedScene, protocol: str) -> None:
    await fill(scene)
    conn = await scene.client()
    sql = "update t set v = $1 where id = 1" if protocol != "simple" else "update t set v = 'x' where id = 1"
    if protocol == "named":
        # A Bind of an old statement without Parse in the batch: the verdict belongs to the statement (§5.3).
        await conn.scope(parse(sql, "w") + sync())
        await conn.scope(bind("w", ["x"]) + execute() + sync())
    elif protocol == "unnamed":
        await conn.scope(parse(sql) + bind("", ["x"]) + execute() + sync())
    else:
        await conn.query(sql)
    assert [("x",)] == (await conn.query("select v from t where id = 1")).rows
    assert ("1", "x") == (await conn.query(READS["t"])).rows[0]


async def test_copy_is_a_write(scene: CachedScene) -> None:
    await fill(scene)
    conn = await scene.client()
    conn.send(query("copy other from stdin"))
    await conn.read_until("G")
    conn.send(copy_data(b"7\tcopied\n") + copy_done())
    await conn.read_until("Z")
    assert ("7", "copied") in (await conn.query(READS["other"])).rows


async def test_a_transaction_drops_at_its_commit_and_not_before(scene: CachedScene) -> None:
    await fill(scene)
    writer, reader = await scene.client(), await scene.client()
    await writer.query("begin")
    await writer.query("update t set v = 'uncommitted' where id = 1")
    before = await reader.query(READS["t"])
    assert ("hit", ("1", "v1")) == (scene.how(reader), before.rows[0])
    assert ("1", "uncommitted") == (await writer.query(READS["t"])).rows[0], "its own rows, from the origin"
    await writer.query("commit")
    assert ("1", "uncommitted") == (await reader.query(READS["t"])).rows[0]


async def test_what_was_filled_while_a_transaction_was_open_is_dropped_by_its_commit(scene: CachedScene) -> None:
    writer, reader = await scene.client(), await scene.client()
    await writer.query("begin")
    await writer.query("update t set v = 'uncommitted' where id = 1")
    await scene.ask_twice(reader, READS["t"])
    assert "hit" == scene.how(reader)
    await writer.query("commit")
    assert ("1", "uncommitted") == (await reader.query(READS["t"])).rows[0]


async def test_a_pipelined_read_behind_a_write_sees_it(scene: CachedScene) -> None:
    """Rule 4: ``Execute(INSERT) Execute(SELECT) Sync`` is one implicit transaction, and so are two Queries in one packet."""
    await fill(scene)
    conn, direct = await scene.client(), await scene.direct()
    batch = (
        parse("insert into other values (5, 'five')")
        + bind()
        + execute()
        + parse(READS["other"])
        + bind()
        + execute()
        + sync()
    )
    assert ("5", "five") in (await conn.scope(batch)).rows
    two = query("insert into other values (6, 'six')") + query(READS["other"])
    assert ("6", "six") in (await conn.scope(two, 2)).rows
    assert await direct.query(READS["other"]) == await conn.query(READS["other"])


async def test_a_trigger_makes_a_write_unknown(scene: CachedScene) -> None:
    """§11: a session reads its own writes, also those made by triggers and functions that we did not know about."""
    await scene.sql(
        "create function copies() returns trigger language plpgsql as"
        " $$begin insert into other values (new.id + 1000, new.v); return new; end$$;"
        "create trigger copies after insert on t for each row execute function copies()"
    )
    await fill(scene)
    conn = await scene.client()
    await conn.query("insert into t values (50, 'fifty')")
    assert ("1050", "fifty") in (await conn.query(READS["other"])).rows


@pytest.mark.parametrize("call", ["select writes('x')", "select * from writing", "select (o).writes2 from other o"])
async def test_a_function_that_writes_is_an_unknown_write(scene: CachedScene, call: str) -> None:
    """Whether it is called by name, by a view or in column notation."""
    await scene.sql(
        "create function writes(text) returns text language sql as"
        " $$update t set v = $1 where id = 1; select $1$$;"
        "create function writes2(other) returns text language sql as $$update t set v = 'x' where id = 1; select 'x'$$;"
        "create view writing as select writes('x')"
    )
    await fill(scene)
    conn, reader = await scene.client(), await scene.client()
    await conn.query(call)
    assert ("1", "x") == (await reader.query(READS["t"])).rows[0]


async def test_sql_prepare_and_execute_are_unknown_writes(scene: CachedScene) -> None:
    await fill(scene)
    conn, reader = await scene.client(), await scene.client()
    await conn.query("prepare w as update t set v = 'x' where id = 1")
    await conn.query("execute w")
    assert ("1", "x") == (await reader.query(READS["t"])).rows[0]


async def test_prepared_transactions_count_when_they_are_committed(
    scene: CachedScene, request: pytest.FixtureRequest
) -> None:
    if await scene.ask("show max_prepared_transactions") == "0":
        pytest.skip("this origin has no prepared transactions")
    await fill(scene)
    conn, reader = await scene.client(), await scene.client()
    await conn.query("begin; update t set v = 'x' where id = 1; prepare transaction 'two'")
    await scene.ask_twice(reader, READS["t"])
    await conn.query("commit prepared 'two'")
    assert ("1", "x") == (await reader.query(READS["t"])).rows[0]


async def test_set_local_search_path_changes_what_a_write_means(scene: CachedScene) -> None:
    await scene.sql(
        "create schema one; create table one.t (id int primary key, v text); insert into one.t values (1, 'one')"
    )
    conn = await scene.client()
    await scene.ask_twice(conn, "select v from one.t")
    await conn.query("begin")
    await conn.query("set local search_path = one")
    await conn.query("update t set v = 'x'")
    await conn.query("commit")
    assert [("x",)] == (await conn.query("select v from one.t")).rows


async def test_set_config_in_a_transaction_changes_what_a_write_means(scene: CachedScene) -> None:
    await scene.sql(
        "create schema one; create table one.t (id int primary key, v text); insert into one.t values (1, 'one')"
    )
    conn = await scene.client()
    await scene.ask_twice(conn, "select v from one.t")
    await conn.query("begin")
    await conn.query("select set_config('search_path', 'one', true)")
    await conn.query("update t set v = 'x'")
    await conn.query("commit")
    assert [("x",)] == (await conn.query("select v from one.t")).rows


async def test_a_client_that_leaves_in_the_middle_of_a_write_has_written(scene: CachedScene) -> None:
    """Whatever becomes of it: the statement may have been done."""
    await fill(scene)
    writer, reader = await scene.client(), await scene.client()
    async with await scene.direct() as locker:
        await locker.query("begin; select pg_advisory_lock(99)")
        writer.send(query("update t set v = 'left' where id = 1 and pg_advisory_lock(99) is not null"))
        await eventually(lambda: scene.is_waiting(), "the write waits")
        writer.abort()
        await eventually(lambda: writer.pid not in scene.proxy.app.proxy.clients, "the client has left")
        await locker.query("rollback; select pg_advisory_unlock_all()")

    async def is_seen() -> bool:
        return (await reader.query(READS["t"])).rows[0] == ("1", "left")

    if await scene.ask("select v from t where id = 1") == "left":
        assert await is_seen()


async def test_the_outcome_of_a_lost_server_counts_as_done_and_is_doubted_for_a_while(scene: CachedScene) -> None:
    """08007: nothing that it may have changed is served, and nothing is stored while its backend may still be at work."""
    await fill(scene)
    writer, reader = await scene.client(), await scene.client()
    async with await scene.direct() as locker:
        await locker.query("select pg_advisory_lock(98)")
        writer.send(query("update t set v = 'lost' where id = 1 and pg_advisory_lock(98) is not null"))
        await eventually(lambda: scene.is_waiting(), "the write waits")
        for client in scene.proxy.app.proxy.clients.values():
            if client.server is not None:
                client.server.transport.abort()
        assert ["08007"] == (await writer.read_until("Z")).errors
        assert ("1", "v1") == (await reader.query(READS["t"])).rows[0], "not yet"
        await reader.query(READS["t"])
        assert "miss" == scene.how(reader), "nothing is stored meanwhile"
        await locker.query("select pg_advisory_unlock_all()")
        await locker.query(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and wait_event = 'advisory'"
        )


EPOCHS = [
    "create table fresh (id int)",
    "alter table t add column w int default 7",
    "create index on t (v)",
    "comment on table t is 'x'",
    "grant select on t to public",
    "drop view shown",
    "create or replace view shown as select id, v from t where id > 2",
    "create function f() returns int language sql immutable as 'select 1'",
    "select id, v into copied from t",
]


@pytest.mark.parametrize("sql", EPOCHS)
async def test_ddl_through_us_ends_the_epoch(scene: CachedScene, sql: str) -> None:
    await fill(scene)
    conn, reader, direct = await scene.client(), await scene.client(), await scene.direct()
    epoch = scene.database.domain.epoch
    await conn.query(sql)
    assert epoch < scene.database.domain.epoch
    for name, read in READS.items():
        assert (await direct.query(read)).letters == (await reader.query(read)).letters, name
        assert "hit" != scene.how(reader)
    await scene.settle(reader)
    assert "hit" == (await scene.ask_twice(reader, READS["t"]))[0]


async def test_a_table_that_was_made_anew_is_another_table(scene: CachedScene) -> None:
    """§7.3: DROP and CREATE give a new OID under an old name."""
    conn = await scene.client()
    await scene.ask_twice(conn, "select id, v from other")
    await conn.query("drop table other")
    await conn.query("create table other (id int, v text)")
    assert [] == (await conn.query("select id, v from other")).rows
    await scene.settle(conn)
    await scene.ask_twice(conn, "select id, v from other")
    await conn.query("insert into other values (1, 'again')")
    assert [("1", "again")] == (await conn.query("select id, v from other")).rows


async def test_ddl_past_us_is_found_by_the_poll(scene: CachedScene) -> None:
    """§7.3: the interval of the poll is the bound."""
    await scene.start(catalog_poll="50ms")
    conn = await scene.client()
    await scene.ask_twice(conn, READS["shown"])
    await scene.sql("create or replace view shown as select id, v from t where id > 4")

    async def is_seen() -> bool:
        return len((await conn.query(READS["shown"])).rows) == 1

    await eventually(is_seen, "the new view")


async def test_writes_past_us_are_bounded_by_age(scene: CachedScene) -> None:
    """Rung 1 says so: max_age, and the stale window while it is asked again."""
    conn = await scene.client()
    await scene.ask_twice(conn, READS["t"])
    await scene.sql("update t set v = 'past us' where id = 1")
    assert ("1", "v1") == (await conn.query(READS["t"])).rows[0]
    scene.clock.advance(76)
    assert ("1", "past us") == (await conn.query(READS["t"])).rows[0]


HIDING = """
drop schema if exists hiding cascade; create schema hiding; set search_path = hiding, public;
create table seen (n int);
create function writes() returns int language plpgsql as $$ begin insert into hiding.seen values (1); return 1; end $$;
create function looks(int) returns bool language plpgsql as $$ begin insert into hiding.seen values ($1); return true; end $$;
create domain given as int default writes();
create domain given_on as given;
create domain checked as int check (looks(value));
create domain checked_on as checked check (value > 0);
create type pair as (a int, b checked);
create type span as range (subtype = checked);
create domain pairs as pair[];
create table rows (id int, v int);
"""


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("given", None),
        ("given_on", None),
        ("checked", "1"),
        ("checked_on", "1"),
        ("checked[]", "'{1,2}'"),
        ("pair", "'(1,2)'"),
        ("pair[]", "'{\"(1,2)\"}'"),
        ("pairs", "'{\"(1,2)\"}'"),
        ("span", "'[1,2)'"),
    ],
)
@pytest.mark.parametrize("how", ["insert", "cast"])
async def test_what_a_domain_within_a_type_writes_is_noticed(
    scene: CachedScene, column: str, value: str | None, how: str
) -> None:
    """Its default and its checks call functions, wherever in the column's type it stands."""
    await scene.sql(HIDING + f"alter table rows add column hides {column}")
    write = (
        "insert into hiding.rows (id) values (1)"
        if value is None
        else f"insert into hiding.rows values (1, 1, {value})"
    )
    if how == "cast":
        write = f"select ({value or 'null'})::hiding.{column}" if value else "select 1 from hiding.rows"
    try:
        conn, other = await scene.client(), await scene.client()
        sql = "select count(*) from hiding.seen"
        assert "hit" == (await scene.ask_twice(conn, sql))[0]
        assert not (await other.query(write)).errors
        assert (await conn.query(sql)).rows == [(await scene.ask(sql),)]
    finally:
        await scene.sql("drop schema hiding cascade")


async def test_a_mark_that_lies_is_believed_about_writes_unless_the_switch_says_no(scene: CachedScene) -> None:
    """IMMUTABLE, and writes by a VOLATILE function that it calls (xfunc-volatility): the operator decides whether marks are trusted."""
    liar = "create function hiding.lies(int) returns int language plpgsql immutable as $$ begin perform hiding.writes(); return 1; end $$"
    await scene.sql(HIDING + liar)
    try:
        await scene.start(cache_trust_immutable=False)
        conn, other = await scene.client(), await scene.client()
        sql = "select count(*) from hiding.seen"
        assert "hit" == (await scene.ask_twice(conn, sql))[0]
        await other.query("update hiding.rows set v = 1")
        assert not (await other.query("insert into hiding.rows values (hiding.lies(1), 1)")).errors
        assert (await conn.query(sql)).rows == [("1",)]
    finally:
        await scene.sql("drop schema hiding cascade")
