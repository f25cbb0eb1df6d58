"""Transactions and settings as far as they need no server: what is held back, and what ends where it began.

BEGIN and SETs that the origin is known to accept are answered here and travel with the next statement (E-2, E-7); COMMIT and ROLLBACK
of a transaction that never reached the origin end here (E-3). Each answer is what the origin would say: tag, ParameterStatus, status
byte. Knows no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hyperdrive.metrics import Saved
from hyperdrive.pgwire import messages
from hyperdrive.session.accepted import Key, changed_setting, key_of, reported_name
from hyperdrive.session.held import Held
from hyperdrive.session.ours import Ours
from hyperdrive.session.outcome import LISTENING
from hyperdrive.session.pipe import Pipe
from hyperdrive.session.settings import MERGED, UNKNOWN, Label, queried
from hyperdrive.sql.verdict import Form, Isolation, Kind, Statement

_SETS: Final = frozenset({Kind.SET, Kind.RESET, Kind.SET_SESSION_CHARACTERISTICS})
_ASKED: Final = _SETS | {Kind.SET_LOCAL, Kind.PLAIN}
_NOTHING_HERE: Final = frozenset({Kind.DISCARD_PLANS, Kind.DISCARD_SEQUENCES, Kind.DISCARD_TEMP})
"""Concern what a session keeps at its server: an unpinned one has nothing there."""

_SAVED: Final = {
    Kind.BEGIN: Saved.BEGIN,
    Kind.SET_TRANSACTION: Saved.BEGIN,
    Kind.SAVEPOINT: Saved.BEGIN,
    Kind.RELEASE: Saved.BEGIN,
    Kind.ROLLBACK_TO: Saved.ROLLBACK,
    Kind.COMMIT: Saved.COMMIT,
    Kind.ROLLBACK: Saved.ROLLBACK,
    **dict.fromkeys(_ASKED | {Kind.SHOW}, Saved.SETTING),
    **dict.fromkeys((*_NOTHING_HERE, Kind.UNLISTEN, Kind.UNLISTEN_ALL, Kind.CLOSE_ALL), Saved.DISCARD),
}

_NO_SNAPSHOT: Final = frozenset({Isolation.READ_UNCOMMITTED, Isolation.READ_COMMITTED})
"""Levels at which the first snapshot of a transaction does not fix what the rest of it sees (E-0.4)."""

_TEXT_OID: Final = 25


class Transactions(Ours):
    """The part of a client session that keeps a transaction which no server knows of."""

    __slots__ = ("_asking", "base_told")

    def __init__(self, pipe: Pipe, base: Label, told: Mapping[bytes, bytes]) -> None:
        super().__init__(pipe, base, told)
        self.base_told = told
        """What the client was told at login."""
        self._asking: tuple[Key, bytes] | None = None
        """The SET that is under way at the origin, alone in its scope: what to remember if it is accepted, and its setting."""

    @property
    def is_holding(self) -> bool:
        """The client believes in a transaction that no server knows of."""
        return self.held is not None or self._failed_here

    @property
    def is_opaque(self) -> bool:
        """It keeps its server, and something changed settings there unseen: they stay as they are, as on a direct connection.

        Setting them right would take more from it than it ever gave up: its temporary tables, its locks, what it listens to.
        """
        return self.journal.actual is UNKNOWN and (self.keeps_server or self.journal.is_pinned)

    # --- which -------------------------------------------------------------------------------------------------------------------

    def _is_here(self, statement: Statement) -> bool:
        """Whether *statement*, alone in its scope, needs no server; the session is at rest: IDLE, HELD or CLOSING."""
        kind, held = statement.kind, self.held
        if self._is_ours(statement):
            return True
        if kind is Kind.BEGIN:
            return held is None and self.pipe.switches.hold_begin and self._may_begin(statement)
        if kind is Kind.COMMIT or kind is Kind.ROLLBACK:
            return held is not None and not statement.chain
        if kind is Kind.SAVEPOINT:
            return held is not None and not held.is_full
        if kind is Kind.RELEASE or kind is Kind.ROLLBACK_TO:
            return held is not None and held.has(statement.name)
        if kind is Kind.SET_TRANSACTION:
            return held is not None and not held.is_full and not held.has_read and self._may_set_modes(statement, held)
        if kind in _SETS or kind is Kind.SET_LOCAL:
            return self.pipe.switches.local_settings and self._may_set(statement)
        if kind is Kind.SHOW:
            return self.pipe.switches.local_settings and self._value_shown(statement) is not None
        if kind is Kind.PLAIN:
            return self.pipe.switches.local_settings and self._may_set_by_query(statement)
        return self.pipe.switches.local_settings and self._has_none(kind)

    def _has_none(self, kind: Kind) -> bool:
        """Whether it gives up what the session has none of."""
        if kind is Kind.UNLISTEN or kind is Kind.UNLISTEN_ALL:
            return not self.keeps_server and not self._listens
        if kind in _NOTHING_HERE:
            return not self.keeps_server and not self.journal.is_pinned and self._may_pass_for_seen
        if kind is Kind.CLOSE_ALL:
            return self.held is None and not self.keeps_server and not self.journal.is_pinned
        return False

    @property
    def _may_pass_for_seen(self) -> bool:
        """Whether a snapshot that the origin takes later is as good as one of now, if this is a held transaction."""
        held = self.held
        return held is None or (held.isolation or self.pipe.default_isolation(held.label)) in _NO_SNAPSHOT

    def _may_begin(self, statement: Statement) -> bool:
        # The origin keeps notifications back while a transaction is open, and this one it would not know of.
        return not self._listens and (statement.modes is None or self._accepts_modes(statement))

    @property
    def _listens(self) -> bool:
        return any(reason == LISTENING for reason, _ in self.journal.pins)

    def _may_set_modes(self, statement: Statement, held: Held) -> bool:
        modes = statement.modes
        if modes is None or modes.snapshot is not None:
            return False
        # Inside a savepoint most modes are refused, and READ ONLY lasts until its RELEASE.
        return self._accepts_modes(statement) and not held.has_savepoint

    def _accepts_modes(self, statement: Statement) -> bool:
        """A standby refuses what writes and SERIALIZABLE (hot-standby#HOT-STANDBY-USERS); it says so itself."""
        modes = statement.modes
        assert modes is not None
        return self.told.get(b"in_hot_standby") != b"on" or not (
            modes.isolation is Isolation.SERIALIZABLE or modes.read_only is False
        )

    def _may_set(self, statement: Statement) -> bool:
        held, live = self.held, self.live
        name = changed_setting(statement)
        if (
            name is None
            or self.is_opaque
            or (held is not None and held.is_full)
            or (live is not None and not statement.setting)
        ):
            return False
        if self._goes_to_base(statement, name):
            return False
        is_block = held is not None or live is not None
        if statement.kind is Kind.SET_LOCAL and (not is_block or reported_name(name, self.told) in self.told):
            return False  # alone it is a warning; what is reported would have to be taken back at the end
        key = key_of(statement, self.journal.wanted, self.told)
        return key is not None and key in self.pipe.accepted

    def _may_set_by_query(self, statement: Statement) -> bool:
        """The same of ``set_config``, of what is reported and so can be told as its row. In a transaction it takes a snapshot."""
        if self.held is not None or self.live is not None or not self._may_set(statement):
            return False
        if not self.pipe.is_builtin("set_config"):
            return False  # a search path, the database's say, may find somebody's own of that name
        key = key_of(statement, self.journal.wanted, self.told)
        return key is not None and self.pipe.accepted.value(key) is not None

    def _goes_to_base(self, statement: Statement, name: bytes) -> bool:
        """RESET to what this client gave at start-up, which no text tells."""
        setting = statement.setting
        return setting is not None and setting.form in (Form.RESET, Form.DEFAULT) and name in self.journal.base.items

    def _shown_name(self, statement: Statement) -> bytes:
        return reported_name(statement.name or b"", self.told)

    def _value_shown(self, statement: Statement) -> bytes | None:
        """What SHOW gives, if it is known: what is reported, and the level of a transaction that has not begun at the origin."""
        if statement.name == b"transaction_isolation" and self.live is None:
            held = self.held
            level = held.isolation if held is not None and held.isolation is not None else None
            level = level or self.pipe.default_isolation(self.journal.wanted if held is None else held.label)
            return level.value if level is not None else None
        value = self.told.get(self._shown_name(statement))
        if value is not None and self.live is None and not self.is_opaque:
            # What was told may be what a RESET in a transaction came to; by its next scope the server has what was given.
            given = queried(self.journal.wanted.items.get((statement.name or b"").lower(), b""))
            return value if given is None else given
        return value

    # --- what it does ------------------------------------------------------------------------------------------------------------

    def _carry_out(self, statement: Statement) -> bytes:
        """Carry *statement* out here; the reply behind what describes it, without ReadyForQuery."""
        kind, held = statement.kind, self.held
        if self._is_ours(statement):
            return self._set_ours(statement)
        if kind in _SAVED:
            self.pipe.saved[_SAVED[kind]] += 1
        tag = statement.tag or b""
        if kind is Kind.BEGIN:
            # The server will have what the client wants before BEGIN reaches it.
            if not self.is_opaque:
                self.journal.actual = self.journal.wanted
            self.held = Held(statement, self.told, self.journal.wanted)
        elif kind is Kind.COMMIT or kind is Kind.ROLLBACK:
            return self._end_here(statement, tag)
        elif kind is Kind.SHOW:
            return messages.data_row([self._value_shown(statement)]) + messages.command_complete(tag)
        elif kind in _SETS or kind is Kind.PLAIN:
            return self._set_here(statement, tag)
        elif held is not None and kind in _NOTHING_HERE:
            held.saw_read()  # it takes a snapshot, as most statements do
        elif held is not None and kind is Kind.RELEASE:
            held.release(statement.name)
            self.journal.completed(statement, tag)
        elif held is not None and kind is Kind.ROLLBACK_TO:
            told = held.cut(statement.name)
            self.journal.completed(statement, tag)
            return messages.command_complete(tag) + (self.tell_news(told) if told is not None else b"")
        elif self.live is not None and kind is Kind.SET_LOCAL:
            self.live.set(statement)
            self.journal.completed(statement, tag)
        elif held is not None and kind in (Kind.SAVEPOINT, Kind.SET_TRANSACTION, Kind.SET_LOCAL):
            held.add(statement, self.told)
            if kind is not Kind.SET_TRANSACTION:
                self.journal.completed(statement, tag)
        return messages.command_complete(tag)

    def _set_ours(self, statement: Statement) -> bytes:
        reply = self._carry_out_ours(statement)
        if self.held is None:
            self.journal.settle(failed=False)
        return reply

    def _end_here(self, statement: Statement, tag: bytes) -> bytes:
        assert self.held is not None
        told = self.held.told
        self.held = None
        self.journal.completed(statement, tag)
        return messages.command_complete(tag) + (self.tell_news(told) if tag == b"ROLLBACK" else b"")

    def _set_here(self, statement: Statement, tag: bytes) -> bytes:
        key = key_of(statement, self.journal.wanted, self.told)
        assert key is not None
        if self.held is not None:
            self.held.add(statement, self.told)
        elif self.live is not None:
            self.live.set(statement)
        value = self.pipe.accepted.value(key)
        self.journal.completed(statement, tag)
        if self.held is None and self.live is None:
            self.journal.settle(failed=False)
        reply = messages.command_complete(tag)
        if statement.kind is Kind.PLAIN:
            reply = messages.data_row([value]) + messages.command_complete(b"SELECT 1")
        name = reported_name(changed_setting(statement) or b"", self.told)
        if value is not None and self.is_news(name, value):
            reply += messages.parameter_status(name, value)
        if self.held is None and self.live is None:
            self._join()
        return reply

    def _join(self) -> None:
        if MERGED in self.journal.wanted.items:
            self.journal.join(self.told.get(reported_name(MERGED, self.told)))

    def _description(self, statement: Statement) -> bytes:
        """RowDescription or NoData of a statement that is answered here, as Describe of its portal gives it."""
        if statement.kind is Kind.PLAIN:
            return messages.row_description([(statement.name or b"", _TEXT_OID, -1)])
        if statement.kind is not Kind.SHOW:
            return messages.NO_DATA
        if self._is_ours(statement) and not self._describes(statement):
            return b""
        return messages.row_description([(self._shown_name(statement), _TEXT_OID, -1)])

    # --- what the origin accepts -------------------------------------------------------------------------------------------------

    def _ask(self, statement: Statement, *, alone: bool) -> None:
        """*statement* goes to the origin. If it is a SET that ends well it need not be asked again."""
        self._asking = None
        name = changed_setting(statement) if alone and statement.kind in _ASKED else None
        if name is None or self._goes_to_base(statement, name):
            return
        key = key_of(statement, self.journal.wanted, self.told)
        if key is not None:
            self._asking = key, name

    def _heard(self, *, failed: bool) -> None:
        """The scope has ended, and what it changed has been reported (W-34)."""
        asking, self._asking = self._asking, None
        if asking is not None and not failed:
            key, name = asking
            self.pipe.accepted.learn(key, self.told.get(reported_name(name, self.told)))
