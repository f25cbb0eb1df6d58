"""The parts that measure: processes, pgbench's words, the responder, the operations over a distance."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import pgbench, processes, profile, round_trips
from bench.distance import Link
from bench.live import Live
from bench.operations import OPERATIONS
from bench.results import quantiles
from bench.suite import QUICK, Suite
from bench.targets import Address, Direct, Floor, Missing, PgBouncer, Running
from bench.workloads.workers import responder
from hyperdrive.localserver import LocalServer
from hyperdrive.pgwire import messages as m

SPIN = "import time, sys\nwhile time.process_time() < 0.3: pass\nprint('spun', flush=True)\nsys.stdin.read()"


@contextlib.contextmanager
def spinning() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdout.readline()
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def test_cpu_is_what_the_process_used_and_not_the_time_that_passed() -> None:
    with spinning() as process:
        first = processes.cpu_seconds([process.pid])
        assert 0.25 <= first <= 0.6
        assert processes.user_seconds([process.pid]) <= first
        assert processes.cpu_by_process([process.pid]).keys() == {process.pid}
        assert processes.resident_bytes([process.pid]) > 1 << 20


def test_a_process_that_is_gone_used_nothing() -> None:
    with spinning() as process:
        pass
    assert processes.cpu_seconds([process.pid]) == 0.0


@pytest.mark.skipif(not processes.can_pin(), reason="needs two cores")
def test_pinned_sets_the_proxy_apart_and_gives_everything_back() -> None:
    everything = processes.cores()
    with spinning() as process:
        with processes.pinned([process.pid], []):
            assert sorted(os.sched_getaffinity(process.pid)) == everything[-1:]
            assert processes.cores() == everything[:-1]
        assert sorted(os.sched_getaffinity(process.pid)) == processes.cores() == everything


def test_quantiles_are_those_of_the_values() -> None:
    assert quantiles([float(n) for n in range(1000)], 4) == [125.0, 375.0, 625.0, 875.0]
    assert quantiles([]) == []


def test_a_program_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    target = PgBouncer()
    monkeypatch.setattr(target, "program", None)
    with pytest.raises(Missing, match="apt-get install pgbouncer"):
        target.version()


def test_pgbench_through_a_proxy_in_front_of_the_responder(tmp_path: Path) -> None:
    """The whole chain that workers are measured with: transactions count, latencies are sampled, CPU is the proxy's."""
    script = tmp_path / "one.sql"
    script.write_text("SELECT 1;")
    seen: list[float] = []
    with responder() as port, Floor().start(Address(port)) as target:
        before = processes.cpu_seconds(target.roots)
        report = pgbench.run(
            target, ["-f", str(script)], seconds=2, clients=4, on_progress=lambda at, tps: seen.append(tps)
        )
        assert processes.cpu_seconds(target.roots) > before
    assert report.transactions > 100
    assert report.failed == 0
    assert 0 < report.percentile(0.5) <= report.percentile(0.99)
    assert seen


def test_an_error_of_pgbench_is_told_in_its_own_words() -> None:
    with pytest.raises(pgbench.PgbenchFailed, match="failed"):
        pgbench.run(Running("nobody", 1), ["-S"], seconds=1, clients=1)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in profile.cases()])
async def test_the_path_that_is_timed_is_the_real_one(case: profile.Case) -> None:
    """Whatever the canned replies are, each turn ends with the server back in the pool and nothing owed."""
    scene = profile.prepared(case)
    for turn in scene.turns[:3]:
        for exchange in turn:
            scene.to_origin.written = None
            scene.play(exchange)
            assert bool(exchange.answered) == (scene.to_origin.written is not None)
        assert scene.client.server is None
        assert not scene.server.session.queue
        assert scene.server.session.is_clean


async def test_costs_are_positive_and_the_best_is_not_above_the_median() -> None:
    cost = profile.measure(profile.cases()[0], 200)
    assert 0 < cost.best_us <= cost.median_us


async def test_the_responder_speaks_enough_to_log_in_and_to_be_asked() -> None:
    with responder() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b"\0\x03\0\0user\0a\0\0"
        writer.write((len(body) + 4).to_bytes(4, "big") + body)
        assert (await reader.readuntil(m.READY_IDLE)).startswith(m.AUTHENTICATION_OK)
        writer.write(m.query(b"SET a = b") + m.query(b"SELECT 1;"))
        assert await reader.readuntil(m.READY_IDLE) == m.command_complete(b"SET") + m.READY_IDLE
        assert (await reader.readuntil(m.READY_IDLE)).endswith(m.command_complete(b"SELECT 1") + m.READY_IDLE)
        writer.close()
        await writer.wait_closed()


def test_round_trips_are_counted_over_the_distance(bench_origin: LocalServer) -> None:
    """Direct, psycopg needs four: TCP, the question for TLS, start-up, the query."""
    operation = OPERATIONS[0]
    suite = Suite(replace(QUICK, trips_link=Link(10.0)), Live(io.StringIO()), bench_origin, [Direct()])
    outcome = round_trips.measure(suite, [operation])
    counted = outcome.find(f"{operation.name}: counted", "direct")
    elapsed = outcome.find(f"{operation.name}: elapsed", "direct")
    assert counted is not None
    assert elapsed is not None
    assert counted.samples == [4.0]
    assert elapsed.samples[0] >= 4.0
