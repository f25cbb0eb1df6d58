"""A transaction that the client believes in and no server knows of yet (HELD), and what is kept of it once one does (LIVE).

BEGIN, and what may follow it without an answer of the origin's, is kept as the client wrote it and travels ahead of the first
statement that needs a server, in the same write and without a Sync: if any of it failed, nothing behind it would run (E-2 of the wire
reference; verified on 15, 16 and 18). Knows no server; which statements may be held is decided in ``transactions``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from hyperdrive.pgwire import messages
from hyperdrive.session import replies
from hyperdrive.session.replies import Expected
from hyperdrive.session.settings import PREFIX, Label
from hyperdrive.sql.verdict import Isolation, Kind, Statement, Verdict

MAX_HELD: Final = 64
"""Statements held back at the most; what comes then is forwarded, with them ahead of it."""

MAX_READS: Final = 100
"""Reads of one transaction that are remembered for a proof that it has only read."""

ANALYZED: Final = frozenset({Kind.PLAIN, Kind.DECLARE, Kind.EXPLAIN})
"""Whose Parse takes a snapshot (analyze.c, ``analyze_requires_snapshot``)."""

SNAPSHOT: Final = b"SELECT 1"
"""Takes one, and does nothing else."""

_ENDS: Final = frozenset({Kind.COMMIT, Kind.ROLLBACK, Kind.PREPARE_TRANSACTION})
_READS_ONLY: Final = frozenset({Kind.SHOW, Kind.SAVEPOINT, Kind.RELEASE, Kind.EMPTY})


_NEVER_SHOWN: Final = frozenset(
    {b"statement_timeout", b"lock_timeout", b"idle_in_transaction_session_timeout", b"transaction_timeout"}
)


class _Item(NamedTuple):
    statement: Statement
    told: Mapping[bytes, bytes]
    """What the client had been told before it."""


class Held:
    """BEGIN and what followed it, in the client's order; *label* is what the client wanted when it began."""

    __slots__ = ("_items", "_read_at", "label", "portal")

    def __init__(self, begin: Statement, told: Mapping[bytes, bytes], label: Label) -> None:
        self._items = [_Item(begin, told)]
        self.label = label
        self._read_at = 0
        self.portal: bytes | None = b""
        """The unnamed portal that the client believes in: ``None`` is that of what was held last, empty is none, and anything else is a
        text whose run leaves one like it."""

    @property
    def statements(self) -> list[Statement]:
        """What is held back, in its order."""
        return [item.statement for item in self._items]

    @property
    def has_read(self) -> bool:
        """What takes a snapshot was answered in it."""
        return self._read_at > 0

    def saw_read(self) -> None:
        """A read in it, or something else that takes a snapshot, was answered here: the origin shall take one at this place, as that would
        have made it do, so that a SET TRANSACTION behind it is refused (caching-rules §13)."""
        self._read_at = self._read_at or len(self._items)

    def goes_ahead_of(self, verdict: Verdict | None) -> None:
        """A statement carries it to a server: a plain one takes the snapshot by itself, and if it fails before, nothing is left to choose,
        unless there is a savepoint to go back to."""
        if verdict is not None and verdict.kind is Kind.PLAIN and not self.has_savepoint:
            self._read_at = 0

    @property
    def has_local_settings(self) -> bool:
        """SET LOCAL of something that an answer may depend on is among it."""
        return any(
            statement.kind is Kind.SET_LOCAL
            and (statement.setting is None or statement.setting.name not in _NEVER_SHOWN)
            for statement in self.statements
        )

    @property
    def told(self) -> Mapping[bytes, bytes]:
        """What the client had been told before BEGIN."""
        return self._items[0].told

    @property
    def is_full(self) -> bool:
        return len(self._items) >= MAX_HELD

    @property
    def is_bare(self) -> bool:
        """Nothing but BEGIN."""
        return len(self._items) == 1

    @property
    def has_savepoint(self) -> bool:
        return any(item.statement.kind is Kind.SAVEPOINT for item in self._items)

    @property
    def has_local(self) -> bool:
        """Settings differ from the label of the session."""
        return any(item.statement.kind is Kind.SET_LOCAL for item in self._items)

    @property
    def isolation(self) -> Isolation | None:
        """The level asked for last; ``None``: the session's default."""
        levels = [item.statement.modes.isolation for item in self._items if item.statement.modes is not None]
        return next((level for level in reversed(levels) if level is not None), None)

    @property
    def read_only(self) -> bool | None:
        """As asked for last; ``None``: the session's default."""
        asked = [item.statement.modes.read_only for item in self._items if item.statement.modes is not None]
        return next((value for value in reversed(asked) if value is not None), None)

    def add(self, statement: Statement, told: Mapping[bytes, bytes]) -> None:
        """Hold *statement* back as well; *told* is what the client had been told before it."""
        self._items.append(_Item(statement, told))

    def has(self, savepoint: bytes | None) -> bool:
        """Whether *savepoint* was set in it."""
        return self._place(savepoint) > 0

    def release(self, savepoint: bytes | None) -> None:
        """RELEASE: forget *savepoint* and those set after it; what was done since stays."""
        at = self._place(savepoint)
        gone = [i for i in range(at, len(self._items)) if self._items[i].statement.kind is Kind.SAVEPOINT]
        self._read_at -= sum(1 for index in gone if index < self._read_at)
        for index in reversed(gone):
            del self._items[index]

    def _place(self, savepoint: bytes | None) -> int:
        """Where the newest savepoint of that name stands; 0 if there is none."""
        for index in range(len(self._items) - 1, 0, -1):
            statement = self._items[index].statement
            if statement.kind is Kind.SAVEPOINT and statement.name == savepoint:
                return index
        return 0

    def cut(self, savepoint: bytes | None) -> Mapping[bytes, bytes] | None:
        """ROLLBACK TO: forget what came after *savepoint*; what the client had been told then, or ``None`` if there is none."""
        at = self._place(savepoint)
        if not at:
            return None
        del self._items[at + 1 :]
        self._read_at = min(self._read_at, len(self._items))
        return self._items[at].told

    def ran(self, statement: Statement) -> None:
        """*statement* was answered in it, by the extended protocol: at the origin it would have left its portal.

        There is one to the end of the transaction, which says that it cannot be run again, and in a failed one what any statement is told.
        """
        self.portal = None if statement is self._items[-1].statement else portal_of(statement)

    def compose(self) -> tuple[bytes, list[Expected]]:
        """The messages that carry all this out on a server, and what they cause there."""
        runs = [_run(item.statement.sql) for item in self._items]
        entries = list(_STEPS) * len(runs)
        if self._read_at:
            runs.insert(self._read_at, _run_apart(SNAPSHOT))  # the portal of what is before it stays
            entries = [*_STEPS * self._read_at, *_STEPS_APART, *_STEPS * (len(self._items) - self._read_at)]
        data = b"".join(runs)
        if self.portal is None:
            return data, entries
        last, its_entries = portal_behind(self.portal)
        return data + last, entries + its_entries

    def told_ahead(self) -> bytes:
        """The replies to ``compose``, if they can only be these: of a bare BEGIN. Empty: they have to be looked at one by one."""
        tag = self._items[0].statement.tag
        if len(self._items) > 1 or self._read_at or self.portal or tag is None:
            return b""
        return _ran(tag) if self.portal is None else _ran(tag) + messages.CLOSE_COMPLETE


