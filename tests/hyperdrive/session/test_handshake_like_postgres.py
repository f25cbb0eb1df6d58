"""Start-ups that fail: PostgreSQL is asked the same, and what it says is what we must say.

Two differences are meant: to protocol 2.0 it answers in the format of 2.0, which nothing speaks any more, we as to 4.0; and it
takes an empty nonce in SCRAM, which RFC 5802 does not allow.
"""

from __future__ import annotations

import socket
import struct

import pytest

from hyperdrive.pgwire import startup
from hyperdrive.pgwire.startup import PROTOCOL_3_0
from hyperdrive.session.handshake import Admit, Cancel, ClientHandshake, Close, HandshakePolicy, LookUpUser, Send
from hyperdrive.testing.postgres import Postgres

NOT_COMPARED = b"FLRD"  # file, line, routine are the server's own; DETAIL says the same in other words


def packet(version: int, body: bytes) -> bytes:
    return struct.pack("!iI", 8 + len(body), version) + body


SSL, GSS = startup.ssl_request(), startup.gssenc_request()
USER = b"user\0app\0"

VECTORS = [
    pytest.param(SSL + SSL, id="SSLRequest twice"),
    pytest.param(GSS + GSS, id="GSSENCRequest twice"),
    pytest.param(SSL + GSS + packet(PROTOCOL_3_0, b"\0"), id="both, then nobody"),
    pytest.param(packet(PROTOCOL_3_0, b"\0"), id="nobody"),
    pytest.param(packet(PROTOCOL_3_0, b"user\0\0\0"), id="user with an empty name"),
    pytest.param(packet(PROTOCOL_3_0, b"database\0app\0\0"), id="only a database"),
    pytest.param(packet(PROTOCOL_3_0, b""), id="no terminator at all"),
    pytest.param(packet(PROTOCOL_3_0, USER), id="no terminator"),
    pytest.param(packet(PROTOCOL_3_0, USER + b"\0x"), id="a tail"),
    pytest.param(packet(PROTOCOL_3_0, USER + b"name\0\0"), id="a value for a terminator"),
    pytest.param(packet(0x40000, USER + b"\0"), id="4.0"),
    pytest.param(packet(0x7FFFFFFF, b""), id="32767.65535"),
    pytest.param(packet(0x4D2162E + 7, b""), id="unknown request code"),
    pytest.param(struct.pack("!i", 7), id="length 7"),
    pytest.param(struct.pack("!i", 20_000), id="length 20,000"),
    pytest.param(struct.pack("!i", -1), id="length -1"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
    pytest.param(packet(startup.CANCEL_REQUEST_CODE, struct.pack("!i", 99_999_999) + b"abcd"), id="cancel of nobody"),
    pytest.param(packet(startup.CANCEL_REQUEST_CODE, b"\0\0\0\1"), id="cancel without a key"),
    pytest.param(packet(PROTOCOL_3_0, USER + b"_pq_.a\0b\0_pq_.c\0d\0\0"), id="options unknown"),
    pytest.param(packet(0x3270F, USER + b"\0"), id="3.9999"),
    pytest.param(packet(0x30001, USER + b"\0"), id="3.1"),
    pytest.param(packet(0x30002, USER + b"\0"), id="3.2"),
    pytest.param(packet(PROTOCOL_3_0, USER + b"\0") + b"Q\0\0\0\x05\0", id="a query for a password"),
    pytest.param(packet(PROTOCOL_3_0, USER + b"\0") + b"X\0\0\0\x04", id="Terminate for a password"),
    pytest.param(packet(PROTOCOL_3_0, USER + b"\0") + startup.password_message(b"x"), id="no SASLInitialResponse"),
    pytest.param(packet(PROTOCOL_3_0, USER + b"\0") + startup.sasl_initial_response(b"X", b"n,,n=,r=a"), id="mechanism"),
]  # fmt: skip
HOSTILE_FIRST = [
    b"",
    b"x,,n=,r=abc",
    b"n",
    b"n,n=,r=abc",
    b"n,,n=",
    b"n,,r=abc",
    b"n,,n=,r=abc\0",
    b"n,,n=,r=abc,junk",
    b"p=tls-unique,,n=,r=abc",
    b"n,a=admin,n=,r=abc",
    b"n,,m=ext,n=,r=abc",
    b"n,,n=,r=a\x7f",
]
VECTORS += [
    pytest.param(
        packet(PROTOCOL_3_0, USER + b"\0") + startup.sasl_initial_response(b"SCRAM-SHA-256", first), id=repr(first)
    )
    for first in HOSTILE_FIRST
]


@pytest.mark.parametrize("wire", VECTORS)
def test_w01_w03_w06_a_start_up_that_fails_sounds_like_postgres(wire: bytes, pg18: Postgres) -> None:
    assert summary(from_postgres(pg18, wire)) == summary(from_us(wire))


def from_postgres(postgres: Postgres, wire: bytes) -> bytes:
    with socket.create_connection((postgres.host, postgres.port), timeout=10) as sock:
        # One request at a time: PostgreSQL refuses bytes behind a request for encryption even when it declines.
        received = b""
        while wire[:8] in (SSL, GSS):
            sock.sendall(wire[:8])
            wire = wire[8:]
            if not (answer := sock.recv(4096)):
                return received
            received += answer
        sock.sendall(wire)
        sock.shutdown(socket.SHUT_WR)
        while answer := receive_some(sock):
            received += answer
        return received


def receive_some(sock: socket.socket) -> bytes:
    try:
        return sock.recv(4096)
    except ConnectionResetError:
        return b""


def from_us(wire: bytes) -> bytes:
    shake = ClientHandshake(HandshakePolicy(b"mock"))
    actions, sent = shake.receive(wire), b""
    while actions:
        match actions.pop(0):
            case Send(data) | Close(data):
                sent += data
            case LookUpUser():
                actions += shake.user_found(None)
            case Cancel():
                pass
            case Admit():
                raise AssertionError("admitted")
    return sent


def summary(data: bytes) -> list[object]:
    """One-byte answers, messages, and of errors the fields that are not about the server's source."""
    found: list[object] = []
    while data:
        if data[:1] == b"N" and data[1:2] in (b"", b"N", b"E", b"R", b"v"):
            found.append("declined")
            data = data[1:]
            continue
        (length,) = struct.unpack_from("!i", data, 1)
        kind, body, data = data[:1], data[5 : 1 + length], data[1 + length :]
        if kind == b"E":
            fields = {piece[:1]: piece[1:] for piece in body.split(b"\0") if piece}
            found.append({key: value for key, value in fields.items() if key not in NOT_COMPARED})
        elif kind == b"R" and body[:4] == b"\0\0\0\x0b":
            found.append("a challenge")
        else:
            found.append((kind, body))
    return found
