"""A run as one page to look at: self-contained HTML, what was promised first, then plots.

Everything on it comes from the JSON: ``python -m bench report FILE.json`` makes it again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bench import charts, headline, plots, promises, svg
from bench.live import figure as digits
from bench.promises import Row
from bench.results import LATEST, Goal, Outcome, Run, load
from bench.style import STYLE
from bench.targets import SHORT_SCRAM
from bench.text import reach

_CHAPTERS = {
    "Over a distance": ("serverless", "launch", "round-trips", "pages"),
    "The cache": ("hits", "aggregate", "misses", "stampede", "invalidation", "staleness", "verdicts"),
    "Web work": ("mix", "writes", "drivers"),
    "Forwarding": ("select", "updates", "connects", "scale"),
    "Under load": ("storm", "busy", "idle", "bulk", "workers"),
}
_FOLDED = ("Round trips (issue 3)", promises.BEYOND)
_USUAL = ("direct", "us", "us, cached", SHORT_SCRAM, "PgBouncer", "Pgpool-II")


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
        f"<header><div>{_head(run)}<p class=sub>{escape(facts)}</p></div></header><main>"
        f'<div class=bar><a href="#goals">Targets</a>{links}<a href="#how">How</a><span class=keys>{keys}</span></div>'
        f"{_cards(run)}{_goals(run)}{body}{_how(run)}</main></html>"
    )


def _head(run: Run) -> str:
    said = headline.sentence(run)
    more = f"<p class=lead>{escape(headline.setting(run))}</p>" if "×" in said else ""
    return f"<h1>{escape(said)}</h1>{more}"


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
    made = "".join(
        f"<div class=card><b>{escape(card.big)}</b><span>{escape(card.what)}</span><small>{escape(card.more)}</small></div>"
        for card in headline.cards(run)
    )
    return f"<div class=cards>{made}</div>" if made else ""


def _goals(run: Run) -> str:
    found = promises.rows(run)
    if not any(row.goal for row in found):
        return ""
    repeated = f"<p class=sub>{escape(run.repeated)}.</p>" if run.repeated else ""
    sections = [(name, [r for r in found if r.section == name]) for name in dict.fromkeys(r.section for r in found)]
    # Round trips are many of a kind and have their plot; what nobody promised comes after: behind lines to be opened.
    body = "".join(_rows_of(name, rows, is_open=name not in _FOLDED) for name, rows in sections)
    explained = (
        "The interval is where the figure lies with a probability of 95 %, from the rounds of this run; with one round there is none. "
        "A verdict is uncertain where the target lies inside it."
    )
    head = f"<h2 id=goals>Targets: {escape(promises.summary(found))}</h2>"
    return f"{head}{repeated}<p class=sub>{explained}</p>{body}"


def _rows_of(name: str, rows: Sequence[Row], *, is_open: bool) -> str:
    body = ""
    for workload in dict.fromkeys(row.workload for row in rows):
        mine = [row for row in rows if row.workload == workload]
        body += f"<tr><td class=group colspan=6>{escape(workload)}</td></tr>"
        body += "".join(_row(row, row.goal) for row in mine if row.goal is not None)
        missing = ", ".join(row.name for row in mine if row.goal is None)
        if missing:
            body += f"<tr><td colspan=6><small>{promises.NOT_MEASURED}: {escape(missing)}</small></td></tr>"
    opened = " open" if is_open and any(row.goal for row in rows) else ""
    return (
        f"<details class=targets{opened}><summary>{escape(name)}: {escape(promises.summary(rows))}</summary>"
        f"<div class=scroll><table>{_HEAD}{body}</table></div></details>"
    )


_HEAD = (
    "<colgroup><col><col style=width:134px><col style=width:76px><col style=width:112px><col style=width:232px>"
    "<col style=width:154px></colgroup>"
    "<tr><th>figure<th><th class=n>here<th class=n>interval<th>target<th></tr>"
)


def _row(row: Row, goal: Goal) -> str:
    kind = "met" if goal.is_met else "missed"
    sign = "✓" if goal.is_met else "✗"
    bullet = charts.bullet(goal.value, goal.limit, is_met=goal.is_met)
    note = f"<br><small>{escape(goal.note)}</small>" if goal.note and (goal.earlier or not goal.is_met) else ""
    return (
        f"<tr><td>{escape(row.name)}{note}</td><td>{bullet}</td><td class=n>{digits(float(goal.value))}</td>"
        f"<td class=n>{escape(reach(goal))}</td><td>{escape(row.bound)}</td>"
        f'<td><b class="{kind}">{sign} {escape(goal.verdict)}</b></td></tr>'
    )


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
