"""The origin that the bench's tests share: it asks for no password but of one user, and has the tables of the workloads."""

from __future__ import annotations

import pytest

from bench.origin import prepare
from hyperdrive.localserver import LocalServer
from hyperdrive.testing.postgres import PostgresFarm

_made: dict[int, LocalServer] = {}


@pytest.fixture
def bench_origin(farm: PostgresFarm) -> LocalServer:
    """One for the session; tests leave its rows as they were or look at differences only."""
    if id(farm) not in _made:
        server = farm.make(18, auth="trust")
        farm.keep(server)
        prepare(server)
        _made[id(farm)] = server
    return _made[id(farm)]
