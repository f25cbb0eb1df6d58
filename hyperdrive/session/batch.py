"""What a client sent, cut into messages: the batch that will run next.

Knows framing, and which texts have to be read in what way; decides when a batch is complete enough to travel. The two shapes that
make up nearly all traffic, one whole Query and one whole extended scope of an unnamed statement, are recognised at a glance and kept
in one piece. Knows no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hyperdrive.errors import ProtocolViolation
from hyperdrive.pgwire import framing, messages
from hyperdrive.pgwire.framing import (
    BIND,
    CLOSE,
    COPY_DATA,
    COPY_DONE,
    COPY_FAIL,
    DESCRIBE,
    EXECUTE,
    FLUSH,
    FRONTEND_LIMITS,
    FUNCTION_CALL,
    PARSE,
    QUERY,
    SYNC,
    TERMINATE,
    read_length,
)
from hyperdrive.session import scopes
from hyperdrive.session.pipe import Pipe
from hyperdrive.session.scopes import Whole
from hyperdrive.session.settings import values
from hyperdrive.session.statements import Named
from hyperdrive.sql.text import is_ascii_safe
from hyperdrive.sql.verdict import Kind, Verdict

STREAM_ABOVE: Final = 256 * 1024
"""A message that declares more bytes than this is passed on in pieces; its text is judged as one of unknown class."""

PARSE_HELD: Final = 16 * 1024 * 1024
"""A Parse up to this size is held whole, since its text may have to be prepared on other servers too."""

SHIP_ABOVE: Final = 64 * 1024
"""So many bytes of extended messages are collected before they travel without waiting for Sync or Flush."""

_SHIPS: Final = frozenset({QUERY, SYNC, FLUSH, FUNCTION_CALL, COPY_DATA, COPY_DONE, COPY_FAIL})


Op = tuple[int, bytes, Verdict | None]

RAW: Final = 0
"""An op of bytes that belong to a message whose head has travelled."""

POISON_OP: Final = 1
"""An op that fails the open scope on the server."""

EXTENDED: Final = frozenset({PARSE, BIND, DESCRIBE, EXECUTE, CLOSE})
UNREAD: Final = Verdict(kind=Kind.UNKNOWN, statements=None)
"""The verdict of a text that was not read to its end."""

_HEAD: Final = 4096
"""So much of a large message has to be there before it is passed on: the names at its front."""


class Batch:
    """The part of a client session that takes bytes in."""

    __slots__ = (
        "_awkward",
        "_buffer",
        "_classify",
        "_failed_here",
        "_resent",
        "_shared",
        "_skipping",
        "_streaming",
        "ops",
        "pipe",
        "size",
        "terminated",
        "told",
        "whole",
    )

    def __init__(self, pipe: Pipe, told: Mapping[bytes, bytes]) -> None:
        self.pipe = pipe
        self.told: Mapping[bytes, bytes] = told
        """Values last told in ParameterStatus; replaced, never changed in place."""
        self.ops: list[Op] = []
        self.size = 0
        """Bytes of the messages in ``ops``, roughly."""
        self.terminated = False
        self.whole: Whole | None = None
        """The batch is one op, this scope: nothing in it has to be looked at, unless its verdict is doubtful: then a cache may have its
    answer, and a server is told of it message by message."""
        self._buffer = b""
        self._streaming = 0
        self._skipping = False
        """The open scope has failed: what is left of it, up to Sync, is dropped."""
        self._failed_here = False
        """The client believes in a transaction that no server has."""
        self._awkward = False
        """Not at a clean place: a message is half received, or what comes has to be dropped or refused."""
        self._resent = False
        self._shared: dict[bytes, Named] = {}
        """Prepared statements by the client's own names, cut to the bytes that count."""
        self._choose_reader()

    def _choose_reader(self) -> None:
        """How statements are read depends on where literals end and which bytes are ASCII (W-41, W-42)."""
        told = self.told
        self._classify = self.pipe.reader(
            is_ascii_safe(told.get(b"client_encoding", b"UTF8")), told.get(b"standard_conforming_strings") != b"off"
        )

    def is_news(self, name: bytes, value: bytes) -> bool:
        """Whether the client has to be told that a setting is *value*; from then on it has been."""
        if self.told.get(name) == value:
            return False
        self.told = values({**self.told, name: value})
        if name in (b"client_encoding", b"standard_conforming_strings"):
            self._choose_reader()
        return True

    def tell_news(self, told: Mapping[bytes, bytes]) -> bytes:
        """ParameterStatus for each value of *told* that the client believes to be another; from then on it has been told."""
        before, self.told = self.told, told
        if before is told:
            return b""
        self._choose_reader()
        return b"".join(
            messages.parameter_status(name, value) for name, value in told.items() if before.get(name) != value
        )

    def receive(self, data: bytes) -> bool:
        """Take in what the client sent; ``True`` when the batch should run now.

        Raises:
            ProtocolViolation: not a message of the protocol; the connection cannot go on.
        """
        ops = self.ops
        if not ops and not self._awkward and not self._buffer:
            if data[0] == QUERY and len(data) > 5 and read_length(data, 1)[0] + 1 == len(data):
                # The usual: one whole Query in one read.
                verdict = self._classify(data[5:-1])
                ops.append((QUERY, data, verdict))
                if (verdict.is_plain or verdict.is_doubtful or _are_reads(verdict)) and data[-1] == 0:
                    self.whole = scopes.QUERY
                return True
            if data[-5:] == messages.SYNC and self._is_usual(data):
                return True
        return self._cut(data)

    def _is_usual(self, data: bytes) -> bool:
        """One whole extended scope of a plain or a doubtful statement, unnamed (as libpq's PQexecParams sends it) or prepared before."""
        if data[0] == PARSE:
            return self._is_usual_parse(data)
        if data[0] != BIND or data[5]:
            return False
        end = 1 + read_length(data, 1)[0]
        behind = data[end:]
        whole = scopes.BEHIND_BIND.get(behind) or scopes.limited(scopes.BEHIND_BIND, behind)
        if whole is None:
            return False
        named = self._shared.get(data[6 : data.find(b"\0", 6, end)])
        if named is None or named.is_pending:
            return False
        verdict = named.statement.verdict
        if not (verdict.is_plain or verdict.is_doubtful):
            return False
        # Bind itself is rewritten at its head.
        self.whole = whole
        self.ops.append((BIND, data, verdict))
        return True

    def _is_usual_parse(self, data: bytes) -> bool:
        bind = 1 + read_length(data, 1)[0]
        # Unnamed statement, unnamed portal; 7 bytes of Bind are its header and the two names.
        if data[5] or bind + 7 > len(data) or data[bind] != BIND or data[bind + 5] or data[bind + 6]:
            return False
        behind = data[bind + 1 + read_length(data, bind + 1)[0] :]
        whole = scopes.BEHIND_PARSE.get(behind) or scopes.limited(scopes.BEHIND_PARSE, behind)
        if whole is None:
            return False
        verdict = self._classify(data[6 : data.find(b"\0", 6, bind)])
        if not (verdict.is_plain or verdict.is_doubtful):
            return False
        self.whole = whole
        self.ops.append((PARSE, data, verdict))
        return True

    def _cut(self, data: bytes) -> bool:
        if self.whole is not None:
            # More came before the batch could run: it is cut like any other.
            self.whole = None
            data = self.ops.pop()[1] + data
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        ops = self.ops
        self._resent = False
        size = len(data)
        i = 0
        ready = False
        if self._streaming:
            i = min(self._streaming, size)
            self._streaming -= i
            self._look_around()
            ops.append((RAW, data[:i], None))
            self.size += i
            ready = True
        while i + 5 <= size:
            kind = data[i]
            length = read_length(data, i + 1)[0]
            if length < 4 or length > FRONTEND_LIMITS.get(kind, 0):
                framing.check_frontend_header(kind, length)
            end = i + 1 + length
            if end > size:
                if (length > STREAM_ABOVE and (kind != PARSE or length > PARSE_HELD)) or kind == COPY_DATA:
                    if kind != COPY_DATA and size - i < _HEAD and size - i < length:
                        break
                    self._stream(kind, data[i:], end - size)
                    return True
                break
            if kind == TERMINATE:
                self.terminated = True
                return ready
            verdict = None
            if kind == QUERY:
                verdict = self._classify(data[i + 5 : end - 1]) if data[end - 1] == 0 else None
            elif kind == PARSE:
                name_end = data.find(b"\0", i + 5, end)
                sql_end = data.find(b"\0", name_end + 1, end) if name_end >= 0 else -1
                if sql_end >= 0:
                    verdict = self._classify(data[name_end + 1 : sql_end])
            ops.append((kind, data[i:end], verdict))
            self.size += length
            if kind in _SHIPS:
                ready = True
            i = end
        if i < size:
            self._buffer = data[i:]
        if self.size > SHIP_ABOVE:
            ready = True
        return ready

    def _stream(self, kind: int, head: bytes, left: int) -> None:
        """Begin to pass on a message that is not complete: names stand at its front, the rest needs no look (W-18)."""
        # The class of a text that was not read to its end is unknown.
        self.ops.append((kind, head, UNREAD if kind in (QUERY, PARSE) else None))
        self.size += len(head)
        self._streaming = left
        self._awkward = True

    def _look_around(self) -> None:
        self._awkward = self._streaming > 0 or self._skipping or self._failed_here

    def take_back(self, data: bytes) -> None:
        """Put whole messages that were lost with their server back, to be sent to another one."""
        begun, self._buffer = self._buffer, b""  # the client may be in the middle of its next message
        self._cut(data)
        self._buffer = begun

    @property
    def is_fresh(self) -> bool:
        """What comes now is the beginning of a message and of a scope, and nothing waits ahead of it."""
        return not (self.ops or self._awkward or self._buffer)

    def named(self, name: bytes) -> Named | None:
        """The prepared statement of that name, cut to the bytes that count, if it is known to exist."""
        found = self._shared.get(name)
        return found if found is not None and not found.is_pending else None

    def regain_whole(self) -> None:
        """What was cut because its server was lost may be one whole scope: see again."""
        ops = self.ops
        if self.whole is None and ops and not self._awkward and not self._buffer and ops[0][0] > POISON_OP:
            data = b"".join([raw for _, raw, _ in ops])
            ops.clear()
            self.size = 0
            self.receive(data)

    def _whole_to_ops(self) -> None:
        if self.whole is not None:
            data = self.ops.pop()[1]
            self.whole = None
            self._cut(data)


def _are_reads(verdict: Verdict) -> bool:
    """Several reads in one text, as Npgsql asks for a database's types; nothing of theirs has to be looked at either."""
    return verdict.kind is Kind.MULTI and verdict.is_read and not verdict.suspect and not verdict.effects


def name_at(raw: bytes, start: int) -> tuple[bytes, int]:
    """The zero-terminated name at *start* of a message, and the offset behind it."""
    end = raw.find(b"\0", start)
    if end < 0:
        raise ProtocolViolation("invalid string in message")
    return raw[start:end], end + 1


def first_message(data: bytes) -> bytes:
    """The first message of *data*."""
    end = 1 + read_length(data, 1)[0]
    return data if end == len(data) else data[:end]


def shown(name: bytes) -> str:
    """A name as a person reads it."""
    return name.decode("utf-8", "replace")
