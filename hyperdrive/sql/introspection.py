"""What drivers and ORMs ask of every new connection: the version, the schema, the types (E-8 of the wire reference).

``is_introspection`` says whether the answer to a text can only change with the schema epoch, the settings, the role and the server's
version: then the origin need not be asked again within an epoch. It is a matter of round trips, and works without the cache of
reads, which refuses catalogs. Pure; knows no session. A look at words proves it: whatever could make the answer depend on more
occurs nowhere in the text, not even in a literal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

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
        return all(map(_is_schema, _relations(tree, frozenset()))) and not _shows_whole_rows(tree, _aliases(tree))
    except RecursionError:
        return False


def names_called(sql: bytes) -> frozenset[str]:
    """Names by which the introspection *sql* may call functions: as such, or as if they were columns of a row."""
    names: set[str] = set()
    for statement in parse_tree(sql.decode())["stmts"]:
        ((node, tree),) = statement["stmt"].items()
        found = touched(node, tree)
        names.update(call.names[-1] for call in found.calls if call.names)
        names |= found.attributes
    return frozenset(names)


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
    """Whether a whole row of a table by one of these *aliases* may be meant: ``*``, ``c.*``, or ``c``."""
    if not aliases:
        return False
    for node in _nodes(tree, "ColumnRef"):
        first = node["fields"][0].get("String", {}).get("sval")
        is_star = "A_Star" in node["fields"][-1]
        if first in aliases and (is_star or len(node["fields"]) == 1):
            return True
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
