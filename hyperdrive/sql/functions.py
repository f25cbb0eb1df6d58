"""What a call of a function means for a session, by its name as written.

A name counts as the built-in if PostgreSQL has a function of that name and the call is unqualified or says ``pg_catalog``; that
a user may have added an overload is known to the catalog only (caching rule 14), and here accepted. The list of built-ins is
generated (``builtins.py``); what those do beyond returning a value is typed by hand below, from the manual (functions-admin,
functions-sequence, functions-info, functions-xml).
"""

from __future__ import annotations

from typing import Final

from hyperdrive.sql.builtins import IMMUTABLE, STABLE, VOLATILE

ADVISORY_LOCK: Final = frozenset(
    b"pg_advisory_lock pg_advisory_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared".split()
)
ADVISORY_UNLOCK: Final = frozenset(b"pg_advisory_unlock pg_advisory_unlock_shared".split())
ADVISORY_XACT_LOCK: Final = frozenset(
    b"""pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_xact_lock
    pg_try_advisory_xact_lock_shared""".split()
)
SESSION_STATE: Final = frozenset(
    b"""pg_replication_origin_session_setup pg_replication_origin_xact_setup pg_backup_start pg_start_backup
    pg_create_logical_replication_slot pg_create_physical_replication_slot pg_copy_logical_replication_slot
    pg_copy_physical_replication_slot""".split()
)
"""Built-ins whose state ends with the session; the slots only if temporary, which we do not look at."""

CURRVAL: Final = frozenset((b"currval", b"lastval"))

RUNS_SQL: Final = frozenset(
    b"""query_to_xml query_to_xmlschema query_to_xml_and_xmlschema ts_stat ts_rewrite cursor_to_xml cursor_to_xmlschema
    pg_reload_conf""".split()
)
"""Built-ins that run SQL from their arguments or a cursor, or change settings: as good as unknown (W-37)."""

HIDES_RELATIONS: Final = frozenset(
    b"""table_to_xml table_to_xmlschema table_to_xml_and_xmlschema schema_to_xml schema_to_xmlschema
    schema_to_xml_and_xmlschema database_to_xml database_to_xmlschema database_to_xml_and_xmlschema""".split()
)
"""STABLE, and yet they read relations that the text does not name, views among them: no proven read."""

# Grammar words that stand before "(" and are no calls of functions; the parser turns these into nodes of their own.
_SPECIAL: Final = frozenset(
    b"coalesce greatest least nullif grouping xmlconcat xmlforest xmlelement xmlparse trim".split()
)

_EFFECTS: Final = (
    ADVISORY_LOCK
    | ADVISORY_UNLOCK
    | ADVISORY_XACT_LOCK
    | SESSION_STATE
    | CURRVAL
    | RUNS_SQL
    | {b"set_config", b"setseed", b"pg_advisory_unlock_all", b"pg_notify"}
)

KNOWN: Final = (IMMUTABLE | STABLE | VOLATILE) - RUNS_SQL
"""Built-ins that leave the settings alone, or that we model (``set_config``)."""

READ: Final = (IMMUTABLE | STABLE) - HIDES_RELATIONS - _EFFECTS
"""Built-ins that a proven read may call (E-5)."""

# Reserved words, and names of columns' types and functions that the grammar keeps for itself (sql-keywords-appendix): none of
# them can be a function's name unless quoted, so what stands before "(" is no call.
_KEYWORDS: Final = frozenset(
    b"""all and any array as asc case cast check collate column constraint default desc distinct else end except exists from
    group having in intersect limit not offset on or returning row select some then union using values when where""".split()
)

BEFORE_PARENTHESIS: Final = frozenset(name for name in READ if name == name.lower()) | _KEYWORDS | _SPECIAL
"""Words, in lower case, that may precede "(" in a text that the screen calls plain."""
