"""What a run keeps: medians, ratios round by round, goals, JSON and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.results import Goal, Outcome, Run, load


def outcome() -> Outcome:
    made = Outcome("select", "pgbench -S", "about")
    for us, pgbouncer in ((26.0, 20.0), (24.0, 20.0), (30.0, 20.0)):
        made.add("CPU", "us", "µs", us)
        made.add("CPU", "PgBouncer", "µs", pgbouncer)
    made.promise("CPU per query", "at most", 1.3, "× PgBouncer", made.ratio("CPU", "us", "PgBouncer"))
    return made


def run(*outcomes: Outcome) -> Run:
    return Run("python -m bench", "2026-01-01T00:00:00+00:00", 1.0, {"cores": "2"}, {"commit": "abc"}, list(outcomes))


def test_a_figure_has_the_median_and_the_spread_of_its_rounds() -> None:
    figure = outcome().find("CPU", "us")
    assert figure is not None
    assert figure.median == 26.0
    assert figure.spread == pytest.approx(3 / 26)


def test_ratios_are_taken_round_by_round() -> None:
    assert outcome().ratio("CPU", "us", "PgBouncer") == [1.3, 1.2, 1.5]


def test_a_ratio_to_a_target_that_is_missing_is_no_ratio() -> None:
    """Without PgBouncer there is nothing to hold us against, and no goal is made up."""
    made = Outcome("select", "pgbench -S", "about")
    made.add("CPU", "us", "µs", 1.0)
    made.promise("CPU", "at most", 1.3, "", made.ratio("CPU", "us", "PgBouncer"))
    assert made.goals == []


GOALS = [
    pytest.param("at most", 1.3, [1.21, 1.22, 1.2], "met", id="the interval is within"),
    pytest.param("at most", 1.3, [1.1, 1.2, 1.29], "met, uncertain", id="all rounds are, the interval is not"),
    pytest.param("at most", 1.3, [1.2, 1.3, 1.4], "met, uncertain", id="one round beyond"),
    pytest.param("at most", 1.3, [1.5, 1.51, 1.52], "missed", id="beyond"),
    pytest.param("at least", 0.85, [0.9, 0.8, 0.8], "missed, uncertain", id="mostly below"),
    pytest.param("at least", 0.85, [0.85], "met", id="one round, just"),
    pytest.param("at most", 0, [0.0, 0.0], "met", id="no errors"),
    pytest.param("at most", 0, [0.0, 1.0, 0.0], "met, uncertain", id="errors in one round"),
]


@pytest.mark.parametrize(("bound", "limit", "samples", "verdict"), GOALS)
def test_a_verdict_comes_from_the_interval(bound: str, limit: float, samples: list[float], verdict: str) -> None:
    assert Goal("g", bound, limit, "", samples).verdict == verdict  # type: ignore[arg-type]


def test_a_run_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.json"
    first = run(outcome())
    first.save(path)
    assert load(path) == first


def test_the_file_says_medians_and_verdicts_to_those_who_only_read_it(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    run(outcome()).save(path)
    found = json.loads(path.read_text())["outcomes"][0]
    assert found["figures"][0]["median"] == 26.0
    assert found["goals"][0]["verdict"] == "met, uncertain"
    assert found["goals"][0]["low"] < 1.2 < 1.3 < found["goals"][0]["high"]


def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="schema 99"):
        load(path)
