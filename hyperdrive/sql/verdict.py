"""What a text of SQL is, as values: ``Verdict`` of ``Statement`` of ``Effect``.

Knows the words only; who finds them is ``screen`` and ``parse``, what follows from them is decided in ``session/``. All values
are frozen and shared between sessions by identity. Names and values are ``bytes`` as the origin's parser sees them: identifiers
are folded, unquoted and cut to 63 bytes. Rule numbers (W-nn, E-n) are those of the wire reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, TypeAlias


class Kind(Enum):
    """What a statement is; of a verdict: its only statement's kind, or EMPTY, MULTI, UNKNOWN."""

    PLAIN = "plain"
    """SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, TABLE, each also behind WITH."""
    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    RELEASE = "release"
    ROLLBACK_TO = "rollback_to"
    PREPARE_TRANSACTION = "prepare_transaction"
    COMMIT_PREPARED = "commit_prepared"
    ROLLBACK_PREPARED = "rollback_prepared"
    SET = "set"
    SET_LOCAL = "set_local"
    SET_TRANSACTION = "set_transaction"
    SET_SESSION_CHARACTERISTICS = "set_session_characteristics"
    SET_CONSTRAINTS = "set_constraints"
    RESET = "reset"
    RESET_ALL = "reset_all"
    SHOW = "show"
    DISCARD_ALL = "discard_all"
    DISCARD_PLANS = "discard_plans"
    DISCARD_SEQUENCES = "discard_sequences"
    DISCARD_TEMP = "discard_temp"
    DEALLOCATE = "deallocate"
    DEALLOCATE_ALL = "deallocate_all"
    PREPARE = "prepare"
    EXECUTE = "execute"
    LISTEN = "listen"
    UNLISTEN = "unlisten"
    UNLISTEN_ALL = "unlisten_all"
    NOTIFY = "notify"
    DECLARE = "declare"
    CLOSE = "close"
    CLOSE_ALL = "close_all"
    FETCH = "fetch"
    """Also MOVE."""
    COPY = "copy"
    LOCK = "lock"
    LOAD = "load"
    CALL = "call"
    DO = "do"
    EXPLAIN = "explain"
    DDL = "ddl"
    """CREATE, ALTER, DROP, GRANT, COMMENT …, SELECT INTO: what ends a schema epoch."""
    UTILITY = "utility"
    """Anything else that parses: TRUNCATE, VACUUM, ANALYZE, REINDEX, CHECKPOINT …"""
    EMPTY = "empty"
    MULTI = "multi"
    UNKNOWN = "unknown"

    # A member is one object, and Enum's own hash is a Python function: the query path asks sets of kinds a dozen times per transaction.
    __hash__ = object.__hash__


class Command(Enum):
    """The word behind ``Kind.PLAIN``. VALUES and TABLE are SELECT, as their tag says."""

    SELECT = "select"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    MERGE = "merge"


class Reason(Enum):
    """Why a text's class is unknown; a metric label."""

    DOES_NOT_PARSE = "does_not_parse"
    TOO_LONG = "too_long"
    TOO_DEEP = "too_deep"
    ENCODING = "encoding"
    """Not ASCII, in a client_encoding with ASCII bytes inside characters (W-41)."""
    STRINGS = "strings"
    """standard_conforming_strings or backslash_quote is not the default (W-42)."""


class Isolation(Enum):
    """Levels as ``SET`` and ``SHOW`` spell them."""

    READ_UNCOMMITTED = b"read uncommitted"
    READ_COMMITTED = b"read committed"
    REPEATABLE_READ = b"repeatable read"
    SERIALIZABLE = b"serializable"


@dataclass(frozen=True, slots=True)
class Modes:
    """Transaction modes of BEGIN, START TRANSACTION, SET TRANSACTION, SET SESSION CHARACTERISTICS; ``None``: not said."""

    isolation: Isolation | None = None
    read_only: bool | None = None
    deferrable: bool | None = None
    snapshot: bytes | None = None
    """``SET TRANSACTION SNAPSHOT`` (W-49)."""


