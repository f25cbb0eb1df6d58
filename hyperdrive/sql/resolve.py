"""``resolve``: may this reading be cached in this database, and on what does it depend (caching rules 10–16).

The second half of the decision: a ``Reading`` meets the ``Catalog`` under one effective search path and the parameter types of one
Parse. Views are read as if their bodies stood in the text. The answer is the relations it is to be tagged with, or a rule and the
object that triggered it. Unknown means no.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from hyperdrive.sql.audit import UNKNOWN_TYPE, TypeAudit
from hyperdrive.sql.catalog import PG_CATALOG, Catalog, Function, Operator, Relation
from hyperdrive.sql.infer import Inference
from hyperdrive.sql.lists import SETTING_ONLY, is_never
from hyperdrive.sql.reading import Call, Conversion, Names, Reading
from hyperdrive.sql.reads import NO_TYPES
from hyperdrive.sql.relations import Dependence, Relations
from hyperdrive.sql.rules import Refused, Rule


class Cacheable(NamedTuple):
    """Yes, as long as the catalog's epoch lasts. A tuple for the same reason as ``Reading``."""

    tags: tuple[int, ...]
    """OIDs of relations, sorted: those named, those behind views, their descendants and partition roots. A change of any drops it."""
    names: tuple[str, ...]
    """The relations named or behind views, as users write them: for policies by table, and for ``explain``."""
    scan: tuple[int, ...]
    """Parameters, counted from 1, whose values must be scanned with ``has_clock_word`` at each Bind, in either format; a value
    with a clock word means bypass (rule 16). NULL needs none."""
    age_only: bool = False
    """Some relation changes without an event (unlogged or foreign, by the operator's leave): only its age vouches for it."""


_TIMES: Final = frozenset((1083, 1266))
"""OIDs of time and timetz."""


def resolve(
    reading: Reading, catalog: Catalog, path: Sequence[int], parameter_types: Sequence[int] = ()
) -> Cacheable | Refused:
    """Return what *reading* depends on, or why it cannot be cached.

    *path* is the effective search path as ``catalog.path`` gives it; *parameter_types* are the OIDs exactly as in Parse, 0 where
    the client left one to the server.
    """
    resolver = _Resolver(catalog, path, parameter_types)
    refused = resolver.text(reading)
    return resolver.answer(reading) if refused is None else refused


class _Judged(NamedTuple):
    """What is remembered with a catalog: it ends with the epoch."""

    audit: TypeAudit
    relations: Relations
    builtins: set[tuple[tuple[int, ...], Call]]
    """Calls that mean built-ins under that path, all of which may be cached, and which are not ``timezone``."""
    row_functions: frozenset[str]
    """Names that ``x.f`` could call, *x* being a row."""


_MAX_BUILTINS: Final = 4096


def _judged(catalog: Catalog) -> _Judged:
    found = catalog.memo.get("judged")
    if not isinstance(found, _Judged):
        audit = TypeAudit(catalog, lambda check: _judge_check(check, catalog))
        relations = Relations(catalog, audit, lambda body, depth: _judge_body(body, depth, catalog))
        found = catalog.memo["judged"] = _Judged(audit, relations, set(), _row_functions(catalog))
    return found


def _row_functions(catalog: Catalog) -> frozenset[str]:
    functions = catalog.function_by_oid.values()
    return frozenset([one.name for one in functions if one.accepts(1) and catalog.takes_rows(one)])


def _judge_check(check: Reading, catalog: Catalog) -> Refused | None:
    """A domain's CHECK: it reads nothing, and calls nothing but what may be called. Its names are qualified."""
    if check.relations:
        return Refused(Rule.RELATION, ".".join(check.relations[0]))
    return _Resolver(catalog, (PG_CATALOG,), ()).text(check)


def _judge_body(body: Reading, depth: int, catalog: Catalog) -> Dependence | Refused:
    resolver = _Resolver(catalog, (PG_CATALOG,), (), depth)
    refused = resolver.text(body)
    return resolver.dependence() if refused is None else refused


