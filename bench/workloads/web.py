"""What web programs do, by pgbench's own scripts: reads with hot keys, single writes, transactions that write; near and far."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import rounds
from bench.origin import ITEMS
from bench.results import Outcome
from bench.rounds import Load
from bench.suite import Suite
from bench.targets import Target

CLIENTS = 16
DIRECT_LIMIT = 200
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


def _near_and_far(
    suite: Suite, outcome: Outcome, variants: Mapping[str, Sequence[str]], near: Sequence[Target]
) -> None:
    """Each variant of pgbench's arguments, on this machine and over the distance; without *near* only the latter."""
    for label, arguments in variants.items() if near else ():
        load = Load(arguments, CLIENTS, f"{label}, near", rounds=1)
        rounds.measure(suite, outcome, suite.running(near), load)
    away = suite.far(tls=None)
    for label, arguments in variants.items():
        load = Load(
            arguments,
            CLIENTS,
            f"{label}, far",
            rounds=1,
            is_settled=True,
            seconds=suite.plan.seconds * (2 if near else 1),
        )
        rounds.measure(suite, outcome, suite.running(suite.usual, away.address), load)


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
        variants = {", simple": files, ", extended": ["-M", "extended", *files]}
        if suite.plan.is_thorough:
            _near_and_far(suite, outcome, variants, suite.targets)
        else:
            _near_and_far(suite, outcome, {", simple": files}, [])
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
        variants = {", in transactions": ["-f", transaction]}
        if suite.plan.is_thorough:
            variants = {", single": ["-f", write], **variants}
        _near_and_far(suite, outcome, variants, suite.usual if suite.plan.is_thorough else [])
    return outcome


def scale(suite: Suite) -> Outcome:
    """Throughput and CPU by number of clients."""
    outcome = Outcome(
        "scale",
        "scale with clients",
        "pgbench -S, simple protocol, from one client to a thousand on 20 servers; direct as far as the origin's max_connections.",
    )
    for clients in (1, 8, 64, 256, 1024) if suite.plan.is_thorough else (1, 64):
        known = suite.usual if suite.plan.is_thorough else [t for t in suite.forwarders if t.is_proxy]
        able = [target for target in known if clients < DIRECT_LIMIT or target.name != "direct"]
        label = f", {clients} client{'s' if clients > 1 else ''}"
        # With so many, logging in takes its share of a second.
        many = clients > 100
        seconds = 2 * suite.plan.seconds if many else None
        load = Load(["-S"], clients, label, rounds=1, is_settled=many, seconds=seconds)
        rounds.measure(suite, outcome, suite.running(able), load)
    return outcome
