"""Lines of the log."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from hyperdrive import logs


@pytest.fixture(autouse=True)
def ours() -> Iterator[None]:
    root = logging.getLogger(logs.ROOT)
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers, root.propagate = before[0], before[2]
    root.setLevel(before[1])


def lines(style: str, level: str = "debug") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, style, stream)
    return stream


def test_a_text_line_says_when_how_bad_where_and_what() -> None:
    stream = lines("text")
    logs.ConnectionLog(logging.getLogger("hyperdrive.proxy"), "c17").debug("< %s", "Query")
    assert stream.getvalue()[23:] == " debug proxy c17: < Query\n"


def test_a_text_line_stays_one_line() -> None:
    """A user name with a newline in it cannot forge a line."""
    stream = lines("text")
    logging.getLogger("hyperdrive.proxy").warning("! login of %s", "u\n2030-01-01 info all is well\x1b[0m")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_a_json_line_is_an_object() -> None:
    stream = lines("json")
    try:
        raise ValueError("deep\nreason")
    except ValueError:
        logs.ConnectionLog(logging.getLogger("hyperdrive.pool"), "s3").exception("! lost")
    line = json.loads(stream.getvalue())
    assert {
        "level": "error",
        "logger": "hyperdrive.pool",
        "message": "! lost",
        "connection": "s3",
    }.items() <= line.items()
    assert "deep" in line["exception"]
    assert line["time"].endswith("Z")


def test_the_level_decides_and_may_change() -> None:
    stream = lines("text", "info")
    log = logs.ConnectionLog(logging.getLogger("hyperdrive.proxy"), "c1")
    assert not log.is_debug
    log.debug("unseen")
    assert stream.getvalue() == ""
    again = lines("text", "debug")
    assert log.is_debug
    log.debug("seen")
    assert again.getvalue().count("seen") == 1
    assert stream.getvalue() == ""
