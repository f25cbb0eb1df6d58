"""One database of the origin, as the cache sees it: its domain, its catalog, and the verdicts that follow from it.

Whoever serves is in ``reads``, the store in ``cache``, and who the sessions are in ``pool_cache``. Knows catalogs, texts and domains; knows
no client and no server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from hyperdrive.cache.entry import Shape
from hyperdrive.cache.metrics import CacheMetrics
from hyperdrive.cache.policy import Policies
from hyperdrive.cache.second import Shelf
from hyperdrive.cache.tags import Domain
from hyperdrive.proxy.identity import Identity
from hyperdrive.sql.introspection import Asked, introspected, is_postgres_own, may_be_introspection
from hyperdrive.sql.parse import classify
from hyperdrive.sql.readers import ReadVerdicts, WriteVerdicts
from hyperdrive.sql.rules import Refused, Rule
from hyperdrive.sql.writes import Writes

if TYPE_CHECKING:
    from hyperdrive.sql.catalog import Catalog
    from hyperdrive.sql.resolve import Cacheable

log = logging.getLogger("hyperdrive.cache")

SHAPES: Final = 2000
"""Shapes of statements that are counted apart, per database; the oldest makes room."""
KNOWN: Final = 2000
"""Texts of which is remembered whether only the schema can change their answer, per database."""


class Heard:
    """A change that others have to hear of before anyone is told that it is done."""

    __slots__ = ()

    def when_heard(self, then: Callable[[], None]) -> None:
        """Have *then* called when they have; at once, if they have already."""
        then()


class Database:
    """One database of the origin, as the cache sees it. Its epoch is the domain's."""

    __slots__ = (
        "_announce",
        "_changed",
        "_doubted",
        "_epoch_ended",
        "_known",
        "_reads",
        "_writes",
        "catalog",
        "domain",
        "name",
        "origin",
        "policies",
        "shapes",
        "shelf",
        "why_unknown",
    )

    def __init__(
        self,
        name: str,
        metrics: CacheMetrics,
        policies: Policies,
        announce: Announce,
        epoch_ended: Callable[[str], None],
    ) -> None:
        self.name = name
        self._announce = announce
        self._epoch_ended = epoch_ended
        self.domain = Domain(name, metrics)
        self.policies = policies
        self.catalog: Catalog | None = None
        self.origin = b""
        """Fields 1 and 2 of the key: system identifier, timeline, database."""
        self.why_unknown = "the catalog is not loaded yet"
        self._reads = ReadVerdicts()
        self._writes = WriteVerdicts()
        self._known: LRUCache[bytes, Asked | None] = LRUCache(KNOWN)
        """Texts that only the schema can change, if their names mean what PostgreSQL brings; ``None``: others."""
        self.shapes: dict[int, Shape] = {}
        self.shelf: Shelf | None = None
        """Its part in the second level, if there is one."""
        self._changed: Callable[[], None] = lambda: None
        self._doubted: Callable[[], None] = lambda: None

    # --- the catalog ----------------------------------------------------------------------------------------------------------

    def learn(self, catalog: Catalog | None) -> None:
        """*catalog* holds from now on, for the present epoch; ``None``: nothing is known, and what was stored is dropped."""
        if catalog is None:
            self.forget("the catalog is not known" if self.catalog is not None else self.why_unknown)
            return
        identity = catalog.identity
        if identity.in_recovery:
            self.forget("the origin is in recovery")
            return
        self.origin = b"%d,%d,%d" % (identity.system_identifier, identity.timeline, identity.database)
        self.catalog = catalog
        if self.shelf is not None:
            # Whoever sees another catalog may mean something else by the same question: rights, views, functions.
            self.shelf.label(self.origin, catalog.fingerprint.encode())
        self._reads.use(catalog)
        self._writes.use(catalog)

    def forget(self, why: str) -> None:
        """Nothing is known of the database any more, and what was stored is dropped."""
        self.why_unknown = why
        if self.catalog is not None:
            self._end_epoch()

    def _end_epoch(self) -> None:
        self.catalog = None
        self._reads.use(None)
        self._writes.use(None)
        self.domain.end_epoch()
        self._epoch_ended(self.name)

    def watch(self, changed: Callable[[], None], doubted: Callable[[], None]) -> None:
        """Have *changed* called when the epoch ends, so that the catalog is loaded anew, and *doubted* when it may have."""
        self._changed = changed
        self._doubted = doubted

    def judge(self, text: bytes, identity: Identity, types: tuple[int, ...]) -> Cacheable | Refused:
        """The verdict of *text*, which has no comments, for whoever has that identity."""
        catalog = self.catalog
        if catalog is None:
            return Refused(Rule.ORIGIN_UNKNOWN, self.why_unknown)
        return self._reads.read(text, identity.path, types)

    def is_known(self, text: bytes) -> bool:
        """Whether only the schema can change what *text*, which has no comments, answers (E-8)."""
        if not may_be_introspection(text):
            return False
        if text in self._known:
            asked = self._known[text]
        else:
            asked = self._known[text] = introspected(text, classify(text))
        # What is a user's, and called like something of PostgreSQL's or like a column, may be anything.
        return asked is not None and (self.catalog is None or is_postgres_own(asked, self.catalog))

    def is_builtin(self, function: str) -> bool:
        """Whether every *function* of that name is PostgreSQL's own."""
        meant = self.catalog.functions.get(function, ()) if self.catalog is not None else ()
        return bool(meant) and all(one.is_builtin for one in meant)

    def are_pure(self, functions: Sequence[bytes]) -> bool:
        """Whether functions of these names, with a schema or without, are IMMUTABLE, whichever is meant."""
        if self.catalog is None:
            return False
        for name in functions:
            meant = self.catalog.functions.get(name.decode(errors="replace").rpartition(".")[2], ())
            if not meant or any(function.volatility != "i" for function in meant):
                return False
        return True

    def written(self, text: bytes, path: tuple[int, ...] | None) -> Writes:
        """What *text* may change, run under *path*; ``None``: nobody knows under which."""
        return self._writes.targets(text, path)

    def shape_of(self, verdict: Cacheable | Refused, text: bytes) -> Shape:
        """What is counted of statements with that *verdict*, which those of one shape share; *text* is one of them."""
        found = self.shapes.get(id(verdict))
        if found is None:
            if len(self.shapes) >= SHAPES:
                del self.shapes[next(iter(self.shapes))]
            found = self.shapes[id(verdict)] = Shape(text)
            found.note = verdict  # and while it is here nobody else has its id
        return found

    # --- changes --------------------------------------------------------------------------------------------------------------

    def touch(self, tags: frozenset[int] | None, *, ends_epoch: bool = False, is_ours: bool = True) -> Heard | None:
        """*tags* have changed, ``None`` is anything; *is_ours*: by a write through this process, so that the others must hear of it.

        Returns what to wait for before anyone is told, if there is somebody else who must hear.
        """
        if ends_epoch:
            self.why_unknown = "the catalog is loaded anew after a change"
            self._end_epoch()
            self._changed()
        elif tags is None:
            self.domain.touch_all()
            self._doubted()  # the schema, for all we know
        elif tags:
            self.domain.touch(tags)
        else:
            return None
        return self._announce(self, tags, ends_epoch) if is_ours else None


Announce = Callable[["Database | None", "frozenset[int] | None", bool], "Heard | None"]
"""Told of a change: of which database (``None``: of all), of what (``None``: unknown), and whether the epoch ends."""
