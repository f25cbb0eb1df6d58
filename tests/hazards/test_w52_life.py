"""W-52 … W-56: clients and servers that vanish."""

from __future__ import annotations

import asyncio

import pytest

from hyperdrive.testing import backend
from hyperdrive.testing.fake_origin import FakeOrigin, FakeSession
from hyperdrive.testing.frontend import (
    bind,
    copy_data,
    execute,
    extended,
    flush,
    parse,
    query,
    sync,
    terminate,
)
from hyperdrive.testing.scene import Scene, eventually
from hyperdrive.testing.wire import LoginFailed

S = sync()
PID = "select pg_backend_pid()"
INSERT = "insert into t values (1, 'a')"

LEAVES = ["terminate", "close", "reset"]
STATES = {
    "idle": ([], b""),
    "held": (["begin"], b""),
    "live": (["begin", INSERT], b""),
    "failed": (["begin", INSERT, "select 1/0"], b""),
    "savepoint": (["begin", INSERT, "savepoint a"], b""),
    "query under way": ([], query("select pg_sleep(0.5)")),
    "pipeline under way": ([], query("select pg_sleep(0.5)") + query("select 2") + query("begin") + query(INSERT)),
    "query in a transaction": (["begin", INSERT], query("select pg_sleep(0.5)")),
    "open scope": ([], parse("select 1") + flush()),
    "open scope that wrote": ([], parse(INSERT) + bind() + execute() + flush()),
    "open scope, nothing flushed": ([], parse(INSERT) + bind() + execute()),
    "open scope in a transaction": (["begin", "select 1"], parse(INSERT) + bind() + execute() + flush()),
    "suspended portal": (["begin"], parse("select generate_series(1, 9)") + bind() + execute("", 2) + S),
    "copy in": ([], query("copy t from stdin")),
    "copy in, extended": ([], parse("copy t from stdin") + bind() + execute() + S),
    "copy in, rows sent": ([], query("copy t from stdin") + copy_data(b"1\ta\n")),
    "copy in of a transaction": (["begin", "select 1"], query("copy t from stdin")),
    "copy out": ([], query("copy (select repeat('x', 1000) from generate_series(1, 30000)) to stdout")),
    "half a message": ([], query(INSERT)[:9]),
    "half a header": ([], b"Q\0"),
    "settings": (["set work_mem = '3MB'", "set role pg_monitor"], b""),
}


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("state", STATES)
async def test_w52_a_client_may_vanish_anywhere(scene: Scene, state: str, leave: str) -> None:
    """Nothing of it is left on the server: no transaction, no row, no setting, no reply; and the next client is served."""
    queries, data = STATES[state]
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    for sql in queries:
        await a.query(sql)
    if data:
        a.send(data)
        if "under way" in state:
            await eventually(lambda: scene.is_waiting("PgSleep"), "the query runs")
        elif "nothing" not in state and "half" not in state:
            await a.receive()
    if leave == "terminate":
        a.send(terminate())
    if leave == "reset":
        a.abort()
    else:
        await a.close()
    checks = (
        "select current_user, current_setting('work_mem'), (select count(*) from t), pg_current_xact_id_if_assigned()"
    )
    assert (await b.query(checks)).rows == [("postgres", "4MB", "0", None)]
    assert await scene.ask("select count(*) from t") == "0"
    assert await scene.servers() != []


@pytest.mark.parametrize(
    "state", ["live", "failed", "savepoint", "open scope that wrote", "copy in", "suspended portal"]
)
async def test_w52_a_client_that_leaves_costs_a_rollback_and_not_a_server(scene: Scene, state: str) -> None:
    queries, data = STATES[state]
    a, b = await scene.client(), await scene.client()
    pid = await b.value(PID)
    for sql in queries:
        await a.query(sql)
    if data:
        a.send(data)
        await a.receive()
    await a.close()
    assert await b.value(PID) == pid


async def test_w52_a_statement_that_was_sent_is_not_undone(scene: Scene) -> None:
    """As in PostgreSQL: autocommit means that leaving does not take it back."""
    a, b = await scene.client(), await scene.client()
    a.send(query("insert into t select 1, 'a' from pg_sleep(0.5)"))
    await eventually(lambda: scene.is_waiting("PgSleep"), "the insert runs")
    await a.close()
    assert (await b.query("select count(*) from t")).rows == [("1",)]