@lru_cache(16)
def _ran(tag: bytes) -> bytes:
    return messages.PARSE_COMPLETE + messages.BIND_COMPLETE + messages.command_complete(tag)


@lru_cache(512)
def _run(sql: bytes) -> bytes:
    return messages.parse(b"", sql) + messages.bind(b"", b"") + messages.execute()


def portal_of(statement: Statement) -> bytes:
    """The text whose run leaves such an unnamed portal as one of *statement* did; empty: none."""
    if statement.kind is Kind.SHOW and not (statement.name or b"").startswith(PREFIX):
        return statement.sql
    return b"" if statement.kind is Kind.ROLLBACK_TO else STANDS_IN


def portal_behind(sql: bytes) -> tuple[bytes, list[Expected]]:
    """What leaves the unnamed portal at a server as a run of *sql* by the extended protocol does, or, if that is empty, a Query: closed."""
    if sql is STANDS_IN:
        return _STANDS_IN, list(_STEPS) * 2
    return (_run(sql), list(_STEPS)) if sql else (_CLOSE, [replies.HELD_CLOSE])


@lru_cache(512)
def _run_apart(sql: bytes) -> bytes:
    portal = b"_hd"
    bound = messages.bind(portal, b"") + messages.execute(portal) + messages.close(b"P", portal)
    return messages.parse(b"", sql) + bound


