"""What a statement of any kind touches, for the question what it may change; one tolerant walk over its tree.

Unlike ``reads`` it refuses nothing: data-modifying statements are listed with their targets, reads with their relations, and every
call, operator, type and qualified name that could run a user's function. ``writes`` judges them with the catalog.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

from hyperdrive.sql.reading import Call, Names
from hyperdrive.sql.sources import names_of

Tree: TypeAlias = dict[str, Any]


class Event(Enum):
    """What happens to rows of a relation."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    TRUNCATE = "truncate"
    TRUNCATE_CASCADE = "truncate cascade"


class Touched(NamedTuple):
    """What one statement names. Names of CTEs are among the relations, wherever they might be meant."""

    targets: frozenset[tuple[Names, Event]]
    relations: frozenset[Names]
    cte_names: frozenset[str]
    calls: frozenset[Call]
    operators: frozenset[Names]
    types: frozenset[Names]
    attributes: frozenset[str]


class _Walk:
    __slots__ = ("attributes", "calls", "ctes", "operators", "relations", "targets", "types")

    def __init__(self) -> None:
        self.targets: set[tuple[Names, Event]] = set()
        self.relations: set[Names] = set()
        self.ctes: set[str] = set()
        self.calls: set[Call] = set()
        self.operators: set[Names] = set()
        self.types: set[Names] = set()
        self.attributes: set[str] = set()

    def target(self, value: Tree | None, *events: Event) -> None:
        names = _relation_names(value or {})
        self.targets.update((names, event) for event in events)

    def insert(self, value: Tree) -> None:
        conflict = value.get("onConflictClause", {}).get("action") == "ONCONFLICT_UPDATE"
        self.target(value.get("relation"), Event.INSERT, *((Event.UPDATE,) if conflict else ()))

    def update(self, value: Tree) -> None:
        self.target(value.get("relation"), Event.UPDATE)

    def delete(self, value: Tree) -> None:
        self.target(value.get("relation"), Event.DELETE)

    def merge(self, value: Tree) -> None:
        self.target(value.get("relation"), Event.INSERT, Event.UPDATE, Event.DELETE)

    def truncate(self, value: Tree) -> None:
        event = Event.TRUNCATE_CASCADE if value.get("behavior") == "DROP_CASCADE" else Event.TRUNCATE
        for relation in value.get("relations", ()):
            self.target(relation.get("RangeVar"), event)

    def copy(self, value: Tree) -> None:
        if value.get("is_from"):
            self.target(value.get("relation"), Event.INSERT)

    def relation(self, value: Tree) -> None:
        if "relname" in value:
            self.relations.add(_relation_names(value))

    def cte(self, value: Tree) -> None:
        self.ctes.add(value.get("ctename", ""))

    def call(self, value: Tree) -> None:
        is_plain = "func_variadic" not in value and "agg_within_group" not in value
        self.calls.add(Call(names_of(value.get("funcname", ())), len(value.get("args", ())) if is_plain else None))

    def operator(self, value: Tree) -> None:
        self.operators.add(names_of(value.get("name", ())))
        self.operators.update(_IMPLIED)

    def sublink(self, value: Tree) -> None:
        if "operName" in value:
            self.operators.add(names_of(value["operName"]))
        self.operators.update(_IMPLIED)

    def sort(self, value: Tree) -> None:
        if "useOp" in value:
            self.operators.add(names_of(value["useOp"]))

    def type(self, value: Tree) -> None:
        self.types.add(names_of(value.get("names", ())))

    def column(self, value: Tree) -> None:
        fields = value.get("fields", ())
        if len(fields) > 1 and "String" in fields[-1]:
            self.attributes.add(fields[-1]["String"].get("sval", ""))

    def indirection(self, value: Tree) -> None:
        self.attributes.update(names_of(value.get("indirection", ())))


_IMPLIED: Final = (("=",), ("<>",), ("<",), (">",), ("<=",), (">=",))
"""IN, BETWEEN, CASE, JOIN … USING compare with these without saying so."""


def _relation_names(value: Tree) -> Names:
    if "catalogname" in value:
        return (value["catalogname"], value.get("schemaname", ""), value.get("relname", ""))
    schema = value.get("schemaname")
    name = value.get("relname", "")
    return (name,) if schema is None else (schema, name)


_VISITORS: Final = {
    "InsertStmt": _Walk.insert,
    "UpdateStmt": _Walk.update,
    "DeleteStmt": _Walk.delete,
    "MergeStmt": _Walk.merge,
    "TruncateStmt": _Walk.truncate,
    "CopyStmt": _Walk.copy,
    "RangeVar": _Walk.relation,
    "relation": _Walk.relation,
    "CommonTableExpr": _Walk.cte,
    "FuncCall": _Walk.call,
    "A_Expr": _Walk.operator,
    "CaseExpr": lambda walk, value: walk.operators.update(_IMPLIED),
    "JoinExpr": lambda walk, value: walk.operators.update(_IMPLIED),
    "SubLink": _Walk.sublink,
    "SortBy": _Walk.sort,
    "TypeName": _Walk.type,
    "typeName": _Walk.type,
    "ColumnRef": _Walk.column,
    "A_Indirection": _Walk.indirection,
}


def touched(node: str, tree: Tree) -> Touched:
    """Return what the statement *tree* of type *node* touches."""
    walk = _Walk()
    stack: list[Any] = [{node: tree}]
    while stack:
        value = stack.pop()
        if type(value) is dict:
            for key, inner in value.items():
                if type(inner) is dict:
                    visitor = _VISITORS.get(key)
                    if visitor is not None:
                        visitor(walk, inner)
                    stack.append(inner)
                elif type(inner) is list:
                    stack.extend(inner)
        elif type(value) is list:
            stack.extend(value)
    return Touched(
        frozenset(walk.targets),
        frozenset(walk.relations),
        frozenset(walk.ctes),
        frozenset(walk.calls),
        frozenset(walk.operators),
        frozenset(walk.types),
        frozenset(walk.attributes),
    )