async def test_w52_a_waiting_client_that_vanishes_leaves_the_queue(scene: Scene) -> None:
    a, b, c = await scene.client(), await scene.client(), await scene.client()
    await a.query("begin; select 1")
    b.send(query(INSERT))
    c.send(query("select 'c'"))
    await eventually(lambda: sum(pool.waiting for pool in scene.proxy.pools) == 2, "both wait")
    b.abort()
    await eventually(lambda: sum(pool.waiting for pool in scene.proxy.pools) == 1, "b is forgotten")
    await a.query("commit")
    assert (await c.read_until("Z")).rows == [("c",)]
    assert await scene.ask("select count(*) from t") == "0"


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("flushed", [True, False], ids=["flushed", "unflushed"])
async def test_w53_terminate_with_an_open_scope_rolls_back(scene: Scene, leave: str, flushed: bool) -> None:
    """``[P B E(insert)] X``: a Sync of ours to tidy up would commit it."""
    a, b = await scene.client(), await scene.client()
    a.send(parse(INSERT) + bind() + execute() + (flush() if flushed else b""))
    if flushed:
        assert (await a.read_until("C")).tags == ["INSERT 0 1"]
    if leave == "terminate":
        a.send(terminate())
    if leave == "reset":
        a.abort()
    else:
        await a.close()
    assert (await b.query("select count(*) from t")).rows == [("0",)]
    assert await scene.ask("select count(*) from t") == "0"


async def test_w54_nothing_was_written_yet(scene: Scene) -> None:
    """The server died while idle: another takes its place, and nobody hears of it."""
    a = await scene.client()
    pid = await a.value(PID)
    await scene.sql(f"select pg_terminate_backend({pid})")
    for _ in range(3):
        assert (await a.query("select 'a'")).rows == [("a",)]
    await a.query("begin")
    pid = (await scene.servers())[0]
    await scene.sql(f"select pg_terminate_backend({pid})")
    replies = await a.query(INSERT)
    # Where BEGIN is held back nothing was lost; where it had reached the origin the transaction is.
    assert (replies.tags, replies.errors) in ((["INSERT 0 1"], []), ([], ["08006"]))
    assert (await a.query("commit")).tags == ["COMMIT" if replies.tags else "ROLLBACK"]


async def test_w54_a_lost_transaction_is_not_continued_in_autocommit(scene: Scene) -> None:
    """The server dies between two statements of a block: what follows must not be committed one by one."""
    a = await scene.client()
    await a.query("begin")
    await a.query("insert into t values (1, 'lost')")
    pid = await a.value(PID)
    await scene.sql(f"select pg_terminate_backend({pid})")
    replies = await a.query("insert into t values (2, 'alone')")
    assert (replies.tags, replies.statuses) == ([], "E"), replies
    assert (await a.query("commit")).tags == ["ROLLBACK"]
    assert await scene.ask("select count(*) from t") == "0"


@pytest.mark.parametrize(
    ("before", "sql", "sqlstates", "status"),
    [
        pytest.param([], "insert into t values (1)", ["08007"], "I", id="autocommit write"),
        pytest.param(["begin", "select 1"], "insert into t values (1)", ["08006"], "E", id="in a transaction"),
        pytest.param(["begin"], "insert into t values (1)", ["08006", ""], "E", id="first of a transaction"),
        pytest.param(["begin", "insert into u values (1)"], "commit", ["08007"], "I", id="commit"),
        pytest.param([], "begin; insert into t values (1); commit", ["08007"], "I", id="a list that may commit"),
    ],
)
@pytest.mark.parametrize("shape", ["simple", "extended"])
async def test_w54_a_server_that_vanishes(
    fake_scene: Scene, fake: FakeOrigin, before: list[str], sql: str, sqlstates: list[str], status: str, shape: str
) -> None:
    await fake_scene.start(servers=1)
    a, b = await fake_scene.client(), await fake_scene.client()
    for earlier in before:
        await a.query(earlier)
    dying = 0

    async def die(session: FakeSession) -> None:
        nonlocal dying
        dying += 1
        await session.abort()

    fake.on(r"insert into t|^commit", die)
    replies = await a.scope(query(sql) if shape == "simple" or ";" in sql else extended(sql) + S)
    assert replies.errors in [[code] for code in sqlstates if code], replies
    assert replies.statuses == status
    assert dying <= 2, "resent more than once"
    fake.rules.clear()
    if status == "E":
        assert (await a.query("select 1")).errors == ["25P02"]
        assert (await a.query("rollback to a")).errors == ["3B001"]
        assert (await a.query("commit")).tags == ["ROLLBACK"]
    assert (await a.query("select 1")).tags == ["SELECT 1"]
    assert (await b.query("select 1")).tags == ["SELECT 1"]


async def test_w54_a_write_is_never_sent_twice(fake_scene: Scene, fake: FakeOrigin) -> None:
    sent = 0

    async def die(session: FakeSession) -> None:
        nonlocal sent
        sent += 1
        await session.abort()

    fake.on("insert into t", die)
    await fake_scene.start(servers=1)
    a = await fake_scene.client()
    assert (await a.query("insert into t values (1)")).errors == ["08007"]
    assert sent == 1


