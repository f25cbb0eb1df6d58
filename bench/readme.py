"""The tables of the README, from a run: ``python -m bench readme`` writes them between two markers and leaves the rest alone."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import promises
from bench.intervals import interval
from bench.live import figure as digits
from bench.machine import ROOT
from bench.results import LATEST, Goal, Outcome, Run, load
from bench.targets import SHORT_SCRAM
from bench.text import reach, rows_of_trips

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
_ELSEWHERE = next(iter(promises.SECTIONS)), next(reversed(promises.SECTIONS))
_COLUMNS = ("direct", "PgBouncer", "us", "us, cached")


@dataclass(frozen=True, slots=True)
class Claim:
    """A row of the first table: a metric in milliseconds, and which of our targets is held against direct."""

    metric: str
    ours: str
    claimed: str = ""
    """What Cloudflare's Hyperdrive claimed at its launch."""


_KINDS = (
    ("read", "us", "6–8×"),
    ("write", "us", "6–8×"),
    ("cached read", "us, cached", "17–25×"),
)


def tables(run: Run) -> str:
    """Everything between the markers."""
    head = (
        f"Measured {run.started[:10]} at commit {run.versions.get('commit', 'unknown')} on {run.machine.get('processor', '')}, "
        f"{run.machine.get('cores', '')} cores, by `{run.command}`{_compiled(run)}{_busy(run)}. Medians; `us` is with the cache off."
    )
    parts = [head]
    for key in ("serverless", "launch"):
        if (outcome := run.find(key)) is not None and outcome.figures:
            parts += [f"**{outcome.title[:1].upper()}{outcome.title[1:]}.** {outcome.about}", _claims(outcome)]
    if (trips := run.find("round-trips")) is not None:
        parts += [f"**Round trips per operation.** {trips.about}", _trips(trips)]
    met = promises.summary(promises.rows(run))
    parts += [f"**What was promised, and what came out: {met}.** The interval is of 95 %.", _goals(run)]
    if run.repeated:
        parts.append(run.repeated + ".")
    return "\n\n".join(part for part in parts if part)


def _compiled(run: Run) -> str:
    """Whether the part in C was used, which makes another proxy of it."""
    said = run.versions.get("compiled", "")
    return f", {'with' if said.startswith('yes') else 'without'} the [part in C](docs/compiled.md)" if said else ""


def _busy(run: Run) -> str:
    """What else the machine did, since a reader cannot see it from the figures."""
    before, after = (run.machine.get(f"load {when}", "").split(" ")[0] for when in ("before", "after"))
    return f", load average {before} before and {after} after it" if before and after else ""


def _claims(outcome: Outcome) -> str:
    columns = [name for name in _COLUMNS if any(f.target == name for f in outcome.figures)]
    rows = [["milliseconds", *columns, "faster than direct", "with `scram_iterations = 1`", "target", "at launch"]]
    goals = {goal.name: goal for goal in outcome.goals}
    for metric in dict.fromkeys(f.metric for f in outcome.figures):
        program, _, kind = metric.partition(": ")
        ours, claimed = next(((ours, said) for name, ours, said in _KINDS if name == kind), ("us", ""))
        cells = [_cell(outcome, metric, target) for target in columns]
        is_cached = kind == "cached read"
        plain = f"{program}: read" if is_cached else metric
        times = [_times(outcome, plain, metric, target) for target in (ours, SHORT_SCRAM)]
        goal = goals.get(metric if is_cached else f"{program}: uncached {kind}")
        rows.append([metric, *cells, *times, *_verdict(goal), claimed])
    return markdown(rows)


def _times(outcome: Outcome, direct: str, metric: str, target: str) -> str:
    """How many times faster than direct, with the interval."""
    ratio = outcome.ratio(direct, "direct", target, under_metric=metric)
    if not ratio:
        return "–"
    low, high = interval(ratio)
    return f"**{digits(statistics.median(ratio))}×** ({digits(low)} – {digits(high)})"


def _verdict(goal: Goal | None) -> list[str]:
    return [f"≥ {goal.limit:g}×, {goal.verdict}" if goal is not None else ""]


def _cell(outcome: Outcome, metric: str, target: str) -> str:
    found = outcome.find(metric, target)
    return digits(found.median) if found is not None else "–"


def _trips(outcome: Outcome) -> str:
    return markdown([[str(cell) for cell in row] for row in rows_of_trips(outcome)])


def _goals(run: Run) -> str:
    rows = [["", "figure", "here", "interval", "target", ""]]
    for row in promises.rows(run):
        # The others have their own tables. Whoever measures a part writes the tables of that part.
        if row.goal is not None and row.section not in _ELSEWHERE:
            here = digits(float(row.goal.value))
            rows.append([row.workload, row.name, here, reach(row.goal), row.bound, row.verdict])
    return markdown(rows) if len(rows) > 1 else ""


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table, the first being the head."""
    lines = ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _cells(row: Sequence[str]) -> Iterator[str]:
    return (cell.replace("|", "\\|") for cell in row)


def replaced(text: str, tables: str) -> str:
    """*text* with *tables* between its markers.

    Raises:
        ValueError: it has no markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables of a run into the README; 2 when it has no place for them."""
    parser = argparse.ArgumentParser(prog="python -m bench readme", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", default=LATEST, help="figures of a run (default: the latest)")
    parser.add_argument("--into", type=Path, default=ROOT / "README.md", metavar="FILE")
    parser.add_argument("--print", action="store_true", help="print them and change nothing")
    options = parser.parse_args(arguments)
    made = tables(load(options.file))
    if options.print:
        print(made)
        return 0
    try:
        options.into.write_text(replaced(options.into.read_text(), made))
    except ValueError as error:
        print(f"{options.into}: {error}")
        return 2
    return 0
