"""A fault of our own, wherever it is, ends the client that met it with XX000, and nobody else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from hyperdrive.pool.pool import Pool
from hyperdrive.proxy.guard import watch_loop
from hyperdrive.proxy.metrics import ProxyMetrics
from hyperdrive.proxy.reads import Reader
from hyperdrive.session.client import ClientSession
from hyperdrive.session.handshake import ClientHandshake
from hyperdrive.session.server import ServerSession
from hyperdrive.tasks import spawn
from hyperdrive.testing.frontend import extended, sync
from hyperdrive.testing.postgres import Postgres
from hyperdrive.testing.proxy import RunningProxy, running_proxy
from hyperdrive.testing.scene import eventually
from hyperdrive.testing.wire import LoginFailed, WireConnection, connect

BOOM = b"boom"


class Seeded:
    """Makes a method raise while it is armed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, when: Callable[..., bool]) -> None:
        self.armed = False
        self.raised = 0
        real = getattr(owner, name)

        def method(this: Any, *args: Any, **kwargs: Any) -> Any:
            if self.armed and when(this, *args):
                self.raised += 1
                raise KeyError("seeded")
            return real(this, *args, **kwargs)

        monkeypatch.setattr(owner, name, method)


def _always(this: Any, *args: Any) -> bool:
    return True


def _holds_boom(this: Any, data: bytes, *args: Any) -> bool:
    return BOOM in data


PLACES = {
    "cutting what a client sent": (ClientSession, "receive", _holds_boom),
    "composing": (ClientSession, "compose", _always),
    "reading a reply": (ServerSession, "receive", _holds_boom),
    "at the end of a transaction": (ClientSession, "settle", _always),
}


async def _meets_the_fault(conn: WireConnection) -> str:
    """Run into the fault; the id that the client is told."""
    conn.send(extended("do $$ begin raise notice 'boom'; end $$") + sync())
    replies = await conn.read_to_end()
    error = replies[-1].error
    assert error["S"] == "FATAL"
    assert error["C"] == "XX000"
    found = re.fullmatch(r"internal error of the proxy \(id ([0-9a-f]{8})\)", error["M"])
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("place", "in_transaction"),
    [
        (place, inside)
        for place in PLACES
        for inside in (False, True)
        if inside or place != "at the end of a transaction"  # a statement alone has nothing to settle
    ],
)
async def test_a_fault_ends_its_client_and_its_server(
    pg18: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
    in_transaction: bool,
) -> None:
    seeded = Seeded(monkeypatch, *PLACES[place])
    async with (
        running_proxy(pg18.app_url, pool_size=1, cache="on") as proxy,
        await connect(proxy.url) as victim,
        await connect(proxy.url) as other,
    ):
        pid = await victim.value("select pg_backend_pid()")
        if in_transaction:
            await victim.query("begin")
            await victim.query("select txid_current()")
        seeded.armed = True
        number = await _meets_the_fault(victim)
        seeded.armed = False
        assert seeded.raised >= 1
        assert proxy.metrics.internal_errors == {"client": 1}
        logged = [record for record in caplog.records if number in record.getMessage()]
        assert logged and any(record.exc_info for record in logged)
        # Whether the server was at work or not: a new one, without the transaction, for whoever comes next.
        after = await other.value("select pg_backend_pid()")
        assert (after == pid) == (place == "cutting what a client sent" and not in_transaction)
        assert (await other.query("select txid_current()")).errors == []
        await _is_at_peace(proxy, clients=1)


async def _is_at_peace(proxy: RunningProxy, *, clients: int) -> None:
    def claim() -> bool:
        pools = [pool.snapshot() for pool in proxy.pools.of(None)]
        return len(proxy.app.proxy.clients) == clients and all(pool.sv_active == pool.cl_waiting == 0 for pool in pools)

    await eventually(claim)


