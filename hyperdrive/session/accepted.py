"""What the origin has accepted before: settings that may be changed here without asking it again (E-7, class A).

A text that this origin took from this role takes effect the same way each time, unless its validity depends on catalogs, rights or the
session: those settings are never answered here. What a reported setting came to is learned from the ParameterStatus that
followed. Knows no client and no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from hyperdrive.session.settings import MERGED, Label
from hyperdrive.sql.verdict import Form, Kind, Statement

MAX_ACCEPTED: Final = 2000
"""Texts remembered per pool."""

CLASS_B: Final = frozenset(
    b"""role session_authorization default_tablespace temp_tablespaces default_table_access_method default_text_search_config
    temp_buffers session_replication_role idle_session_timeout seed""".split()
)
"""Depend on catalogs, rights or the session, or must not be replayed (E-7)."""

_IDENTITY: Final = (b"role", b"session_authorization")


class Key(NamedTuple):
    """Who said which text, and over which value if what it comes to hangs on that."""

    identity: tuple[bytes | None, ...]
    sql: bytes
    before: bytes | None
    """Of a merged setting: its value."""


def key_of(statement: Statement, label: Label, told: Mapping[bytes, bytes]) -> Key | None:
    """What stands for *statement* in a session with *label*; ``None`` if it is never answered here."""
    name = changed_setting(statement)
    if name is None:
        return None
    items = label.items
    identity = tuple(items.get(one) for one in _IDENTITY) if any(one in items for one in _IDENTITY) else ()
    setting = statement.setting
    before = told.get(reported_name(name, told)) if name == MERGED else None
    return Key(identity, setting.sql if setting is not None else statement.sql, before)


def changed_setting(statement: Statement) -> bytes | None:
    """The class A setting that SET, RESET or ``set_config`` in *statement* changes, in lower case.

    Of SET SESSION CHARACTERISTICS the one that is reported, or nothing.
    """
    if statement.kind is Kind.SET_SESSION_CHARACTERISTICS:
        modes = statement.modes
        return b"" if modes is None or modes.read_only is None else b"default_transaction_read_only"
    setting = statement.setting
    if setting is None or setting.form is Form.CURRENT or statement.suspect:
        return None
    if statement.effects and statement.kind is not Kind.PLAIN:
        return None
    name = setting.name
    if name in CLASS_B or b"." in name or name.startswith(b"transaction_"):
        return None
    return name


def reported_name(name: bytes, told: Mapping[bytes, bytes]) -> bytes:
    """The name under which setting *name* is reported, if it is among *told*; else *name*."""
    return next((reported for reported in told if reported.lower() == name), name)


class Accepted:
    """The texts of one pool, with what a reported setting came to (``None``: nobody is told of it)."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[Key, bytes | None] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def value(self, key: Key) -> bytes | None:
        """What the setting is afterwards, as it is reported."""
        return self._values[key]

    def learn(self, key: Key, value: bytes | None) -> None:
        """The origin took the text; a reported setting is now *value*."""
        if len(self._values) >= MAX_ACCEPTED:
            del self._values[next(iter(self._values))]
        self._values[key] = value

    def clear(self) -> None:
        """Another version, role or configuration: nothing learned holds."""
        self._values.clear()
