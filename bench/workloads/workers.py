"""What a second worker brings, measured so that two cores are enough to say it.

With two workers busy, a load generator and Postgres, two cores are four short, and throughput would measure the scheduler. So the
origin is a responder that answers every Query from memory (``bench.responder``), and the figure is what the workers could do with a
core each, from CPU that the operating system counted: one worker forwards 1 / (CPU per query) per second; of two, the one that got
the larger share of the clients is full first, so together they forward 1 / (CPU per query) / (its share). That shows what sharing
the port costs and how evenly the kernel spreads clients. It does not show contention for memory bandwidth.

Where four cores are free, throughput is measured as well, with a core for each worker.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import pgbench, processes
from bench.machine import ROOT
from bench.results import Outcome
from bench.suite import Suite
from bench.targets import Address, Running, Us, end

CLIENTS = 200
"""Enough that the kernel spreads them about evenly: with 64 the larger half is often 60 %."""
GOAL = 1.6


@contextmanager
def responder() -> Iterator[int]:
    """The responder as a process; yields its port."""
    command = [sys.executable, "-m", "bench.responder"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        end(process)
        process.stdout.close()


def workers(suite: Suite) -> Outcome:
    """One worker and two, in front of the responder."""
    about = (__doc__ or "").partition("\n\n")[2].replace("\n", " ")
    outcome = Outcome("workers", "two workers", about)
    with ExitStack() as stack:
        origin_port = stack.enter_context(responder())
        script = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))) / "one.sql"
        script.write_text("SELECT 1;\n")
        # Started once: clients connect anew in each round, so the kernel deals them out anew too.
        suite.live.now("starting one worker, and two")
        running = _started(stack, origin_port)
        for target in running.values():
            pgbench.run(target, ["-f", str(script)], seconds=1, clients=CLIENTS)
        for number in range(suite.plan.few):
            for count, target in running.items():
                suite.live.where = f"{outcome.title}, {count}, round {number + 1}/{suite.plan.few}"
                suite.live.now("…")
                if not _round(suite, outcome, target, script, count):
                    outcome.skipped.append("--workers 2 started one process only: nothing to compare")
                    suite.live.where = ""
                    return outcome
    suite.live.where = ""
    outcome.promise(
        "capacity of two workers", "at least", GOAL, "× one", outcome.ratio("capacity", "us, 2 workers", "us, 1 worker")
    )
    return outcome


def _started(stack: ExitStack, origin_port: int) -> dict[int, Running]:
    """One worker and two in front of the responder, started side by side; *stack* ends them."""

    def begin(count: int) -> tuple[ExitStack, Running]:
        with ExitStack() as own:
            running = own.enter_context(Us().start(Address(origin_port), workers=count, pool_size=CLIENTS))
            return own.pop_all(), running

    with ThreadPoolExecutor(2) as pool:
        starting = {count: pool.submit(begin, count) for count in (1, 2)}
    for started in starting.values():
        if started.exception() is None:
            stack.push(started.result()[0])
    return {count: started.result()[1] for count, started in starting.items()}


def _round(suite: Suite, outcome: Outcome, running: Running, script: Path, count: int) -> bool:
    name = f"us, {count} worker{'s' if count > 1 else ''}"
    before = processes.cpu_by_process(running.roots)
    report = pgbench.run(
        running,
        ["-f", str(script)],
        seconds=2.0 if suite.plan.is_thorough else 1.0,
        clients=CLIENTS,
        on_progress=lambda at, tps: suite.live.now(f"{at:.0f} s  {tps:,.0f}/s"),
    )
    after = processes.cpu_by_process(running.roots)
    used = sorted((after[pid] - before.get(pid, 0.0) for pid in after), reverse=True)
    busy = [seconds for seconds in used if seconds > 0.02 * sum(used)]
    if count > 1 and len(after) < count:
        return False
    cpu = sum(used) / max(1, report.transactions)
    share = max(busy) / sum(used)
    outcome.add("throughput", name, "1/s", report.tps)
    outcome.add("CPU per query", name, "µs", cpu * 1e6)
    outcome.add("share of the busiest", name, "", share)
    outcome.add("capacity", name, "1/s", 1 / cpu / share)
    return True
