"""``targets``: which relations may a text change (caching rules §10.5)?

The targets that the text names, closed over what happens behind them: partitions and inheritance, the base tables of updatable
views, foreign keys that cascade. Whatever could run code that we do not see — triggers, rules, functions of users, DO, CALL,
EXECUTE — makes it an *unknown write*, and DDL ends the epoch. Applied when the origin says that the transaction is over; a rollback
changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hyperdrive.sql.catalog import FIRST_OWN_OID, PG_CATALOG, Catalog, Function, Relation
from hyperdrive.sql.functions import HIDES_RELATIONS, RUNS_SQL
from hyperdrive.sql.grammar import ParseError, Tree, parse_tree
from hyperdrive.sql.parse import MAX_PARSE_BYTES
from hyperdrive.sql.reading import Names
from hyperdrive.sql.shapes import example, folded, shape
from hyperdrive.sql.text import decode
from hyperdrive.sql.touched import Event, Touched, touched


@dataclass(frozen=True, slots=True)
class Writes:
    """What a text may change, if it succeeds and its transaction commits."""

    relations: frozenset[int] | None
    """OIDs; empty: nothing that is ever cached. ``None``: an unknown write, which may have changed anything."""
    ends_epoch: bool = False
    """DDL, GRANT, roles, settings' defaults: every verdict and every entry of the database is void."""
    is_shared: bool = False
    """Not of this database alone: roles and databases are the whole server's (manage-ag-overview)."""
    is_literal: bool = False
    """It hangs on what a literal says: another text of the same shape may change something else."""

    def __or__(self, other: Writes) -> Writes:
        relations = None if self.relations is None or other.relations is None else self.relations | other.relations
        return Writes(
            relations,
            self.ends_epoch or other.ends_epoch,
            self.is_shared or other.is_shared,
            self.is_literal or other.is_literal,
        )


NOTHING: Final = Writes(frozenset())
UNKNOWN: Final = Writes(None)
UNKNOWN_AND_EPOCH: Final = Writes(None, ends_epoch=True)
EVERYWHERE: Final = Writes(None, ends_epoch=True, is_shared=True)


def targets(sql: bytes, catalog: Catalog, path: Sequence[int]) -> Writes:
    """Return what the text *sql* may change in the database of *catalog*, run under the effective search path *path*.

    Never raises. For sessions whose literals and encoding are ordinary (W-41, W-42); for others the answer is ``UNKNOWN``, and
    so it is while there is no catalog.
    """
    try:
        text = decode(sql)[0] if len(sql) <= MAX_PARSE_BYTES else _shortened(sql)
        if text is None:
            return _too_long(sql)
        statements = parse_tree(text).get("stmts", ())
        found = NOTHING
        for raw in statements:
            ((node, tree),) = raw["stmt"].items()
            found |= _statement(node, tree, catalog, path)
        return found
    except RecursionError:
        return UNKNOWN_AND_EPOCH
    except (ParseError, ValueError):  # a newer grammar than ours may run it
        return UNKNOWN_AND_EPOCH


def _shortened(sql: bytes) -> str | None:
    """A text that changes what *sql* does, without its long lists of constants; ``None`` if there is none."""
    form = shape(sql)
    if form is None:
        return None
    text = example(folded(form))
    return text if len(text) <= MAX_PARSE_BYTES else None


def _too_long(sql: bytes) -> Writes:
    """What cannot be parsed is unknown; only if it begins like data does it leave the epoch alone."""
    first = sql[:12].lstrip().lower()
    is_data = first.startswith((b"insert", b"update", b"delete", b"select")) and b";" not in sql.rstrip(b"; \t\r\n")
    return UNKNOWN if is_data else UNKNOWN_AND_EPOCH


