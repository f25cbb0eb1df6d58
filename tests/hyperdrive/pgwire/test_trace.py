"""The trace format, as libpq's PQtrace prints it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.pgwire.trace import BACKEND_NAMES, FRONTEND_NAMES, trace, trace_message, trace_startup
from hyperdrive.testing import backend
from hyperdrive.testing import frontend as fe

LINES = [
    pytest.param("F", fe.query("BEGIN"), 'F\t10\tQuery\t "BEGIN"', id="query"),
    pytest.param("F", fe.parse("SELECT $1", "s", [23]), 'F\t22\tParse\t "s" "SELECT $1" 1 23', id="parse"),
    pytest.param("F", fe.bind("s", ["1", None], portal="p"), 'F\t23\tBind\t "p" "s" 0 2 1 \'1\' -1 0', id="bind"),
    pytest.param("F", fe.describe_portal(), 'F\t6\tDescribe\t P ""', id="describe"),
    pytest.param("F", fe.execute("", 2), 'F\t9\tExecute\t "" 2', id="execute"),
    pytest.param("F", fe.sync(), "F\t4\tSync", id="sync"),
    pytest.param("F", fe.message("p", b"secret\0"), "F\t11\tPasswordMessage\t (not shown)", id="password"),
    pytest.param("B", backend.complete("SELECT 1"), 'B\t13\tCommandComplete\t "SELECT 1"', id="complete"),
    pytest.param("B", backend.ready("T"), "B\t5\tReadyForQuery\t T", id="ready"),
    pytest.param("B", backend.data_row(["a\0", None]), "B\t16\tDataRow\t 2 2 'a\\x00' -1", id="row"),
    pytest.param("B", backend.PARSE_COMPLETE, "B\t4\tParseComplete", id="parse-complete"),
    pytest.param("B", backend.parameter_status("a", "b"), 'B\t8\tParameterStatus\t "a" "b"', id="status"),
    pytest.param("B", fe.message("Z", b""), "B\t4\tReadyForQuery\t mismatched message length: ", id="short"),
    pytest.param("B", fe.message("Z", b"Ix"), "B\t6\tReadyForQuery\t I mismatched message length: 78", id="long"),
]


@pytest.mark.parametrize(("direction", "data", "line"), LINES)
def test_a_message_is_one_line(direction: str, data: bytes, line: str) -> None:
    assert trace_message(direction, chr(data[0]), data[5:]) == line


def test_what_differs_from_run_to_run_is_masked() -> None:
    error = backend.error("22012", "division by zero")[5:-1] + b"Fint.c\0L870\0Rint4div\0\0"
    assert trace([("B", "E", error)], regress=True) == (
        'B\tNN\tErrorResponse\t S "ERROR" V "ERROR" C "22012" M "division by zero" F "SSSS" L "SSSS" R "SSSS" \\x00'
    )
    assert trace([("B", "K", b"\0\0\0\1secret")], regress=True) == "B\t14\tBackendKeyData\t NNNN NNNN"


def test_packets_without_a_type() -> None:
    assert trace_startup(fe.ssl_request()[4:]) == "F\t8\tSSLRequest"
    assert trace_startup(fe.startup({"user": "x"})[4:]) == 'F\t16\tStartupMessage\t 3 0 "user" "x"'


@given(
    direction=st.sampled_from("FB"),
    kind=st.sampled_from([*FRONTEND_NAMES, *BACKEND_NAMES, "\0", "\xff"]),
    body=st.binary(max_size=80),
    regress=st.booleans(),
)
def test_no_body_is_too_broken_to_print(direction: str, kind: str, body: bytes, regress: bool) -> None:
    assert "\n" not in trace_message(direction, kind, body, regress=regress)
