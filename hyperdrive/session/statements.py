"""Prepared statements that clients share without knowing it.

A client's name maps to a shared statement, keyed by the exact SQL bytes, the parameter type OIDs as sent and the settings in force
at Parse (W-19); a server knows it as ``_hd_<n>``. Which server has which is the server session's knowledge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from hyperdrive.sql import Verdict

NAME_BYTES: Final = 63
"""Statement names compare on their first 63 bytes (NAMEDATALEN; verified 15, 18)."""

POISON: Final = b"_hd_fail"
"""A statement that never exists: a Bind to it fails a scope on purpose."""


class SharedStatement:
    """What Parse makes, independent of who asked for it.

    ``body`` is the Parse message's content behind the name: SQL, zero, count and OIDs.
    """

    __slots__ = ("__weakref__", "body", "name", "verdict")

    def __init__(self, name: bytes, body: bytes, verdict: Verdict) -> None:
        self.name = name
        self.body = body
        self.verdict = verdict

    def parse_message(self) -> bytes:
        """The Parse message that prepares it on a server."""
        return b"P" + (len(self.name) + 5 + len(self.body)).to_bytes(4, "big") + self.name + b"\0" + self.body

    def __repr__(self) -> str:
        return f"<{self.name.decode()}>"


class StatementRegistry:
    """The shared statements of one pool. An entry lives as long as a client or a server refers to it."""

    def __init__(self) -> None:
        self._by_key: WeakValueDictionary[tuple[bytes, object], SharedStatement] = WeakValueDictionary()
        self._last = 0

    def intern(self, body: bytes, settings: object, verdict: Verdict) -> SharedStatement:
        """The shared statement for a Parse *body* under *settings* (any hashable value that stands for them)."""
        found = self._by_key.get((body, settings))
        if found is None:
            self._last += 1
            found = self._by_key[body, settings] = SharedStatement(b"_hd_%d" % self._last, body, verdict)
        return found

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(list(self._by_key.values()))
