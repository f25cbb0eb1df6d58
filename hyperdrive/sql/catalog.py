"""``Catalog``: what one database's catalogs say, at one moment; an immutable value, built from plain rows.

It carries an *epoch*: whatever was decided by an older catalog is void (caching rules §7). Knows what the rows of
``catalog_queries`` mean; knows no connection. ``resolve`` and ``writes`` ask it; the views' bodies are read when first asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple, TypeVar

from hyperdrive.sql.reading import Reading
from hyperdrive.sql.reads import analyse_text
from hyperdrive.sql.rules import Refused

PG_CATALOG: Final = 11
"""The OID of the schema pg_catalog, on every server."""
FIRST_OWN_OID: Final = 16384
"""Objects from here on are not PostgreSQL's own (FirstNormalObjectId)."""

Rows = Mapping[str, Sequence[Sequence[Any]]]
Thing = tuple[str, int]
"""A relation, a type or a function: which of these, and its OID."""
_T = TypeVar("_T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose catalog it is: what makes two answers comparable at all (rule ``origin-unknown``)."""

    system_identifier: int
    timeline: int
    database: int
    """OID."""
    version: int
    """``server_version_num``."""
    in_recovery: bool = False


@dataclass(frozen=True, slots=True)
class Declarations:
    """What the operator vouches for; nothing by default."""

    trust_immutable: bool = True
    """User functions marked IMMUTABLE are what they say (xfunc-volatility)."""
    types: frozenset[str] = frozenset()
    """User base types that were reviewed, by name, with or without schema: ``citext``, ``hstore``, ``public.vector``."""
    functions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """User functions, ``schema.name``, that depend on nothing but these tables (``schema.name``)."""
    no_clock_words_in_data: bool = False
    """No text in the database says ``today`` where it is turned into a date at run time."""
    age_only: tuple[str, ...] = ()
    """Patterns of unlogged and foreign tables, ``schema.name``, whose answers may be as old as max_age."""

    def allows_age_only(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.age_only)


class Role(NamedTuple):
    """A role, and what it is exempt from."""

    oid: int
    name: str
    is_superuser: bool
    bypasses_row_security: bool


class Relation(NamedTuple):
    """A row of pg_class; indexes are left out."""

    oid: int
    schema: int
    name: str
    kind: str
    """``pg_class.relkind``: r, p, v, m, f, S, c."""
    persistence: str
    has_row_security: bool
    is_partition: bool


class Function(NamedTuple):
    """One overload."""

    oid: int
    schema: int
    name: str
    kind: str
    arguments: int
    defaults: int
    is_variadic: bool
    volatility: str
    """The worst of the function itself and, of an aggregate, its support functions: i, s, v."""
    is_security_definer: bool
    returns_set: bool
    result: int
    argument_types: tuple[int, ...]
    has_columns: bool
    """It has OUT columns."""

    @property
    def is_builtin(self) -> bool:
        """PostgreSQL's own; what somebody else put into pg_catalog is not."""
        return self.schema == PG_CATALOG and self.oid < FIRST_OWN_OID

    def accepts(self, arguments: int | None) -> bool:
        """True if it could be meant by a call with so many arguments."""
        if arguments is None:
            return True
        return self.arguments - self.defaults - self.is_variadic <= arguments and (
            self.is_variadic or arguments <= self.arguments
        )


class Operator(NamedTuple):
    """A row of pg_operator."""

    schema: int
    name: str
    left: int
    right: int
    result: int
    function: int

    @property
    def is_own(self) -> bool:
        """PostgreSQL does not bring it."""
        return self.schema != PG_CATALOG or self.function >= FIRST_OWN_OID


class Cast(NamedTuple):
    """A row of pg_cast."""

    oid: int
    source: int
    target: int
    function: int
    """0: binary coercible or through text."""
    context: str
    """e explicit, a assignment, i implicit."""
    method: str


class Type(NamedTuple):
    """A row of pg_type."""

    oid: int
    schema: int
    name: str
    kind: str
    """``pg_type.typtype``: b, c, d, e, p, r, m."""
    category: str
    element: int
    """Of a true array; else 0."""
    array: int
    base: int
    relation: int


class ForeignKey(NamedTuple):
    """Who references whom, and what follows from a change."""

    child: int
    parent: int
    on_update: str
    """a no action, r restrict, c cascade, n set null, d set default."""
    on_delete: str


class Catalog:
    """One database's catalogs. Build it with ``build``; treat it as frozen."""

    __slots__ = (
        "_bodies",
        "_checks",
        "_owners",
        "ancestors",
        "casts_by_type",
        "columns",
        "declarations",
        "descendants",
        "domain_checks",
        "epoch",
        "fingerprint",
        "foreign_keys_by_parent",
        "function_by_oid",
        "functions",
        "has_impure_casts",
        "hidden",
        "identity",
        "impure_names",
        "impure_operators",
        "inherited_roles",
        "memo",
        "operator_classes",
        "operators",
        "own_casts",
        "own_names",
        "own_operators",
        "ranges",
        "relation_oids",
        "relations",
        "roles",
        "roles_by_oid",
        "rules",
        "schema_names",
        "schemas",
        "triggers",
        "type_oids",
        "types",
        "usages",
        "view_bodies",
    )  # fmt: skip

    def __init__(
        self, rows: Rows, identity: Identity, epoch: int, fingerprint: str, declarations: Declarations
    ) -> None:
        self.identity = identity
        self.epoch = epoch
        self.fingerprint = fingerprint
        self.declarations = declarations
        self._names(rows)
        self._relations(rows)
        self._functions(rows)
        self._types(rows)
        self._writes(rows)
        self._bodies: dict[int, Reading | Refused] = {}
        self._checks: dict[int, list[Reading | Refused]] = {}
        self.memo: dict[Any, Any] = {}
        """What those who judge by this catalog want to remember; it ends with the catalog."""

    def _names(self, rows: Rows) -> None:
        self.schemas: dict[str, int] = {name: oid for oid, name, _ in rows.get("schemas", ())}
        self.schema_names: dict[int, str] = {oid: name for name, oid in self.schemas.items()}
        self._owners: dict[int, int] = {oid: owner for oid, _, owner in rows.get("schemas", ())}
        self.usages: dict[int, set[int]] = defaultdict(set)
        for schema, grantee in rows.get("usages", ()):
            self.usages[schema].add(grantee)
        self.roles: dict[str, Role] = {row[1]: Role(*row) for row in rows.get("roles", ())}
        self.roles_by_oid: dict[int, Role] = {role.oid: role for role in self.roles.values()}
        inherited: dict[int, set[int]] = defaultdict(set)
        for member, role, inherits in rows.get("memberships", ()):
            if inherits:
                inherited[member].add(role)
        self.inherited_roles: dict[int, frozenset[int]] = {
            role: frozenset(_closure(role, inherited.get)) for role in self.roles_by_oid
        }

    def _relations(self, rows: Rows) -> None:
        self.relations: dict[int, Relation] = {row[0]: Relation(*row) for row in rows.get("relations", ())}
        self.relation_oids: dict[tuple[int, str], int] = {
            (relation.schema, relation.name): oid for oid, relation in self.relations.items()
        }
        self.columns: dict[int, dict[str, int]] = defaultdict(dict)
        for oid, _, name, type_ in rows.get("columns", ()):
            self.columns[oid][name] = type_
        children: dict[int, set[int]] = defaultdict(set)
        parents: dict[int, set[int]] = defaultdict(set)
        for child, parent in rows.get("inherits", ()):
            children[parent].add(child)
            parents[child].add(parent)
        self.descendants: dict[int, frozenset[int]] = {oid: frozenset(_closure(oid, children.get)) for oid in children}
        """Relations that inherit from it or are its partitions, at any depth, and itself."""
        self.ancestors: dict[int, frozenset[int]] = {oid: frozenset(_closure(oid, parents.get)) for oid in parents}
        self.view_bodies: dict[int, str] = {row[0]: row[1] for row in rows.get("views", ())}

    def _functions(self, rows: Rows) -> None:
        functions: dict[str, list[Function]] = defaultdict(list)
        self.function_by_oid: dict[int, Function] = {}
        for row in rows.get("functions", ()):
            (oid, schema, name, kind, arguments, defaults, is_variadic, volatility, definer, returns_set, result, types, support,
             has_columns) = row  # fmt: skip
            marks = volatility + (support or "")
            worst = "v" if "v" in marks else "s" if "s" in marks else "i"
            function = Function(
                oid, schema, name, kind, arguments, defaults, is_variadic, worst, definer or "d" in marks, returns_set, result,
                tuple(types), has_columns,
            )  # fmt: skip
            functions[name].append(function)
            self.function_by_oid[oid] = function
        self.functions: dict[str, tuple[Function, ...]] = {name: tuple(group) for name, group in functions.items()}
        self.impure_names: frozenset[str] = frozenset(
            one.name
            for one in self.function_by_oid.values()
            if one.oid >= FIRST_OWN_OID and one.volatility != "i" and one.kind != "p"
        )
        """Of functions that PostgreSQL does not bring and that are not IMMUTABLE."""
        operators: dict[str, list[Operator]] = defaultdict(list)
        for row in rows.get("operators", ()):
            operators[row[1]].append(Operator(*row))
        self.operators: dict[str, tuple[Operator, ...]] = {name: tuple(group) for name, group in operators.items()}
        own = {name: tuple([one for one in group if one.is_own]) for name, group in operators.items()}
        self.own_operators: dict[str, tuple[Operator, ...]] = {name: group for name, group in own.items() if group}
        """Those that PostgreSQL does not bring, where there are any."""
        self.impure_operators: frozenset[str] = frozenset(
            name for name, group in self.own_operators.items() if not all(self._is_pure(one.function) for one in group)
        )
        """Of those the ones whose functions are not IMMUTABLE."""

    def _types(self, rows: Rows) -> None:
        self.types: dict[int, Type] = {row[0]: Type(*row) for row in rows.get("types", ())}
        self.type_oids: dict[tuple[int, str], int] = {
            (type_.schema, type_.name): oid for oid, type_ in self.types.items()
        }
        self.ranges: dict[int, tuple[int, int]] = {}
        """Range or multirange → its subtype and its canonical function, or 0."""
        for range_, multirange, subtype, canonical in rows.get("ranges", ()):
            self.ranges[range_] = self.ranges[multirange] = (subtype, canonical)
        self.domain_checks: dict[int, list[str]] = defaultdict(list)
        for domain, check in rows.get("domain_checks", ()):
            self.domain_checks[domain].append(check)
        self.operator_classes: frozenset[int] = frozenset(oid for (oid,) in rows.get("operator_classes", ()))
        self.casts_by_type: dict[int, list[Cast]] = defaultdict(list)
        """Casts that PostgreSQL does not bring, by each of their types."""
        self.own_casts = tuple(cast for row in rows.get("casts", ()) if (cast := Cast(*row)).oid >= FIRST_OWN_OID)
        for cast in self.own_casts:
            self.casts_by_type[cast.source].append(cast)
            self.casts_by_type[cast.target].append(cast)
        self.has_impure_casts = any(
            max(cast.source, cast.target) < FIRST_OWN_OID and cast.function and not self._is_pure(cast.function)
            for cast in self.own_casts
        )
        """Between types that PostgreSQL brings, by functions that are not IMMUTABLE."""
        self.own_names: frozenset[str] = frozenset(
            one.name for group in (self.relations, self.types) for one in group.values() if one.oid >= FIRST_OWN_OID
        )
        """Of relations and types that PostgreSQL does not bring."""

    def _is_pure(self, oid: int) -> bool:
        function = self.function_by_oid.get(oid)
        return function is not None and function.volatility == "i"

    def _writes(self, rows: Rows) -> None:
        self.foreign_keys_by_parent: dict[int, list[ForeignKey]] = defaultdict(list)
        for row in rows.get("foreign_keys", ()):
            self.foreign_keys_by_parent[row[1]].append(ForeignKey(*row))
        self.triggers: dict[int, list[int]] = defaultdict(list)
        """Relation → functions of its enabled triggers; those that PostgreSQL makes for foreign keys left out."""
        for oid, function in rows.get("triggers", ()):
            self.triggers[oid].append(function)
        self.rules: frozenset[int] = frozenset(oid for oid, _, _ in rows.get("rules", ()))
        self.hidden: dict[Thing, list[Thing]] = defaultdict(list)
        """What a relation's, a domain's or a function's stored expressions call and name: PostgreSQL's own left out."""
        for kind, oid, other_kind, other in rows.get("hidden", ()):
            self.hidden[kind, oid].append((other_kind, other))

    def calls_behind(self, kind: str, oid: int) -> frozenset[int]:
        """Functions that may run where a function is called (itself among them), a value of a type is made, or rows of a relation
        change: as far as PostgreSQL has parsed what they run, and tells."""
        found: frozenset[int] | None = self.memo.get((kind, oid))
        if found is None:
            behind = _closure((kind, oid), self._behind)
            found = self.memo[kind, oid] = frozenset([other for kind, other in behind if kind == "function" and other])
        return found

    def _behind(self, thing: Thing) -> Iterable[Thing]:
        kind, oid = thing
        found = self.hidden.get(thing, [])
        if kind == "relation":
            return found + [("type", type_) for type_ in self.columns.get(oid, {}).values()]
        if kind == "type":
            subtype, canonical = self.ranges.get(oid, (0, 0))
            return [*found, ("function", canonical), ("type", subtype), *self._parts(oid)]
        function = self.function_by_oid.get(oid)
        is_declared = function is not None and self.qualified(function) in self.declarations.functions
        # Whoever declares a function vouches for what it calls; that its arguments become values of their types is its caller's doing.
        return [other for other in found if other[0] == "type"] if is_declared else found

    def _parts(self, type_: int) -> list[Thing]:
        """Types of which a value of *type_* is made: a domain's base, an array's elements, a row's columns."""
        known = self.types.get(type_)
        if known is None:
            return []
        return [("type", part) for part in (known.base, known.element, *self.columns.get(known.relation, {}).values())]

    # --- names ---

    def path(self, search_path: str, user: int, session_user_name: str | None = None) -> tuple[int, ...] | None:
        """Return the effective search path: OIDs of the schemas that *user* (a role's OID) searches, in order.

        *search_path* is the setting's value, as SHOW prints it. As ``current_schemas(true)``: pg_catalog is first unless it
        is named. ``None``: it cannot be told, because it names a temporary schema or does not parse.
        """
        names = split_identifiers(search_path)
        role = self.roles_by_oid.get(user)
        if names is None or role is None:
            return None
        found: list[int] = []
        for name in names:
            if name.startswith("pg_temp"):
                return None
            oid = self.schemas.get(role.name if name == "$user" else name)
            if oid is not None and oid not in found and self.may_use(oid, role):
                found.append(oid)
        return tuple(found) if PG_CATALOG in found else (PG_CATALOG, *found)

    def may_use(self, schema: int, role: Role) -> bool:
        """True if *role* has USAGE on the schema (ddl-priv)."""
        if role.is_superuser:
            return True
        roles = self.inherited_roles.get(role.oid, frozenset((role.oid,)))
        granted = self.usages.get(schema, set())
        return (
            0 in granted
            or not roles.isdisjoint(granted)
            or self._owners.get(schema) in roles
            # Members of the predefined roles may use every schema (predefined-roles).
            or any(self.roles_by_oid[oid].name in _READ_ALL for oid in roles if oid in self.roles_by_oid)
        )

    def relation(self, names: tuple[str, ...], path: Iterable[int]) -> Relation | None:
        """Return the relation that *names* means under *path*."""
        oid = _lookup(self.relation_oids, self.schemas, names, path)
        return None if oid is None else self.relations[oid]

    def type(self, names: tuple[str, ...], path: Iterable[int], is_array: bool = False) -> Type | None:
        """Return the type that *names* means under *path*, or the array of it."""
        oid = _lookup(self.type_oids, self.schemas, names, path)
        found = None if oid is None else self.types[oid]
        return self.types.get(found.array) if is_array and found is not None else found

    def takes_rows(self, function: Function) -> bool:
        """True if ``x.f``, where *x* is a row, could call it: its first argument is no ordinary value."""
        if not function.argument_types:
            return False
        type_ = self.types.get(function.argument_types[0])
        # Base types, enums and arrays are never rows; domains may be over rows, pseudo-types may be anything.
        return type_ is None or type_.kind in ("c", "p", "d")

    def qualified(self, relation: Relation | Function | Type | Operator) -> str:
        """The name as users write it."""
        schema = self.schema_names.get(relation.schema, "")
        return relation.name if relation.schema == PG_CATALOG else f"{schema}.{relation.name}"

    # --- what has to be read before it can be judged ---

    def body(self, view: int) -> Reading | Refused:
        """What the view's body reads; its names are to be resolved under pg_catalog alone."""
        found = self._bodies.get(view)
        if found is None:
            found = self._bodies[view] = analyse_text(self.view_bodies.get(view, ""))
        return found

    def checks(self, domain: int) -> list[Reading | Refused]:
        """What the CHECKs of the domain read."""
        found = self._checks.get(domain)
        if found is None:
            found = [analyse_text(f"SELECT {_check_expression(check)}") for check in self.domain_checks.get(domain, ())]
            self._checks[domain] = found
        return found


_READ_ALL: Final = frozenset(("pg_read_all_data", "pg_write_all_data"))


def build(
    rows: Rows, identity: Identity, *, epoch: int = 1, fingerprint: str = "", declarations: Declarations | None = None
) -> Catalog:
    """Return the catalog that the *rows* of ``catalog_queries.QUERIES`` describe. What is missing does not exist."""
    return Catalog(rows, identity, epoch, fingerprint, declarations or Declarations())


def _check_expression(definition: str) -> str:
    """``CHECK ((VALUE > 0)) NOT VALID`` → ``((VALUE > 0))``; a definition of another shape fails to parse, and so is refused."""
    expression = definition.removeprefix("CHECK ").removesuffix(" NOT VALID")
    return expression if expression != definition else "("


def _closure(start: _T, following: Callable[[_T], Iterable[_T] | None]) -> set[_T]:
    found = {start}
    todo = [start]
    while todo:
        for other in following(todo.pop()) or ():
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


def _lookup(
    oids: Mapping[tuple[int, str], int], schemas: Mapping[str, int], names: tuple[str, ...], path: Iterable[int]
) -> int | None:
    if len(names) != 1:
        schema = schemas.get(names[0]) if len(names) == 2 else None
        return None if schema is None else oids.get((schema, names[1]))
    for schema in path:
        oid = oids.get((schema, names[0]))
        if oid is not None:
            return oid
    return None


def split_identifiers(text: str) -> list[str] | None:
    """Read a list of names as SplitIdentifierString does; ``None`` if it is none. An empty list is fine."""
    found: list[str] = []
    rest = text.strip(_SPACE)
    while rest:
        if rest[0] == '"':
            name, rest = "", rest[1:]
            while True:
                end = rest.find('"')
                if end < 0:
                    return None
                name, rest = name + rest[:end], rest[end + 1 :]
                if not rest.startswith('"'):
                    break
                name, rest = name + '"', rest[1:]
        else:
            end = next((place for place, char in enumerate(rest) if char in _SPACE + ","), len(rest))
            if end == 0:
                return None
            name, rest = rest[:end], rest[end:]
            # ASCII letters only: what else is folded depends on the server's locale.
            name = "".join(char.lower() if "A" <= char <= "Z" else char for char in name)
        found.append(name.encode()[:63].decode(errors="ignore"))
        rest = rest.lstrip(_SPACE)
        if rest:
            if rest[0] != ",":
                return None
            rest = rest[1:].lstrip(_SPACE)
            if not rest:
                return None
    return found


_SPACE: Final = " \t\n\r\f"
