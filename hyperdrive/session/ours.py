"""``hyperdrive.*`` and ``idle_session_timeout``: answered here in whatever state the session is, as PostgreSQL would for its own.

They are kept in the client's label, so that RESET, ROLLBACK and DISCARD ALL undo them, and never travel. What a value means is for who
obeys it; here it is only told whether it makes sense. Knows no cache and no server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Protocol

from hyperdrive import __version__
from hyperdrive.pgwire import messages
from hyperdrive.session import idle
from hyperdrive.session.failures import Failures
from hyperdrive.session.pipe import Pipe
from hyperdrive.session.settings import IDLE_SESSION, PREFIX, Label, stays_here
from hyperdrive.sql.parse import parse
from hyperdrive.sql.verdict import Form, Kind, SetConfig, Setting, Statement

_BOOLEAN: Final = re.compile(rb"on|off|true|false|yes|no|1|0", re.IGNORECASE)
_DURATION: Final = re.compile(rb"\s*(\d{1,12}(?:\.\d{1,6})?)\s*(us|ms|s|min|m|h|d|)\s*", re.IGNORECASE)
_TOKEN: Final = re.compile(rb"(?:hd1:\d{0,20}:\d{0,10}:\d{0,10}:[0-9a-f]{1,32}:\d{1,18})?")
_SECONDS: Final = {b"us": 1e-6, b"ms": 1e-3, b"s": 1.0, b"min": 60.0, b"m": 60.0, b"h": 3600.0, b"d": 86400.0, b"": 1.0}

SETTABLE: Final[Mapping[bytes, tuple[re.Pattern[bytes], bytes]]] = {
    PREFIX + b"cache": (_BOOLEAN, b"on"),
    PREFIX + b"max_staleness": (_DURATION, b""),
    PREFIX + b"max_age": (_DURATION, b""),
    PREFIX + b"stale_while_revalidate": (_DURATION, b""),
    PREFIX + b"min_token": (_TOKEN, b""),
}
"""Each with what a value looks like and what SHOW says while nothing is set: empty is as for all."""

_DEFAULTS: Final = {_BOOLEAN: b"on", _DURATION: b"0", _TOKEN: b""}
"""A value of each kind, for RESET."""

LAST_READ: Final = PREFIX + b"last_read"
TOKEN: Final = PREFIX + b"token"
_NO_TOKEN: Final = b"hd1::::0:0"
VERSION: Final = PREFIX + b"version"
_SHOWN: Final = frozenset({LAST_READ, TOKEN, VERSION})
_KINDS: Final = frozenset({Kind.SET, Kind.RESET})


def is_on(value: bytes) -> bool:
    """What a boolean comes to; it matches already."""
    return value.lower() in (b"on", b"true", b"yes", b"1")


def seconds(value: bytes) -> float | None:
    """What a duration comes to; ``None``: it is none."""
    found = _DURATION.fullmatch(value)
    return None if found is None else float(found[1]) * _SECONDS[found[2].lower()]


def refusal(name: bytes, value: bytes | None) -> tuple[str, str] | None:
    """Why *name* cannot be set to *value* (``None``: not one plain value): text and SQLSTATE, in PostgreSQL's words."""
    shown = name.decode(errors="replace")
    if name in _SHOWN:
        return f'parameter "{shown}" cannot be changed', "55P02"
    if name not in SETTABLE:
        return f'unrecognized configuration parameter "{shown}"', "42704"
    if value is None or not SETTABLE[name][0].fullmatch(value):
        said = (value or b"").decode(errors="replace")
        return f'invalid value for parameter "{shown}": "{said}"', "22023"
    return None


def value_of(sql: bytes) -> bytes | None:
    """The value that a label's text gives its setting: ``SET … TO 'x'``, or ``SELECT set_config(…, 'x', false)``."""
    single = parse(sql).single
    if single is None:
        return None
    if single.setting is not None and single.setting.values is not None and len(single.setting.values) == 1:
        return single.setting.values[0]
    return next((e.value for e in single.effects if isinstance(e, SetConfig) and isinstance(e.value, bytes)), None)


class Reads(Protocol):
    """What knows how a session's reads are answered."""

    def last_read(self) -> str:
        """What ``SHOW hyperdrive.last_read`` gives."""

    def token(self) -> bytes:
        """What ``SHOW hyperdrive.token`` gives."""


