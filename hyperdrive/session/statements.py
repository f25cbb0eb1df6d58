"""Prepared statements that clients share without knowing it.

A client's name maps to a shared statement, keyed by the exact SQL bytes, the parameter type OIDs as sent and the settings in force
at Parse (W-19); a server knows it as ``_hd_<n>``. Which server has which is the server session's knowledge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from hyperdrive.pgwire import messages
from hyperdrive.session.replies import Expected
from hyperdrive.session.settings import EMPTY, Label
from hyperdrive.sql.introspection import may_be_introspection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperdrive.sql import Verdict

NAME_BYTES: Final = 63
"""Statement names compare on their first 63 bytes (NAMEDATALEN; verified 15, 18)."""

POISON: Final = b"_hd_fail"
"""A statement that never exists: a Bind to it fails a scope on purpose."""


class SharedStatement:
    """What Parse makes, independent of who asked for it.

    ``body`` is the Parse message's content behind the name: SQL, zero, count and OIDs.
    """

    __slots__ = (
        "__weakref__",
        "body",
        "described_in",
        "name",
        "parsed_in",
        "settings",
        "told",
        "verdict",
        "worth_a_look",
    )

    def __init__(self, name: bytes, body: bytes, verdict: Verdict, settings: object = None) -> None:
        self.name = name
        self.body = body
        self.settings = settings
        """What stands for the settings at its Parse."""
        self.verdict = verdict
        self.worth_a_look = may_be_introspection(body)
        """It may be a question that only the schema can answer otherwise (E-8)."""
        self.parsed_in = -1
        """The schema epoch in which the origin accepted it last."""
        self.described_in = -1
        """The schema epoch in which the origin gave ``description``."""
        self.told = b"", b""
        """The body of its ParameterDescription, and its RowDescription or NoData."""

    @property
    def sql(self) -> bytes:
        """The text."""
        return self.body[: self.body.find(b"\0")]

    def parse_message(self, types: bytes = b"") -> bytes:
        """The Parse message that prepares it on a server; with the parameter *types* that a client was told, if any (E-6).

        What has become of a column meanwhile then converts or is refused, and binary bytes are not read as another type.
        """
        body = self.sql + b"\0" + types if types else self.body
        return b"P" + (len(self.name) + 5 + len(body)).to_bytes(4, "big") + self.name + b"\0" + body

    @property
    def description(self) -> bytes:
        """ParameterDescription, then RowDescription or NoData."""
        types, row = self.told
        return messages.message(b"t", types) + row

    def described(self, epoch: int, types: bytes, row: bytes) -> tuple[bytes, bytes]:
        """The origin has described it; returns the one pair of objects that says so, as many clients keep it."""
        self.described_in = epoch
        if self.told != (types, row):
            self.told = types, row
        return self.told

    def forget(self) -> None:
        """The origin no longer has what it was described as."""
        self.parsed_in = self.described_in = -1

    def __repr__(self) -> str:
        return f"<{self.name.decode()}>"


class Named:
    """A client's own name for a shared statement.

    ``told`` is the RowDescription or NoData that the client was given for it; ``None`` while it has not asked.
    """

    __slots__ = (
        "before",
        "bind",
        "epoch",
        "has_failed",
        "is_pending",
        "is_renewed",
        "name",
        "statement",
        "told",
        "types",
        "wanted",
    )

    def __init__(self, statement: SharedStatement, name: bytes, wanted: Label = EMPTY, epoch: int = -1) -> None:
        self.name = name
        self.refer_to(statement)
        self.wanted = wanted
        """The client's settings at Parse: literals were converted under them."""
        self.epoch = epoch
        """The schema epoch in which it is known to mean what the client was told: that of Parse, or of a later run at the origin."""
        self.told: bytes | None = None
        self.types = b""
        """Count and OIDs of its parameters as the client was told them."""
        self.is_pending = True
        """Its Parse has not been answered, so it may yet turn out not to exist."""
        self.is_renewed = False
        """Its Parse went behind a Close of what the server may have had before: were both skipped, that would be there."""
        self.has_failed = False
        """Its Parse was skipped or refused: it never existed."""
        self.before: Named | None = None
        """What has the name after all if its Parse fails: a DEALLOCATE ahead of it was skipped."""

    def refer_to(self, statement: SharedStatement) -> None:
        """Stand for *statement* from now on."""
        self.statement = statement
        self.bind = Expected("B", statement=statement, name=self.name, named=self)


class StatementRegistry:
    """The shared statements of one pool. An entry lives as long as a client or a server refers to it."""

    def __init__(self) -> None:
        self._by_key: WeakValueDictionary[tuple[bytes, object], SharedStatement] = WeakValueDictionary()
        self._last = 0

    def intern(self, body: bytes, settings: object, verdict: Verdict) -> SharedStatement:
        """The shared statement for a Parse *body* under *settings* (any hashable value that stands for them)."""
        found = self._by_key.get((body, settings))
        if found is None:
            self._last += 1
            name = b"_hd_%d" % self._last
            found = self._by_key[body, settings] = SharedStatement(name, body, verdict, settings)
        return found

    def find(self, body: bytes, settings: object) -> SharedStatement | None:
        """The shared statement, if there is one."""
        return self._by_key.get((body, settings))

    def forget(self, statement: SharedStatement) -> None:
        """Give *statement* to nobody else: its result has changed, and a new Parse has to see the new one."""
        if self._by_key.get((statement.body, statement.settings)) is statement:
            del self._by_key[statement.body, statement.settings]

    def successor(self, statement: SharedStatement) -> SharedStatement:
        """The same text with the result that it has now; *statement* keeps what its clients were told."""
        self.forget(statement)
        return self.intern(statement.body, statement.settings, statement.verdict)

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[SharedStatement]:
        return iter(list(self._by_key.values()))
