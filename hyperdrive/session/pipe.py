"""What the sessions of one pool share: how texts are read, statements and settings that are known, and what may be answered here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from hyperdrive.metrics import Saved
from hyperdrive.session.accepted import Accepted
from hyperdrive.session.settings import Label
from hyperdrive.session.statements import StatementRegistry
from hyperdrive.sql.verdict import Isolation, Verdict

Classify = Callable[[bytes], Verdict]


class Eager(Enum):
    """When the end of a transaction is answered ahead of the origin (``eager_rollback``)."""

    OFF = "off"
    ON = "on"
    """Unless it took locks whose release is a signal to others."""
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Switches:
    """Which round trips may be saved; each can be switched off."""

    hold_begin: bool = True
    """BEGIN travels with the first statement (E-2, E-3)."""
    eager_rollback: Eager = Eager.ON
    """ROLLBACK is carried out behind (E-4)."""
    eager_commit: bool = True
    """COMMIT of what only read is carried out behind (E-5)."""
    local_settings: bool = True
    """SET, RESET and SHOW of what is known (E-7)."""
    known_statements: bool = True
    """Parse and Describe of a statement that was described before (E-6)."""
    known_answers: bool = True
    """What drivers ask of each new connection, while the schema has not changed (E-8)."""


class Pipe:
    """What a session shares with the others of its pool."""

    __slots__ = (
        "accepted",
        "default_isolation",
        "defaults_changed",
        "epoch",
        "idle_timeout_set",
        "is_builtin",
        "is_read_only",
        "max_statements",
        "pin_unknown",
        "reader",
        "registry",
        "saved",
        "schema_changed",
        "schema_doubted",
        "switches",
    )

    def __init__(
        self,
        reader: Callable[[bool, bool], Classify],
        registry: StatementRegistry,
        *,
        max_statements: int,
        pin_unknown: bool,
        defaults_changed: Callable[[], None] = lambda: None,
        schema_changed: Callable[[], None] | None = None,
        switches: Switches = Switches(),
        saved: Counter[Saved] | None = None,
    ) -> None:
        self.reader = reader
        """``reader(ascii_safe, standard_strings)``: how texts are read in such a session (W-41, W-42)."""
        self.defaults_changed = defaults_changed
        """To be called when a client changed what later sessions begin with (ALTER ROLE … SET)."""
        self.registry = registry
        self.max_statements = max_statements
        self.pin_unknown = pin_unknown
        self.switches = switches
        self.saved: Counter[Saved] = Counter() if saved is None else saved
        self.accepted = Accepted()
        self.epoch = 0
        """Counts changes of the origin's schema: what is known of statements holds for one epoch."""
        self.schema_changed = schema_changed or self.end_epoch
        """To be called when a client changed the schema; ends the epoch of every pool of the database."""
        self.schema_doubted: Callable[[Sequence[bytes]], None] = lambda functions: None
        """To be called when a client ran code that may have been DDL, for all anybody knows: the *functions*, if that is what it was."""
        self.idle_timeout_set: Callable[[], None] = lambda: None
        """To be called when a session has set its ``idle_session_timeout``."""
        self.is_read_only: Callable[[Sequence[bytes], Label], bool] = lambda texts, label: False
        """``is_read_only(texts, label)``: whether these SELECTs provably write nothing, take no part in conflicts and call nothing
        volatile in a session with such settings (E-5). Only a catalog can tell; without one nothing is proven."""

        self.is_builtin: Callable[[str], bool] = lambda function: False
        """Whether every function of that name is known to be PostgreSQL's own, so that no search path finds another."""

        self.default_isolation: Callable[[Label], Isolation | None] = lambda label: None
        """The level of a transaction that names none, in a session with such settings; ``None``: not known."""

    def end_epoch(self) -> None:
        """The schema has changed, or rights, or may have."""
        self.epoch += 1
        self.accepted.clear()
