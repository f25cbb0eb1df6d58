"""Verdicts remembered by the exact bytes of their text, and by its *fold*, in which every digit is a zero.

A known text costs one dict lookup, one whose fold is known two. Eviction is by generation: when the younger half of the bound is
full it becomes the older one, and what was the older one is dropped whole; a text found in the older half moves to the younger.
That keeps what is in use, like LRU, and moves nothing on a hit.

Texts with literals inside are new each time, but most differ in digits only. A fold stands for its texts if the screen passes the
fold itself: nothing it looks for has a digit in it, and no word that it lets precede a parenthesis is a fold of another one, so
what holds of the fold holds of each of them (``md5(x)`` folds to ``md0(x)``, which is no function of PostgreSQL, and is looked at
each time). Texts and folds that a look is enough for are stored on second sight only, so they do not push out others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hyperdrive.sql.parse import classify, parse, unreadable
from hyperdrive.sql.screen import screen
from hyperdrive.sql.verdict import UNKNOWN, Verdict

_ENTRY_BYTES: Final = 150
"""A bytes object's head, its slot in a dict, and air."""
_SIGHTS: Final = 1 << 13
_UNHURRIED_BYTES: Final = 2048
"""Parsed texts longer than this are stored on second sight too, and screened ones are not folded."""

FOLD: Final = bytes.maketrans(b"123456789", b"000000000")


class Memory:
    """Verdicts by bytes, of at most about *max_bytes*, in two generations. ``young`` may be read by anybody."""

    __slots__ = ("_half_bytes", "_old", "_young_bytes", "young")

    def __init__(self, max_bytes: int) -> None:
        self._half_bytes = max_bytes // 2
        self.clear()

    def clear(self) -> None:
        self.young: dict[bytes, Verdict] = {}
        self._old: dict[bytes, Verdict] = {}
        self._young_bytes = 0

    def store(self, key: bytes, verdict: Verdict) -> None:
        size = _ENTRY_BYTES + len(key) + verdict.size_bytes
        if size > self._half_bytes:
            return
        if self._young_bytes + size > self._half_bytes:
            self._old, self.young, self._young_bytes = self.young, {}, 0
        self.young[key] = verdict
        self._young_bytes += size

    def recall(self, key: bytes) -> Verdict | None:
        """Look in the older half, and keep what is found there."""
        verdict = self._old.get(key)
        if verdict is not None:
            self.store(key, verdict)
        return verdict

    @property
    def size_bytes(self) -> int:
        return self._young_bytes + sum(_ENTRY_BYTES + len(key) + v.size_bytes for key, v in self._old.items())

    def __len__(self) -> int:
        return len(self.young) + len(self._old)


class VerdictCache:
    """Verdicts of at most about *max_bytes*, shared by all sessions with ordinary encodings and literals (W-41, W-42)."""

    __slots__ = ("_folds", "_sights", "_texts", "misses")

    def __init__(self, max_bytes: int = 8 << 20) -> None:
        self._texts = Memory(max_bytes * 3 // 4)
        self._folds = Memory(max_bytes // 4)
        # Direct-mapped: which hash was last seen in each slot. Collisions cost a store or a look, nothing else.
        self._sights = [0] * _SIGHTS
        self.misses = 0
        """Texts that had to be looked at or parsed."""

    def classify(self, sql: bytes) -> Verdict:
        """Return the verdict of *sql*, as ``parse.classify`` would."""
        verdict = self._texts.young.get(sql)
        if verdict is not None:
            return verdict
        fold = sql.translate(FOLD) if len(sql) <= _UNHURRIED_BYTES else b""
        verdict = self._folds.young.get(fold)
        if verdict is not None:
            return verdict
        return self._texts.recall(sql) or self._folds.recall(fold) or self._judge(sql, fold)

    def _judge(self, sql: bytes, fold: bytes) -> Verdict:
        self.misses += 1
        verdict = classify(sql)
        if not verdict.is_screened:
            if len(sql) <= _UNHURRIED_BYTES or self._was_seen(sql):
                self._texts.store(sql, verdict)
        elif fold and screen(fold) is verdict:
            if self._was_seen(fold):
                self._folds.store(fold, verdict)
        elif self._was_seen(sql):
            self._texts.store(sql, verdict)
        return verdict

    def _was_seen(self, key: bytes) -> bool:
        sight = hash(key)
        slot = sight & (_SIGHTS - 1)
        before, self._sights[slot] = self._sights[slot], sight
        return before == sight

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
            self._texts.store(sql, verdict)
        return verdict

    def clear(self) -> None:
        """Forget everything."""
        self._texts.clear()
        self._folds.clear()

    @property
    def size_bytes(self) -> int:
        """An upper estimate of the memory in use."""
        return self._texts.size_bytes + self._folds.size_bytes

    def __len__(self) -> int:
        """How many texts and folds are remembered; one in both halves counts twice."""
        return len(self._texts) + len(self._folds)
