"""What drivers and ORMs ask of every new connection: the version, the schema, the types (E-8 of the wire reference).

``introspected`` says whether the answer to a text can only change with the schema epoch, the settings, the role and the server's
version: then the origin need not be asked again within an epoch. It is a matter of round trips, and works without the cache of
reads, which refuses catalogs. Pure; knows no session.

Nothing is allowed that is not named here, by its place in PostgreSQL's own tree: relations, functions, types, nodes. So a text has no
value of a date or time, and no way to one; what is left to a parameter is its type (``may_hold``) and the words in it. What only the
catalog knows, ``is_postgres_own`` asks: that nothing of a user's is meant by these names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hyperdrive.sql.builtins import IMMUTABLE, STABLE, VOLATILE
from hyperdrive.sql.grammar import parse_tree
from hyperdrive.sql.lists import find_clock_word
from hyperdrive.sql.parse import parse
from hyperdrive.sql.sources import names_of
from hyperdrive.sql.touched import touched
from hyperdrive.sql.tree import Tree
from hyperdrive.sql.verdict import Kind, Relation, Verdict

if TYPE_CHECKING:
    from hyperdrive.sql.catalog import Catalog

MAX_TEXT: Final = 16 * 1024

_CATALOGS: Final = frozenset(
    b"""pg_aggregate pg_am pg_amop pg_amproc pg_attrdef pg_attribute pg_cast pg_class pg_collation pg_constraint pg_conversion
    pg_depend pg_description pg_enum pg_event_trigger pg_extension pg_foreign_data_wrapper pg_foreign_server pg_foreign_table
    pg_index pg_indexes pg_inherits pg_language pg_matviews pg_namespace pg_opclass pg_operator pg_opfamily pg_partitioned_table
    pg_policies pg_policy pg_proc pg_range pg_rewrite pg_rules pg_sequence pg_tables pg_trigger pg_ts_config pg_ts_dict pg_type
    pg_views""".split()
)
"""Tables and views of pg_catalog that only DDL changes, apart from the columns of ``_MOVING``."""

_SCHEMA_VIEWS: Final = frozenset(
    b"""check_constraints columns constraint_column_usage constraint_table_usage domains element_types key_column_usage parameters
    referential_constraints routines schemata sequences table_constraints tables triggers views""".split()
)
"""Views of information_schema: what a role may see of the same."""

_MOVING: Final = frozenset(
    """reltuples relpages relallvisible relallfrozen relfrozenxid relminmxid relfilenode relhasindex relhasrules relhastriggers
    relhassubclass relispopulated attstattarget atthasmissing attmissingval hasindexes hasrules hastriggers ispopulated
    ctid xmin xmax cmin cmax""".split()
)
"""Columns that change without DDL: what VACUUM and ANALYZE count, or clear some time after the DDL (catalog-pg-class), what TRUNCATE,
REFRESH and a table written anew change; and where a row stands."""
_MOVING_CATALOGS: Final = frozenset("pg_class pg_attribute pg_tables pg_matviews".split())
"""What has them: no row of it may be shown as a whole."""

_NODES: Final = frozenset(
    """SelectStmt ResTarget ColumnRef A_Const A_Star A_Expr A_ArrayExpr A_Indices A_Indirection BoolExpr BooleanTest NullTest
    CaseExpr CaseWhen CoalesceExpr MinMaxExpr CollateClause CommonTableExpr FuncCall GroupingFunc GroupingSet JoinExpr List
    NamedArgExpr ParamRef RangeFunction RangeSubselect RangeVar RowExpr SortBy SQLValueFunction String Integer Float Boolean
    BitString SubLink TypeCast TypeName WindowDef Alias""".split()
)
_VALUES: Final = frozenset(
    f"SVFOP_{word}" for word in "CURRENT_ROLE CURRENT_USER USER SESSION_USER CURRENT_CATALOG CURRENT_SCHEMA".split()
)
"""The keywords that say who and where one is; the others are clocks."""

_PLAIN_FUNCTIONS: Final = """
    array_agg array_append array_cat array_dims array_length array_lower array_ndims array_position array_positions array_prepend
    array_remove array_to_string array_upper cardinality generate_series generate_subscripts string_agg string_to_array unnest
    avg bool_and bool_or count every max min sum dense_rank first_value lag lead rank row_number
    abs ceil ceiling floor mod round sign trunc
    ascii btrim char_length chr concat concat_ws decode encode format initcap left length lower lpad ltrim md5 octet_length overlay
    position quote_ident quote_literal quote_nullable regexp_match regexp_matches regexp_replace regexp_split_to_array
    regexp_split_to_table repeat replace reverse right rpad rtrim split_part starts_with strpos substr substring to_hex translate
    trim upper
    array_to_json json_agg json_build_array json_build_object json_object_agg jsonb_agg jsonb_build_array jsonb_build_object
    jsonb_object_agg row_to_json to_json to_jsonb
    bool int2 int4 int8 name oid text"""
"""Of arguments and settings only, and none of them makes a date or a time."""
_CATALOG_FUNCTIONS: Final = """
    acldefault aclexplode col_description current_database current_schema format_type getdatabaseencoding obj_description
    pg_char_to_encoding pg_client_encoding pg_column_is_updatable pg_describe_object pg_encoding_to_char pg_has_role
    pg_identify_object pg_index_column_has_property pg_index_has_property pg_indexam_has_property pg_options_to_table
    pg_partition_ancestors pg_partition_root pg_partition_tree pg_relation_is_updatable pg_sequence_parameters pg_typeof version
    pg_get_constraintdef pg_get_expr pg_get_function_arg_default pg_get_function_arguments pg_get_function_identity_arguments
    pg_get_function_result pg_get_function_sqlbody pg_get_functiondef pg_get_indexdef pg_get_keywords
    pg_get_partition_constraintdef pg_get_partkeydef pg_get_replica_identity_index pg_get_ruledef pg_get_serial_sequence
    pg_get_statisticsobjdef pg_get_triggerdef pg_get_userbyid pg_get_viewdef
    pg_collation_is_visible pg_conversion_is_visible pg_function_is_visible pg_opclass_is_visible pg_operator_is_visible
    pg_opfamily_is_visible pg_statistics_obj_is_visible pg_table_is_visible pg_ts_config_is_visible pg_ts_dict_is_visible
    pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible
    has_any_column_privilege has_column_privilege has_database_privilege has_foreign_data_wrapper_privilege has_function_privilege
    has_language_privilege has_schema_privilege has_sequence_privilege has_server_privilege has_table_privilege
    has_type_privilege
    to_regclass to_regcollation to_regnamespace to_regoper to_regoperator to_regproc to_regprocedure to_regrole to_regtype"""
"""Of the schema, the roles and their rights, and who and where one is: all of it ends with the epoch or is in the key."""
_FUNCTIONS: Final = frozenset(f"{_PLAIN_FUNCTIONS} {_CATALOG_FUNCTIONS}".split())
_BUILTINS: Final = frozenset(name.decode() for name in IMMUTABLE | STABLE | VOLATILE)

_TYPES: Final = frozenset(
    """aclitem anyarray bool bpchar bytea char float4 float8 int2 int2vector int4 int8 json jsonb name numeric oid oidvector
    pg_node_tree text uuid varchar regclass regcollation regconfig regdictionary regnamespace regoper regoperator regproc
    regprocedure regrole regtype""".split()
)
_SCHEMA_TYPES: Final = frozenset("cardinal_number character_data sql_identifier yes_or_no".split())
"""Domains of information_schema; the one that is left out is a timestamp."""
_TYPE_OIDS: Final = frozenset(
    (0, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 30, 114, 199, 700, 701, 705, 1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008,
     1009, 1013, 1014, 1015, 1016, 1021, 1022, 1028, 1042, 1043, 1231, 1700, 2202, 2203, 2204, 2205, 2206, 2207, 2208, 2209, 2210,
     2211, 2950, 2951, 3734, 3735, 3769, 3770, 3802, 3807, 4089, 4090, 4096, 4097, 4191, 4192)
)  # fmt: skip
"""The same and arrays of them, as Parse names them; 0 and 705 leave it to the server, which has nothing else to choose from."""


class Asked(NamedTuple):
    """Names in a text by which something of a user's may be meant."""

    functions: frozenset[str]
    """What is called, as such or as if it were a column."""
    operators: frozenset[str]
    objects: frozenset[str]
    """Relations and types without a schema, and what may be a cast in the notation of a column."""


