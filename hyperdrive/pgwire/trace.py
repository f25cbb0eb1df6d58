"""Print a conversation in the format of libpq's PQtrace, one line per message (libpq-control#LIBPQ-PQTRACE).

Knows the fields of each message (protocol-message-formats); knows no connection. It never fails: a body that does not have
the announced shape is printed with what could be read, then ``mismatched message length`` and the rest in hexadecimal.

A line is the direction (``F`` from the frontend, ``B`` from the backend), the length as announced (without the type byte),
the name and the fields, separated by tabs. With ``regress=True`` what differs from run to run is masked as libpq does:
object identifiers, keys, and the source position in errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

FRONTEND_NAMES = {
    "B": "Bind",
    "C": "Close",
    "d": "CopyData",
    "c": "CopyDone",
    "f": "CopyFail",
    "D": "Describe",
    "E": "Execute",
    "H": "Flush",
    "F": "FunctionCall",
    "P": "Parse",
    "p": "PasswordMessage",
    "Q": "Query",
    "S": "Sync",
    "X": "Terminate",
}

BACKEND_NAMES = {
    "R": "Authentication",
    "K": "BackendKeyData",
    "2": "BindComplete",
    "3": "CloseComplete",
    "C": "CommandComplete",
    "d": "CopyData",
    "c": "CopyDone",
    "G": "CopyInResponse",
    "H": "CopyOutResponse",
    "W": "CopyBothResponse",
    "D": "DataRow",
    "I": "EmptyQueryResponse",
    "E": "ErrorResponse",
    "V": "FunctionCallResponse",
    "v": "NegotiateProtocolVersion",
    "n": "NoData",
    "N": "NoticeResponse",
    "A": "NotificationResponse",
    "t": "ParameterDescription",
    "S": "ParameterStatus",
    "1": "ParseComplete",
    "s": "PortalSuspended",
    "Z": "ReadyForQuery",
    "T": "RowDescription",
}

_LONG_BODY = 512
"""Values longer than this are cut in the output; a trace is for reading."""


class _Short(Exception):
    """The body ended before its fields did."""


@dataclass(slots=True)
class _Fields:
    """A cursor over one body that collects the printed form of what it passes."""

    body: bytes
    regress: bool
    at: int = 0
    out: list[str] = field(default_factory=list)

    def _take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.body):
            raise _Short
        piece = self.body[self.at : self.at + count]
        self.at += count
        return piece

    def number(self, size: int, *, mask: bool = False, signed: bool = True) -> int:
        value = int.from_bytes(self._take(size), "big", signed=signed)
        self.out.append("NNNN" if mask and self.regress else str(value))
        return value

    def string(self, *, mask: bool = False) -> None:
        end = self.body.find(0, self.at)
        if end < 0:
            raise _Short
        text = self._take(end - self.at + 1)[:-1].decode("utf-8", "backslashreplace")
        self.out.append('"SSSS"' if mask and self.regress else f'"{_cut(text)}"')

    def letter(self) -> str:
        letter = self._take(1).decode("latin-1")
        self.out.append(letter if letter.isprintable() else f"\\x{ord(letter):02x}")
        return letter

    def value(self, length: int) -> None:
        self.out.append("'" + _cut(quote_bytes(self._take(length))) + "'")

    def rest(self) -> None:
        self.value(len(self.body) - self.at)


def _cut(text: str) -> str:
    return text if len(text) <= _LONG_BODY else f"{text[:_LONG_BODY]}…({len(text)})"


def quote_bytes(data: bytes) -> str:
    r"""Printable ASCII as it is, everything else as ``\xhh``."""
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in data)


def _values(f: _Fields) -> None:
    for _ in range(f.number(2, signed=False)):
        length = f.number(4)
        if length >= 0:
            f.value(length)


def _formats(f: _Fields) -> None:
    for _ in range(f.number(2, signed=False)):
        f.number(2)


def _bind(f: _Fields) -> None:
    f.string()
    f.string()
    _formats(f)
    _values(f)
    _formats(f)


def _parse(f: _Fields) -> None:
    f.string()
    f.string()
    for _ in range(f.number(2, signed=False)):
        f.number(4, mask=True, signed=False)


def _kind_and_name(f: _Fields) -> None:
    f.letter()
    f.string()


def _execute(f: _Fields) -> None:
    f.string()
    f.number(4)


def _function_call(f: _Fields) -> None:
    f.number(4, mask=True, signed=False)
    _formats(f)
    _values(f)
    f.number(2)


def _authentication(f: _Fields) -> None:
    f.number(4)
    if f.at < len(f.body):
        f.rest()


def _backend_key(f: _Fields) -> None:
    f.number(4, mask=True)
    if f.regress:
        f.at = len(f.body)
        f.out.append("NNNN")
    else:
        f.rest()


def _copy_response(f: _Fields) -> None:
    f.number(1)
    _formats(f)


def _error_fields(f: _Fields) -> None:
    while (code := f.letter()) != "\0":
        f.string(mask=code in "FLR")


def _function_result(f: _Fields) -> None:
    length = f.number(4)
    if length >= 0:
        f.value(length)


def _negotiate(f: _Fields) -> None:
    f.number(4)
    for _ in range(f.number(4)):
        f.string()


def _notification(f: _Fields) -> None:
    f.number(4, mask=True)
    f.string()
    f.string()


def _parameter_description(f: _Fields) -> None:
    for _ in range(f.number(2, signed=False)):
        f.number(4, mask=True, signed=False)


def _parameter_status(f: _Fields) -> None:
    f.string()
    f.string()


def _status(f: _Fields) -> None:
    f.letter()


def _row_description(f: _Fields) -> None:
    for _ in range(f.number(2, signed=False)):
        f.string()
        f.number(4, mask=True, signed=False)
        f.number(2)
        f.number(4, mask=True, signed=False)
        f.number(2)
        f.number(4)
        f.number(2)


_Reader = Callable[[_Fields], None]

_FRONTEND_READERS: dict[str, _Reader] = {
    "B": _bind,
    "C": _kind_and_name,
    "D": _kind_and_name,
    "d": _Fields.rest,
    "E": _execute,
    "F": _function_call,
    "f": _Fields.string,
    "P": _parse,
    "Q": _Fields.string,
}

_BACKEND_READERS: dict[str, _Reader] = {
    "R": _authentication,
    "K": _backend_key,
    "C": _Fields.string,
    "d": _Fields.rest,
    "G": _copy_response,
    "H": _copy_response,
    "W": _copy_response,
    "D": _values,
    "E": _error_fields,
    "N": _error_fields,
    "V": _function_result,
    "v": _negotiate,
    "A": _notification,
    "t": _parameter_description,
    "S": _parameter_status,
    "Z": _status,
    "T": _row_description,
}

_SECRET = {("F", "p")}
"""Messages whose body is never printed: a trace ends up in logs and assertion messages."""


def trace_message(direction: str, kind: str, body: bytes, *, regress: bool = False) -> str:
    """Return the line of one message; *direction* is ``F`` or ``B``, *kind* the type letter."""
    names, readers = (FRONTEND_NAMES, _FRONTEND_READERS) if direction == "F" else (BACKEND_NAMES, _BACKEND_READERS)
    # The length of an error depends on the masked source position, so libpq masks it too.
    length = "NN" if regress and direction == "B" and kind in "EN" else str(len(body) + 4)
    name = names.get(kind)
    if name is None:
        return f"{direction}\t{length}\tUnknown message: {quote_bytes(kind.encode('latin-1'))}\t {_cut(body.hex())}"
    head = f"{direction}\t{length}\t{name}"
    if (direction, kind) in _SECRET:
        return f"{head}\t (not shown)"
    fields = _Fields(body, regress)
    try:
        if (reader := readers.get(kind)) is not None:
            reader(fields)
        complete = fields.at == len(body)
    except _Short:
        complete = False
    if not complete:
        fields.out.append(f"mismatched message length: {_cut(body[fields.at :].hex())}")
    return f"{head}\t {' '.join(fields.out)}" if fields.out else head


def trace_startup(body: bytes) -> str:
    """Return the line of an untyped start-up packet; *body* starts with the code, the values of a StartupMessage follow."""
    code = int.from_bytes(body[:4], "big")
    name = {80877102: "CancelRequest", 80877103: "SSLRequest", 80877104: "GSSENCRequest"}.get(code)
    if name is not None:
        return f"F\t{len(body) + 4}\t{name}"
    words = " ".join(f'"{quote_bytes(word)}"' for word in body[4:].split(b"\0") if word)
    return f"F\t{len(body) + 4}\tStartupMessage\t {code >> 16} {code & 0xFFFF} {words}"


def trace(messages: Iterable[tuple[str, str, bytes]], *, regress: bool = False) -> str:
    """Return the lines of a conversation given as (direction, type letter, body)."""
    return "\n".join(trace_message(*message, regress=regress) for message in messages)
