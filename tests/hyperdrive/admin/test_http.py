"""The status page and its neighbours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from fake_state import FakeState
from prometheus_client.parser import text_string_to_metric_families

from hyperdrive.admin.console import Console
from hyperdrive.admin.exposition import add_gauges
from hyperdrive.admin.http import MAX_CONNECTIONS, StatusServer, StatusSite
from hyperdrive.metrics import Registry, Saved, TrafficMetrics


@pytest.fixture
def state() -> FakeState:
    return FakeState()


@pytest.fixture
def metrics() -> TrafficMetrics:
    return TrafficMetrics()


@pytest.fixture
def site(state: FakeState, metrics: TrafficMetrics) -> StatusSite:
    registry = Registry()
    registry.add(metrics)
    add_gauges(registry, state)
    return StatusSite(Console(state), registry)


@pytest.fixture
async def port(site: StatusSite) -> AsyncIterator[int]:
    server = StatusServer(site)
    yield await server.start("127.0.0.1", 0)
    await server.close()


async def exchange(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def get(path: str, *, method: str = "GET", close: bool = True) -> bytes:
    end = "Connection: close\r\n" if close else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{end}\r\n".encode()


async def test_requests_over_one_connection_are_answered_in_order(port: int) -> None:
    answer = await exchange(port, get("/healthz", close=False) + get("/readyz", close=False) + get("/", method="HEAD"))
    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.index(b"ok\n") < answer.index(b"ready\n") < answer.index(b"text/html")
    assert b"<html" not in answer


async def test_requests_do_not_depend_on_how_bytes_arrive(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for byte in get("/healthz"):
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await reader.read()).endswith(b"\r\n\r\nok\n")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000, b"431"),
        (get("/", method="DELETE"), b"405"),
        (b"POST /api/pools HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", b"413"),
        (get("/nowhere"), b"404"),
    ],
)
async def test_other_requests_are_refused(port: int, sent: bytes, status: bytes) -> None:
    assert (await exchange(port, sent)).split(b" ")[1] == status


async def test_connections_have_a_limit(port: int) -> None:
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
    assert await exchange(port, b"") == b""
    for _, writer in held:
        writer.close()
        await writer.wait_closed()


def test_only_names_of_this_machine_are_answered_on_loopback(site: StatusSite) -> None:
    """A page on the Web whose name resolves to 127.0.0.1 must not read this one."""
    hosts = [
        "evil.example",
        "evil.example:6544",
        "127.0.0.1.evil.example",
        "[",
        "127.0.0.1",
        "localhost:6544",
        "[::1]:6544",
    ]
    assert [site.respond("GET", "/healthz", host).status for host in hosts] == [403] * 4 + [200] * 3


def test_elsewhere_any_name_is_answered(state: FakeState) -> None:
    site = StatusSite(Console(state), Registry(), is_local=False)
    assert site.respond("GET", "/healthz", "hyperdrive.internal").status == 200


def test_readiness_says_what_is_missing(site: StatusSite, state: FakeState) -> None:
    assert site.respond("GET", "/readyz", "localhost").status == 200
    state.missing = "the origin does not answer"
    response = site.respond("GET", "/readyz", "localhost")
    assert (response.status, response.body) == (503, b"the origin does not answer\n")
    assert site.respond("GET", "/healthz", "localhost").status == 200


def test_metrics_are_what_prometheus_reads(site: StatusSite, metrics: TrafficMetrics) -> None:
    metrics.queries_bypass += 5
    metrics.origin_round_trips_saved[Saved.ROLLBACK] += 2
    text = site.respond("GET", "/metrics", "localhost").body.decode()
    samples = {(s.name, *s.labels.values()): s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert samples["hyperdrive_queries_total", "bypass"] == 5
    assert samples["hyperdrive_origin_round_trips_saved_total", "rollback"] == 2
    assert samples["hyperdrive_servers", "idle"] == 4
    assert samples["hyperdrive_clients", "waiting"] == 1
    assert samples["hyperdrive_max_wait_seconds",] == 1.25
    assert samples["hyperdrive_ready",] == 1
    assert ("process_resident_memory_bytes",) in samples


def test_every_show_is_there_as_json_but_those_for_admins(site: StatusSite, state: FakeState) -> None:
    views = Console(state).views
    for name, view in views.items():
        response = site.respond("GET", f"/api/{name.lower()}", "localhost")
        assert response.status == (404 if view.admin_only else 200), name
        if not view.admin_only:
            assert all(list(row) == list(view.columns) for row in json.loads(response.body))


def test_the_summary(site: StatusSite) -> None:
    status = json.loads(site.respond("GET", "/api/status?x=1", "localhost").body)
    assert status["ready"] is True
    assert status["pools"][0]["database"] == "shop"
    assert status["stats"][0]["queries"] == 10


def test_the_page_needs_nothing_from_elsewhere(site: StatusSite) -> None:
    page = site.respond("GET", "/", "localhost").body
    assert b"http://" not in page
    assert b"https://" not in page
    assert b"innerHTML" not in page


async def test_an_error_of_ours_is_told_without_details(site: StatusSite, state: FakeState, port: int) -> None:
    state.pools = lambda: 1 / 0  # type: ignore[assignment, return-value]
    answer = await exchange(port, get("/api/pools"))
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"division" not in answer