def may_be_introspection(sql: bytes) -> bool:
    """A first look, for less than a microsecond: whether it is worth another one."""
    # find() and not "in", which tries its operand as a number first and words an error that nobody reads.
    text = sql.lower()
    return text.find(b"pg_") >= 0 or text.find(b"from") < 0 or text.find(b"information_schema") >= 0


def introspected(sql: bytes, verdict: Verdict) -> Asked | None:
    """What has to be asked of the catalog before the answer to *sql* may hold for a schema epoch, in sessions with the same settings
    and role; ``None``: it does not hold.

    Of several statements in one text, as Npgsql asks, all have to be such. *verdict* is what ``classify`` says of it. It costs a parse:
    to be remembered.
    """
    if not verdict.is_read or len(sql) > MAX_TEXT or not sql.isascii():
        return None  # drivers ask in ASCII, and what else it is hangs on the encoding
    if verdict.is_screened:
        verdict = parse(sql)
    if not verdict.is_read or verdict.suspect or verdict.effects or not verdict.statements:
        return None
    if any(statement.kind is not Kind.PLAIN for statement in verdict.statements):
        return None
    try:
        tree = parse_tree(sql.decode())
        relations = list(_relations(tree, frozenset()))
        if not all(map(_is_schema, relations)):
            return None
        return _Look(tree, {relation.name.decode() for relation in relations if relation.schema is None}).asked()
    except (_Doubt, RecursionError):
        return None


