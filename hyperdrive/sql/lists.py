"""The lists that are typed by hand (caching rules §6), and the clock words of rule 16.

Volatility is not here: it comes from the origin's catalog, or from what ``generate_builtins.py`` read of each major version.
These lists say what no catalog says: which STABLE functions depend on settings only (A: the settings are in the key), and which
functions answer from the clock, the session or the catalogs whatever their mark (B). ``tests/hyperdrive/sql/test_lists.py`` holds
them against each supported major version. B beats A, and everything else.
"""

from __future__ import annotations

import re
from typing import Final

# --- A. Setting-only STABLE built-ins: cacheable ---

A_TEXT: Final = (
    """concat concat_ws format quote_literal quote_nullable array_to_string to_char to_date to_number to_timestamp"""
)
A_JSON: Final = """to_json to_jsonb row_to_json array_to_json json_build_array json_build_object jsonb_build_array
    jsonb_build_object json_agg jsonb_agg json_object_agg jsonb_object_agg json_agg_strict jsonb_agg_strict
    json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict
    jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict"""
A_TIME: Final = """date_trunc date_part extract overlaps make_timestamptz date_add date_subtract generate_series timezone
    date time timestamp timestamptz age"""
"""``date(x)`` and the like: rule 16 asks where *x* comes from. ``age`` only with two arguments; ``timezone`` without timetz."""
A_SEARCH: Final = """to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery json_to_tsvector
    jsonb_to_tsvector ts_headline enum_first enum_last enum_range"""
A_OTHER: Final = """jsonb_path_exists_tz jsonb_path_match_tz jsonb_path_query_tz jsonb_path_query_array_tz
    jsonb_path_query_first_tz convert convert_from convert_to length money numeric xml_is_well_formed"""

SETTING_ONLY: Final = frozenset(f"{A_TEXT} {A_JSON} {A_TIME} {A_SEARCH} {A_OTHER}".split())
"""List A: cacheable though STABLE, if the function is pg_catalog's and its arguments pass the type audit."""

# --- B. Never: clock, identity, catalog, tables in disguise ---

B_CLOCK: Final = """now transaction_timestamp statement_timestamp clock_timestamp timeofday timetz pg_timezone_names
    pg_timezone_abbrevs pg_timezone_abbrevs_abbrevs pg_timezone_abbrevs_zone"""
B_IDENTITY: Final = """current_setting current_database current_catalog current_schema current_schemas current_query current_user
    session_user getpgusername pg_backend_pid version pg_client_encoding pg_has_role row_security_active
    pg_current_snapshot pg_postmaster_start_time pg_my_temp_schema pg_is_other_temp_schema"""
B_CATALOG: Final = """format_type obj_description col_description shobj_description pg_typeof pg_collation_for pg_column_size
    pg_column_compression pg_column_toast_chunk_id pg_conf_load_time satisfies_hash_partition pg_partition_root pg_table_size pg_indexes_size
    pg_total_relation_size pg_database_size pg_tablespace_size pg_describe_object pg_identify_object
    pg_identify_object_as_address pg_basetype"""
"""Some are marked IMMUTABLE, and read the catalogs all the same."""
B_TABLES: Final = """ts_stat ts_rewrite"""

NEVER: Final = frozenset(f"{B_CLOCK} {B_IDENTITY} {B_CATALOG} {B_TABLES}".split())
NEVER_PATTERN: Final = re.compile(
    r"inet_(?:client|server)_|has_\w+_privilege$|txid_|pg_current_xact_id|pg_get_|pg_\w+_is_visible$|to_reg|pg_stat_|pg_relation_"
    r"|(?:table|schema|database|query|cursor)_to_xml|dblink|pg_\w+_size$"
)
ONE_ARGUMENT_NEVER: Final = frozenset(("age",))
"""``age(x)`` counts from today; ``age(x, y)`` does not."""

NEVER_TYPES: Final = frozenset(("timetz", "aclitem"))
"""Built-in types that no cached read may touch, beside reg*: today's offset, names of roles and of catalog objects."""


def is_never(name: str, arguments: int | None = None) -> bool:
    """True if list B holds the function *name*, called with so many *arguments* (``None``: not known)."""
    return (
        name in NEVER
        or NEVER_PATTERN.match(name) is not None
        or (name in ONE_ARGUMENT_NEVER and arguments in (None, 1))
    )


# --- clock words (rule 16) ---

_CLOCK: Final = re.compile(r"(?i)(?<![a-z])(?:now|today|tomorrow|yesterday)(?![a-z])")
_CLOCK_BYTES: Final = re.compile(rb"(?i)(?<![a-z])(?:now|today|tomorrow|yesterday)(?![a-z])")
_STRAY: Final = str.maketrans("", "", '\\"')


def find_clock_word(literal: str) -> str | None:
    """Return the clock word that a date/time input function could see in *literal*, if there is one.

    Quotes and backslashes inside arrays, ranges and records are taken out first: ``{n\\ow}``, ``[n"o"w,)``.
    """
    found = _CLOCK.search(literal.translate(_STRAY))
    return None if found is None else found[0]


def has_clock_word(value: bytes) -> bool:
    """The same for a parameter's value, in text or binary format; a false alarm costs a bypass."""
    return _CLOCK_BYTES.search(value.translate(None, b'\\"')) is not None
