"""How old an answer may be: per origin, per table pattern, per hint and per session; the strictest wins.

Ages count from the moment the fill was sent. Knows names only as texts to match, and numbers; nothing of SQL.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hyperdrive.cache.entry import Entry

JITTER: Final = 0.2
"""Entries stored together expire apart: between 80 % and 100 % of ``max_age``. That is ±10 % around the mean, and never later than
what the user was promised."""

XFETCH_BETA: Final = 1.0
_XFETCH_REACH: Final = 10.0
"""An early refresh that far ahead, in costs, has a chance of one in 20,000; before it nobody draws lots."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for one read, in seconds. Defaults are those of Cloudflare's Hyperdrive (query caching, 60 s and 15 s)."""

    max_age: float = 60.0
    stale_while_revalidate: float = 15.0
    stale_if_error: float = 0.0
    """How long behind ``max_age`` an entry may serve while the origin cannot be reached."""
    is_cached: bool = True

    def and_(self, other: Override) -> Policy:
        """What *other* says instead, where it says anything."""
        return replace(
            self,
            max_age=self.max_age if other.max_age is None else other.max_age,
            stale_while_revalidate=(
                self.stale_while_revalidate if other.stale_while_revalidate is None else other.stale_while_revalidate
            ),
            stale_if_error=self.stale_if_error if other.stale_if_error is None else other.stale_if_error,
            is_cached=self.is_cached and other.is_cached is not False,
        )

    def strictest(self, other: Policy) -> Policy:
        """What satisfies both."""
        return Policy(
            min(self.max_age, other.max_age),
            min(self.stale_while_revalidate, other.stale_while_revalidate),
            min(self.stale_if_error, other.stale_if_error),
            self.is_cached and other.is_cached,
        )

    def date(self, entry: Entry, cost_seconds: float, chance: float) -> None:
        """Give *entry* its times. *chance* is uniform in [0, 1): the jitter."""
        sent_at = entry.sent_at
        entry.cost_seconds = cost_seconds
        entry.fresh_until = sent_at + self.max_age * (1.0 - JITTER * chance)
        entry.early_from = max(sent_at, entry.fresh_until - _XFETCH_REACH * XFETCH_BETA * cost_seconds)
        entry.stale_until = sent_at + self.max_age + self.stale_while_revalidate
        entry.error_until = max(entry.stale_until, sent_at + self.max_age + self.stale_if_error)


@dataclass(frozen=True, slots=True)
class Override:
    """What a pattern, a hint or a session says; ``None`` is nothing."""

    max_age: float | None = None
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    is_cached: bool | None = None

    def under(self, other: Override) -> Override:
        """This, and what *other* says goes before it; a ban of either holds."""
        return Override(
            self.max_age if other.max_age is None else other.max_age,
            self.stale_while_revalidate if other.stale_while_revalidate is None else other.stale_while_revalidate,
            self.stale_if_error if other.stale_if_error is None else other.stale_if_error,
            False if self.is_cached is False or other.is_cached is False else other.is_cached or self.is_cached,
        )


class Policies:
    """The policy of a read by the names of what it reads. Patterns are shell-style (``public.log_*``), the first that matches counts."""

    def __init__(self, default: Policy, patterns: Iterable[tuple[str, Override]] = ()) -> None:
        self.default = default
        self._patterns = tuple(patterns)
        # Verdicts are remembered with their names, so few sets of names are asked for again and again.
        self.of = lru_cache(4096)(self._of)

    def _of(self, names: tuple[str, ...]) -> Policy:
        """What holds for a read of all *names*: the strictest of each."""
        found: Policy | None = None
        for name in names:
            one = self._of_one(name)
            found = one if found is None else found.strictest(one)
        return found or self.default

    def _of_one(self, name: str) -> Policy:
        for pattern, override in self._patterns:
            if fnmatchcase(name, pattern):
                return self.default.and_(override)
        return self.default
