"""A look at a text that may prove it harmless, for about a microsecond.

It never decides anything else: what it cannot prove goes to the parser. It does not tell code from literals, comments or quoted
names; it proves that *no byte sequence that could matter occurs anywhere*, which holds wherever literals begin and end:

- no ``;`` but at the end: not more than one statement;
- the first word is SELECT, INSERT, UPDATE or DELETE: neither utility nor WITH;
- no INTO behind SELECT; no FOR UPDATE or FOR SHARE;
- before each ``(`` stands an operator, a comma, a reserved word or a built-in function without effect, so that no other function
  is called. (Comments could hide a name, so a text with ``--`` or ``/*`` is looked at without its outer comments, or not at all.)

A text that passes may still be a syntax error; then it has no effect either. The encoding must be one in which ASCII bytes are
ASCII characters (W-41); ``parse.classify`` sees to it.
"""

from __future__ import annotations

import re
from typing import Final

from hyperdrive.sql.functions import BEFORE_PARENTHESIS
from hyperdrive.sql.verdict import SCREENED, Command, Verdict

MAX_SCREEN_BYTES: Final = 1 << 20
"""Longer texts are not looked at; it would hold up other sessions."""

_END: Final = b"; \t\r\n\f"
_LOCKING: Final = re.compile(rb"for\s+(?:update|share|no\s|key\s)")
_SELECT: Final = SCREENED[Command.SELECT]
_INSERT: Final = SCREENED[Command.INSERT]
_WRITES: Final = {b"update": SCREENED[Command.UPDATE], b"delete": SCREENED[Command.DELETE], b"insert": _INSERT}
# A parenthesis behind one of these opens a list or a group: no names and no quotes end so, and comments are gone.
_OPERATORS: Final = frozenset(b"=<>+-*/%|&!~,([")


def screen(sql: bytes) -> Verdict | None:
    """Return the shared verdict of a text that certainly has no session effect; ``None`` if that takes a parser."""
    # find() and not "in", which tries its operand as a number first, and words an error that nobody reads.
    text = sql.lower().strip(_END)
    if text.find(b"/*") >= 0 or text.find(b"--") >= 0:
        # Only the outer comment that tools append or prepend (sqlcommenter, Rails, Django): no quote before it, so it is one.
        stripped = without_outer_comment(text)
        if stripped is None:
            return None
        text = stripped
    first = text[:6]
    if first == b"select":
        if text.find(b"into") >= 0:
            return None
        verdict = _SELECT
    else:
        found = _WRITES.get(first)
        if found is None or text.find(b"pg_settings") >= 0:  # an UPDATE of that view is a SET (view-pg-settings)
            return None
        verdict = found
    if text.find(b";") >= 0 or (text.find(b"for") >= 0 and _LOCKING.search(text)):
        return None
    if text.find(b"(") >= 0 and not _calls_nothing(text, verdict is _INSERT):
        return None
    return verdict


def _calls_nothing(text: bytes, is_insert: bool) -> bool:
    """True if what stands before each parenthesis certainly is no function with an effect."""
    # Rows of a long VALUES list: a parenthesis right behind a comma calls nothing, and what is around stays apart.
    pieces = text.replace(b",(", b",").replace(b", (", b", ").split(b"(")
    pieces.pop()
    for piece in pieces:
        words = piece.rsplit(None, 1)
        if not words:
            continue  # "((", or the beginning
        last = words[-1]
        if last in BEFORE_PARENTHESIS or last[-1] in _OPERATORS:
            continue
        if is_insert and words[0] == b"insert into":
            continue  # the relation's name; spelled with other white space it is the parser's
        return False
    return True


def without_outer_comment(text: bytes) -> bytes | None:
    """Return *text* without a single comment at its end or beginning, ``None`` if it has any other."""
    if b"--" in text or text.count(b"/*") != 1 or text.count(b"*/") != 1:
        return None
    if text[:2] == b"/*":
        return text[text.index(b"*/") + 2 :].strip(_END)
    if text[-2:] != b"*/":
        return None
    before = text[: text.index(b"/*")]
    # A quote that is open where the comment seems to begin would make it part of a literal or a name.
    if b'"' in before or b"$" in before or b"\\" in before or before.count(b"'") % 2:
        return None
    return before.strip(_END)
