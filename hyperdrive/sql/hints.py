"""Hints in a comment: ``/* hyperdrive: max_age=30 swr=10 tag=products */``, ``-- hyperdrive: cache=off``.

They set policy and are no part of the key (caching rules §2). PostgreSQL's lexer says what a comment is, so that a literal is never
taken for one; it is asked only where the word occurs at all. What is wrong in a hint is listed and otherwise ignored: a comment
must never make a statement fail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pglast.parser import ParseError, scan

from hyperdrive.sql.text import decode

_WORD: Final = b"hyperdrive:"
_HINT: Final = re.compile(r"\s*hyperdrive:(.*)", re.DOTALL | re.IGNORECASE)
_ON: Final = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Hints:
    """What the comments of a statement ask for; ``None`` where they say nothing."""

    max_age_seconds: float | None = None
    stale_while_revalidate_seconds: float | None = None
    cache: bool | None = None
    tags: tuple[str, ...] = ()
    """Names for PURGE, added to the entry on a hit, too."""
    problems: tuple[str, ...] = ()
    """What was not understood."""


def read_hints(sql: bytes) -> Hints | None:
    """Return the hints in the comments of *sql*; ``None`` if there are none. The last one of a name counts, tags add up."""
    if _WORD not in sql.lower():
        return None
    try:
        text, _ = decode(sql)
        tokens = scan(text)
    except (ParseError, ValueError):
        return None
    words: list[str] = []
    for token in tokens:
        if token.name in ("SQL_COMMENT", "C_COMMENT"):
            comment = text[token.start : token.end + 1]
            found = _HINT.match(comment[2:-2] if token.name == "C_COMMENT" else comment[2:])
            if found is not None:
                words += found[1].replace(";", " ").split()
    return _read(words) if words else None


def _read(words: list[str]) -> Hints:
    seconds: dict[str, float] = {}
    cache: bool | None = None
    tags: dict[str, None] = {}
    problems = []
    for word in words:
        name, _, value = word.partition("=")
        name = name.lower()
        if name in ("max_age", "swr", "stale_while_revalidate"):
            number = _seconds(value)
            if number is not None:
                seconds["max_age" if name == "max_age" else "swr"] = number
                continue
        elif name == "cache" and value.lower() in _ON:
            cache = _ON[value.lower()]
            continue
        elif name in ("tag", "tags") and value:
            tags.update(dict.fromkeys(filter(None, value.split(","))))
            continue
        problems.append(word)
    return Hints(seconds.get("max_age"), seconds.get("swr"), cache, tuple(tags), tuple(problems))


_NUMBER: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|min|h|)")
_UNITS: Final = {"": 1.0, "s": 1.0, "ms": 0.001, "min": 60.0, "h": 3600.0}


def _seconds(value: str) -> float | None:
    found = _NUMBER.fullmatch(value.lower())
    return None if found is None else float(found[1]) * _UNITS[found[2]]
