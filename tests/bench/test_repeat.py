"""Two runs that ought to say the same: where they do not, the interval is widened and the report says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import readme, repeat, report
from bench.results import Outcome, Run, load

MACHINE = {"processor": "p", "cores": "2", "memory": "8"}


def run(*samples: float, limit: float = 1.3, started: str = "2026-01-01T00:00:00+00:00") -> Run:
    made = Outcome("select", "pgbench -S", "about")
    made.promise("CPU per query", "at most", limit, "× PgBouncer", samples)
    return Run("python -m bench", started, 1.0, dict(MACHINE), {"commit": "abc"}, [made])


def test_runs_that_agree_are_left_as_they_are() -> None:
    now, before = run(1.2, 1.25, 1.3), run(1.3, 1.3, 1.35)
    repeat.widen(now, before)
    assert now.outcomes[0].goals[0].interval == (1.2, 1.3)
    assert now.repeated == "1 of 1 promised figures agree within 10% with the run of 2026-01-01T00:00:00+00:00"


def test_runs_that_do_not_agree_share_their_interval_and_say_so() -> None:
    now, before = run(1.0, 1.0, 1.1), run(1.4, 1.5, 1.6)
    repeat.widen(now, before)
    goal = now.outcomes[0].goals[0]
    assert goal.interval == (1.0, 1.6)
    assert goal.note == "33% from the run of 2026-01-01T00:00:00+00:00: the interval is that of both"
    assert goal.verdict == "met, rounds disagree"
    assert "the others have their intervals widened" in now.repeated
    assert "1.00 – 1.60" in report.page(now)
    assert "1.00 – 1.60" in readme.tables(now)


def test_a_widened_run_survives_its_file(tmp_path: Path) -> None:
    now = run(1.0)
    repeat.widen(now, run(2.0))
    now.save(tmp_path / "run.json")
    assert load(tmp_path / "run.json") == now


OTHERS = [
    pytest.param({"command": "python -m bench --quick"}, id="another command"),
    pytest.param({"versions": {"commit": "def"}}, id="another commit"),
    pytest.param({"machine": {**MACHINE, "cores": "8"}}, id="another machine"),
]


@pytest.mark.parametrize("change", OTHERS)
def test_only_runs_that_ought_to_agree_are_compared(change: dict[str, object]) -> None:
    assert repeat.is_like(run(1.0), run(2.0))
    assert not repeat.is_like(run(1.0), replace(run(2.0), **change))  # type: ignore[arg-type]


def test_a_file_that_is_no_run_is_no_earlier_run(tmp_path: Path) -> None:
    assert repeat.earlier_run(tmp_path / "none.json") is None
    (tmp_path / "old.json").write_text('{"schema": 1}')
    assert repeat.earlier_run(tmp_path / "old.json") is None
