"""What a value of a setting may look like: durations, sizes, addresses, choices.

A ``Kind`` reads what a TOML file, an environment variable or a flag holds, and writes it back as people would. It knows
nothing of the settings that use it. Units are those of the PostgreSQL manual (config-setting#CONFIG-SETTING-NAMES-VALUES),
to which the binary KiB, MiB and GiB are added because that is what is meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"b": 1, "kb": 1024, "kib": 1024, "mb": 1024**2, "mib": 1024**2, "gb": 1024**3, "gib": 1024**3}


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of value. *read* raises ``ValueError`` for what is not *right*; *show* gives a text that *read* accepts."""

    name: str
    right: str
    read: Callable[[Any], Any]
    show: Callable[[Any], str] = str


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. *host* is a name or an address; ``*`` is every address."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """True if only programs of this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _duration(value: object) -> float:
    seconds = _amount(value, SECONDS, "s")
    if not seconds < 1e9:
        raise ValueError
    return seconds


def _size(value: object) -> int:
    size = _amount(value, BYTES, "b")
    if size != int(size):
        raise ValueError
    return int(size)


def _amount(value: object, units: Mapping[str, float], plain: str) -> float:
    """A number that is not negative, times its unit."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number, unit = value, plain
    else:
        match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
        if match is None or (match[2] and match[2].lower() not in units):
            raise ValueError
        number, unit = float(match[1]), match[2].lower() or plain
    if not 0 <= number <= 2**50:  # also refuses what is not a number
        raise ValueError
    return number * units[unit]


_AMOUNT = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]{0,3})\s*", re.ASCII)


def _show_duration(seconds: float) -> str:
    if seconds == 0:
        return "0"
    for unit in ("d", "h", "min", "s", "ms"):
        if seconds % SECONDS[unit] == 0:
            return f"{seconds / SECONDS[unit]:.0f}{unit}"
    return f"{seconds:.9f}".rstrip("0") + "s"


def _show_size(size: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % BYTES[unit.lower()] == 0:
            return f"{size // BYTES[unit.lower()]}{unit}"
    return str(size)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ValueError


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    return value


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, Sequence):
        raise ValueError
    return tuple(dict.fromkeys(_text(part) for part in value if part != ""))


def _address(value: object) -> Address:
    match = (
        re.fullmatch(r"\s*(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]/]*)):(\d{1,5})\s*", value, re.ASCII)
        if isinstance(value, str)
        else None
    )
    if match is None or int(match[3]) > 65535:
        raise ValueError
    return Address(match[1] or match[2] or "*", int(match[3]))


def _addresses(value: object) -> tuple[Address, ...]:
    return tuple(_address(part) for part in _names(value))


def _maybe_address(value: object) -> Address | None:
    return None if value in ("", "off", False) else _address(value)


DURATION = Kind("duration", "seconds, or a number with us, ms, s, min, h or d, such as 30s", _duration, _show_duration)
SIZE = Kind("size", "bytes, or a number with KiB, MiB or GiB, such as 64KiB", _size, _show_size)
FLAG = Kind("boolean", "true or false", _flag, lambda value: "true" if value else "false")
TEXT = Kind("text", "a text", _text)
NAMES = Kind("names", "a list of names, or one text with commas", _names, ",".join)
ADDRESS = Kind("address", "HOST:PORT, such as 127.0.0.1:6544, or off", _maybe_address, lambda a: str(a) if a else "off")
ADDRESSES = Kind(
    "addresses", "HOST:PORT, such as 127.0.0.1:6543, or a list of those", _addresses, lambda a: ",".join(map(str, a))
)


def whole(low: int, high: int = 2**31 - 1) -> Kind:
    """A whole number in a range."""

    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*\d{1,12}\s*", value, re.ASCII):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError
        return value

    upper = "" if high == 2**31 - 1 else f" and at most {high}"
    return Kind("number", f"a whole number, at least {low}{upper}", read)


def choice(*words: str) -> Kind:
    """One of a few words. A TOML boolean stands for ``on`` and ``off`` where those are among them."""

    def read(value: object) -> str:
        if isinstance(value, bool):
            value = "on" if value else "off"
        if isinstance(value, str) and value.strip().lower() in words:
            return value.strip().lower()
        raise ValueError

    return Kind("choice", f"one of {', '.join(words)}", read)


def mode_bits() -> Kind:
    """Permissions of a file, in octal."""

    def read(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            value = f"{value:o}"  # TOML writes 0o770
        if not isinstance(value, str) or not re.fullmatch(r"(?:0o?)?[0-7]{1,3}", value):
            raise ValueError
        return int(value.removeprefix("0o"), 8)

    return Kind("permissions", "permissions in octal, such as 0770", read, lambda bits: f"{bits:04o}")
