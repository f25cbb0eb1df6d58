"""Which types a converted value may have: enough inference to know a timestamp from a text (caching rule 16).

A set of type OIDs, or ``None`` where it cannot be told. Literals add nothing: they are scanned. Wherever PostgreSQL's own rules
(typeconv) would have to be followed further than an exact match, the answer is ``None``, which refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from math import prod

from hyperdrive.sql.catalog import Catalog, Function, Relation
from hyperdrive.sql.sources import Definitions, Source

Types = frozenset[int] | None
NOTHING: Types = frozenset()
_MAX_WAYS = 64


class Inference:
    """For one statement: its relations, its own names, its parameters' declared types."""

    __slots__ = ("_aliases", "_catalog", "_definitions", "_parameters", "_path", "_pending", "_reachable", "_relations")

    def __init__(
        self,
        catalog: Catalog,
        path: Sequence[int],
        relations: Iterable[Relation],
        aliases: Iterable[tuple[str, tuple[str, ...]]],
        definitions: Definitions,
        parameters: Sequence[int],
        reachable: Callable[[tuple[str, ...], int | None], list[Function]],
    ) -> None:
        self._catalog = catalog
        self._path = path
        self._relations = tuple(relations)
        self._aliases = tuple(aliases)
        self._definitions = definitions
        self._parameters = parameters
        self._reachable = reachable
        self._pending: set[str] = set()

    def types(self, source: Source) -> Types:
        """Return the types that *source* may have."""
        match source:
            case ("none",):
                return NOTHING
            case ("parameter", int(number)):
                # Undeclared: the server gives it a type, and the value is scanned whatever that is.
                declared = self._parameters[number - 1] if 0 < number <= len(self._parameters) else 0
                return frozenset((declared,)) if declared else NOTHING
            case ("column", str(name)):
                return self._column(name)
            case ("row", str(alias)):
                return self._row(alias)
            case ("type", names, is_array):
                found = self._catalog.type(names, self._path, is_array)
                return None if found is None else frozenset((found.oid,))
            case ("any", sources):
                return self._union(sources)
            case ("array", inner):
                return self._arrays(self.types(inner))
            case ("element", inner):
                return self._elements(self.types(inner))
            case ("fields", inner):
                return self.types(inner)  # what the row holds, which is all that a conversion asks
            case ("call", names, sources):
                return self._call(names, sources)
            case ("operator", names, left, right):
                return self._operator(names, left, right)
            case _:
                return None

    def _union(self, sources: Iterable[Source]) -> Types:
        found: set[int] = set()
        for source in sources:
            types = self.types(source)
            if types is None:
                return None
            found |= types
        return frozenset(found)

    def _column(self, name: str) -> Types:
        """Whatever in the statement is called so."""
        if name in self._pending:
            return NOTHING  # a recursive query: the other half decides
        found: set[int] = set()
        for relation in self._relations:
            columns = self._catalog.columns.get(relation.oid)
            if not columns:
                return None  # nothing is known of it
            column = columns.get(name)
            if column is not None:
                found.add(column)
        self._pending.add(name)
        try:
            inner = self._union(self._definitions.get(name, ()))
            anything = self._definitions.get("*", ())
            if inner is None or any(self._may_have_columns(source) for source in anything):
                return None
        finally:
            self._pending.discard(name)
        if not found and name not in self._definitions:
            return None
        return frozenset(found | inner)

    def _row(self, alias: str) -> Types:
        found = set()
        for names in (names for name, names in self._aliases if name == alias):
            relation = self._catalog.relation(names, self._path) if names else None
            oid = None if relation is None else self._catalog.type_oids.get((relation.schema, relation.name))
            if oid is None:
                return None
            found.add(oid)
        return frozenset(found) or None

    def _may_have_columns(self, source: Source) -> bool:
        """True if a function in FROM, ``("rows", call)``, could have columns of any name; ``unknown`` has them."""
        if source[0] != "rows":
            return True
        names = source[1][1]
        arguments = len(source[1][2])
        candidates = self._reachable(names, arguments)
        return not candidates or any(function.has_columns or self._is_row(function.result) for function in candidates)

    def _is_row(self, oid: int) -> bool:
        type_ = self._catalog.types.get(oid)
        return type_ is None or type_.kind == "c" or type_.name in ("record", "anyelement", "anycompatible")

    def _arrays(self, types: Types) -> Types:
        if types is None:
            return None
        arrays = [self._catalog.types[oid].array or oid for oid in types if oid in self._catalog.types]
        return frozenset(arrays) if len(arrays) == len(types) else None

    def _elements(self, types: Types) -> Types:
        if types is None:
            return None
        found = set()
        for oid in types:
            type_ = self._catalog.types.get(oid)
            if type_ is None or not type_.element:
                return None
            found.add(type_.element)
        return frozenset(found)

    def _call(self, names: tuple[str, ...], sources: Sequence[Source]) -> Types:
        candidates = self._reachable(names, len(sources))
        named = self._catalog.type(names, self._path) if len(sources) == 1 else None
        if named is not None:
            # `date(x)`: a call or a cast; of that type whichever it is, or nothing can be said.
            return frozenset((named.oid,)) if all(named.oid == function.result for function in candidates) else None
        exact = self._exact([self._argument(source) for source in sources], candidates)
        if exact is not None:
            return exact
        return _plain(self._catalog, [function.result for function in candidates])

    def _argument(self, source: Source) -> Types:
        return None if source[0] == "fields" else self.types(source)

    def _exact(self, arguments: Sequence[Types], candidates: Sequence[Function]) -> Types:
        """The results of the overloads that are chosen because every argument has their type exactly (typeconv-func)."""
        if not all(arguments) or prod(len(types or ()) for types in arguments) > _MAX_WAYS:
            return None
        found: set[int] = set()
        for way in product(*[types or () for types in arguments]):
            results = {function.result for function in candidates if function.argument_types == way}
            if len(results) != 1:
                return None
            found |= results
        return _plain(self._catalog, found)

    def _operator(self, names: tuple[str, ...], left: Source, right: Source) -> Types:
        candidates = [
            operator
            for operator in self._catalog.operators.get(names[-1], ())
            if len(names) == 1 or self._catalog.schema_names.get(operator.schema) == names[0]
        ]
        lefts, rights = self._argument(left), self._argument(right)
        if lefts is None or rights is None:
            return _plain(self._catalog, [operator.result for operator in candidates])
        if lefts and rights:
            ways = list(product(lefts, rights))
            found = {operator.result for operator in candidates if (operator.left, operator.right) in ways}
            if all(any((operator.left, operator.right) == way for operator in candidates) for way in ways):
                return _plain(self._catalog, found)
        elif lefts and self._are_dates(lefts):
            # Beside a literal a date stays one, or becomes another kind of date.
            candidates = [operator for operator in candidates if self._are_dates((operator.left,))]
        elif rights and self._are_dates(rights):
            candidates = [operator for operator in candidates if self._are_dates((operator.right,))]
        return _plain(self._catalog, [operator.result for operator in candidates])

    def _are_dates(self, oids: Iterable[int]) -> bool:
        types = [self._catalog.types.get(oid) for oid in oids]
        return all(type_ is not None and type_.category in ("D", "T") and type_.kind == "b" for type_ in types)


def _plain(catalog: Catalog, oids: Iterable[int]) -> Types:
    """These types, if none depends on the arguments (polymorphic, record) and there is one at all."""
    found = frozenset(oids)
    types = [catalog.types.get(oid) for oid in found]
    return found if found and all(type_ is not None and type_.kind in ("b", "e", "r", "m") for type_ in types) else None
