"""How an answer is written down for others: framed, with a checksum, and with all that it has to be compared by.

    magic · checksum of the rest · generations, each behind the name of its tag · whole key · when it was noted · cost · body

A value that is cut, changed, of another format or of another key is no answer. Knows bytes; what they mean is ``second``'s.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from hyperdrive.cache.tags import CATALOG

MAGIC: Final = b"hd1\n"
"""Of the format; moves when what the bytes mean does."""
_CHECK_BYTES: Final = 16
_TIMES: Final = struct.Struct("!dd")
_FOREVER_OLD: Final = 1e12


class Shared:
    """What a fill notes when it looks at the second level: its key and tags there, and their generations."""

    __slots__ = ("generations", "key", "names", "noted_at")

    def __init__(self, key: bytes, names: tuple[bytes, ...]) -> None:
        self.key = key
        self.names = names
        self.generations: tuple[bytes, ...] = ()
        """Of the names, before the origin was asked."""
        self.noted_at = 0.0
        """That moment on the store's clock: the answer is no older."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a value holds."""

    body: bytes
    noted_at: float
    cost_seconds: float


def name_of(tag: Hashable) -> bytes:
    """What a tag is called where others see it; empty: others have no part in it."""
    if tag == CATALOG:
        return b"*"
    return b"%d" % tag if isinstance(tag, int) else b""


def write_value(shared: Shared, cost_seconds: float, body: bytes) -> bytes:
    """*body* with all that it has to be compared by."""
    rest = _front(shared) + _TIMES.pack(shared.noted_at, cost_seconds) + body
    return MAGIC + _check(rest) + rest


def read_value(value: bytes, shared: Shared) -> Written | None:
    """What *value* holds, if it is whole, of the same key and of the same generations."""
    at = len(MAGIC) + _CHECK_BYTES
    front = _front(shared)
    rest = value[at:]
    if not value.startswith(MAGIC) or not rest.startswith(front) or len(rest) < len(front) + _TIMES.size:
        return None
    if value[len(MAGIC) : at] != _check(rest):
        return None
    noted_at, cost_seconds = _TIMES.unpack_from(rest, len(front))
    if not 0.0 <= cost_seconds < _FOREVER_OLD or not 0.0 <= noted_at < _FOREVER_OLD:
        return None
    return Written(rest[len(front) + _TIMES.size :], noted_at, cost_seconds)


def _front(shared: Shared) -> bytes:
    """Tags, generations and key: what is the same in two values that may stand for each other, and in no others."""
    parts = [*shared.names, *shared.generations, shared.key]
    return struct.pack("!H", len(shared.names)) + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _check(rest: bytes) -> bytes:
    return blake2b(rest, digest_size=_CHECK_BYTES).digest()
