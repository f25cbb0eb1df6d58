"""``analyse``: what a text reads, by the text alone; the syntactic verdict of caching rules §3.

One walk over PostgreSQL's parse tree refuses what the text betrays (rules 6, 8, 9, 11, 14, 16) and lists what only the catalog
knows: relations, functions, operators, conversions, column notation. ``resolve`` goes on from there. A ``Reading`` does not
depend on literals, except that they hold no clock word: ``shapes`` rests on that.

Fields with one concrete type are not wrapped in a node name in libpg_query's JSON (``larg``, ``withClause``, ``typeName``,
``over``), so the walk goes by key; a client's words are values, never keys. Unknown nodes are refused.
"""

from __future__ import annotations

from typing import Final

from hyperdrive.sql.builtins import IMMUTABLE, STABLE, VOLATILE
from hyperdrive.sql.grammar import ParseError, Tree, parse_tree
from hyperdrive.sql.lists import find_clock_word, is_never
from hyperdrive.sql.reading import Call, Conversion, Names, Reading
from hyperdrive.sql.rules import Refused, Rule
from hyperdrive.sql.sources import NONE, UNKNOWN, Source, definitions, names_of, source
from hyperdrive.sql.tree import READ_NODES

MAX_READ_BYTES: Final = 16 * 1024
"""Longer texts are not read (AWS Advanced JDBC Wrapper's cap): a miss would hold up other sessions."""


def analyse(sql: bytes) -> Reading | Refused:
    """Return what the text *sql* reads, or why it can never be cached. Never raises.

    *sql* is in UTF-8 (rule ``encoding``) and read with ``standard_conforming_strings = on``. Comments do not matter.
    """
    if len(sql) > MAX_READ_BYTES:
        return Refused(Rule.TOO_LONG, f"{len(sql)} bytes", f"statements up to {MAX_READ_BYTES} bytes are cached")
    if b"\0" in sql:
        return Refused(Rule.SYNTAX, "a zero byte")
    try:
        text = sql.decode()
    except UnicodeDecodeError:
        return Refused(Rule.ENCODING, "not UTF-8")
    return analyse_text(text)


def analyse_text(text: str) -> Reading | Refused:
    """The same for a text of our own: a view's body, an expression of the catalog. There is no bound of its length."""
    try:
        statements = parse_tree(text).get("stmts", ())
        if len(statements) != 1:
            what = f"{len(statements)} statements" if statements else "nothing to run"
            return Refused(Rule.MULTI_STATEMENT if statements else Rule.NOT_SELECT, what, "send them one by one")
        ((node, tree),) = statements[0]["stmt"].items()
        if node != "SelectStmt":
            return Refused(Rule.NOT_SELECT, node.removesuffix("Stmt").upper())
        return _Walk(tree).reading(len(text))
    except _Found as found:
        return found.refused
    except RecursionError:
        return Refused(Rule.SYNTAX, "nested too deeply")
    except (ParseError, ValueError) as exc:
        return Refused(Rule.SYNTAX, str(exc.args[0]) if exc.args else "")


class _Found(Exception):
    """Ends the walk; nothing is wrong."""

    def __init__(self, rule: Rule, object: str, hint: str = "") -> None:  # noqa: A002
        self.refused = Refused(rule, object, hint)


_SELECT_FIELDS: Final = frozenset(
    """distinctClause targetList fromClause whereClause groupClause groupDistinct havingClause windowClause valuesLists sortClause
    limitOffset limitCount limitOption withClause op all larg rarg""".split()
)
_NODES: Final = READ_NODES | {"ColumnDef"}  # of AS x(a int)
_VOLATILE: Final = frozenset(name.decode() for name in VOLATILE)
_ORDINARY: Final = frozenset(
    name for name in (function.decode() for function in IMMUTABLE | STABLE) if not is_never(name)
)
"""Functions whose names refuse nothing."""
_SYSTEM_COLUMNS: Final = frozenset(("ctid", "xmin", "xmax", "cmin", "cmax"))
_SPARE: Final = frozenset(("location", "funcname", "name", "typmods", "arrayBounds", "colnames", "aliascolnames"))

# Types that no clock word can become: conversions to them need no source.
_TIMELESS: Final = frozenset(
    [
        ("pg_catalog", name)
        for name in "int2 int4 int8 float4 float8 numeric bool bpchar varchar bit varbit interval".split()
    ]
    + [
        (name,)
        for name in "text json jsonb uuid bytea oid name xml inet cidr tsvector tsquery jsonpath money bigint".split()
    ]
)


