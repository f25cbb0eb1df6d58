"""The type audit: may values of this type be read from a cache at all (caching rules §7.2)?

A type that passes brings no user code along: no output function, no implicit cast, no operator class, no domain check that a text
would not betray. Knows the catalog; the functions of domain checks are judged by ``resolve``, which hands in how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hyperdrive.sql.catalog import FIRST_OWN_OID, PG_CATALOG, Cast, Catalog, Type
from hyperdrive.sql.lists import NEVER_TYPES
from hyperdrive.sql.reading import Reading
from hyperdrive.sql.rules import Refused, Rule

JudgeCheck = Callable[[Reading], Refused | None]

UNKNOWN_TYPE: Final = 705
"""OID of the pseudo-type unknown, and what a client that leaves the type to the server may say instead of 0."""
_MAX_DEPTH: Final = 20


class TypeAudit:
    """Verdicts on types under one catalog, remembered. *judge_check* says what is wrong with a domain's CHECK."""

    __slots__ = ("_catalog", "_clock", "_judge_check", "_passed", "_strings")

    def __init__(self, catalog: Catalog, judge_check: JudgeCheck) -> None:
        self._catalog = catalog
        self._judge_check = judge_check
        self._passed: dict[int, Refused | None] = {}
        self._clock: dict[int, bool] = {}
        self._strings: dict[int, bool] = {}

    def refusal(self, oid: int) -> Refused | None:
        """Why values of the type *oid* must not be cached; ``None``: they may."""
        if oid in self._passed:
            return self._passed[oid]
        self._passed[oid] = None  # a composite type may contain an array of itself
        found = self._passed[oid] = self._audit(oid)
        return found

    def _audit(self, oid: int) -> Refused | None:
        type_ = self._catalog.types.get(oid)
        if type_ is None:
            return Refused(Rule.TYPE, f"type {oid}", "it is not in the catalog")
        name = self._catalog.qualified(type_)
        for cast in self._catalog.casts_by_type.get(oid, ()):
            if self._concerns(cast, oid) and not self._is_harmless(cast):
                return Refused(Rule.CAST, self._cast_name(cast), "mark its function IMMUTABLE, if it is")
        if oid in self._catalog.operator_classes and not self._is_declared(type_):
            return Refused(
                Rule.OPERATOR,
                f"operator class of {name}",
                f'cache_types = ["{name}"], if its functions are known to be harmless',
            )
        if type_.schema == PG_CATALOG and oid < FIRST_OWN_OID and type_.kind != "c":
            base = self._catalog.types.get(type_.element, type_).name if type_.element else type_.name
            if base in NEVER_TYPES or (base.startswith("reg") and base != "regconfig"):
                return Refused(Rule.TYPE, name, _HINTS.get(base, ""))
            return None  # regconfig: text search configurations are part of the epoch, and views name them so
        if self._is_declared(type_):
            return None
        return self._audit_own(type_, name)

    def _audit_own(self, type_: Type, name: str) -> Refused | None:
        if type_.element:
            return self.refusal(type_.element)
        match type_.kind:
            case "e":
                return None
            case "r" | "m":
                subtype, canonical = self._catalog.ranges.get(type_.oid, (0, 0))
                if canonical >= FIRST_OWN_OID or not subtype:
                    return Refused(Rule.TYPE, name)
                return self.refusal(subtype)
            case "c":
                return self._audit_row(type_)
            case "d":
                return self._audit_domain(type_, name)
            case _:
                return Refused(Rule.TYPE, name, f'cache_types = ["{name}"], if its functions are known to be harmless')

    def _audit_row(self, type_: Type) -> Refused | None:
        columns = self._catalog.columns.get(type_.relation, {})
        if not columns and type_.schema == PG_CATALOG:
            return Refused(Rule.TYPE, type_.name)
        return next((found for column in columns.values() if (found := self.refusal(column)) is not None), None)

    def _audit_domain(self, type_: Type, name: str) -> Refused | None:
        for check in self._catalog.checks(type_.oid):
            found = check if isinstance(check, Refused) else self._judge_check(check)
            if found is not None:
                return Refused(Rule.TYPE, f"domain {name}", because=found)
        return self.refusal(type_.base)

    def _is_declared(self, type_: Type) -> bool:
        declared = self._catalog.declarations.types
        return type_.name in declared or self._catalog.qualified(type_) in declared

    def _is_harmless(self, cast: Cast) -> bool:
        """A cast that PostgreSQL does not bring: its function must be IMMUTABLE, and nothing may become a date through text."""
        declared = (self._catalog.types.get(cast.source), self._catalog.types.get(cast.target))
        if any(type_ is not None and self._is_declared(type_) for type_ in declared):
            return True
        if not cast.function:
            return cast.method == "b" or not self.holds_clock(cast.target)
        function = self._catalog.function_by_oid.get(cast.function)
        return (
            function is not None
            and function.volatility == "i"
            and not function.is_security_definer
            and self._catalog.declarations.trust_immutable
        )

    def _concerns(self, cast: Cast, oid: int) -> bool:
        """True if values of the type may go through the cast, without the other type's audit seeing it."""
        if cast.source == oid:
            return oid >= FIRST_OWN_OID or cast.context == "i"
        return oid >= FIRST_OWN_OID or cast.source < FIRST_OWN_OID

    def _cast_name(self, cast: Cast) -> str:
        names = [
            self._catalog.qualified(type_) if (type_ := self._catalog.types.get(oid)) is not None else str(oid)
            for oid in (cast.source, cast.target)
        ]
        return f"cast from {names[0]} to {names[1]}"

    # --- rule 16 ---

    def holds_clock(self, oid: int) -> bool:
        """True if text that becomes this type may say ``now``: date/time types, and whatever contains one. Unknown types too."""
        found = self._clock.get(oid)
        if found is None:
            self._clock[oid] = False
            found = self._clock[oid] = self._reaches(oid, self.holds_clock, _is_clock)
        return found

    def holds_text(self, oid: int) -> bool:
        """True if a value of this type is or contains text, or is a row or anything else of which we do not know."""
        found = self._strings.get(oid)
        if found is None:
            self._strings[oid] = False
            found = self._strings[oid] = self._reaches(oid, self.holds_text, _is_text)
        return found

    def _reaches(self, oid: int, again: Callable[[int], bool], test: Callable[[Type], bool]) -> bool:
        type_ = self._catalog.types.get(oid)
        if type_ is None or type_.kind == "p":
            return True
        if test(type_):
            return True
        inner = [type_.element, type_.base]
        if type_.oid in self._catalog.ranges:
            inner.append(self._catalog.ranges[type_.oid][0])
        if type_.kind == "c":
            columns = self._catalog.columns.get(type_.relation, {})
            if not columns:
                return True
            inner += columns.values()
        return any(again(other) for other in inner if other)


def _is_clock(type_: Type) -> bool:
    return type_.schema == PG_CATALOG and type_.name in _CLOCK_TYPES


def _is_text(type_: Type) -> bool:
    # Through text and only from there values become others by their text (sql-createcast); a user's base type may be anything.
    return type_.category == "S" or (type_.kind == "b" and type_.schema != PG_CATALOG and not type_.element)


_CLOCK_TYPES: Final = frozenset(("date", "time", "timetz", "timestamp", "timestamptz"))
_HINTS: Final = {
    "timetz": "use timestamp with time zone: a time's offset depends on today",
    "regclass": "join pg_class in a statement of its own",
}
