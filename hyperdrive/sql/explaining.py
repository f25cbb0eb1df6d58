"""A verdict in words: which rule, which object, what it depends on, and what would help.

For ``hyperdrive explain``, ``SHOW hyperdrive.last_read`` and ``SHOW STATEMENTS``. Knows rules and values of ``sql/``; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hyperdrive.sql.catalog import Catalog
from hyperdrive.sql.resolve import Cacheable
from hyperdrive.sql.rules import Refused, Rule
from hyperdrive.sql.writes import Writes

WORDS: Final[dict[Rule, str]] = {
    Rule.OFF: "the cache is off for this statement, session, database or policy",
    Rule.ORIGIN_UNKNOWN: "the origin's catalogs are not known, so nothing can be judged",
    Rule.STREAM_DOWN: "the change stream is down or too far behind",
    Rule.IN_TRANSACTION: "it runs in a transaction that may have written, or must see one snapshot",
    Rule.SESSION_STATE: "the session holds state that could change what the statement means",
    Rule.ENCODING: "it is not in UTF-8",
    Rule.STRINGS: "standard_conforming_strings is off, so literals end elsewhere",
    Rule.TOO_LONG: "it is too long to be read",
    Rule.SYNTAX: "PostgreSQL's grammar, as we know it, rejects it",
    Rule.MULTI_STATEMENT: "it is more than one statement, and a write could hide behind a read",
    Rule.PORTAL: "rows are fetched in parts, or a portal is used again",
    Rule.NOT_SELECT: "it is not a SELECT and nothing else",
    Rule.LOCKING: "it takes row locks, which only the origin can give",
    Rule.RELATION: "a relation changes without our hearing of it, or does not exist",
    Rule.SYSTEM_COLUMN: "a system column changes when rows do not",
    Rule.VIEW: "what is wrong is in the view's body",
    Rule.ROW_SECURITY: "row security shows each role other rows",
    Rule.FUNCTION: "a function's result depends on more than the tables and the settings",
    Rule.OPERATOR: "an operator runs a function that is not IMMUTABLE",
    Rule.CAST: "a cast runs a function that is not IMMUTABLE",
    Rule.TYPE: "values of a type could run code, or show names that change",
    Rule.CLOCK_WORD: "a text may say now or today where it becomes a date",
    Rule.OWN_WRITE: "the session has written, and the entry may be older than that",
    Rule.NO_ENTRY: "nothing is stored yet under exactly this text, identity and settings",
    Rule.INVALIDATED: "the data has changed since",
    Rule.EXPIRED: "the entry is older than max_age",
    Rule.RACED: "the data changed while the answer was on its way",
    Rule.REPLY: "the reply was an error, a notice, or not whole",
    Rule.SIZE: "the answer is larger than what one entry may hold",
    Rule.ADMISSION: "it has been seen only once, and memory is short",
}
"""What each rule says, as the end of a sentence that begins "not served from the cache: "."""


def explain(found: Cacheable | Refused, catalog: Catalog | None = None, writes: Writes | None = None) -> list[str]:
    """Lines for people: the verdict *found* of a text, and what it may change, if that is known.

    With the *catalog* relations are told by name.
    """
    lines = list(_refusal(found)) if isinstance(found, Refused) else list(_answer(found, catalog))
    if writes is not None:
        lines += _changes(writes, catalog)
    return lines


def _refusal(refused: Refused) -> Iterator[str]:
    yield f"not cacheable, rule {refused.rule.value}: {WORDS[refused.rule]}"
    depth = 0
    one: Refused | None = refused
    while one is not None:
        indent = "  " * depth
        if one.object:
            yield f"{indent}because of {one.object}" + (f" (rule {one.rule.value})" if depth else "")
        if one.hint:
            yield f"{indent}what would help: {one.hint}"
        one, depth = one.because, depth + 1


def _answer(found: Cacheable, catalog: Catalog | None) -> Iterator[str]:
    yield "cacheable"
    if not found.names:
        yield "depends on no relation: it stays until it expires or the schema changes"
    else:
        yield f"depends on {', '.join(found.names)}"
        others = names_of(found.tags, catalog) - set(found.names)
        if others:
            yield f"dropped as well when these change: {', '.join(sorted(others))}"
    if found.scan:
        numbers = ", ".join(f"${number}" for number in found.scan)
        yield f"not when {numbers} says now, today, tomorrow or yesterday"
    if found.age_only:
        yield "only its age vouches for it: a relation changes without our hearing of it"


def _changes(writes: Writes, catalog: Catalog | None) -> Iterator[str]:
    if writes.ends_epoch:
        yield "changes what statements mean: everything stored for the database is dropped"
    elif writes.relations is None:
        yield "may change anything, as far as we can see: everything stored for the database is dropped"
    elif writes.relations:
        yield f"drops what depends on {', '.join(sorted(names_of(tuple(writes.relations), catalog)))}"


def names_of(oids: tuple[int, ...], catalog: Catalog | None) -> set[str]:
    """The relations *oids* as users write them; their numbers where the catalog does not know them."""
    found = set()
    for oid in oids:
        relation = None if catalog is None else catalog.relations.get(oid)
        found.add(str(oid) if catalog is None or relation is None else catalog.qualified(relation))
    return found


def summary(found: Cacheable | Refused) -> str:
    """One line: ``cacheable: public.t``, ``function: now()``, ``view: public.v (function: now())``."""
    if isinstance(found, Cacheable):
        return f"cacheable: {', '.join(found.names)}" if found.names else "cacheable"
    return f"{found} ({found.because})" if found.because is not None else str(found)
