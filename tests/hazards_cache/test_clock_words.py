"""The scan of rule 16 against the server: what it lets through is never the clock."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperdrive.sql.lists import find_clock_word, has_clock_word

FLAGGED = [
    "now", "NOW", " now ", "today10:00", "{now}", '{"now"}', "{n\\ow}", '[n"o"w,)', "(,today]", "tomorrow", "Yesterday", "2020-01-01 now", "now-1", "'now'", "today z",
]  # fmt: skip
LET_THROUGH = [
    "",
    "nowhere",
    "know",
    "tonow",
    "todays",
    "yesterdays",
    "no",
    "n o w",
    "epoch",
    "infinity",
    "2020-01-01",
    "to day",
    "allballs",
]


@pytest.mark.parametrize("text", FLAGGED)
def test_flagged(text: str) -> None:
    assert find_clock_word(text) is not None
    assert has_clock_word(text.encode())


@pytest.mark.parametrize("text", LET_THROUGH)
def test_let_through(text: str) -> None:
    assert find_clock_word(text) is None
    assert not has_clock_word(text.encode())


@pytest.fixture(scope="module")
def connection(database18: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database18.url, autocommit=True) as connection:
        yield connection


WORDS = st.sampled_from(
    [
        "now", "NOW", "Today", "yesterday", "tomorrow", "no", "w", "tod", "ay", "to", "day", "n", "ow", "2020-01-01", "10:00", "epoch", "infinity", "allballs", "z", "UTC",
        "+02", "at", "in", "ago", "j2451187", "mon", "jan", "1", "2020", "pm", "bc", "t", "\\", '"', "{", "}", "[", ",", ")", "(", "é", "'", "undefined", "current", "invalid",
    ]
)  # fmt: skip
TYPES = st.sampled_from(
    ["date", "timestamp", "timestamptz", "time", "tstzrange", "daterange", "timestamptz[]", "tstzmultirange"]
)
SEPARATORS = st.sampled_from(["", " ", "-", ":", "/", ",", "\t"])


@settings(max_examples=400)
@given(words=st.lists(WORDS, min_size=1, max_size=4), between=SEPARATORS, kind=TYPES)
def test_what_the_scan_lets_through_is_not_today(
    connection: psycopg.Connection[Any], words: list[str], between: str, kind: str
) -> None:
    """Whatever the server accepts is flagged, or is not about today."""
    text = between.join(words)
    try:
        row = connection.execute(f"select (%s::text)::{kind}::text", (text,)).fetchone()  # type: ignore[call-overload]
    except (psycopg.Error, ValueError):
        return
    if row is None or find_clock_word(text) is not None:
        return
    today = datetime.datetime.now(datetime.UTC).date()
    for days in (-1, 0, 1):
        assert str(today + datetime.timedelta(days)) not in row[0], text
    assert f"{datetime.datetime.now(datetime.UTC):%H:%M}" not in row[0] or any(char.isdigit() for char in text), text


def test_the_server_does_take_the_disguises_for_the_clock(connection: psycopg.Connection[Any]) -> None:
    """Or the scan would look for the wrong things."""
    for text, kind in [
        ("today10:00", "timestamp"),
        ('[n"o"w,)', "tstzrange"),
        ("{n\\ow}", "timestamptz[]"),
        (" NOW ", "timestamptz"),
        ("(yesterday,)", "daterange"),
    ]:
        row = connection.execute(f"select (%s::text)::{kind}::text", (text,)).fetchone()  # type: ignore[call-overload]
        assert row is not None
        year = str(datetime.datetime.now(datetime.UTC).year)
        assert year in row[0], text
