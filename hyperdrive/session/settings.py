"""Labels: what a session has changed of its settings, as a value that can be compared by identity.

A client has the label it wants, a server the one it has; when the two are the same object nothing has to travel. A label maps a
setting's name to the SQL text that sets it, so that what is replayed is what the client wrote (W-38). Knows no transaction: which
label is in force is decided by outcome, in ``watch`` (W-35).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from weakref import WeakValueDictionary

from hyperdrive.sql.text import quote_identifier, quote_identifier_if_needed, quote_literal

# Settings whose RESET goes first and whose SET goes last: the others may need the rights that a role takes away (W-36).
_IDENTITY: Final = (b"session_authorization", b"role")
_RESET: Final[dict[bytes, bytes]] = {b"session_authorization": b"RESET SESSION AUTHORIZATION", b"role": b"RESET ROLE"}


PREFIX: Final = b"hyperdrive."
"""Settings of ours: they are in the client's label like any other, and never reach a server."""

MERGED: Final = b"datestyle"
"""SET of it may say only half, style or order, and leaves the other half as it was."""

IDLE_SESSION: Final = b"idle_session_timeout"
"""One of PostgreSQL's that is treated like them (``idle``)."""


class Label:
    """Settings that differ from the server's own defaults: name to SQL. Immutable and interned: compare with ``is``."""

    __slots__ = ("__weakref__", "items")

    def __init__(self, items: Mapping[bytes, bytes]) -> None:
        self.items = items

    def with_(self, name: bytes, sql: bytes | None) -> Label:
        """This label with *name* set by *sql*; ``None`` takes it out."""
        items = dict(self.items)
        if sql is None:
            items.pop(name, None)
        elif name == MERGED and name in items and items[name] != sql:
            items[name] += b"; " + sql
        else:
            items[name] = sql
        return label(items)

    def joined(self, value: bytes | None) -> Label:
        """This label with one text for the merged setting, now that its *value* is known."""
        if value is None or b"; " not in self.items.get(MERGED, b""):
            return self
        return self.with_(MERGED, None).with_(MERGED, statement_for(MERGED, value))

    def __repr__(self) -> str:
        return f"<Label {dict(self.items)}>"


_interned: WeakValueDictionary[tuple[tuple[bytes, bytes], ...], Label] = WeakValueDictionary()


def label(items: Mapping[bytes, bytes]) -> Label:
    """The one label with these *items*."""
    key = tuple(sorted(items.items()))
    found = _interned.get(key)
    if found is None:
        found = _interned[key] = Label(dict(items))
    return found


EMPTY: Final = label({})
"""Nothing is changed."""

UNKNOWN: Final = Label({})
"""Of a server: something changed settings that we did not see; everything is reset before it is used again (W-37)."""


DOUBT: Final = Label({b"?": b"?"})
"""Of a statement: nobody knows under which settings it was read."""


_MOST_VALUES: Final = 4096
_values: dict[tuple[tuple[bytes, bytes], ...], Mapping[bytes, bytes]] = {}


