"""What a session keeps of the statements it ran, decided by how they ended.

Settings and pins are moved by outcome and never by text alone (W-35, W-43): a SET in a transaction that rolls back did not happen,
a COMMIT whose tag says ROLLBACK is one. ``Journal`` holds what is in force and what to return to; ``Watch`` sits in the reply queue
and tells it of each CommandComplete. Knows no socket and no server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from hyperdrive.session import settings
from hyperdrive.session.settings import (
    DOUBT,
    EMPTY,
    IDLE_SESSION,
    PREFIX,
    Label,
    for_session,
    in_block,
    label,
    statement_for,
)
from hyperdrive.sql.verdict import (
    AdvisoryLock,
    AdvisoryUnlock,
    Dropped,
    Effect,
    Form,
    Kind,
    Mark,
    Parameter,
    SetConfig,
    Setting,
    Statement,
    TempObject,
)

TEMPORARY: Final = "temporary object"
LISTENING: Final = "LISTEN"
HOLD_CURSOR: Final = "WITH HOLD cursor"
PREPARED: Final = "PREPARE"
ADVISORY: Final = "advisory lock"
COMPUTED: Final = "set_config of a computed value"
"""The detail is the name of the setting; ``None``: only the server knows that, too."""

Pin = tuple[str, object]
"""Why a client keeps its server, and on what: ``("LISTEN", b"channel")``."""

_NO_PINS: Final[frozenset[Pin]] = frozenset()
_DOUBTFUL: Final = b"?"
"""Among what is local: something is, and nobody knows what."""
_IDENTITY: Final = (b"role", b"session_authorization")
_NOTHING_LOCAL: Final[Mapping[bytes, bytes | None]] = {}


class _Frame(NamedTuple):
    """What to return to when a transaction or savepoint is rolled back."""

    savepoint: bytes | None
    wanted: Label
    actual: Label
    pins: frozenset[Pin]
    local: Mapping[bytes, bytes | None]


class Journal:
    """The settings and pins of one client session.

    ``wanted`` is what the client set, ``actual`` what the linked server has; they differ only after a RESET of a setting that the
    client gave at start-up. ``local`` is what it set for the transaction only, ``None`` being the server's own value. ``pins`` follow
    the transaction, ``lasting`` pins do not (locks, PREPARE, LOAD).
    """

    __slots__ = ("_frames", "actual", "base", "lasting", "local", "pins", "wanted")

    def __init__(self, base: Label) -> None:
        self.base = base
        self.wanted = base
        self.actual = base
        self.pins: frozenset[Pin] = _NO_PINS
        self.lasting: dict[Pin, int] | None = None
        self._frames: list[_Frame] | None = None
        self.local = _NOTHING_LOCAL
        """Settings of ours until the transaction ends: name to the SQL that set it; ``None`` is the default. Never changed in place."""

    @property
    def is_pinned(self) -> bool:
        return bool(self.pins) or bool(self.lasting)

    @property
    def temporary(self) -> set[bytes | None]:
        """Names of its temporary objects, which stand before those of the same name; ``None``: of one that is not known."""
        names = [
            detail[0] if isinstance(detail, tuple) else None for reason, detail in self.pins if reason == TEMPORARY
        ]
        return set(names)

    @property
    def is_untouched(self) -> bool:
        """The transaction that is under way, if any, has changed nothing that is kept here."""
        return not self._frames

    @property
    def in_force(self) -> Label:
        """The settings under which a statement is read now; ``DOUBT`` if they are not known."""
        if self.actual is settings.UNKNOWN or _DOUBTFUL in self.local:
            return DOUBT
        local = {name: sql for name, sql in self.local.items() if not name.startswith(PREFIX)}
        if not local:
            return self.wanted
        return label({name: sql for name, sql in {**self.wanted.items, **local}.items() if sql is not None})

    @property
    def may_revert(self) -> bool:
        """The end of the transaction may change what is in force."""
        return bool(self.local) or any(frame.wanted is not self.wanted for frame in self._frames or ())

    def reasons(self) -> list[str]:
        """Why the client is pinned, for the console."""
        return sorted({reason for reason, _ in self.pins} | {reason for reason, _ in self.lasting or ()})

    def pin(self, reason: str, detail: object = None) -> None:
        """Keep the server until the client leaves or says DISCARD ALL."""
        self._last((reason, detail), 1)

    def unpin(self, reason: str, detail: object = None) -> None:
        """Take a ``pin`` back."""
        self._last((reason, detail), -1)

    def settle(self, *, failed: bool) -> None:
        """The session is idle again: what was done is done, or undone."""
        if self._frames:
            if failed:
                self._return_to(self._frames[0])
            self._end()

    def abandoned(self) -> None:
        """The server is gone, and with it the transaction and whatever was pinned to it."""
        if self._frames:
            self._return_to(self._frames[0])
        self._frames = None
        self.local = _NOTHING_LOCAL
        self.pins = _NO_PINS
        self.lasting = None
        self.actual = self.wanted

    def reset_settings_here(self) -> None:
        """RESET ALL, answered without the server: the role stays, as in PostgreSQL (W-36)."""
        self.local = _NOTHING_LOCAL
        self.wanted = label({**self.base.items, **self._identity()})

    def _identity(self) -> dict[bytes, bytes]:
        items = self.wanted.items
        return {name: items[name] for name in _IDENTITY if name in items}

    def reset_here(self) -> None:
        """DISCARD ALL, answered without the server."""
        self.wanted = self.base
        self.local = _NOTHING_LOCAL
        self.pins = _NO_PINS
        self.lasting = None
        self._frames = None

    # --- outcomes -------------------------------------------------------------------------------------------------------------

    def completed(self, statement: Statement, tag: bytes, parameters: Parameters | None = None) -> None:
        """*statement* succeeded with *tag*; *parameters* are those of its Bind, if it had one."""
        kind = statement.kind
        if kind in _TRANSACTION_ENDS:
            if self._frames:
                if tag == b"ROLLBACK":
                    self._return_to(self._frames[0])
                self._end()
            return
        self._remember()
        if statement.suspect:
            self.actual = settings.UNKNOWN
        if kind is Kind.SAVEPOINT:
            assert self._frames is not None
            self._frames.append(_Frame(statement.name, self.wanted, self.actual, self.pins, self.local))
        elif kind is Kind.RELEASE or kind is Kind.ROLLBACK_TO:
            self._to_savepoint(statement.name, rollback=kind is Kind.ROLLBACK_TO)
        elif kind in _SETTING_KINDS:
            self._set(statement)
        elif kind is Kind.SET_LOCAL:
            if statement.setting is not None:
                self.set_local(statement.setting)
        elif kind in _PIN_KINDS:
            self._pins_of(statement)
        for effect in statement.effects:
            self._effect(effect, statement, parameters)

    def join(self, told: bytes | None) -> None:
        """Between transactions: what several SETs of the merged setting came to is *told*."""
        is_same = self.actual is self.wanted
        self.wanted = self.wanted.joined(told)
        if is_same:
            self.actual = self.wanted
        elif self.actual is not settings.UNKNOWN:
            self.actual = self.actual.joined(told)

    def restored(self, within: Iterable[bytes] = ()) -> None:
        """The server has the start-up values again, too; those set *within* a transaction as that allows (``in_block``)."""
        if self.actual is settings.UNKNOWN:
            return  # what else it has is still unknown
        items = self.wanted.items
        self.actual = label({**items, **{name: in_block(items[name]) for name in within if name in items}})

    def completed_unknown(self) -> None:
        """Something ran whose class is unknown: settings may be anything."""
        self._remember()
        self.actual = settings.UNKNOWN

    # --- settings -------------------------------------------------------------------------------------------------------------

    def _set(self, statement: Statement) -> None:
        kind = statement.kind
        if kind is Kind.DISCARD_ALL:
            self.wanted, self.actual, self.local = self.base, EMPTY, _NOTHING_LOCAL
            self.pins, self.lasting = _NO_PINS, None
            return
        if kind is Kind.RESET_ALL:
            self._reset_all()
            return
        if kind is Kind.SET_SESSION_CHARACTERISTICS:
            for name, sql in _characteristics(statement):
                self._change(name, sql)
            return
        setting = statement.setting
        if setting is None or setting.is_local or setting.name in _OF_TRANSACTION:
            return
        if setting.name == b"seed":
            self.pin("setseed")
        elif setting.form is Form.CURRENT:
            self.actual = settings.UNKNOWN
        elif setting.form is Form.VALUE:
            self._change(setting.name, setting.sql)
            if setting.name == b"session_authorization":
                self._change(b"role", None)
        else:
            self._change(setting.name, None)
            if setting.name == b"session_authorization":
                self._change(b"role", None)

    def _reset_all(self) -> None:
        """RESET ALL skips the role (W-36), and whatever is at its default now: what SET LOCAL TO DEFAULT hides comes back (W-35)."""
        self.pins = frozenset(pin for pin in self.pins if not _ends_at_reset_all(pin))
        base, local = self.base.items, self.local
        kept = {name: sql for name, sql in local.items() if sql is None or name in _IDENTITY or sql == base.get(name)}
        stays = {*_IDENTITY, *kept}
        self.local = kept or _NOTHING_LOCAL
        self.wanted = label({**base, **{name: sql for name, sql in self.wanted.items.items() if name in stays}})
        if self.actual is not settings.UNKNOWN:  # else it may be the role
            self.actual = label({name: sql for name, sql in self.actual.items.items() if name in stays})

    def hidden(self) -> list[tuple[bytes, bytes]]:
        """Settings that the client gave at start-up and has SET LOCAL TO DEFAULT: the SQL for what that hides, and for itself."""
        wanted, base = self.wanted.items, self.base.items
        return [(wanted[name], sql) for name, sql in self.local.items() if sql is not None and sql == base.get(name)]

    def set_local(self, setting: Setting) -> None:
        """SET LOCAL: until the transaction ends, or a savepoint before it is returned to."""
        self._remember()
        if setting.name in _OF_TRANSACTION:
            return
        if setting.form in (Form.DEFAULT, Form.RESET):
            self._change_local(setting.name, self.base.items.get(setting.name))
            return
        sql = for_session(setting.sql) if setting.form is Form.VALUE else None
        self._change_local(setting.name if sql is not None else _DOUBTFUL, sql)

    def _change_local(self, name: bytes, sql: bytes | None) -> None:
        self.local = {**self.local, name: sql}

    def own(self, prefix: bytes) -> Mapping[bytes, bytes]:
        """Settings whose names begin with *prefix*, and the SQL that sets them, as they are in force now."""
        items = {**self.wanted.items, **self.local} if self.local else self.wanted.items
        return {name: sql for name, sql in items.items() if sql is not None and name.startswith(prefix)}

    def _change(self, name: bytes, sql: bytes | None) -> None:
        if self.pins:
            self.pins -= {(COMPUTED, name)}
        if name in self.local:
            self.local = {other: text for other, text in self.local.items() if other != name}
        if sql is None:
            self.wanted = self.wanted.with_(name, None).with_(name, self.base.items.get(name))
        else:
            self.wanted = self.wanted.with_(name, sql)
        if self.actual is not settings.UNKNOWN:
            self.actual = self.actual.with_(name, sql)

    def _set_config(self, effect: SetConfig, statement: Statement, parameters: Parameters | None) -> None:
        # Its arguments are text, text and boolean, which asyncpg sends in binary (W-33).
        name = _argument(effect.name, parameters, or_binary=True)
        name = name.lower() if name is not None else None
        is_null = effect.is_null or _is_null(effect.value, parameters)
        value = None if is_null else _argument(effect.value, parameters, or_binary=True)
        is_known = effect.is_exact and (value is not None or is_null)
        local = effect.is_local
        if isinstance(local, Parameter):
            text = _argument(local, parameters, or_binary=True)
            local = _BOOLEANS.get(text.lower()) if text is not None else None
        if local is True:
            if name is None or not is_known:
                self._change_local(_DOUBTFUL, None)
            else:
                self._change_local(name, statement_for(name, value) if value is not None else None)
            return
        if local is None or name is None or not is_known:
            # Nobody could set it on another server.
            self.actual = settings.UNKNOWN
            if statement.kind is not Kind.DDL:  # which stores the call for others, all but CREATE TABLE AS
                self.pins |= {(COMPUTED, name)}
            return
        if name in _OF_TRANSACTION:
            return
        if name == IDLE_SESSION:
            self.actual = settings.UNKNOWN  # a server has what it should not have
        self._change(name, None if value is None else statement_for(name, value))

    # --- pins -----------------------------------------------------------------------------------------------------------------

    def _pins_of(self, statement: Statement) -> None:
        kind, name = statement.kind, statement.name
        if kind is Kind.LISTEN:
            self.pins |= {(LISTENING, name)}
        elif kind is Kind.UNLISTEN:
            self.pins -= {(LISTENING, name)}
        elif kind is Kind.UNLISTEN_ALL:
            self._unpin(LISTENING)
        elif kind is Kind.DECLARE:
            if statement.hold:
                self.pins |= {(HOLD_CURSOR, name)}
        elif kind is Kind.CLOSE:
            self.pins -= {(HOLD_CURSOR, name)}
        elif kind is Kind.CLOSE_ALL:
            self._unpin(HOLD_CURSOR)
        elif kind is Kind.DISCARD_TEMP:
            self._unpin(TEMPORARY)
        elif kind is Kind.PREPARE:
            self._last((PREPARED, name), 1)
        elif kind is Kind.DEALLOCATE:
            self._last((PREPARED, name), -1)
        elif kind is Kind.DEALLOCATE_ALL:
            self._unlast(PREPARED)

    def _unpin(self, reason: str) -> None:
        self.pins = frozenset(pin for pin in self.pins if pin[0] != reason)

    def _last(self, pin: Pin, count: int) -> None:
        lasting = self.lasting = self.lasting or {}
        left = lasting.get(pin, 0) + count
        if left > 0:
            lasting[pin] = left
        else:
            lasting.pop(pin, None)

    def _unlast(self, reason: str) -> None:
        self.lasting = {pin: count for pin, count in (self.lasting or {}).items() if pin[0] != reason}

    def _effect(self, effect: Effect, statement: Statement, parameters: Parameters | None) -> None:
        match effect:
            case SetConfig():
                self._set_config(effect, statement, parameters)
            case TempObject(name, on_commit_drop):
                self.pins |= {(TEMPORARY, (name, on_commit_drop))}
            case Dropped(names):
                gone = {(TEMPORARY, (name, drop)) for name in names for drop in (False, True)}
                self.pins -= gone
            case AdvisoryLock(key, is_shared):
                self._last((ADVISORY, _lock(key, is_shared, parameters)), 1)
            case AdvisoryUnlock(key, is_shared):
                self._last((ADVISORY, _lock(key, is_shared, parameters)), -1)
            case Mark.ADVISORY_UNLOCK_ALL:
                self._unlast(ADVISORY)
            case Mark.SETSEED:
                self.pin("setseed")
            case Mark.LOAD:
                self.pin("LOAD")
            case Mark.SESSION_FUNCTION:
                self.pin("session function")
            case Mark.LISTEN | Mark.HOLD_CURSOR | Mark.PREPARE:
                pass  # the statement's own kind and name say it

    # --- frames ---------------------------------------------------------------------------------------------------------------

    def _remember(self) -> None:
        if not self._frames:
            self._frames = [_Frame(None, self.wanted, self.actual, self.pins, self.local)]

    def _return_to(self, frame: _Frame) -> None:
        # A label that became unknown in the transaction may have been changed by what a rollback does not undo.
        unknown = self.actual is settings.UNKNOWN
        self.wanted, self.actual, self.pins, self.local = frame.wanted, frame.actual, frame.pins, frame.local
        if unknown:
            self.actual = settings.UNKNOWN

    def _end(self) -> None:
        self._frames = None
        self.local = _NOTHING_LOCAL
        if self.pins:
            self.pins = frozenset(pin for pin in self.pins if not _ends_at_commit(pin))

    def _to_savepoint(self, name: bytes | None, *, rollback: bool) -> None:
        frames = self._frames or []
        for index in range(len(frames) - 1, 0, -1):
            if frames[index].savepoint == name:
                if rollback:
                    self._return_to(frames[index])
                    del frames[index + 1 :]
                else:
                    del frames[index:]
                return


def may_change_settings(statements: tuple[Statement, ...] | None, journal: Journal) -> bool:
    """Whether other settings may be in force behind *statements* than *journal* says ahead of them."""
    if statements is None:
        return True
    return any(
        statement.kind in _SETTING_KINDS
        or statement.kind is Kind.SET_LOCAL
        or statement.suspect
        or any(isinstance(effect, SetConfig) for effect in statement.effects)
        or (statement.kind in _REVERTS and journal.may_revert)
        for statement in statements
    )


_TRANSACTION_ENDS: Final = frozenset({Kind.COMMIT, Kind.ROLLBACK, Kind.PREPARE_TRANSACTION})
_REVERTS: Final = _TRANSACTION_ENDS | {Kind.ROLLBACK_TO}
_SETTING_KINDS: Final = frozenset(
    {Kind.SET, Kind.RESET, Kind.RESET_ALL, Kind.DISCARD_ALL, Kind.SET_SESSION_CHARACTERISTICS},
)
_PIN_KINDS: Final = frozenset(
    {
        Kind.LISTEN,
        Kind.UNLISTEN,
        Kind.UNLISTEN_ALL,
        Kind.DECLARE,
        Kind.CLOSE,
        Kind.CLOSE_ALL,
        Kind.DISCARD_TEMP,
        Kind.PREPARE,
        Kind.DEALLOCATE,
        Kind.DEALLOCATE_ALL,
    },
)


# They end with their transaction however they are set, and RESET refuses them (0A000).
_OF_TRANSACTION: Final = frozenset({b"transaction_isolation", b"transaction_read_only", b"transaction_deferrable"})


def _ends_at_commit(pin: Pin) -> bool:
    """A temporary object made with ON COMMIT DROP."""
    reason, detail = pin
    return reason == TEMPORARY and isinstance(detail, tuple) and bool(detail[1])


def _ends_at_reset_all(pin: Pin) -> bool:
    """A setting that is known to be no role (W-36)."""
    reason, name = pin
    return reason == COMPUTED and name is not None and name not in _IDENTITY


def _characteristics(statement: Statement) -> list[tuple[bytes, bytes]]:
    """SET SESSION CHARACTERISTICS as the three settings behind it (sql-set-transaction)."""
    modes = statement.modes
    changes: list[tuple[bytes, bytes]] = []
    if modes is None:
        return changes
    if modes.isolation is not None:
        name = b"default_transaction_isolation"
        changes.append((name, b"SET %s TO '%s'" % (name, modes.isolation.value)))
    for name, value in (
        (b"default_transaction_read_only", modes.read_only),
        (b"default_transaction_deferrable", modes.deferrable),
    ):
        if value is not None:
            changes.append((name, b"SET %s TO %s" % (name, b"on" if value else b"off")))
    return changes


# Only the usual spellings: anything else makes the label unknown.
_BOOLEANS: Final = {
    b"\x01": True,
    b"\x00": False,
    b"t": True,
    b"true": True,
    b"1": True,
    b"on": True,
    b"f": False,
    b"false": False,
    b"0": False,
    b"off": False,
}


class Parameters:
    """The parameters of one Bind, read only when an effect asks for one."""

    __slots__ = ("_message", "_start")

    def __init__(self, message: bytes, start: int) -> None:
        self._message = message
        self._start = start

    @property
    def count(self) -> int:
        """How many there are."""
        data, at = self._message, self._start
        at += 2 + 2 * int.from_bytes(data[at : at + 2], "big")
        return int.from_bytes(data[at : at + 2], "big")

    def text(self, number: int, *, or_binary: bool = False) -> bytes | None:
        """Parameter ``$number`` if it came as text; ``None`` for NULL, binary or missing ones.

        *or_binary*: in binary as well, where it can be nothing but a string, whose binary form is its text.
        """
        value, is_binary = self._raw(number)
        return None if is_binary and not or_binary else value

    def is_null(self, number: int) -> bool:
        """Whether ``$number`` is NULL."""
        return 0 < number <= self.count and self._raw(number)[0] is None

    def _raw(self, number: int) -> tuple[bytes | None, bool]:
        """The bytes of a parameter, ``None`` for NULL or a missing one, and whether they are its binary form."""
        data, at = self._message, self._start
        formats_count = int.from_bytes(data[at : at + 2], "big")
        formats = [int.from_bytes(data[at + 2 + 2 * k : at + 4 + 2 * k], "big") for k in range(formats_count)]
        at += 2 + 2 * formats_count
        count = int.from_bytes(data[at : at + 2], "big")
        at += 2
        for index in range(count):
            size = int.from_bytes(data[at : at + 4], "big", signed=True)
            at += 4
            if index == number - 1:
                is_binary = formats[index if formats_count > 1 else 0] if formats_count else 0
                return None if size < 0 else data[at : at + size], bool(is_binary)
            at += max(size, 0)
        return None, False


def _argument(
    value: bytes | Parameter | None, parameters: Parameters | None, *, or_binary: bool = False
) -> bytes | None:
    if isinstance(value, Parameter):
        return parameters.text(value.number, or_binary=or_binary) if parameters is not None else None
    return value


def _is_null(value: bytes | Parameter | None, parameters: Parameters | None) -> bool:
    return isinstance(value, Parameter) and parameters is not None and parameters.is_null(value.number)


def _lock(key: tuple[bytes | Parameter | None, ...] | None, is_shared: bool, parameters: Parameters | None) -> object:
    if key is None:
        return (None, is_shared)
    return (tuple(_argument(part, parameters) for part in key), is_shared)


class Completes(Protocol):
    """What a Watch tells: the client session."""

    def completed(
        self,
        statement: Statement | None,
        tag: bytes,
        parameters: Parameters | None,
        *,
        restored: Iterable[bytes] | None = None,
    ) -> None: ...


class Watch:
    """Sits on an entry of the reply queue and hands each CommandComplete to the client session."""

    __slots__ = ("_client", "_index", "_parameters", "_restored", "statements")

    def __init__(
        self,
        client: Completes,
        statements: tuple[Statement, ...] | None,
        parameters: Parameters | None = None,
        *,
        restored: Iterable[bytes] | None = None,
    ) -> None:
        self._restored = restored
        self._client = client
        self._index = 0
        self._parameters = parameters
        self.statements = statements

    def completed(self, tag: bytes, *, suspended: bool) -> None:
        """One statement ended with *tag*; a suspended portal did not end, yet what its functions did is done."""
        statements = self.statements
        if self._restored is not None and self._index:
            return  # one of ours
        if statements is None or self._index >= len(statements):
            self._client.completed(None, tag, None)
            return
        self._client.completed(statements[self._index], tag, self._parameters, restored=self._restored)
        if not suspended:
            self._index += 1