class _Walk:
    __slots__ = (
        "aliases", "attributes", "calls", "columns", "ctes", "has_star", "literals", "naming", "open", "operators",
        "parameters", "relations", "sampling", "stack", "tree", "types",
    )  # fmt: skip

    def __init__(self, tree: Tree) -> None:
        # Dicts for sets: made in half the time, and in the order of the text.
        self.tree = tree
        self.relations: dict[Names, None] = {}
        self.ctes: dict[str, None] = {}
        self.columns: dict[str, None] = {}
        self.has_star = False
        self.attributes: dict[tuple[str, str], None] = {}
        self.aliases: dict[tuple[str, Names], None] = {}
        self.calls: dict[Call, None] = {}
        self.operators: dict[Names, None] = {}
        self.types: list[tuple[Names, bool, Tree | Source, bool]] = []
        self.open = False
        """Some conversion has a source that must be looked at."""
        self.sampling: dict[Names, None] = {}
        self.literals: list[str] = []
        self.naming: list[tuple[str, Tree]] = []
        self.parameters = 0
        self.stack: list[Tree] = []

    def reading(self, length: int) -> Reading:
        self._walk()
        for literal in self.literals:
            word = find_clock_word(literal)
            if word is not None:
                raise _Found(Rule.CLOCK_WORD, f"'{literal[:60]}'", _CLOCK_HINT)
        if not self.has_star:
            # A row as a whole: a name of FROM alone.
            for alias, _ in self.aliases:
                if alias in self.columns:
                    self.has_star = True
                    break
        conversions: tuple[Conversion, ...] = ()
        if self.types:
            conversions = tuple(
                [
                    Conversion(names, is_array, source(what) if isinstance(what, dict) else what, is_call)
                    for names, is_array, what, is_call in self.types
                ]
            )
        return Reading(
            tuple(self.relations),
            tuple(self.ctes),
            tuple(self.columns),
            self.has_star,
            tuple(self.attributes),
            tuple(self.aliases),
            tuple(self.calls),
            tuple(self.operators),
            conversions,
            tuple(self.sampling),
            definitions(self.naming) if self.open else {},
            self.parameters,
            700
            + 100 * (len(self.columns) + len(self.calls) + len(self.operators) + len(self.relations))
            + (8 * length if self.open else 0),
        )

    def _walk(self) -> None:
        self._select(self.tree)
        stack = self.stack
        stack.append(self.tree)
        columns, visitors, nodes = self.columns, _VISITORS, _NODES
        pop, append, extend = stack.pop, stack.append, stack.extend
        while stack:
            for key, value in pop().items():
                type_ = type(value)  # exact types of json; isinstance costs more, and this loop is most of the work
                if type_ is dict:
                    if key == "ColumnRef":  # of one word, as most are; the other frequent ones stand first in the table
                        fields = value["fields"]
                        if len(fields) == 1 and "String" in fields[0]:
                            name = fields[0]["String"].get("sval", "")
                            if name in _SYSTEM_COLUMNS:
                                raise _Found(Rule.SYSTEM_COLUMN, name, "leave the system column out")
                            columns[name] = None
                        else:
                            self._column(fields)
                        continue
                    visitor = visitors.get(key)
                    if visitor is not None:
                        visitor(self, value)
                    elif key < "a" and key not in nodes:  # node types begin with a capital, fields do not
                        raise _Found(Rule.NOT_SELECT, key.removesuffix("Stmt").upper())
                    else:
                        append(value)
                elif type_ is list:
                    if key not in _SPARE:
                        extend(value)

    # --- visitors; what is below the node goes on the stack, if it matters ---

    def _select(self, tree: Tree) -> None:
        if not _SELECT_FIELDS.issuperset(tree):
            if "lockingClause" in tree:
                lock = tree["lockingClause"][0].get("LockingClause", {}).get("strength", "")
                raise _Found(Rule.LOCKING, _LOCKS.get(lock, "locking clause"))
            if "intoClause" in tree:
                raise _Found(Rule.NOT_SELECT, "SELECT INTO")
            raise _Found(Rule.NOT_SELECT, ", ".join(sorted(set(tree) - _SELECT_FIELDS)))
        self.naming.append(("SelectStmt", tree))

    def _inner_select(self, tree: Tree) -> None:
        self._select(tree)
        self.stack.append(tree)

    def _constant(self, value: Tree) -> None:
        literal = value.get("sval")
        if literal is not None:
            self.literals.append(literal.get("sval", ""))

    def _column(self, fields: list[Tree]) -> None:
        last = fields[-1].get("String")
        if last is None:
            self.has_star = True
            return
        name = last.get("sval", "")
        if name in _SYSTEM_COLUMNS:
            raise _Found(Rule.SYSTEM_COLUMN, name, "leave the system column out")
        self.columns[name] = None
        if len(fields) > 1:
            self.attributes[fields[-2].get("String", {}).get("sval", ""), name] = None

    def _relation(self, value: Tree) -> None:
        name = value.get("relname")
        if name is None:  # a node in a field of that name: TABLESAMPLE's relation
            self.stack.append(value)
            return
        if "catalogname" in value:
            raise _Found(
                Rule.RELATION,
                f"{value['catalogname']}.{value.get('schemaname', '')}.{name}",
                "leave the database's name out",
            )
        schema = value.get("schemaname")
        names = (name,) if schema is None else (schema, name)
        self.relations[names] = None
        alias = value.get("alias")
        self.aliases[name if alias is None else alias["aliasname"], names] = None
        if alias is not None and "colnames" in alias:
            self.has_star = True  # renamed by position
            self.naming.append(("RangeVar", value))

    def _alias(self, value: Tree) -> None:
        self.aliases[value.get("aliasname", ""), ()] = None

    def _subselect(self, value: Tree) -> None:
        self.naming.append(("RangeSubselect", value))
        self.stack.append(value)

    def _range_function(self, value: Tree) -> None:
        self.naming.append(("RangeFunction", value))
        self.stack.append(value)

    def _json_table(self, value: Tree) -> None:
        self.naming.append(("JsonTable", value))
        self.stack.append(value)

    def _cte(self, value: Tree) -> None:
        self.ctes[value["ctename"]] = None
        self.naming.append(("CommonTableExpr", value))
        self.stack.append(value)

    def _target(self, value: Tree) -> None:
        # Below an output there is its value, unless it has an indirection, which a SELECT's has not.
        self.stack.append(value if "indirection" in value else value.get("val", _NO_NODE))

    def _boolean(self, value: Tree) -> None:
        self.stack.extend(value["args"])

    def _function(self, value: Tree) -> None:
        names = names_of(value["funcname"])
        arguments = value.get("args", ())
        count: int | None = len(arguments)
        name = names[-1]
        if name not in _ORDINARY:
            if is_never(name, count):
                raise _Found(Rule.FUNCTION, f"{name}()", _NEVER_HINTS.get(name, ""))
            if name in _VOLATILE and (len(names) == 1 or names[0] == "pg_catalog"):
                raise _Found(Rule.FUNCTION, f"{name}()", "compute it in the program")
        if "func_variadic" in value or "agg_within_group" in value:
            count = None
        self.calls[Call(names, count)] = None
        if count == 1 and name not in NO_TYPES:
            self.types.append((names, False, arguments[0], True))
            self.open = self.open or _needs_source(arguments[0])
        if "agg_order" in value or "agg_filter" in value or "over" in value:
            self.stack.append(value)
        else:
            self.stack.extend(arguments)

    def _value_function(self, value: Tree) -> None:
        word = str(value.get("op", "")).removeprefix("SVFOP_").removesuffix("_N")
        raise _Found(Rule.FUNCTION, word, "pass the value as a parameter")

    def _operator(self, value: Tree) -> None:
        kind = value.get("kind", "")
        if kind == "AEXPR_OP" or not kind.startswith(("AEXPR_BETWEEN", "AEXPR_NOT_BETWEEN")):
            self.operators[names_of(value["name"])] = None
        else:
            self.operators.update(_BETWEEN)
        if "lexpr" in value:
            self.stack.append(value["lexpr"])
        if "rexpr" in value:
            self.stack.append(value["rexpr"])

    def _case(self, value: Tree) -> None:
        if "arg" in value:
            self.operators[_EQUALS] = None
        self.stack.append(value)

    def _sublink(self, value: Tree) -> None:
        self.operators[names_of(value["operName"]) if "operName" in value else _EQUALS] = None
        self.stack.append(value)

    def _join(self, value: Tree) -> None:
        if "isNatural" in value:
            self.has_star = True
        using = value.get("usingClause")
        if using is not None:
            self.columns.update(dict.fromkeys(names_of(using)))
        self.operators[_EQUALS] = None
        self.naming.append(("JoinExpr", value))
        self.stack.append(value)

    def _sort(self, value: Tree) -> None:
        if "useOp" in value:
            self.operators[names_of(value["useOp"])] = None
        self.stack.append(value)

    def _cast(self, value: Tree) -> None:
        argument = value.get("arg", {})
        self._convert(value["typeName"], argument)
        self.stack.append(argument)

    def _type(self, value: Tree) -> None:
        self._convert(value, None)

    def _convert(self, type_: Tree, argument: Tree | None) -> None:
        names = names_of(type_.get("names", ()))
        if "pct_type" in type_ or not names:
            raise _Found(Rule.TYPE, ".".join(names) + "%TYPE")
        is_array = "arrayBounds" in type_
        what: Tree | Source
        if names in _TIMELESS or argument == {}:
            what = NONE
        elif argument is None:
            what = UNKNOWN
        elif "A_Const" in argument:
            what = NONE
        else:
            what = argument
            self.open = self.open or "ParamRef" not in argument
        self.types.append((names, is_array, what, False))

    def _parameter(self, value: Tree) -> None:
        number = value.get("number", 0)
        self.parameters = max(self.parameters, number)

    def _indirection(self, value: Tree) -> None:
        argument = value.get("arg", _NO_NODE)
        for part in value["indirection"]:
            if "String" in part:
                name = part["String"].get("sval", "")
                if name in _SYSTEM_COLUMNS:
                    raise _Found(Rule.SYSTEM_COLUMN, name, "leave the system column out")
                self.attributes["", name] = None
                self.columns[name] = None
                # `(x).date` is a cast, if x is no row (verified on 16, 18): judged like `date(x)`.
                self.types.append(((name,), False, argument, True))
                self.open = self.open or _needs_source(argument)
                argument = _NO_NODE  # whatever comes out of it
            elif "A_Star" in part:
                self.has_star = True
        self.has_star = True  # a row, or an element of a composite type
        self.stack.append(value)

    def _sample(self, value: Tree) -> None:
        if "repeatable" not in value:
            raise _Found(Rule.RELATION, "TABLESAMPLE", "add REPEATABLE (seed)")
        self.sampling[names_of(value.get("method", ()))] = None
        self.stack.append(value)


