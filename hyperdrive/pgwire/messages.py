"""Single messages as bytes: builders for those we originate, readers for those we look into.

Names and layouts are the manual's (protocol-message-formats). DataRow has no reader: rows are relayed as slices. Strings are
bytes in the connection's encoding; whoever needs text decodes it. Readers raise ``ProtocolViolation`` on malformed bodies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Final

from hyperdrive.errors import HyperdriveError, ProtocolViolation

_length = Struct(">I").pack
_int16 = Struct(">H")
_int32 = Struct(">I")


def message(kind: bytes, body: bytes = b"") -> bytes:
    """One message of type *kind*."""
    return kind + _length(len(body) + 4) + body


# Messages without variable parts.
PARSE_COMPLETE: Final = message(b"1")
BIND_COMPLETE: Final = message(b"2")
CLOSE_COMPLETE: Final = message(b"3")
NO_DATA: Final = message(b"n")
EMPTY_QUERY_RESPONSE: Final = message(b"I")
AUTHENTICATION_OK: Final = message(b"R", b"\0\0\0\0")
NO_PARAMETERS: Final = message(b"t", b"\0\0")
READY_IDLE: Final = message(b"Z", b"I")
READY_IN_TRANSACTION: Final = message(b"Z", b"T")
PORTAL_SUSPENDED: Final = message(b"s")
READY_FAILED: Final = message(b"Z", b"E")
SYNC: Final = message(b"S")
FLUSH: Final = message(b"H")
TERMINATE: Final = message(b"X")
COPY_DONE: Final = message(b"c")


# --- frontend ---------------------------------------------------------------------------------------------------------------


def query(sql: bytes) -> bytes:
    """Query."""
    return message(b"Q", sql + b"\0")


def parse(name: bytes, sql: bytes, oids: Sequence[int] = ()) -> bytes:
    """Parse: *name* may be empty; an OID of 0 leaves a parameter's type open."""
    return message(b"P", name + b"\0" + sql + b"\0" + _int16.pack(len(oids)) + b"".join(map(_length, oids)))


def bind(
    portal: bytes = b"",
    statement: bytes = b"",
    parameters: Sequence[bytes | None] = (),
    formats: Sequence[int] = (),
    result_formats: Sequence[int] = (),
) -> bytes:
    """Bind; ``None`` is NULL, formats are 0 (text) or 1 (binary)."""
    pack = _int16.pack
    body = [portal, b"\0", statement, b"\0", pack(len(formats)), *map(pack, formats), pack(len(parameters))]
    for value in parameters:
        body += [b"\xff\xff\xff\xff"] if value is None else [_length(len(value)), value]
    body += [pack(len(result_formats)), *map(pack, result_formats)]
    return message(b"B", b"".join(body))


def describe(kind: bytes, name: bytes = b"") -> bytes:
    """Describe of a statement (``b"S"``) or a portal (``b"P"``)."""
    return message(b"D", kind + name + b"\0")


def execute(portal: bytes = b"", max_rows: int = 0) -> bytes:
    """Execute; 0 rows means no limit."""
    return message(b"E", portal + b"\0" + _length(max_rows))


def close(kind: bytes, name: bytes = b"") -> bytes:
    """Close of a statement (``b"S"``) or a portal (``b"P"``)."""
    return message(b"C", kind + name + b"\0")


def copy_data(data: bytes) -> bytes:
    """CopyData, the same in both directions."""
    return message(b"d", data)


def copy_fail(reason: bytes) -> bytes:
    """CopyFail."""
    return message(b"f", reason + b"\0")


def run(sql: bytes) -> bytes:
    """Parse, Bind and Execute of *sql* through the unnamed statement and portal, without Sync."""
    return parse(b"", sql) + bind() + execute()


# --- backend ----------------------------------------------------------------------------------------------------------------


def error_response(
    text: str,
    sqlstate: str,
    *,
    severity: str = "ERROR",
    detail: str | None = None,
    hint: str | None = None,
) -> bytes:
    """ErrorResponse as PostgreSQL words it (protocol-error-fields): S, V, C, M and, if given, D and H."""
    return message(b"E", _fields(text, sqlstate, severity, detail, hint))