class Ours(Failures):
    """The part of a client session that knows them."""

    __slots__ = ("reads",)

    def __init__(self, pipe: Pipe, base: Label, told: Mapping[bytes, bytes]) -> None:
        super().__init__(pipe, base, told)
        self.reads: Reads | None = None
        """How the last read was answered, for SHOW."""

    def _is_ours(self, statement: Statement, *, in_block: bool | None = None) -> bool:
        """Whether *statement* is about such a setting, and is answered here. *in_block*: in a transaction, if that was not begun here."""
        if statement.kind is Kind.SHOW:
            name = (statement.name or b"").lower()
            if name == IDLE_SESSION:
                return name in self.journal.wanted.items
            return name.startswith(PREFIX) and (self.held is None or name in _SHOWN or name in SETTABLE)
        setting = statement.setting
        if statement.kind is Kind.SET_LOCAL:
            in_block = self.block is not None if in_block is None else in_block
            # Outside a transaction it is a warning of the origin's.
            is_ours = setting is not None and setting.name.startswith(PREFIX)
            return is_ours and in_block and self._refusal(statement) is None
        if statement.kind not in _KINDS or setting is None or not stays_here(setting.name):
            return False
        if setting.name == IDLE_SESSION:
            return self._keeps_idle_timeout(setting)
        # In a transaction an error would have to end it: then the origin takes it for a setting of an extension, and nothing follows.
        return self.held is None or self._refusal(statement) is None

    def _keeps_idle_timeout(self, setting: Setting) -> bool:
        """What makes no sense goes to the origin, whose error it is."""
        if not self.pipe.switches.local_settings or not idle.is_known(self.told):
            return False
        values = setting.values
        if setting.form is Form.VALUE:
            return values is not None and len(values) == 1 and idle.milliseconds(values[0]) is not None
        return setting.form is not Form.CURRENT

    @staticmethod
    def _refusal(statement: Statement) -> tuple[str, str] | None:
        setting = statement.setting
        if setting is None or setting.name == IDLE_SESSION:
            return None
        if setting.form is not Form.VALUE:
            return refusal(setting.name, _DEFAULTS[SETTABLE[setting.name][0]] if setting.name in SETTABLE else b"")
        values = setting.values
        return refusal(setting.name, values[0] if values is not None and len(values) == 1 else None)

    def _carry_out_ours(self, statement: Statement) -> bytes:
        """The reply behind what describes it, without ReadyForQuery."""
        tag = statement.tag or b""
        if statement.kind is Kind.SHOW:
            value = self._shown((statement.name or b"").lower())
            if value is None:
                name = (statement.name or b"").decode(errors="replace")
                return messages.error_response(f'unrecognized configuration parameter "{name}"', "42704")
            return messages.data_row([value]) + messages.command_complete(tag)
        refused = self._refusal(statement)
        if refused is not None:
            return messages.error_response(*refused)
        if statement.kind is Kind.SET_LOCAL:
            assert statement.setting is not None
            self.journal.set_local(statement.setting)
            return messages.command_complete(tag)
        self.journal.completed(statement, tag)
        if statement.setting is not None and statement.setting.name == IDLE_SESSION:
            self.pipe.idle_timeout_set()
        return messages.command_complete(tag)

    def _shown(self, name: bytes) -> bytes | None:
        if name == LAST_READ:
            return (self.reads.last_read() if self.reads is not None else "bypass rule=off").encode()
        if name == TOKEN:
            return self.reads.token() if self.reads is not None else _NO_TOKEN
        if name == VERSION:
            return __version__.encode()
        if name == IDLE_SESSION:
            return idle.shown(idle.timeout_of(self.journal.wanted) or 0)
        if name not in SETTABLE:
            return None
        sql = self.journal.own(PREFIX).get(name)
        return SETTABLE[name][1] if sql is None else value_of(sql) or b""

    def _is_unknown(self, statement: Statement) -> bool:
        """SHOW of what there is not."""
        return statement.kind is Kind.SHOW and not self._describes(statement)

    def _describes(self, statement: Statement) -> bool:
        """Whether it returns a row: an error has no description."""
        return statement.kind is Kind.SHOW and self._shown((statement.name or b"").lower()) is not None