_CLOCK_HINT: Final = (
    "a literal that says now, today, tomorrow or yesterday may be the clock; pass it as a typed parameter"
)
_NEVER_HINTS: Final = {
    **dict.fromkeys(
        ("now", "transaction_timestamp", "statement_timestamp", "clock_timestamp"), "pass the time as a parameter"
    ),
    "age": "age(x, y) with a time of your own is cacheable",
    "current_setting": "pass the value as a parameter",
}
_LOCKS: Final = {
    "LCS_FORUPDATE": "FOR UPDATE",
    "LCS_FORNOKEYUPDATE": "FOR NO KEY UPDATE",
    "LCS_FORSHARE": "FOR SHARE",
    "LCS_FORKEYSHARE": "FOR KEY SHARE",
}
_BETWEEN: Final[dict[Names, None]] = dict.fromkeys(((">=",), ("<=",), ("<",), (">",)))
_EQUALS: Final = ("=",)
_NO_NODE: Final[Tree] = {}
# Frequent functions of one argument whose names are no types: whether they are calls needs no look at the argument.
NO_TYPES: Final = frozenset(
    """count sum avg min max lower upper length trim btrim ltrim rtrim abs round ceil floor sqrt array_agg json_agg jsonb_agg
    string_agg bool_and bool_or every row_to_json to_json to_jsonb unnest cardinality md5 initcap reverse exists jsonb_array_elements
    json_array_elements jsonb_object_keys json_build_array jsonb_build_array concat stddev variance first_value last_value""".split()
)


