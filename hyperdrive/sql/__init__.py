"""What a statement is: classification of SQL texts, pure and remembered.

``VerdictCache.classify(sql)`` on the query path, ``classify`` for single texts; the answer is a ``Verdict``. Knows SQL; knows no
session, no server and no cache of results. Which names are known built-ins stands in ``functions``. See DESIGN.md.
"""

from hyperdrive.sql.cache import VerdictCache
from hyperdrive.sql.parse import MAX_PARSE_BYTES, classify, parse
from hyperdrive.sql.text import is_ascii_safe, quote_identifier, quote_literal, strip_comments
from hyperdrive.sql.verdict import (
    EMPTY,
    UNKNOWN,
    AdvisoryLock,
    AdvisoryUnlock,
    Argument,
    Command,
    Dropped,
    Effect,
    Form,
    Isolation,
    Kind,
    Mark,
    Modes,
    Parameter,
    Reason,
    Relation,
    SetConfig,
    Setting,
    Statement,
    TempObject,
    Verdict,
)

__all__ = [
    "EMPTY",
    "MAX_PARSE_BYTES",
    "UNKNOWN",
    "AdvisoryLock",
    "AdvisoryUnlock",
    "Argument",
    "Command",
    "Dropped",
    "Effect",
    "Form",
    "Isolation",
    "Kind",
    "Mark",
    "Modes",
    "Parameter",
    "Reason",
    "Relation",
    "SetConfig",
    "Setting",
    "Statement",
    "TempObject",
    "Verdict",
    "VerdictCache",
    "classify",
    "is_ascii_safe",
    "parse",
    "quote_identifier",
    "quote_literal",
    "strip_comments",
]
