"""Whole scopes: the usual batch as one entry of the reply queue.

Nearly all traffic is one Query, or one extended scope in the shape that drivers give it, for a server that owes nothing else; and
nearly every reply to it comes in one read and in the usual order. Such a scope is queued as one ``Whole``, whose table says which
message type may follow which, made from the same tables as the entries of its steps. Whatever the table does not have, an error,
a notice, a copy, a reply that goes on in the next read, unfolds the scope into the entries of the steps that are outstanding, and
those decide as ever. So a Whole accepts nothing that its steps would not. Knows message types; knows no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hyperdrive.pgwire import messages
from hyperdrive.session import replies
from hyperdrive.session.replies import FINISH, READY, STAY, Expected


class Step(dict[int, "Step"]):
    """Message type to the step that follows it; the empty one is the end. *left* entries of the scope are outstanding here."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


END: Final = Step(0)
"""Behind ReadyForQuery."""


def _table(entries: tuple[Expected, ...]) -> Step:
    following = END
    for left, entry in enumerate(reversed(entries), 1):
        step = Step(left)
        for kind, move in (entry.moves or {}).items():
            if move == STAY:
                step[kind] = step
            elif move in (FINISH, READY):
                step[kind] = following
        following = step
    return following


class Whole(Expected):
    """A scope in one entry: *steps* are the entries that it stands for."""

    __slots__ = ("steps",)

    def __init__(self, *steps: Expected) -> None:
        super().__init__("whole")
        self.ends_scope = True
        self.steps = steps
        self.start = _table(steps)

    def __len__(self) -> int:
        return len(self.steps)


QUERY: Final = Whole(replies.QUERY)
COMMIT: Final = Whole(replies.COMMIT)

_EXECUTE: Final = messages.execute() + messages.SYNC
_DESCRIBE: Final = messages.describe(b"P") + _EXECUTE

BEHIND_PARSE: Final[dict[bytes, Whole]] = {
    _DESCRIBE: Whole(replies.PARSE, replies.BIND, replies.DESCRIBE_PORTAL, replies.EXECUTE, replies.SYNC),
    _EXECUTE: Whole(replies.PARSE, replies.BIND, replies.EXECUTE, replies.SYNC),
}
"""What drivers send behind Parse and Bind of an unnamed statement, to the scope that it ends."""

BEHIND_BIND: Final[dict[bytes, Whole]] = {
    _DESCRIBE: Whole(replies.BIND, replies.DESCRIBE_PORTAL, replies.EXECUTE, replies.SYNC),
    _EXECUTE: Whole(replies.BIND, replies.EXECUTE, replies.SYNC),
}
"""The same behind the Bind of a prepared statement. Its first step says nothing of the statement: see ``ServerSession.put``."""

_LIMIT_END: Final = -len(messages.SYNC)
_LIMIT_AT: Final = _LIMIT_END - 4


def limited(shapes: Mapping[bytes, Whole], behind: bytes) -> Whole | None:
    """The scope that *behind*, which ends with Sync, makes with a row limit in its Execute: asyncpg's ``fetchrow`` has one, and JDBC's
    ``setMaxRows``. Its steps are those of the same without a limit, since PortalSuspended ends an Execute as CommandComplete does.
    """
    return shapes.get(behind[:_LIMIT_AT] + b"\0\0\0\0" + behind[_LIMIT_END:])
