"""The console over protocol 3.0: simple and extended queries, so that any driver can connect to it.

Takes over after the log-in. Knows messages and ``Console``; knows no socket. Values are of two types, text and bigint, in
text or binary format, whichever the driver asks for. Transactions exist in name only: drivers open them by themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct, unpack_from

from hyperdrive.admin.console import PARAMETERS, Command, Console, Done, Rows, split
from hyperdrive.admin.views import Value, View
from hyperdrive.errors import ClientError, DuplicateStatement, HyperdriveError, ProtocolViolation, UnknownStatement
from hyperdrive.pgwire import framing, messages

TEXT_OID, BIGINT_OID = 25, 20
_int16 = Struct(">h")
_bigint = Struct(">q")
_COLUMN = Struct(">IhIhIh")

#: What a console client may send before it is told to go; nothing here is large.
MAX_BUFFERED_BYTES = 1 << 20


def greeting() -> bytes:
    """ParameterStatus for a console client, to be sent after AuthenticationOk."""
    return messages.parameter_statuses({key.encode(): value.encode() for key, value in PARAMETERS.items()})


@dataclass(slots=True)
class _Statement:
    command: Command | None
    sql: str


@dataclass(slots=True)
class _Portal:
    statement: _Statement
    formats: tuple[int, ...]
    #: What Execute has not sent yet.
    left: list[Sequence[Value]] | None = None
    answer: Rows | None = None


@dataclass
class ConsoleSession:
    """One client of the console. Hand ``receive`` what arrives and write what it returns, in order."""

    console: Console
    user: str
    is_closed: bool = False
    _rest: bytes = b""
    _status: int = ord("I")
    _skipping: bool = False
    _statements: dict[bytes, _Statement] = field(default_factory=dict)
    _portals: dict[bytes, _Portal] = field(default_factory=dict)

    async def receive(self, data: bytes) -> bytes:
        """Answer what is complete in *data* and what came before. Not to be called again before it has returned.

        Raises:
            ProtocolViolation: bytes that are no messages; tell the client and close.
        """
        whole, self._rest = framing.split(self._rest + data)
        if len(self._rest) > MAX_BUFFERED_BYTES:
            raise ProtocolViolation("message is too long for the console")
        return b"".join([await self._one(message[0], message[framing.HEADER :]) for message in whole])

    async def _one(self, kind: int, body: bytes) -> bytes:
        if kind == framing.TERMINATE:
            self.is_closed = True
            return b""
        if kind == framing.SYNC and not self.is_closed:
            self._skipping = False
            return messages.ready_for_query(self._status)
        if self._skipping or self.is_closed:
            return b""
        try:
            if kind == framing.QUERY:
                return await self._query(_text(body))
            return await self._extended(kind, body)
        except (struct.error, IndexError, UnicodeDecodeError) as exc:
            raise ProtocolViolation("invalid message format") from exc
        except ProtocolViolation:
            raise
        except HyperdriveError as error:
            # The rest of a pipeline up to Sync is skipped; after a simple query nothing is left to skip.
            self._skipping = kind != framing.QUERY
            self._failed()
            return messages.error_message(error)

    async def _query(self, sql: str) -> bytes:
        out = []
        commands = split(sql)
        try:
            for one in commands:
                command = self.console.understand(one)
                out.append(await self._run(command))
        except HyperdriveError as error:
            self._failed()
            out.append(messages.error_message(error))
        if not commands:
            out.append(messages.EMPTY_QUERY_RESPONSE)
        return b"".join(out) + messages.ready_for_query(self._status)

    async def _run(self, command: Command) -> bytes:
        self._check_transaction(command)
        answer = await self.console.run(command, self.user)
        if isinstance(answer, Done):
            return self._done(answer)
        view = View(answer.columns, answer.numbers, lambda state: ())
        return _description(view, ()) + _rows(answer, answer.rows, ()) + _complete(answer, len(answer.rows))

    async def _extended(self, kind: int, body: bytes) -> bytes:
        match kind:
            case framing.PARSE:
                return self._parse(body)
            case framing.BIND:
                return self._bind(body)
            case framing.DESCRIBE:
                return self._describe(body)
            case framing.EXECUTE:
                return await self._execute(body)
            case framing.CLOSE:
                (self._statements if body[:1] == b"S" else self._portals).pop(_cut(body[1:])[0], None)
                return messages.CLOSE_COMPLETE
            case framing.FLUSH:
                return b""
        raise ProtocolViolation(f"the console does not take messages of type {chr(kind)!r}")

    def _parse(self, body: bytes) -> bytes:
        name, rest = _cut(body)
        sql = _cut(rest)[0].decode()
        commands = split(sql)
        if len(commands) > 1:
            raise ClientError("cannot insert multiple commands into a prepared statement", sqlstate="42601")
        if name and name in self._statements:
            raise DuplicateStatement(f'prepared statement "{name.decode(errors="replace")}" already exists')
        self._statements[name] = _Statement(self.console.understand(sql) if commands else None, sql)
        return messages.PARSE_COMPLETE

    def _bind(self, body: bytes) -> bytes:
        portal, rest = _cut(body)
        name, rest = _cut(rest)
        (formats,) = _int16.unpack_from(rest)
        (parameters,) = _int16.unpack_from(rest, 2 + 2 * formats)
        if parameters:
            raise ProtocolViolation("commands of the console take no parameters")
        at = 4 + 2 * formats
        (count,) = _int16.unpack_from(rest, at)
        wanted = unpack_from(f">{count}h", rest, at + 2)
        self._portals[portal] = _Portal(self._statement(name), wanted)
        return messages.BIND_COMPLETE

    def _statement(self, name: bytes) -> _Statement:
        found = self._statements.get(name)
        if found is None:
            raise UnknownStatement(f'prepared statement "{name.decode(errors="replace")}" does not exist')
        return found

    def _portal(self, name: bytes) -> _Portal:
        found = self._portals.get(name)
        if found is None:
            raise ClientError(f'portal "{name.decode(errors="replace")}" does not exist', sqlstate="34000")
        return found

    def _describe(self, body: bytes) -> bytes:
        name = _cut(body[1:])[0]
        if body[:1] == b"S":
            return messages.NO_PARAMETERS + _described(self._statement(name), ())
        portal = self._portal(name)
        return _described(portal.statement, portal.formats)

    async def _execute(self, body: bytes) -> bytes:
        name, rest = _cut(body)
        (limit,) = unpack_from(">i", rest)
        portal = self._portal(name)
        command = portal.statement.command
        if command is None:
            return messages.EMPTY_QUERY_RESPONSE
        if portal.left is None or portal.answer is None:
            self._check_transaction(command)
            answer = await self.console.run(command, self.user)
            if isinstance(answer, Done):
                return self._done(answer)
            portal.answer, portal.left = answer, list(answer.rows)
        count = limit if 0 < limit < len(portal.left) else len(portal.left)
        sent, portal.left = portal.left[:count], portal.left[count:]
        rows = _rows(portal.answer, sent, portal.formats)
        return rows + (messages.message(b"s") if portal.left else _complete(portal.answer, len(sent)))

    def _done(self, answer: Done) -> bytes:
        if answer.tag in ("BEGIN", "START TRANSACTION"):
            self._status = ord("T")
        elif answer.tag in ("COMMIT", "ROLLBACK"):
            # As in PostgreSQL, COMMIT of a failed transaction is a ROLLBACK.
            tag = "ROLLBACK" if self._status == ord("E") else answer.tag
            self._status = ord("I")
            return messages.command_complete(tag.encode())
        notice = messages.notice_response(answer.notice, "00000", severity="NOTICE") if answer.notice else b""
        return notice + messages.command_complete(answer.tag.encode())

    def _check_transaction(self, command: Command) -> None:
        if self._status == ord("E") and command.tag not in ("COMMIT", "ROLLBACK"):
            raise ClientError(
                "current transaction is aborted, commands ignored until end of transaction block", sqlstate="25P02"
            )

    def _failed(self) -> None:
        if self._status == ord("T"):
            self._status = ord("E")


def _described(statement: _Statement, formats: Sequence[int]) -> bytes:
    view = statement.command.view if statement.command else None
    return _description(view, formats) if view else messages.NO_DATA


def _format(formats: Sequence[int], column: int) -> int:
    """0 text, 1 binary; one format stands for all columns, none for text (protocol-message-formats, Bind)."""
    if not formats:
        return 0
    return formats[0] if len(formats) == 1 else formats[column]


def _description(view: View, formats: Sequence[int]) -> bytes:
    body = [_int16.pack(len(view.columns))]
    for index, name in enumerate(view.columns):
        oid, size = (BIGINT_OID, 8) if name in view.numbers else (TEXT_OID, -1)
        body.append(name.encode() + b"\0" + _COLUMN.pack(0, 0, oid, size, 0xFFFFFFFF, _format(formats, index)))
    return messages.message(b"T", b"".join(body))


def _rows(answer: Rows, rows: Sequence[Sequence[Value]], formats: Sequence[int]) -> bytes:
    binary = [name in answer.numbers and _format(formats, i) == 1 for i, name in enumerate(answer.columns)]
    return b"".join(messages.data_row([_value(value, b) for value, b in zip(row, binary, strict=True)]) for row in rows)


def _value(value: Value, binary: bool) -> bytes | None:
    if value is None:
        return None
    # A text is the same in both formats.
    return _bigint.pack(int(value)) if binary else str(value).replace("\0", "").encode("utf-8", "replace")


def _complete(answer: Rows, count: int) -> bytes:
    # PostgreSQL counts the rows of SELECT only.
    tag = f"SELECT {count}" if answer.tag.startswith("SELECT") else answer.tag
    return messages.command_complete(tag.encode())


def _cut(body: bytes) -> tuple[bytes, bytes]:
    end = body.find(b"\0")
    if end < 0:
        raise ProtocolViolation("invalid string in message")
    return body[:end], body[end + 1 :]


def _text(body: bytes) -> str:
    text, rest = _cut(body)
    if rest:
        raise ProtocolViolation("invalid message format")
    return text.decode()
