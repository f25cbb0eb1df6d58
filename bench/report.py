"""A run as one page to look at: self-contained HTML, what was promised first, then plots.

Everything on it comes from the JSON: ``python -m bench report FILE.json`` makes it again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bench import charts, plots, svg
from bench.live import figure as digits
from bench.results import LATEST, Goal, Outcome, Run, load
from bench.style import STYLE

_CHAPTERS = {
    "Over a distance": ("serverless", "launch", "round-trips", "pages"),
    "The cache": ("hits", "aggregate", "misses", "stampede", "invalidation", "staleness", "verdicts"),
    "Web work": ("mix", "writes", "drivers"),
    "Forwarding": ("select", "updates", "connects", "scale"),
    "Under load": ("storm", "busy", "idle", "bulk", "workers"),
}
_FOLDED = "round-trips"
_USUAL = ("direct", "us", "us, cached", "PgBouncer", "Pgpool-II")


def write(run: Run, path: Path) -> None:
    """Write the page to *path*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(run))


def page(run: Run) -> str:
    """The whole page."""
    chapters = _chapters(run)
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name, _ in chapters)
    shown = {figure.target for outcome in run.outcomes for figure in outcome.figures}
    keys = svg.legend([name for name in _USUAL if name in shown])
    body = "".join(
        f'<h2 id="{_anchor(name)}">{escape(name)}</h2>{"".join(map(_section, outcomes))}' for name, outcomes in chapters
    )
    facts = " · ".join([run.started[:16].replace("T", " "), run.versions.get("commit", ""), _machine(run)])
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Hyperdrive bench, {escape(run.started)}</title><style>{STYLE}</style>"
        f"<header><div><h1>Hyperdrive, measured</h1><p class=sub>{escape(facts)}</p></div></header><main>"
        f'<div class=bar><a href="#goals">Goals</a>{links}<a href="#how">How</a><span class=keys>{keys}</span></div>'
        f"{_cards(run)}{_goals(run)}{body}{_how(run)}</main></html>"
    )


def _machine(run: Run) -> str:
    return f"{run.machine.get('processor', '')}, {run.machine.get('cores', '?')} cores"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _chapters(run: Run) -> list[tuple[str, list[Outcome]]]:
    """The outcomes in chapters; one that no chapter knows comes last."""
    found = []
    for name, keys in _CHAPTERS.items():
        outcomes = [outcome for key in keys if (outcome := run.find(key)) is not None]
        if outcomes:
            found.append((name, outcomes))
    known = {key for keys in _CHAPTERS.values() for key in keys}
    rest = [outcome for outcome in run.outcomes if outcome.key not in known]
    return [*found, *([("More", rest)] if rest else [])]


def _cards(run: Run) -> str:
    """The few figures that one would tell somebody."""
    cards = []
    for key, where in (("serverless", ""), ("launch", ", as at the launch of Hyperdrive")):
        outcome = run.find(key)
        for metric, target, what in (
            ("read", "us", "uncached read"),
            ("write", "us", "write"),
            ("cached read", "us, cached", "cached read"),
        ):
            ratios = sorted(_first_ratio(outcome, metric, target)) if outcome is not None else []
            if ratios:
                words = f"{what} on a new connection, against a direct one{where}"
                cards.append((f"{digits(ratios[len(ratios) // 2])}×", "faster", words))
        if cards:
            break
    goals = [goal for outcome in run.outcomes for goal in outcome.goals]
    if goals:
        met = sum(goal.is_met for goal in goals)
        cards.append((f"{met}/{len(goals)}", "goals met", "each with its figure below, those that were missed too"))
    made = "".join(
        f"<div class=card><b>{escape(big)}</b><span>{escape(what)}</span><small>{escape(more)}</small></div>"
        for big, what, more in cards
    )
    return f"<div class=cards>{made}</div>" if made else ""


def _first_ratio(outcome: Outcome, kind: str, target: str) -> list[float]:
    metric = next((f.metric for f in outcome.figures if f.metric.endswith(f": {kind}")), "")
    direct = metric.replace(": cached read", ": read")
    return outcome.ratio(direct, "direct", target, under_metric=metric)


