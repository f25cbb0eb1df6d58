"""Small statements through each proxy: throughput and CPU per statement, the figures that forwarding is judged by."""

from __future__ import annotations

from bench import processes
from bench.results import Outcome
from bench.suite import Suite

CLIENTS = 16
MODES = ("simple", "extended", "prepared")

CPU_LIMIT = 1.3
THROUGHPUT_LIMIT = 0.85


def select_only(suite: Suite) -> Outcome:
    """pgbench -S with the three protocols."""
    outcome = Outcome(
        "select",
        "pgbench -S",
        f"One SELECT by primary key, {CLIENTS} clients, 20 servers. Unpinned, load generator, Postgres and proxy share the cores "
        "as the kernel likes; pinned, the proxy has a core of its own and the rest share the others, so its throughput shows what "
        "one core of it forwards. Direct, pinned, has the load's cores only.",
    )
    with suite.running(suite.targets) as running:
        for pinned in (False, True) if suite.plan.pin and processes.can_pin() else (False,):
            for mode in MODES:
                able = running
                if mode == "prepared":
                    able = [t for t in running if t.traits.get("statements") != "no"]
                label = f", {mode}{', pinned' if pinned else ''}"
                suite.measure(outcome, able, ["-S", "-M", mode], clients=CLIENTS, label=label, pinned=pinned)
    if any(t.traits.get("statements") == "no" for t in running):
        outcome.skipped.append("PgBouncer with prepared statements: needs 1.21 or later")
    if suite.plan.pin and not processes.can_pin():
        outcome.skipped.append("pinned: needs two cores and an operating system that pins processes")
    for suffix in ("", ", pinned"):
        _promise(outcome, suffix)
    return outcome


def _promise(outcome: Outcome, suffix: str) -> None:
    for mode in ("simple", "extended"):
        label = f", {mode}{suffix}"
        outcome.promise(
            f"CPU per query{label}",
            "at most",
            CPU_LIMIT,
            "× PgBouncer",
            outcome.ratio(f"CPU{label}", "us", "PgBouncer"),
        )
        outcome.promise(
            f"throughput{label}",
            "at least",
            THROUGHPUT_LIMIT,
            "× PgBouncer",
            outcome.ratio(f"throughput{label}", "us", "PgBouncer"),
        )
    ratio = outcome.ratio(
        f"throughput, prepared{suffix}", "us", "PgBouncer", under_metric=f"throughput, extended{suffix}"
    )
    outcome.promise(f"throughput, prepared{suffix}", "at least", 1.0, "× PgBouncer's extended", ratio)


def updates(suite: Suite) -> Outcome:
    """pgbench -N: a transaction of five statements with two writes."""
    outcome = Outcome(
        "updates",
        "pgbench -N",
        f"BEGIN, UPDATE, SELECT, INSERT, END in simple queries, {CLIENTS} clients. Figures are per transaction of five round trips.",
    )
    with suite.running(suite.targets) as running:
        suite.measure(outcome, running, ["-N", "-M", "simple"], clients=CLIENTS)
    outcome.promise("CPU per transaction", "at most", CPU_LIMIT, "× PgBouncer", outcome.ratio("CPU", "us", "PgBouncer"))
    outcome.promise(
        "throughput", "at least", THROUGHPUT_LIMIT, "× PgBouncer", outcome.ratio("throughput", "us", "PgBouncer")
    )
    return outcome


def connects(suite: Suite) -> Outcome:
    """pgbench -C: a new connection for each statement."""
    outcome = Outcome(
        "connects",
        "pgbench -C -S",
        f"A new connection for each SELECT, {CLIENTS} clients, no TLS, no password: what a serverless program does, without the distance.",
    )
    with suite.running(suite.targets) as running:
        suite.measure(outcome, running, ["-C", "-S"], clients=CLIENTS)
    return outcome


def busy(suite: Suite) -> Outcome:
    """Two thousand busy clients on twenty servers."""
    clients = suite.plan.busy_clients
    outcome = Outcome("busy", f"{clients:,} busy clients", f"pgbench -S with {clients:,} clients on 20 servers.")
    with suite.running(suite.proxies) as running:
        # Each client should get its turn several times.
        suite.measure(
            outcome, running, ["-S"], clients=clients, seconds=max(5.0, suite.plan.seconds), rounds=1, warm=True
        )
    if outcome.find("throughput", "us") is not None:
        errors = outcome.find("errors", "us")
        outcome.promise("errors", "at most", 0, "", errors.samples if errors else [0.0])
    return outcome
