"""Backend messages for scripted origins (protocol-message-formats), built without checks: hostile bytes are wanted here."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hyperdrive.testing.frontend import cstring, message

AUTH_OK = message("R", struct.pack("!i", 0))
PARSE_COMPLETE = message("1")
BIND_COMPLETE = message("2")
CLOSE_COMPLETE = message("3")
NO_DATA = message("n")
EMPTY_QUERY = message("I")
SUSPENDED = message("s")


def parameter_status(name: str, value: str) -> bytes:
    """ParameterStatus."""
    return message("S", cstring(name) + cstring(value))


def backend_key(pid: int, secret: bytes) -> bytes:
    """BackendKeyData."""
    return message("K", struct.pack("!I", pid) + secret)


def ready(status: str = "I") -> bytes:
    """ReadyForQuery."""
    return message("Z", status.encode())


def complete(tag: str) -> bytes:
    """CommandComplete."""
    return message("C", cstring(tag))


def row_description(names: Sequence[str]) -> bytes:
    """RowDescription of text columns."""
    columns = [cstring(name) + struct.pack("!IHIhih", 0, 0, 25, -1, -1, 0) for name in names]
    return message("T", struct.pack("!H", len(columns)) + b"".join(columns))


def parameter_description(oids: Sequence[int] = ()) -> bytes:
    """ParameterDescription."""
    return message("t", struct.pack(f"!H{len(oids)}I", len(oids), *oids))


def data_row(values: Sequence[str | bytes | None]) -> bytes:
    """DataRow."""
    parts = [struct.pack("!H", len(values))]
    for value in values:
        data = value.encode() if isinstance(value, str) else value
        parts.append(struct.pack("!i", -1) if data is None else struct.pack("!i", len(data)) + data)
    return message("D", b"".join(parts))


def error(sqlstate: str, text: str, severity: str = "ERROR", *, kind: str = "E") -> bytes:
    """ErrorResponse, or NoticeResponse with *kind* ``N``."""
    fields = [("S", severity), ("V", severity), ("C", sqlstate), ("M", text)]
    return message(kind, b"".join(cstring(code + value) for code, value in fields) + b"\0")


def notification(pid: int, channel: str, payload: str = "") -> bytes:
    """NotificationResponse."""
    return message("A", struct.pack("!I", pid) + cstring(channel) + cstring(payload))
