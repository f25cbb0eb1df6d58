"""Which replies a server still owes us, and what becomes of each.

Each message we send adds the replies it will cause, in order (protocol-flow#PROTOCOL-FLOW-PIPELINING). An entry says which message
types it may see (``moves``) and what happens to them (``action``). Knows message types; knows no socket, no pool and no cache.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperdrive.session.outcome import Watch
    from hyperdrive.session.scopes import Step
    from hyperdrive.session.statements import Named, SharedStatement

# What a message does to the entry at the head of the queue. Plain integers: they are compared for each message relayed.
STAY: Final = 0
"""It belongs to the entry and more will follow; forward it."""
FINISH: Final = 1
"""It ends the entry; forward it."""
READY: Final = 2
"""ReadyForQuery that ends the entry and the scope; forward it."""
LOOK: Final = 3
"""Something has to be decided; off the fast path."""

Moves = dict[int, int]


class Action(Enum):
    """What becomes of the replies of an entry."""

    FORWARD = "forward"
    SKIP = "skip"
    FAKE = "fake"
    """Owed to the client, never asked of the server; fires when it reaches the head."""
    CAPTURE = "capture"
    """Kept in ``captured`` for a decision."""
    COMPARE = "compare"
    """A description to be held against what the client was told; another one fails the scope (W-26)."""
    CHECK = "check"
    """As COMPARE, with the rest of the scope behind it already: another description ends the connection."""
    INSTEAD = "instead"
    """We asked the server for more than the client did: ``payload`` stands for the first CommandComplete, rows are dropped."""
    REPLACE = "replace"
    """An error is expected (the poison scope); the client gets ``payload`` in its place."""


def _moves(stay: str = "", finish: str = "", ready: str = "", look: str = "") -> Moves:
    moves: Moves = {}
    for letters, move in ((stay, STAY), (finish, FINISH), (ready, READY), (look, LOOK)):
        moves.update({ord(letter): move for letter in letters})
    return moves


_KINDS: Final[dict[str, Moves]] = {
    "P": _moves(finish="1"),
    "B": _moves(finish="2"),
    "DS": _moves(stay="t", finish="Tn"),
    "DP": _moves(finish="Tn"),
    "E": _moves(stay="DHdc", finish="CIs", look="GW"),
    "C": _moves(finish="3"),
    "S": _moves(ready="Z"),
    "Q": _moves(stay="TDCIHdc", ready="Z", look="GW"),
    "F": _moves(stay="V", ready="Z"),
}

_LOOK_ALWAYS: Final[Moves] = {}
"""No type is known, so each message is looked at."""


class Expected:
    """One entry of the queue. Those without anything of their own are shared constants below.

    ``kind`` is the frontend message (``DS``/``DP`` for Describe of a statement or portal); ``moves`` drives the fast path,
    ``legal`` says what may come at all. ``watch`` is told of CommandComplete, ``statement`` is what a Parse makes.
    """

    __slots__ = (
        "action",
        "before",
        "captured",
        "describes",
        "ends_scope",
        "epoch",
        "gone",
        "kind",
        "legal",
        "moves",
        "name",
        "named",
        "payload",
        "start",
        "statement",
        "watch",
    )

    def __init__(
        self,
        kind: str,
        action: Action = Action.FORWARD,
        *,
        payload: bytes = b"",
        watch: Watch | None = None,
        statement: SharedStatement | None = None,
        name: bytes | None = None,
        named: Named | None = None,
        describes: bool = False,
    ) -> None:
        self.kind = kind
        self.captured = b""
        self.action = action
        self.payload = payload
        self.watch = watch
        self.statement = statement
        self.name = name
        self.named = named
        self.before: tuple[bytes | None, bytes | None, object] | None = None
        """Of a Parse or a Close of the unnamed statement: its message, if it makes one, and message and verdict of what it takes the place of."""
        self.epoch = -1
        """The schema epoch that the description or the Parse belongs to; -1: not to be remembered."""
        self.gone: Sequence[Named] = ()
        """Names that a DEALLOCATE answered here has freed."""
        self.describes = describes
        self.start: Step | None = None
        """Of a whole scope in one entry (``scopes``): its table."""
        self.ends_scope = kind in ("S", "Q", "F")
        self.legal: Moves = _KINDS.get(kind, _LOOK_ALWAYS)
        self.moves: Moves | None
        if action is Action.FAKE:
            self.moves = None
        elif action is not Action.FORWARD or describes or (statement is not None and kind == "P"):
            self.moves = _LOOK_ALWAYS
        elif watch is not None:
            self.moves = {t: LOOK if t in b"CIs" else move for t, move in self.legal.items()}
        else:
            self.moves = self.legal

    def __repr__(self) -> str:
        return f"<{self.action.value} {self.kind}>"


IDLE_MOVES: Final = _LOOK_ALWAYS
"""Of a server that owes nothing: whatever it says has to be looked at."""

PARSE: Final = Expected("P")
BIND: Final = Expected("B")
DESCRIBE_STATEMENT: Final = Expected("DS")
DESCRIBE_PORTAL: Final = Expected("DP")
EXECUTE: Final = Expected("E")
CLOSE: Final = Expected("C")
SYNC: Final = Expected("S")
QUERY: Final = Expected("Q")
FUNCTION_CALL: Final = Expected("F")

COMMIT: Final = Expected("Q")
"""A Query that is COMMIT alone, in a transaction of which nothing has to be remembered."""

ROLLBACK: Final = Expected("Q")
"""The same with ROLLBACK."""

SKIP_CLOSE: Final = Expected("C", Action.SKIP)
SKIP_SYNC: Final = Expected("S", Action.SKIP)
SKIP_QUERY: Final = Expected("Q", Action.SKIP)

RESTORE: Final = Expected("Q", Action.SKIP)
"""Settings that go ahead of the client's scope: no scope of the client's ends with it."""

ASIDE: Final = Expected("Q", Action.SKIP)
"""Settings under which a statement is read again, and their way back: nothing of them stays, and the client hears of none."""
ASIDE_SYNC: Final = Expected("S", Action.SKIP)

HELD_PARSE: Final = Expected("P", Action.SKIP)
HELD_BIND: Final = Expected("B", Action.SKIP)
HELD_EXECUTE: Final = Expected("E", Action.SKIP)
HELD_CLOSE: Final = Expected("C", Action.SKIP)
HELD: Final = frozenset({HELD_PARSE, HELD_BIND, HELD_EXECUTE, HELD_CLOSE})
"""The steps of what was held back: it was answered already, so none of them may fail."""

END_COMMIT: Final = Expected("Q", Action.SKIP, payload=b"COMMIT")
END_ROLLBACK: Final = Expected("Q", Action.SKIP, payload=b"ROLLBACK")
ENDS: Final = frozenset({END_COMMIT, END_ROLLBACK})
"""The end of a transaction that the client was told of already: ``payload`` is the tag that must come."""

OWN_SCOPES: Final = frozenset({RESTORE, ASIDE, ASIDE_SYNC})
"""They settle nothing of the client's."""

AHEAD: Final = ENDS | OWN_SCOPES
"""Scopes of our own that the client's may follow without waiting."""

HEARD: Final = Expected("heard", Action.SKIP)
"""Stands at the head while a reply that has come is kept back: what is behind it has to wait, and nobody else may have the server."""

COPY_ENDS: Final = Expected("copy ends", Action.FAKE)
"""Stands where the client ended a copy ahead of CopyInResponse: a Sync before it gives no reply, one behind it does (W-30)."""


def fake(payload: bytes, *, kind: str = "fake", named: Named | None = None) -> Expected:
    """An answer of our own in its place among the server's."""
    if named is None:
        return Expected(kind, Action.FAKE, payload=payload)
    return Expected(kind, Action.FAKE, payload=payload, statement=named.statement, name=named.name, named=named)