def _needs_source(argument: Tree) -> bool:
    return "A_Const" not in argument and "ParamRef" not in argument


_VISITORS: Final = {
    "SelectStmt": _Walk._inner_select,
    "larg": lambda walk, tree: walk._inner_select(tree) if "limitOption" in tree else walk.stack.append(tree),
    "rarg": lambda walk, tree: walk._inner_select(tree) if "limitOption" in tree else walk.stack.append(tree),
    "A_Const": _Walk._constant,
    "ResTarget": _Walk._target,
    "BoolExpr": _Walk._boolean,
    "RangeVar": _Walk._relation,
    "relation": _Walk._relation,
    "alias": _Walk._alias,
    "join_using_alias": _Walk._alias,
    "CommonTableExpr": _Walk._cte,
    "RangeSubselect": _Walk._subselect,
    "RangeFunction": _Walk._range_function,
    "JsonTable": _Walk._json_table,
    "RangeTableFunc": _Walk._json_table,
    "FuncCall": _Walk._function,
    "SQLValueFunction": _Walk._value_function,
    "A_Expr": _Walk._operator,
    "CaseExpr": _Walk._case,
    "SubLink": _Walk._sublink,
    "JoinExpr": _Walk._join,
    "SortBy": _Walk._sort,
    "TypeCast": _Walk._cast,
    "typeName": _Walk._type,
    "TypeName": _Walk._type,
    "ParamRef": _Walk._parameter,
    "A_Indirection": _Walk._indirection,
    "RangeTableSample": _Walk._sample,
}
