"""Memory of a proxy per idle client. The clients are held by a process of their own: ``python -m bench.workloads.idle``."""

from __future__ import annotations

import argparse
import asyncio
import struct
import subprocess
import sys
import time
from typing import cast

from bench import pgbench, processes
from bench.machine import ROOT, raise_descriptor_limit
from bench.results import Outcome
from bench.suite import Suite
from bench.targets import DATABASE, USER, Running

LIMIT_KIB = 4.0
AT_ONCE = 200
SETTLE_SECONDS = 1.0


def idle(suite: Suite) -> Outcome:
    """Resident memory before and with many idle clients."""
    limit = raise_descriptor_limit()
    clients = min(suite.plan.idle_clients, limit - 500)
    outcome = Outcome(
        "idle",
        f"{clients:,} idle clients",
        "Each client logged in, ran one statement and waits. Resident memory of the proxy before and after, divided; buffers of the "
        "kernel are not in it.",
    )
    if clients < suite.plan.idle_clients:
        outcome.skipped.append(
            f"{suite.plan.idle_clients:,} clients: this session may open {limit:,} files (ulimit -n)"
        )
    for target in suite.forwarders:
        if not target.is_proxy:
            continue
        suite.live.where = f"{outcome.title}, {target.name}"
        with target.start(suite.address) as running:
            _measure(suite, outcome, running, clients)
    suite.live.where = ""
    found = outcome.find("memory per idle client", "us")
    outcome.promise("memory per idle client", "at most", LIMIT_KIB, "KiB", found.samples if found else [])
    held = outcome.find("clients held", "us")
    outcome.promise("clients held", "at least", clients, "", held.samples if held else [])
    return outcome


def _measure(suite: Suite, outcome: Outcome, target: Running, clients: int) -> None:
    # What the first clients cause (pool, caches, allocator) is not what the next ten thousand cost.
    pgbench.run(target, ["-S"], seconds=1, clients=32)
    before = processes.resident_bytes(target.roots)
    command = [sys.executable, "-m", "bench.workloads.idle", target.host, f"{target.port}", f"{clients}"]
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin is not None and process.stdout is not None
    held = failed = 0
    try:
        for line in process.stdout:
            held, failed = map(int, line.split())
            suite.live.now(f"{held:,} held, {failed} failed")
            if held + failed >= clients:
                break
        seconds = time.monotonic() - started
        time.sleep(SETTLE_SECONDS)
        after = processes.resident_bytes(target.roots)
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()
    outcome.add("memory per idle client", target.name, "KiB", (after - before) / 1024 / max(1, held))
    outcome.add("memory before", target.name, "MiB", before / 2**20)
    outcome.add("memory with clients", target.name, "MiB", after / 2**20)
    outcome.add("clients held", target.name, "", float(held))
    outcome.add("logins", target.name, "1/s", held / seconds)


class _Client(asyncio.Protocol):
    """Logs in, runs one statement, and waits."""

    def __init__(self, done: asyncio.Future[bool]) -> None:
        self._done = done
        self._is_asked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        body = b"\0\x03\0\0" + b"user\0%s\0database\0%s\0\0" % (USER.encode(), DATABASE.encode())
        self._transport.write(struct.pack("!I", len(body) + 4) + body)

    def data_received(self, data: bytes) -> None:
        if not data.endswith(b"Z\0\0\0\5I"):
            return
        if not self._is_asked:
            self._is_asked = True
            self._transport.write(b"Q\0\0\0\x0dSELECT 1\0")
        elif not self._done.done():
            self._done.set_result(True)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(False)


async def _hold(host: str, port: int, clients: int) -> None:
    loop = asyncio.get_running_loop()
    held = failed = 0
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        nonlocal held, failed
        async with gate:
            done: asyncio.Future[bool] = loop.create_future()
            try:
                await loop.create_connection(lambda: _Client(done), host, port)
                succeeded = await asyncio.wait_for(done, 60)
            except OSError:
                succeeded = False
            if succeeded:
                held += 1
            else:
                failed += 1
            if (held + failed) % 250 == 0 or held + failed == clients:
                print(held, failed, flush=True)

    await asyncio.gather(*(one() for _ in range(clients)))
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("clients", type=int)
    options = parser.parse_args()
    raise_descriptor_limit()
    uvloop.run(_hold(options.host, options.port, options.clients))
