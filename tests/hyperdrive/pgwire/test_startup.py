"""First packets, the options parameter, NegotiateProtocolVersion."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.errors import ClientError, ProtocolViolation
from hyperdrive.pgwire import startup
from hyperdrive.pgwire.startup import (
    PROTOCOL_3_0,
    PROTOCOL_3_2,
    CancelRequest,
    GssEncRequest,
    SslRequest,
    StartupMessage,
    parse_options,
    read_first_packet,
)

VECTORS = [
    pytest.param(b"\0\0\0\x08\x04\xd2\x16\x2f", SslRequest(), id="SSLRequest"),
    pytest.param(b"\0\0\0\x08\x04\xd2\x16\x30", GssEncRequest(), id="GSSENCRequest"),
    pytest.param(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd", CancelRequest(7, b"abcd"), id="CancelRequest, 3.0"),
    pytest.param(
        b"\0\0\x01\x0c\x04\xd2\x16\x2e\xff\xff\xff\xff" + b"k" * 256, CancelRequest(-1, b"k" * 256), id="long key"
    ),
    pytest.param(
        b"\0\0\0\x1c\0\x03\0\0user\0ann\0database\0\0\0", StartupMessage(PROTOCOL_3_0, {b"user": b"ann", b"database": b""}),
        id="StartupMessage with an empty value",
    ),
    pytest.param(b"\0\0\0\x09\0\x03\0\x02\0", StartupMessage(PROTOCOL_3_2, {}), id="3.2 without parameters"),
    pytest.param(b"\0\0\0\x0c\0\x02\0\0????", StartupMessage(0x20000, {}), id="2.0, whose layout is not ours"),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "expected"), VECTORS)
def test_w01_first_packets_do_not_depend_on_how_bytes_arrive(wire: bytes, expected: startup.FirstPacket) -> None:
    for length in range(len(wire)):
        assert read_first_packet(wire[:length]) is None
    assert (expected, len(wire)) == read_first_packet(wire)
    assert (expected, len(wire)) == read_first_packet(bytearray(wire + b"E\0\0"))


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (startup.ssl_request(), SslRequest()),
        (startup.gssenc_request(), GssEncRequest()),
        (startup.cancel_request(-5, b"12345678"), CancelRequest(-5, b"12345678")),
        (startup.startup_message({b"user": b"a", b"x": b"y"}), StartupMessage(PROTOCOL_3_0, {b"user": b"a", b"x": b"y"})),
    ],
)  # fmt: skip
def test_what_we_write_we_read(packet: bytes, expected: startup.FirstPacket) -> None:
    assert (expected, len(packet)) == read_first_packet(packet)


@pytest.mark.parametrize("length", [-1, 0, 4, 7, 10_001, 0x7FFFFFFF])
def test_w01_a_length_out_of_bounds_is_refused_before_the_rest_arrives(length: int) -> None:
    with pytest.raises(ProtocolViolation):
        read_first_packet(struct.pack("!i", length))


def test_w01_the_longest_packet_is_accepted() -> None:
    value = b"v" * (10_000 - 8 - len(b"name\0\0\0"))
    wire = startup.startup_message({b"name": value})
    assert 10_000 == len(wire)
    assert (StartupMessage(PROTOCOL_3_0, {b"name": value}), 10_000) == read_first_packet(wire)
    with pytest.raises(ProtocolViolation):
        startup.startup_message({b"name": value + b"v"})


@pytest.mark.parametrize(
    "body", [b"", b"user\0ann\0", b"user\0ann", b"user\0\0", b"user\0ann\0\0x", b"\0\0", b"user\0ann\0\0a\0b\0\0"]
)
def test_a_startup_message_must_end_in_its_terminator(body: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="terminator as last byte"):
        read_first_packet(struct.pack("!iI", 8 + len(body), PROTOCOL_3_0) + body)


@pytest.mark.parametrize("key", [b"", b"abc", b"k" * 257])
def test_w04_a_cancel_key_has_4_to_256_bytes(key: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        read_first_packet(startup.cancel_request(1, key))


def test_of_a_parameter_given_twice_the_last_value_counts() -> None:
    body = b"user\0a\0user\0b\0\0"
    found = read_first_packet(struct.pack("!iI", 8 + len(body), PROTOCOL_3_0) + body)
    assert found is not None
    assert StartupMessage(PROTOCOL_3_0, {b"user": b"b"}) == found[0]


@given(st.binary(max_size=200), st.sampled_from([PROTOCOL_3_0, startup.CANCEL_REQUEST_CODE, startup.SSL_REQUEST_CODE]))
def test_only_documented_errors_escape_from_first_packets(body: bytes, code: int) -> None:
    try:
        read_first_packet(struct.pack("!iI", 8 + len(body), code) + body)
    except ProtocolViolation:
        pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", []),
        (b"  \t\n ", []),
        (b"-c a=b", [(b"a", b"b")]),
        (b"-ca=b", [(b"a", b"b")]),
        (b"--a=b", [(b"a", b"b")]),
        (b"-c statement-timeout=5s", [(b"statement_timeout", b"5s")]),
        (b"-c TimeZone=", [(b"TimeZone", b"")]),
        (b"-c a=b=c --x-y.z=1  -c  q=r", [(b"a", b"b=c"), (b"x_y.z", b"1"), (b"q", b"r")]),
        (rb"-c a=one\ two\\three", [(b"a", rb"one two\three")]),
        (rb"-c\ a=b", [(b" a", b"b")]),
        (rb"-c search_path=a,\ b", [(b"search_path", b"a, b")]),
        (b"-c a=b\\", [(b"a", b"b")]),
        (b"-e -S 64 -fs", [(b"datestyle", b"euro"), (b"work_mem", b"64"), (b"enable_seqscan", b"false")]),
        (b"-sec a=b", [(b"log_statement_stats", b"true"), (b"datestyle", b"euro"), (b"a", b"b")]),
    ],
)
def test_w05_options_are_taken_apart_as_in_the_server(text: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    assert expected == parse_options(text)


@pytest.mark.parametrize(
    "text", [b"geqo=off", b"-c", b"-c geqo", b"--geqo", b"--", b"-", b"-z 1", b"-f q", b"-c a=b c"]
)
def test_w05_options_that_are_no_settings_are_a_syntax_error(text: bytes) -> None:
    with pytest.raises(ClientError) as caught:
        parse_options(text)
    assert "42601" == caught.value.code


@given(st.binary(max_size=60))
def test_only_documented_errors_escape_from_options(text: bytes) -> None:
    try:
        parse_options(text)
    except ClientError:
        pass


@given(st.dictionaries(st.from_regex(rb"[a-z_.]{1,8}", fullmatch=True), st.binary(max_size=20), max_size=4))
def test_escaped_options_come_back_as_they_were(settings: dict[bytes, bytes]) -> None:
    escaped = {name: b"".join(b"\\" + bytes([byte]) for byte in value) for name, value in settings.items()}
    text = b" ".join(b"-c " + name + b"=" + value for name, value in escaped.items())
    assert list(settings.items()) == parse_options(text)


def test_w03_negotiate_protocol_version_holds_the_whole_version() -> None:
    wire = startup.negotiate_protocol_version(PROTOCOL_3_0, [b"_pq_.a", b"_pq_.b"])
    assert b"v\0\0\0\x1a\0\x03\0\0\0\0\0\x02_pq_.a\0_pq_.b\0" == wire
    assert (PROTOCOL_3_0, [b"_pq_.a", b"_pq_.b"]) == startup.read_negotiate_protocol_version(wire[5:])


def test_w03_a_bare_minor_version_is_understood() -> None:
    assert (PROTOCOL_3_0, []) == startup.read_negotiate_protocol_version(b"\0" * 8)
    assert (PROTOCOL_3_2, []) == startup.read_negotiate_protocol_version(b"\0\0\0\x02\0\0\0\0")


@given(st.binary(max_size=40))
def test_only_documented_errors_escape_from_lists(body: bytes) -> None:
    for read in (startup.read_negotiate_protocol_version, startup.read_string_list):
        try:
            read(body)
        except ProtocolViolation:
            pass
