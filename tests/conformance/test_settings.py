"""Session settings, direct and through us: they follow the client, and nobody else."""

from __future__ import annotations

import pytest

from hyperdrive.testing.frontend import bind, describe_portal, execute, extended, parse, query, sync
from hyperdrive.testing.script import Compare, Script, Step, say

S = sync()


def queries(*statements: str) -> list[Step]:
    return [say(query(sql)) for sql in statements]


SCRIPTS = [
    Script("reported settings", queries("set timezone = 'UTC'", "show timezone", "set timezone = 'UTC'", "set datestyle = 'German, DMY'",
                                        "select date '2020-01-31'", "set application_name = 'x'", "show application_name",
                                        "set client_encoding = 'LATIN1'", "select 'é'", "reset client_encoding", "reset timezone",
                                        "show timezone", "reset all", "show datestyle")),
    Script("unreported settings", queries("set work_mem = '7MB'", "show work_mem", "select current_setting('work_mem')",
                                          "reset work_mem", "show work_mem", "set enable_seqscan to off", "show enable_seqscan",
                                          "set enable_seqscan to default", "show enable_seqscan", "reset all")),
    Script("forms of set", queries("set session work_mem to '2MB'", "set time zone 'Europe/Berlin'", "show timezone", "set time zone local",
                                   "set time zone default", "set time zone interval '+02:30' hour to minute", "show timezone",
                                   "set names 'utf8'", "set schema 'pg_catalog'", "show search_path", "set xml option document",
                                   "show xmloption", "set seed to 0.5", "set extra_float_digits = 3", "set intervalstyle = iso_8601",
                                   "show time zone", "SET WORK_MEM = 4096", "show WORK_MEM", "show \"TimeZone\""), servers=2),
    Script("forms of set, as extended queries", [
        say(extended("set work_mem = '3MB'") + S), say(extended("show work_mem") + S), say(extended("set timezone = 'UTC'") + S),
        say(extended("show timezone") + S), say(extended("reset all") + S), say(extended("show work_mem") + S),
        say(parse("show timezone", "s1") + S), say(query("set timezone = 'Asia/Tokyo'")), say(bind("s1") + describe_portal() + execute() + S),
    ]),
    Script("wrong settings", queries("set nothing_like_it = 1", "set work_mem = 'lots'", "set work_mem = -5", "show nothing_like_it",
                                     "set timezone = 'Nowhere'", "set server_version = '1'", "set max_connections = 5", "set",
                                     "reset nothing_like_it", "show work_mem", "set port = 1", "set local.x = 1, 2", "show local.x")),
    Script("own settings", queries("set my.own = 'x'", "show my.own", "reset my.own", "show my.own", "select current_setting('my.none', true)",
                                   "select set_config('my.own', 'y', false)", "show my.own")),
    Script("search_path", queries("create schema one; create table one.w as select 'one' as w", "create schema two; create table two.w as select 'two' as w",
                                  "set search_path = one", "select * from w", "set search_path = two, one", "select * from w",
                                  "set search_path = 'one, two'", "show search_path", "select * from w", "reset search_path", "select * from w",
                                  "set search_path = \"$user\", one", "show search_path", "select * from w")),
    *[Script(f"search_path of {how} as it is given: {value}", parameters={"search_path": value} if how == "a start-up" else {}, steps=queries(
        *([f"select set_config('search_path', '{value}', false)"] if how == "set_config" else []), "show search_path",
        "select current_setting('search_path'), current_schemas(false)", "set search_path = two", "reset search_path", "show search_path", "reset all",
        "show search_path", "begin", "show search_path", "select current_schemas(false)", "commit", "discard all", "show search_path"))
      for how in ("set_config", "a start-up")
      for value in ("", "public,one", "public, one", '"A",b', " a ,  B ", '"$user",public', "user", '"user", one', "PUBLIC", "a b", "a,,b", ",")],
    Script("search_path as SET writes it", queries(*[sql for path in ("''", "'A, b'", '"A", b', "'A', 'b,c'", '"$user", public', "PUBLIC", "'', public",
                                                                      "E'a\\tb'", "'a''b', \"c\"\"d\"", "user", "1") for sql in (
        f"set search_path = {path}", "show search_path", "select current_setting('search_path')", f"set search_path = {path}", "show search_path")])),
    Script("search_path and statements", [
        *queries("create schema one; create table one.w as select 'one' as w", "create schema two; create table two.w as select 'two' as w", "set search_path = one"),
        say(parse("select * from w", "s1") + bind("s1") + execute() + S), *queries("set search_path = two"),
        say(bind("s1") + execute() + S), say(parse("select * from w", "s2") + bind("s2") + execute() + S),
    ]),
    Script("rollback reverts", queries("set work_mem = '2MB'", "begin", "set work_mem = '3MB'", "set timezone = 'UTC'", "select 1", "rollback",
                                       "show work_mem", "show timezone", "begin", "set work_mem = '5MB'", "commit", "show work_mem")),
    Script("rollback reverts where nothing else ran", queries("begin", "set work_mem = '3MB'", "set timezone = 'UTC'", "rollback",
                                                              "show work_mem", "show timezone", "begin", "set timezone = 'UTC'", "commit",
                                                              "show timezone")),
    Script("an error reverts", queries("begin", "set timezone = 'UTC'", "select 1/0", "rollback", "show timezone",
                                       "begin", "set timezone = 'UTC'", "select 1/0", "commit", "show timezone")),
    Script("a list that fails reverts", queries("set work_mem = '9MB'; select 1/0", "show work_mem", "set work_mem = '9MB'; select 1", "show work_mem")),
    Script("savepoints revert", queries("begin", "set work_mem = '2MB'", "savepoint a", "set work_mem = '3MB'", "set timezone = 'UTC'", "rollback to a",
                                        "show work_mem", "show timezone", "savepoint b", "set work_mem = '4MB'", "release b", "commit", "show work_mem")),
    Script("savepoints and errors revert", queries("begin", "savepoint a", "set timezone = 'UTC'", "select 1/0", "rollback to a", "show timezone",
                                                   "set timezone = 'Asia/Tokyo'", "commit", "show timezone")),
    Script("set local", queries("begin", "set local work_mem = '2MB'", "set local timezone = 'UTC'", "show work_mem", "commit", "show work_mem",
                                "show timezone", "begin", "set work_mem = '5MB'", "set local work_mem = '6MB'", "commit", "show work_mem")),
    Script("reset all over what set local hides", queries(
        "begin", "set work_mem = '2MB'", "set local work_mem to default", "reset all", "show work_mem", "commit", "show work_mem",
        "begin", "set work_mem = '3MB'", "set local work_mem = '4MB'", "reset all", "commit", "show work_mem",
        "begin", "set work_mem = '5MB'", "savepoint a", "set local work_mem to default", "reset all", "rollback to a", "commit", "show work_mem",
        "begin", "set local role conf_role", "reset all", "select current_user", "commit", "select current_user",
    ), setup="drop role if exists conf_role; create role conf_role;", servers=2),
    Script("set_config", queries("select set_config('work_mem', '2MB', false)", "show work_mem", "begin", "select set_config('work_mem', '3MB', true)",
                                 "show work_mem", "commit", "show work_mem", "begin", "select set_config('timezone', 'UTC', false)", "rollback",
                                 "show timezone")),
    Script("set in a scope that fails", [
        say(parse("set timezone = 'UTC'") + bind() + execute() + parse("select 1/0") + bind() + execute() + S), *queries("show timezone"),
        say(parse("set timezone = 'UTC'") + bind() + execute() + parse("select 1") + bind() + execute() + S), *queries("show timezone"),
    ]),
    Script("set and query in one write", [
        say(query("set timezone = 'UTC'") + query("show timezone") + query("begin") + query("set timezone = 'Asia/Tokyo'") + query("rollback")
            + query("show timezone"), 6),
    ]),
    Script("role", queries("set role conf_role", "select current_user, session_user", "select * from t", "reset role", "select current_user",
                           "set role conf_role", "reset all", "select current_user", "set role none", "select current_user",
                           "set role nobody_at_all"),
           setup="drop role if exists conf_role; create role conf_role;"),
    Script("session authorization", queries("set session authorization conf_role", "select current_user, session_user", "show is_superuser",
                                            "select * from t", "reset session authorization", "select current_user",
                                            "begin", "set local session authorization conf_role", "select current_user", "commit", "select current_user"),
           setup="drop role if exists conf_role; create role conf_role;"),
    Script("discard", [
        *queries("set work_mem = '2MB'", "set timezone = 'UTC'"), say(parse("select 1", "s1") + S), *queries("discard all", "show work_mem", "show timezone"),
        say(bind("s1") + execute() + S), *queries("discard plans", "discard sequences", "discard temp", "discard temporary", "begin", "discard all", "rollback",
                                                 "select 1; discard all"),
    ]),
    Script("deallocate", [
        say(parse("select 1", "s1") + parse("select 2", "s2") + S), *queries("deallocate s1"), say(bind("s1") + execute() + S),
        say(bind("s2") + execute() + S), *queries("deallocate gone", "deallocate all"), say(bind("s2") + execute() + S),
        say(parse("select 3", "s3") + S), *queries("deallocate prepare s3", "deallocate prepare all"), say(bind("s3") + execute() + S),
        *queries("begin", "deallocate gone", "rollback"),
    ]),
    Script("deallocate is not undone", [
        say(parse("select 1", "s1") + S), *queries("begin", "select 1", "deallocate s1", "rollback"), say(bind("s1") + execute() + S),
    ]),
    Script("prepare and execute", [
        *queries("prepare p (int) as select $1 + 1", "execute p(1)", "execute p(41)", "prepare p as select 1"), say(bind("p", ["5"]) + execute() + S),
        say(parse("select 9", "q") + S), *queries("deallocate p", "execute p(1)"), say(bind("q") + execute() + S),
    ], servers=2),
    Script("prepare and execute: EXECUTE of a protocol-prepared name", [
        say(parse("select 1", "s1") + S), *queries("execute s1", "deallocate s1", "execute s1"), say(parse("select 2", "s1") + S),
        *queries("execute s1", "begin", "execute s1", "select 1/0", "execute s1", "rollback"), say(bind("s1") + execute() + S),
        say(parse("select $1::int + 1", "s2") + S), *queries("execute s2(4)"), say(bind("s2", ["5"]) + execute() + S),
    ], servers=2),
    Script("temporary tables", queries("create temp table tt (a int)", "insert into tt values (1)", "table tt", "discard temp", "table tt",
                                       "create temp table tt (b text)", "drop table tt", "begin", "create temp table tt (c int) on commit drop",
                                       "table tt", "commit", "table tt", "select 1 as a into temp tt", "table tt", "create table pg_temp.u (a int)",
                                       "table u", "discard all", "table u"), servers=2),
    Script("advisory locks", queries("select pg_advisory_lock(7)", "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
                                     "select pg_advisory_unlock(7)", "select pg_advisory_unlock(7)", "select pg_catalog.pg_try_advisory_lock(8)",
                                     "select pg_advisory_unlock_all()", "begin", "select pg_advisory_xact_lock(9)", "commit",
                                     "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"), servers=2),
    Script("listen to oneself", queries("listen ch", "notify ch, 'one'", "begin", "notify ch, 'two'", "notify ch, 'two'", "select 1", "commit",
                                        "select pg_notify('ch', 'three')", "begin", "notify ch, 'never'", "rollback", "unlisten ch", "notify ch, 'unheard'",
                                        "listen ch; listen other", "select * from pg_listening_channels() order by 1", "unlisten *",
                                        "select count(*) from pg_listening_channels()"), servers=2),
    Script("a listen rolled back", queries("begin", "listen ch", "rollback", "notify ch", "select count(*) from pg_listening_channels()"), servers=2),
    Script("unlisten, never listened", queries("unlisten nothing", "unlisten *")),
    Script("the reset query of asyncpg", queries("set work_mem = '3MB'",
                                                 "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;", "show work_mem", "close all")),
    Script("other encodings", queries("set client_encoding = 'SJIS'", "select 1", "set client_encoding = 'UTF8'", "set client_encoding = 'nonsense'")),
    Script("other literals", queries("set standard_conforming_strings = off", "set escape_string_warning = off", r"select 'a\'b; select 2'",
                                     "reset standard_conforming_strings", r"select 'a\'"), versions=(13, 14, 15, 16, 17, 18)),
    Script("start-up settings", queries("show timezone", "show work_mem", "set timezone = 'UTC'", "set work_mem = '1MB'", "reset timezone", "reset all",
                                        "show timezone", "show work_mem", "show statement_timeout", "discard all", "show work_mem"),
           parameters={"timezone": "Asia/Tokyo", "options": "-c work_mem=6MB --statement-timeout=9s", "application_name": "conf"}),
    Script("start-up search_path", queries("show search_path", "set search_path = pg_catalog", "reset search_path", "show search_path"),
           parameters={"options": r"-c search_path=one,\ two"}),
    Script("a start-up setting nobody knows", queries("select 1"), parameters={"no_such_setting": "1"}),
    Script("a start-up setting with a wrong value", queries("select 1"), parameters={"work_mem": "lots"}),
    Script("a start-up zone that is empty", queries("show timezone"), parameters={"timezone": ""}),
    Script("start-up options that are wrong", queries("select 1"), parameters={"options": "-c"}),
    Script("start-up options with a wrong value", queries("select 1"), parameters={"options": "-c work_mem=lots"}),
]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
async def test_settings_are_the_same(script: Script, compare: Compare) -> None:
    await compare(script)


