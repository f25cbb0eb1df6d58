"""Hints are read from comments only, and never make anything fail."""

from __future__ import annotations

import pytest

from hyperdrive.sql.hints import Hints, read_hints

HINTS = [
    (b"select 1", None),
    (b"/* hyperdrive: max_age=30 swr=10 tag=products */ select 1", Hints(30.0, 10.0, None, ("products",))),
    (b"select 1 -- hyperdrive: cache=off\n", Hints(cache=False)),
    (b"select /* HYPERDRIVE: max_age=500ms tag=a,b */ 1 /* hyperdrive: tag=c cache=on max_age=2min */", Hints(120.0, None, True, ("a", "b", "c"))),
    (b"select '/* hyperdrive: cache=off */'", None),
    (b'select "-- hyperdrive: cache=off"', None),
    (b"select $$/* hyperdrive: cache=off */$$", None),
    (b"select 1 /* not hyperdrive: cache=off */", None),
    (b"select 1 /* hyperdrive: */", None),
    (b"/* hyperdrive: max_age=-1 swr=x cache=maybe what tag= */ select 1", Hints(problems=("max_age=-1", "swr=x", "cache=maybe", "what", "tag="))),
    (b"select 'open /* hyperdrive: cache=off */", None),
    (b"select 1 /* hyperdrive: stale_while_revalidate=1h */ \xff", Hints(None, 3600.0)),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), HINTS)
def test_hints(sql: bytes, expected: Hints | None) -> None:
    assert expected == read_hints(sql)
