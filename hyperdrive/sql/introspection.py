"""What drivers and ORMs ask of every new connection: the version, the schema, the types (E-8 of the wire reference).

``is_introspection`` says whether the answer to a text can only change with the schema epoch, the settings, the role and the server's
version: then the origin need not be asked again within an epoch. It is a matter of round trips, and works without the cache of
reads, which refuses catalogs. Pure; knows no session.

Words of what moves may occur nowhere in the text, not even in a literal, however it is spelt; functions and types that are named are
among those that are known to hold still, so that no clock can be made of pieces. What a parameter says is for the caller to look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from hyperdrive.sql.builtins import STABLE
from hyperdrive.sql.functions import HIDES_RELATIONS
from hyperdrive.sql.grammar import parse_tree
from hyperdrive.sql.parse import parse
from hyperdrive.sql.touched import touched
from hyperdrive.sql.verdict import Kind, Relation, Verdict

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

# Clocks, sessions, transactions, statistics, sizes; what VACUUM and ANALYZE write into catalogs; what is random.
_MOVING: Final = re.compile(
    rb"\b(?:now|today|tomorrow|yesterday|current_date|current_time|current_timestamp|localtime|localtimestamp|timeofday|age"
    rb"|\w+_timestamp|\w*random\w*|uuidv\d|pg_backend_pid|pg_conf_load_time|pg_postmaster_start_time|pg_is_in_recovery"
    rb"|pg_last_\w+|pg_current_\w+|pg_settings|current_setting|current_query|pg_my_temp_schema|pg_is_other_temp_schema|pg_temp\w*"
    rb"|pg_listening_channels|pg_notification_\w+|pg_prepared_\w+|pg_cursors?|pg_locks|pg_stat\w*|pg_sequences|\w*_size"
    rb"|pg_relation_file\w+|pg_filenode\w+|pg_get_replication\w+|pg_show_\w+|pg_available_\w+|pg_timezone\w*|mxid_age"
    rb"|inet_\w+|txid_\w+|pg_trigger_depth|reltuples|relpages|relallvisible|relallfrozen|relfrozenxid|relminmxid|relfilenode"
    rb"|attstattarget|ctid|xmin|xmax|cmin|cmax|tablesample|last_value|nextval|currval|lastval)\b"
)

_HOLDING: Final = frozenset(
    """aclexplode array_to_json array_to_string bit bool bpchar bytea char col_description concat concat_ws convert convert_from convert_to
    current_database current_schema current_schemas current_user enum_first enum_last enum_range extract float4 float8 format format_type
    generate_series getdatabaseencoding int2 int4 int8 interval json json_agg json_build_array json_build_object json_object_agg jsonb
    jsonb_agg jsonb_build_array jsonb_build_object jsonb_object_agg length name numeric obj_description oid oidvectortypes
    pg_char_to_encoding pg_client_encoding pg_collation_for pg_collation_is_visible pg_column_is_updatable pg_conversion_is_visible
    pg_describe_object pg_encoding_to_char pg_function_is_visible pg_get_constraintdef pg_get_expr pg_get_function_arg_default
    pg_get_function_arguments pg_get_function_identity_arguments pg_get_function_result pg_get_function_sqlbody pg_get_functiondef
    pg_get_indexdef pg_get_keywords pg_get_partition_constraintdef pg_get_partkeydef pg_get_ruledef pg_get_serial_sequence
    pg_get_statisticsobjdef pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_has_role pg_identify_object
    pg_index_column_has_property pg_index_has_property pg_indexam_has_property pg_opclass_is_visible pg_operator_is_visible
    pg_opfamily_is_visible pg_options_to_table pg_relation_is_updatable pg_sequence_parameters pg_statistics_obj_is_visible
    pg_table_is_visible pg_ts_config_is_visible pg_ts_dict_is_visible pg_ts_parser_is_visible pg_ts_template_is_visible
    pg_type_is_visible pg_typeof quote_literal quote_nullable row_to_json session_user shobj_description text to_json to_jsonb
    to_regclass to_regcollation to_regnamespace to_regoper to_regoperator to_regproc to_regprocedure to_regrole to_regtype varchar
    version""".split()
) | {name.decode() for name in STABLE if name.startswith((b"has_", b"reg"))}
"""STABLE functions that tell of the schema, of settings and of their arguments, and of nothing else."""
_FORBIDDEN: Final = ({name.decode() for name in STABLE} | {name.decode() for name in HIDES_RELATIONS}) - _HOLDING
_TYPES: Final = frozenset(
    """int2 int4 int8 smallint integer bigint int oid name text varchar bpchar char bool boolean float4 float8 numeric json jsonb bytea
    regclass regtype regproc regprocedure regnamespace regrole regoper regoperator regcollation regconfig regdictionary xid
    int2vector oidvector uuid aclitem pg_node_tree cardinal_number sql_identifier character_data yes_or_no""".split()
)
"""What values are cast to. A clock's word becomes a time in none of them; it might in somebody's own."""
_FIELDS: Final = frozenset(
    ("x", "n", "grantor", "grantee", "privilege_type", "is_grantable", "option_name", "option_value")
)
"""Of rows that functions of the schema return; by any other name ``(x).date`` may be a cast."""
_CLASS_COLUMNS: Final = frozenset(
    """oid tableoid relname relnamespace reltype reloftype relowner relam reltablespace reltoastrelid relhasindex relisshared
    relpersistence relkind relnatts relchecks relhasoids relhaspkey relhasrules relhastriggers relhassubclass relrowsecurity
    relforcerowsecurity relispopulated relreplident relispartition relrewrite relacl reloptions relpartbound""".split()
)
"""Columns of pg_class that VACUUM and ANALYZE leave alone."""


def may_be_introspection(sql: bytes) -> bool:
    """A first look, for less than a microsecond: whether it is worth another one."""
    # find() and not "in", which tries its operand as a number first and words an error that nobody reads.
    text = sql.lower()
    return text.find(b"pg_") >= 0 or text.find(b"from") < 0 or text.find(b"information_schema") >= 0


def is_introspection(sql: bytes, verdict: Verdict) -> bool:
    """Whether the answer to *sql* holds for a schema epoch, in sessions with the same settings and role.

    Of several statements in one text, as Npgsql asks, all have to be such. *verdict* is what ``classify`` says of it. It costs a parse:
    to be remembered.
    """
    if not verdict.is_read or len(sql) > MAX_TEXT or not sql.isascii():
        return False  # drivers ask in ASCII, and what else it is hangs on the encoding
    text = sql.lower()
    if _MOVING.search(text):
        return False
    if verdict.is_screened:
        verdict = parse(sql)
    if not verdict.is_read or verdict.suspect or verdict.effects or not verdict.statements:
        return False
    if any(statement.kind is not Kind.PLAIN for statement in verdict.statements):
        return False
    try:
        tree = parse_tree(sql.decode())
        return (
            not _MOVING.search(" ".join(_strings(tree)).lower().encode())
            and all(map(_is_schema, _relations(tree, frozenset())))
            and all(map(_is_held, _nodes(tree, "typeName")))
            and _FORBIDDEN.isdisjoint(_called(tree))
            and _FIELDS.issuperset(_fields(tree))
            and not _shows_whole_rows(tree, _aliases(tree))
        )
    except RecursionError:
        return False


def names_called(sql: bytes) -> frozenset[str]:
    """Names by which the introspection *sql* may call functions: as such, or as if they were columns of a row."""
    tree = parse_tree(sql.decode())
    names = set(_called(tree))
    for statement in tree["stmts"]:
        ((node, query),) = statement["stmt"].items()
        names |= touched(node, query).attributes
    return frozenset(names)


def _called(tree: Any) -> Iterator[str]:
    for statement in tree["stmts"]:
        ((node, query),) = statement["stmt"].items()
        for call in touched(node, query).calls:
            if call.names:
                yield call.names[-1]


def _fields(tree: Any) -> Iterator[str]:
    for node in _nodes(tree, "A_Indirection"):
        for part in node.get("indirection", ()):
            if "String" in part:
                yield part["String"].get("sval", "")


def _strings(tree: Any) -> Iterator[str]:
    """Names and literals as the parser has read them, without escapes."""
    if isinstance(tree, list):
        for item in tree:
            yield from _strings(item)
    elif isinstance(tree, dict):
        for value in tree.values():
            if isinstance(value, str):
                yield value
            else:
                yield from _strings(value)


def _is_held(type_name: dict[str, Any]) -> bool:
    names = [part["String"].get("sval", "") for part in type_name.get("names", ())]
    return bool(names) and names[:-1] in ([], ["pg_catalog"], ["information_schema"]) and names[-1] in _TYPES


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


def _nodes(tree: Any, kind: str) -> Iterator[Any]:
    if isinstance(tree, list):
        for item in tree:
            yield from _nodes(item, kind)
    elif isinstance(tree, dict):
        for name, value in tree.items():
            if name == kind:
                yield value
            yield from _nodes(value, kind)


def _aliases(tree: Any) -> frozenset[str]:
    """What pg_class is called: all of its columns together hold what ANALYZE counted."""
    found = [node for node in _nodes(tree, "RangeVar") if node["relname"] == "pg_class"]
    return frozenset(node["alias"]["aliasname"] if "alias" in node else "pg_class" for node in found)


def _shows_whole_rows(tree: Any, aliases: frozenset[str]) -> bool:
    """Whether more of pg_class, by one of these *aliases*, may be meant than its steady columns: ``*``, ``c.*``, ``c``, ``c.text``."""
    if not aliases:
        return False
    if any("colnames" in node.get("alias", ()) for node in _nodes(tree, "RangeVar")):
        return True  # other names for its columns
    for node in _nodes(tree, "ColumnRef"):
        first = node["fields"][0].get("String", {}).get("sval")
        if first in aliases and (
            len(node["fields"]) == 1 or node["fields"][-1].get("String", {}).get("sval") not in _CLASS_COLUMNS
        ):
            return True
    if any("alias" in join for join in _nodes(tree, "JoinExpr")):
        return True  # by that name the row is among what is joined
    return any(_has_star(select) and _aliases(select.get("fromClause")) for select in _selects(tree))


def _selects(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, list):
        for item in tree:
            yield from _selects(item)
    elif isinstance(tree, dict):
        if "fromClause" in tree:
            yield tree
        for value in tree.values():
            yield from _selects(value)


def _has_star(select: dict[str, Any]) -> bool:
    """Whether its own list has a star of everything, that of ``count(*)`` being none."""
    items = [item["ResTarget"].get("val", {}).get("ColumnRef") for item in select.get("targetList", ())]
    return any(item is not None and "A_Star" in item["fields"][0] for item in items)


def _is_schema(relation: Relation) -> bool:
    if relation.schema == b"information_schema":
        return relation.name in _SCHEMA_VIEWS
    return relation.schema in (None, b"pg_catalog") and relation.name in _CATALOGS
