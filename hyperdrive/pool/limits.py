"""Limits that pools share: all servers together, those of a database, those of a user.

Counts servers from the moment their connect starts. When a limit is full, a pool with clients waiting gets the place of
another pool's longest idle server; failing that it is *hungry*, and pools give up a server when it comes back to them.
Knows counters and its members by the questions of ``Member``; knows no server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from hyperdrive.pool.interfaces import PoolKey

#: A pool with a queue of its own gives a server to a hungrier one only after that has waited so long: each exchange costs
#: a login, which at an ocean's distance is about as long.
PATIENCE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """The shared limits; 0 is none. PgBouncer's max_db_connections and max_user_connections, unlimited as there."""

    # No precedent in PgBouncer. PostgreSQL's own max_connections is 100, and a proxy should not be able to use it up.
    total: int = 0
    per_database: int = 0
    per_user: int = 0
    #: exceptions by name
    databases: Mapping[str, int] = field(default_factory=dict)
    users: Mapping[str, int] = field(default_factory=dict)


class Member(Protocol):
    """What the limits ask of a pool."""

    key: PoolKey

    def share_counts(self) -> tuple[int, float]:
        """Servers open or being opened, and since when its first client waits (``inf``: nobody does)."""

    def idle_since(self, *, keep_minimum: bool) -> float:
        """Last use of its longest idle server; ``inf`` if it has none to give."""

    def give(self) -> None:
        """Close that server; the place is taken over by the asker, so do not open another yet."""

    def grow(self) -> None:
        """There may be room again."""

    def attend(self, hungry: bool) -> None:
        """Call ``make_way`` whenever a server comes back, while *hungry*."""


Scope = tuple[str, str]


class Limits:
    """The counters of one proxy, and the pools that live under them."""

    def __init__(self, settings: LimitSettings | None = None, *, now: Callable[[], float]) -> None:
        self.settings = settings or LimitSettings()
        self._now = now
        self._used: dict[Scope, int] = {}
        self._members: dict[Member, None] = {}
        self._hungry: dict[Member, None] = {}  # in the order in which they came to be so
        self._feeding = False

    def join(self, member: Member) -> None:
        """Take part; needed before the first ``take``."""
        self._members[member] = None

    def leave(self, member: Member) -> None:
        """Take part no longer. Its servers must be given back before or after."""
        self._members.pop(member, None)
        self.satisfied(member)

    def change(self, settings: LimitSettings) -> None:
        """Use other limits from now on. Nothing is closed because of them; places come free as servers go."""
        self.settings = settings
        self.feed()

    def used(self, scope: Scope = ("total", "")) -> int:
        """Servers counted under *scope*: ``("total", "")``, ``("database", name)`` or ``("user", name)``."""
        return self._used.get(scope, 0)

    def room(self, key: PoolKey) -> float:
        """How many more servers *key* may open; ``inf`` without a limit."""
        return max(0.0, min(limit - self.used(scope) for scope, limit in self._limits(key)))

    def take(self, key: PoolKey, count: int = 1) -> None:
        """Count *count* servers that are about to be opened."""
        for scope, _ in self._limits(key):
            self._used[scope] = self._used.get(scope, 0) + count

    def give_back(self, key: PoolKey) -> None:
        """Count one server less, and let hungry pools have the place."""
        self.give_back_quietly(key)
        self.feed()

    def give_back_quietly(self, key: PoolKey) -> None:
        """Count one server less; the caller uses the place himself."""
        for scope, _ in self._limits(key):
            left = self._used[scope] - 1
            if left:
                self._used[scope] = left
            else:
                del self._used[scope]

    def make_room(self, member: Member) -> bool:
        """Close other pools' longest idle servers until *member*, whose clients wait, may open one more.

        Minimums are kept, unless *member* has no server at all: a warm spare is worth less than a client that is stuck.
        """
        key = member.key
        desperate = member.share_counts()[0] == 0
        while full := {scope for scope, limit in self._limits(key) if self.used(scope) >= limit}:
            victim = self._longest_idle(member, full, keep_minimum=True)
            if victim is None and desperate:
                victim = self._longest_idle(member, full, keep_minimum=False)
            if victim is None:
                return False
            victim.give()
        return True

    def hungry(self, member: Member) -> None:
        """*member* has clients waiting, and no room: it is told when there is some."""
        if member not in self._hungry:
            self._hungry[member] = None
            self._tell()

    def satisfied(self, member: Member) -> None:
        """*member* needs nothing any more."""
        if member in self._hungry:
            del self._hungry[member]
            self._tell()

    def feed(self) -> None:
        """Let hungry pools use what room there is: those with the fewest servers first, then first come first served."""
        if self._feeding:  # a pool that grows may close and so come back here
            return
        self._feeding = True
        try:
            for member in sorted(self._hungry, key=lambda member: member.share_counts()[0]):
                if self.room(member.key) > 0:
                    member.grow()
        finally:
            self._feeding = False

    def make_way(self, member: Member) -> None:
        """A server has just come back to *member*: it may have to close one for the sake of a hungry pool."""
        if self._must_give(member):
            member.give()
            if member in self._hungry:  # to the end of the queue, or the place would come straight back
                self._hungry[member] = self._hungry.pop(member)
            self.feed()

    def _must_give(self, member: Member) -> bool:
        """Whether some pool needs the place more.

        A pool without a queue gives what is above its minimum. One with a queue gives what is above its fair share of the
        limit, after some patience; so saturated pools end up equal, and then stop exchanging.
        """
        own, own_since = member.share_counts()
        for other in self._hungry:
            if other is member:
                continue
            shared = [(scope, limit) for scope, limit in self._limits(other.key) if self._covers(scope, member.key)]
            full = [(scope, limit) for scope, limit in shared if self.used(scope) >= limit]
            if not full:
                continue
            theirs, since = other.share_counts()
            if own_since == inf:
                if member.idle_since(keep_minimum=theirs > 0) < inf:
                    return True
                continue
            for scope, limit in full:
                fair = int(limit) // max(1, self._contenders(scope))
                if own > fair and (theirs < fair or not theirs) and self._now() - since >= PATIENCE_SECONDS:
                    return True
        return False

    def _limits(self, key: PoolKey) -> list[tuple[Scope, float]]:
        settings = self.settings
        return [
            (("total", ""), settings.total or inf),
            (("database", key.database), settings.databases.get(key.database, settings.per_database) or inf),
            (("user", key.user), settings.users.get(key.user, settings.per_user) or inf),
        ]

    @staticmethod
    def _covers(scope: Scope, key: PoolKey) -> bool:
        kind, name = scope
        return kind == "total" or name == (key.database if kind == "database" else key.user)

    def _longest_idle(self, asker: Member, full: set[Scope], *, keep_minimum: bool) -> Member | None:
        """The pool to take from: one that helps with most of the full limits, then the one idle for longest."""
        best: Member | None = None
        best_rank = (0, -inf)
        for member in self._members:
            helps = sum(self._covers(scope, member.key) for scope in full)
            if member is asker or not helps:
                continue
            since = member.idle_since(keep_minimum=keep_minimum)
            if since < inf and (helps, -since) > best_rank:
                best, best_rank = member, (helps, -since)
        return best

    def _contenders(self, scope: Scope) -> int:
        """Pools under *scope* that have servers or want some."""
        members = (member for member in self._members if self._covers(scope, member.key))
        return sum(1 for member in members if member in self._hungry or member.share_counts()[0])

    def _tell(self) -> None:
        for member in self._members:
            member.attend(bool(self._hungry))
