"""What a run found: figures, goals and the machine, as JSON and back.

A figure is one metric of one target in one workload, with the value of every round, so that whoever reads it can see the spread. A
goal compares figures of the same run; a ratio is taken round by round, since rounds of different targets lie next to each other, and
judged by the interval that the rounds give.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.intervals import Interval, interval, is_wide, union

SCHEMA = 3
LATEST = Path(__file__).parent / "results" / "latest.json"

Bound = Literal["at most", "at least"]


@dataclass(slots=True)
class Figure:
    """One metric of one target; ``samples`` are the rounds."""

    metric: str
    target: str
    unit: str
    samples: list[float]
    detail: dict[str, list[float]] = field(default_factory=dict)
    """Series behind it, such as a latency distribution."""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half of the range in parts of the median: 0.1 means within about 10 %."""
        middle = self.median
        return (max(self.samples) - min(self.samples)) / 2 / middle if middle else 0.0


@dataclass(slots=True)
class Goal:
    """A figure that was promised, and what came out."""

    name: str
    bound: Bound
    limit: float
    unit: str
    samples: list[float]
    note: str = ""
    earlier: list[float] = field(default_factory=list)
    """The rounds of an earlier run like this one, where the two do not agree (see ``repeat``)."""

    @property
    def value(self) -> float:
        return statistics.median(self.samples)

    @property
    def is_met(self) -> bool:
        return self.value <= self.limit if self.bound == "at most" else self.value >= self.limit

    @property
    def interval(self) -> Interval:
        """In which the figure lies, as far as the rounds tell; that of both runs where an earlier one does not agree."""
        mine = interval(self.samples)
        return union(mine, interval(self.earlier)) if self.earlier else mine

    @property
    def is_certain(self) -> bool:
        """Whether the whole interval is on one side of the limit."""
        low, high = self.interval
        return (
            high <= self.limit or low > self.limit
            if self.bound == "at most"
            else low >= self.limit or high < self.limit
        )

    @property
    def is_wide(self) -> bool:
        """Whether another run might well differ by more than is promised."""
        return is_wide(self.value, self.interval)

    @property
    def verdict(self) -> str:
        return ("met" if self.is_met else "missed") + ("" if self.is_certain else ", uncertain")


@dataclass(slots=True)
class Outcome:
    """One workload: what it is, what was measured, what was left out."""

    key: str
    title: str
    about: str
    figures: list[Figure] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """How long it took."""
    expected: float = 0.0
    """How long it ought to have taken on two quiet cores."""

    def add(self, metric: str, target: str, unit: str, value: float, **detail: list[float]) -> None:
        """Add one round's value."""
        found = self.find(metric, target)
        if found is None:
            found = Figure(metric, target, unit, [])
            self.figures.append(found)
        found.samples.append(value)
        for name, series in detail.items():
            found.detail.setdefault(name, []).extend(series)

    def find(self, metric: str, target: str) -> Figure | None:
        return next((f for f in self.figures if (f.metric, f.target) == (metric, target)), None)

    def ratio(self, metric: str, over: str, under: str, *, under_metric: str = "") -> list[float]:
        """*metric* of target *over* divided by that of *under*, round by round; empty where one is missing."""
        first, second = self.find(metric, over), self.find(under_metric or metric, under)
        if first is None or second is None:
            return []
        return [a / b for a, b in zip(first.samples, second.samples, strict=False) if b]

    def promise(
        self, name: str, bound: Bound, limit: float, unit: str, samples: Sequence[float], note: str = ""
    ) -> None:
        """Hold *samples* against what was promised; without any there is nothing to say."""
        if samples:
            self.goals.append(Goal(name, bound, limit, unit, list(samples), note))


@dataclass(slots=True)
class Run:
    """A whole run."""

    command: str
    started: str
    seconds: float
    machine: dict[str, str]
    versions: dict[str, str]
    outcomes: list[Outcome] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    distance: str = ""
    """How far the origin was, where a workload is about distance."""
    repeated: str = ""
    """How far this run and an earlier one like it agree."""
    schema: int = SCHEMA

    def find(self, key: str) -> Outcome | None:
        return next((outcome for outcome in self.outcomes if outcome.key == key), None)

    def save(self, path: Path = LATEST, targets: Sequence[Mapping[str, object]] = ()) -> None:
        """Write it as JSON; medians, intervals, verdicts and *targets* are written along for readers that do not want to compute."""
        plain = asdict(self) | {"targets": list(targets)}
        for outcome, source in zip(plain["outcomes"], self.outcomes, strict=True):
            for entry, figure in zip(outcome["figures"], source.figures, strict=True):
                entry |= {"median": figure.median, "spread": round(figure.spread, 4)}
            for entry, goal in zip(outcome["goals"], source.goals, strict=True):
                low, high = goal.interval
                entry |= {"value": goal.value, "low": low, "high": high, "verdict": goal.verdict}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plain, indent=1) + "\n")


def quantiles(values: Sequence[float], points: int = 50) -> list[float]:
    """*points* quantiles of sorted *values*, enough to draw their distribution."""
    if not values:
        return []
    return [values[min(len(values) - 1, int((i + 0.5) / points * len(values)))] for i in range(points)]


_WRITTEN_ALONG = {"median", "spread", "value", "low", "high", "verdict"}


def load(path: Path) -> Run:
    """Read what ``save`` wrote.

    Raises:
        ValueError: it is of another schema.
    """
    plain: dict[str, Any] = json.loads(path.read_text())
    if plain.get("schema") != SCHEMA:
        raise ValueError(f"{path} is of schema {plain.get('schema')}, this program reads {SCHEMA}")
    plain.pop("targets", None)
    outcomes = []
    for entry in plain.pop("outcomes"):
        figures = [Figure(**{k: v for k, v in f.items() if k not in _WRITTEN_ALONG}) for f in entry.pop("figures")]
        goals = [Goal(**{k: v for k, v in g.items() if k not in _WRITTEN_ALONG}) for g in entry.pop("goals")]
        outcomes.append(Outcome(**entry, figures=figures, goals=goals))
    return Run(**plain, outcomes=outcomes)
