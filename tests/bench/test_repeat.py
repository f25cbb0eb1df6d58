"""Two runs that ought to say the same: where they do not, the interval is widened and the report says so."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench import compare, readme, repeat, report
from bench.intervals import interval, union
from bench.results import Outcome, Run, load

MACHINE = {"processor": "p", "cores": "2", "memory": "8"}


def run(*samples: float, limit: float = 1.3, started: str = "2026-01-01T00:00:00+00:00") -> Run:
    made = Outcome("select", "pgbench -S", "about")
    made.promise("CPU per query", "at most", limit, "× PgBouncer", samples)
    return Run("python -m bench", started, 1.0, dict(MACHINE), {"commit": "abc"}, [made])


def test_runs_that_agree_are_left_as_they_are() -> None:
    now, before = run(1.2, 1.25, 1.3), run(1.3, 1.3, 1.35)
    was = now.outcomes[0].goals[0].interval
    repeat.widen(now, before)
    assert now.outcomes[0].goals[0].interval == was
    assert now.repeated == ("With the run of 2026-01-01T00:00:00+00:00, 1 of 1 promised figures agree within 10%")


def test_runs_that_differ_share_their_interval_and_say_so() -> None:
    now, before = run(1.0, 1.0, 1.1), run(1.4, 1.5, 1.6)
    repeat.widen(now, before)
    goal = now.outcomes[0].goals[0]
    assert goal.interval == union(interval([1.0, 1.0, 1.1]), interval([1.4, 1.5, 1.6]))
    assert goal.note == "33% from the run of 2026-01-01T00:00:00+00:00: the interval is that of both"
    assert goal.verdict == "met, uncertain"
    assert (
        "0 of 1 promised figures agree within 10%, 1 more because their intervals overlap; where it is not"
        in now.repeated
    )
    assert "0.90 – 1.77" in report.page(now)
    assert "0.90 – 1.77" in readme.tables(now)


PAIRS = [
    pytest.param(
        [1.0, 1.01, 1.02], [1.05, 1.06, 1.07], "agrees within 10%", id="close, though the intervals are apart"
    ),
    pytest.param([1.0, 1.2, 1.4], [1.3, 1.5, 1.7], "agrees, intervals overlap", id="rounds that spread"),
    pytest.param([1.0, 1.01, 1.02], [1.3, 1.31, 1.32], "differs", id="far apart and sure of it"),
    pytest.param([0.0], [0.0], "agrees within 10%", id="nothing twice"),
    pytest.param([0.0], [1.0], "differs", id="nothing and something"),
]


@pytest.mark.parametrize(("now", "before", "verdict"), PAIRS)
def test_two_runs_agree_within_a_tenth_or_where_their_intervals_overlap(
    now: list[float], before: list[float], verdict: str
) -> None:
    [pair] = repeat.pairs(run(*now), run(*before))
    assert pair.verdict == verdict


def test_comparing_two_runs_ends_with_how_far_they_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Synthetic runs with three promised figures: one close, one whose rounds spread, one that moved."""
    paths = []
    for name, rounds in (("a", BEFORE), ("b", NOW)):
        made = run(1.0)
        made.outcomes[0].goals.clear()
        for figure, samples in rounds.items():
            made.outcomes[0].promise(figure, "at least", 1.0, "× direct", samples)
        made.save(tmp_path / f"{name}.json")
        paths.append(str(tmp_path / f"{name}.json"))
    compare.main(paths)
    said = capsys.readouterr().out
    assert "1 of 3 promised figures agree within 10%, 1 more because their intervals overlap, 1 do not agree" in said
    assert re.search(r"moved × direct +2\.02 +1\.9\d – 2\.0\d +3\.02 +2\.9\d – 3\.0\d +50% +differs", said)
    assert "close × direct" not in said
    compare.main([*paths, "--all"])
    assert "close × direct" in capsys.readouterr().out
    assert load(Path(paths[1])).repeated == ""
    compare.main([*paths, "--widen"])
    widened = load(Path(paths[1]))
    assert "1 of 3 promised figures agree within 10%" in widened.repeated
    assert [bool(goal.earlier) for goal in widened.outcomes[0].goals] == [False, True, True]
    assert widened.repeated in Path(paths[1]).with_suffix(".html").read_text()


BEFORE = {"close": [1.0, 1.02, 1.04], "spread": [1.0, 1.3, 1.6], "moved": [2.0, 2.02, 2.04]}
NOW = {"close": [1.03, 1.05, 1.07], "spread": [1.3, 1.6, 1.9], "moved": [3.0, 3.02, 3.04]}


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