def is_postgres_own(asked: Asked, catalog: Catalog) -> bool:
    """Whether nothing but what PostgreSQL brings, or what is IMMUTABLE, can be meant by what was *asked*, whatever the search path."""
    return (
        not catalog.has_impure_casts
        and catalog.impure_names.isdisjoint(asked.functions)
        and catalog.impure_operators.isdisjoint(asked.operators)
        and catalog.own_names.isdisjoint(asked.objects)
    )


def may_hold(types: Iterable[int]) -> bool:
    """Whether parameters of these *types*, OIDs as in Parse, leave a known answer known; a value that says ``now`` does not."""
    return _TYPE_OIDS.issuperset(types)


class _Doubt(Exception):
    """No error: something is not known to stay."""


class _Look:
    """A walk over all that a text says, which ends at the first doubt."""

    __slots__ = ("attributes", "moving", "objects", "tree")

    def __init__(self, tree: Tree, objects: set[str]) -> None:
        self.tree = tree
        self.objects = objects
        self.attributes: set[str] = set()
        self.moving = _aliases(tree)
        """What catalogs are called that have columns of ``_MOVING``."""

    def asked(self) -> Asked:
        functions: set[str] = set()
        operators: set[str] = set()
        for raw in self.tree["stmts"]:
            stack: list[Tree] = [raw["stmt"]]
            while stack:
                for key, value in stack.pop().items():
                    if type(value) is dict:
                        if key < "a" and key not in _NODES:  # node types begin with a capital, fields do not
                            raise _Doubt
                        visitor = _VISITORS.get(key)
                        if visitor is not None:
                            visitor(self, value)
                        stack.append(value)
                    elif type(value) is list:
                        stack.extend(value)
            ((node, tree),) = raw["stmt"].items()
            found = touched(node, tree)
            functions.update(call.names[-1] for call in found.calls)
            functions |= found.attributes
            operators.update(names[-1] for names in found.operators if names)
        return Asked(frozenset(functions), frozenset(operators), frozenset(self.objects))

    def select(self, value: Tree) -> None:
        """A star of everything, that of ``count(*)`` being none, shows the rows of what stands in its own FROM."""
        for item in value.get("targetList", ()):
            column = item["ResTarget"].get("val", {}).get("ColumnRef")
            if column is not None and "A_Star" in column["fields"][0] and _aliases(value.get("fromClause")):
                raise _Doubt

    def constant(self, value: Tree) -> None:
        literal = value.get("sval")
        if literal is not None and find_clock_word(literal.get("sval", "")) is not None:
            raise _Doubt

    def column(self, value: Tree) -> None:
        names = names_of(value["fields"])
        if not _MOVING.isdisjoint(names):
            raise _Doubt
        is_row = len(names) < len(value["fields"]) or len(names) == 1  # a star; or a column's name, or a table's
        if is_row and names and names[-1] in self.moving:
            raise _Doubt
        for name in names[1:]:
            if name in _BUILTINS and name not in _FUNCTIONS:
                raise _Doubt  # no column, but a call

    def indirection(self, value: Tree) -> None:
        """``(x).f``: a column, a call of ``f``, or a cast to a type ``f`` (verified on 16, 18)."""
        for name in names_of(value["indirection"]):
            if name in _MOVING or (name in _BUILTINS and name not in _FUNCTIONS) or name.startswith("_"):
                raise _Doubt
            self.objects.add(name)

    def relation(self, value: Tree) -> None:
        if "alias" in value and "colnames" in value["alias"] and value["relname"] in _MOVING_CATALOGS:
            raise _Doubt  # renamed by position

    def join(self, value: Tree) -> None:
        if ("isNatural" in value or "alias" in value) and _aliases(value):
            raise _Doubt
        if not _MOVING.isdisjoint(names_of(value.get("usingClause", ()))):
            raise _Doubt

    def call(self, value: Tree) -> None:
        names = names_of(value["funcname"])
        if names == _EXPANDS:
            return
        if len(names) > 2 or (len(names) == 2 and names[0] != "pg_catalog"):
            raise _Doubt
        if names[-1] not in _FUNCTIONS and not _lists_schemas(names[-1], value):
            raise _Doubt

    def value(self, value: Tree) -> None:
        if value.get("op") not in _VALUES:
            raise _Doubt

    def type(self, value: Tree) -> None:
        names = names_of(value.get("names", ()))
        if len(names) == 1 and names[0] in _TYPES:
            self.objects.add(names[0])
        elif len(names) != 2 or names[1] not in {"pg_catalog": _TYPES, "information_schema": _SCHEMA_TYPES}.get(
            names[0], ()
        ):
            raise _Doubt