async def test_w54_a_proven_read_is_retried_once(fake_scene: Scene, fake: FakeOrigin) -> None:
    sent = 0

    async def die_once(session: FakeSession) -> None:
        nonlocal sent
        sent += 1
        if sent == 1:
            await session.abort()
        else:
            session.send(backend.row_description(["x"]), backend.data_row(["again"]), backend.complete("SELECT 1"))

    fake.on("from once", die_once)
    await fake_scene.start(servers=1)
    a = await fake_scene.client()
    replies = await a.query("select x from once")
    assert replies.rows == [("again",)] or replies.errors == ["08006"], replies
    assert sent <= 2


@pytest.mark.parametrize("after", [0, 1, 4, 5, 7, 20, 29, 30, 34, 40, 55])
async def test_w54_cut_in_the_middle_of_a_result(fake_scene: Scene, fake: FakeOrigin, after: int) -> None:
    """Rows already forwarded stay; then an error and ReadyForQuery, never half a message and never two results."""
    result = backend.row_description(["x"]) + backend.data_row(["first"]) + backend.data_row(["second"])
    fake.on("from cut", lambda session: session.cut(result, after))
    await fake_scene.start(servers=1)
    a, b = await fake_scene.client(), await fake_scene.client()
    replies = await a.query("select x from cut")
    assert replies.letters[-2:] == "EZ"
    assert replies.statuses == "I"
    assert replies.errors[0] in ("08006", "08007")
    assert len(replies.of("T")) <= 1
    assert (await b.query("select 1")).tags == ["SELECT 1"]


@pytest.mark.parametrize("short_of", [1, 200])
async def test_w54_cut_in_the_middle_of_a_large_row(fake_scene: Scene, fake: FakeOrigin, short_of: int) -> None:
    """A part of the row has been passed on: whatever we said now the client would take for the rest of it, so we only close."""
    whole = backend.row_description(["x"]) + backend.data_row(["first " + "x" * 1_000_000])
    fake.on("from cut", lambda session: session.cut(whole + backend.complete("SELECT 1"), len(whole) - short_of))
    await fake_scene.start(servers=1)
    a, b = await fake_scene.client(), await fake_scene.client()
    a.send(query("select x from cut"))
    replies = await a.read_to_end()
    assert replies.letters == "T"
    assert (await b.query("select 1")).tags == ["SELECT 1"]


async def test_w54_a_pinned_session_ends_with_its_server(scene: Scene) -> None:
    await scene.start(servers=2)
    a = await scene.client()
    await a.query("create temp table own (a int)")
    pid = await a.value(PID)
    await scene.sql(f"select pg_terminate_backend({pid})")
    replies = await a.read_to_end()
    assert replies.errors == ["57P01"]
    assert replies[-1].error["S"] == "FATAL"


async def test_w55_idle_servers_that_speak_are_removed(fake_scene: Scene, fake: FakeOrigin) -> None:
    await fake_scene.start(servers=1)
    a = await fake_scene.client()
    await a.query("select 1")
    idle = fake.sessions[0]
    idle.send(backend.error("57P01", "terminating connection due to administrator command", "FATAL"))
    await idle.close()
    replies = await a.query("select 2")
    assert (replies.errors, replies.tags) == ([], ["SELECT 1"])
    assert len(fake.sessions) >= 2


@pytest.mark.parametrize(
    "words",
    [backend.error("25P03", "idle too long", "FATAL"), backend.data_row(["foreign"]), backend.ready(), bytes(5)],
)
async def test_w55_words_out_of_turn_reach_no_client(fake_scene: Scene, fake: FakeOrigin, words: bytes) -> None:
    await fake_scene.start(servers=1)
    a = await fake_scene.client()
    await a.query("select 1")
    fake.sessions[0].send(words)
    await eventually(lambda: fake.sessions[0].closed, "the server is closed")
    assert (await a.query("select 2")).letters == "TDCZ"


async def test_w55_a_conflict_with_recovery_cancels_one_statement(fake_scene: Scene, fake: FakeOrigin) -> None:
    """On a standby, replay needs what a query still sees: an ERROR of the running statement, and the server is as good as before."""
    fake.on("select conflict", _conflict)
    await fake_scene.start(servers=1)
    a, b = await fake_scene.client(), await fake_scene.client()
    replies = await a.query("select conflict")
    assert (replies.errors, replies.statuses) == (["40001"], "I")
    await a.query("begin")
    assert (await a.query("select conflict")).statuses == "E"
    await a.query("rollback")
    assert (await b.query("select 2")).tags == ["SELECT 1"]
    assert len(fake.sessions) == 1


async def _conflict(session: FakeSession) -> None:
    session.fail("40001", "canceling statement due to conflict with recovery")


