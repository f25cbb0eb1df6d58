"""The messages before a session: first packets, their answers, and the requests of authentication.

Knows the layout of StartupMessage, SSLRequest, GSSENCRequest and CancelRequest (protocol-message-formats), how the ``options``
parameter is taken apart (libpq-connect#LIBPQ-CONNECT-OPTIONS) and the R and v messages. Decides nothing: who may come in is
``session.handshake``'s business. Must not know sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from hyperdrive.errors import ClientError, ProtocolViolation

PROTOCOL_3_0: Final = 0x0003_0000
PROTOCOL_3_2: Final = 0x0003_0002
CANCEL_REQUEST_CODE: Final = 80877102
SSL_REQUEST_CODE: Final = 80877103
GSSENC_REQUEST_CODE: Final = 80877104

MIN_FIRST_PACKET_BYTES: Final = 8
MAX_FIRST_PACKET_BYTES: Final = 10_000  # the server's own bound; the longest packet that an unknown peer makes us keep
MIN_CANCEL_KEY_BYTES: Final = 4
MAX_CANCEL_KEY_BYTES: Final = 256
MAX_NAME_BYTES: Final = 63  # NAMEDATALEN - 1; the server cuts longer user and database names as well
TLS_HANDSHAKE_BYTE: Final = 0x16  # first byte of a ClientHello; no length of a first packet starts with it
ALPN_PROTOCOL: Final = "postgresql"

AUTH_OK: Final = 0
AUTH_KERBEROS_V5: Final = 2
AUTH_CLEARTEXT: Final = 3
AUTH_MD5: Final = 5
AUTH_GSS: Final = 7
AUTH_GSS_CONTINUE: Final = 8
AUTH_SSPI: Final = 9
AUTH_SASL: Final = 10
AUTH_SASL_CONTINUE: Final = 11
AUTH_SASL_FINAL: Final = 12

_TWO_INTS = struct.Struct("!ii")
_INT = struct.Struct("!i")
_HEADER = struct.Struct("!ci")


@dataclass(frozen=True, slots=True)
class SslRequest:
    """The client asks for TLS; the answer is one byte, S or N."""


@dataclass(frozen=True, slots=True)
class GssEncRequest:
    """The client asks for GSSAPI encryption; the answer is one byte, G or N."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """The client of another connection wants its query cancelled. *pid* is signed, as it stands on the wire."""

    pid: int
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StartupMessage:
    """Version and parameters, in the order they came; of a name given twice the last value counts, as in the server."""

    version: int
    parameters: Mapping[bytes, bytes]

    @property
    def major(self) -> int:
        return self.version >> 16

    @property
    def minor(self) -> int:
        return self.version & 0xFFFF


FirstPacket: TypeAlias = SslRequest | GssEncRequest | CancelRequest | StartupMessage


# ---- reading ------------------------------------------------------------------------------------------------------------


def read_first_packet(buffer: bytes | bytearray) -> tuple[FirstPacket, int] | None:
    """Return the packet at the start of *buffer* and its length in bytes, or ``None`` while it is incomplete.

    The length is judged as soon as its four bytes are there, so a caller never collects more than
    ``MAX_FIRST_PACKET_BYTES``. A version that nobody speaks is not an error here: ``StartupMessage.version`` says it, with
    no parameters, since their layout is unknown.

    Raises:
        ProtocolViolation: a length out of bounds, or contents that do not fit it.
    """
    if len(buffer) < 4:
        return None
    (length,) = _INT.unpack_from(buffer)
    if not MIN_FIRST_PACKET_BYTES <= length <= MAX_FIRST_PACKET_BYTES:
        raise ProtocolViolation("invalid length of startup packet")
    if len(buffer) < length:
        return None
    (code,) = struct.unpack_from("!I", buffer, 4)
    body = bytes(buffer[8:length])
    if code == CANCEL_REQUEST_CODE:
        return _read_cancel(body), length
    if code in (SSL_REQUEST_CODE, GSSENC_REQUEST_CODE):
        if body:
            raise ProtocolViolation("invalid length of startup packet")
        return (SslRequest() if code == SSL_REQUEST_CODE else GssEncRequest()), length
    if code >> 16 != 3:
        return StartupMessage(code, {}), length
    return StartupMessage(code, _read_parameters(body)), length


def is_startup_message(buffer: bytes | bytearray) -> bool:
    """Whether the bytes have the length of a first packet and the version of a StartupMessage, whatever else is wrong."""
    if len(buffer) < MIN_FIRST_PACKET_BYTES:
        return False
    length, version = _TWO_INTS.unpack_from(buffer)
    return bool(MIN_FIRST_PACKET_BYTES <= length <= MAX_FIRST_PACKET_BYTES and version >> 16 == 3)


def _read_cancel(body: bytes) -> CancelRequest:
    key = body[4:]
    if not MIN_CANCEL_KEY_BYTES <= len(key) <= MAX_CANCEL_KEY_BYTES:
        raise ProtocolViolation("invalid length of cancel request packet")
    return CancelRequest(_INT.unpack_from(body)[0], key)


def _read_parameters(body: bytes) -> dict[bytes, bytes]:
    """Names and values up to the empty name, which must be the last byte of the packet."""
    # Without its last byte the body is name, zero, value, zero … and an empty rest.
    pieces = body[:-1].split(b"\0") if body.endswith(b"\0") else [b"?"]
    rest, names = pieces.pop(), pieces[0::2]
    if rest or len(pieces) % 2 or not all(names):
        raise ProtocolViolation("invalid startup packet layout: expected terminator as last byte")
    return dict(zip(names, pieces[1::2], strict=True))


def read_negotiate_protocol_version(body: bytes) -> tuple[int, list[bytes]]:
    """Return the version the server will speak and the ``_pq_.`` options it does not know.

    Servers have sent both the whole version (16 and later, as documented since) and the bare minor; both are read.

    Raises:
        ProtocolViolation: the body does not hold what it announces.
    """
    if len(body) < 8:
        raise ProtocolViolation("invalid NegotiateProtocolVersion message")
    version, count = _TWO_INTS.unpack_from(body)
    names = body[8:].split(b"\0")
    if count < 0 or names.pop() or len(names) != count:
        raise ProtocolViolation("invalid NegotiateProtocolVersion message")
    return (version if version >> 16 else PROTOCOL_3_0 | version), names


def read_string_list(body: bytes) -> list[bytes]:
    """Zero-terminated strings up to an empty one: the mechanisms of AuthenticationSASL.

    Raises:
        ProtocolViolation: no terminator, or bytes behind it.
    """
    pieces = body.split(b"\0")
    if len(pieces) < 2 or pieces.pop() or pieces.pop() or not all(pieces):
        raise ProtocolViolation("invalid list of authentication mechanisms")
    return pieces


# ---- the options parameter ----------------------------------------------------------------------------------------------

_SPACE = b" \t\n\r\v\f"
# The server's switches that are nothing but a setting under another name (app-postgres).
_FLAGS: Final[Mapping[bytes, tuple[bytes, bytes]]] = {
    b"e": (b"datestyle", b"euro"),
    b"F": (b"fsync", b"false"),
    b"O": (b"allow_system_table_mods", b"true"),
    b"P": (b"ignore_system_indexes", b"true"),
    b"s": (b"log_statement_stats", b"true"),
}
_VALUED: Final[Mapping[bytes, bytes]] = {b"S": b"work_mem", b"B": b"shared_buffers", b"N": b"max_connections"}
_PLANNER: Final[Mapping[bytes, bytes]] = {
    b"s": b"enable_seqscan",
    b"i": b"enable_indexscan",
    b"o": b"enable_indexonlyscan",
    b"b": b"enable_bitmapscan",
    b"t": b"enable_tidscan",
    b"n": b"enable_nestloop",
    b"m": b"enable_mergejoin",
    b"h": b"enable_hashjoin",
}


def split_options(text: bytes) -> list[bytes]:
    """Split at white space; a backslash takes the next byte literally, as the server does it."""
    words: list[bytes] = []
    word: bytearray | None = None
    escaped = False
    for byte in text:
        if escaped:
            word = bytearray() if word is None else word
            word.append(byte)
            escaped = False
        elif byte in _SPACE:
            if word is not None:
                words.append(bytes(word))
                word = None
        else:
            word = bytearray() if word is None else word
            if byte == 0x5C:
                escaped = True
            else:
                word.append(byte)
    if word is not None:
        words.append(bytes(word))
    return words


def parse_options(text: bytes) -> list[tuple[bytes, bytes]]:
    """Return the settings in an ``options`` parameter, in order: ``-c name=value``, ``--name=value`` and switches.

    A hyphen in a name counts as an underscore, as in the server.

    Raises:
        ClientError: 42601, an argument that is no setting. The texts are the server's.
    """
    settings: list[tuple[bytes, bytes]] = []
    words = iter(split_options(text))
    for word in words:
        if word.startswith(b"--") and len(word) > 2:
            settings.append(_setting(word[2:], b"--"))
            continue
        if not word.startswith(b"-") or len(word) < 2 or word == b"--":
            raise _bad_argument(word)
        rest = word[1:]
        while rest:
            letter, rest = rest[:1], rest[1:]
            if letter in _FLAGS:
                settings.append(_FLAGS[letter])
                continue
            # What takes a value takes the rest of the word, or else the next word.
            value = rest or next(words, None)
            rest = b""
            if value is None:
                raise _bad_argument(word)
            if letter == b"c":
                settings.append(_setting(value, b"-c "))
            elif letter in _VALUED:
                settings.append((_VALUED[letter], value))
            elif letter == b"f" and value in _PLANNER:
                settings.append((_PLANNER[value], b"false"))
            else:
                raise _bad_argument(word)
    return settings


def _setting(text: bytes, switch: bytes) -> tuple[bytes, bytes]:
    name, equals, value = text.partition(b"=")
    if not equals:
        raise ClientError(f"{_text(switch + text)} requires a value", sqlstate="42601")
    return name.replace(b"-", b"_"), value


def _bad_argument(word: bytes) -> ClientError:
    return ClientError(
        f"invalid command-line argument for server process: {_text(word)}",
        sqlstate="42601",
        hint='Try "postgres --help" for more information.',
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


# ---- writing: what a client sends ---------------------------------------------------------------------------------------


def ssl_request() -> bytes:
    """The packet that asks for TLS."""
    return _TWO_INTS.pack(8, SSL_REQUEST_CODE)


def gssenc_request() -> bytes:
    """The packet that asks for GSSAPI encryption."""
    return _TWO_INTS.pack(8, GSSENC_REQUEST_CODE)


def cancel_request(pid: int, key: bytes) -> bytes:
    """The packet that cancels the query of the session with this *pid* and *key*."""
    return struct.pack("!iii", 12 + len(key), CANCEL_REQUEST_CODE, pid) + key


def startup_message(parameters: Mapping[bytes, bytes], version: int = PROTOCOL_3_0) -> bytes:
    """A StartupMessage.

    Raises:
        ProtocolViolation: a zero byte in a name or value, an empty name, or more than a server accepts.
    """
    parts: list[bytes] = []
    for name, value in parameters.items():
        if not name or b"\0" in name or b"\0" in value:
            raise ProtocolViolation("a startup parameter cannot be empty or contain a zero byte")
        parts += (name, b"\0", value, b"\0")
    body = b"".join(parts) + b"\0"
    if len(body) + 8 > MAX_FIRST_PACKET_BYTES:
        raise ProtocolViolation("startup parameters are too long")
    return struct.pack("!iI", len(body) + 8, version) + body


def password_message(data: bytes) -> bytes:
    """Type p with any contents: PasswordMessage (with its zero), SASLInitialResponse, SASLResponse."""
    return _HEADER.pack(b"p", 4 + len(data)) + data


def sasl_initial_response(mechanism: bytes, data: bytes) -> bytes:
    """SASLInitialResponse."""
    return password_message(mechanism + b"\0" + _INT.pack(len(data)) + data)


# ---- writing: what a server sends ---------------------------------------------------------------------------------------


def authentication(code: int, data: bytes = b"") -> bytes:
    """An R message: one of the ``AUTH_`` codes, with what follows it."""
    return struct.pack("!cii", b"R", 8 + len(data), code) + data


def authentication_sasl(mechanisms: Iterable[bytes]) -> bytes:
    """AuthenticationSASL, best mechanism first."""
    return authentication(AUTH_SASL, b"".join(name + b"\0" for name in mechanisms) + b"\0")


def negotiate_protocol_version(version: int, unknown_options: Iterable[bytes]) -> bytes:
    """NegotiateProtocolVersion. *version* is the whole version, major part included, as servers send it."""
    names = list(unknown_options)
    body = _TWO_INTS.pack(version, len(names)) + b"".join(name + b"\0" for name in names)
    return _HEADER.pack(b"v", 4 + len(body)) + body
