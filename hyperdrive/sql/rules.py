"""The rules of the cache's decision, and the refusal that names one.

One value per rule of the decision procedure (caching rules §4), plus those for which a text is not even read (§3). The enum is
closed: it is a metric label, and what ``SHOW hyperdrive.last_read`` and ``explain`` print. ``sql/`` decides the rules about a
text (6, 8–16); the others are the session's and the cache's, and are named here so that there is one list.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Rule(Enum):
    """Why a read was not served from the cache, or its reply not stored. In the order in which they are asked."""

    # --- the session and the origin (decided above sql/) ---
    OFF = "off"
    ORIGIN_UNKNOWN = "origin-unknown"
    STREAM_DOWN = "stream-down"
    IN_TRANSACTION = "in-transaction"
    SESSION_STATE = "session-state"
    # --- what is refused before it is read (§3) ---
    ENCODING = "encoding"
    STRINGS = "strings"
    TOO_LONG = "too-long"
    SYNTAX = "syntax"
    """PostgreSQL's grammar rejects it, or it is nested too deeply: it may well run at the origin."""
    # --- the text and what it touches ---
    MULTI_STATEMENT = "multi-statement"
    PORTAL = "portal"
    NOT_SELECT = "not-select"
    LOCKING = "locking"
    RELATION = "relation"
    SYSTEM_COLUMN = "system-column"
    VIEW = "view"
    ROW_SECURITY = "row-security"
    FUNCTION = "function"
    OPERATOR = "operator"
    CAST = "cast"
    TYPE = "type"
    CLOCK_WORD = "clock-word"
    # --- serving and storing (decided above sql/) ---
    OWN_WRITE = "own-write"
    NO_ENTRY = "no-entry"
    INVALIDATED = "invalidated"
    EXPIRED = "expired"
    RACED = "raced"
    REPLY = "reply"
    SIZE = "size"
    ADMISSION = "admission"


@dataclass(frozen=True, slots=True)
class Refused:
    """No: this text is never cached as things are. The object that triggered *rule*, and what would lift it, if anything."""

    rule: Rule
    object: str = ""
    """What it is about, as a user would write it: ``now()``, ``public.t``, ``operator public.===``."""
    hint: str = ""
    """The rewrite, or the SQL or setting, that would lift it; empty where there is none."""
    because: Refused | None = None
    """For ``VIEW``: what is wrong with the view's body."""

    def __str__(self) -> str:
        return f"{self.rule.value}: {self.object}" if self.object else self.rule.value
