"""Large results through each target: megabytes per second, and the proxy's CPU for them.

The client is psycopg in a process of its own: ``python -m bench.workloads.bulk``. COPY is read in pieces, so the driver does not
build rows and the proxy has to keep up with Postgres.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from bench import processes
from bench.machine import ROOT
from bench.results import Outcome
from bench.suite import Suite
from bench.targets import Running

ROWS = 50_000
SQL = f"COPY (SELECT repeat('x', 1000) FROM generate_series(1, {ROWS})) TO STDOUT"


def bulk(suite: Suite) -> Outcome:
    """COPY TO of 50 MB, again and again, by one client."""
    outcome = Outcome(
        "bulk", "large results", f"COPY TO STDOUT of {ROWS * 1001 / 1e6:.0f} MB, read by one psycopg client."
    )
    for _, target in suite.interleaved(
        outcome, suite.running(suite.usual if suite.plan.is_thorough else suite.forwarders), suite.plan.few
    ):
        _round(suite, outcome, target)
    ratio = outcome.ratio("throughput", "us", "PgBouncer")
    outcome.promise("throughput of large results", "at least", 0.85, "× PgBouncer", ratio)
    return outcome


def _round(suite: Suite, outcome: Outcome, target: Running) -> None:
    before = processes.cpu_seconds(target.roots)
    seconds = max(1.0, suite.plan.seconds / 2)
    command = [sys.executable, "-m", "bench.workloads.bulk", target.dsn, f"{seconds}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    size, taken = 0, 1.0
    with process.stdout as lines:
        for line in lines:
            size, taken = json.loads(line)
            suite.live.now(f"{size / taken / 1e6:,.0f} MB/s")
    if process.wait():
        raise RuntimeError(f"the client of {target.name} failed")
    used = processes.cpu_seconds(target.roots) - before
    outcome.add("throughput", target.name, "MB/s", size / taken / 1e6)
    if target.roots:
        outcome.add("CPU per MB", target.name, "µs", used / (size / 1e6) * 1e6)
        outcome.add("memory", target.name, "MiB", processes.resident_bytes(target.roots) / 2**20)


def _read(dsn: str, seconds: float) -> None:
    import psycopg

    size, start = 0, time.monotonic()
    with psycopg.connect(dsn, autocommit=True, sslmode="disable") as connection:
        while (taken := time.monotonic() - start) < seconds or not size:
            with connection.cursor().copy(SQL) as copy:
                for piece in copy:
                    size += len(piece)
            taken = time.monotonic() - start
            print(json.dumps([size, taken]), flush=True)


if __name__ == "__main__":
    _read(sys.argv[1], float(sys.argv[2]))
