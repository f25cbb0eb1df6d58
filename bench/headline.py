"""What one would tell somebody about a run: how many times faster, at which distance, over all drivers."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench import promises
from bench.intervals import interval
from bench.live import figure as digits
from bench.results import Outcome, Run
from bench.targets import CACHED, US

KINDS = (("read", US, "uncached reads"), ("write", US, "writes"), ("cached read", CACHED, "cached reads"))


@dataclass(frozen=True, slots=True)
class Card:
    """A big figure, what it is, and the small print."""

    big: str
    what: str
    more: str


def sentence(run: Run) -> str:
    """The headline; without the workload of new connections, only whose figures they are."""
    outcome = run.find("serverless")
    if outcome is None:
        return "Hyperdrive, measured"
    uncached = [ratio for kind, target, _ in KINDS[:2] for ratio in _medians(outcome, kind, target).values()]
    cached = list(_medians(outcome, *KINDS[2][:2]).values())
    parts = [f"{_span(found)} {what}" for found, what in ((uncached, "uncached"), (cached, "from the cache")) if found]
    return f"{', '.join(parts)}" if parts else "Hyperdrive, measured"


def setting(run: Run) -> str:
    """What the headline is about."""
    where = f", over {run.distance}" if run.distance else ""
    return f"faster than a direct connection, each request on a new connection with TLS{where}"


def cards(run: Run) -> list[Card]:
    """For each kind of request every driver's figure; then how many targets are met."""
    outcome = run.find("serverless") or run.find("launch")
    made = []
    for kind, target, what in KINDS if outcome is not None else ():
        assert outcome is not None
        found = {program: interval(_ratio(outcome, program, kind, target)) for program in _programs(outcome, kind)}
        more = "; ".join(f"{name} {_reach(*reach)}" for name, reach in found.items())
        if found:
            made.append(Card(_span(list(_medians(outcome, kind, target).values())), f"faster: {what}", more))
    rows = promises.rows(run)
    if any(row.goal for row in rows):
        certain = sum(row.goal is not None and row.goal.is_met and row.goal.is_certain for row in rows)
        text = promises.summary(rows).partition(",")[0]
        made.append(Card(text.removesuffix(" met"), "targets met", f"{certain} of them by the whole interval"))
    return made


def _programs(outcome: Outcome, kind: str) -> list[str]:
    """The drivers, in order."""
    names = dict.fromkeys(f.metric.partition(": ")[0] for f in outcome.figures if f.metric.endswith(f": {kind}"))
    return [name for name in names if _ratio(outcome, name, kind, US if kind != "cached read" else CACHED)]


def _ratio(outcome: Outcome, program: str, kind: str, target: str) -> list[float]:
    direct = "read" if kind == "cached read" else kind
    return outcome.ratio(f"{program}: {direct}", "direct", target, under_metric=f"{program}: {kind}")


def _medians(outcome: Outcome, kind: str, target: str) -> dict[str, float]:
    return {name: statistics.median(_ratio(outcome, name, kind, target)) for name in _programs(outcome, kind)}


def _span(values: list[float]) -> str:
    low, high = _short(min(values)), _short(max(values))
    # Not to be broken into two lines: after a dash a line may end, whatever space follows, unless a word joiner does.
    return f"{low}×" if low == high else f"{low}\u00a0–\u2060\u00a0{high}×"


def _reach(low: float, high: float) -> str:
    """An interval; one round has none."""
    return digits(low) if low == high else f"{digits(low)} – {digits(high)}"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 20 else f"{value:,.0f}"
