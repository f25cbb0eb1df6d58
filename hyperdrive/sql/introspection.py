"""What drivers and ORMs ask of every new connection: the version, the schema, the types (E-8 of the wire reference).

``is_introspection`` says whether the answer to a text can only change with the schema epoch, the settings, the role and the server's
version: then the origin need not be asked again within an epoch. It is a matter of round trips, and works without the cache of
reads, which refuses catalogs. Pure; knows no session. A look at words proves it: whatever could make the answer depend on more
occurs nowhere in the text, not even in a literal.
"""

from __future__ import annotations

import re
from typing import Final

from hyperdrive.sql.parse import parse
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
    rb"|pg_listening_channels|pg_notification_\w+|pg_prepared_\w+|pg_cursors|pg_locks|pg_stat\w*|pg_sequences|\w*_size"
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

    *verdict* is what ``classify`` says of it. It costs a parse: to be remembered.
    """
    if not verdict.is_read or len(sql) > MAX_TEXT:
        return False
    text = sql.lower()
    if _MOVING.search(text):
        return False
    if verdict.is_screened:
        verdict = parse(sql)
    single = verdict.single
    if single is None or single.kind is not Kind.PLAIN or not verdict.is_read or not verdict.is_plain:
        return False
    if not all(map(_is_schema, single.relations)):
        return False
    # All columns of pg_class hold what ANALYZE counted.
    return b"*" not in text.replace(b"(*)", b"") or not any(r.name == b"pg_class" for r in single.relations)


def _is_schema(relation: Relation) -> bool:
    if relation.schema == b"information_schema":
        return relation.name in _SCHEMA_VIEWS
    return relation.schema in (None, b"pg_catalog") and relation.name in _CATALOGS