_CLOSE: Final = messages.close(b"P")
"""The portal of a run would outlive it, and the client has none."""
STANDS_IN: Final = b"RELEASE _hd"
"""Behind its SAVEPOINT: does nothing, takes no snapshot, also on a standby, and leaves the portal of a statement that gives no rows. Only
in a transaction block, which may be prepared afterwards: not so behind UNLISTEN (sql-prepare-transaction)."""
_STANDS_IN: Final = _run(b"SAVEPOINT _hd") + _run(STANDS_IN)
_STEPS: Final = (replies.HELD_PARSE, replies.HELD_BIND, replies.HELD_EXECUTE)
_STEPS_APART: Final = (*_STEPS, replies.HELD_CLOSE)


class Live:
    """A transaction whose BEGIN was held and has been sent: what its end may be answered by (E-4, E-5)."""

    __slots__ = (
        *("has_snapshot", "held", "is_confirmed", "may_end", "only_reads", "sees", "settings", "takes_locks", "texts"),
    )

    def __init__(self, held: Held) -> None:
        self.held = held
        self.is_confirmed = False
        """The origin has answered a scope of it; until then the client alone believes in the transaction."""
        self.may_end = False
        """Something that was sent may have ended it, and begun another: AND CHAIN, or a list of statements."""
        self.sees = held.has_read
        """Something that was sent takes a snapshot, unless its scope fails before."""
        self.has_snapshot = False
        """The origin has certainly taken one: what is answered here need not make it do so (E-0.4)."""
        self.takes_locks = False
        """Something in it took locks whose release is a signal to others, or may have."""
        self.only_reads = not held.has_local
        """As far as the texts can tell, all under the same settings; what they read is left to a proof from the catalog."""
        self.texts: list[bytes] = []
        """The SELECTs among them."""
        self.settings: list[Statement] = []
        """SETs that were answered and have not been sent."""

    def set(self, statement: Statement) -> None:
        """A SET was answered; what the texts mean, before it and behind it, is no longer one thing."""
        self.only_reads = False
        self.settings.append(statement)

    def compose_settings(self) -> tuple[bytes, list[Expected]]:
        """The messages that carry out the SETs that were answered, and what they cause.

        Through a portal of their own, so that one of the client's that is suspended stays (W-28).
        """
        statements, self.settings = self.settings, []
        data = b"".join(
            [_run_apart(statement.setting.sql) for statement in statements if statement.setting is not None]
        )
        return data, list(_STEPS_APART) * len(statements)

    def take_snapshot(self) -> tuple[bytes, list[Expected]]:
        """The messages that have the origin take a snapshot, and what they cause."""
        self.sees = True
        return _run_apart(SNAPSHOT), list(_STEPS_APART)

    def confirm(self, *, failed: bool) -> None:
        """The origin has answered a scope of it."""
        self.is_confirmed = True
        self.has_snapshot = self.has_snapshot or (self.sees and not failed)
        self.sees = False

    def note(self, verdict: Verdict | None, sql: bytes) -> None:
        """A statement of the transaction goes to the server."""
        if verdict is None or verdict.takes_locks:
            self.takes_locks = True
        if verdict is not None and verdict.is_plain:
            self.sees = True
        if verdict is None or verdict.statements is None or any(one.kind in _ENDS for one in verdict.statements):
            self.may_end = True
        if not self.only_reads:
            return
        if verdict is None or not verdict.is_read or len(self.texts) >= MAX_READS:
            self.only_reads = verdict is not None and verdict.kind in _READS_ONLY
        elif verdict.kind is Kind.PLAIN:
            self.texts.append(sql)
        elif verdict.kind is Kind.MULTI:
            self.only_reads = False  # a proof is of one statement