@pytest.mark.parametrize("sqlstate", ["57P04", "40001"], ids=["database dropped", "idle in transaction"])
async def test_w55_a_conflict_with_recovery_ends_a_server(fake_scene: Scene, fake: FakeOrigin, sqlstate: str) -> None:
    """FATAL, unasked: an idle server is gone before anyone takes it; who was in a transaction hears of it at the next statement."""
    words = backend.error(sqlstate, "terminating connection due to conflict with recovery", "FATAL")
    await fake_scene.start(servers=2)
    a, b = await fake_scene.client(), await fake_scene.client()
    await a.query("begin")
    await a.query("select 1")
    await b.query("select 1")
    for session in list(fake.alive):
        session.send(words)
        await session.close()
    assert (await b.query("select 2")).letters == "TDCZ"
    replies = await a.query("select 2")
    assert (replies.errors, replies.statuses) == (["08006"], "E")
    assert sqlstate in replies.of("E")[0].error["D"]
    assert (await a.query("rollback")).tags == ["ROLLBACK"]
    assert (await a.query("select 3")).letters == "TDCZ"


async def test_w55_a_restart_of_the_origin(request: pytest.FixtureRequest) -> None:
    """All servers vanish at once; clients of a held transaction and idle ones go on as if nothing had been."""
    from contextlib import AsyncExitStack

    postgres = request.getfixturevalue("throwaway")
    async with AsyncExitStack() as stack:
        scene = Scene(postgres.url, stack, postgres.major)
        await scene.start(servers=2)
        a, b = await scene.client(), await scene.client()
        await a.query("create table t (id int, who text)")
        await b.query("begin")
        await b.query(INSERT)
        await asyncio.to_thread(postgres.server.stop_sync)
        replies = await b.query("select 1")
        assert (replies.errors[0][:2], replies.statuses) == ("08", "E")
        a.send(query("select 'a'"))
        await asyncio.to_thread(postgres.server.start_sync)
        assert (await a.read_until("Z")).rows == [("a",)]
        assert (await b.query("rollback")).tags == ["ROLLBACK"]
        assert (await b.query("select count(*) from t")).rows == [("0",)]


async def test_w56_an_idle_server_that_answers_nothing_is_found_by_a_probe(fake_scene: Scene, fake: FakeOrigin) -> None:
    """Its packets go nowhere; a probe off the query path finds out."""
    await fake_scene.start(servers=1, server_check_delay=0.05, server_check_timeout=0.1)
    a = await fake_scene.client()
    await a.query("select 1")
    first = fake.sessions[0]

    async def deaf() -> None:
        await first.hang()

    first.read = deaf  # type: ignore[method-assign,assignment]
    first.send = lambda *messages: None  # type: ignore[method-assign]
    await eventually(lambda: len(fake.sessions) > 1 or first.reader.at_eof(), "the proxy gave the server up")
    assert (await a.query("select 2")).tags == ["SELECT 1"]


async def test_w62_a_refusal_reaches_the_waiting_clients(fake_scene: Scene, fake: FakeOrigin) -> None:
    await fake_scene.start(servers=1, query_wait_timeout=2.0)
    a = await fake_scene.client()
    await a.query("select 1")
    fake.refusal = backend.error("28P01", "password authentication failed for user app", "FATAL")
    await fake.sessions[0].close()
    replies = await a.query("select 2")
    assert replies.errors == ["28P01"], replies
    fake.refusal = None

    async def works() -> bool:
        return (await a.query("select 3")).tags == ["SELECT 1"]

    await eventually(works, "the pool recovers")


@pytest.mark.parametrize("sqlstate", ["57P03", "53300"])
async def test_w62_a_temporary_refusal_is_waited_out(fake_scene: Scene, fake: FakeOrigin, sqlstate: str) -> None:
    await fake_scene.start(servers=1, query_wait_timeout=4.0, backoff_first=0.05, backoff_max=0.1)
    a = await fake_scene.client()
    await a.query("select 1")
    fake.refusal = backend.error(sqlstate, "starting up", "FATAL")
    await fake.sessions[0].close()
    seen = len(fake.sessions)
    a.send(query("select 2"))
    await eventually(lambda: len(fake.sessions) > seen, "the proxy tried")
    fake.refusal = None
    replies = await a.read_until("Z")
    assert (replies.errors, replies.tags) == ([], ["SELECT 1"])


async def test_w62_a_temporary_refusal_ends_at_the_deadline(fake_scene: Scene, fake: FakeOrigin) -> None:
    fake.refusal = backend.error("57P03", "starting up", "FATAL")
    await fake_scene.start(min_pool_size=0, query_wait_timeout=0.5)
    with pytest.raises(LoginFailed) as failed:
        await fake_scene.client()
    assert failed.value.replies.errors[0] in ("57P03", "08006", "53300")
