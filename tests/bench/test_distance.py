"""Distances by name and number, TLS at the far side, and how many round trips a login takes there."""

from __future__ import annotations

import argparse
import time

import psycopg
import pytest

from bench.distance import PRESETS, Link, Tls, add_arguments, chosen, distance
from bench.origin import with_password
from hyperdrive.localserver import LocalServer

DEFAULT = Link(40.0)


def given(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


CHOICES = [
    pytest.param([], DEFAULT, id="nothing said"),
    pytest.param(["--distance", "5"], Link(5.0), id="milliseconds"),
    pytest.param(["--distance", "same-zone"], PRESETS["same-zone"], id="a preset"),
    pytest.param(["--jitter-ms", "2"], Link(40.0, 2.0), id="jitter alone"),
    pytest.param(["--bandwidth", "12.5"], Link(40.0, bandwidth=12.5e6), id="bandwidth in megabytes"),
]


@pytest.mark.parametrize(("arguments", "link"), CHOICES)
def test_a_distance_is_chosen_by_number_or_name(arguments: list[str], link: Link) -> None:
    assert link == chosen(given(*arguments), DEFAULT)


def test_a_distance_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="'mars' is neither milliseconds nor one of same-zone"):
        chosen(given("--distance", "mars"), DEFAULT)


# TCP, the question for TLS, the handshake, StartupMessage, two for SCRAM, the statement.
LOGINS: list[object] = [
    pytest.param(None, 6, id="without TLS"),
    pytest.param("1.3", 7, id="TLS 1.3"),
    pytest.param("1.2", 8, id="TLS 1.2"),
]


@pytest.mark.parametrize(("tls", "expected"), LOGINS)
def test_a_login_from_afar_costs_what_it_costs(bench_origin: LocalServer, tls: Tls | None, expected: int) -> None:
    with distance(with_password(bench_origin), Link(10.0), tls=tls) as away:
        start = time.perf_counter()
        mode = "require" if tls else "prefer"  # as libpq does by itself: asks, and is told no
        url = away.address.url.replace("sslmode=disable", f"sslmode={mode}")
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute("SELECT name FROM bench_items WHERE id = 7").fetchone() == ("item 7",)
            elapsed = time.perf_counter() - start
        assert away.crossings() == expected
        assert elapsed >= expected * away.round_trip_seconds
