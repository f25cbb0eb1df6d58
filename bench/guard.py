"""A guard for the figures that repeat: ``python -m bench guard`` fails when one of ours became worse than what is checked in.

Guarded are round trips, counted at the origin's side, which are the same on every machine; and CPU per query in parts of PgBouncer's
in the same run, which is nearly so. Throughput and latency depend on the machine and what else it does, and are not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import run as bench_run
from bench.intervals import interval
from bench.live import table
from bench.results import LATEST, Outcome, Run, load
from bench.targets import CACHED, US

BASELINE = Path(__file__).parent / "baseline.json"
CPU_TOLERANCE = 0.15
"""Two runs on a busy machine differ by about a tenth."""
_CPU_WORKLOADS = ("select", "updates", "hits")


@dataclass(frozen=True, slots=True)
class Guarded:
    """A figure where less is better; *tolerance* is in parts of the baseline."""

    value: float
    tolerance: float
    low: float | None = None
    """The lower end of its interval, where rounds give one."""

    def is_worse_than(self, baseline: Guarded) -> bool:
        """Beyond the tolerance, and not because the rounds of a busy machine are all over the place."""
        surely = self.low is None or self.low > baseline.value
        return surely and self.value > baseline.value * (1 + baseline.tolerance)


def guarded(run: Run) -> dict[str, Guarded]:
    """The figures of *run* that repeat."""
    found: dict[str, Guarded] = {}
    for outcome in run.outcomes:
        if outcome.key == "round-trips":
            found.update(_trips(outcome))
        elif outcome.key in _CPU_WORKLOADS:
            found.update(_cpu(outcome, is_compiled=run.versions.get("compiled", "").startswith("yes")))
    return found


def _trips(outcome: Outcome) -> Iterator[tuple[str, Guarded]]:
    for figure in outcome.figures:
        if figure.metric.endswith(": counted") and figure.target in (US, CACHED):
            name = f"round trips: {figure.metric.removesuffix(': counted')} ({figure.target})"
            # The best: upkeep of a pool that falls into a repeat only adds.
            yield name, Guarded(min(figure.samples), 0.0)


def _cpu(outcome: Outcome, *, is_compiled: bool) -> Iterator[tuple[str, Guarded]]:
    how = ", compiled" if is_compiled else ""  # the one says nothing about the other
    for figure in outcome.figures:
        if not figure.metric.startswith("CPU,") or figure.target not in (US, CACHED):
            continue
        ratios = outcome.ratio(figure.metric, figure.target, "PgBouncer")
        if ratios:
            name = f"{figure.metric} of {outcome.title} in parts of PgBouncer's ({figure.target}{how})"
            yield name, Guarded(statistics.median(ratios), CPU_TOLERANCE, interval(ratios)[0])


def read(path: Path = BASELINE) -> dict[str, Guarded]:
    """The baseline."""
    plain: Mapping[str, Mapping[str, float]] = json.loads(path.read_text())
    return {name: Guarded(entry["value"], entry["tolerance"]) for name, entry in plain.items()}


def write(figures: Mapping[str, Guarded], path: Path = BASELINE) -> None:
    """Make *figures* the baseline."""
    plain = {name: {"value": round(g.value, 3), "tolerance": g.tolerance} for name, g in sorted(figures.items())}
    path.write_text(json.dumps(plain, indent=1) + "\n")


def _measured() -> Run:
    """A run of what is guarded, in rounds like those of a full run, from which the baseline comes; some minutes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        path = Path(name) / "guard.json"
        only = ",".join(("round-trips", *_CPU_WORKLOADS))
        bench_run.main(["--only", only, "--distance", "10", "--json", str(path)])
        return load(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """1 when a guarded figure became worse."""
    parser = argparse.ArgumentParser(prog="python -m bench guard", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        nargs="?",
        const=LATEST,
        metavar="FILE",
        help="judge a run that was made (default: the latest) instead of making one",
    )
    parser.add_argument("--baseline", type=Path, default=BASELINE, metavar="FILE")
    parser.add_argument("--update", action="store_true", help="make what is measured the baseline")
    options = parser.parse_args(arguments)
    if not options.update and not options.baseline.exists():
        print(f"there is no {options.baseline}: make it with --update, from a run that is good")
        return 2
    figures = guarded(load(options.source) if options.source else _measured())
    if options.update:
        write(figures, options.baseline)
        print(f"{len(figures)} figures are the baseline now")
        return 0
    baseline = read(options.baseline)
    worse = [name for name in baseline if name in figures and figures[name].is_worse_than(baseline[name])]
    if worse:
        rows = [[name, baseline[name].value, figures[name].value] for name in worse]
        print(table([["became worse", "baseline", "now"], *rows]))
    gone = [name for name in baseline if name not in figures]
    for name in gone:
        print(f"not measured here: {name}")
    print(f"{len(baseline) - len(worse) - len(gone)} of {len(baseline)} guarded figures are as good as they were")
    return 1 if worse else 0
