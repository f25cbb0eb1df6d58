"""docs/promises.md says which test shows what: the tests it names are there, and each corner case has one that is named after it."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PROMISES = (TESTS.parent / "docs" / "promises.md").read_text(encoding="utf-8")
HAZARDS = range(1, 66)


def test_what_it_names_exists() -> None:
    directory = ""
    missing = []
    for name in re.findall(r"`([a-z_0-9/*]+(?:\.py|/|/\*))`", PROMISES):
        # A bare name is in the directory of the one before it.
        path = name if "/" in name else f"{directory}/{name}"
        directory = path.rpartition("/")[0]
        if not any((*TESTS.glob(path.rstrip("/")), *TESTS.parent.glob(path.rstrip("/")))):
            missing.append(name)
    assert missing == []


def test_each_corner_case_has_a_test() -> None:
    named = {
        int(number)
        for path in TESTS.rglob("test_*.py")
        for number in re.findall(r"def test_w(\d\d)_", path.read_text(encoding="utf-8"))
    }
    assert set(HAZARDS) - named == set()
