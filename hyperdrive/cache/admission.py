"""Who gets in while memory is short or nothing is ever asked for twice: what was asked for before.

A scan, or a program that writes its values into its texts, asks for each key once. Capturing and storing those costs time and
pushes out what is hot. Knows hashes and counts only.
"""

from __future__ import annotations

from array import array
from typing import Final

_SLOTS: Final = 1 << 15
_WINDOW: Final = 512
"""Misses between two looks at what storing is good for."""
_USEFUL: Final = 16
"""With fewer than one hit for so many misses, a key has to be asked for twice."""


class Doorkeeper:
    """Remembers, in 256 KiB, the hashes that were seen last. A collision costs a miss or stores an entry too many, nothing else."""

    __slots__ = ("_hits_then", "_misses", "_seen", "is_strict")

    def __init__(self) -> None:
        self._seen = array("q", [0]) * _SLOTS
        self._misses = 0
        self._hits_then = 0
        self.is_strict = False
        """Hardly anything is asked for twice of late."""

    def saw(self, key_hash: int) -> bool:
        """Whether *key_hash* was seen before, as far as is remembered; from now on it was."""
        slot = key_hash & (_SLOTS - 1)
        if self._seen[slot] == key_hash:
            return True
        self._seen[slot] = key_hash
        return False

    def turns_away(self, key_hash: int) -> bool:
        """One more miss, of a *key_hash* never seen before. ``False``: it was, or a window ends here, and nothing has happened."""
        slot = key_hash & (_SLOTS - 1)
        if self._seen[slot] == key_hash or self._misses == _WINDOW - 1:
            return False
        self._seen[slot] = key_hash
        self._misses += 1
        return True

    def missed(self, hits: int) -> None:
        """One more miss; *hits* are counted from the start."""
        self._misses += 1
        if self._misses == _WINDOW:
            self.is_strict = (hits - self._hits_then) * _USEFUL < _WINDOW
            self._misses = 0
            self._hits_then = hits
