"""What random transaction scripts are made of: statements, the ways in which programs send them, and what else may happen.

A talk is a list of moves of one client; ``talking`` runs it. Nothing here knows a proxy: every move means the same on a direct
connection, and its outcome hangs on nothing but the moves before it. So there is no clock, no process id and no ``currval``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hyperdrive.testing.frontend import (
    bind,
    close_statement,
    copy_data,
    copy_done,
    describe_portal,
    describe_statement,
    execute,
    parse,
    query,
    sync,
)

SETUP = """
set client_min_messages = error; drop schema if exists public, one cascade; create schema public;
create table t (id int primary key, v text);
insert into t values (1, 'one'), (2, 'two'), (3, 'three');
create table other (n int); insert into other values (0);
create table parent (id int primary key);
create table child (id int references parent deferrable initially deferred);
create table u (x int); insert into u values (7);
create sequence s;
"""
TABLES = ("t", "other", "parent", "child", "u")

WATCHED = (
    "TimeZone", "DateStyle", "IntervalStyle", "work_mem", "search_path", "application_name", "client_encoding",
    "standard_conforming_strings", "client_min_messages", "statement_timeout", "extra_float_digits",
    "default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable",
    "transaction_isolation", "transaction_read_only", "transaction_deferrable", "role", "session_authorization",
)  # fmt: skip
SETTINGS_SEEN = (
    "select name, setting, case when name not like 'transaction_%' and setting is distinct from reset_val then source end from pg_settings where name in ("
    + ", ".join(f"'{name}'" for name in WATCHED)
    + ") order by name"
)

# --- statements ----------------------------------------------------------------------------------------------------------------

BEGINS = (
    "begin", "BEGIN", "begin;", "begin work", "begin transaction", "start transaction", "/* orm */ begin", "begin read only",
    "begin isolation level repeatable read", "begin isolation level serializable", "begin isolation level read committed, read write",
    "begin transaction isolation level read uncommitted", "start transaction isolation level repeatable read, read only",
    "begin isolation level serializable read only deferrable", "begin not deferrable", "start transaction read only deferrable",
)  # fmt: skip
RARE_BEGINS = (
    "begin isolation level nonsense", "begin; begin", "begin read only read write", "begin; select 1", "begin; set work_mem = '7MB'",
)  # fmt: skip
ENDS = (
    "commit", "COMMIT", "commit;", "commit work", "end", "end transaction", "rollback", "ROLLBACK", "rollback;",
    "rollback transaction", "abort", "abort work",
)  # fmt: skip
RARE_ENDS = (
    "commit and chain", "rollback and chain", "commit and no chain", "rollback; begin", "commit; select 1", "rollback; rollback",
    "select 1; commit",
)  # fmt: skip
MODES = (
    "set transaction isolation level serializable", "set transaction isolation level repeatable read", "set transaction read only",
    "set transaction read write", "set transaction isolation level read committed, read only", "set transaction deferrable",
    "set transaction snapshot '00000003-0000001B-1'", "set transaction_isolation = 'serializable'", "set transaction_read_only = on",
    "set local transaction_read_only = on", "show transaction_isolation", "show transaction_read_only", "show transaction isolation level",
    "set constraints all immediate", "set constraints all deferred",
)  # fmt: skip
SAVEPOINTS = (
    "savepoint a", "savepoint b", 'savepoint "A"', "release a", "release savepoint b", "rollback to a", "rollback to savepoint b",
    "rollback to a", 'rollback to "A"', "rollback work to a", "rollback to nowhere", "release nowhere",
)  # fmt: skip
READS = (
    "select v from t order by id", "select count(*) from t", "select n from other", "select 1", "select 1;", "select", "values (1), (2)",
    "table u", "select v from t where id = 2", "select i from generate_series(1, 3) i", "select version() like 'PostgreSQL%'",
    "select x from u", "select * from u", "select current_schema()", "select current_setting('work_mem'), current_setting('TimeZone')",
    "select pg_is_in_recovery()", "select typname from pg_type where oid = 23", "select nextval('s')", "select v from t for update",
    "select n from other for share", "select txid_current() is not null", "select pg_advisory_xact_lock(7)", "select current_user, session_user",
    "select timestamptz '2020-01-31 12:00+00', interval '90 min'",
)  # fmt: skip
WRITES = (
    "insert into t values (4, 'four')", "insert into t values (5, 'five') returning id, v", "update t set v = v || '!' where id = 1",
    "update t set v = 'new' where id > 1 returning v", "delete from t where id = 3", "insert into t select i from generate_series(6, 8) i",
    "insert into child values (1)", "insert into parent values (1)", "update other set n = n + 100", "insert into u values (8)",
    "insert into u default values", "truncate u", "delete from t", "with x as (delete from u returning *) select count(*) from x",
)  # fmt: skip
WRONG = (
    "insert into t values (1, 'twice')", "select 1/0", "select 1/(id - id) from t", "select * from nowhere", "selec", "select nothing from t",
    "insert into t values ('x')", "select $1", "begin read sometimes", "lock nowhere", "drop table nowhere", "savepoint", "select 'open",
)  # fmt: skip
SCHEMA = (
    "create table w (y text)", "drop table if exists w", "alter table u add column y text", "alter table u alter x type text",
    "drop table u", "create table u (x text, z int)", "alter table t rename v to vv", "create index on t (v)", "create view vu as select * from u",
    "create schema one", "create table one.u as select 'one' as x", "comment on table t is 'c'", "analyze t", "vacuum t",
)  # fmt: skip
OTHERS = (
    "lock t in share mode", "lock table t", "notify nobody", "do $$ begin raise notice 'here'; end $$", "do $$ begin raise warning 'there'; end $$",
    "do $$ begin perform 1/0; end $$", "explain (costs off) select 1", "copy t to stdout", "declare c cursor for select i from generate_series(1, 5) i",
    "fetch 2 from c", "fetch all from c", "close c", "close all", "call nothing()",
)  # fmt: skip
SETTINGS = (
    "set timezone = 'Asia/Tokyo'", "set timezone = 'UTC'", "set time zone 'Europe/Berlin'", "set time zone default", "set timezone to default",
    "set work_mem = '3MB'", "set work_mem to 4096", "SET SESSION work_mem TO '5MB'", "set local work_mem = '6MB'", "set local timezone = 'MST'",
    "set datestyle = 'German'", "set datestyle to iso, mdy", "set intervalstyle = iso_8601", "set application_name = 'app'",
    "set search_path = pg_catalog", "set search_path = one, public", "set local search_path = one", "set search_path = public",
    "set statement_timeout = '9s'", "set extra_float_digits = 1", "set names 'utf8'", "set client_encoding = 'LATIN1'",
    "set client_min_messages = error", "set client_min_messages = notice", "set standard_conforming_strings = off",
    "reset timezone", "reset work_mem", "reset search_path", "reset all", "RESET ALL", "reset client_min_messages",
    "show timezone", "show work_mem", "SHOW WORK_MEM", "show search_path", "show time zone", "show application_name",
    "show statement_timeout", "show standard_conforming_strings", "show server_version_num",
    "select set_config('work_mem', '8MB', false)", "select set_config('work_mem', '9MB', true)", "select set_config('timezone', 'EST', false)",
    "select pg_catalog.set_config('search_path', 'public,one', false)",
    "set default_transaction_isolation = 'serializable'", "set default_transaction_isolation to 'repeatable read'",
    "set default_transaction_read_only = on", "set default_transaction_read_only = off", "set default_transaction_deferrable = on",
    "set session characteristics as transaction read only", "set session characteristics as transaction isolation level repeatable read",
    "set session characteristics as transaction isolation level read committed, read write", "reset default_transaction_isolation",
    "reset default_transaction_read_only", "set local default_transaction_read_only = on",
)  # fmt: skip
RARE_SETTINGS = (
    "set work_mem = 'lots'", "set nothing_like_it = 1", "show nothing_like_it", "set timezone = 'Nowhere'", "reset nothing_like_it", "set server_version = '1'",
    "set role pg_monitor", "reset role", "set role none", "set session authorization pg_monitor", "reset session authorization",
    "set session authorization default", "set local role pg_monitor", "set timezone = 'UTC'; select 1/0", "set work_mem = '2MB'; set timezone = 'UTC'",
    "set idle_session_timeout = '1h'", "set transaction_timeout = '1h'", "set idle_in_transaction_session_timeout = '1h'", "set seed = 0.5",
    "set xml option document", "set schema 'public'",
)  # fmt: skip
NAMES_GONE = (
    "discard all", "discard plans", "discard sequences", "discard temp", "deallocate s1", "deallocate s2", "deallocate all",
    "deallocate prepare all", "unlisten *", "unlisten ch", "close all", "DISCARD ALL", "deallocate gone",
    "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
)  # fmt: skip
EMPTY = ("", ";", " ; ", "-- ping", "/* nothing */")
PINS = (
    "listen ch", "notify ch, 'hello'", "create temp table tt (a int)", "create temp table tt (a int) on commit drop", "insert into tt values (1)",
    "table tt", "declare h cursor with hold for select i from generate_series(1, 5) i", "fetch 2 from h", "close h",
    "select pg_advisory_lock(7)", "select pg_advisory_unlock(7)", "prepare q as select 2", "execute q", "deallocate q",
)  # fmt: skip
PINNING = ("listen", "temp table", "with hold", "pg_advisory_lock(", "prepare q", "execute", "seed", "pg_temp")
"""Words of statements that keep the client's server: whoever disturbs it needs another one."""
HIDDEN_RESETS = ("RESET ALL;",)
"""Texts of several statements with a RESET among them; see ``test_random_transactions`` for what they do not do."""
LISTS = (
    "select 1; select 2", "insert into t values (10, 'x'); select 1/0", "begin; insert into t values (11, 'y'); commit", "select 1/0; commit",
    "savepoint a; select 1; rollback to a", "commit; begin; select 2", "select 1; set local work_mem = '1MB'; show work_mem", "; ;select 1;;",
)  # fmt: skip
PARAMETERS = (
    ("select $1::int + 1", ("41",)), ("select v from t where id = $1", ("2",)), ("update t set v = $1 where id = $2", ("set", "1")),
    ("insert into t values ($1, $2) returning id", ("20", "twenty")), ("select $1::text, current_setting('TimeZone')", ("p",)),
    ("select set_config('work_mem', $1, false)", ("2MB",)), ("insert into t (id) values ($1)", ("1",)), ("select * from u where x = $1", ("7",)),
)  # fmt: skip

