"""What we know of one server connection, and what becomes of each message it sends.

Owns the last status byte, the reply queue, which statements the server has, the label of its settings and the values it reported
(§1 of the wire reference). Pure: bytes in, the linked client's bytes out. Knows no socket, no pool and no cache.
"""

from __future__ import annotations

import logging
from typing import Final

from hyperdrive.errors import HyperdriveError, LedgerMismatch, OriginLost
from hyperdrive.pgwire.framing import (
    COMMAND_COMPLETE,
    COPY_BOTH_RESPONSE,
    COPY_IN_RESPONSE,
    EMPTY_QUERY_RESPONSE,
    ERROR_RESPONSE,
    NO_DATA,
    NOTICE_RESPONSE,
    NOTIFICATION_RESPONSE,
    PARAMETER_STATUS,
    PORTAL_SUSPENDED,
    ROW_DESCRIPTION,
    read_length,
)
from hyperdrive.pgwire.messages import error_response, read_error_fields, read_parameter_status
from hyperdrive.session import replies
from hyperdrive.session.ledger import FAILED, IDLE, IN_TRANSACTION, Ledger
from hyperdrive.session.replies import FINISH, IDLE_MOVES, LOOK, READY, STAY, Action, Expected
from hyperdrive.session.scopes import Whole
from hyperdrive.session.settings import Label, values

__all__ = ["FAILED", "IDLE", "IN_TRANSACTION", "MAX_MESSAGE_HELD", "THROUGH_ABOVE", "ServerSession"]

log = logging.getLogger("hyperdrive.session")

_CHANGED: Final = error_response("cached plan must not change result type", "0A000")

_ENDS: Final = frozenset({COMMAND_COMPLETE, PORTAL_SUSPENDED})
"""How a read ends, whether somebody watches for it or not."""

_FORGETS: Final = (b"DISCARD ALL", b"DEALLOCATE ALL")

THROUGH_ABOVE: Final = 32 * 1024
"""A row of which more bytes than this are missing passes in pieces. Smaller ones wait for their end, so that the connection's
loss in between leaves the client with whole messages."""

MAX_MESSAGE_HELD: Final = 16 << 20
"""Bytes of one message that is not a row or copy data; such messages carry names and texts only."""


