"""One walk over a statement's tree, collecting what could matter to a session.

The tree is the JSON of libpg_query. Fields with one concrete type are not wrapped in a node name there (``relation``,
``intoClause``, ``withClause`` …), so the walk goes by key; a client's words are values, never keys. Zero, false and empty values
are omitted. A node that no proven read is known to contain makes it no read: unknown means refuse (caching rule 4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from hyperdrive.sql import functions
from hyperdrive.sql.verdict import (
    AdvisoryLock,
    AdvisoryUnlock,
    Argument,
    Effect,
    Mark,
    Parameter,
    Relation,
    SetConfig,
    TempObject,
)

Tree: TypeAlias = dict[str, Any]

READ_NODES: Final = frozenset(
    """SelectStmt ResTarget ColumnRef A_Const A_Star A_Expr A_ArrayExpr A_Indices A_Indirection BoolExpr BooleanTest NullTest
    CaseExpr CaseWhen CoalesceExpr MinMaxExpr CollateClause CommonTableExpr FuncCall GroupingFunc GroupingSet JoinExpr List
    NamedArgExpr ParamRef RangeFunction RangeSubselect RangeTableSample RangeVar RowExpr SortBy SQLValueFunction String Integer
    Float Boolean BitString SubLink TypeCast TypeName WindowDef XmlExpr XmlSerialize Alias
    JsonObjectConstructor JsonArrayConstructor JsonArrayQueryConstructor JsonObjectAgg JsonArrayAgg JsonParseExpr JsonScalarExpr
    JsonSerializeExpr JsonIsPredicate JsonFuncExpr JsonKeyValue JsonValueExpr JsonArgument JsonTable JsonTableColumn
    JsonTablePathSpec RangeTableFunc RangeTableFuncCol""".split()
)


class Findings:
    """What the walk over one statement has found; to be read once it is done."""

    __slots__ = (
        "calls_nextval",
        "effects",
        "has_into",
        "is_locking",
        "is_pure",
        "reads_currval",
        "relations",
        "runs_unknown",
        "takes_locks",
        "unknown_functions",
        "writes",
    )

    def __init__(self) -> None:
        self.effects: list[tuple[int, Effect]] = []
        """With their places, in the order of the text."""
        self.relations: dict[Relation, None] = {}
        self.unknown_functions: dict[bytes, None] = {}
        self.runs_unknown = False
        """Calls something that may do anything to the session."""
        self.is_pure = True
        """Only known nodes and functions that a proven read may hold."""
        self.writes = False
        """Holds INSERT, UPDATE, DELETE or MERGE at some depth."""
        self.has_into = False
        self.takes_locks = False
        self.reads_currval = False
        self.calls_nextval = False


def walk(node: str, tree: Tree, encode: Callable[[str], bytes]) -> Findings:
    """Return the findings of the statement *tree* of type *node*; *encode* turns its words into the client's bytes."""
    found = Findings()
    once = _called_once(node, tree)
    if node in _VISITORS:
        _VISITORS[node](found, tree, encode, once)
    stack: list[Tree] = [tree]
    while stack:
        for key, value in stack.pop().items():
            type_ = type(value)  # exact types of json; isinstance costs more, and this loop is most of classify
            if type_ is dict:
                if key in _LEAVES:
                    continue
                visitor = _VISITORS.get(key)
                if visitor is not None:
                    visitor(found, value, encode, once)
                elif key < "a" and key not in READ_NODES:  # node types begin with a capital, fields do not
                    found.is_pure = False
                stack.append(value)
            elif type_ is list and key not in _NAMES:
                if key == "lockingClause":
                    found.takes_locks = True
                    found.is_pure = False
                stack.extend([item for item in value if type(item) is dict])
    if len(found.effects) > 1:
        found.effects.sort(key=lambda effect: effect[0])
    return found


# Below these there is nothing but names and constants (type modifiers must be constants as well, or parse analysis fails).
_LEAVES: Final = frozenset("A_Const ColumnRef ParamRef SQLValueFunction String TypeName typeName".split())
_NAMES: Final = frozenset(("funcname", "name"))


