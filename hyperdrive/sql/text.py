"""Quoting, comments and encodings: what must be known of a text before it is read.

Written in sql-syntax-lexical. Knows nothing of statements.
"""

from __future__ import annotations

import re
from typing import Final

from pglast.keywords import COL_NAME_KEYWORDS, RESERVED_KEYWORDS, TYPE_FUNC_NAME_KEYWORDS
from pglast.parser import ParseError, scan

# multibyte-character-set-supported: the client-only encodings, with their aliases, in which a byte below 128 may be the second
# one of a character. Names are compared as the origin does: letters and digits only, in lower case.
_UNSAFE: Final = frozenset(
    b"""sjis shiftjis mskanji win932 windows932 shiftjis2004 big5 win950 windows950 gbk win936 windows936 gb18030
    uhc win949 windows949 johab""".split()
)


def is_ascii_safe(client_encoding: bytes) -> bool:
    """True if each ASCII byte of a text in *client_encoding* is that ASCII character (W-41)."""
    return bytes(byte for byte in client_encoding.lower() if byte in _LETTERS) not in _UNSAFE


_LETTERS: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")


def quote_literal(value: bytes) -> bytes:
    """Return *value* as a literal that reads the same whatever ``standard_conforming_strings`` says.

    The bytes must be in an ASCII-safe encoding. Raises ``ValueError`` for a zero byte, which no text can hold.
    """
    if b"\0" in value:
        raise ValueError("a zero byte cannot be part of a literal")
    quoted = b"'" + value.replace(b"'", b"''") + b"'"
    # The space keeps the E apart from a word before it, as in PostgreSQL's own quote_literal.
    return b" E" + quoted.replace(b"\\", b"\\\\") if b"\\" in value else quoted


def quote_identifier(name: bytes) -> bytes:
    """Return *name* in quotes, always: which words need none changes with the version.

    Raises ``ValueError`` for a zero byte and for the empty name, which PostgreSQL refuses.
    """
    if not name or b"\0" in name:
        raise ValueError("not a name")
    return b'"' + name.replace(b'"', b'""') + b'"'


def quote_identifier_if_needed(name: bytes) -> bytes:
    """Return *name* as PostgreSQL's own ``quote_identifier`` writes it, where that takes it for a keyword of this parser's version."""
    is_plain = _PLAIN_NAME.fullmatch(name) is not None and name.decode() not in _QUOTED_WORDS
    return name if is_plain else quote_identifier(name)


_PLAIN_NAME: Final = re.compile(rb"[a-z_][a-z0-9_]*")
_QUOTED_WORDS: Final = COL_NAME_KEYWORDS | TYPE_FUNC_NAME_KEYWORDS | RESERVED_KEYWORDS


def strip_comments(sql: bytes) -> bytes:
    """Return *sql* with each comment replaced by one space, nothing else changed.

    PostgreSQL's own lexer says what a comment is. Raises ``ValueError`` if it rejects the text. *sql* is in an ASCII-safe
    encoding; bytes that are no UTF-8 are kept as they are.
    """
    if b"--" not in sql and b"/*" not in sql:
        return sql
    text, encoding = decode(sql)
    parts = []
    end = 0
    try:
        tokens = scan(text)
    except (ParseError, UnicodeError) as exc:
        raise ValueError(f"not SQL: {exc}") from exc
    for token in tokens:
        if token.name in ("SQL_COMMENT", "C_COMMENT"):
            parts += [text[end : token.start], " "]
            end = token.end + 1
    parts.append(text[end:])
    return "".join(parts).encode(encoding)


def decode(sql: bytes) -> tuple[str, str]:
    """Return *sql* as text for the parser, and the encoding that turns its parts back into the client's bytes.

    In each ASCII-safe encoding bytes above 127 are letters to the lexer, so any one-to-one reading finds the same tokens.
    Raises ``ValueError`` for a zero byte, where the parser would stop reading and call the rest nothing.
    """
    if b"\0" in sql:
        raise ValueError("a zero byte cannot be part of SQL")
    try:
        return sql.decode(), "utf-8"
    except UnicodeDecodeError:
        return sql.decode("latin-1"), "latin-1"


_PLAIN_LITERAL: Final = re.compile(rb"'[^'\\]*'")
_PARAMETER: Final = re.compile(rb"(?<![\w$\x80-\xff])\$([0-9]{1,5})(?![\w$\x80-\xff])")


def parameters_in(sql: bytes) -> int | None:
    """The highest number of a parameter in *sql*, 0 if there is none; ``None``: that takes a lexer."""
    if b"$" not in sql:
        return 0
    code = _PLAIN_LITERAL.sub(b" ", sql)
    if any(sign in code for sign in (b"'", b'"', b"--", b"/*", b"\\")):
        return None
    numbers = _PARAMETER.findall(code)
    return max(map(int, numbers), default=0) if len(numbers) == code.count(b"$") else None
