"""What web programs do, by pgbench's own scripts: reads with hot keys, single writes, transactions that write; near and far."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.origin import ITEMS
from bench.results import Outcome
from bench.suite import Suite

CLIENTS = 16
ZIPF = 1.1
"""Of all reads, a third is of ten keys of ten thousand."""

READ = f"\\set id random_zipfian(1, {ITEMS}, {ZIPF})\nSELECT name, price FROM bench_items WHERE id = :id;\n"
WRITE = f"\\set id random(1, {ITEMS})\nUPDATE bench_items SET price = price + 1 WHERE id = :id;\n"
TRANSACTION = (
    f"\\set id random(1, {ITEMS})\nBEGIN;\nUPDATE bench_items SET price = price + 1 WHERE id = :id;\n"
    "INSERT INTO bench_log (item) VALUES (:id);\nCOMMIT;\n"
)


@contextmanager
def scripts(*texts: str) -> Iterator[list[str]]:
    """Files for pgbench with these scripts."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        paths = []
        for number, text in enumerate(texts):
            path = Path(name) / f"{number}.sql"
            path.write_text(text)
            paths.append(str(path))
        yield paths


def _near_and_far(suite: Suite, outcome: Outcome, variants: Mapping[str, Sequence[str]]) -> None:
    """Each variant of pgbench's arguments, on this machine and over the distance."""
    rounds = min(2, suite.plan.rounds)
    with suite.running(suite.targets) as running:
        for label, arguments in variants.items():
            suite.measure(outcome, running, arguments, clients=CLIENTS, label=f"{label}, near", rounds=rounds)
    with suite.far(tls=None) as away, suite.running(suite.targets, away.address) as running:
        for label, arguments in variants.items():
            suite.measure(
                outcome,
                running,
                arguments,
                clients=CLIENTS,
                label=f"{label}, far",
                seconds=max(2.0, suite.plan.seconds),
                rounds=rounds,
                warm=True,
            )


def mix(suite: Suite) -> Outcome:
    """Four reads to one write."""
    outcome = Outcome(
        "mix",
        "web mix",
        f"80 % reads of one row, keys by Zipf ({ZIPF}) over {ITEMS:,} rows, 20 % updates of random rows; {CLIENTS} clients of pgbench. "
        f"Near: everything on this machine. Far: the origin at {suite.plan.link}.",
    )
    with scripts(READ, WRITE) as (read, write):
        files = ["-f", f"{read}@8", "-f", f"{write}@2"]
        _near_and_far(suite, outcome, {", simple": files, ", extended": ["-M", "extended", *files]})
    return outcome


def writes(suite: Suite) -> Outcome:
    """Writes by themselves, and in transactions."""
    outcome = Outcome(
        "writes",
        "writes",
        f"An UPDATE of one row by itself; BEGIN, UPDATE, INSERT, COMMIT. {CLIENTS} clients of pgbench, simple protocol; near and far as "
        "above. CPU is per transaction.",
    )
    with scripts(WRITE, TRANSACTION) as (write, transaction):
        _near_and_far(suite, outcome, {", single": ["-f", write], ", in transactions": ["-f", transaction]})
    return outcome


def scale(suite: Suite) -> Outcome:
    """Throughput and CPU by number of clients."""
    outcome = Outcome(
        "scale",
        "scale with clients",
        "pgbench -S, simple protocol, from one client to hundreds on 20 servers. The origin allows 200 connections.",
    )
    counts = (1, 16, 256) if suite.plan.rounds == 1 else (1, 4, 16, 64, 256, 1024)
    with suite.running(suite.targets) as running:
        for clients in counts:
            able = [target for target in running if clients < 200 or target.name != "direct"]
            suite.measure(
                outcome,
                able,
                ["-S"],
                clients=clients,
                label=f", {clients} client{'s' if clients > 1 else ''}",
                seconds=max(1.0, suite.plan.seconds / 2),
                rounds=1 if suite.plan.rounds == 1 else 2,
                warm=clients > 100,
            )
    return outcome