def values(reported: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """The one mapping that stands for these *reported* values, so that sessions can compare theirs by identity."""
    key = tuple(sorted(reported.items()))
    found = _values.get(key)
    if found is None:
        if len(_values) >= _MOST_VALUES:
            _values.clear()
        found = _values[key] = dict(reported)
    return found


def statement_for(name: bytes, value: bytes) -> bytes:
    """SQL that gives setting *name* the *value* of a startup parameter, or of ``set_config``.

    SET and not ``set_config``: as a query that one takes a snapshot, and a transaction could not choose its isolation behind it (W-39).
    But SET writes a list of identifiers in its own way, and either reads back as it was given: a list that SET would write otherwise is
    set by a query, in a scope of its own (W-38). What goes into a transaction is ``in_block``.
    """
    if name not in _LISTS or _reads_as_set_writes(value):
        return _set(name, value)
    return b"%s%s, %s%s" % (_QUERY, quote_literal(name), quote_literal(value), _FOR_SESSION)


def in_block(sql: bytes) -> bytes:
    """The SET that finds what *sql*, of a label, does, and takes no snapshot.

    Within a transaction that counts for more than how a list reads back (W-39).
    """
    value = queried(sql)
    return sql if value is None else _set(_unquoted(_LITERAL.findall(sql)[0]), value)


def queried(sql: bytes) -> bytes | None:
    """The value that *sql*, of a label, gives by a query."""
    return _unquoted(_LITERAL.findall(sql)[1]) if sql.startswith(_QUERY) else None


def locally(sql: bytes) -> bytes:
    """What does for the transaction what *sql*, of a label, does for the session."""
    return in_block(sql).replace(b"SET", b"SET LOCAL", 1)


_QUERY: Final = b"SELECT pg_catalog.set_config("
_FOR_SESSION: Final = b", false)"
_LITERAL: Final = re.compile(rb" ?E?'(?:[^']|'')*'")


def _unquoted(literal: bytes) -> bytes:
    """What ``quote_literal`` made a *literal* of."""
    head, _, rest = literal.partition(b"'")
    text = rest[:-1].replace(b"''", b"'")
    return text.replace(b"\\\\", b"\\") if head.endswith(b"E") else text


def _set(name: bytes, value: bytes) -> bytes:
    """Of a list of identifiers each element is quoted by itself, as ``SET x = 'a, b'`` would make one element of it (W-38)."""
    elements = _elements(value) if name in _LISTS else [value]
    return b"SET %s TO %s" % (quote_name(name), b", ".join(map(quote_literal, elements)))


def _reads_as_set_writes(value: bytes) -> bool:
    elements = _elements(value)
    return all(elements) and value == b", ".join(map(quote_identifier_if_needed, elements))


SET_HEAD: Final = re.compile(rb"\s*SET\s+(?:SESSION\s+|LOCAL\s+)?", re.IGNORECASE)
"""What stands before the name, or TIME ZONE and the like, in the text of a SET."""


def for_session(sql: bytes) -> bytes | None:
    """The SET that does for the session what *sql*, a SET LOCAL, does for the transaction."""
    found = SET_HEAD.match(sql)
    return b"SET " + sql[found.end() :] if found is not None else None


def show(name: bytes) -> bytes:
    """SQL that gives the value of setting *name*."""
    return b"SHOW " + quote_name(name)


# What SET takes as a list of identifiers (GUC_LIST_QUOTE), and a session may set.
_LISTS: Final = frozenset(
    {b"search_path", b"temp_tablespaces", b"local_preload_libraries", b"session_preload_libraries"}
)
_ELEMENT: Final = re.compile(rb'\s*("(?:[^"]|"")*"|[^\s,"]+)\s*(?:,|$)')


def _elements(value: bytes) -> list[bytes]:
    """The identifiers in *value*, folded and unquoted; what is no such list stays in one piece."""
    found: list[bytes] = []
    at = 0
    while at < len(value):
        element = _ELEMENT.match(value, at)
        if element is None:
            return [value]
        text = element[1]
        found.append(text[1:-1].replace(b'""', b'"') if text.startswith(b'"') else text.lower())
        at = element.end()
    return found or [value]


def stays_here(name: bytes) -> bool:
    """Whether setting *name* is kept in labels only."""
    return name == IDLE_SESSION or name.startswith(PREFIX)


def transition(have: Label, want: Label) -> bytes:
    """The SQL that takes a server from label *have* to *want*; empty when there is nothing to do."""
    if have is want:
        return b""
    commands: list[bytes] = []
    if have is UNKNOWN:
        # Whoever changed settings unseen may have taken more than that (W-37, W-43).
        commands += [b"RESET SESSION AUTHORIZATION", b"RESET ALL", b"UNLISTEN *", b"DISCARD TEMP"]
        commands += [b"SELECT pg_catalog.pg_advisory_unlock_all()"]
        have = EMPTY
    else:
        changed_identity = any(have.items.get(name) != want.items.get(name) for name in _IDENTITY)
        for name in _IDENTITY:
            if changed_identity and name in have.items:
                commands.append(_RESET[name])
        gone = [name for name in _others(have.items) if name not in want.items or _leaves_half(name, have, want)]
        commands += [b"RESET " + quote_name(name) for name in gone]
        if not changed_identity:
            commands += [
                sql for name, sql in _sorted(want.items) if have.items.get(name) != sql and name not in _IDENTITY
            ]
            return b"; ".join(commands)
    commands += [want.items[name] for name in _others(want.items) if have.items.get(name) != want.items[name]]
    commands += [want.items[name] for name in _IDENTITY if name in want.items]
    return b"; ".join(commands)


def _leaves_half(name: bytes, have: Label, want: Label) -> bool:
    return name == MERGED and have.items[name] != want.items[name]


def _others(items: Mapping[bytes, bytes]) -> Iterable[bytes]:
    return sorted(name for name in items if name not in _IDENTITY and not stays_here(name))


def _sorted(items: Mapping[bytes, bytes]) -> Iterable[tuple[bytes, bytes]]:
    return sorted((name, sql) for name, sql in items.items() if not stays_here(name))


def quote_name(name: bytes) -> bytes:
    """The name of a setting as SQL."""
    return b".".join(map(quote_identifier, name.split(b".")))
