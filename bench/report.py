"""A run as one page to look at: self-contained HTML with plots, goals first.

Everything on it comes from the JSON: ``python -m bench report FILE.json`` makes it again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from bench import svg
from bench.live import figure as digits
from bench.results import LATEST, Figure, Goal, Outcome, Run, load
from bench.style import STYLE

# Plots by workload; what is not named here gets the table alone. Metrics are matched by their beginning.
_PLOTS = {
    "select": ("throughput", "CPU,"),
    "updates": ("throughput", "CPU"),
    "connects": ("throughput", "CPU"),
    "busy": ("throughput", "CPU"),
    "idle": ("memory per idle client", "logins"),
    "bulk": ("throughput", "CPU per MB"),
    "workers": ("capacity", "throughput"),
}


def write(run: Run, path: Path) -> None:
    """Write the page to *path*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(run))


def page(run: Run) -> str:
    """The whole page."""
    sections = "".join(map(_section, run.outcomes))
    targets = list(dict.fromkeys(f.target for o in run.outcomes for f in o.figures if "," not in f.target))
    facts = {**run.machine, **run.versions, "command": run.command, "took": f"{run.seconds:.0f} s"}
    list_of_facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    skipped = "".join(f"<li>{escape(line)}</li>" for line in run.skipped)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Hyperdrive bench, {escape(run.started)}</title><style>{STYLE}</style><main>"
        f"<h1>Hyperdrive bench</h1><p class=sub>{escape(run.started)} · {escape(run.versions.get('commit', ''))}</p>"
        f"<p class=legend>{svg.legend(targets)}</p>"
        f"{_goals(run)}"
        f"{f'<h2>Left out</h2><ul>{skipped}</ul>' if skipped else ''}"
        f"{sections}<h2>Machine and versions</h2><dl>{list_of_facts}</dl>"
        "<p class=sub>Bars are medians over the rounds, dots the rounds. Rounds of different targets alternate; ratios are taken "
        "between rounds that lie next to each other.</p></main></html>"
    )


def _goals(run: Run) -> str:
    rows = [(outcome, goal) for outcome in run.outcomes for goal in outcome.goals]
    if not rows:
        return ""
    met = sum(goal.is_met for _, goal in rows)
    body = "".join(
        f"<tr><td>{escape(outcome.title)}</td><td>{escape(goal.name)}</td><td class=n>{digits(goal.value)}</td>"
        f"<td class=n>{_range(goal)}</td><td>{escape(f'{goal.bound} {goal.limit:g} {goal.unit}'.strip())}</td>"
        f'<td><b class="{"met" if goal.is_met else "missed"}">{escape(goal.verdict)}</b></td></tr>'
        for outcome, goal in rows
    )
    return (
        f"<h2>What was promised: {met} of {len(rows)} met</h2><div class=scroll><table><tr><th>workload<th>figure<th>here"
        f"<th>rounds<th>goal<th></tr>{body}</table></div>"
    )


def _range(goal: Goal) -> str:
    return f"{digits(float(min(goal.samples)))} – {digits(float(max(goal.samples)))}" if len(goal.samples) > 1 else ""


def _section(outcome: Outcome) -> str:
    plots = _round_trips(outcome) if outcome.key == "round-trips" else _plots(outcome)
    skipped = "".join(f"<li>{escape(line)}</li>" for line in outcome.skipped)
    return (
        f"<section><h2>{escape(outcome.title)}</h2><p>{escape(outcome.about)}</p>{plots}"
        f"{f'<ul>{skipped}</ul>' if skipped else ''}"
        f"<details><summary>all figures</summary>{_table(outcome)}</details></section>"
    )


def _plots(outcome: Outcome) -> str:
    parts = []
    for prefix in _PLOTS.get(outcome.key, ()):
        figures = [f for f in outcome.figures if f.metric.startswith(prefix)]
        if figures:
            parts.append(_figure(prefix.rstrip(","), figures[0].unit, _bars(figures, prefix)))
    for metric in dict.fromkeys(f.metric for f in outcome.figures if "latencies" in f.detail):
        label = metric.removeprefix("p99").strip(", ")
        lines = [(f.target, f.detail["latencies"]) for f in outcome.figures if f.metric == metric]
        parts.append(_figure(f"latency{': ' if label else ''}{label}", "", svg.curves(lines, title=metric, unit="ms")))
    return "".join(parts)


def _bars(figures: Sequence[Figure], prefix: str) -> str:
    return svg.bars(
        [
            svg.Group(metric.removeprefix(prefix).strip(", ") or prefix.rstrip(","), _group(figures, metric))
            for metric in dict.fromkeys(f.metric for f in figures)
        ],
        title=prefix,
    )


def _group(
    figures: Sequence[Figure], metric: str, text: Callable[[Figure], str] = lambda f: digits(f.median)
) -> list[svg.Bar]:
    return [svg.Bar(f.target, f.median, text(f), f.samples) for f in figures if f.metric == metric]


def _round_trips(outcome: Outcome) -> str:
    elapsed = [f for f in outcome.figures if f.metric.endswith(": elapsed")]
    limits = {goal.name: goal.limit for goal in outcome.goals}
    groups = []
    for metric in dict.fromkeys(f.metric for f in elapsed):
        name = metric.removesuffix(": elapsed")
        groups.append(
            svg.Group(name.replace("SQLAlchemy 2 + psycopg", "SQLAlchemy"), _group(elapsed, metric), limits.get(name))
        )
    return _figure("round trips by elapsed time", "the mark: at most this", svg.bars(groups, title="round trips"))


def _figure(title: str, unit: str, plot: str) -> str:
    return (
        f"<figure><figcaption>{escape(title)} <small>{escape(unit)}</small></figcaption>{plot}</figure>" if plot else ""
    )


def _table(outcome: Outcome) -> str:
    targets = list(dict.fromkeys(f.target for f in outcome.figures))
    head = "".join(f"<th>{escape(target)}" for target in targets)
    rows = []
    for metric, unit in dict.fromkeys((f.metric, f.unit) for f in outcome.figures):
        cells = []
        for target in targets:
            found = outcome.find(metric, target)
            spread = f" <small>±{found.spread:.0%}</small>" if found is not None and len(found.samples) > 1 else ""
            cells.append(f"<td class=n>{digits(found.median) if found is not None else ''}{spread}</td>")
        rows.append(f"<tr><td>{escape(metric)} <small>{escape(unit)}</small></td>{''.join(cells)}</tr>")
    return f"<div class=scroll><table><tr><th>{head}</tr>{''.join(rows)}</table></div>"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the page of a run again."""
    parser = argparse.ArgumentParser(prog="python -m bench report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", default=LATEST)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    path = options.output or options.file.with_suffix(".html")
    write(load(options.file), path)
    print(path)
    return 0
