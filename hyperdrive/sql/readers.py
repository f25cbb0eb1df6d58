"""``ReadVerdicts`` and ``WriteVerdicts``: the answers of ``analyse``, ``resolve`` and ``targets``, remembered.

One of each per database, shared by all its sessions. Three levels, so that a text costs what is new about it:

- a text known under this path and these parameter types: one dict lookup;
- a new text of a known *shape* (``shapes``), that is, with other literals: a few microseconds, less where only digits are others;
- a new shape: PostgreSQL's parser.

A shape in which no digit is left is that of every text with the same *fold*, in which digits are zeros: to ``shape`` one digit is as good
as another, so texts of one fold have shapes of one fold. Finding that is a lookup, where a shape has to be worked out.

Texts with literals inside are new each time, so what a shape answers is stored on second sight only. All of it is bounded in bytes.
What was resolved ends with the catalog's epoch; what the text alone says stays.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from hyperdrive.sql.cache import FOLD
from hyperdrive.sql.catalog import Catalog, Identity, build
from hyperdrive.sql.generations import Generations
from hyperdrive.sql.reading import Reading
from hyperdrive.sql.reads import MAX_READ_BYTES, analyse
from hyperdrive.sql.resolve import Cacheable, resolve
from hyperdrive.sql.rules import Refused, Rule
from hyperdrive.sql.screen import without_outer_comment
from hyperdrive.sql.shapes import folded, may_hold_clock_word, shape
from hyperdrive.sql.writes import Writes, targets

Path: TypeAlias = tuple[int, ...]
Types: TypeAlias = tuple[int, ...]

NO_CATALOG: Final = Refused(Rule.ORIGIN_UNKNOWN, "the catalog is not loaded yet")
_EMPTY: Final = build({}, Identity(0, 0, 0, 0), epoch=0)
_SIGHTS: Final = 1 << 12
_LONG: Final = 1000
"""Shapes of writes that are longer may be lists of rows, each time of another length."""
_DIGIT: Final = re.compile("[0-9]")
_END: Final = b"; \t\r\n\f"
_REFUSED_BYTES: Final = 300
_CACHEABLE_BYTES: Final = 400


class _Sights:
    """Which texts have been seen lately. Direct-mapped by hash: a collision costs a store too many or too few."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots = [0] * _SIGHTS

    def is_second(self, sight: int) -> bool:
        slot = sight & (_SIGHTS - 1)
        if self._slots[slot] == sight:
            return True
        self._slots[slot] = sight
        return False