FORMS = [
    ("search_path", ("''", "'A, b'", '"A", b', "'A', 'b,c'", '"$user", public', "One", "'One'", "' one '", "one,two", "'a\"b'", "1", "default")),
    ("datestyle", ("German", "'sql, mdy'", "ISO, DMY", "us")),
    ("timezone", ("'utc'", "3", "'-3'", "'europe/berlin'", "default")),
    ("time zone", ("interval '2:00' hour to minute", "local", "'America/New_York'")),
    ("application_name", ("'  x  '", "'é'", "a")),
    ("client_encoding", ("'latin1'", "sql_ascii")),
    ("work_mem", ("'1 GB'", "'1024 kB'")),
    ("default_transaction_isolation", ("'SERIALIZABLE'",)),
    ("my.own", ("'A'", "x, y", "'x, y'")),
    *[(name, (value,)) for name, value in (("intervalstyle", "ISO_8601"), ("bytea_output", "'ESCAPE'"), ("statement_timeout", "'1min'"),
      ("standard_conforming_strings", "'OFF'"), ("default_transaction_read_only", "1"), ("xmloption", "'Document'"))],
]  # fmt: skip


@pytest.mark.parametrize("is_inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FORMS for value in values])
async def test_a_value_reads_back_as_it_was_made_of_it(
    compare: Compare, name: str, value: str, is_inside: bool
) -> None:
    """Answered by the origin the first time, here the second."""
    change = f"set {name} = {value}" if name != "time zone" else f"set {name} {value}"
    shown = "timezone" if name == "time zone" else name
    looks = [change, f"show {shown}", f"select current_setting('{shown}')", change, f"show {shown}"]
    once = ["begin", *looks, "rollback", f"show {shown}"] if is_inside and name != "my.own" else looks
    await compare(Script("forms", queries(*once, *once), setup="create schema one; create schema two;"))
