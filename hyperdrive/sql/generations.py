"""A map bounded in bytes that forgets what has not been asked for: two generations instead of a list in order of use.

When the younger half of the bound is full it becomes the older one, and what was the older one is dropped whole; what is found
there moves to the younger. A hit in the younger half is one dict lookup and moves nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_BYTES: Final = 250
"""A key's tuple, the heads of its parts, a slot in a dict, and air."""


class Generations(Generic[K, V]):
    """Values of at most about *max_bytes*, as far as those who put them told their sizes."""

    __slots__ = ("_half_bytes", "_old", "_old_bytes", "_young_bytes", "young")

    def __init__(self, max_bytes: int) -> None:
        self._half_bytes = max_bytes // 2
        self.young: dict[K, tuple[V, int]] = {}
        self._old: dict[K, tuple[V, int]] = {}
        self._young_bytes = 0
        self._old_bytes = 0

    def get(self, key: K) -> V | None:
        """Return what was put under *key*, if it is still here."""
        found = self.young.get(key)
        return found[0] if found is not None else self.recall(key)

    def recall(self, key: K) -> V | None:
        """The same where it is known not to be in the younger half."""
        found = self._old.pop(key, None)
        if found is None:
            return None
        value, size_bytes = found
        self._old_bytes -= size_bytes
        self.put(key, value, size_bytes - ENTRY_BYTES)
        return value

    def put(self, key: K, value: V, size_bytes: int) -> None:
        """Remember *value*; what is larger than half the bound is not."""
        size_bytes += ENTRY_BYTES
        if size_bytes > self._half_bytes:
            return
        if self._young_bytes + size_bytes > self._half_bytes:
            self._old, self._old_bytes = self.young, self._young_bytes
            self.young, self._young_bytes = {}, 0
        before = self.young.get(key)
        if before is not None:
            self._young_bytes -= before[1]
        self.young[key] = (value, size_bytes)
        self._young_bytes += size_bytes

    def clear(self) -> None:
        """Forget everything."""
        self.young, self._old, self._young_bytes, self._old_bytes = {}, {}, 0, 0

    @property
    def size_bytes(self) -> int:
        """What is remembered, by the sizes told."""
        return self._young_bytes + self._old_bytes

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
