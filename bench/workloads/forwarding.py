"""Small statements through each proxy: throughput and CPU per statement, the figures that forwarding is judged by."""

from __future__ import annotations

from bench import processes, rounds
from bench.results import Outcome
from bench.rounds import Load
from bench.suite import Suite

CLIENTS = 16
MODES = ("simple", "extended", "prepared")

CPU_LIMIT = 1.3
THROUGHPUT_LIMIT = 0.85
PROMISED_CLIENTS = 2_000


def select_only(suite: Suite) -> Outcome:
    """pgbench -S with the three protocols."""
    outcome = Outcome(
        "select",
        "pgbench -S",
        f"One SELECT by primary key, {CLIENTS} clients, 20 servers. Unpinned, load generator, Postgres and proxy share the cores "
        "as the kernel likes; pinned, the proxy has a core of its own and the rest share the others, so its throughput shows what "
        "one core of it forwards.",
    )
    running = suite.running(suite.forwarders)
    for mode in MODES if suite.plan.is_thorough else ("simple", "prepared"):
        able = [target for target in running if mode != "prepared" or target.has_statements]
        rounds.measure(suite, outcome, able, Load(["-S", "-M", mode], CLIENTS, f", {mode}"))
    if suite.plan.pin and processes.can_pin():
        # Direct has no core to be alone on.
        proxies = [target for target in running if target.roots]
        for mode in ("simple", "extended"):
            load = Load(["-S", "-M", mode], CLIENTS, f", {mode}, pinned", pinned=True, rounds=suite.plan.few)
            rounds.measure(suite, outcome, proxies, load)
    if not all(target.has_statements for target in running):
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
        f"BEGIN, UPDATE, SELECT, INSERT, END, {CLIENTS} clients, by protocol. Figures are per transaction of five round trips.",
    )
    running = suite.running(suite.forwarders)
    for mode in MODES if suite.plan.is_thorough else ("simple",):
        able = [target for target in running if mode != "prepared" or target.has_statements]
        load = Load(["-N", "-M", mode], CLIENTS, f", {mode}", rounds=suite.plan.few)
        rounds.measure(suite, outcome, able, load)
    for mode in ("simple", "extended"):
        cpu, throughput = (outcome.ratio(f"{what}, {mode}", "us", "PgBouncer") for what in ("CPU", "throughput"))
        outcome.promise(f"CPU per transaction, {mode}", "at most", CPU_LIMIT, "× PgBouncer", cpu)
        outcome.promise(f"throughput, {mode}", "at least", THROUGHPUT_LIMIT, "× PgBouncer", throughput)
    return outcome


def connects(suite: Suite) -> Outcome:
    """pgbench -C: a new connection for each statement."""
    outcome = Outcome(
        "connects",
        "pgbench -C -S",
        f"A new connection for each SELECT, {CLIENTS} clients, no TLS, no password: what a serverless program does, without the distance.",
    )
    rounds.measure(suite, outcome, suite.running(suite.usual), Load(["-C", "-S"], CLIENTS, rounds=1))
    return outcome


def busy(suite: Suite) -> Outcome:
    """Two thousand busy clients on twenty servers."""
    clients = suite.plan.busy_clients
    outcome = Outcome("busy", f"{clients:,} busy clients", f"pgbench -S with {clients:,} clients on 20 servers.")
    able = [target for target in suite.forwarders if target.is_proxy]
    # Each client should get its turn several times.
    seconds = 4.0 if suite.plan.is_thorough else 1.0
    load = Load(["-S"], clients, seconds=seconds, rounds=1, is_settled=True)
    rounds.measure(suite, outcome, suite.running(able), load)
    if outcome.find("throughput", "us") is not None and clients >= PROMISED_CLIENTS:
        errors = outcome.find("errors", "us")
        outcome.promise("errors", "at most", 0, "", errors.samples if errors else [0.0])
    return outcome
