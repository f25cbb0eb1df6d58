"""Labels: what a session has changed of its settings, as a value that can be compared by identity.

A client has the label it wants, a server the one it has; when the two are the same object nothing has to travel. A label maps a
setting's name to the SQL text that sets it, so that what is replayed is what the client wrote (W-38). Knows no transaction: which
label is in force is decided by outcome, in ``watch`` (W-35).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from weakref import WeakValueDictionary

from hyperdrive.sql.text import quote_identifier, quote_literal

# Settings whose RESET goes first and whose SET goes last: the others may need the rights that a role takes away (W-36).
_IDENTITY: Final = (b"session_authorization", b"role")
_RESET: Final[dict[bytes, bytes]] = {b"session_authorization": b"RESET SESSION AUTHORIZATION", b"role": b"RESET ROLE"}


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
        else:
            items[name] = sql
        return label(items)

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
    """SQL that gives setting *name* the *value* of a startup parameter.

    A startup value is what the setting's own parser reads; ``SET x = 'a, b'`` would make it one element of a list (W-38), while
    ``set_config`` passes it on as it is.
    """
    return b"SELECT pg_catalog.set_config(%s, %s, false)" % (quote_literal(name), quote_literal(value))


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
        commands += [b"RESET " + _quote_name(name) for name in _others(have.items) if name not in want.items]
        if not changed_identity:
            commands += [
                sql for name, sql in _sorted(want.items) if have.items.get(name) != sql and name not in _IDENTITY
            ]
            return b"; ".join(commands)
    commands += [want.items[name] for name in _others(want.items) if have.items.get(name) != want.items[name]]
    commands += [want.items[name] for name in _IDENTITY if name in want.items]
    return b"; ".join(commands)


def _others(items: Mapping[bytes, bytes]) -> Iterable[bytes]:
    return sorted(name for name in items if name not in _IDENTITY)


def _sorted(items: Mapping[bytes, bytes]) -> Iterable[tuple[bytes, bytes]]:
    return sorted(items.items())


def _quote_name(name: bytes) -> bytes:
    return b".".join(map(quote_identifier, name.split(b".")))
