"""The cache of one process: its store, its switch, and the databases it knows.

A ``Database`` has the domain, the catalog and the verdicts of one database of the origin, for all its users; a ``PoolCache`` belongs to one
pool and knows the identity behind each label. Whoever serves is in ``reads``, whoever fills in ``fills``, and what writes do is in
``writes``. Knows no client.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from random import random

from hyperdrive.cache.entry import Entry
from hyperdrive.cache.fill import Fill
from hyperdrive.cache.metrics import CacheMetrics
from hyperdrive.cache.policy import Override, Policies, Policy
from hyperdrive.cache.second import SecondLevel
from hyperdrive.cache.store import Store
from hyperdrive.pool.interfaces import PoolKey
from hyperdrive.proxy.database import Announce, Database, Heard
from hyperdrive.proxy.metrics import ReadMetrics


class Mode(Enum):
    """``cache``: what the cache does at all."""

    ON = "on"
    OFF = "off"
    SHADOW = "shadow"
    """Everything but serve: answers are stored, compared with what the origin says, and counted."""


class InTransactions(Enum):
    """``cache_in_transactions`` (caching-rules §13)."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How the cache of a process behaves."""

    mode: Mode = Mode.OFF
    size_bytes: int = 256 << 20
    entry_bytes: int = 4 << 20
    policy: Policy = field(default_factory=Policy)
    tables: tuple[tuple[str, Override], ...] = ()
    in_transactions: InTransactions = InTransactions.AUTO
    refreshes: int = 8
    """Refreshes behind clients that may be under way at a time, per pool."""
    flight_seconds: float = 10.0
    """How long a client waits for another's answer before it asks for itself."""
    uses: Callable[[PoolKey], bool] = lambda key: True
    """Whether the cache has a part in what that user asks in that database."""
    knows: bool = False
    """Whether catalogs are kept even without the cache: for proofs, and for answers that only the schema can change."""


class Cache:
    """The cache of one process."""

    def __init__(self, settings: CacheSettings, now: Callable[[], float]) -> None:
        self.settings = settings
        self.now = now
        self.process = secrets.token_hex(8).encode()
        """Tells it from every other, in tokens."""
        self.chance: Callable[[], float] = random
        """Uniform in [0, 1): for jitter and early refreshes."""
        self.metrics = CacheMetrics()
        self.reads = ReadMetrics()
        self.store = Store(settings.size_bytes, settings.entry_bytes, self.metrics, now)
        self.second: SecondLevel | None = None
        """Shared with other processes; to be given before any database is asked for."""
        self.databases: dict[str, Database] = {}
        self.wanted: Callable[[Database], None] = lambda database: None
        """Told of each database that is asked for the first time: its catalog has to be loaded."""
        self.on_touch: Announce = lambda database, tags, ends_epoch: None
        """Told of every change made through this process."""
        self.on_epoch: Callable[[str], None] = lambda database: None
        """Told of each database whose catalog has changed, by whoever it was changed."""
        self.suspended: set[int] = set()
        """Workers whose writes we may not hear of: until we do again nothing is served."""
        self.vouched_until = inf
        """Until when all that others have written is known to have been heard of: from then on nothing is served."""
        self._policies = Policies(settings.policy, settings.tables)

    @property
    def is_on(self) -> bool:
        """It takes part at all."""
        return self.settings.mode is not Mode.OFF

    @property
    def keeps_catalogs(self) -> bool:
        """What the catalogs say is wanted, if only for proofs."""
        return self.is_on or self.settings.knows

    def database(self, name: str) -> Database:
        """What is known of the database *name* of the origin."""
        found = self.databases.get(name)
        if found is None:
            found = self.databases[name] = Database(
                name,
                self.metrics,
                self._policies,
                lambda *change: self.on_touch(*change),
                lambda ended: self.on_epoch(ended),
            )
            if self.second is not None:
                found.shelf = self.second.shelf(found.domain)
            if self.keeps_catalogs:
                self.wanted(found)
        return found

    def end_epochs(self, *, is_ours: bool = True) -> Heard | None:
        """Something changed that all databases have in common, such as a role. Returns what ``Database.touch`` does."""
        for database in list(self.databases.values()):
            database.touch(None, ends_epoch=True, is_ours=False)
        return self.on_touch(None, None, True) if is_ours else None

    def change(self, settings: CacheSettings) -> None:
        """RELOAD, or the kill switch: entries were dated by the old policies, so a change of those drops them."""
        before, self.settings = self.settings, settings
        if self.second is not None and not self.is_on:
            self.second.forget()  # writes are not noted any more
        self.store.resize(settings.size_bytes, settings.entry_bytes)
        if (before.policy, before.tables, before.mode) != (settings.policy, settings.tables, settings.mode):
            self._policies = Policies(settings.policy, settings.tables)
            for database in self.databases.values():
                database.policies = self._policies
                database.domain.touch_all()
            self.store.purge(lambda entry: True)
        if self.keeps_catalogs and before.mode is Mode.OFF and not before.knows:
            for database in self.databases.values():
                self.wanted(database)

    def keep_below(self, fill: Fill, entry: Entry) -> None:
        """*entry*, which *fill* has brought, is for others as well, if it noted what that takes."""
        if fill.shared is not None and fill.space.domain.below is not None:
            shelf = self.databases[fill.space.domain.name].shelf
            if shelf is not None:
                shelf.keep(fill, entry)

    # --- purge ----------------------------------------------------------------------------------------------------------------

    def purge(self, wanted: Callable[[Entry], bool]) -> int:
        """Drop each entry that is *wanted*, and store nothing that is under way; returns how many were dropped."""
        for database in self.databases.values():
            database.domain.doom()
        return self.store.purge(wanted)
