"""Whether two runs say the same: where a ratio differs by more than a tenth, its interval is widened to both, and the report says so.

Compared are runs of the same command, commit and machine; the run before is found where this one's figures will go.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from bench.results import Goal, Run, load

TOLERANCE = 0.10
_SAME_MACHINE = ("processor", "cores", "memory")


def earlier_run(path: Path) -> Run | None:
    """The run whose figures are at *path*, if it can be read."""
    try:
        return load(path)
    except (OSError, ValueError, TypeError, KeyError):
        return None  # none, or of another schema: nothing to compare with


def is_like(run: Run, earlier: Run) -> bool:
    """Whether the two ought to say the same."""
    same_machine = all(run.machine.get(name) == earlier.machine.get(name) for name in _SAME_MACHINE)
    same_commit = run.versions.get("commit") == earlier.versions.get("commit")
    return same_machine and same_commit and run.command == earlier.command


def widen(run: Run, earlier: Run) -> None:
    """Hold the goals of *run* against those of *earlier*; note in *run* where they do not agree, and how many do."""
    pairs = [(goal, other) for goal, other in _pairs(run, earlier)]
    apart = 0
    for goal, other in pairs:
        difference = _difference(goal, other)
        if difference > TOLERANCE:
            apart += 1
            goal.earlier = list(other.samples)
            said = f"{difference:.0%} from the run of {earlier.started}: the interval is that of both"
            goal.note = f"{goal.note}; {said}" if goal.note else said
    if pairs:
        run.repeated = (
            f"{len(pairs) - apart} of {len(pairs)} promised figures agree within {TOLERANCE:.0%} with the run of "
            f"{earlier.started}{'; the others have their intervals widened to both runs' if apart else ''}"
        )


def _pairs(run: Run, earlier: Run) -> list[tuple[Goal, Goal]]:
    found = []
    for outcome in run.outcomes:
        before = earlier.find(outcome.key)
        known = {(goal.name, goal.unit): goal for goal in before.goals} if before else {}
        found += [(g, known[g.name, g.unit]) for g in outcome.goals if (g.name, g.unit) in known]
    return found


def _difference(goal: Goal, other: Goal) -> float:
    mine, theirs = goal.value, statistics.median(other.samples)
    return abs(mine - theirs) / abs(theirs) if theirs else float(mine != theirs)
