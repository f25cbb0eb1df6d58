"""``hyperdrive explain``: what we make of a statement: for the cache and for pooling.

With an origin its catalogs decide; without one, what PostgreSQL itself brings, and relations are taken for ordinary tables.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator

import asyncpg

from hyperdrive.cli.common import driver_arguments, say, settings
from hyperdrive.config import Settings
from hyperdrive.dsn import Dsn
from hyperdrive.proxy.catalog import load
from hyperdrive.sql import AdvisoryLock, Effect, Mark, SetConfig, Statement, TempObject, parse
from hyperdrive.sql.catalog import PG_CATALOG, Catalog
from hyperdrive.sql.explaining import explain
from hyperdrive.sql.introspection import introspected, is_postgres_own, may_be_introspection
from hyperdrive.sql.majors import PUBLIC, builtin_catalog
from hyperdrive.sql.parse import classify
from hyperdrive.sql.reads import analyse
from hyperdrive.sql.resolve import resolve
from hyperdrive.sql.rules import Refused
from hyperdrive.sql.text import strip_comments
from hyperdrive.sql.verdict import Reason
from hyperdrive.sql.writes import targets
from hyperdrive.wiring import declarations_of

_UNKNOWN = {
    Reason.DOES_NOT_PARSE: "PostgreSQL's parser refuses it, so nothing is assumed; the origin decides",
    Reason.TOO_LONG: "it is too long to be parsed, so everything is expected of it",
    Reason.TOO_DEEP: "it is nested too deeply to be parsed, so everything is expected of it",
    Reason.ENCODING: "its encoding hides where characters end, so everything is expected of it",
    Reason.STRINGS: "strings are read in an unusual way, so everything is expected of it",
}

_PINS = {
    Mark.SETSEED: "the seed of random()",
    Mark.LOAD: "a loaded library",
    Mark.HOLD_CURSOR: "a cursor WITH HOLD",
    Mark.LISTEN: "LISTEN",
    Mark.SESSION_FUNCTION: "a function with state that ends with the session",
}


def run(options: argparse.Namespace) -> int:
    """Print what is known of the text."""
    sql = sys.stdin.read() if options.sql == "-" else options.sql
    chosen = settings(options)
    lines, code = [], 0
    if chosen.origin is None:
        lines = ["cache, without an origin (tables are taken for ordinary ones):", *_indented(judge(sql))]
    else:
        try:
            lines = ["cache:", *_indented(asyncio.run(judge_at(sql, chosen.origin, chosen)))]
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
            lines, code = [f"cache: the origin could not be asked: {exc or type(exc).__name__}"], 1
    say("\n".join([*describe(sql), "", *lines]))
    return code


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def judge(sql: str) -> list[str]:
    """The cache's decision on *sql*, as far as it can be told without an origin."""
    reading = analyse(sql.encode())
    if isinstance(reading, Refused):
        return explain(reading)
    catalog = builtin_catalog(relations=(n for n in reading.relations if n[-1] not in reading.cte_names))
    return explain(resolve(reading, catalog, (PG_CATALOG, PUBLIC)), catalog)


async def judge_at(sql: str, dsn: Dsn, chosen: Settings) -> list[str]:
    """The cache's decision on *sql* at the origin *dsn*, for its user with the search_path that a new connection has."""
    connection = await asyncpg.connect(**driver_arguments(dsn, chosen.connect_timeout))
    try:
        search_path, role = await connection.fetchrow("select current_setting('search_path'), current_user::text")
        catalog = await load(connection, declarations=declarations_of(chosen))
    finally:
        await connection.close(timeout=5)
    if catalog is None:
        return ["not cacheable, rule origin-unknown: the origin does not tell its system identifier"]
    return decided(sql, catalog, search_path, role)


def decided(sql: str, catalog: Catalog, search_path: str, role: str) -> list[str]:
    """The lines about *sql* under *catalog*, for *role*."""
    path = catalog.path(search_path, catalog.roles[role].oid)
    if path is None:
        return [f"not cacheable, rule session-state: search_path {search_path}"]
    reading = analyse(sql.encode())
    found = reading if isinstance(reading, Refused) else resolve(reading, catalog, path)
    if isinstance(found, Refused) and _is_known(sql, catalog):
        return ["answered from memory for as long as the schema does not change (known_answers)"]
    return explain(found, catalog, targets(sql.encode(), catalog, path))


def _is_known(sql: str, catalog: Catalog) -> bool:
    """What drivers ask of each new connection."""
    try:
        text = strip_comments(sql.encode())
    except ValueError:
        return False
    asked = introspected(text, classify(text)) if may_be_introspection(text) else None
    return asked is not None and is_postgres_own(asked, catalog)


def describe(sql: str) -> list[str]:
    """The lines about a text of one or several statements."""
    verdict = parse(sql.encode())
    if verdict.statements is None:
        return [f"unknown: {_UNKNOWN[verdict.reason] if verdict.reason else 'everything is expected of it'}"]
    if not verdict.statements:
        return ["empty: answered here, without a round trip to the origin"]
    lines = []
    if verdict.is_multi:
        lines += [
            f"{len(verdict.statements)} statements: one transaction unless they say otherwise, sent as they are",
            "",
        ]
    for statement in verdict.statements:
        lines += [statement.sql.decode(errors="replace"), *(f"  {fact}" for fact in _facts(statement)), ""]
    return lines[:-1]


def _facts(statement: Statement) -> Iterator[str]:
    name = (statement.command or statement.kind).value
    yield f"kind: {name.replace('_', ' ')}"
    if statement.is_read:
        yield "reads: nothing in the text writes or locks"
    elif statement.may_write:
        yield "may write"
    if statement.takes_locks:
        yield "may take locks whose release others wait for: its ROLLBACK is waited for"
    if statement.relations:
        names = (b".".join(filter(None, (r.schema, r.name))).decode(errors="replace") for r in statement.relations)
        yield f"relations: {', '.join(names)}"
    if statement.unknown_functions:
        functions = ", ".join(one.decode(errors="replace") for one in statement.unknown_functions)
        yield f"functions we do not know, which may do anything: {functions}"
    pins = [text for effect in statement.effects if (text := _pin(effect))]
    yield f"server: kept for the client because of {', '.join(pins)}" if pins else "server: given back afterwards"
    if statement.setting is not None:
        yield f"setting {statement.setting.name.decode()}: follows the client from server to server"
    if any(isinstance(effect, SetConfig) for effect in statement.effects):
        yield "set_config(): follows the client from server to server where its arguments can be told"
    if statement.suspect:
        yield "may change settings unseen: the server is reset before somebody else gets it"
    if statement.ends_epoch:
        yield "changes the schema: what is remembered of prepared statements is checked again"


def _pin(effect: Effect) -> str:
    match effect:
        case AdvisoryLock():
            return "a session advisory lock"
        case TempObject(on_commit_drop=False):
            return "a temporary object"
        case SetConfig(is_local=local) if local is not True and not effect.can_be_told:
            return "a setting whose value only that server knows"
        case Mark():
            return _PINS.get(effect, "")
    return ""
