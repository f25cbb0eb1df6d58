"""Builders give the manual's bytes, and readers find in them what was put there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.errors import OriginRefused, ProtocolViolation, UnknownStatement
from hyperdrive.pgwire import messages
from hyperdrive.testing import backend, frontend

# A hand-made twin that shares nothing with the code under test.
SAME = [
    (messages.query(b"select 1"), frontend.query("select 1")),
    (messages.parse(b"s", b"select $1", [23]), frontend.parse("select $1", "s", [23])),
    (messages.parse(b"", b""), frontend.parse("")),
    (messages.bind(b"p", b"s", [b"x", None], [1], [0, 1]), frontend.bind("s", ["x", None], portal="p", formats=[1], result_formats=[0, 1])),
    (messages.describe(b"S", b"s"), frontend.describe_statement("s")),
    (messages.describe(b"P"), frontend.describe_portal()),
    (messages.execute(b"p", 7), frontend.execute("p", 7)),
    (messages.close(b"S", b"s"), frontend.close_statement("s")),
    (messages.SYNC, frontend.sync()),
    (messages.FLUSH, frontend.flush()),
    (messages.TERMINATE, frontend.terminate()),
    (messages.COPY_DONE, frontend.copy_done()),
    (messages.copy_data(b"x"), frontend.copy_data(b"x")),
    (messages.copy_fail(b"no"), frontend.copy_fail("no")),
    (messages.run(b"select 1"), frontend.parse("select 1") + frontend.bind() + frontend.execute()),
    (messages.ready_for_query(ord("T")), backend.ready("T")),
    (messages.command_complete(b"SET"), backend.complete("SET")),
    (messages.parameter_status(b"a", b"b"), backend.parameter_status("a", "b")),
    (messages.parameter_statuses({b"a": b"b", b"c": b""}), backend.parameter_status("a", "b") + backend.parameter_status("c", "")),
    (messages.backend_key_data(7, b"key"), backend.backend_key(7, b"key")),
    (messages.data_row([b"x", None, b""]), backend.data_row(["x", None, ""])),
    (messages.row_description([(b"x", 25, -1)]), backend.message("T", b"\0\x01x\0" + b"\0" * 6 + b"\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0")),
    (messages.parameter_description([23]), backend.parameter_description([23])),
    (messages.NO_PARAMETERS, backend.parameter_description()),
    (messages.error_response("no", "22012"), backend.error("22012", "no")),
    (messages.notice_response("hm", "25P01"), backend.error("25P01", "hm", "WARNING", kind="N")),
]  # fmt: skip


@pytest.mark.parametrize(("built", "expected"), SAME, ids=lambda data: chr(data[0]))
def test_builders_give_the_manuals_bytes(built: bytes, expected: bytes) -> None:
    assert expected == built


@pytest.mark.parametrize("status", b"ITE")
def test_ready_for_query_has_its_status(status: int) -> None:
    assert b"Z\0\0\0\x05" + bytes([status]) == messages.ready_for_query(status)


def test_an_error_response_has_detail_and_hint_only_if_given() -> None:
    fields = messages.read_error_fields(messages.error_response("text", "XX000", detail="why", hint="do"))
    assert {"S": "ERROR", "V": "ERROR", "C": "XX000", "M": "text", "D": "why", "H": "do"} == fields
    assert "D" not in messages.read_error_fields(messages.error_response("text", "XX000"))


def test_zeros_in_a_text_do_not_end_the_field() -> None:
    assert "ab" == messages.read_error_fields(messages.error_response("a\0b", "XX000"))["M"]


def test_our_errors_become_responses_and_an_origins_stays_as_it_was() -> None:
    own = messages.read_error_fields(messages.error_message(UnknownStatement("no such"), severity="FATAL"))
    assert ("FATAL", "26000", "no such") == (own["S"], own["C"], own["M"])
    theirs = backend.error("28P01", "password authentication failed", "FATAL")
    assert theirs == messages.error_message(OriginRefused("refused", response=theirs, sqlstate="28P01"))


@given(st.dictionaries(st.sampled_from("SVCMDHPqWst"), st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
def test_error_fields_come_back(fields: dict[str, str]) -> None:
    body = b"".join(key.encode() + value.encode() + b"\0" for key, value in fields.items())
    assert fields == messages.read_error_fields(frontend.message("E", body + b"\0"))


def test_undecodable_bytes_in_an_error_are_replaced() -> None:
    assert "�" == messages.read_error_fields(frontend.message("E", b"M\xff\0\0"))["M"]


def test_parameter_status_and_tag_come_back() -> None:
    assert (b"TimeZone", b"UTC") == messages.read_parameter_status(backend.parameter_status("TimeZone", "UTC"))
    assert b"INSERT 0 1" == messages.read_tag(backend.complete("INSERT 0 1"))


def test_a_string_without_its_end_is_a_protocol_violation() -> None:
    assert (b"ab", 4) == messages.read_name(b"xab\0", 1)
    with pytest.raises(ProtocolViolation):
        messages.read_name(b"xab", 1)
    with pytest.raises(ProtocolViolation):
        messages.read_parameter_status(frontend.message("S", b"a\0b"))