_QUERIES: Final = frozenset(
    ("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "TruncateStmt", "CopyStmt", "DeclareCursorStmt")
)  # fmt: skip
# Sessions, cursors, locks, upkeep. A cursor's query counts where it is declared: it can only run in the same transaction.
_HARMLESS: Final = frozenset(
    """VariableSetStmt VariableShowStmt DiscardStmt DeallocateStmt PrepareStmt ListenStmt UnlistenStmt NotifyStmt ClosePortalStmt
    FetchStmt LockStmt CheckPointStmt ConstraintsSetStmt VacuumStmt LoadStmt""".split()
)
_SHARED: Final = frozenset(
    """CreateRoleStmt AlterRoleStmt AlterRoleSetStmt DropRoleStmt GrantRoleStmt AlterDatabaseStmt AlterDatabaseSetStmt DropdbStmt
    AlterSystemStmt""".split()
)
_CODE: Final = frozenset(("CallStmt", "ExecuteStmt"))
_DDL: Final = re.compile(r"(?i)\b(?:create|alter|drop|grant|revoke|reassign|import|comment|security|execute)\b|\\")
"""Words that a block of code would have to hold somewhere to change the schema by itself. What it calls is another matter, as it is
with CALL: the catalog is looked at soon afterwards. Escapes (``e'cre\\x61te'``) could hide them."""


def _statement(node: str, tree: Tree, catalog: Catalog, path: Sequence[int]) -> Writes:
    if node in _QUERIES:
        if "intoClause" in tree and not _is_temporary(tree["intoClause"].get("rel", {})):
            return UNKNOWN_AND_EPOCH
        return _Closure(catalog, path).writes(touched(node, tree))
    if node == "ExplainStmt":  # with ANALYZE it runs; and what it runs may be more than a query (sql-explain)
        ((inner, query),) = tree["query"].items()
        return _statement(inner, query, catalog, path)
    if node in _HARMLESS or (node == "CreateStmt" and _is_temporary(tree.get("relation", {}))):
        return NOTHING
    if node == "CreateTableAsStmt" and _is_temporary(tree.get("into", {}).get("rel", {})):
        return (
            UNKNOWN if "ExecuteStmt" in tree.get("query", {}) else _Closure(catalog, path).writes(touched(node, tree))
        )
    if node == "DropStmt" and tree.get("removeType") == "OBJECT_TABLE" and path and catalog.relations:
        return _drop(tree, catalog, path)
    if node == "TransactionStmt":
        # Whatever was prepared, DDL too, takes effect now.
        return UNKNOWN_AND_EPOCH if tree.get("kind") == "TRANS_STMT_COMMIT_PREPARED" else NOTHING
    if node == "RefreshMatViewStmt":
        return _Closure(catalog, path).refresh(tree.get("relation", {}))
    if node == "DoStmt":
        body = " ".join([item["DefElem"]["arg"].get("String", {}).get("sval", "") for item in tree.get("args", ())])
        return Writes(None, ends_epoch=_DDL.search(body) is not None, is_literal=True)
    if node in ("ReindexStmt", "ClusterStmt"):
        return Writes(
            frozenset(), ends_epoch=True
        )  # indexes get other OIDs and marks, which drivers may have asked for
    if node in _SHARED or tree.get("renameType") in ("OBJECT_ROLE", "OBJECT_DATABASE"):
        return EVERYWHERE
    return UNKNOWN if node in _CODE else UNKNOWN_AND_EPOCH


def _is_temporary(relation: Tree) -> bool:
    """No other session sees it, and one that has it takes no part in the cache."""
    return relation.get("relpersistence") == "t" or relation.get("schemaname") == "pg_temp"


def _drop(tree: Tree, catalog: Catalog, path: Sequence[int]) -> Writes:
    """DROP TABLE: of nothing that the catalog knows it is the end of temporary tables, or of what was never read."""
    for item in tree.get("objects", ()):
        names = tuple(part.get("String", {}).get("sval", "") for part in item.get("List", {}).get("items", ()))
        if not 0 < len(names) < 3 or (names[0] != "pg_temp" and catalog.relation(names, path) is not None):
            return UNKNOWN_AND_EPOCH  # with the name of the database, nothing is found
    return NOTHING


class _Unknown(Exception):
    """No error: the answer is that there is none."""


class _Closure:
    """The closure over one catalog of what one statement touches."""

    __slots__ = ("catalog", "ends_epoch", "found", "path", "read", "running", "seen")

    def __init__(self, catalog: Catalog, path: Sequence[int]) -> None:
        self.catalog = catalog
        self.path = tuple(path) if PG_CATALOG in path else (PG_CATALOG, *path)
        self.found: set[int] = set()
        self.seen: set[tuple[int, Event]] = set()
        self.read: set[int] = set()
        self.running: set[int] = set()
        self.ends_epoch = False

    def writes(self, what: Touched) -> Writes:
        try:
            self._targets(what)
            self._code(what)
        except _Unknown:
            return UNKNOWN_AND_EPOCH if self.ends_epoch else UNKNOWN
        return Writes(frozenset(self.found)) if self.found else NOTHING

    def refresh(self, relation: Tree) -> Writes:
        schema = relation.get("schemaname")
        name = relation.get("relname", "")
        found = self.catalog.relation((name,) if schema is None else (schema, name), self.path)
        if found is None or not self._is_harmless_behind("relation", found.oid):
            return UNKNOWN
        return Writes(frozenset((found.oid,)))

    # --- targets ---

    def _targets(self, what: Touched) -> None:
        for names, event in what.targets:
            relation = self.catalog.relation(names, self.path)
            if relation is None:
                raise _Unknown  # a temporary table, or one that is newer than the catalog: its triggers may do anything
            if self.catalog.schema_names.get(relation.schema) in ("pg_catalog", "information_schema"):
                self.ends_epoch = True
                raise _Unknown
            self._change(relation.oid, event)

    def _change(self, oid: int, event: Event) -> None:
        """Rows of the relation change: with all its descendants, and what follows from that."""
        for member in self.catalog.descendants.get(oid, frozenset((oid,))):
            if (member, event) not in self.seen:
                self.seen.add((member, event))
                self._change_one(member, event)

    def _change_one(self, oid: int, event: Event) -> None:
        relation = self.catalog.relations.get(oid)
        if relation is None or oid in self.catalog.rules:
            raise _Unknown
        for function in self.catalog.triggers.get(oid, ()):
            self._trigger(function)
        if not self._is_harmless_behind("relation", oid):
            raise _Unknown
        self.found.add(oid)
        if relation.kind == "p" and event is Event.UPDATE and self.catalog.identity.version < 150000:
            self._change(oid, Event.DELETE)  # a row that moves was deleted there, and what refers to it follows
        if relation.kind == "v":
            self._change_behind(relation, event)
        elif relation.kind not in ("r", "p", "m"):
            raise _Unknown  # behind a foreign table may stand a local one
        for key in self.catalog.foreign_keys_by_parent.get(oid, ()):
            follows = _follows(event, key.on_update, key.on_delete)
            if follows is not None:
                self._change(key.child, follows)

    def _trigger(self, oid: int) -> None:
        """A trigger makes the write unknown, unless its function only looks at its row, or was declared."""
        if oid in self.running:
            return
        self.running.add(oid)
        function = self.catalog.function_by_oid.get(oid)
        if function is None:
            raise _Unknown
        if function.is_builtin:
            if function.name not in _TAME_TRIGGERS:
                raise _Unknown
            return
        tables = self.catalog.declarations.functions.get(self.catalog.qualified(function))
        if tables is None:
            raise _Unknown
        for table in tables:
            relation = self.catalog.relation(tuple(table.split(".", 1)), self.path)
            if relation is None:
                raise _Unknown
            for event in (Event.INSERT, Event.UPDATE, Event.DELETE):
                self._change(relation.oid, event)

    def _change_behind(self, view: Relation, event: Event) -> None:
        """An updatable view: whichever relation of its body is changed, it is one of them (sql-createview)."""
        outer, self.path = self.path, (PG_CATALOG,)
        body = self._body(view.oid)
        for names in body.relations:
            relation = self.catalog.relation(names, self.path)
            if relation is not None:
                self._change(relation.oid, event)
            elif names[-1] not in body.cte_names:
                raise _Unknown
        self.path = outer

    def _body(self, view: int) -> Touched:
        found = self.catalog.memo.get(("body", view))
        if isinstance(found, Touched):
            return found
        try:
            ((node, tree),) = parse_tree(self.catalog.view_bodies.get(view, ""))["stmts"][0]["stmt"].items()
        except (ParseError, ValueError, KeyError, RecursionError):
            raise _Unknown from None
        body = touched(node, tree)
        self.catalog.memo["body", view] = body
        return body

    # --- code that may run on the way ---

    def _code(self, what: Touched) -> None:
        catalog = self.catalog
        for call in what.calls:
            meant = [
                function
                for function in catalog.functions.get(call.names[-1], ())
                if self._is_meant(function.schema, call.names) and function.accepts(call.arguments)
            ]
            is_cast = call.arguments in (1, None) and self._cast(call.names)
            if not meant and not is_cast:
                raise _Unknown  # newer than the catalog, or in pg_temp
            for function in meant:
                self._run("function", function.oid)
        for names in what.operators:
            for operator in catalog.operators.get(names[-1] if names else "", ()):
                if operator.is_own and self._is_meant(operator.schema, names):
                    self._run("function", operator.function)
        for name in what.attributes:
            for function in catalog.functions.get(name, ()):
                if function.schema in self.path and function.accepts(1) and catalog.takes_rows(function):
                    self._run("function", function.oid)
            self._cast((name,))
        for names in what.types:
            self._cast(names)
        for names in what.relations:
            self._read(names, what)
        if not _MAKES_VALUES.isdisjoint(
            [call.names[-1] for call in what.calls] + [names[-1] for names in what.operators if names]
        ):
            for oid in self.read:
                for type_ in catalog.columns.get(oid, {}).values():
                    self._run("type", type_)
        self._casts(what)

    def _casts(self, what: Touched) -> None:
        """Casts run where the text does not say so, if values of one of their types are near."""
        doubtful = [
            cast
            for cast in self.catalog.own_casts
            if cast.function and not self._is_harmless(self.catalog.function_by_oid.get(cast.function))
        ]
        if not doubtful:
            return
        near = {type_.oid for names in what.types if (type_ := self.catalog.type(names, self.path)) is not None}
        for oid in self.found | self.read:
            near.update(self.catalog.columns.get(oid, {}).values())
        for call in what.calls:
            near.update(function.result for function in self.catalog.functions.get(call.names[-1], ()))
        for cast in doubtful:
            own = {oid for oid in (cast.source, cast.target) if oid >= FIRST_OWN_OID}
            if not own or not own.isdisjoint(near):
                raise _Unknown

    def _is_meant(self, schema: int, names: Names) -> bool:
        if len(names) == 1:
            return schema in self.path
        return len(names) != 2 or self.catalog.schemas.get(names[0]) == schema

    def _read(self, names: Names, what: Touched) -> None:
        relation = self.catalog.relation(names, self.path)
        if relation is None:
            if len(names) == 1 and names[0] in what.cte_names:
                return
            raise _Unknown  # a temporary view, for all we know
        if relation.oid in self.read:
            return
        self.read.add(relation.oid)
        if self.catalog.schema_names.get(relation.schema) in ("pg_catalog", "information_schema"):
            return
        if relation.has_row_security and not self._is_harmless_behind("relation", relation.oid):
            raise _Unknown
        if relation.kind == "v":
            outer, self.path = self.path, (PG_CATALOG,)
            self._code(self._body(relation.oid))
            self.path = outer

    def _cast(self, names: Names) -> bool:
        """True if *names* is a type: then something becomes a value of it, also as ``name(x)`` and ``(x).name``."""
        type_ = self.catalog.type(names, self.path)
        if type_ is not None:
            self._run("type", type_.oid)
        return type_ is not None

    def _run(self, kind: str, oid: int) -> None:
        """What is behind it may run."""
        for call in self.catalog.calls_behind(kind, oid):
            self._must_be_harmless(self.catalog.function_by_oid.get(call))

    def _is_harmless_behind(self, kind: str, oid: int) -> bool:
        calls = self.catalog.calls_behind(kind, oid)
        return all(self._is_harmless(self.catalog.function_by_oid.get(call)) for call in calls)

    def _must_be_harmless(self, function: Function | None) -> None:
        if self._is_harmless(function):
            return
        if function is None:
            raise _Unknown
        self._trigger(function.oid)  # declared, it changes what it was declared to touch; else it is unknown

    def _is_harmless(self, function: Function | None) -> bool:
        """True if calling it changes no rows.

        STABLE is no proof: it may call a VOLATILE function (xfunc-volatility). Neither is IMMUTABLE, but that mark is believed by
        rule 14, and what passes the rules has not written (caching rules §11); a SECURITY DEFINER function does not pass.
        """
        if function is None:
            return False
        if function.is_builtin:
            return function.name.encode() not in _RUNS
        declared = self.catalog.declarations
        if self.catalog.qualified(function) in declared.functions:
            return function.volatility != "v" or not declared.functions[self.catalog.qualified(function)]
        return function.volatility == "i" and not function.is_security_definer and declared.trust_immutable


_MAKES_VALUES: Final = frozenset(
    """json_populate_record json_populate_recordset jsonb_populate_record jsonb_populate_recordset jsonb_populate_record_valid
    array_append array_prepend array_cat array_replace array_remove array_position array_positions array_fill ||""".split()
)
"""Built-ins that make values of a type that only their arguments tell: rows of a table that is read, elements of its arrays."""
_RUNS: Final = RUNS_SQL | HIDES_RELATIONS
_TAME_TRIGGERS: Final = frozenset(
    ("suppress_redundant_updates_trigger", "tsvector_update_trigger", "tsvector_update_trigger_column")
)


def _follows(event: Event, on_update: str, on_delete: str) -> Event | None:
    """What a change of the referenced relation does to the referencing one (ddl-constraints-fk); ``None``: nothing."""
    match event:
        case Event.TRUNCATE_CASCADE:
            return Event.TRUNCATE_CASCADE
        case Event.DELETE:
            return {"c": Event.DELETE, "n": Event.UPDATE, "d": Event.UPDATE}.get(on_delete)
        case Event.UPDATE:
            return Event.UPDATE if on_update in _CASCADES else None
        case _:
            return None


_CASCADES: Final = frozenset("cnd")


def union(several: Iterable[Writes]) -> Writes:
    """What a transaction of these may change."""
    found = NOTHING
    for one in several:
        found |= one
    return found