OUTSIDE = (
    "update other set n = n + 1", "insert into other values (1000)", "select count(*) from t",
)  # fmt: skip
"""What another session does meanwhile, on a connection of its own to the origin: a snapshot taken too early or late would show."""

STARTUPS: tuple[dict[str, str], ...] = (
    {},
    {"timezone": "Asia/Tokyo"},
    {"options": r"-c work_mem=6MB -c search_path=public,\ one", "application_name": "talk"},
    {"options": "-c default_transaction_isolation=serializable"},
    {"client_encoding": "'utf-8'", "datestyle": "ISO"},
    {"options": "-c default_transaction_read_only=on"},
    {"options": "-c search_path=public,one"},
)

# --- how they travel -----------------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """Bytes that one client sends, and how they read."""

    text: str
    data: bytes

    def __repr__(self) -> str:
        return f"<{self.text}>"


@dataclass(frozen=True, slots=True)
class Write:
    """Whole scopes in one write, cut at *cuts*."""

    scopes: tuple[Said, ...]
    cuts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stretch:
    """One extended scope in pieces, each with a Flush and read before the next is sent. Without *syncs* the client leaves in it."""

    pieces: tuple[Said, ...]
    syncs: bool = True
    how: str = "terminate"


@dataclass(frozen=True, slots=True)
class Leave:
    """The client leaves and comes back as a new session."""

    how: str


