"""Messages are cut where their headers say, however their bytes arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.errors import ProtocolViolation
from hyperdrive.pgwire import framing
from hyperdrive.pgwire.framing import MAX_LENGTH, MAX_SMALL_LENGTH, check_frontend_header, split
from hyperdrive.testing import backend, frontend

VECTORS = [
    pytest.param(b"Z\0\0\0\x05I", [b"Z\0\0\0\x05I"], id="ready, idle"),
    pytest.param(b"1\0\0\0\x042\0\0\0\x04", [b"1\0\0\0\x04", b"2\0\0\0\x04"], id="two empty bodies"),
    pytest.param(b"C\0\0\0\x0dSELECT 1\0", [b"C\0\0\0\x0dSELECT 1\0"], id="command tag"),
    pytest.param(b"", [], id="nothing"),
]


def read_all(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    messages: list[bytes] = []
    rest = b""
    for chunk in chunks:
        found, rest = split(rest + chunk)
        messages += found
    return messages, rest


@pytest.mark.parametrize(("wire", "expected"), VECTORS)
def test_messages_do_not_depend_on_how_bytes_arrive(wire: bytes, expected: list[bytes]) -> None:
    assert (expected, b"") == read_all([wire])
    assert (expected, b"") == read_all([bytes([byte]) for byte in wire])
    assert (expected, b"E\0\0") == read_all([wire + b"E\0\0"])  # an incomplete message stays in the buffer


@given(bodies=st.lists(st.binary(max_size=20), max_size=6), cut=st.integers(1, 30))
def test_any_bodies_come_back_as_they_were(bodies: list[bytes], cut: int) -> None:
    messages = [frontend.message("d", body) for body in bodies]
    wire = b"".join(messages)
    assert (messages, b"") == read_all([wire[i : i + cut] for i in range(0, len(wire), cut)])


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_length_that_does_not_count_itself_is_refused(length: int) -> None:
    with pytest.raises(ProtocolViolation, match="invalid message length"):
        split(b"Q" + length.to_bytes(4, "big") + b"xxxx")


@pytest.mark.parametrize("kind", sorted(framing.FRONTEND_LIMITS))
def test_each_type_has_its_limit_as_in_postgresql(kind: int) -> None:
    limit = MAX_LENGTH if chr(kind) in "QPBFd" else MAX_SMALL_LENGTH
    check_frontend_header(kind, 4)
    check_frontend_header(kind, limit)
    for length in (0, 3, limit + 1, 0xFFFFFFFF):
        with pytest.raises(ProtocolViolation, match="invalid message length"):
            check_frontend_header(kind, length)


def test_unknown_types_are_refused_by_their_number() -> None:
    """Also those that only a login has (PasswordMessage), and those that only a backend sends."""
    for kind in set(range(256)) - set(framing.FRONTEND_LIMITS):
        with pytest.raises(ProtocolViolation, match=f"invalid frontend message type {kind}$"):
            check_frontend_header(kind, 4)


def test_the_letters_are_those_of_the_manual() -> None:
    """Built by a hand that shares nothing with the code under test."""
    assert framing.QUERY == frontend.query("x")[0]
    assert framing.PARSE == frontend.parse("x")[0]
    assert framing.BIND == frontend.bind()[0]
    assert framing.DESCRIBE == frontend.describe_portal()[0]
    assert framing.EXECUTE == frontend.execute()[0]
    assert framing.CLOSE == frontend.close_portal()[0]
    assert framing.SYNC == frontend.sync()[0]
    assert framing.FLUSH == frontend.flush()[0]
    assert framing.FUNCTION_CALL == frontend.function_call(1, [])[0]
    assert framing.TERMINATE == frontend.terminate()[0]
    assert framing.COPY_DATA == frontend.copy_data(b"")[0]
    assert framing.COPY_DONE == frontend.copy_done()[0]
    assert framing.COPY_FAIL == frontend.copy_fail()[0]
    assert framing.READY_FOR_QUERY == backend.ready()[0]
    assert framing.COMMAND_COMPLETE == backend.complete("x")[0]
    assert framing.ROW_DESCRIPTION == backend.row_description(["x"])[0]
    assert framing.DATA_ROW == backend.data_row(["x"])[0]
    assert framing.ERROR_RESPONSE == backend.error("XX000", "x")[0]
    assert framing.PARAMETER_STATUS == backend.parameter_status("a", "b")[0]
