"""The guard: which figures repeat, when one is worse, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench import guard
from bench.intervals import interval
from bench.results import Outcome, Run


def run(cpu: float, trips: float, spread: Sequence[float] = (0.99, 1.0, 1.01)) -> Run:
    select = Outcome("select", "pgbench -S", "about")
    for factor in spread:
        select.add("CPU, simple", "us", "µs", cpu * factor)
        select.add("CPU, simple", "PgBouncer", "µs", 20.0)
        select.add("throughput, simple", "us", "1/s", 1000.0)
    table = Outcome("round-trips", "round trips", "about")
    table.add("asyncpg: connect: counted", "us", "", trips)
    table.add("asyncpg: connect: counted", "direct", "", 9.0)
    table.add("asyncpg: connect: elapsed", "us", "", 1.2)
    return Run("python -m bench", "2026-01-01T00:00:00+00:00", 1.0, {}, {}, [select, table])


def test_counts_and_shares_of_pgbouncer_are_guarded_and_nothing_else() -> None:
    low = interval([1.3 * 0.99, 1.3, 1.3 * 1.01])[0]
    assert guard.guarded(run(26.0, 1.0)) == {
        "CPU, simple of pgbench -S in parts of PgBouncer's (us)": guard.Guarded(1.3, guard.CPU_TOLERANCE, low),
        "round trips: asyncpg: connect (us)": guard.Guarded(1.0, 0.0),
    }


def test_what_is_compiled_is_held_against_what_was_compiled() -> None:
    """Without a compiler a query costs more, and that is no regression."""
    made = replace(run(26.0, 1.0), versions={"compiled": "yes"})
    assert "CPU, simple of pgbench -S in parts of PgBouncer's (us, compiled)" in guard.guarded(made)


CASES = [
    pytest.param(26.0, 1.0, 0, id="as it was"),
    pytest.param(20.0, 0.0, 0, id="better"),
    pytest.param(28.0, 1.0, 0, id="CPU within what two runs differ by"),
    pytest.param(31.0, 1.0, 1, id="CPU beyond it"),
    pytest.param(26.0, 2.0, 1, id="one round trip more"),
]


@pytest.mark.parametrize(("cpu", "trips", "status"), CASES)
def test_worse_than_the_baseline_fails(tmp_path: Path, cpu: float, trips: float, status: int) -> None:
    baseline, now = tmp_path / "baseline.json", tmp_path / "now.json"
    guard.write(guard.guarded(run(26.0, 1.0)), baseline)
    run(cpu, trips).save(now)
    assert status == guard.main(["--from", str(now), "--baseline", str(baseline)])


def test_rounds_that_are_all_over_the_place_accuse_nobody(tmp_path: Path) -> None:
    baseline, now = tmp_path / "baseline.json", tmp_path / "now.json"
    guard.write(guard.guarded(run(26.0, 1.0)), baseline)
    run(31.0, 1.0, (0.6, 1.0, 1.4)).save(now)
    assert guard.main(["--from", str(now), "--baseline", str(baseline)]) == 0


def test_what_became_worse_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline, now = tmp_path / "baseline.json", tmp_path / "now.json"
    guard.write(guard.guarded(run(26.0, 1.0)), baseline)
    run(26.0, 2.0).save(now)
    guard.main(["--from", str(now), "--baseline", str(baseline)])
    said = capsys.readouterr().out
    assert "round trips: asyncpg: connect (us)" in said
    assert "1 of 2 guarded figures" in said


def test_a_figure_that_cannot_be_measured_here_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline, now = tmp_path / "baseline.json", tmp_path / "now.json"
    guard.write({**guard.guarded(run(26.0, 1.0)), "round trips: JDBC": guard.Guarded(1.0, 0.0)}, baseline)
    run(26.0, 1.0).save(now)
    assert guard.main(["--from", str(now), "--baseline", str(baseline)]) == 0
    assert "not measured here: round trips: JDBC" in capsys.readouterr().out


def test_update_makes_a_baseline_that_reads_back(tmp_path: Path) -> None:
    baseline, now = tmp_path / "baseline.json", tmp_path / "now.json"
    run(26.0, 1.0).save(now)
    assert guard.main(["--from", str(now), "--baseline", str(baseline), "--update"]) == 0
    kept = {name: (g.value, g.tolerance) for name, g in guard.guarded(run(26.0, 1.0)).items()}
    assert {name: (g.value, g.tolerance) for name, g in guard.read(baseline).items()} == kept