@dataclass(frozen=True, slots=True)
class Outside:
    """Another session, direct."""

    sql: str


@dataclass(frozen=True, slots=True)
class Disturb:
    """Somebody else has a turn now, if the pool has a server for it."""


Move = Write | Stretch | Leave | Outside | Disturb
Talk = list[Move]


def simple(sql: str) -> Said:
    return Said(f"Q {sql}", query(sql))


def whole(sql: str) -> Said:
    return Said(f"PBDES {sql}", parse(sql) + bind() + describe_portal() + execute() + sync())


def bare(sql: str) -> Said:
    return Said(f"PBES {sql}", parse(sql) + bind() + execute() + sync())


def named(sql: str, name: str) -> Said:
    return Said(f"P({name})DBES {sql}", parse(sql, name) + describe_statement(name) + bind(name) + execute() + sync())


def prepare(sql: str, name: str) -> Said:
    return Said(f"P({name})DS {sql}", parse(sql, name) + describe_statement(name) + sync())


def reuse(name: str, values: tuple[str, ...] = (), *, described: bool = True) -> Said:
    middle = describe_portal() if described else b""
    return Said(f"B({name}){'D' if described else ''}ES {values}", bind(name, values) + middle + execute() + sync())


def limited(sql: str, limit: int, portal: str) -> Said:
    """A portal that is left suspended; what becomes of it shows later."""
    return Said(f"P B({portal}) E({limit}) S {sql}", parse(sql) + bind(portal=portal) + execute(portal, limit) + sync())


def resume(portal: str, limit: int) -> Said:
    return Said(f"E({portal}, {limit}) S", execute(portal, limit) + sync())


def copy_in(rows: str, *, is_simple: bool) -> tuple[Said, ...]:
    sql, data = "copy t from stdin", copy_data(rows.encode()) + copy_done()
    if is_simple:
        return (Said(f"Q copy {rows!r}", query(sql) + data),)
    # Its statement must not stay behind: executed once more, it would wait for data.
    return Said(f"PBE copy {rows!r} S", parse(sql) + bind() + execute() + data + sync()), close("")


def close(name: str) -> Said:
    return Said(f"C({name}) S", close_statement(name) + sync())


def pins(talk: Talk) -> bool:
    """The client may keep its server between transactions."""
    return _says(talk, PINNING)


def resets_out_of_sight(talk: Talk) -> bool:
    """A RESET stands among other statements, or DISCARD ALL goes to the server: of a pinned client, or in a pipeline."""
    return _says(talk, HIDDEN_RESETS) or _says(talk, ("discard all", "DISCARD ALL"))


def resets_path(talk: Talk) -> bool:
    """The search path goes back to what it was at start-up; within a transaction only SET may take it there."""
    return _says(
        talk, ("reset search_path", "reset all", "RESET ALL", "search_path to default", "search_path = default")
    )


def _says(talk: Talk, words: tuple[str, ...]) -> bool:
    return any(word in said.text for move in talk for said in _said(move) for word in words)


def _said(move: Move) -> tuple[Said, ...]:
    if isinstance(move, Write):
        return move.scopes
    return move.pieces if isinstance(move, Stretch) else ()


def listing(talk: Talk) -> str:
    """The talk as people read it."""
    return "\n".join(map(repr, talk))