class Form(Enum):
    """What a ``Setting`` does to its setting."""

    VALUE = "value"
    DEFAULT = "default"
    """``SET x TO DEFAULT``, also ``SET TIME ZONE LOCAL`` and ``SET SESSION AUTHORIZATION DEFAULT``."""
    CURRENT = "current"
    """``SET x FROM CURRENT``."""
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Setting:
    """The setting that SET, SET LOCAL or RESET changes."""

    name: bytes
    """In lower case, as ``pg_settings`` would find it: ``timezone``, ``search_path``, ``role``, ``session_authorization``,
    ``client_encoding``, ``xmloption``, ``seed``, ``hyperdrive.cache``."""
    form: Form
    sql: bytes
    """The client's own text without comments and semicolon, to be replayed (W-38)."""
    values: tuple[bytes, ...] | None = None
    """The elements if all are plain constants, unquoted; ``None``: no VALUE, or an INTERVAL."""
    is_local: bool = False


# --- What a statement leaves behind, or depends on, in the session ---


@dataclass(frozen=True, slots=True)
class Parameter:
    """A constant that is not in the text: ``$number``, to be taken from Bind."""

    number: int


Argument: TypeAlias = bytes | Parameter | None
"""A constant as text, a parameter, or ``None``: cannot be told from the text."""


@dataclass(frozen=True, slots=True)
class SetConfig:
    """``set_config(name, value, is_local)``. With ``is_exact`` it runs exactly once, if the statement succeeds."""

    name: Argument
    value: Argument
    is_null: bool
    """A NULL value resets the setting to its default."""
    is_local: bool | Parameter | None
    is_exact: bool

    @property
    def can_be_told(self) -> bool:
        """Whether text and parameters say what is set to what."""
        return self.is_exact and self.name is not None and (self.value is not None or self.is_null)


@dataclass(frozen=True, slots=True)
class AdvisoryLock:
    """A session advisory lock function. ``try`` counts as a lock: it may have failed, which only pins for longer."""

    key: tuple[Argument, ...] | None
    """One or two keys; ``None``: cannot be told, so no unlock can be matched with it."""
    is_shared: bool


@dataclass(frozen=True, slots=True)
class AdvisoryUnlock:
    """One unlock. Listed only if it runs exactly once with a known key; any other unlock proves nothing."""

    key: tuple[Argument, ...]
    is_shared: bool


@dataclass(frozen=True, slots=True)
class TempObject:
    """CREATE TEMP …, SELECT INTO TEMP, anything created in ``pg_temp``."""

    name: bytes | None
    """``None``: unnamed here, so no DROP can be matched with it."""
    on_commit_drop: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """DROP TABLE, VIEW, SEQUENCE: their names without schema. It may be the end of temporary objects."""

    names: tuple[bytes, ...]


class Mark(Enum):
    """Effects without details."""

    ADVISORY_UNLOCK_ALL = "pg_advisory_unlock_all"
    SETSEED = "setseed"
    """``setseed()`` or ``SET SEED``: never ends (W-43)."""
    LOAD = "load"
    HOLD_CURSOR = "hold_cursor"
    LISTEN = "listen"
    PREPARE = "prepare"
    SESSION_FUNCTION = "session_function"
    """A built-in with state that ends with the session: replication origins, ``pg_backup_start``, temporary slots."""