def _goals(run: Run) -> str:
    outcomes = [outcome for outcome in run.outcomes if outcome.goals]
    if not outcomes:
        return ""
    every = [goal for outcome in outcomes for goal in outcome.goals]
    met = sum(goal.is_met for goal in every)
    head = "<tr><th>figure<th><th class=n>here<th class=n>rounds<th>goal<th></tr>"
    # Many of a kind, which have their plot: behind a line to be opened.
    folded = "".join(
        f"<details><summary>{escape(outcome.title)}: {sum(g.is_met for g in outcome.goals)} of {len(outcome.goals)} met</summary>"
        f"<div class=scroll><table>{head}{''.join(map(_goal, outcome.goals))}</table></div></details>"
        for outcome in outcomes
        if outcome.key == _FOLDED
    )
    body = "".join(
        f"<tr><td class=group colspan=6>{escape(outcome.title)}</td></tr>{''.join(map(_goal, outcome.goals))}"
        for outcome in outcomes
        if outcome.key != _FOLDED
    )
    table = f"<div class=scroll><table>{head}{body}</table></div>" if body else ""
    repeated = f"<p class=sub>{escape(run.repeated)}.</p>" if run.repeated else ""
    return f"<h2 id=goals>What was promised: {met} of {len(every)} met</h2>{repeated}{table}{folded}"


def _goal(goal: Goal) -> str:
    kind = "met" if goal.is_met else "missed"
    sign = "✓" if goal.is_met else "✗"
    bullet = charts.bullet(goal.value, goal.limit, is_met=goal.is_met)
    bound = f"{goal.bound} {goal.limit:g} {goal.unit}".strip()
    note = f"<br><small>{escape(goal.note)}</small>" if goal.earlier else ""
    return (
        f"<tr><td>{escape(goal.name)}{note}</td><td>{bullet}</td><td class=n>{digits(float(goal.value))}</td>"
        f"<td class=n>{_range(goal)}</td><td>{escape(bound)}</td>"
        f'<td><b class="{kind}">{sign} {escape(goal.verdict)}</b></td></tr>'
    )


def _range(goal: Goal) -> str:
    low, high = goal.interval
    return f"{digits(float(low))} – {digits(float(high))}" if low != high else ""


def _section(outcome: Outcome) -> str:
    skipped = "".join(f"<li>{escape(line)}</li>" for line in outcome.skipped)
    return (
        f"<section><h3>{escape(outcome.title)}</h3><p class=sub>{escape(outcome.about)}</p>{plots.of(outcome)}"
        f"{f'<ul>{skipped}</ul>' if skipped else ''}"
        f"<details><summary>all figures</summary>{_table(outcome)}</details></section>"
    )


def _table(outcome: Outcome) -> str:
    targets = list(dict.fromkeys(f.target for f in outcome.figures))
    head = "".join(f"<th class=n>{escape(target)}" for target in targets)
    rows = []
    for metric, unit in dict.fromkeys((f.metric, f.unit) for f in outcome.figures):
        cells = []
        for target in targets:
            found = outcome.find(metric, target)
            spread = f" <small>±{found.spread:.0%}</small>" if found is not None and len(found.samples) > 1 else ""
            cells.append(f"<td class=n>{digits(found.median) if found is not None else ''}{spread}</td>")
        rows.append(f"<tr><td>{escape(metric)} <small>{escape(unit)}</small></td>{''.join(cells)}</tr>")
    return f"<div class=scroll><table><tr><th>{head}</tr>{''.join(rows)}</table></div>"


def _how(run: Run) -> str:
    facts = {**run.machine, **run.versions, "command": run.command, "took": f"{run.seconds:.0f} s"}
    list_of_facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    skipped = "".join(f"<li>{escape(line)}</li>" for line in run.skipped)
    return (
        "<h2 id=how>How it was measured</h2><p>Bars are medians over the rounds, dots the rounds. Rounds of different targets alternate, "
        "each begins with another; ratios are taken between rounds that lie next to each other. CPU is what the operating system counted "
        "for each process.</p>"
        f"{f'<h3>Left out</h3><ul>{skipped}</ul>' if skipped else ''}<h3>Machine and versions</h3><dl>{list_of_facts}</dl>"
    )


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