class ReadVerdicts:
    """May this text be cached, and on what does it depend? At most about *max_bytes* of answers."""

    __slots__ = ("_catalog", "_folds", "_known", "_readings", "_shapes", "_sights", "parsed", "shared")

    def __init__(self, max_bytes: int = 8 << 20) -> None:
        self._catalog: Catalog | None = None
        self._known: Generations[tuple[bytes, Path, Types], Cacheable | Refused] = Generations(max_bytes // 2)
        self._shapes: Generations[tuple[str, Path, Types], Cacheable | Refused] = Generations(max_bytes // 8)
        self._folds: Generations[tuple[bytes, Path, Types], Cacheable | Refused] = Generations(max_bytes // 8)
        self._readings: Generations[str | bytes, Reading | Refused] = Generations(max_bytes // 4)
        self._sights = _Sights()
        self.parsed = 0
        """Texts that had to be parsed."""
        self.shared = 0
        """Texts that were new, and judged by their shape."""

    @property
    def catalog(self) -> Catalog | None:
        """By which the answers are given; ``None``: everything is refused with ``origin-unknown``."""
        return self._catalog

    def use(self, catalog: Catalog | None) -> None:
        """Judge by *catalog* from now on; what was decided by another is void."""
        if catalog is not self._catalog:
            self._catalog = catalog
            self._known.clear()
            self._shapes.clear()
            self._folds.clear()

    def read(self, sql: bytes, path: Path, types: Types = ()) -> Cacheable | Refused:
        """Return whether the text *sql* may be cached under the effective search path *path* and Parse's OIDs *types*.

        *path* is ``catalog.path(…)`` of the same catalog. The caller has seen to encoding and literals (rules ``encoding`` and
        ``strings``). A known text costs well under a microsecond.
        """
        key = (sql, path, types)
        found = self._known.young.get(key)
        return found[0] if found is not None else self._unseen(key)

    def _unseen(self, key: tuple[bytes, Path, Types]) -> Cacheable | Refused:
        known = self._known.recall(key)
        if known is not None:
            return known
        catalog = self._catalog
        if catalog is None:
            return NO_CATALOG
        sql, path, types = key
        if len(sql) > MAX_READ_BYTES:
            verdict = analyse(sql)
            assert isinstance(verdict, Refused)
            return verdict
        # What strings say is another each time, and comments are taken out before a shape is looked for.
        fold = sql.translate(FOLD) if b"'" not in sql and b"/*" not in sql else None
        if fold is not None:
            shared = self._folds.get((fold, path, types))
            if shared is not None:
                return self._share(key, shared)
        # A clock word decides by what a literal says, so such a text shares nothing.
        form = None if b"'" in sql and may_hold_clock_word(sql) else _form(sql)
        if form is None:
            answer = self._resolve(sql, sql, catalog, path, types)
            self._remember(key, answer)
            return answer
        shared = self._shapes.get((form, path, types))
        if shared is None:
            shared = self._resolve(form, sql, catalog, path, types)
            self._shapes.put((form, path, types), shared, len(form) + _size(shared))
            return shared
        if fold is not None and self._sights.is_second(hash(fold)) and _DIGIT.search(form) is None:
            self._folds.put((fold, path, types), shared, len(fold))
        return self._share(key, shared)

    def _share(self, key: tuple[bytes, Path, Types], shared: Cacheable | Refused) -> Cacheable | Refused:
        """*shared* is the answer to a new text, since it is that to others of its shape."""
        self.shared += 1
        if self._sights.is_second(hash(key[0])):
            self._remember(key, shared)
        return shared

    def _resolve(
        self, known_as: str | bytes, sql: bytes, catalog: Catalog, path: Path, types: Types
    ) -> Cacheable | Refused:
        reading = self._readings.get(known_as)
        if reading is None:
            self.parsed += 1
            reading = analyse(sql)
            size = reading.size_bytes if isinstance(reading, Reading) else _REFUSED_BYTES
            self._readings.put(known_as, reading, len(known_as) + size)
        return reading if isinstance(reading, Refused) else resolve(reading, catalog, path, types)

    def _remember(self, key: tuple[bytes, Path, Types], answer: Cacheable | Refused) -> None:
        self._known.put(key, answer, len(key[0]) + 8 * (len(key[1]) + len(key[2])) + _size(answer))

    @property
    def size_bytes(self) -> int:
        """An estimate of the memory in use."""
        return self._known.size_bytes + self._shapes.size_bytes + self._folds.size_bytes + self._readings.size_bytes

    def __len__(self) -> int:
        """How many texts and shapes are known."""
        return len(self._known) + len(self._shapes)


def _form(sql: bytes) -> str | None:
    """The shape of *sql*, without the one comment that tools append or prepend."""
    form = shape(sql)
    if form is None and b"/*" in sql:
        rest = without_outer_comment(sql.strip(_END))
        return None if rest is None else shape(rest)
    return form


def _size(answer: Cacheable | Refused) -> int:
    if isinstance(answer, Refused):
        return _REFUSED_BYTES + len(answer.object)
    return _CACHEABLE_BYTES + 40 * len(answer.tags) + 60 * len(answer.names)


class WriteVerdicts:
    """What may this text change? At most about *max_bytes* of answers."""

    __slots__ = ("_catalog", "_known", "_shapes", "_sights", "parsed")

    def __init__(self, max_bytes: int = 4 << 20) -> None:
        self._catalog: Catalog | None = None
        self._known: Generations[tuple[bytes, Path], Writes] = Generations(max_bytes // 2)
        self._shapes: Generations[tuple[str, Path], Writes] = Generations(max_bytes // 2)
        self._sights = _Sights()
        self.parsed = 0
        """Texts that had to be parsed."""

    def use(self, catalog: Catalog | None) -> None:
        """Judge by *catalog* from now on; ``None``: every write is unknown."""
        if catalog is not self._catalog:
            self._catalog = catalog
            self._known.clear()
            self._shapes.clear()

    def targets(self, sql: bytes, path: Path | None) -> Writes:
        """Return what *sql* may change under the effective search path *path*; an unknown path makes it an unknown write.

        Without a catalog, or without a path, nothing is known but whether the epoch ends.
        """
        key = (sql, path or ())
        found = self._known.young.get(key)
        return found[0] if found is not None else self._unseen(key)

    def _unseen(self, key: tuple[bytes, Path]) -> Writes:
        known = self._known.recall(key)
        if known is not None:
            return known
        sql, path = key
        # Without a path no name means anything, as without a catalog: what does not depend on names is known all the same.
        catalog = self._catalog if path and self._catalog is not None else _EMPTY
        form = _form(sql)
        if form is not None and len(form) > _LONG:
            form = folded(form)
        if form is None:
            self.parsed += 1
            answer = targets(sql, catalog, path)
            self._known.put(key, answer, len(sql) + _REFUSED_BYTES)
            return answer
        shared = self._shapes.get((form, path))
        if shared is None:
            self.parsed += 1
            shared = targets(sql, catalog, path)
            if shared.is_literal:
                self._known.put(key, shared, len(sql) + _REFUSED_BYTES)
            else:
                self._shapes.put((form, path), shared, len(form) + _REFUSED_BYTES)
        elif self._sights.is_second(hash(sql)):
            self._known.put(key, shared, len(sql) + _REFUSED_BYTES)
        return shared
