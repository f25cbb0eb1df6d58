"""How values are written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdrive.config.units import (
    ADDRESS,
    ADDRESSES,
    DURATION,
    FLAG,
    NAMES,
    SIZE,
    Address,
    Kind,
    choice,
    mode_bits,
    whole,
)

GOOD = [
    (DURATION, "30s", 30.0),
    (DURATION, "500ms", 0.5),
    (DURATION, "1.5 h", 5400.0),
    (DURATION, "2min", 120.0),
    (DURATION, "7", 7.0),
    (DURATION, 7, 7.0),
    (DURATION, 0.25, 0.25),
    (DURATION, "0", 0.0),
    (SIZE, "64KiB", 65536),
    (SIZE, "1.5MiB", 1572864),
    (SIZE, "2GB", 2147483648),
    (SIZE, "100", 100),
    (SIZE, 100, 100),
    (FLAG, "on", True),
    (FLAG, "NO", False),
    (FLAG, True, True),
    (NAMES, "a, b,,a", ("a", "b")),
    (NAMES, ["a", "b"], ("a", "b")),
    (ADDRESS, "[::1]:6544", Address("::1", 6544)),
    (ADDRESS, ":6544", Address("*", 6544)),
    (ADDRESS, "off", None),
    (ADDRESSES, "127.0.0.1:1,localhost:2", (Address("127.0.0.1", 1), Address("localhost", 2))),
    (whole(1, 5), "5", 5),
    (choice("off", "on", "always"), True, "on"),
    (choice("off", "on", "always"), "Always", "always"),
    (mode_bits(), "0770", 0o770),
    (mode_bits(), 0o770, 0o770),
]

BAD = [
    (DURATION, "30 parsecs"),
    (DURATION, "-1"),
    (DURATION, -1),
    (DURATION, True),
    (DURATION, "1e3"),
    (DURATION, math.nan),
    (DURATION, math.inf),
    (DURATION, 10**400),
    (SIZE, 10**400),
    (DURATION, "5KiB"),
    (SIZE, "5s"),
    (SIZE, "0.3"),
    (SIZE, -5),
    (SIZE, 1.5),
    (FLAG, "maybe"),
    (FLAG, 1),
    (NAMES, 5),
    (NAMES, [5]),
    (ADDRESS, "localhost"),
    (ADDRESS, "h:70000"),
    (ADDRESS, "::1:6543"),
    (whole(1, 5), 6),
    (whole(1, 5), "0"),
    (whole(1, 5), True),
    (whole(1, 5), 2.0),
    (choice("a"), "b"),
    (mode_bits(), "999"),
]


@pytest.mark.parametrize(("kind", "written", "expected"), GOOD)
def test_values_are_read_as_people_write_them(kind: Kind, written: object, expected: object) -> None:
    assert kind.read(written) == expected


@pytest.mark.parametrize(("kind", "written"), BAD)
def test_other_values_are_refused(kind: Kind, written: object) -> None:
    with pytest.raises(ValueError):
        kind.read(written)


@given(st.text(), st.sampled_from([kind for kind, _ in BAD]))
def test_any_text_is_read_or_refused(text: str, kind: Kind) -> None:
    try:
        value = kind.read(text)
    except ValueError:
        return
    assert kind.read(kind.show(value)) == value


@given(st.integers(0, 10**7).map(lambda n: n / 1000))
def test_a_duration_survives_being_shown(seconds: float) -> None:
    assert math.isclose(DURATION.read(DURATION.show(seconds)), seconds, abs_tol=1e-6)


@given(st.integers(0, 2**49))
def test_a_size_survives_being_shown(size: int) -> None:
    assert SIZE.read(SIZE.show(size)) == size


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("*", False),
        ("0.0.0.0", False),
        ("db", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, expected: bool) -> None:
    assert Address(host, 1).is_loopback is expected