class _Resolver:
    __slots__ = ("audit", "builtins", "catalog", "depth", "found", "parameters", "path", "relations", "row_functions")

    def __init__(self, catalog: Catalog, path: Sequence[int], parameters: Sequence[int], depth: int = 0) -> None:
        self.catalog = catalog
        self.path = tuple(path) if PG_CATALOG in path else (PG_CATALOG, *path)
        self.parameters = [0 if oid == UNKNOWN_TYPE else oid for oid in parameters] if parameters else []
        self.audit, self.relations, self.builtins, self.row_functions = _judged(catalog)
        self.found: list[Dependence] = []
        self.depth = depth
        """How many views this text stands behind."""

    def answer(self, reading: Reading) -> Cacheable:
        scan: tuple[int, ...] = ()
        count = max(reading.parameters, len(self.parameters))
        if count:
            declared = [*self.parameters, *[0] * (count - len(self.parameters))]
            scan = tuple([number for number, oid in enumerate(declared, 1) if not oid or self._is_scanned(oid)])
        tags, names, age_only, _ = self.found[0] if len(self.found) == 1 else self.dependence()
        return Cacheable(tags, names, scan, age_only)

    def dependence(self) -> Dependence:
        """What all that was met depends on."""
        tags = {tag for one in self.found for tag in one.tags}
        names = {name for one in self.found for name in one.names}
        return Dependence(tuple(sorted(tags)), tuple(sorted(names)), any(one.age_only for one in self.found))

    def _is_scanned(self, oid: int) -> bool:
        # A leave that was given for data does not hold for parameters, which may become dates at run time then.
        in_data = self.catalog.declarations.no_clock_words_in_data
        return self.audit.holds_clock(oid) or (in_data and self.audit.holds_text(oid))

    def text(self, reading: Reading) -> Refused | None:
        """Judge a text, or a view's body: rules 10 and 12–16 in this order."""
        relations: list[Relation] = []
        for names in reading.relations:
            relation = self.catalog.relation(names, self.path)
            if relation is None:
                if len(names) == 1 and names[0] in reading.cte_names:
                    continue
                return Refused(Rule.RELATION, ".".join(names), "there is no such relation in the search path")
            relations.append(relation)
        has_harmless_columns = True
        for relation in relations:
            found = self.relations.judge(relation, self.depth)
            if isinstance(found, Refused):
                return found
            self.found.append(found)
            has_harmless_columns = has_harmless_columns and found.has_harmless_columns
        return self._contents(reading, relations, has_harmless_columns)

    def _contents(self, reading: Reading, relations: list[Relation], has_harmless_columns: bool) -> Refused | None:
        for method in reading.sampling:
            if method[-1] not in ("system", "bernoulli") or not self._means_builtin(method):
                return Refused(Rule.RELATION, f"TABLESAMPLE {method[-1]}")
        has_time_zone = False
        for call in reading.calls:
            if (self.path, call) not in self.builtins:
                refused = self._call(call)
                if refused is not None:
                    return refused
                has_time_zone = has_time_zone or call.names[-1] == "timezone"
        return (
            (self._attributes(reading, relations) if reading.attributes else None)
            or (self._operators(reading) if reading.operators else None)
            or (None if has_harmless_columns else self._columns(reading, relations))
            or (self._parameters() if self.parameters else None)
            or (self._conversions(reading, relations) if reading.conversions else None)
            or (self._time_zone(reading, relations) if has_time_zone else None)
        )

    # --- rule 14 ---

    def reachable(self, names: Names, arguments: int | None) -> list[Function]:
        """Every overload that a call could mean."""
        if len(names) > 2:
            return []
        found = [function for function in self.catalog.functions.get(names[-1], ()) if function.accepts(arguments)]
        if len(names) == 1:
            return [function for function in found if function.schema in self.path]
        schema = self.catalog.schemas.get(names[0])
        return [function for function in found if function.schema == schema]

    def _call(self, call: Call) -> Refused | None:
        candidates = self.reachable(call.names, call.arguments)
        if call.arguments == 1 and call.names[-1] in NO_TYPES and self.catalog.type(call.names, self.path) is not None:
            return Refused(Rule.TYPE, call.names[-1], "a type is called like a function of PostgreSQL's own")
        for function in candidates:
            refused = self.function(function, call.arguments)
            if refused is not None:
                return refused
        if candidates:
            if call.names[-1] != "timezone" and all([function.is_builtin for function in candidates]):  # noqa: C419
                if len(self.builtins) >= _MAX_BUILTINS:
                    self.builtins.clear()
                self.builtins.add((self.path, call))
            return None
        if call.arguments == 1 and self.catalog.type(call.names, self.path) is not None:
            return None  # a cast in other words: judged with the conversions
        return Refused(Rule.FUNCTION, f"{'.'.join(call.names)}()", "there is no such function in the search path")

    def function(self, function: Function, arguments: int | None) -> Refused | None:
        """Rule 14 for one overload."""
        name = self.catalog.qualified(function)
        if function.is_builtin:
            if is_never(function.name, arguments):
                return Refused(Rule.FUNCTION, f"{name}()")
            if function.volatility == "i" or (function.volatility == "s" and function.name in SETTING_ONLY):
                return None
            return Refused(Rule.FUNCTION, f"{name}()", "compute it in the program")
        return self._own_function(function, name, arguments)

    def _own_function(self, function: Function, name: str, arguments: int | None) -> Refused | None:
        declared = self.catalog.declarations
        if name in declared.functions and function.volatility != "v" and not function.is_security_definer:
            return self._declared(function, name)
        if function.is_security_definer:
            return Refused(Rule.FUNCTION, f"{name}()", "SECURITY DEFINER functions are never cached")
        if function.volatility == "v":
            return Refused(
                Rule.FUNCTION,
                f"{name}()",
                f"ALTER FUNCTION {name} IMMUTABLE, if its result depends on its arguments only",
            )
        if function.volatility == "s":
            return Refused(
                Rule.FUNCTION,
                f"{name}()",
                "name it and its tables in cache_functions, or mark it IMMUTABLE if it reads none",
            )
        if not declared.trust_immutable:
            return Refused(Rule.FUNCTION, f"{name}()", "cache_trust_immutable is off")
        if function.defaults and (arguments is None or arguments < function.arguments):
            return Refused(Rule.FUNCTION, f"{name}()", "pass every argument: its defaults are evaluated at each call")
        return self._signature(function)

    def _declared(self, function: Function, name: str) -> Refused | None:
        for table in self.catalog.declarations.functions[name]:
            relation = self.catalog.relation(tuple(table.split(".", 1)), self.path)
            if relation is None:
                return Refused(Rule.FUNCTION, f"{name}()", f"it is declared to read {table}, which does not exist")
            found = self.relations.judge(relation, self.depth)
            if isinstance(found, Refused):
                return found
            self.found.append(found)
        return self._signature(function)

    def _signature(self, function: Function) -> Refused | None:
        for oid in (function.result, *function.argument_types):
            refused = self.audit.refusal(oid)
            if refused is not None:
                return refused
        return None

    def _time_zone(self, reading: Reading, relations: list[Relation]) -> Refused | None:
        """AT TIME ZONE turns a time into a timetz, whose offset is that of today (§5.1); so no time must be near."""
        types = [
            self.catalog.type(conversion.names, self.path)
            for conversion in reading.conversions
            if not conversion.is_call
        ]
        near = {type_.oid for type_ in types if type_ is not None} | set(self.parameters)
        for relation in relations:
            columns = self.catalog.columns.get(relation.oid, {})
            near.update(oid for name, oid in columns.items() if reading.has_star or name in reading.columns)
        for call in reading.calls:
            for function in self.reachable(call.names, call.arguments):
                if _TIMES.isdisjoint(function.argument_types):
                    near.add(function.result)
        if near.isdisjoint(_TIMES):
            return None
        return Refused(Rule.FUNCTION, "timezone()", "AT TIME ZONE beside values of type time is never cached")

    def _attributes(self, reading: Reading, relations: list[Relation]) -> Refused | None:
        """``t.f`` and ``(t).f`` call the function ``f`` where there is no column of that name (xfunc-sql, "field selection")."""
        for qualifier, name in reading.attributes:
            if name not in self.row_functions or self._is_column(qualifier, name, reading):
                continue
            for function in self.reachable((name,), 1):
                if self.catalog.takes_rows(function):
                    refused = self.function(function, 1)
                    if refused is not None:
                        return refused
        return None

    def _is_column(self, qualifier: str, name: str, reading: Reading) -> bool:
        """True if *qualifier* can mean nothing but relations with a column *name*."""
        meanings = [names for alias, names in reading.aliases if alias == qualifier]
        for names in meanings:
            relation = self.catalog.relation(names, self.path) if names else None
            if relation is None or name not in self.catalog.columns.get(relation.oid, {}):
                return False
        return bool(meanings)

    # --- rule 15 ---

    def _operators(self, reading: Reading) -> Refused | None:
        known, own = self.catalog.operators, self.catalog.own_operators
        for names in reading.operators:
            if names[-1] not in known or len(names) > 2:
                return Refused(Rule.OPERATOR, f"operator {'.'.join(names)}")
            for operator in own.get(names[-1], ()):
                schema = self.catalog.schemas.get(names[0]) if len(names) == 2 else None
                if operator.schema == schema if len(names) == 2 else operator.schema in self.path:
                    refused = self._operator(operator)
                    if refused is not None:
                        return refused
        return None

    def _operator(self, operator: Operator) -> Refused | None:
        function = self.catalog.function_by_oid.get(operator.function)
        name = f"operator {self.catalog.qualified(operator)}"
        if function is None or function.volatility != "i" or function.is_security_definer:
            return Refused(Rule.OPERATOR, name, "mark its function IMMUTABLE, if it is")
        if not function.is_builtin and not self.catalog.declarations.trust_immutable:
            return Refused(Rule.OPERATOR, name, "cache_trust_immutable is off")
        return None

    def _columns(self, reading: Reading, relations: list[Relation]) -> Refused | None:
        for relation in relations:
            columns = self.catalog.columns.get(relation.oid, {})
            for name in columns if reading.has_star else columns.keys() & reading.columns:
                refused = self.audit.refusal(columns[name])
                if refused is not None:
                    column = f"{self.catalog.qualified(relation)}.{name}: {refused.object}"
                    return Refused(refused.rule, column, refused.hint, refused.because)
        return None

    def _parameters(self) -> Refused | None:
        for oid in self.parameters:
            if oid:
                refused = self.audit.refusal(oid)
                if refused is not None:
                    return refused
        return None

    def _means_builtin(self, names: Names) -> bool:
        found = self.reachable(names, None)
        return bool(found) and all(function.is_builtin for function in found)

    # --- rules 15 and 16: conversions ---

    def _conversions(self, reading: Reading, relations: list[Relation]) -> Refused | None:
        inference: Inference | None = None
        for conversion in reading.conversions:
            type_ = self.catalog.type(conversion.names, self.path, conversion.is_array)
            if type_ is None:
                if conversion.is_call:
                    continue
                return Refused(Rule.TYPE, ".".join(conversion.names), "there is no such type in the search path")
            refused = self.audit.refusal(type_.oid)
            if refused is not None:
                return refused
            if self.catalog.declarations.no_clock_words_in_data or not self.audit.holds_clock(type_.oid):
                continue
            if inference is None:
                inference = Inference(
                    self.catalog,
                    self.path,
                    relations,
                    reading.aliases,
                    reading.definitions,
                    self.parameters,
                    self.reachable,
                )
            types = inference.types(conversion.source)
            if types == frozenset((type_.oid,)):
                continue  # it is of that type already
            if conversion.is_call and types and all(self._has_field(oid, conversion.names[-1]) for oid in types):
                continue  # no cast, but a field of a row
            if types is None or any(self.audit.holds_text(oid) for oid in types):
                return self._runtime(conversion)
        return None

    def _has_field(self, oid: int, name: str) -> bool:
        type_ = self.catalog.types.get(oid)
        return type_ is not None and type_.kind == "c" and name in self.catalog.columns.get(type_.relation, {})

    def _runtime(self, conversion: Conversion) -> Refused:
        name = ".".join(conversion.names)
        return Refused(
            Rule.CLOCK_WORD,
            f"{name}(…)" if conversion.is_call else f"…::{name}",
            "the text may say 'today'; keep it in a column of that type, or set cache_clean_dates if no data does",
        )