def _called_once(node: str, tree: Tree) -> frozenset[int]:
    """Identities of the calls that run exactly once if the statement succeeds.

    They are outputs of a SELECT without FROM, WHERE and the like, beside nothing but constants and calls of the same kind, with
    constants as arguments: any other function might return a set, and the outputs run once per row of it.
    """
    if node != "SelectStmt" or not _ONCE.issuperset(tree):
        return frozenset()
    calls = []
    for item in tree.get("targetList", ()):
        value = _without_casts(item.get("ResTarget", {}).get("val", {}))
        call = value.get("FuncCall")
        if call is None:
            if "A_Const" not in value and "ParamRef" not in value:
                return frozenset()
        elif _last_name(call) not in _SINGLE or not all(_is_constant(argument) for argument in call.get("args", ())):
            return frozenset()
        else:
            calls.append(id(call))
    return frozenset(calls)


_ONCE: Final = frozenset(("targetList", "limitOption", "op"))
_SINGLE: Final = frozenset(
    name.decode()
    for name in functions.ADVISORY_LOCK
    | functions.ADVISORY_UNLOCK
    | functions.ADVISORY_XACT_LOCK
    | {
        b"set_config",
        b"setseed",
        b"pg_advisory_unlock_all",
        b"pg_notify",
        b"current_setting",
        b"pg_backend_pid",
        b"version",
    }
)


def _last_name(call: Tree) -> str:
    name = call["funcname"][-1].get("String", {}).get("sval", "")
    return name if isinstance(name, str) else ""


def _is_constant(node: Tree) -> bool:
    node = _without_casts(node.get("NamedArgExpr", {}).get("arg", node))
    return "A_Const" in node or "ParamRef" in node


def _without_casts(node: Tree) -> Tree:
    while "TypeCast" in node:
        node = node["TypeCast"].get("arg", {})
    return node


def constant(node: Tree, encode: Callable[[str], bytes]) -> Argument:
    """Return the constant or parameter that *node* is, NULL excepted; ``None`` if it is anything else."""
    node = _without_casts(node)
    if "ParamRef" in node:
        return Parameter(node["ParamRef"].get("number", 0))
    value = node.get("A_Const")
    if value is None:
        return None
    if "sval" in value:
        return encode(value["sval"].get("sval", ""))
    if "ival" in value:
        return b"%d" % value["ival"].get("ival", 0)
    if "fval" in value:
        return encode(value["fval"].get("fval", ""))
    if "boolval" in value:
        return b"true" if value["boolval"].get("boolval") else b"false"
    return None


def _function(found: Findings, call: Tree, encode: Callable[[str], bytes], once: frozenset[int]) -> None:
    path = [encode(part["String"].get("sval", "")) for part in call.get("funcname", ()) if "String" in part]
    if len(path) == 2 and path[0] == b"pg_catalog":
        del path[0]
    name = b".".join(path)
    if name in functions.READ:
        return
    found.is_pure = False
    if name not in functions.KNOWN:
        found.runs_unknown = found.takes_locks = True
        if name not in functions.RUNS_SQL:
            found.unknown_functions[name] = None
        return
    arguments = call.get("args", [])
    is_exact = id(call) in once
    effect: Effect
    add, place = found.effects.append, call.get("location", 0)
    if name == b"set_config":
        effect = _set_config(arguments, encode, is_exact)
        add((place, effect))
        if isinstance(effect.value, bytes) and b"pg_temp" in effect.value.lower():
            # With pg_temp first in search_path whatever is created is temporary, unqualified as it is.
            add((place, TempObject(None)))
    elif name in functions.ADVISORY_LOCK:
        found.takes_locks = True
        key = _key(arguments, encode)
        add((place, AdvisoryLock(key if is_exact else None, name.endswith(b"_shared"))))
    elif name in functions.ADVISORY_UNLOCK:
        found.takes_locks = True
        key = _key(arguments, encode)
        if is_exact and key is not None:
            add((place, AdvisoryUnlock(key, name.endswith(b"_shared"))))
    elif name == b"pg_advisory_unlock_all":
        found.takes_locks = True
        if is_exact:
            add((place, Mark.ADVISORY_UNLOCK_ALL))
    elif name in functions.ADVISORY_XACT_LOCK:
        found.takes_locks = True
    elif name == b"setseed":
        add((place, Mark.SETSEED))
    elif name in functions.SESSION_STATE:
        add((place, Mark.SESSION_FUNCTION))
    elif name in functions.CURRVAL:
        found.reads_currval = True
    elif name in (b"nextval", b"setval"):
        found.calls_nextval = True


