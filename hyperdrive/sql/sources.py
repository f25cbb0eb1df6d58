"""Where a converted value comes from, as far as a text can tell.

``c::date`` is harmless when ``c`` is a timestamp, and is ``now()`` in disguise when ``c`` is a text that says ``today`` (caching
rule 16). Only for such conversions the text's expressions are written down here as small tuples, which ``infer`` later reads with
the catalog. There are no scopes: a name stands for everything in the statement that could be meant by it, so that a mistake can
only be a refusal too many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

Tree: TypeAlias = dict[str, Any]

Source: TypeAlias = tuple[Any, ...]
"""One of::

    ("none",)                        literals only: they are scanned
    ("unknown",)                     anything else
    ("parameter", number)
    ("column", name)
    ("row", alias)                   ``t.*``, all of a row
    ("type", names, is_array)        the result of a conversion
    ("call", names, sources)
    ("operator", names, left, right)
    ("any", sources)                 one of these: CASE, COALESCE, a set operation
    ("array", source)                an array of these
    ("element", source)              an element of an array
    ("fields", source)               a row of these
"""

NONE: Final[Source] = ("none",)
UNKNOWN: Final[Source] = ("unknown",)
_MAX_DEPTH: Final = 40

Definitions: TypeAlias = dict[str, tuple[Source, ...]]
"""Name of an output column → everything in the statement that is called so. Under ``*`` stands what may define any name."""


def names_of(parts: Sequence[Tree]) -> tuple[str, ...]:
    """The words of a qualified name, without the database's."""
    if len(parts) == 1 and "String" in parts[0]:  # most are of one word
        return (parts[0]["String"].get("sval", ""),)
    return tuple([part["String"].get("sval", "") for part in parts if "String" in part])


def source(tree: Tree, depth: int = 0) -> Source:
    """Return what the expression *tree* is made of."""
    if depth > _MAX_DEPTH or not tree:
        return UNKNOWN
    ((node, value),) = tree.items()
    reader = _READERS.get(node)
    return UNKNOWN if reader is None else reader(value, depth + 1)


def _any(trees: Iterable[Tree | None], depth: int) -> Source:
    return ("any", tuple([source(tree, depth) for tree in trees if tree]))


def _column(value: Tree, depth: int) -> Source:
    fields = value["fields"]
    last = fields[-1].get("String")
    if last is not None:
        return ("column", last.get("sval", ""))
    return ("row", names_of(fields)[0]) if len(fields) == 2 else UNKNOWN


def _cast(value: Tree, depth: int) -> Source:
    type_ = value["typeName"]
    return ("type", names_of(type_.get("names", ())), "arrayBounds" in type_)


def _call(value: Tree, depth: int) -> Source:
    arguments = value.get("args", ())
    if any("NamedArgExpr" in argument for argument in arguments) or "func_variadic" in value:
        return UNKNOWN
    return ("call", names_of(value.get("funcname", ())), tuple([source(argument, depth) for argument in arguments]))


def _expression(value: Tree, depth: int) -> Source:
    kind = value.get("kind")
    left, right = value.get("lexpr"), value.get("rexpr")
    if kind == "AEXPR_OP":
        return (
            "operator",
            names_of(value.get("name", ())),
            NONE if left is None else source(left, depth),
            NONE if right is None else source(right, depth),
        )
    if kind == "AEXPR_NULLIF":
        return source(left or {}, depth)
    return ("type", ("pg_catalog", "bool"), False)


def _case(value: Tree, depth: int) -> Source:
    results = [item.get("CaseWhen", {}).get("result") for item in value.get("args", ())]
    return _any([*results, value.get("defresult")], depth)


def _subquery(value: Tree, depth: int) -> Source:
    kind = value.get("subLinkType")
    if kind not in ("EXPR_SUBLINK", "ARRAY_SUBLINK"):
        return ("type", ("pg_catalog", "bool"), False)
    outputs_ = outputs(value.get("subselect", {}).get("SelectStmt", {}), depth)
    return UNKNOWN if outputs_ is None or not outputs_ else outputs_[0][1]


def _indirection(value: Tree, depth: int) -> Source:
    last = value["indirection"][-1]
    if "String" in last:
        return UNKNOWN
    if "A_Indices" in last and len(value["indirection"]) == 1:
        inner = source(value["arg"], depth)
        return inner if "is_slice" in last["A_Indices"] else ("element", inner)
    return UNKNOWN


_READERS: Final[dict[str, Callable[[Tree, int], Source]]] = {
    "A_Const": lambda value, depth: NONE,
    "ParamRef": lambda value, depth: ("parameter", value.get("number", 0)),
    "ColumnRef": _column,
    "TypeCast": _cast,
    "FuncCall": _call,
    "A_Expr": _expression,
    "CaseExpr": _case,
    "CoalesceExpr": lambda value, depth: _any(value.get("args", ()), depth),
    "MinMaxExpr": lambda value, depth: _any(value.get("args", ()), depth),
    "A_ArrayExpr": lambda value, depth: ("array", _any(value.get("elements", ()), depth)),
    "RowExpr": lambda value, depth: ("fields", _any(value.get("args", ()), depth)),
    "CollateClause": lambda value, depth: source(value["arg"], depth),
    "SubLink": _subquery,
    "A_Indirection": _indirection,
    "BoolExpr": lambda value, depth: ("type", ("pg_catalog", "bool"), False),
    "NullTest": lambda value, depth: ("type", ("pg_catalog", "bool"), False),
}

# --- what the statement itself gives a name to ---