Effect: TypeAlias = SetConfig | AdvisoryLock | AdvisoryUnlock | TempObject | Dropped | Mark


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation as named in FROM, INTO, DML; CTE names too, wherever they might be meant (over-naming costs little)."""

    schema: bytes | None
    name: bytes


# --- Statements and verdicts ---


class Statement(NamedTuple):
    """One SQL statement of a text. Build it with keywords; a tuple only because a frozen dataclass takes five times as long."""

    kind: Kind
    sql: bytes
    """Its slice of the text, without the semicolon and the white space around it."""
    location: int = 0
    """Where that slice begins, in bytes of the text."""
    tag: bytes | None = None
    """The command tag it gives on success, if that is fixed: §4 of the wire reference."""
    command: Command | None = None
    name: bytes | None = None
    """Savepoint, cursor, prepared statement, channel, transaction id (gid), setting of SHOW (``all`` for SHOW ALL), column of a query
    with a ``setting``."""
    setting: Setting | None = None
    """What SET, SET LOCAL or RESET changes, or a query that is nothing but ``set_config(…, false)`` with constants."""
    modes: Modes | None = None
    chain: bool = False
    """AND CHAIN."""
    hold: bool = False
    """WITH HOLD."""
    is_read: bool = False
    """SELECT or SHOW that writes nothing and locks nothing *as far as a text can tell* (E-5): no locking clause, no data-modifying
    CTE, no INTO, only built-in functions that are not volatile. Still open, since only the catalog knows: what ``relations`` are
    (views, foreign tables), column notation ``t.f`` that calls a function, user-defined operators, casts and types."""
    may_write: bool = True
    """False if it cannot change data at the origin. Cautious: FETCH, EXECUTE, NOTIFY and all functions we do not know may."""
    suspect: bool = False
    """It may change settings unseen, or do anything else to the session (W-37): unknown functions, DO, CALL, EXECUTE."""
    takes_locks: bool = False
    """Locks whose release is a signal to others (E-4): LOCK, FOR UPDATE|SHARE, advisory locks; unknown functions might."""
    reads_currval: bool = False
    """``currval`` or ``lastval`` without a ``nextval`` in the same statement (W-44)."""
    ends_epoch: bool = False
    """DDL: what is known of the schema may be wrong afterwards."""
    alters_defaults: bool = False
    """ALTER ROLE, DATABASE or SYSTEM … SET: later sessions begin with other settings."""
    effects: tuple[Effect, ...] = ()
    relations: tuple[Relation, ...] = ()
    unknown_functions: tuple[bytes, ...] = ()
    """Functions that are no known built-ins, as ``name`` or ``schema.name``: a catalog may acquit them later."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """What we know of a text. Compare with ``is``; the flags join those of all its statements."""

    kind: Kind
    statements: tuple[Statement, ...] | None
    """``None``: class unknown. Of a *screened* text one statement without slice and relations."""
    is_plain: bool = False
    """Exactly one PLAIN statement without any session effect and not suspect: the hot path."""
    is_doubtful: bool = False
    """Exactly one SELECT that calls functions which nobody knows without a catalog, and does nothing else to the session. A catalog may
    find that its answer can be kept; what it leaves behind at a server that runs it is as unknown as before."""
    is_read: bool = False
    """Every statement is one; see ``Statement.is_read`` for what this does not prove."""
    may_write: bool = True
    suspect: bool = True
    takes_locks: bool = True
    reads_currval: bool = False
    """``currval`` or ``lastval`` that no write or ``nextval`` goes before, in this text."""
    ends_epoch: bool = True
    is_screened: bool = False
    """Only looked at, not parsed: it may be a syntax error, and relations are not collected. ``parse`` says more."""
    effects: tuple[Effect, ...] = ()
    reason: Reason | None = None
    size_bytes: int = 0
    """Rough memory of this verdict beyond shared values, for the cache's bound."""

    @property
    def is_multi(self) -> bool:
        """Several statements: one implicit transaction, never answered here, held or rewritten (W-12)."""
        return self.kind is Kind.MULTI

    @property
    def single(self) -> Statement | None:
        """The only statement, if there is exactly one."""
        return self.statements[0] if self.statements is not None and len(self.statements) == 1 else None


def _screened(command: Command) -> Verdict:
    writes = command is not Command.SELECT
    statement = Statement(kind=Kind.PLAIN, sql=b"", command=command, is_read=not writes, may_write=writes)
    return Verdict(
        kind=Kind.PLAIN,
        statements=(statement,),
        is_plain=True,
        is_read=not writes,
        may_write=writes,
        suspect=False,
        takes_locks=False,
        ends_epoch=False,
        is_screened=True,
    )


SCREENED: Final = {command: _screened(command) for command in Command if command is not Command.MERGE}
"""The shared verdicts of texts that a look is enough for."""

UNKNOWN: Final = {reason: Verdict(kind=Kind.UNKNOWN, statements=None, reason=reason) for reason in Reason}
"""The shared verdicts of texts whose class is unknown: everything must be expected of them."""

EMPTY: Final = Verdict(
    kind=Kind.EMPTY,
    statements=(),
    is_read=True,
    may_write=False,
    suspect=False,
    takes_locks=False,
    ends_epoch=False,
)
"""Only white space, comments and semicolons."""
