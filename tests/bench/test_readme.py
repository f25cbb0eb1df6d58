"""The tables for the README: what they say, and that nothing else of the file changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import readme
from bench.results import Outcome, Run


def run() -> Run:
    made = Outcome("serverless", "a new connection per request", "Over 80 ms.")
    for _ in range(3):
        for target, read in (("direct", 600.0), ("us", 80.0), ("us, cached", 80.0)):
            made.add("psycopg 3: read", target, "ms", read)
        made.add("psycopg 3: cached read", "us, cached", "ms", 5.0)
    ratio = made.ratio("psycopg 3: read", "direct", "us")
    made.promise("psycopg 3: uncached read", "at least", 7.0, "× faster than direct", ratio)
    ratio = made.ratio("psycopg 3: read", "direct", "us, cached", under_metric="psycopg 3: cached read")
    made.promise("psycopg 3: cached read", "at least", 100.0, "× faster than direct", ratio)
    return Run("python -m bench", "2026-01-01T00:00:00+00:00", 1.0, {"cores": "2"}, {"commit": "abc"}, [made])


def test_a_cached_read_is_held_against_a_direct_one() -> None:
    lines = readme.tables(run()).splitlines()
    assert "| psycopg 3: read | 600 | 80.0 | 80.0 | **7.50×** (7.50 – 7.50) | – | ≥ 7×, met | 6–8× |" in lines
    assert "| psycopg 3: cached read | – | – | 5.00 | **120×** (120 – 120) | – | ≥ 100×, met | 17–25× |" in lines


def test_the_head_says_whether_the_part_in_c_was_used() -> None:
    for said, expected in (("yes", ", with the [part in C]"), ("no (not built)", ", without the [part in C]")):
        assert expected in readme.tables(replace(run(), versions={"compiled": said})).splitlines()[0]


def test_only_what_is_between_the_markers_changes(tmp_path: Path) -> None:
    source, into = tmp_path / "run.json", tmp_path / "README.md"
    run().save(source)
    into.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    for _ in range(2):  # a second time changes nothing
        assert readme.main([str(source), "--into", str(into)]) == 0
        text = into.read_text()
        assert text == f"before\n{readme.BEGIN}\n\n{readme.tables(run())}\n\n{readme.END}\nafter\n"


def test_a_file_without_markers_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, into = tmp_path / "run.json", tmp_path / "README.md"
    run().save(source)
    into.write_text("no place")
    assert readme.main([str(source), "--into", str(into)]) == 2
    assert into.read_text() == "no place"
    assert "no markers" in capsys.readouterr().out


def test_a_bar_in_a_cell_is_no_new_column() -> None:
    assert readme.markdown([["a", "b"], ["x|y", "z"]]) == "| a | b |\n|---|---|\n| x\\|y | z |"


def test_the_readme_has_a_place_for_them() -> None:
    text = (readme.ROOT / "README.md").read_text()
    assert text.index(readme.BEGIN) < text.index(readme.END)
