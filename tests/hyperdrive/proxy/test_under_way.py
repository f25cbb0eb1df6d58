"""In the middle of a transaction: a usual scope is one entry of the queue there too, and whatever has to be settled is."""

from __future__ import annotations

from typing import cast

import pytest

from hyperdrive.pgwire import messages as m
from hyperdrive.proxy import lane
from hyperdrive.session import scopes
from hyperdrive.session.server import FAILED, IDLE, IN_TRANSACTION
from tests.hyperdrive.proxy.test_lane import CACHES, SELECT, Wire, World, scope

READ = m.query(SELECT + b"1")
IN_IT = m.READY_IN_TRANSACTION


def whole(reply: bytes) -> list[bytes]:
    return [reply]


def in_transaction(cache: str) -> World:
    """Client 0 has begun one, and server 1 has it."""
    world = World(lane.PYTHON, CACHES[cache])
    world.says(0, m.query(b"BEGIN"))
    world.says(0, READ)
    world.hears(1, whole)
    assert world.servers[1].session.status == IN_TRANSACTION
    world.forget()
    return world


def told(world: World) -> bytes:
    wire = cast("Wire", world.clients[0].transport)
    return b"".join(cast("bytes", data) for name, data in wire.events if name == "write")


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("data", [READ, m.parse(b"", SELECT + b"$1") + scope(b"", b"1")], ids=["simple", "extended"])
async def test_it_is_one_entry(cache: str, data: bytes) -> None:
    world = in_transaction(cache)
    state = world.servers[1].session
    for _ in range(2):
        world.says(0, data)
        assert [True] == [isinstance(entry, scopes.Whole) for entry in state.queue]
        world.hears(1, whole)
        assert told(world).endswith(IN_IT)
        assert not state.queue
        assert world.clients[0].server is world.servers[1]
        world.forget()
    world.says(0, m.query(b"ROLLBACK"))
    world.hears(1, whole)
    assert state.status == IDLE
    assert world.clients[0].server is None


async def test_what_is_out_of_the_ordinary_is_settled() -> None:
    world = in_transaction("none")
    state, session = world.servers[1].session, world.clients[0].session
    error = m.error_response("no", "42P01")
    world.says(0, READ)
    world.hears(1, lambda reply: [reply[:7], reply[7:]])
    assert state.status == IN_TRANSACTION
    world.says(0, READ)
    world.hears(1, lambda reply: [m.parameter_status(b"TimeZone", b"UTC") + reply])
    assert session.told[b"TimeZone"] == b"UTC"
    world.says(0, READ)
    world.hears(1, lambda _: [error + m.READY_FAILED])
    assert state.status == FAILED
    world.says(0, READ)
    world.hears(1, lambda _: [error + m.READY_FAILED])
    world.says(0, m.query(b"ROLLBACK"))
    world.hears(1, lambda _: [m.command_complete(b"ROLLBACK") + m.READY_IDLE])
    assert world.clients[0].server is None
    assert session.live is None


async def test_a_transaction_that_ends_out_of_sight_is_noticed() -> None:
    """A procedure that commits is behind what looks like any other statement to us; the status byte says it."""
    world = in_transaction("none")
    world.says(0, READ)
    world.hears(1, lambda reply: [reply.replace(IN_IT, m.READY_IDLE)])
    assert world.clients[0].session.live is None
    assert world.clients[0].server is None
