"""The shape of a text: the same bytes without what its literals say, so that a verdict can be shared where that is safe.

``SELECT v FROM t WHERE id = 17`` and ``… = 18`` are read once. A shape is never a key of the cache: entries are found by exact bytes.

Why sharing is safe. A text has a shape only if the lexer's view of it is certain without a lexer (sql-syntax-lexical):

- no backslash, no dollar sign but ``$n``, no comment, no ``U&``, no zero byte, and no white space alone between two literals: so a
  quote opens and closes literals only, and none continues on another line;
- between two quotes stands a literal, and a double-quoted name never holds a single quote: every piece of code between literals has
  an even number of double quotes.

Then two texts of one shape consist of the same tokens, apart from what string literals and whole numbers say, and so have the same
parse tree apart from constants. ``reads.analyse`` looks at constants for one thing only, clock words, and a text with anything like
one has no shape for it. That constants decide nothing else is held by ``test_shapes.py``.
"""

from __future__ import annotations

import re
from typing import Final

# A number by itself: not part of a name, a parameter, or another number. Of "1.5.2" or "1e5" nothing is replaced.
# A number by itself: not part of a name, a parameter, or another number. Of "1.5.2" or "1e5" nothing is replaced. The look behind
# comes after the first digit, so that the search leaps from digit to digit.
_NUMBERS: Final = re.compile(r"[0-9](?<![\w$.\x80-\xff][0-9])[0-9]*(?:\.[0-9]+)?(?![\w$.\x80-\xff])", re.ASCII)
_DOLLAR: Final = re.compile(r"\$(?:(?![0-9])|(?<=[\w$\x80-\xff]\$))", re.ASCII)
_PLACE: Final = "\0"


def shape(sql: bytes) -> str | None:
    """Return the shape of *sql*; ``None`` if it has none. In any ASCII-safe encoding."""
    # Bytes above 127 are letters to the lexer, so any one-to-one reading will do; searching in str is several times faster.
    text = sql.decode("latin-1")
    if "\\" in text or "\0" in text or ("$" in text and _DOLLAR.search(text) is not None):
        return None
    if "'" in text:
        pieces = text.split("'")
        code_pieces = pieces[::2]
        if len(pieces) % 2 == 0:
            return None  # a quote is open
        if '"' in text and any(piece.count('"') & 1 for piece in code_pieces):
            return None
        for piece in code_pieces:
            if piece.isspace() or piece[-1:] == "&":
                return None  # 'no'\n'w' is one literal; U&'…' has escapes of its own
        text = "'".join(code_pieces)
    if "--" in text or "/*" in text:
        return None
    if '"' in text:
        return None if '&"' in text else _with_names(text)
    return _NUMBERS.sub(_PLACE, text)


def _with_names(code: str) -> str | None:
    """The same where names are in double quotes: numbers inside those stay."""
    parts = code.split('"')
    if len(parts) % 2 == 0:
        return None
    parts[::2] = [_NUMBERS.sub(_PLACE, part) for part in parts[::2]]
    return '"'.join(parts)


def may_hold_clock_word(sql: bytes) -> bool:
    """True if some literal of *sql* could be a clock word (rule 16), or a name reads like one; a false alarm costs a parse."""
    text = sql.decode("latin-1").lower()
    if '"' in text:
        text = text.replace('"', "")
    return "now" in text or "today" in text or "tomorrow" in text or "yesterday" in text
