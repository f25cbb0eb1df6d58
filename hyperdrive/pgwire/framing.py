"""Where messages begin and end: types, lengths, limits.

Knows the header (one type byte, a four-byte big-endian length that counts itself: protocol-message-formats). Knows no bodies and
no sockets. The direction decides what a letter means: ``S`` is Sync from a frontend and ParameterStatus from a backend.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from hyperdrive.errors import ProtocolViolation

read_length: Final = Struct(">I").unpack_from
"""``(length,) = read_length(buffer, offset)``; the length counts itself and not the type byte."""

HEADER: Final = 5
"""Bytes of a header: type and length."""

MAX_LENGTH: Final = 0x3FFFFFFF
"""PostgreSQL's own limit, 1 GiB - 1 (``PQ_LARGE_MESSAGE_LIMIT`` in libpq/pqcomm.h)."""

MAX_SMALL_LENGTH: Final = 10_000
"""The limit for messages without payload (``PQ_SMALL_MESSAGE_LIMIT``)."""

# Types sent by a frontend (F), as integers: indexing bytes gives integers.
BIND: Final = ord("B")
CLOSE: Final = ord("C")
COPY_DATA: Final = ord("d")
COPY_DONE: Final = ord("c")
COPY_FAIL: Final = ord("f")
DESCRIBE: Final = ord("D")
EXECUTE: Final = ord("E")
FLUSH: Final = ord("H")
FUNCTION_CALL: Final = ord("F")
PARSE: Final = ord("P")
QUERY: Final = ord("Q")
SYNC: Final = ord("S")
TERMINATE: Final = ord("X")
PASSWORD: Final = ord("p")

# Types sent by a backend (B).
AUTHENTICATION: Final = ord("R")
BACKEND_KEY_DATA: Final = ord("K")
BIND_COMPLETE: Final = ord("2")
CLOSE_COMPLETE: Final = ord("3")
COMMAND_COMPLETE: Final = ord("C")
COPY_BOTH_RESPONSE: Final = ord("W")
COPY_IN_RESPONSE: Final = ord("G")
COPY_OUT_RESPONSE: Final = ord("H")
DATA_ROW: Final = ord("D")
EMPTY_QUERY_RESPONSE: Final = ord("I")
ERROR_RESPONSE: Final = ord("E")
FUNCTION_CALL_RESPONSE: Final = ord("V")
NEGOTIATE_PROTOCOL_VERSION: Final = ord("v")
NO_DATA: Final = ord("n")
NOTICE_RESPONSE: Final = ord("N")
NOTIFICATION_RESPONSE: Final = ord("A")
PARAMETER_DESCRIPTION: Final = ord("t")
PARAMETER_STATUS: Final = ord("S")
PARSE_COMPLETE: Final = ord("1")
PORTAL_SUSPENDED: Final = ord("s")
READY_FOR_QUERY: Final = ord("Z")
ROW_DESCRIPTION: Final = ord("T")

FRONTEND_LIMITS: Final[dict[int, int]] = {
    QUERY: MAX_LENGTH,
    PARSE: MAX_LENGTH,
    BIND: MAX_LENGTH,
    FUNCTION_CALL: MAX_LENGTH,
    COPY_DATA: MAX_LENGTH,
    # The rest carries names at most; PostgreSQL closes the connection over more (SocketBackend in tcop/postgres.c).
    CLOSE: MAX_SMALL_LENGTH,
    DESCRIBE: MAX_SMALL_LENGTH,
    EXECUTE: MAX_SMALL_LENGTH,
    FLUSH: MAX_SMALL_LENGTH,
    SYNC: MAX_SMALL_LENGTH,
    TERMINATE: MAX_SMALL_LENGTH,
    COPY_DONE: MAX_SMALL_LENGTH,
    COPY_FAIL: MAX_SMALL_LENGTH,
}
"""Largest length that a client's message of each type may declare; a type not listed does not exist."""


def check_frontend_header(kind: int, length: int) -> None:
    """Refuse what PostgreSQL refuses, before a byte of the body is waited for.

    Raises:
        ProtocolViolation: unknown type or impossible length; the connection cannot go on.
    """
    limit = FRONTEND_LIMITS.get(kind)
    if limit is None:
        raise ProtocolViolation(f"invalid frontend message type {kind}")
    if length < 4 or length > limit:
        raise ProtocolViolation("invalid message length")


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Cut *data* into complete messages, headers included, and the incomplete rest.

    For tests, tools and rare paths; relaying never builds a list of messages.

    Raises:
        ProtocolViolation: a length below 4.
    """
    messages: list[bytes] = []
    start, size = 0, len(data)
    while start + HEADER <= size:
        (length,) = read_length(data, start + 1)
        if length < 4:
            raise ProtocolViolation("invalid message length")
        end = start + 1 + length
        if end > size:
            break
        messages.append(data[start:end])
        start = end
    return messages, data[start:]
