"""Which plots show an outcome: throughput with CPU beside it, distributions of latency, round trips as dots, lines over clients."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape

from bench import charts, svg
from bench.live import figure as digits
from bench.results import Figure, Outcome
from bench.text import SLACK, TRIPS_BY_TIME

# What is neither throughput nor a distribution, by workload; metrics are matched by their beginning.
_BARS = {
    "serverless": ("psycopg 3", "asyncpg", "node-postgres"),
    "launch": ("node-postgres", "psycopg 3"),
    "pages": ("SQLAlchemy 2", "Django"),
    "stampede": ("round trips", "time until all are served"),
    "invalidation": ("written",),
    "staleness": ("hit rate", "stale reads", "reads"),
    "verdicts": ("known", "another literal", "first sight"),
    "storm": ("time until all are served", "errors", "CPU per connection"),
    "idle": ("memory per idle client", "logins"),
    "workers": ("capacity", "CPU per query"),
}
_CPU = {"bulk": "CPU per MB"}
_CLIENTS = re.compile(r", (\d+) clients?$")


def of(outcome: Outcome) -> str:
    """The plots, as HTML."""
    if outcome.key == "round-trips":
        return _round_trips(outcome)
    if outcome.key == "scale":
        return _scale(outcome)
    if outcome.key == "own":
        return _own(outcome)
    plots = [_pairs(outcome)] if any(f.metric.startswith("throughput") for f in outcome.figures) else []
    for prefix in _BARS.get(outcome.key, ()):
        found = [f for f in outcome.figures if f.metric.startswith(prefix)]
        if found:
            plots.append(_figure(prefix, found[0].unit, _bars(found, prefix)))
    return "".join(plots) + _distributions(outcome)


def _bars(figures: Sequence[Figure], prefix: str) -> str:
    if len({f.metric for f in figures}) == 1:
        # One thing: its bars need no common label, so each can have its own.
        return svg.bars([svg.Group(f.target, [_bar(f)]) for f in figures], title=prefix, gap=2)
    groups = [
        svg.Group(metric.removeprefix(prefix).strip(":, ") or prefix, _group(figures, metric))
        for metric in dict.fromkeys(f.metric for f in figures)
    ]
    return svg.bars(groups, title=prefix)


def _group(
    figures: Sequence[Figure], metric: str, text: Callable[[Figure], str] = lambda f: digits(f.median)
) -> list[svg.Bar]:
    return [_bar(f, text(f)) for f in figures if f.metric == metric]


def _bar(figure: Figure, words: str = "") -> svg.Bar:
    return svg.Bar(figure.target, figure.median, words or digits(figure.median), figure.samples)


def _pairs(outcome: Outcome) -> str:
    """Throughput to the left, CPU for each statement to the right."""
    cpu = _CPU.get(outcome.key, "CPU")
    suffixes = [f.metric.removeprefix("throughput") for f in outcome.figures if f.metric.startswith("throughput")]
    groups = []
    for suffix in dict.fromkeys(suffixes):
        rows = []
        for figure in outcome.figures:
            if figure.metric == f"throughput{suffix}":
                used = outcome.find(f"{cpu}{suffix}", figure.target)
                rows.append(charts.Pair(figure.target, _bar(figure), _bar(used) if used is not None else None))
        groups.append(charts.PairGroup(suffix.strip(", "), rows))
    first = next(f for f in outcome.figures if f.metric.startswith("throughput"))
    each = "MB" if outcome.key == "bulk" else "statement or transaction"
    plot = charts.pairs(
        groups, title=outcome.title, left=f"throughput, {first.unit}", right=f"CPU of the proxy, µs for each {each}"
    )
    return _figure("throughput, with CPU", "dots are the rounds", plot)


def _distributions(outcome: Outcome) -> str:
    """A panel for each thing that was timed; where there are many, behind a line to be opened."""
    panels = []
    for metric in dict.fromkeys(f.metric for f in outcome.figures if f.detail.get("latencies")):
        series = [(f.target, f.detail["latencies"]) for f in outcome.figures if f.metric == metric]
        if max(len(line) for _, line in series) < _FEW:
            continue
        label = re.sub(r"^(p99|p50|time until all are served)( of connect and read)?,? ?", "", metric)
        panels.append(
            _figure(f"latency{': ' if label else ''}{label}", "", charts.curves(series, title=metric, unit="ms"))
        )
    if not panels:
        return ""
    shown, rest = panels[:_SHOWN], panels[_SHOWN:]
    more = f"<details><summary>{len(rest)} more</summary><div class=two>{''.join(rest)}</div></details>" if rest else ""
    return f"<div class=two>{''.join(shown)}</div>{more}"


_FEW = 5
"""With fewer values than that, a distribution says nothing that the dots do not."""
_SHOWN = 4


def _round_trips(outcome: Outcome) -> str:
    elapsed = [f for f in outcome.figures if f.metric.endswith(": elapsed")]
    goals = {goal.name: goal.limit - SLACK for goal in outcome.goals if goal.unit == TRIPS_BY_TIME}
    rows = []
    for metric in dict.fromkeys(f.metric for f in elapsed):
        name = metric.removesuffix(": elapsed")
        values = [(f.target, f.median) for f in elapsed if f.metric == metric]
        rows.append(charts.DotRow(name.replace("SQLAlchemy 2 + psycopg", "SQLAlchemy"), values, goals.get(name)))
    plot = charts.dots(rows, title="round trips", unit="round trips, by elapsed time")
    return _figure("round trips for each operation", "the mark: the goal for us without the cache", plot)


def _scale(outcome: Outcome) -> str:
    panels = []
    for prefix, unit in (("throughput", "1/s"), ("CPU", "µs"), ("p99", "ms")):
        series: dict[str, list[tuple[float, float]]] = {}
        for figure in outcome.figures:
            found = _CLIENTS.search(figure.metric)
            if found is not None and figure.metric[: found.start()] == prefix:
                series.setdefault(figure.target, []).append((float(found[1]), figure.median))
        plot = charts.lines(list(series.items()), title=prefix, x_unit="clients", unit=unit)
        title = {"CPU": "CPU of the proxy for each statement", "p99": "99th percentile of latency"}.get(prefix, prefix)
        panels.append(_figure(f"{title} by number of clients", "", plot))
    return f"<div class=two>{''.join(panels)}</div>"


def _own(outcome: Outcome) -> str:
    groups = [
        svg.Group(metric[:34], _group(outcome.figures, metric))
        for metric in dict.fromkeys(f.metric for f in outcome.figures)
    ]
    return _figure("time for each statement", "ms, medians; dots are the repeats", svg.bars(groups, title="own"))


def _figure(title: str, unit: str, plot: str) -> str:
    if not plot:
        return ""
    return f"<figure><figcaption>{escape(title)} <small>{escape(unit)}</small></figcaption>{plot}</figure>"
