"""W-33 … W-42: asynchronous messages and session settings, with two clients on one server."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperdrive.testing import backend
from hyperdrive.testing.fake_origin import FakeOrigin
from hyperdrive.testing.frontend import bind, execute, extended, parse, query, sync
from hyperdrive.testing.scene import Scene, eventually
from hyperdrive.testing.wire import connect

S = sync()


async def test_w33_a_parameter_that_changes_while_idle_is_told_with_the_next_answer(
    fake_scene: Scene, fake: FakeOrigin
) -> None:
    await fake_scene.start(servers=1)
    a = await fake_scene.client()
    await a.query("select 1")
    fake.sessions[0].send(backend.parameter_status("in_hot_standby", "on"))
    replies = await a.query("select 2")
    assert replies.letters.replace("S", "") == "TDCZ"
    assert dict(replies.settings).get("in_hot_standby") == "on"
    assert "S" not in (await a.query("select 3")).letters
    assert (await fake_scene.client()).parameters["in_hot_standby"] == "on"


async def test_w33_a_notice_while_idle_reaches_no_later_answer(fake_scene: Scene, fake: FakeOrigin) -> None:
    await fake_scene.start(servers=1)
    a = await fake_scene.client()
    await a.query("select 1")
    fake.sessions[0].send(backend.error("01000", "to nobody", "WARNING", kind="N"))
    replies = await a.query("select 2")
    assert replies.without("N").letters == "TDCZ"
    assert fake.sessions[0].closed is False


async def test_w33_a_notification_nobody_asked_for_is_not_passed_on(fake_scene: Scene, fake: FakeOrigin) -> None:
    await fake_scene.start(servers=1)
    a = await fake_scene.client()
    await a.query("select 1")
    fake.sessions[0].send(backend.notification(1, "ch", "for somebody else"))
    assert (await a.query("select 2")).letters == "TDCZ"


async def test_w33_a_reload_changes_what_clients_are_told(scene: Scene) -> None:
    """``ALTER SYSTEM`` and reload: the origin reports the new value to idle servers at once."""
    a = await scene.client()
    assert a.parameters["IntervalStyle"] == "postgres"
    try:
        await scene.sql("alter system set intervalstyle = 'iso_8601'")
        await scene.sql("select pg_reload_conf()")
        told: list[tuple[str, str]] = []

        async def was_told() -> bool:
            told.extend((await a.query("select 1")).settings)
            return bool(told)

        await eventually(was_told)
        assert told == [("IntervalStyle", "iso_8601")]
        assert await a.value("select '1 day'::interval") == "P1D"
        assert (await scene.client()).parameters["IntervalStyle"] == "iso_8601"
    finally:
        await scene.sql("alter system reset intervalstyle")
        await scene.sql("select pg_reload_conf()")

    async def is_back() -> bool:
        return await scene.ask("show intervalstyle") == "postgres"

    await eventually(is_back)


async def test_w34_parameter_status_comes_between_tag_and_ready(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    await b.query("set timezone = 'UTC'")
    for zone in ("Asia/Tokyo", "Europe/Berlin"):
        assert (await a.query(f"set timezone = '{zone}'")).letters == "CSZ"
        await b.query("select 1")
    assert (await a.query("set timezone = 'Europe/Berlin'")).letters == "CZ"
    assert (await a.query("select 1")).letters == "TDCZ"


async def test_w34_an_error_reverts_between_error_and_ready(scene: Scene) -> None:
    a = await scene.client()
    await a.query("begin")
    assert (await a.query("set timezone = 'Asia/Tokyo'")).letters == "CSZ"
    failed = await a.query("select 1/0")
    assert (failed.letters, failed.statuses) == ("ESZ", "E")
    assert (await a.query("rollback")).letters == "CZ"


NAMES = ["work_mem", "timezone", "statement_timeout", "application_name", "search_path", "my.own"]
VALUES = {
    "work_mem": ["1MB", "2MB"],
    "timezone": ["UTC", "Asia/Tokyo"],
    "statement_timeout": ["60s", "70s"],
    "application_name": ["one", "two"],
    "search_path": ["one", "two"],
    "my.own": ["x", "y"],
}
_name = st.sampled_from(NAMES)
_set = _name.flatmap(lambda n: st.sampled_from(VALUES[n]).map(lambda v: (n, v)))
STEPS = st.one_of(
    _set.map(lambda p: f"set {p[0]} = '{p[1]}'"),
    _set.map(lambda p: f"set local {p[0]} = '{p[1]}'"),
    _set.map(lambda p: f"select set_config('{p[0]}', '{p[1]}', false)"),
    _set.map(lambda p: f"select set_config('{p[0]}', '{p[1]}', true)"),
    _name.map(lambda n: f"reset {n}"),
    _set.map(lambda p: f"set {p[0]} = '{p[1]}'; select 1/0"),
    st.sampled_from(
        [
            "begin",
            "begin",
            "commit",
            "rollback",
            "savepoint a",
            "savepoint b",
            "rollback to a",
            "rollback to b",
            "release a",
        ]
    ),
    st.sampled_from(["select 1/0", "select 1", "reset all", "discard all", "begin; set work_mem = '3MB'; commit"]),
)
# A name that was ever set on a server reads '' after its reset, and NULL elsewhere; nothing can undo that.
STATE = "select " + ", ".join(f"coalesce(current_setting('{name}', true), '')" for name in NAMES)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(st.tuples(STEPS, st.booleans()), min_size=1, max_size=12))
async def test_w35_the_journal_of_settings(scene: Scene, steps: list[tuple[str, bool]]) -> None:
    """Any sequence of SET, savepoints, errors and ends: after every step the same values as on a direct connection."""
    if scene.proxy is None:
        await scene.start(servers=1)
    async with (
        await connect(scene.origin_url) as direct,
        await connect(scene.proxy.url) as a,
        await connect(scene.proxy.url) as b,
    ):
        await b.query("set work_mem = '9MB'; set timezone = 'Asia/Kathmandu'; set my.own = 'of b'")
        for sql, as_extended in steps:
            data = extended(sql) + S if as_extended and ";" not in sql else query(sql)
            expected, got = await direct.scope(data), await a.scope(data)
            assert (expected.letters, expected.statuses, expected.tags) == (got.letters, got.statuses, got.tags), sql
            if expected.statuses == "I":
                assert (await b.query(STATE)).rows[0][0] == "9MB"
            if expected.statuses != "E":
                assert (await direct.query(STATE)).rows == (await a.query(STATE)).rows, sql
        for conn in (direct, a):
            await conn.query("rollback")
        assert (await direct.query(STATE)).rows == (await a.query(STATE)).rows


@pytest.mark.parametrize("how", ["set role", "set session authorization"])
@pytest.mark.parametrize("end", ["stays", "leaves", "fails", "local"])
async def test_w36_a_role_never_reaches_the_next_client(scene: Scene, how: str, end: str) -> None:
    await scene.sql("drop role if exists hazard_role; create role hazard_role")
    a, b = await scene.client(), await scene.client()
    if end == "local":
        await a.query(f"begin; {how.replace('set', 'set local')} hazard_role")
        assert await a.value("select current_user") == "hazard_role"
        await a.query("commit")
    else:
        await a.query(f"{how} hazard_role" + ("; select 1/0" if end == "fails" else ""))
        assert await a.value("select current_user") == ("postgres" if end == "fails" else "hazard_role")
    if end == "leaves":
        await a.terminate()
    assert (await b.query("select current_user, session_user, current_setting('is_superuser')")).rows == [
        ("postgres", "postgres", "on")
    ]
    if end == "stays":
        assert await a.value("select current_user") == "hazard_role"


@pytest.mark.parametrize("hidden", ["role", "session_authorization"])
async def test_w36_a_role_set_where_nobody_looks(scene: Scene, hidden: str) -> None:
    await scene.sql(
        "drop role if exists hazard_role; create role hazard_role;"
        f" create function become() returns void language plpgsql as $$ begin perform set_config('{hidden}', 'hazard_role', false); end $$"
    )
    a, b = await scene.client(), await scene.client()
    await a.query("select become()")
    assert await b.value("select current_user") == "postgres"
    await a.query(f"do $$ begin perform set_config('{hidden}', 'hazard_role', false); end $$")
    assert await b.value("select current_user") == "postgres"


@pytest.mark.parametrize(
    "change",
    [
        "select set_config('work_mem', '3MB', false)",
        "select quiet()",
        "do $$ begin set work_mem = '3MB'; end $$",
        "call quiet_too()",
        "select pg_catalog.set_config('work_mem', '3MB', false)",
    ],
)
async def test_w37_changes_nobody_sees_do_not_leak(scene: Scene, change: str) -> None:
    await scene.sql(
        "create function quiet() returns void language plpgsql as $$ begin perform set_config('work_mem', '3MB', false); end $$;"
        "create procedure quiet_too() language plpgsql as $$ begin perform set_config('work_mem', '3MB', false); end $$"
    )
    await scene.start(servers=2)
    a, b = await scene.client(), await scene.client()
    before = await b.value("show work_mem")
    assert (await a.query(change)).errors == []
    assert await b.value("show work_mem") == before
    assert (await a.scope(extended(change) + S)).errors == []
    assert await b.value("show work_mem") == before


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("work_mem", "select set_config('work_mem', (3 * 1024)::text, false)"),
        (
            "work_mem",
            "select set_config(name, v, false) from (values ('work_mem', '3MB'), ('my.own', 'x')) x (name, v)",
        ),
        ("work_mem", "with x as (select set_config('work_mem', '3MB', false) as y) select y from x"),
        ("work_mem", "select 1 where set_config('work_mem', '3MB', false) is null"),
        ("work_mem", "update pg_settings set setting = '3072' where name = 'work_mem'"),
        (
            "work_mem",
            "explain (analyze, costs off, timing off, summary off, buffers off) select set_config('work_mem', '3MB', false) from t",
        ),
        ("my.own", "select set_config('my.own', 'AAAAAAAA-0000-0000-0000-000000000000'::uuid::text, false)"),
        ("my.own", "select set_config('my.own', '  x'::char(3), false)"),
        ("my.own", "select set_config('my.own', '1'::numeric(4,2)::text, false)"),
        ("my.own", "select set_config('my.own', 't'::bool::text, false)"),
        ("my.own", "select set_config('my.own', 1e3::text, false)"),
    ],
)
async def test_w37_what_set_config_sets_stays_where_the_text_does_not_tell_it(
    scene: Scene, name: str, change: str
) -> None:
    """The client keeps its server, as it alone knows the value; nobody else has it, and the next client there has its own."""
    await scene.sql("insert into t values (1, 'x')")
    await scene.start(servers=2)
    a, b, direct = await scene.client(), await scene.client(), await scene.direct()
    for sql in (change, f"select coalesce(current_setting('{name}', true), '')"):
        for data in (query(sql), extended(sql) + S):
            await b.query("set work_mem = '9MB'; set my.own = 'b'")
            expected, got = await direct.scope(data), await a.scope(data)
            assert (expected.errors, expected.rows) == (got.errors, got.rows)
    await b.query("reset all")
    state = f"select coalesce(current_setting('{name}', true), '')"
    before = await b.value(state)
    await a.terminate()
    assert [await (await scene.client()).value(state) for _ in range(3)] == [before] * 3


async def test_w37_a_setting_that_is_set_or_reset_in_plain_words_needs_no_server_of_its_own(scene: Scene) -> None:
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    for end in ("set work_mem = '2MB'", "reset work_mem", "select set_config('work_mem', '2MB', false)", "reset all"):
        await a.query("select set_config('work_mem', (3 * 1024)::text, false)")
        assert await a.value("show work_mem") == "3MB"
        await a.query(end)
        assert await b.value("show work_mem") == "4MB"
        assert await a.value("show work_mem") == ("4MB" if "reset" in end else "2MB")
    await a.query("begin; select set_config('work_mem', (3 * 1024)::text, false)")
    await a.query("rollback")
    assert await b.value("show work_mem") == "4MB"


async def test_w33_a_parameter_that_is_null_resets_the_setting(scene: Scene) -> None:
    await scene.start(servers=1)
    a, b = await scene.client(), await scene.client()
    await a.query("set work_mem = '2MB'")
    assert await b.value("show work_mem") == "4MB"
    assert (await a.scope(extended("select set_config('work_mem', $1, false)", [None]) + S)).errors == []
    assert await b.value("show work_mem") == "4MB"
    assert await a.value("show work_mem") == "4MB"


@pytest.mark.parametrize("reset", ["reset search_path", "reset all", "set local search_path to default"])
async def test_w39_a_list_given_at_start_up_is_reset_in_a_transaction_without_a_snapshot(
    scene: Scene, reset: str
) -> None:
    """It is a SET that finds the same there; behind the transaction the list reads as it was given, and nobody else has it."""
    await scene.sql("create schema one")
    await scene.start(servers=1)
    a, b = await scene.client(search_path="public,one"), await scene.client()
    before = await b.value("show search_path")
    for begin in ("begin", "begin; set work_mem = '3MB'"):
        await a.query("set search_path = pg_catalog")
        await a.query(begin)
        reply = await a.query(reset)
        assert (reply.errors, reply.rows) == ([], [])
        assert (await a.query("set transaction isolation level repeatable read")).errors == []
        assert await a.value("select current_schemas(false)::text") == "{public,one}"
        await a.query("commit")
        assert await b.value("show search_path") == before
        assert await a.value("show search_path") == ("pg_catalog" if "local" in reset else "public,one")
        await a.query("reset search_path")
        assert await a.value("show search_path") == "public,one"


async def test_w37_a_reset_to_start_up_values_hides_no_change_that_nobody_saw(scene: Scene) -> None:
    await scene.sql(
        "create function quiet() returns void language plpgsql as $$ begin perform set_config('work_mem', '3MB', false); end $$"
    )
    await scene.start(servers=1)
    a, b = await scene.client(search_path="public,one"), await scene.client()
    before = await b.value("show work_mem")
    for sql in ("begin", "select quiet()", "reset search_path", "commit"):
        assert (await a.query(sql)).errors == []
    assert await b.value("show work_mem") == before


async def test_w37_search_path_changed_by_a_function_does_not_leak(scene: Scene) -> None:
    await scene.sql(
        "create schema one; create table one.t (id int, who text); insert into one.t values (1, 'one');"
        "create function wander() returns void language sql as $$ select set_config('search_path', 'one', false) $$"
    )
    a, b = await scene.client(), await scene.client()
    await b.scope(parse("select who from t", "s") + S)
    await a.query("select wander()")
    assert (await b.query("select who from t")).rows == []
    assert (await b.scope(bind("s") + execute() + S)).rows == []


@pytest.mark.parametrize("cache", ["off", "on"])
async def test_w40_a_default_that_a_client_changes_is_asked_anew(scene: Scene, cache: str) -> None:
    """No server reports it; what it was before is worth nothing to the transactions that begin now."""
    await scene.start(cache=cache)
    a = await scene.client()
    level = "show transaction_isolation"
    try:
        for expected in ("serializable", "repeatable read"):
            await a.query(f"alter database hazards set default_transaction_isolation = '{expected}'")
            for client in (a, await scene.client()):
                assert await client.value(level) == expected
                await client.query("begin")
                assert await client.value(level) == expected
                await client.query("rollback")
    finally:
        await scene.sql("alter database hazards reset default_transaction_isolation")


@pytest.mark.parametrize(
    "sql",
    [
        "set search_path = 'a, b'",
        "set search_path = a, b",
        'set search_path = "$user", "A b", \'c"d\'',
        "set application_name = 'it''s \\ \"quoted\"'",
        "set application_name = E'tab\\there'",
        "set my.long = '" + "x" * 5000 + "'",
        "set my.own = ''",
        "set random_page_cost = 0.123456789",
        "set seq_page_cost to 1e-3",
        "set work_mem = '  2MB '",
        "set time zone interval '-08:00' hour to minute",
        "set datestyle = 'SQL', 'DMY'",
        "set extra_float_digits = +3",
        "set $func$ = 1",
        "set my.\"Odd\" = 'x'",
        "set session my.own to 'a;b'",
        "set my.unicode = 'żółć 🐘'",
    ],
)
async def test_w38_values_are_replayed_exactly(scene: Scene, sql: str) -> None:
    """The server changes hands between SET and use; the value that comes back is the one a direct connection has."""
    a, b, direct = await scene.client(), await scene.client(), await scene.direct()
    await direct.query("set application_name = ''")
    name = sql.removeprefix("set ").removeprefix("session ").split(" =")[0].split(" to")[0].split()[0]
    name = "timezone" if name == "time" else name
    show = f"select current_setting('{name.replace(chr(34), '')}', true)" if name != "$func$" else "select 1"
    if "random_page" in sql:
        show = "select * from pg_settings where name = 'random_page_cost'"
    expected, got = await direct.query(sql), await a.query(sql)
    assert expected.errors == got.errors
    for _ in range(2):
        await b.query(
            "set search_path = pg_catalog; set application_name = 'b'; set my.own = 'b'; set work_mem = '9MB'"
        )
        await b.query("reset all")
        assert (await direct.query(show)).rows == (await a.query(show)).rows


async def test_w39_replayed_settings_do_not_take_the_snapshot(scene: Scene) -> None:
    a, b = await scene.client(), await scene.client()
    await a.query("set work_mem = '3MB'")
    await a.query("set search_path = public")
    for begin in ("begin isolation level serializable", "begin", "start transaction isolation level repeatable read"):
        await b.query("set work_mem = '9MB'")
        await a.query(begin)
        assert (await a.query("set transaction isolation level repeatable read")).errors == []
        assert await a.value("show transaction_isolation") == "repeatable read"
        assert await a.value("show work_mem") == "3MB"
        await a.query("commit")


@pytest.mark.parametrize(
    ("sql", "show", "expected"),
    [
        ("set default_transaction_isolation = 'serializable'", "transaction_isolation", "serializable"),
        (
            "set session characteristics as transaction isolation level repeatable read",
            "transaction_isolation",
            "repeatable read",
        ),
        ("set default_transaction_read_only = on", "transaction_read_only", "on"),
        ("set default_transaction_deferrable = on", "transaction_deferrable", "on"),
    ],
)
async def test_w40_defaults_apply_to_the_transaction_behind_them(
    scene: Scene, sql: str, show: str, expected: str
) -> None:
    a, b = await scene.client(), await scene.client()
    await a.query(sql)
    for begin in ("begin", None, "begin read write"):
        await b.query("insert into t values (1, 'b')")
        await b.query("truncate t")
        if begin is not None:
            await a.query(begin)
        if not (begin == "begin read write" and "read_only" in sql):
            assert await a.value(f"show {show}") == expected
        if begin is not None:
            await a.query("commit")
    if "read_only" in sql:
        await b.query("select 1")
        assert (await a.query("insert into t values (9, 'a')")).errors == ["25006"]
        await b.query("select 1")
        assert (await a.scope(extended("insert into t values (9, 'a')") + S)).errors == ["25006"]
        assert (await b.query("insert into t values (8, 'b')")).errors == []


@pytest.mark.parametrize("encoding", ["SJIS", "BIG5", "GBK", "GB18030", "UHC"])
async def test_w41_encodings_with_ascii_inside_characters(scene: Scene, encoding: str) -> None:
    """``0x8F 0x5C``-like pairs end in a backslash or quote; nothing here may be taken for SQL."""
    a, b, direct = await scene.client(), await scene.client(), await scene.direct()
    text = {"SJIS": "表", "BIG5": "功", "GBK": "誠", "GB18030": "誠", "UHC": "겫"}[encoding]
    codec = {"SJIS": "shift_jis", "BIG5": "big5", "GBK": "gbk", "GB18030": "gb18030", "UHC": "cp949"}[encoding]
    encoded = text.encode(codec)
    for conn in (a, direct):
        await conn.query(f"set client_encoding = '{encoding}'")
    for sql in (b"select '%s', 1", b"begin -- %s", b"select '%s;' ; rollback", b"select '%s' as \"begin\""):
        data = query(sql % encoded if b"%" in sql else sql)
        expected, got = await direct.scope(data), await a.scope(data)
        assert (expected.letters, expected.statuses) == (got.letters, got.statuses)
        assert [m.body for m in expected.of("D")] == [m.body for m in got.of("D")]
        if got.statuses == "I":
            assert await b.value("show client_encoding") == "UTF8"
            assert (await b.query("select 'grüße'")).rows == [("grüße",)]


@pytest.mark.parametrize(
    "sql",
    [
        r"select 'a\'; begin; --'",
        r"select '\'', 1",
        r"begin --\'",
        r"select 'x\\'; rollback",
        r"set my.own = 'it\'s'",
        "show my.own",
    ],
)
async def test_w42_literals_that_end_elsewhere(scene: Scene, sql: str) -> None:
    a, b, direct = await scene.client(), await scene.client(), await scene.direct()
    for conn in (a, direct):
        await conn.query("set standard_conforming_strings = off")
        await conn.query("set escape_string_warning = off")
    expected, got = await direct.query(sql), await a.query(sql)
    assert (expected.letters, expected.statuses, expected.rows) == (got.letters, got.statuses, got.rows)
    if got.statuses == "I":
        assert (await b.query(r"select 'a\'")).rows == [("a\\",)]


async def test_w05_what_one_session_resets_to_is_not_what_another_does(scene: Scene) -> None:
    """RESET is a text that the origin knows; where it leads hangs on the start-up values of who says it."""
    a, b = await scene.client(), await scene.client(timezone="Asia/Tokyo")
    for client, own in ((a, "UTC"), (b, "Asia/Tokyo"), (a, "UTC"), (b, "Asia/Tokyo")):
        for sql in ("reset timezone", "set timezone to default", "reset all"):
            assert (await client.query("set timezone = 'EST'")).settings == [("TimeZone", "EST")]
            assert (await client.query(sql)).settings == [("TimeZone", own)], sql
            assert await client.value("select current_setting('TimeZone')") == own


@pytest.mark.parametrize(
    ("name", "other"),
    [("TimeZone", "Asia/Tokyo"), ("standard_conforming_strings", "off"), ("IntervalStyle", "iso_8601")],
)
async def test_w34_what_is_learnt_is_the_value_of_now(scene: Scene, name: str, other: str) -> None:
    """A SET that was answered in the transaction, and one behind it that takes it back, so that nothing is reported: another client, who
    is answered from what was learnt of the second, is told the right value."""
    a, b = await scene.client(), await scene.client()
    usual = await a.value(f"show {name}")
    await a.query(f"set {name} = '{other}'")
    await a.query(f"reset {name}")
    await a.query("begin")
    await a.query("select count(*) from t")
    await a.query(f"set {name} = '{other}'")
    assert (await a.query(f"set {name} = '{usual}'")).settings == [(name, usual)]
    assert (await a.query(f"show {name}")).rows == [(usual,)]
    await a.query("commit")
    await b.query(f"set {name} = '{other}'")
    assert (await b.query(f"set {name} = '{usual}'")).settings == [(name, usual)]
    assert (await b.query(f"show {name}")).rows == [(usual,)]


@pytest.mark.parametrize(
    "value",
    [
        "'6F9619FF-8B86-D011-B42D-00C04FC964FF'::uuid::text",
        "'abcdef'::varchar(3)",
        "'abc  '::char(5)",
        "'t'::bool::text",
        "1e3::text",
        "007::text",
        "'x'::text",
        "'x'::pg_catalog.text::varchar",
        "cast('y' as text)",
        "array['a']::text",
        "upper('x')",
        "'a' || 'b'",
        "(select 'z')",
    ],
)
async def test_w33_set_config_of_a_value_that_is_worked_out(scene: Scene, value: str) -> None:
    """What cannot be set on another server in the same way keeps its server."""
    await scene.start(servers=2)
    a, b, direct = await scene.client(), await scene.client(), await scene.direct()
    for conn in (direct, a):
        assert not (await conn.query(f"select set_config('my.own', {value}, false)")).errors
    for _ in range(2):
        await b.query("select set_config('my.own', 'of b', false)")
        assert (await a.query("show my.own")).rows == (await direct.query("show my.own")).rows
    await a.query("discard all")
    assert (await b.query("show my.own")).rows == [("of b",)]


@pytest.mark.parametrize(
    "change",
    [
        "select set_config(name, value, false) from (values ('my.own', 'x'), ('my.other', 'y')) v (name, value)",
        "with x as (select set_config('my.own', 'x', false)) select * from x",
        "select 1 where set_config('my.own', 'x', false) = 'x'",
        "select set_config('my.own', case when true then 'x' end, false)",
    ],
)
@pytest.mark.parametrize("end", ["", "reset all", "rollback"])
async def test_w43_set_config_that_nobody_could_repeat_pins(scene: Scene, change: str, end: str) -> None:
    await scene.start(servers=2)
    a, b = await scene.client(), await scene.client()
    if end == "rollback":
        await a.query("begin")
    assert not (await a.query(change)).errors
    if end:
        await a.query(end)
    may_be_role = end == "reset all" and "(name," in change  # RESET ALL would leave it (W-36)
    pinned = [row for row in [client.session.pins() for client in scene.proxy.app.proxy.clients.values()] if row]
    assert pinned == ([] if end and not may_be_role else [["set_config of a computed value"]])
    await b.query("set my.own = 'of b'")
    assert await a.value("select current_setting('my.own', true)") == ("" if end else "x")


@pytest.mark.parametrize(
    "path",
    ["shadow, pg_catalog", "shadow, PG_CATALOG", 'shadow, U&"pg\\005fcatalog"', "database", "role", "startup"],
)
async def test_w33_a_function_of_ones_own_called_set_config(scene: Scene, path: str) -> None:
    """It is run each time: no search path makes us answer for it."""
    await scene.sql(
        "drop schema if exists shadow cascade; create schema shadow; create table shadow.calls (n int);"
        " create function shadow.set_config(text, text, bool) returns text language sql as"
        " $$ insert into shadow.calls values (1); select pg_catalog.set_config($1, $2, $3) $$"
    )
    if path == "database":
        await scene.sql("alter database hazards set search_path = shadow, pg_catalog")
    if path == "role":
        await scene.sql("alter role postgres in database hazards set search_path = shadow, pg_catalog")
    try:
        given = {"search_path": "shadow,pg_catalog"} if path == "startup" else {}
        a = await scene.client(**given)
        if "shadow" in path:
            assert not (await a.query(f"set search_path = {path}")).errors
        for _ in range(3):
            assert (await a.query("select set_config('timezone', 'Asia/Tokyo', false)")).rows == [("Asia/Tokyo",)]
        assert await a.value("select count(*) from shadow.calls") == "3"
    finally:
        await scene.sql(
            "alter database hazards reset search_path; alter role postgres in database hazards reset search_path"
        )
        await scene.sql("drop schema shadow cascade")
