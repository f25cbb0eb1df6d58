"""``classify``: from the bytes of a text to its verdict. A pure function; ``cache`` remembers its answers.

First a look (``screen``), then PostgreSQL's own grammar (pglast ``parse_sql_json``; its Python AST costs ten times more, and other
parsers disagree with PostgreSQL). What does not parse here may well run at the origin, so its class is unknown, not "error".
"""

from __future__ import annotations

from typing import Final

from hyperdrive.sql.grammar import ParseError, Tree, parse_tree
from hyperdrive.sql.screen import MAX_SCREEN_BYTES, screen
from hyperdrive.sql.statements import Source, statement
from hyperdrive.sql.text import decode
from hyperdrive.sql.verdict import EMPTY, UNKNOWN, Command, Kind, Reason, Statement, Verdict

MAX_PARSE_BYTES: Final = 32 * 1024
"""Longer texts are not parsed: this one takes about 10 ms, in which nobody else is served."""


def classify(sql: bytes, *, ascii_safe: bool = True, standard_strings: bool = True) -> Verdict:
    """Return what the text *sql* is. Never raises; what it cannot tell is ``Kind.UNKNOWN``.

    *ascii_safe* says that the session's client_encoding is one in which ASCII bytes are ASCII characters
    (``text.is_ascii_safe``, W-41), *standard_strings* that standard_conforming_strings is on and backslash_quote
    not ``on`` (W-42). About 1 to 3 µs for ordinary SELECT, INSERT, UPDATE and DELETE texts, 20 to 60 µs for others
    (``bench/micro/classify.py``).
    """
    reason = unreadable(sql, ascii_safe=ascii_safe, standard_strings=standard_strings)
    if reason is not None:
        return UNKNOWN[reason]
    if len(sql) <= MAX_SCREEN_BYTES:
        verdict = screen(sql)
        if verdict is not None:
            return verdict
    return parse(sql)


def unreadable(sql: bytes, *, ascii_safe: bool, standard_strings: bool) -> Reason | None:
    """Why *sql* cannot be read in a session with such an encoding and such literals; ``None``: it can (W-41, W-42).

    Whatever the session says, a literal without a backslash ends where it always does.
    """
    if not ascii_safe and not sql.isascii():
        return Reason.ENCODING
    if not standard_strings and b"\\" in sql:
        return Reason.STRINGS
    return None


def parse(sql: bytes) -> Verdict:
    """Return the verdict of *sql* by the parser alone, with slices and relations. Never raises.

    Only for texts that ``classify`` may judge too, that is, not in sessions of W-41 and W-42.
    """
    if len(sql) > MAX_PARSE_BYTES:
        return UNKNOWN[Reason.TOO_LONG]
    try:
        text, encoding = decode(sql)
        tree: Tree = parse_tree(text)
        raw = tree.get("stmts", ())
        if not raw:
            return EMPTY
        source = Source(text, encoding)
        return _join(sql, tuple(statement(source, item) for item in raw))
    except RecursionError:
        return UNKNOWN[Reason.TOO_DEEP]
    except (ParseError, ValueError):  # ValueError: a zero byte, words that the encoding lacks, comments cut short
        return UNKNOWN[Reason.DOES_NOT_PARSE]


def _join(sql: bytes, statements: tuple[Statement, ...]) -> Verdict:
    """The verdict of a text with these *statements*, at least one."""
    if len(statements) > 1:
        return _join_many(sql, statements)
    (one,) = statements
    is_bare = one.kind is Kind.PLAIN and not (one.effects or one.reads_currval)
    return Verdict(
        kind=one.kind,
        statements=statements,
        is_plain=is_bare and not one.suspect,
        is_doubtful=is_bare and one.suspect and one.command is Command.SELECT,
        is_read=one.is_read,
        may_write=one.may_write,
        suspect=one.suspect,
        takes_locks=one.takes_locks,
        reads_currval=one.reads_currval,
        ends_epoch=one.ends_epoch,
        effects=one.effects,
        size_bytes=_size_bytes(sql, statements),
    )


def _join_many(sql: bytes, statements: tuple[Statement, ...]) -> Verdict:
    reads_currval = wrote = False
    for one in statements:
        reads_currval |= one.reads_currval and not wrote
        wrote |= one.may_write
    return Verdict(
        kind=Kind.MULTI,
        statements=statements,
        is_read=all(one.is_read for one in statements),
        may_write=any(one.may_write for one in statements),
        suspect=any(one.suspect for one in statements),
        takes_locks=any(one.takes_locks for one in statements),
        reads_currval=reads_currval,
        ends_epoch=any(one.ends_epoch for one in statements),
        effects=tuple(effect for one in statements for effect in one.effects),
        size_bytes=_size_bytes(sql, statements),
    )


def _size_bytes(sql: bytes, statements: tuple[Statement, ...]) -> int:
    size = 200 + len(sql)
    for one in statements:
        size += 350 + 150 * (len(one.relations) + len(one.effects))
    return size