class ServerSession(Ledger):
    """The protocol state of one server connection.

    When the server answers what nobody asked, ``broken`` is set: close it, never guess.
    """

    __slots__ = ()

    @property
    def is_clean(self) -> bool:
        """Nothing is under way and nothing is left behind: another client may have it."""
        return (
            not self.queue and self.status == IDLE and not self.open_scope and not self.half_sent and not self._through
        )

    @property
    def is_mid_message(self) -> bool:
        """The client has the first part of a row whose rest has not come."""
        return self._through > 0

    @property
    def is_at_rest(self) -> bool:
        """It does nothing for its client but end a transaction of which the client has heard the end."""
        queue = self.queue
        return (
            self.status == IDLE
            and not self.open_scope
            and not self.copy_in
            and not self.half_sent
            and (not queue or self.is_closing)
        )

    @property
    def is_closing(self) -> bool:
        """It ends a transaction of which the client has heard the end, and does nothing else."""
        return len(self.queue) == 1 and self.queue[0] in replies.ENDS

    @property
    def carries_scope(self) -> bool:
        """A scope of the client's is under way."""
        return any(entry.ends_scope and entry not in replies.AHEAD for entry in self.queue)

    def end_behind(self, entry: Expected, label: Label) -> None:
        """The client was told that its transaction has ended; the message that ends it, and gives *entry*, is on its way."""
        self.look_closer()
        self.queue.append(entry)
        self.status = IDLE
        self.label = label
        self.unnamed = None
        self.attention = self.journalled = False

    def rest(self) -> None:
        """It goes to nobody or to somebody else: what was unusual is over, unless half a message was left behind."""
        self.usual = self.is_clean and not (self._tail or self.attention or self.failed or self.copy_in)

    # --- whole scopes -------------------------------------------------------------------------------------------------------

    def put(self, whole: Whole, first: Expected | None) -> None:
        """*whole* is on its way, behind whatever is; *first* takes the place of its first step, if that says more."""
        if self.usual or not self.queue:
            self.queue.append(whole)
            self._first = first
        else:
            self.queue.extend(whole.steps if first is None else (first, *whole.steps[1:]))

    def look_closer(self) -> None:
        """Something else than a whole scope is about to pass, or has: the steps of the scope under way decide from now on."""
        self.usual = False
        if self.queue and self.queue[0].start is not None:
            self._unfold(self.queue[0].start.left)

    def _unfold(self, left: int) -> None:
        """Put the *left* steps that are outstanding in the place of the whole scope at the head."""
        whole = self.queue.popleft()
        assert isinstance(whole, Whole)
        steps = list(whole.steps)
        if self._first is not None:
            steps[0] = self._first
        self.queue.extendleft(reversed(steps[len(steps) - left :]))

    # --- bytes in -----------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> bytes:
        """Take in what the server sent; return what the linked client gets of it.

        Runs of forwarded messages are returned as one slice, usually *data* itself: the reply to a whole scope always is. A row
        that is not complete yet passes in pieces, so a result of any size needs no more memory than one read.

        Afterwards ``broken`` says whether the connection can be used at all: a LedgerMismatch, a reply that the queue does not
        expect, or OriginLost, the settings that had to go ahead of a scope were refused.
        """
        queue = self.queue
        if self.ahead:
            ahead, self.ahead = self.ahead, b""
            if data.startswith(ahead):
                while queue and queue[0] in replies.HELD:
                    queue.popleft()
                told = self.fire_fakes()
                return told + self._receive(data[len(ahead) :])
        step = queue[0].start if queue else None
        if step is None or self._tail:
            return self._receive(data)
        size = len(data)
        i = 0
        while i + 5 <= size:
            following = step.get(data[i])
            end = i + 1 + read_length(data, i + 1)[0]
            if following is None or end > size:
                break
            if not following:
                if end != size or end - i != 6 or (self.attention and self._is_news(data[i + 5])):
                    break
                queue.popleft()
                self.status = data[i + 5]
                return data
            step = following
            i = end
        self.usual = False
        self._unfold(step.left)
        return self._receive(data, i)

    def _is_news(self, status: int) -> bool:
        """Whether the client's session has to be told of ReadyForQuery with *status*, though nothing unusual has come in this scope."""
        return not (status == self.status == IN_TRANSACTION and self.client is not None and self.client.is_under_way)

    def _receive(self, data: bytes, i: int = 0) -> bytes:
        """``receive`` message by message; the entries of what stands before *i* have been finished."""
        self.look_closer()
        if self._tail:
            data = self._tail + data
            self._tail = b""
        size = len(data)
        start = 0
        if self._through:
            if size < self._through:
                self._through -= size
                return data
            i, self._through = self._through, 0
        queue = self.queue
        pieces: list[bytes] | None = None
        moves: dict[int, int] | None = queue[0].moves if queue else IDLE_MOVES
        try:
            while i + 5 <= size:
                length = read_length(data, i + 1)[0]
                end = i + 1 + length
                if end > size:
                    break
                move = moves.get(data[i], LOOK)  # type: ignore[union-attr]  # a FAKE never stays at the head
                if move == STAY:
                    i = end
                    continue
                if move == FINISH:
                    queue.popleft()
                elif move == READY:
                    if length != 5:
                        raise LedgerMismatch("the database sent ReadyForQuery without a status")
                    self.status = data[i + 5]
                    queue.popleft()
                    if (self.attention or self.failed) and (news := self._settle()):
                        pieces = pieces if pieces is not None else []
                        pieces += data[start:i], news
                        start = i
                else:
                    if length < 4:
                        raise LedgerMismatch("the database sent a message of an impossible length")
                    instead = self._look(data, i, end)
                    if instead is not None:
                        if pieces is None:
                            pieces = []
                        pieces.append(data[start:i])
                        pieces.append(instead)
                        start = end
                i = end
                moves = queue[0].moves if queue else IDLE_MOVES
                while moves is None:
                    if pieces is None:
                        pieces = []
                    pieces.append(data[start:i])
                    start = i
                    pieces.append(self._fire(queue.popleft()))
                    moves = queue[0].moves if queue else IDLE_MOVES
        except HyperdriveError as error:
            # What came before it is right and has been taken off the queue: the client gets it.
            self.broken = error
            size = i
        if i < size:
            left = i + 1 + read_length(data, i + 1)[0] - size if size - i >= 5 else 0
            if left > THROUGH_ABOVE and moves.get(data[i]) == STAY:  # type: ignore[union-attr]
                self._through = left
                i = size
            else:
                self._tail = data[i:]
                if left > 0 and read_length(data, i + 1)[0] > MAX_MESSAGE_HELD:
                    self.broken = LedgerMismatch("the database sent a message of an impossible length")
        if pieces is None:
            return data if start == 0 and i == len(data) else data[start:i]
        pieces.append(data[start:i])
        return b"".join(pieces)

    def fire_fakes(self) -> bytes:
        """Answers of our own that stand at the head of the queue; to be called after the queue was filled."""
        queue = self.queue
        if not queue or queue[0].moves is not None:
            return b""
        pieces = []
        while queue and queue[0].moves is None:
            pieces.append(self._fire(queue.popleft()))
        return b"".join(pieces)

    def _fire(self, entry: Expected) -> bytes:
        if entry.ends_scope:
            return self._settle() + entry.payload
        if entry.named is not None:
            entry.named.is_pending = False
        return entry.payload

    # --- messages that need a decision ----------------------------------------------------------------------------------------

    def _look(self, data: bytes, start: int, end: int) -> bytes | None:
        """Deal with one message off the fast path: ``None`` forwards it as it stands, bytes go in its place."""
        kind = data[start]
        if kind not in _ENDS and (not self.queue or self.queue[0].action is Action.FORWARD):
            self.noise += 1
        if kind == PARAMETER_STATUS:
            return self._parameter_status(data[start:end])
        if kind == NOTICE_RESPONSE:
            return self._notice(data[start:end])
        if kind == NOTIFICATION_RESPONSE:
            return None if self.client is not None and self.client.is_pinned else b""
        if kind == ERROR_RESPONSE:
            return self._error(data[start:end])
        if not self.queue:
            raise LedgerMismatch(f"the database sent {chr(kind)!r} unasked")
        head = self.queue[0]
        news = b""
        move = head.legal.get(kind)
        if move is None:
            raise LedgerMismatch(f"the database sent {chr(kind)!r} where {head!r} was under way")
        if head.action is Action.REPLACE:
            raise LedgerMismatch("the database accepted a statement that does not exist")
        if head in replies.ENDS and kind == COMMAND_COMPLETE and data[start + 5 : end - 1] != head.payload:
            raise LedgerMismatch("a transaction ended otherwise than its client was told")
        if kind in (COPY_IN_RESPONSE, COPY_BOTH_RESPONSE):
            self._copy_begins()
        elif head.watch is not None and kind in (COMMAND_COMPLETE, EMPTY_QUERY_RESPONSE, PORTAL_SUSPENDED):
            tag = data[start + 5 : end - 1]
            if tag in _FORGETS:
                self.forget_statements()
            self.attention = self.journalled = True
            head.watch.completed(tag, suspended=kind == PORTAL_SUSPENDED)
        if move == FINISH:
            self.queue.popleft()
            if head.kind in "CP" and head.statement is not None and head.statement in self.statements:
                self.statements[head.statement] = head.kind == "P"
                if head.kind == "P" and head.epoch >= 0:
                    head.statement.parsed_in = head.epoch
                if head.named is not None:
                    head.named.is_pending = False
        elif move == READY:
            if end - start != 6:
                raise LedgerMismatch("the database sent ReadyForQuery without a status")
            self.queue.popleft()
            if head in replies.ENDS:
                if data[start + 5] != IDLE:
                    raise LedgerMismatch("a transaction goes on whose client was told of its end")
                return b""
            self.status = data[start + 5]
            if head in replies.OWN_SCOPES:
                self.failed = False  # a statement could not be read again; whoever needs it will hear
            elif self.attention or self.failed:
                news = self._settle()
        if head.describes:
            if kind in (ROW_DESCRIPTION, NO_DATA):
                return self._described(head, data[start:end])
            head.captured = data[start:end]  # of the parameters
        if head.action is Action.FORWARD:
            return news + data[start:end] if news else None
        if head.action is Action.CAPTURE:
            head.captured += data[start:end]
        elif head.action is Action.INSTEAD:
            if kind == COMMAND_COMPLETE:
                payload, head.payload = head.payload, b""
                return payload
            return news + data[start:end] if move == READY else b""
        return news

    def _described(self, head: Expected, message: bytes) -> bytes | None:
        named, parameters = head.named, head.captured
        assert named is not None
        if head.action in (Action.COMPARE, Action.CHECK):
            if message == named.told:
                if not named.name and self.client is not None:
                    named.epoch = self.client.pipe.epoch
                return b""
            if not named.name:
                self.unnamed = None  # it is asked again before anything runs
            self.failed = True
            if named.statement in self.statements:
                self.statements[named.statement] = False  # what it has now is not what its clients were told
            if self.client is not None:
                self.client.changed(head)
                if head.action is Action.CHECK:
                    # Rows that the client would misread are on their way; the transaction, if it is one, goes with them.
                    self.refusal = _CHANGED
                    raise OriginLost(
                        "the result of a statement has changed", log_text="another description than was told"
                    )
                # Behind the Flush nothing was sent yet: the scope fails here, and the client's own Sync ends it.
                self.client.poison()
            return _CHANGED
        named.types, named.told = parameters[5:], message
        if head.epoch >= 0:
            named.types, named.told = named.statement.described(head.epoch, named.types, message)
        return None

    def _settle(self) -> bytes:
        """A scope has ended; what the client has to be told ahead of its ReadyForQuery."""
        failed, self.failed = self.failed, False
        self.copy_in = False
        if not self.queue:
            self.copy_fed = False
        if self.status == IDLE:
            self.attention = self.journalled = False
        client = self.client
        if client is None:
            return b""
        # A SET that was answered here and reverted before the origin reported it: the client alone knows of it (W-34). What is
        # learnt from this scope is what the origin has now.
        news = client.tell_news(self.view)
        client.settle(self.status, failed=failed, at_rest=not self.queue and not self.open_scope)
        if self.status == IDLE:
            self.label = client.journal.actual
        return news

    def _parameter_status(self, message: bytes) -> bytes | None:
        name, value = read_parameter_status(message)
        if self.view.get(name) != value:
            self.view = values({**self.view, name: value})
        if self.client is None or (self.queue and self._is_past(self.queue[0])):
            return b""
        if self.queue and self.queue[0].action is Action.FORWARD and not self.journalled:
            # Nothing the client ran says so: a trigger, a view or a function of its own did it (W-37).
            self.client.journal.completed_unknown()
            self.attention = self.journalled = True
        return None if self.client.is_news(name, value) else b""

    def _is_past(self, head: Expected) -> bool:
        """What the origin reports of *head* the client has been told, and maybe more since: what goes ahead of its transaction."""
        return (
            head in replies.ENDS
            or head in (replies.ASIDE, replies.ASIDE_SYNC)
            or (head is replies.RESTORE and self.client is not None and self.client.live is not None)
        )

    def _notice(self, message: bytes) -> bytes | None:
        if self.client is not None and self.queue and self.queue[0].action in (Action.FORWARD, Action.INSTEAD):
            return None
        if self.client is not None and not self.queue:
            return None
        fields = read_error_fields(message)
        if fields.get("V") in ("WARNING", "LOG"):
            log.info("= %s: %s", fields.get("V"), fields.get("M"))
        return b""

    # --- what it has ----------------------------------------------------------------------------------------------------------

    def forget_statements(self) -> None:
        """The server has lost its prepared statements (DISCARD ALL, DEALLOCATE ALL; W-23)."""
        self.statements.clear()
        self.unnamed = None

    @property
    def is_preparing(self) -> bool:
        """What it works on goes ahead of the client's own statement.

        Not so what was held back: its replies are not flushed before the statement's own, and a cancel that hits it, which takes
        luck, fails the transaction as the client wants.
        """
        return bool(self.queue) and self.queue[0].action is Action.SKIP and self.queue[0] not in replies.HELD

    @property
    def is_running(self) -> bool:
        """It works on something for the linked client: a cancel request would reach that (W-51)."""
        return any(entry.action is Action.FORWARD or entry.action is Action.REPLACE for entry in self.queue)
