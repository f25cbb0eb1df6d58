"""Memory of a proxy per idle client. The clients are asyncpg's, held by a process of their own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bench import pgbench, processes
from bench.actors import ASYNCPG, actor
from bench.machine import raise_descriptor_limit
from bench.results import Outcome
from bench.suite import Suite
from bench.targets import US, Running

LIMIT_KIB = 4.0
PROMISED_CLIENTS = 10_000
SETTLE_SECONDS = 1.0
OTHERS = 3_000


def idle(suite: Suite) -> Outcome:
    """Resident memory before and with many idle clients."""
    limit = raise_descriptor_limit()
    clients = min(suite.plan.idle_clients, limit - 500)
    outcome = Outcome(
        "idle",
        f"{clients:,} idle clients",
        "Each client logged in by asyncpg, ran one statement and waits. Resident memory of the proxy before and after, divided; buffers "
        "of the kernel are not in it.",
    )
    if clients < suite.plan.idle_clients:
        outcome.skipped.append(
            f"{suite.plan.idle_clients:,} clients: this session may open {limit:,} files (ulimit -n)"
        )
    for target in suite.forwarders:
        if not target.is_proxy:
            continue
        suite.live.where = f"{outcome.title}, {target.name}"
        # Started for it: what others left behind in memory would be free for these clients.
        with suite.alone(target, suite.address) as running:
            if running is not None:
                # Memory for each is what is compared, and others need fewer of them to show it.
                _measure(suite, outcome, running, clients if target.name == US else min(clients, OTHERS))
    suite.live.where = ""
    found = outcome.find("memory per idle client", "us")
    outcome.promise("memory per idle client", "at most", LIMIT_KIB, "KiB", found.samples if found else [])
    held = outcome.find("clients held", "us")
    if suite.plan.idle_clients >= PROMISED_CLIENTS:
        outcome.promise("clients held", "at least", PROMISED_CLIENTS, "", held.samples if held else [])
    return outcome


def _measure(suite: Suite, outcome: Outcome, target: Running, clients: int) -> None:
    # What the first clients cause (pool, caches, allocator) is not what the next ten thousand cost.
    pgbench.run(target, ["-S"], seconds=1, clients=32)
    before = processes.resident_bytes(target.roots)

    def progress(message: Mapping[str, Any]) -> None:
        suite.live.now(f"{message['held']:,} held, {message['failed']} failed")

    with actor(ASYNCPG, target) as asked:
        found = asked.ask(f"hold {clients}", progress)
        time.sleep(SETTLE_SECONDS)
        after = processes.resident_bytes(target.roots)
    held = int(found["held"])
    outcome.add("memory per idle client", target.name, "KiB", (after - before) / 1024 / max(1, held))
    outcome.add("memory before", target.name, "MiB", before / 2**20)
    outcome.add("memory with clients", target.name, "MiB", after / 2**20)
    outcome.add("clients held", target.name, "", float(held))
    outcome.add("logins", target.name, "1/s", held / float(found["seconds"]))
