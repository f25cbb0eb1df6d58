"""What we know of one server connection, and what an error does to the replies that it owes.

After an error in an extended scope the server ignores everything up to Sync, and nothing of what was skipped exists (W-11); some
errors the client need not hear of, since nothing had run. Knows no bytes but those of the message it is asked about.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from hyperdrive.errors import HyperdriveError, OriginLost
from hyperdrive.pgwire.messages import read_error_fields
from hyperdrive.session import replies
from hyperdrive.session.replies import Action, Expected
from hyperdrive.session.scopes import Whole
from hyperdrive.session.settings import EMPTY, Label

if TYPE_CHECKING:
    from hyperdrive.session.client import ClientSession
    from hyperdrive.session.noted import Noted
    from hyperdrive.session.statements import SharedStatement

IDLE: Final = ord("I")
IN_TRANSACTION: Final = ord("T")
FAILED: Final = ord("E")

_CHANGES: Final = frozenset({"0A000", "42P01", "42703", "42883", "42704"})
"""A statement is not what it was: its result, a relation, a column, a function or a type has changed or gone."""


class Ledger:
    """The state of a server session."""

    __slots__ = (
        "_copy_syncs",
        "_first",
        "_tail",
        "_through",
        "ahead",
        "attention",
        "broken",
        "client",
        "copy_fed",
        "copy_in",
        "failed",
        "fatal",
        "half_sent",
        "journalled",
        "label",
        "noise",
        "noted",
        "open_scope",
        "queue",
        "refusal",
        "spoiled",
        "statements",
        "status",
        "unnamed",
        "usual",
        "view",
    )

    def __init__(self, view: Mapping[bytes, bytes], status: int = IDLE) -> None:
        self.queue: deque[Expected] = deque()
        self.status = status
        self.view: Mapping[bytes, bytes] = view
        """Values last received in ParameterStatus; replaced, never changed in place, so that identity means equality."""
        self.label: Label = EMPTY
        self.statements: OrderedDict[SharedStatement, bool] = OrderedDict()
        """Shared statements, oldest use first; ``False`` until ParseComplete was seen."""
        self.unnamed: object | None = None
        """The Parse that the unnamed statement came from; compare by identity."""
        self.client: ClientSession | None = None
        self.open_scope = False
        """Extended messages were sent, and their Sync was not."""
        self.copy_in = False
        self.half_sent = 0
        """Bytes of a client's message that are still to be passed on before anything else may be written."""
        self.failed = False
        """An error was seen in the scope that is under way."""
        self.attention = False
        """The client's session has to be told of ReadyForQuery: something was journalled, or a transaction that it held is under way."""
        self.journalled = False
        """Something was journalled since the session was last idle."""
        self.refusal: bytes | None = None
        """The origin's error to something that the client had been told was done: the client gets it, and the connection ends."""
        self.broken: HyperdriveError | None = None
        """The connection cannot be used any longer."""
        self.spoiled = False
        """The client did what leaves some origins in disorder (Query in an open scope, W-13): nobody else may have it."""
        self.fatal: bytes | None = None
        """A FATAL ErrorResponse: the connection is about to end."""
        self.copy_fed = False
        """Copy data was sent since CopyInResponse."""
        self.noise = 0
        """Messages out of the ordinary, errors and notices among them, in what was forwarded: a reply with one is not stored."""
        self.noted: Noted | None = None
        """What was asked of it since it was idle that may have changed something; ``None``: nobody wants to know."""
        self.usual = True
        """Since it was at rest nothing has passed but whole scopes, and nothing came back but whole replies in the usual order."""
        self.ahead = b""
        """What it is about to say of what was held back, and nobody has to look at: the entries of it are the first of the queue."""
        self._first: Expected | None = None
        """The first step of the whole scope under way, if it knows more than the table's: the Bind of a prepared statement."""
        self._copy_syncs = 0
        self._tail = b""
        self._through = 0

    def _error(self, message: bytes) -> bytes | None:
        fields = read_error_fields(message)
        if fields.get("V", fields.get("S")) in ("FATAL", "PANIC") or not self.queue:
            # Nothing follows but the end of the connection (W-14, W-55); what the client hears is decided there.
            self.fatal = message
            return b""
        head = self.queue[0]
        if self.client is not None and (head in replies.HELD or head in replies.AHEAD):
            # It was answered before it was sent. Behind what is held nothing has run, behind settings something may have.
            self.failed = True
            self.client.pipe.accepted.clear()  # a right may have been taken away
            if self.client.live is not None:
                self.refusal = message
            raise OriginLost(
                "the settings of the session could not be restored on another server connection",
                log_text=f"refused what was known to be accepted: {fields.get('C')} {fields.get('M')}",
            )
        self.failed = True
        if self.copy_in and self._copy_syncs and head.kind == "E" and not self.copy_fed:
            # The copy failed before it read anything, so the Sync that came early is the one that ends the scope.
            self.queue.insert(1, replies.SYNC)
            self.open_scope = False
        if not head.ends_scope:
            if self._may_resend(head, fields.get("C")):
                return b""
            if head.kind == "P" and head.before is not None and head.action is not Action.SKIP:
                head.before = head.before[0], None, None  # it takes away what was there, whatever becomes of it
            self._skip_to_sync()
        if _makes_unnamed(head) and head.before is None and not self._forgets_unnamed():
            self.unnamed = None
            if self.client is not None and head.action is not Action.SKIP:  # what we Parse again the client still has
                self.client.unnamed = None
        self.copy_in = False
        if head.statement is not None and fields.get("C") in _CHANGES:
            head.statement.forget()
            if fields.get("C") == "0A000" and self.client is not None:
                self.client.changed(head)
        if head.action is Action.FORWARD:
            return self._with_client_names(message, head)
        if head.action is Action.INSTEAD:
            return None
        if head.action is Action.REPLACE:
            return head.payload
        if head.action is Action.CAPTURE:
            head.captured += message
            return b""
        if head.name is not None:
            # A Parse that had to go ahead of the client's Bind: the error belongs to the client's statement (W-20).
            return None
        if head.named is not None and not (self.queue and self.queue[0] is replies.SKIP_SYNC):
            # One that lends SQL a name, in the client's own scope: nothing else tells why that has failed (W-24).
            return None
        return b""

    def _forgets_unnamed(self) -> bool:
        """The unnamed statement of a scope in one piece has not come to be. ``True`` if a later scope of the flight makes one anew."""
        for entry in self.queue:
            if entry.before is not None:
                entry.before = entry.before[0], None, None
                return entry.kind == "P"
            if _makes_unnamed(entry):
                return True
        return False

    def _may_resend(self, head: Expected, sqlstate: str | None) -> bool:
        """Whether the scope failed, before anything ran, for a reason that the client need not know: then it goes out again.

        26000: our names vanished behind our back (W-23). 0A000: the result changed, and nobody was told the old one (W-26).
        """
        client, named = self.client, head.named
        if named is not None and not named.name:
            return False  # the unnamed statement, which nobody shares
        if named is not None and sqlstate == "26000":
            self.statements.pop(named.statement, None)
        if client is None or named is None or self.status != IDLE or len(self.queue) != client.again_entries:
            return False  # replies of the scope may have been passed on
        if sqlstate == "0A000" and named.told is None:
            named.refer_to(client.pipe.registry.successor(named.statement))
        elif sqlstate != "26000":
            return False
        rest = [entry for entry in self.queue if entry.kind == "S"]
        if self.queue[-1].kind != "S" or len(rest) != 1 or not client.resend_scope():
            return False
        self.queue.clear()
        self.queue.append(replies.SKIP_SYNC)
        self.failed = False
        return True

    def _with_client_names(self, message: bytes, head: Expected) -> bytes | None:
        """Put the client's statement name in place of ours, which it has never seen."""
        if head.name is None or b"_hd_" not in message:
            return None
        if head.statement is not None:
            body = message[5:].replace(b'"' + head.statement.name + b'"', b'"' + head.name + b'"')
            return b"E" + (len(body) + 4).to_bytes(4, "big") + body
        return None

    def _skip_to_sync(self) -> None:
        """After an error in an extended scope the server ignores everything up to Sync, Query included (W-11)."""
        queue = self.queue
        dropped = []
        while queue and queue[0].kind != "S":
            dropped.append(queue.popleft())
        for entry in reversed(dropped):
            self._drop(entry)
        self._relink(dropped)
        if not queue and self.client is not None:
            self.client.skip_rest()

    def _relink(self, dropped: list[Expected]) -> None:
        """Unnamed statements that were to be made have not been: the first one behind them takes the place of what was there before."""
        gone = {
            id(entry.before[0]): entry.before[1:]
            for entry in dropped
            if entry.before is not None and entry.before[0] is not entry.before[1]
        }
        later = next((entry for entry in self.queue if entry.before is not None), None) if gone else None
        if later is None or later.before is None:
            return
        made, before, verdict = later.before
        while before is not None and id(before) in gone:
            before, verdict = gone[id(before)]
        later.before = made, before, verdict

    def _drop(self, entry: Expected) -> None:
        if _makes_unnamed(entry):
            self.unnamed = None  # what it has may be another one than its client's
        if entry.kind == "C" and entry.statement is not None:
            self.statements[entry.statement] = False  # not closed after all
        # A Parse that was skipped leaves its statement as ``False``: it may be there from before, so it is closed first.
        if self.client is not None:
            self.client.dropped(entry)

    def _copy_begins(self) -> None:
        """CopyInResponse: Syncs sent before the client ended the copy are ignored and give no reply (W-30)."""
        head, *rest = self.queue
        self.copy_in = replies.COPY_ENDS not in rest
        self._copy_syncs = 0
        if head.kind != "E":
            return
        kept: list[Expected] = []
        for index, entry in enumerate(rest):
            if entry is replies.COPY_ENDS:
                kept = rest[index:]
                break
        self._copy_syncs = len(rest) - len(kept)
        self.queue.clear()
        self.queue.append(head)
        self.queue.extend(kept)
        if not any(entry.kind == "S" for entry in kept):
            self.open_scope = True  # the Syncs so far do not count


def _makes_unnamed(entry: Expected) -> bool:
    if isinstance(entry, Whole):
        entry = entry.steps[0]
    return entry.kind == "P" and not entry.name and entry.statement is None and entry.named is None
