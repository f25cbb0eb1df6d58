"""``idle_session_timeout``: how long the client may be idle outside a transaction; kept here, and enforced by the proxy (E-7).

At a server it would end a connection that idles in the pool, for whoever comes next. Reads and prints durations as PostgreSQL does
(config-setting#CONFIG-SETTING-NAMES-VALUES). Knows labels; who looks at the clock is ``proxy.sweep``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from hyperdrive.session.settings import IDLE_SESSION, Label
from hyperdrive.sql.parse import parse

FIRST_MAJOR: Final = 14
"""Older servers do not know it, and say so."""

_DURATION: Final = re.compile(
    rb"\s*(0[xX][0-9a-fA-F]{1,8}|(?:\d{1,18}(?:\.\d{0,9})?|\.\d{1,9})(?:[eE][+-]?\d{1,2})?)\s*(us|ms|s|min|h|d|)\s*"
)
_MILLISECONDS: Final = {b"us": 1e-3, b"ms": 1, b"": 1, b"s": 1000, b"min": 60_000, b"h": 3_600_000, b"d": 86_400_000}
_MOST: Final = 2**31 - 1
_SHOWN: Final = ((86_400_000, b"d"), (3_600_000, b"h"), (60_000, b"min"), (1000, b"s"), (1, b"ms"))


def milliseconds(value: bytes) -> int | None:
    """What *value* comes to; ``None``: the origin would refuse it, or it is in a form that is left to the origin."""
    found = _DURATION.fullmatch(value)
    if found is None:
        return None
    number = _number(found[1])
    return (
        None if number is None or number * _MILLISECONDS[found[2]] > _MOST else round(number * _MILLISECONDS[found[2]])
    )


def _number(text: bytes) -> float | None:
    """As C reads it: whole numbers are octal behind a 0 and hexadecimal behind 0x."""
    if text[:2] in (b"0x", b"0X"):
        return int(text, 16)
    if not text.isdigit() or not text.startswith(b"0"):
        return float(text)
    return int(text, 8) if not set(text) & set(b"89") else None


def shown(number: int) -> bytes:
    """What SHOW says for *number* milliseconds: the largest unit that divides it."""
    if number == 0:
        return b"0"
    size, unit = next((size, unit) for size, unit in _SHOWN if number % size == 0)
    return b"%d%s" % (number // size, unit)


def is_known(told: Mapping[bytes, bytes]) -> bool:
    """Whether a server that reports *told* has the setting."""
    major = re.match(rb"\d+", told.get(b"server_version", b""))
    return major is not None and int(major[0]) >= FIRST_MAJOR


def timeout_of(wanted: Label) -> int | None:
    """The milliseconds that a session with the settings *wanted* has asked for; ``None``: it has not."""
    sql = wanted.items.get(IDLE_SESSION)
    return None if sql is None else _timeout(sql)


@lru_cache(256)
def _timeout(sql: bytes) -> int:
    single = parse(sql).single
    values = single.setting.values if single is not None and single.setting is not None else None
    return milliseconds(values[0]) or 0 if values is not None and len(values) == 1 else 0