def outputs(select: Tree, depth: int = 0) -> list[tuple[str, Source]] | None:
    """The output columns of *select* with their sources; ``None``: a star, or nested too deeply."""
    if depth > _MAX_DEPTH:
        return None
    if "larg" in select:
        left, right = outputs(select["larg"], depth + 1), outputs(select.get("rarg", {}), depth + 1)
        if left is None or right is None or len(left) != len(right):
            return None
        # As PostgreSQL does: names from the left, a type that both have in common.
        return [(name, ("any", (one, other))) for (name, one), (_, other) in zip(left, right, strict=True)]
    if "valuesLists" in select:
        return _values(select["valuesLists"], depth)
    found = []
    for item in select.get("targetList", ()):
        target = item["ResTarget"]
        value = target.get("val", {})
        if _is_star(value):
            return None
        found.append((target.get("name") or _own_name(value), source(value, depth + 1)))
    return found


def _values(rows: list[Tree], depth: int) -> list[tuple[str, Source]]:
    columns = zip(*[row["List"].get("items", ()) for row in rows], strict=False)
    return [(f"column{number}", _any(column, depth + 1)) for number, column in enumerate(columns, 1)]


def _is_star(value: Tree) -> bool:
    column = value.get("ColumnRef")
    if column is not None:
        return "A_Star" in column["fields"][-1]
    return "A_Star" in value.get("A_Indirection", {}).get("indirection", [{}])[-1]


def _own_name(value: Tree) -> str:
    """The name that PostgreSQL gives an output without AS; only those that can be referred to by accident matter."""
    if "ColumnRef" in value:
        return str(value["ColumnRef"]["fields"][-1].get("String", {}).get("sval", ""))
    if "FuncCall" in value:
        return names_of(value["FuncCall"].get("funcname", ()))[-1]
    if "TypeCast" in value:
        inner = _own_name(value["TypeCast"]["arg"])
        return inner or names_of(value["TypeCast"]["typeName"].get("names", ()))[-1]
    if "CollateClause" in value:
        return _own_name(value["CollateClause"]["arg"])
    if "SubLink" in value:
        inner_outputs = outputs(value["SubLink"].get("subselect", {}).get("SelectStmt", {}), _MAX_DEPTH - 2)
        return inner_outputs[0][0] if inner_outputs else ""
    if "A_Indirection" in value:
        words = names_of(value["A_Indirection"]["indirection"])
        return words[-1] if words else _own_name(value["A_Indirection"]["arg"])
    return {"CaseExpr": "case", "CoalesceExpr": "coalesce", "A_ArrayExpr": "array", "RowExpr": "row"}.get(
        next(iter(value), ""), ""
    )


def definitions(nodes: Iterable[tuple[str, Tree]]) -> Definitions:
    """Everything in a statement that gives a name to a column, other than relations. *nodes* are all its SELECTs and
    everything in FROM that could have a name, as ``(node, tree)``."""
    found: dict[str, list[Source]] = {}
    for node, tree in nodes:
        _define(found, node, tree)
    return {name: tuple(sources) for name, sources in found.items()}


def _define(found: dict[str, list[Source]], key: str, value: Tree) -> None:
    def add(name: str, what: Source) -> None:
        found.setdefault(name, []).append(what)

    if key == "SelectStmt":  # wrapped or not
        for name, what in outputs(value) or ():
            add(name, what)
        if "larg" in value and outputs(value) is None:
            add("*", UNKNOWN)
    elif key == "CommonTableExpr":
        _rename(found, value.get("aliascolnames", ()), value.get("ctequery", {}).get("SelectStmt", {}))
        if "search_clause" in value or "cycle_clause" in value:
            add("*", UNKNOWN)
    elif key == "RangeSubselect":
        _rename(found, value.get("alias", {}).get("colnames", ()), value.get("subquery", {}).get("SelectStmt", {}))
    elif key == "RangeFunction":
        _define_function(found, value)
    elif key in ("RangeVar", "JoinExpr"):
        for name in names_of(value.get("alias", {}).get("colnames", ())):
            add(name, UNKNOWN)
    elif key in ("JsonTable", "RangeTableFunc"):
        add("*", UNKNOWN)


def _rename(found: dict[str, list[Source]], new_names: Sequence[Tree], select: Tree) -> None:
    names = names_of(new_names)
    if names:
        columns = outputs(select) or []
        for position, name in enumerate(names):
            found.setdefault(name, []).append(columns[position][1] if position < len(columns) else UNKNOWN)


def _define_function(found: dict[str, list[Source]], value: Tree) -> None:
    alias = value.get("alias", {})
    names = [alias.get("aliasname", ""), *names_of(alias.get("colnames", ()))]
    functions = value.get("functions", ())
    call = functions[0].get("List", {}).get("items", [{}])[0] if len(functions) == 1 else {}
    if "FuncCall" not in call or "coldeflist" in value or len(names) > 3:
        found.setdefault("*", []).append(UNKNOWN)
        return
    # A function of one column: it is called like the alias, or like the function itself. One of several columns defines any
    # name, which only the catalog can tell: ``infer`` reads "rows" so.
    what = source(call)
    for name in {*names[:2], names_of(call["FuncCall"]["funcname"])[-1]} - {""}:
        found.setdefault(name, []).append(what)
    for name in names[2:]:  # WITH ORDINALITY
        found.setdefault(name, []).append(("type", ("pg_catalog", "int8"), False) if "ordinality" in value else UNKNOWN)
    found.setdefault("*", []).append(("rows", what))
