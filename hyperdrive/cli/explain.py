"""``hyperdrive explain``: what we make of a statement, as far as its text tells and as far as pooling goes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from hyperdrive.cli.common import say
from hyperdrive.sql import AdvisoryLock, Effect, Mark, SetConfig, Statement, TempObject, parse
from hyperdrive.sql.verdict import Reason

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
    say("\n".join(describe(sys.stdin.read() if options.sql == "-" else options.sql)))
    return 0


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
        case Mark():
            return _PINS.get(effect, "")
    return ""