async def test_a_fault_while_a_server_is_handed_over(pg18: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waited is told; the next in the queue is served."""
    seeded = Seeded(
        monkeypatch, ClientSession, "compose", lambda this, *args: b"boom" in b"".join(o[1] for o in this.ops)
    )
    async with (
        running_proxy(pg18.app_url, pool_size=1) as proxy,
        await connect(proxy.url) as holder,
        await connect(proxy.url) as victim,
        await connect(proxy.url) as patient,
    ):
        await holder.query("begin")
        await holder.query("select 1")
        seeded.armed = True
        meets = asyncio.ensure_future(_meets_the_fault(victim))
        await eventually(lambda: proxy.pools.of(None)[0].waiting == 1)
        gets = asyncio.ensure_future(patient.value("select 'served'"))
        await eventually(lambda: proxy.pools.of(None)[0].waiting == 2)
        await holder.query("commit")
        assert await gets == "served"
        await meets
        await _is_at_peace(proxy, clients=2)


async def test_a_fault_of_the_cache_concerns_the_reader_alone(pg18: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = Seeded(monkeypatch, Reader, "glance", _holds_boom)
    async with (
        running_proxy(pg18.app_url, pool_size=1, cache="on") as proxy,
        await connect(proxy.url) as victim,
        await connect(proxy.url) as other,
    ):
        seeded.armed = True
        await _meets_the_fault(victim)
        assert await other.value("select 'fine'") == "fine"
        await _is_at_peace(proxy, clients=1)


@pytest.mark.parametrize("place", ["_carry_out", "_look_up", "_admit"])
async def test_a_fault_at_the_door(pg18: Postgres, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Nobody gets in by it, and nobody has to wait for the login's deadline to hear of it."""
    async with running_proxy(pg18.app_url, pool_size=1) as proxy, await connect(proxy.url) as other:
        owner, name = {
            "_carry_out": (ClientHandshake, "receive"),
            "_look_up": (type(proxy.app.proxy.directory), "look_up_nowait"),
            "_admit": (type(proxy.app.proxy), "context"),
        }[place]
        seeded = Seeded(monkeypatch, owner, name, _always)
        seeded.armed = True
        with pytest.raises(LoginFailed) as caught:
            await connect(proxy.url)
        seeded.armed = False
        assert caught.value.replies.errors == ["XX000"]
        assert proxy.metrics.internal_errors == {"login": 1}
        assert not proxy.app.proxy.doors
        assert await other.value("select 'fine'") == "fine"


async def test_a_fault_in_a_fault_still_ends_both(pg18: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    compose = Seeded(monkeypatch, ClientSession, "compose", _always)
    discard = Seeded(monkeypatch, Pool, "discard", _always)
    async with running_proxy(pg18.app_url, pool_size=2) as proxy, await connect(proxy.url) as victim:
        await victim.query("begin")
        await victim.query("select 1")
        server = next(iter(proxy.app.proxy.clients.values())).server
        assert server is not None
        compose.armed = discard.armed = True
        await _meets_the_fault(victim)
        compose.armed = discard.armed = False
        assert server.transport.is_closing()
        async with await connect(proxy.url) as other:
            assert await other.value("select 'fine'") == "fine"


async def test_tasks_and_callbacks_that_nobody_guards_are_counted() -> None:
    from hyperdrive import tasks

    async def fails() -> None:
        raise KeyError("seeded")

    def callback() -> None:
        raise KeyError("seeded")

    metrics, before = ProxyMetrics(), tasks.metrics.failed
    loop = asyncio.get_running_loop()
    watch_loop(loop, metrics)
    try:
        loop.call_soon(callback)
        await asyncio.wait([spawn(fails(), name="fails")])
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(None)
    assert tasks.metrics.failed == before + 1
    assert metrics.internal_errors == {"loop": 1}


async def test_faults_can_be_seen_from_outside(pg18: Postgres) -> None:
    async with running_proxy(pg18.app_url) as proxy:
        proxy.metrics.internal_errors["client"] += 1
        found = next(f for f in proxy.app.control.families() if f.name == "hyperdrive_internal_errors_total")
        assert found.samples[(("where", "client"),)] == 1
        assert (("where", "task"),) in found.samples