def notice_response(text: str, sqlstate: str, *, severity: str = "WARNING", hint: str | None = None) -> bytes:
    """NoticeResponse with the same fields."""
    return message(b"N", _fields(text, sqlstate, severity, None, hint))


def _fields(text: str, sqlstate: str, severity: str, detail: str | None, hint: str | None) -> bytes:
    fields = [("S", severity), ("V", severity), ("C", sqlstate), ("M", text)]
    if detail:
        fields.append(("D", detail))
    if hint:
        fields.append(("H", hint))
    # Names that a client sent as bytes outside UTF-8 go back as they came.
    pieces = [key.encode() + value.replace("\0", "").encode("utf-8", "surrogateescape") for key, value in fields]
    return b"\0".join(pieces) + b"\0\0"


def error_message(error: HyperdriveError, *, severity: str = "ERROR") -> bytes:
    """The ErrorResponse for one of our own errors; an origin's refusal is passed on as the origin wrote it."""
    response = getattr(error, "response", None)
    if isinstance(response, bytes):
        return response
    return error_response(error.client_text, error.code, severity=severity, detail=error.detail, hint=error.hint)


def ready_for_query(status: int) -> bytes:
    """ReadyForQuery with status byte I, T or E."""
    return _READY[status]


_READY: Final = {ord("I"): READY_IDLE, ord("T"): READY_IN_TRANSACTION, ord("E"): READY_FAILED}


def command_complete(tag: bytes) -> bytes:
    """CommandComplete."""
    return message(b"C", tag + b"\0")


def parameter_status(name: bytes, value: bytes) -> bytes:
    """ParameterStatus."""
    return message(b"S", name + b"\0" + value + b"\0")


def parameter_statuses(parameters: Mapping[bytes, bytes]) -> bytes:
    """One ParameterStatus per item."""
    return b"".join(parameter_status(name, value) for name, value in parameters.items())


def backend_key_data(pid: int, key: bytes) -> bytes:
    """BackendKeyData; 4 bytes of key in protocol 3.0, up to 256 in 3.2."""
    return message(b"K", _length(pid) + key)


def row_description(columns: Iterable[tuple[bytes, int, int]]) -> bytes:
    """RowDescription for columns of (name, type OID, type size), text format, of no table."""
    columns = list(columns)
    body = [_int16.pack(len(columns))]
    for name, oid, size in columns:
        body.append(name + b"\0\0\0\0\0\0\0" + _length(oid) + _int16.pack(size & 0xFFFF) + b"\xff\xff\xff\xff\0\0")
    return message(b"T", b"".join(body))


def data_row(values: Sequence[bytes | None]) -> bytes:
    """DataRow, for answers of our own."""
    body = [_int16.pack(len(values))]
    for value in values:
        body += [b"\xff\xff\xff\xff"] if value is None else [_length(len(value)), value]
    return message(b"D", b"".join(body))


def parameter_description(oids: Sequence[int]) -> bytes:
    """ParameterDescription."""
    return message(b"t", _int16.pack(len(oids)) + b"".join(map(_length, oids)))


# --- readers; each takes a whole message, header included ---------------------------------------------------------------------


def read_name(data: bytes, start: int) -> tuple[bytes, int]:
    """The zero-terminated string at *start*, and the offset behind it.

    Raises:
        ProtocolViolation: it is not terminated.
    """
    end = data.find(b"\0", start)
    if end < 0:
        raise ProtocolViolation("invalid string in message")
    return data[start:end], end + 1


def read_error_fields(data: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse by their one-letter type, undecodable bytes replaced."""
    fields: dict[str, str] = {}
    start, size = 5, len(data)
    while start < size and data[start]:
        value, end = read_name(data, start + 1)
        fields[chr(data[start])] = value.decode("utf-8", "replace")
        start = end
    return fields


def read_parameter_status(data: bytes) -> tuple[bytes, bytes]:
    """Name and value of a ParameterStatus."""
    name, start = read_name(data, 5)
    value, _ = read_name(data, start)
    return name, value


def read_tag(data: bytes) -> bytes:
    """The command tag of a CommandComplete."""
    return data[5:-1]
