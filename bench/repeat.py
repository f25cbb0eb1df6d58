"""Whether two runs say the same: where a promised figure differs by more than a tenth, its interval is widened to both.

Held against each other automatically are runs of the same command, commit and machine; the run before is found where this one's
figures will go. ``python -m bench compare`` holds any two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.intervals import TOLERANCE, difference, overlap
from bench.results import Goal, Run, load
from bench.text import TRIPS_BY_TIME

_SAME_MACHINE = ("processor", "cores", "memory")


@dataclass(frozen=True, slots=True)
class Pair:
    """A promised figure in two runs."""

    workload: str
    now: Goal
    before: Goal

    @property
    def difference(self) -> float:
        """In parts of the earlier run's; of round trips by time in round trips, since what takes none is all noise."""
        if self.now.unit == TRIPS_BY_TIME:
            return abs(self.now.value - self.before.value) / max(1.0, self.before.value)
        return difference(self.now.value, self.before.value)

    @property
    def is_close(self) -> bool:
        """Within the tenth that is allowed on an idle machine."""
        return self.difference <= TOLERANCE

    @property
    def agrees(self) -> bool:
        return self.is_close or overlap(self.now.interval, self.before.interval)

    @property
    def verdict(self) -> str:
        if self.is_close:
            return f"agrees within {TOLERANCE:.0%}"
        return "agrees, intervals overlap" if self.agrees else "differs"


def earlier_run(path: Path) -> Run | None:
    """The run whose figures are at *path*, if it can be read."""
    try:
        return load(path)
    except (OSError, ValueError, TypeError, KeyError):
        return None  # none, or of another schema: nothing to compare with


def is_like(run: Run, earlier: Run) -> bool:
    """Whether the two ought to say the same."""
    same_machine = all(run.machine.get(name) == earlier.machine.get(name) for name in _SAME_MACHINE)
    same_code = all(run.versions.get(name) == earlier.versions.get(name) for name in ("commit", "compiled"))
    return same_machine and same_code and run.command == earlier.command


def pairs(run: Run, earlier: Run) -> Iterator[Pair]:
    """Every promised figure that both have."""
    for outcome in run.outcomes:
        before = earlier.find(outcome.key)
        known = {(goal.name, goal.unit): goal for goal in before.goals} if before else {}
        for goal in outcome.goals:
            if (other := known.get((goal.name, goal.unit))) is not None:
                yield Pair(outcome.title, goal, other)


def said(found: Sequence[Pair]) -> str:
    """How far two runs agree, in a sentence."""
    if not found:
        return "the two runs have no promised figure in common"
    close = sum(pair.is_close for pair in found)
    overlapping = sum(pair.agrees for pair in found) - close
    apart = len(found) - close - overlapping
    parts = [f"{close} of {len(found)} promised figures agree within {TOLERANCE:.0%}"]
    parts += [f"{overlapping} more because their intervals overlap"] if overlapping else []
    parts += [f"{apart} do not agree"] if apart else []
    return ", ".join(parts)


def widen(run: Run, earlier: Run) -> None:
    """Hold the goals of *run* against those of *earlier*; note in *run* where they differ, and how many do."""
    found = list(pairs(run, earlier))
    for pair in found:
        if not pair.is_close:
            goal = pair.now
            goal.earlier = list(pair.before.samples)
            note = f"{pair.difference:.0%} from the run of {earlier.started}: the interval is that of both"
            goal.note = f"{goal.note}; {note}" if goal.note else note
    if found:
        widened = "" if all(pair.is_close for pair in found) else "; where it is not, the interval is that of both runs"
        run.repeated = f"With the run of {earlier.started}, {said(found)}{widened}"
