"""pgbench: TPC-B and SELECT-only in the simple, extended and prepared modes, a connection per transaction, pipelines."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from tests.drivers.binaries import run, version
from tests.drivers.common import Check, Program, main

CLIENTS = "8"
TRANSACTIONS = "25"


def pgbench(url: str, *arguments: str, clients: str = CLIENTS, transactions: str = TRANSACTIONS) -> str:
    """Run a short load; every transaction has to be done and none may fail."""
    output = run(["pgbench", "-n", "-c", clients, "-j", clients, "-t", transactions, *arguments, url])
    processed = int(clients) * int(transactions)
    assert f"number of transactions actually processed: {processed}/{processed}" in output, output
    assert re.search(r"number of failed transactions: 0 ", output), output
    return output


def initializes(url: str) -> None:
    """Drop, create, fill by COPY, vacuum, primary keys, foreign keys."""
    run(["pgbench", "-i", "-I", "dtgvpf", "-s", "1", url])
    run(["pgbench", "-i", "-I", "dtGvp", "-s", "2", url])


def tpcb_in(mode: str) -> Check:
    def check(url: str) -> None:
        pgbench(url, "-M", mode)
        pgbench(url, "-M", mode, "-S")
        pgbench(url, "-M", mode, "-N")

    check.__name__ = f"works_in_{mode}_mode"
    return check


def connects_per_transaction(url: str) -> None:
    pgbench(url, "-C", "-S", transactions="10")
    pgbench(url, "-C", "-M", "prepared", transactions="5")


def balances(url: str) -> None:
    """TPC-B's invariant: what the history tells was added to the accounts; tellers and branches agree."""
    sums = (
        "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),"
        " (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches)"
    )
    output = run(["psql", "-X", "-A", "-t", "-c", sums, url])
    assert output.strip() == "t|t", output


def runs_scripts(url: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        pipeline = Path(directory) / "pipeline.sql"
        pipeline.write_text(
            "\\set aid random(1, 200000)\n"
            "\\startpipeline\n"
            "begin;\n"
            "select abalance from pgbench_accounts where aid = :aid;\n"
            "update pgbench_accounts set filler = 'x' where aid = :aid;\n"
            "commit;\n"
            "select 1;\n"
            "\\endpipeline\n"
            + (
                "\\startpipeline\nselect 1;\n\\syncpipeline\nselect 2;\n\\syncpipeline\nselect 3;\n\\endpipeline\n"
                if int(version("pgbench").split(".")[0]) >= 17
                else ""
            )
        )
        for mode in ("extended", "prepared"):
            pgbench(url, "-M", mode, "-f", str(pipeline))
        script = Path(directory) / "script.sql"
        script.write_text(
            "\\set n random(1, 1000)\n"
            "select :n * 2 as twice \\gset\n"
            "\\if :twice > 1000\n"
            "begin isolation level repeatable read;\nselect count(*) from pgbench_branches;\nrollback;\n"
            "\\else\n"
            "select 1 as one \\; select 2 as two \\aset\n"
            "\\endif\n"
            "set statement_timeout = '10s';\n"
        )
        pgbench(url, "-M", "simple", "-f", str(script))


def leaves_nothing(url: str) -> None:
    run(["pgbench", "-i", "-I", "d", url])


PROGRAM = Program(
    driver="pgbench",
    version=lambda: version("pgbench"),
    checks=(
        initializes,
        tpcb_in("simple"),
        tpcb_in("extended"),
        tpcb_in("prepared"),
        connects_per_transaction,
        balances,
        runs_scripts,
        leaves_nothing,
    ),
)

if __name__ == "__main__":
    main(PROGRAM)
