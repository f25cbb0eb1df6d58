"""Running package managers and compilers: what is said when they fail, to the benchmarks and to the driver tests alike."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.toolchains import why_failed
from tests.drivers import run

SAYS = "import os, sys; print('first'); print(os.environ['WORD'], os.getcwd()); sys.exit({})"


def test_what_succeeds_says_nothing(tmp_path: Path) -> None:
    assert why_failed([sys.executable, "-c", SAYS.format(0)], tmp_path, WORD="x") is None


def test_what_fails_says_its_last_line(tmp_path: Path) -> None:
    said = why_failed([sys.executable, "-c", SAYS.format(3)], tmp_path, WORD="the reason, in")
    assert said is not None
    assert said.endswith(f"failed: the reason, in {tmp_path}")


def test_what_is_never_over_is_ended(tmp_path: Path) -> None:
    said = why_failed([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, limit_seconds=0.1)
    assert said is not None
    assert "was not over in" in said


def test_a_driver_whose_packages_cannot_be_had_is_missing(tmp_path: Path) -> None:
    with pytest.raises(run.Missing, match="the reason, in"):
        run.install([sys.executable, "-c", SAYS.format(1)], tmp_path, WORD="the reason, in")
