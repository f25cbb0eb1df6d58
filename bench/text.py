"""Outcomes as tables for a terminal."""

from __future__ import annotations

from bench.live import figure, table
from bench.results import Goal, Outcome

TRIPS_BY_TIME = "round trips by time"
SLACK = 0.5
"""In parts of a round trip: what computing takes on a busy machine."""


def reach(goal: Goal) -> str:
    """The interval of a promised figure; empty where the rounds give none."""
    low, high = goal.interval
    return f"{figure(float(low))} – {figure(float(high))}" if low != high else ""


def figures(outcome: Outcome) -> str:
    """The figures of one workload, so far."""
    if not outcome.figures:
        return ""
    if outcome.key == "round-trips":
        return table(rows_of_trips(outcome))
    targets = list(dict.fromkeys(f.target for f in outcome.figures))
    rows: list[list[object]] = [["", *targets, "spread"]]
    for metric, unit in dict.fromkeys((f.metric, f.unit) for f in outcome.figures):
        found = [outcome.find(metric, target) for target in targets]
        spread = max(one.spread for one in found if one is not None)
        cells = [one.median if one is not None else "" for one in found]
        rows.append([f"{metric} {unit}".strip(), *cells, f"±{spread:.0%}" if spread else ""])
    return table(rows)


def rows_of_trips(outcome: Outcome) -> list[list[object]]:
    """Operations by targets: round trips by time, in brackets as counted; then the goals."""
    names = list(dict.fromkeys(f.metric.rpartition(": ")[0] for f in outcome.figures))
    targets = list(dict.fromkeys(f.target for f in outcome.figures))
    goals = {goal.name: goal for goal in outcome.goals}
    made: list[list[object]] = [["operation", *targets, "goal", "", "cached", ""]]
    for name in names:
        row: list[object] = [name]
        for target in targets:
            elapsed, counted = (outcome.find(f"{name}: {what}", target) for what in ("elapsed", "counted"))
            both = elapsed is not None and counted is not None
            row.append(f"{elapsed.median:.1f} ({counted.median:.0f})" if both else "–")  # type: ignore[union-attr]
        for goal in (goals.get(name), goals.get(f"{name}, cached")):
            row += [f"{goal.limit - SLACK:.0f}", goal.verdict] if goal is not None else ["–", ""]
        made.append(row)
    return made
