"""What changed between two runs: ``python -m bench compare A.json B.json``.

Promised figures come first, most of them ratios taken within a run, since they survive another machine: each is said to agree (within
a tenth, or because the intervals of the two runs overlap) or to differ, with a sentence for all. Of the rest a change counts when the
ranges of both runs' rounds do not overlap and the medians differ by more than ``NOISE``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import promises, report
from bench.live import table
from bench.repeat import Pair, pairs, said, widen
from bench.results import Run, load
from bench.text import reach

NOISE = 0.05
_LOWER_IS_BETTER = ("CPU", "memory", "p50", "p99", "errors", "share", ": elapsed", ": counted", ": first time")


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in two runs."""

    workload: str
    metric: str
    target: str
    unit: str
    before: Sequence[float]
    after: Sequence[float]
    before_median: float
    after_median: float

    @property
    def factor(self) -> float:
        return self.after_median / self.before_median if self.before_median else float("inf")

    @property
    def is_certain(self) -> bool:
        """The rounds do not overlap, and it is more than noise."""
        apart = max(self.before) < min(self.after) or max(self.after) < min(self.before)
        return apart and abs(self.factor - 1) > NOISE

    @property
    def is_better(self) -> bool:
        lower = any(mark in self.metric for mark in _LOWER_IS_BETTER)
        return (self.factor < 1) == lower


def changes(before: Run, after: Run) -> Iterator[Change]:
    """Every figure of a target that both runs have."""
    for outcome in after.outcomes:
        earlier = before.find(outcome.key)
        if earlier is None:
            continue
        for figure in outcome.figures:
            found = earlier.find(figure.metric, figure.target)
            if found is not None:
                yield Change(
                    outcome.title,
                    figure.metric,
                    figure.target,
                    figure.unit,
                    found.samples,
                    figure.samples,
                    found.median,
                    figure.median,
                )


def _rows(found: Sequence[Change]) -> list[list[object]]:
    rows: list[list[object]] = [["workload", "figure", "target", "before", "after", "change", ""]]
    for change in found:
        verdict = ("better" if change.is_better else "worse") if change.is_certain else "within the rounds"
        moved = f"{change.factor - 1:+.0%}" if change.before_median else ""
        rows.append(
            [
                change.workload,
                f"{change.metric} {change.unit}".strip(),
                change.target,
                change.before_median,
                change.after_median,
                moved,
                verdict,
            ]
        )
    return rows


def _pair_rows(found: Sequence[Pair]) -> list[list[object]]:
    rows: list[list[object]] = [["promised", "", "before", "", "after", "", "difference", ""]]
    for pair in found:
        mine = [pair.before.value, reach(pair.before), pair.now.value, reach(pair.now)]
        name = f"{pair.now.name} {pair.now.unit}".strip()
        rows.append([pair.workload, name, *mine, f"{pair.difference:.0%}", pair.verdict])
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what changed; 1 when something of ours certainly became worse."""
    parser = argparse.ArgumentParser(prog="python -m bench compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument(
        "--widen",
        action="store_true",
        help="where they differ, widen the intervals of AFTER to both; its page is made again",
    )
    parser.add_argument("--all", action="store_true", help="also what did not change")
    options = parser.parse_args(arguments)
    before, after = load(options.before), load(options.after)
    for name in sorted({*before.versions, *after.versions, *before.machine, *after.machine}):
        old = before.versions.get(name, before.machine.get(name, ""))
        new = after.versions.get(name, after.machine.get(name, ""))
        if old != new:
            print(f"{name}: {old} → {new}")
    held = list(pairs(after, before))
    shown_pairs = [pair for pair in held if options.all or not pair.is_close]
    if shown_pairs:
        print(table(_pair_rows(shown_pairs)) + "\n")
    print(f"{said(held)}\n")
    if options.widen:
        widen(after, before)
        after.save(options.after, promises.plain(after))
        report.write(after, options.after.with_suffix(".html"))
    found = list(changes(before, after))
    shown = [change for change in found if options.all or change.is_certain]
    print(table(_rows(shown)) if shown else "no figure changed by more than its rounds differ")
    worse = [c for c in found if c.is_certain and not c.is_better and c.target.startswith("us")]
    return 1 if worse else 0
