"""Frontend messages for tests that must say exactly which bytes travel (protocol-message-formats).

Written from the manual and on purpose not shared with ``hyperdrive.pgwire``: a test that builds its bytes with the code
under test proves nothing about them. Nothing is checked either, as hostile bytes are wanted here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

PROTOCOL_3_0 = 196608
PROTOCOL_3_2 = 196610


def cstring(text: str | bytes) -> bytes:
    """A string with its terminating zero."""
    return (text.encode() if isinstance(text, str) else text) + b"\0"


def message(kind: str, body: bytes = b"") -> bytes:
    """One typed message."""
    return kind.encode("latin-1") + struct.pack("!i", len(body) + 4) + body


def untyped(code: int, body: bytes = b"") -> bytes:
    """One packet without a type byte, as used before and instead of the start-up."""
    return struct.pack("!ii", len(body) + 8, code) + body


def startup(parameters: Mapping[str, str], version: int = PROTOCOL_3_0) -> bytes:
    """StartupMessage."""
    return untyped(version, b"".join(cstring(k) + cstring(v) for k, v in parameters.items()) + b"\0")


def ssl_request() -> bytes:
    """SSLRequest."""
    return untyped(80877103)


def gssenc_request() -> bytes:
    """GSSENCRequest."""
    return untyped(80877104)


def cancel_request(pid: int, secret: bytes) -> bytes:
    """CancelRequest; the secret has 4 bytes in 3.0 and up to 256 in 3.2."""
    return untyped(80877102, struct.pack("!I", pid & 0xFFFFFFFF) + secret)


def query(sql: str | bytes) -> bytes:
    """Query."""
    return message("Q", cstring(sql))


def parse(sql: str | bytes, name: str | bytes = "", oids: Sequence[int] = ()) -> bytes:
    """Parse."""
    return message(
        "P", cstring(name) + cstring(sql) + struct.pack("!H", len(oids)) + struct.pack(f"!{len(oids)}I", *oids)
    )


def bind(
    statement: str | bytes = "",
    values: Sequence[str | bytes | None] = (),
    *,
    portal: str | bytes = "",
    formats: Sequence[int] = (),
    result_formats: Sequence[int] = (),
) -> bytes:
    """Bind; ``None`` is NULL."""
    parts = [cstring(portal), cstring(statement), struct.pack(f"!H{len(formats)}h", len(formats), *formats)]
    parts.append(struct.pack("!H", len(values)))
    for value in values:
        data = value.encode() if isinstance(value, str) else value
        parts.append(struct.pack("!i", -1) if data is None else struct.pack("!i", len(data)) + data)
    parts.append(struct.pack(f"!H{len(result_formats)}h", len(result_formats), *result_formats))
    return message("B", b"".join(parts))


def describe_statement(name: str | bytes = "") -> bytes:
    """Describe of a prepared statement."""
    return message("D", b"S" + cstring(name))


def describe_portal(name: str | bytes = "") -> bytes:
    """Describe of a portal."""
    return message("D", b"P" + cstring(name))


def execute(portal: str | bytes = "", limit: int = 0) -> bytes:
    """Execute; *limit* 0 means all rows."""
    return message("E", cstring(portal) + struct.pack("!i", limit))


def close_statement(name: str | bytes = "") -> bytes:
    """Close of a prepared statement."""
    return message("C", b"S" + cstring(name))


def close_portal(name: str | bytes = "") -> bytes:
    """Close of a portal."""
    return message("C", b"P" + cstring(name))


def flush() -> bytes:
    """Flush."""
    return message("H")


def sync() -> bytes:
    """Sync."""
    return message("S")


def terminate() -> bytes:
    """Terminate."""
    return message("X")


def copy_data(data: bytes) -> bytes:
    """CopyData."""
    return message("d", data)


def copy_done() -> bytes:
    """CopyDone."""
    return message("c")


def copy_fail(reason: str = "stopped") -> bytes:
    """CopyFail."""
    return message("f", cstring(reason))


def function_call(oid: int, arguments: Sequence[bytes | None], *, binary: bool = True) -> bytes:
    """FunctionCall with all arguments and the result in one format."""
    parts: list[bytes] = [struct.pack("!IHhH", oid, 1, int(binary), len(arguments))]
    parts += [struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value for value in arguments]
    return message("F", b"".join(parts) + struct.pack("!h", int(binary)))


def extended(sql: str, values: Sequence[str | bytes | None] = (), *, limit: int = 0) -> bytes:
    """Parse, Bind, Describe, Execute of the unnamed statement, *without* Sync."""
    return parse(sql) + bind("", values) + describe_portal() + execute("", limit)
