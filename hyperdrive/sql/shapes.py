"""The shape of a text: the same bytes without what its literals say, so that a verdict can be shared where that is safe.

``SELECT v FROM t WHERE id = 17`` and ``… = 18`` are read once. A shape is never a key of the cache: entries are found by exact bytes.

Why sharing is safe. A text has a shape only if the lexer's view of it is certain without a lexer (sql-syntax-lexical):

- no dollar sign but ``$n``, no comment, no ``U&``, no zero byte, no backslash where a literal could be ``E'…'`` (elsewhere it is a
  character like others, standard_conforming_strings being on), and no white space alone between two literals: so a quote opens and
  closes literals only, and none continues on another line;
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
    if "\0" in text or ("$" in text and _DOLLAR.search(text) is not None):
        return None
    if "'" in text:
        pieces = text.split("'")
        if len(pieces) % 2 == 0:
            return None  # a quote is open
        code_pieces = pieces[::2]
        if '"' in text and any([piece.count('"') & 1 for piece in code_pieces]):  # noqa: C419 - twice as fast
            return None
        for piece in code_pieces:
            if piece.isspace() or piece[-1:] == "&":
                return None  # 'no'\n'w' is one literal; U&'…' has escapes of its own
        if "\\" in text and any([piece[-1:] in ("e", "E") for piece in code_pieces]):  # noqa: C419
            return None
        text = "'".join(code_pieces)
    if "--" in text or "/*" in text or "\\" in text:
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
    if '"' in text or "\\" in text:
        text = text.replace('"', "").replace("\\", "")
    return "now" in text or "today" in text or "tomorrow" in text or "yesterday" in text


# --- long lists of constants ---

_VALUE: Final = r"(?:'+|-?\0|\$[0-9]+|null|true|false|default)(?:::[a-z_][a-z_0-9]*(?:\[\])?)?"
_ROW: Final = rf"\(\s*{_VALUE}(?:\s*,\s*{_VALUE})*\s*\)"
_ROWS: Final = re.compile(rf"\b(values|in)(\s*){_ROW}(?:\s*,\s*{_ROW})*", re.IGNORECASE | re.ASCII)


def folded(form: str) -> str:
    """The shape *form* with each list of rows or values that are constants cut down to one: alike in what it changes."""
    return _ROWS.sub("\\1\\2(\0)", form)


def example(form: str) -> str:
    """A text of the shape *form*: each literal empty, each number one."""
    return form.replace("'", "''").replace(_PLACE, "1")
