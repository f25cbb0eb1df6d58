"""``python -m bench``: every workload in one run, side by side, with a JSON file and a report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench import report, round_trips
from bench.live import Live, table
from bench.machine import machine, versions
from bench.results import LATEST, Outcome, Run
from bench.suite import FULL, QUICK, Plan, Stopwatch, Suite, available, origin, usual_targets
from bench.targets import Us
from bench.workloads import bulk, forwarding, idle, workers

WORKLOADS: dict[str, Callable[[Suite], Outcome]] = {
    "select": forwarding.select_only,
    "updates": forwarding.updates,
    "connects": forwarding.connects,
    "busy": forwarding.busy,
    "idle": idle.idle,
    "bulk": bulk.bulk,
    "workers": workers.workers,
    "round-trips": round_trips.round_trips,
}


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(
        prog="python -m bench", description="Direct, us and PgBouncer side by side, on the same Postgres, in one run."
    )
    made.add_argument("--quick", action="store_true", help="short rounds, unpinned: a smoke test of about a minute")
    made.add_argument("--only", metavar="NAMES", help=f"some of: {', '.join(WORKLOADS)}")
    made.add_argument("--seconds", type=float, metavar="S", help="length of a round")
    made.add_argument("--rounds", type=int, metavar="N", help="rounds of each target")
    made.add_argument("--clients", type=int, metavar="N", help="idle clients")
    made.add_argument(
        "--pin",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="also measure with the proxy alone on one core, load and Postgres on the others",
    )
    made.add_argument("--floor", action="store_true", help="add a forwarder that decides nothing: what Python costs")
    made.add_argument(
        "--also", action="append", default=[], metavar="NAME=DIR", help="add us from another checkout, to try a change"
    )
    made.add_argument("--json", type=Path, default=LATEST, metavar="FILE", help="where the figures go")
    made.add_argument("--report", type=Path, metavar="FILE", help="where the page goes (default: beside the figures)")
    return made


def plan_of(options: argparse.Namespace) -> Plan:
    """How long and how often, from the arguments."""
    plan = QUICK if options.quick else FULL
    given = {
        "seconds": options.seconds,
        "rounds": options.rounds,
        "idle_clients": options.clients,
        "pin": options.pin,
    }
    return replace(plan, **{name: value for name, value in given.items() if value is not None})


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when everything ran, 1 when a workload broke; a goal that was missed is a finding and no failure."""
    made = parser()
    options = made.parse_args(arguments)
    names = options.only.split(",") if options.only else list(WORKLOADS)
    if unknown := [name for name in names if name not in WORKLOADS]:
        made.error(f"no such workload: {', '.join(unknown)}")
    live, watch = Live(), Stopwatch()
    command = shlex.join(["python", "-m", "bench", *(sys.argv[1:] if arguments is None else arguments)])
    run = Run(command, datetime.now(UTC).isoformat(timespec="seconds"), 0.0, machine(), versions())
    others = [option.partition("=") for option in options.also]
    candidates = usual_targets(floor=options.floor) + [Us(name, root=Path(place)) for name, _, place in others]
    targets, run.skipped = available(candidates)
    for line in run.skipped:
        live.say(f"skipped  {line}")
    for target in targets:
        if target.is_proxy:
            run.versions[target.name] = target.version()
    broken = 0
    with origin(live) as server:
        run.versions["PostgreSQL"] = server.execute("SHOW server_version")
        live.say(_head(run))
        suite = Suite(plan_of(options), live, server, targets)
        for name in names:
            try:
                outcome = WORKLOADS[name](suite)
            except Exception as error:  # one broken workload must not cost the others' figures
                broken += 1
                live.where = ""
                live.say(f"\n{name} broke: {type(error).__name__}: {error}")
                run.skipped.append(f"{name} broke: {type(error).__name__}: {str(error).splitlines()[0]}")
                continue
            run.outcomes.append(outcome)
            show(live, outcome)
            run.seconds = watch.seconds
            run.save(options.json)
    page = options.report or options.json.with_suffix(".html")
    report.write(run, page)
    live.say(f"\n{run.seconds:.0f} s; figures in {_shown(options.json)}, report in {_shown(page)}")
    return 1 if broken else 0


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _head(run: Run) -> str:
    named = "  ".join(f"{name} {version}" for name, version in run.versions.items())
    return f"{run.machine['processor']}, {run.machine['cores']} cores, load {run.machine['load before']}\n{named}"


def show(live: Live, outcome: Outcome) -> None:
    """Print the figures and goals of one workload."""
    live.say(f"\n{outcome.title}")
    if outcome.key == "round-trips":
        live.say(round_trips.show(outcome))
        for line in outcome.skipped:
            live.say(f"  skipped  {line}")
        return
    targets = list(dict.fromkeys(figure.target for figure in outcome.figures))
    metrics = list(dict.fromkeys((figure.metric, figure.unit) for figure in outcome.figures))
    rows: list[list[object]] = [["", *targets, "spread"]]
    for metric, unit in metrics:
        found = [outcome.find(metric, target) for target in targets]
        spread = max(figure.spread for figure in found if figure is not None)
        cells = [figure.median if figure is not None else "" for figure in found]
        rows.append([f"{metric} {unit}".strip(), *cells, f"±{spread:.0%}" if spread else ""])
    live.say(table(rows))
    for goal in outcome.goals:
        live.say(f"  {goal.verdict:6}  {goal.name}: {goal.value:.2f}, {goal.bound} {goal.limit:g} {goal.unit}".rstrip())
    for line in outcome.skipped:
        live.say(f"  skipped  {line}")