def _key(arguments: list[Tree], encode: Callable[[str], bytes]) -> tuple[Argument, ...] | None:
    key = tuple(constant(argument, encode) for argument in arguments)
    return None if None in key or not 1 <= len(key) <= 2 else key


def _set_config(arguments: list[Tree], encode: Callable[[str], bytes], is_exact: bool) -> SetConfig:
    """``set_config(setting_name, new_value, is_local)``, whose arguments may also be named (func_args)."""
    slots: dict[str, Tree] = {}
    for position, argument in enumerate(arguments):
        named = argument.get("NamedArgExpr")
        if named is None:
            slots[("setting_name", "new_value", "is_local")[position] if position < 3 else ""] = argument
        else:
            slots[named.get("name", "")] = named.get("arg", {})
    name = constant(slots.get("setting_name", {}), encode)
    local = constant(slots.get("is_local", {}), encode)
    value = slots.get("new_value", {})
    while _is_text_cast(value):
        value = value["TypeCast"]["arg"]
    is_given = "ParamRef" in value or not _STRINGS.isdisjoint(value.get("A_Const", {}))
    is_local: bool | Parameter | None
    if isinstance(local, Parameter):
        is_local = local
    elif local is None:
        is_local = None
    else:
        is_local = _BOOLEANS.get(local.strip().lower())
    return SetConfig(
        name=name.lower() if isinstance(name, bytes) else name,
        value=constant(value, encode) if is_given else None,
        is_null="isnull" in _without_casts(value).get("A_Const", {}),
        is_local=is_local,
        is_exact=is_exact,
    )


_STRINGS: Final = frozenset({"sval", "ival"})
"""Constants whose text is what they are written as."""
_TEXTS: Final = (["text"], ["pg_catalog", "text"], ["pg_catalog", "varchar"])


def _is_text_cast(node: Tree) -> bool:
    """Whether *node* is a cast that leaves a string as it is. Others make another text of it: of a number, of a uuid, cut to a length."""
    to = node.get("TypeCast", {}).get("typeName", {})
    names = [name.get("String", {}).get("sval", "") for name in to.get("names", ())]
    return names in _TEXTS and "typmods" not in to and "arrayBounds" not in to


# datatype-boolean, without the prefixes that nobody writes: those are None, unknown.
_BOOLEANS: Final = {
    **dict.fromkeys((b"true", b"t", b"yes", b"y", b"on", b"1"), True),
    **dict.fromkeys((b"false", b"f", b"no", b"n", b"off", b"0"), False),
}


def _relation(found: Findings, var: Tree, encode: Callable[[str], bytes], once: frozenset[int]) -> None:
    if "relname" in var:
        schema = var.get("schemaname")
        found.relations[Relation(None if schema is None else encode(schema), encode(var["relname"]))] = None


def _into(found: Findings, into: Tree, encode: Callable[[str], bytes], once: frozenset[int]) -> None:
    found.has_into = True
    found.is_pure = False
    temp = temp_object(into.get("rel", {}), encode, into.get("onCommit"))
    if temp is not None:
        found.effects.append((0, temp))


def _write(found: Findings, statement: Tree, encode: Callable[[str], bytes], once: frozenset[int]) -> None:
    found.writes = True
    found.is_pure = False
    if statement.get("relation", {}).get("relname") == "pg_settings":
        # An UPDATE of that view is a SET, without the tag (view-pg-settings).
        found.runs_unknown = True
        found.effects.append((0, SetConfig(None, None, is_null=False, is_local=False, is_exact=False)))


def temp_object(var: Tree, encode: Callable[[str], bytes], on_commit: str | None) -> TempObject | None:
    """Return the temporary object that creating the relation *var* makes, if it does."""
    schema = var.get("schemaname", "")
    if var.get("relpersistence") == "t" or schema.startswith("pg_temp"):
        return TempObject(encode(var.get("relname", "")) or None, on_commit == "ONCOMMIT_DROP")
    return None


_Visitor: TypeAlias = Callable[[Findings, Tree, Callable[[str], bytes], frozenset[int]], None]
_VISITORS: Final[dict[str, _Visitor]] = {
    "FuncCall": _function,
    "funccall": _function,  # of CALL: not wrapped
    "RangeVar": _relation,
    "relation": _relation,
    "intoClause": _into,
    "into": _into,  # of CREATE TABLE AS
    "InsertStmt": _write,
    "UpdateStmt": _write,
    "DeleteStmt": _write,
    "MergeStmt": _write,
}