_EXPANDS: Final = ("information_schema", "_pg_expandarray")
"""An array's elements with their numbers; JDBC asks so for primary keys."""


def _lists_schemas(name: str, value: Tree) -> bool:
    """``current_schemas(false)``: without those that this server has for temporary objects."""
    arguments = value.get("args", ())
    return name == "current_schemas" and len(arguments) == 1 and arguments[0].get("A_Const", {}).get("boolval") == {}


_VISITORS: Final = {
    "SelectStmt": _Look.select,
    "larg": _Look.select,
    "rarg": _Look.select,
    "A_Const": _Look.constant,
    "ColumnRef": _Look.column,
    "A_Indirection": _Look.indirection,
    "RangeVar": _Look.relation,
    "JoinExpr": _Look.join,
    "FuncCall": _Look.call,
    "SQLValueFunction": _Look.value,
    "TypeName": _Look.type,
    "typeName": _Look.type,
}


def _relations(tree: Any, scope: frozenset[str]) -> Iterator[Relation]:
    """The relations named, without references to WITH queries that are in *scope* (queries-with)."""
    if isinstance(tree, list):
        for item in tree:
            yield from _relations(item, scope)
    if not isinstance(tree, dict):
        return
    if (with_ := tree.get("withClause")) is not None:
        queries = [item["CommonTableExpr"] for item in with_["ctes"]]
        if with_.get("recursive"):
            scope |= {query["ctename"] for query in queries}  # each sees itself, and those behind it
        for query in queries:
            yield from _relations(query["ctequery"], scope)
            scope |= {query["ctename"]}
    for name, value in tree.items():
        if name == "RangeVar":
            if "schemaname" in value or value["relname"] not in scope:
                schema = value.get("schemaname")
                yield Relation(schema.encode() if schema else None, value["relname"].encode())
        elif name != "withClause":
            yield from _relations(value, scope)


def _aliases(tree: Any) -> frozenset[str]:
    """What the catalogs that have moving columns are called in *tree*."""
    found: set[str] = set()
    stack = [tree]
    while stack:
        value = stack.pop()
        if type(value) is list:
            stack.extend(value)
        elif type(value) is dict:
            node = value.get("RangeVar")
            if type(node) is dict and node["relname"] in _MOVING_CATALOGS:
                found.add(node["alias"]["aliasname"] if "alias" in node else node["relname"])
            stack.extend(value.values())
    return frozenset(found)


def _is_schema(relation: Relation) -> bool:
    if relation.schema == b"information_schema":
        return relation.name in _SCHEMA_VIEWS
    return relation.schema in (None, b"pg_catalog") and relation.name in _CATALOGS
