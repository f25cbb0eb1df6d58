"""Verdicts remembered by the exact bytes of their text.

A known text costs one dict lookup. Eviction is by generation: when the younger half of the bound is full it becomes the older
one, and what was the older one is dropped whole; a text found in the older half moves to the younger. That keeps what is in use,
like LRU, and moves nothing on a hit.

Texts with literals inside are new each time. Those that a look is enough for are stored on second sight only, so they do not
push out others; looking costs little more than storing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hyperdrive.sql.parse import classify, parse, unreadable
from hyperdrive.sql.verdict import UNKNOWN, Verdict

_ENTRY_BYTES: Final = 150
"""A bytes object's head, its slot in a dict, and air."""
_SIGHTS: Final = 1 << 13
_UNHURRIED_BYTES: Final = 2048
"""Parsed texts longer than this are stored on second sight too."""


class VerdictCache:
    """Verdicts of at most about *max_bytes*, shared by all sessions with ordinary encodings and literals (W-41, W-42)."""

    __slots__ = ("_half_bytes", "_old", "_sights", "_young", "_young_bytes", "misses")

    def __init__(self, max_bytes: int = 8 << 20) -> None:
        self._half_bytes = max_bytes // 2
        self._young: dict[bytes, Verdict] = {}
        self._young_bytes = 0
        self._old: dict[bytes, Verdict] = {}
        # Direct-mapped: which hash was last seen in each slot. Collisions cost a store or a look, nothing else.
        self._sights = [0] * _SIGHTS
        self.misses = 0
        """Texts that had to be looked at or parsed."""

    def classify(self, sql: bytes) -> Verdict:
        """Return the verdict of *sql*, as ``parse.classify`` would."""
        verdict = self._young.get(sql)
        if verdict is not None:
            return verdict
        verdict = self._old.get(sql)
        if verdict is None:
            self.misses += 1
            verdict = classify(sql)
            if verdict.is_screened or len(sql) > _UNHURRIED_BYTES:
                sight = hash(sql)
                slot = sight & (_SIGHTS - 1)
                if self._sights[slot] != sight:
                    self._sights[slot] = sight
                    return verdict
        self._store(sql, verdict)
        return verdict

    def reader(self, *, ascii_safe: bool = True, standard_strings: bool = True) -> Callable[[bytes], Verdict]:
        """Return what a session with such an encoding and such literals is to call instead of ``classify`` (W-41, W-42)."""
        if ascii_safe and standard_strings:
            return self.classify

        def read(sql: bytes) -> Verdict:
            reason = unreadable(sql, ascii_safe=ascii_safe, standard_strings=standard_strings)
            return self.classify(sql) if reason is None else UNKNOWN[reason]

        return read

    def parse(self, sql: bytes) -> Verdict:
        """Return the verdict of *sql* by the parser: never a screened one. Remembered from then on."""
        verdict = self.classify(sql)
        if verdict.is_screened:
            verdict = parse(sql)
            self._store(sql, verdict)
        return verdict

    def _store(self, sql: bytes, verdict: Verdict) -> None:
        size = _ENTRY_BYTES + len(sql) + verdict.size_bytes
        if size > self._half_bytes:
            return
        if self._young_bytes + size > self._half_bytes:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        self._young[sql] = verdict
        self._young_bytes += size

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old, self._young_bytes = {}, {}, 0

    @property
    def size_bytes(self) -> int:
        """An upper estimate of the memory in use."""
        return self._young_bytes + sum(_ENTRY_BYTES + len(sql) + v.size_bytes for sql, v in self._old.items())

    def __len__(self) -> int:
        """How many texts are remembered; one in both halves counts twice."""
        return len(self._young) + len(self._old)
