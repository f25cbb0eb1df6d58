"""The table of targets: whatever was promised is in it, measured or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import promises
from bench.registry import WORKLOADS
from bench.results import Figure, Outcome, Run, load
from bench.suite import Plan
from bench.workloads import forwarding, hits, serverless


class AnyFigures(Outcome):
    """An outcome in which every metric of every target was measured, each three times as 1.0."""

    def find(self, metric: str, target: str) -> Any:
        return Figure(metric, target, "", [1.0, 1.0, 1.0])


def run(*outcomes: Outcome) -> Run:
    return Run("python -m bench", "2026-01-01T00:00:00+00:00", 1.0, {}, {}, list(outcomes))


def test_what_was_not_measured_stands_there_all_the_same() -> None:
    found = promises.rows(run())
    assert {row.verdict for row in found} == {"not measured"}
    assert len(found) == sum(map(len, promises.SECTIONS.values()))
    assert promises.summary(found).endswith(f"{len(found)} not measured")


def test_a_goal_fills_its_row_and_one_that_nobody_promised_comes_last() -> None:
    made = Outcome("misses", "nothing to hit", "about")
    made.promise("CPU of a miss", "at most", 1.5, "× cache off", [1.4, 1.42, 1.44])
    made.promise("something else", "at most", 1.5, "", [1.0])
    found = promises.rows(run(made))
    measured = [(row.section, row.name, row.bound, row.verdict) for row in found if row.goal]
    assert measured == [
        ("The cache (issue 4)", "CPU of a miss", "at most 1.5 × cache off", "met"),
        (promises.BEYOND, "something else", "at most 1.5", "met"),
    ]


def test_the_names_are_those_that_the_workloads_give() -> None:
    """Where a workload makes its goals in a function of its own, with every figure there is."""
    select, cached, connecting = (AnyFigures(key, key, "") for key in ("select", "hits", "serverless"))
    forwarding._promise(select, "")
    for mode, goal in hits.HIT_GOALS.items():
        hits._promise(cached, mode, goal)
    plan = Plan()
    for program in (serverless.PSYCOPG, serverless.ASYNCPG, serverless.NODE_POSTGRES):
        serverless._promise(plan, connecting, program)
    found = promises.rows(run(select, cached, connecting))
    named = {outcome.key for outcome in (select, cached, connecting)}
    promised = [p for section in promises.SECTIONS.values() for p in section if p.workload in named]
    assert len(promised) == sum(row.goal is not None for row in found)
    assert [row.name for row in found if row.section == promises.BEYOND] == []


def test_every_promise_belongs_to_a_workload() -> None:
    assert {p.workload for section in promises.SECTIONS.values() for p in section} <= set(WORKLOADS)


def test_the_file_has_the_table_and_is_read_without_it(tmp_path: Path) -> None:
    made = Outcome("misses", "nothing to hit", "about")
    made.promise("CPU of a miss", "at most", 1.5, "× cache off", [1.4, 1.42, 1.44])
    first = run(made)
    first.save(tmp_path / "run.json", promises.plain(first))
    written = json.loads((tmp_path / "run.json").read_text())["targets"]
    assert [entry["verdict"] for entry in written if entry["figure"] == "CPU of a miss"] == ["met"]
    assert load(tmp_path / "run.json") == first


def test_the_command_says_when_something_was_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run().save(tmp_path / "run.json")
    assert promises.main([str(tmp_path / "run.json")]) == 1
    assert "Forwarding (issue 2): 0 of 0 met, 9 not measured" in capsys.readouterr().out
