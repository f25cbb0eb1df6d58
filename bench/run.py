"""``python -m bench``: every workload in one run, side by side, with a JSON file and a report."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench import promises, repeat, report, text
from bench.actors import JDBC, NODE_POSTGRES, PGX, PRISMA
from bench.distance import add_arguments, chosen
from bench.live import Live
from bench.machine import load, machine, versions
from bench.origin import origin
from bench.registry import QUICK_ORDER, START_SECONDS, WORKLOADS, expected
from bench.results import LATEST, Outcome, Run
from bench.suite import FULL, QUICK, Plan, Stopwatch, Suite, available, usual_targets
from bench.targets import Target, Us


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(
        prog="python -m bench", description="Direct, us and PgBouncer side by side, on the same Postgres, in one run."
    )
    made.add_argument(
        "--quick",
        action="store_true",
        help="short rounds, unpinned, the origin nearer: a smoke test in under two minutes",
    )
    made.add_argument("--only", metavar="NAMES", help=f"some of: {', '.join(WORKLOADS)}")
    made.add_argument("--seconds", type=float, metavar="S", help="length of a round")
    made.add_argument("--rounds", type=int, metavar="N", help="rounds of each target")
    made.add_argument("--clients", type=int, metavar="N", help="idle clients")
    add_arguments(made)
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
    if options.distance or options.jitter_ms or options.bandwidth:
        # One distance for everything that is about distance.
        plan = replace(plan, link=chosen(options, plan.link), trips_link=chosen(options, plan.trips_link))
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
    usual = list(QUICK_ORDER if options.quick else WORKLOADS)
    names = options.only.split(",") if options.only else usual
    if unknown := [name for name in names if name not in WORKLOADS]:
        made.error(f"no such workload: {', '.join(unknown)}")
    # Ended politely, everything that was started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        plan = plan_of(options)
    except ValueError as error:
        made.error(str(error))
    command = shlex.join(["python", "-m", "bench", *(sys.argv[1:] if arguments is None else arguments)])
    earlier = repeat.earlier_run(options.json)
    run = Run(command, datetime.now(UTC).isoformat(timespec="seconds"), 0.0, machine(), versions())
    run.distance = str(plan.link)
    others = [option.partition("=") for option in options.also]
    candidates = usual_targets(floor=options.floor) + [Us(name, root=Path(place)) for name, _, place in others]
    with Live() as live:
        _ready_programs(live)
        targets, run.skipped = available(candidates)
        for line in run.skipped:
            live.say(f"skipped  {line}")
        for target in targets:
            if target.is_proxy:
                run.versions[target.name] = target.version()
        live.say(_announced(names, plan))
        broken = _carry_out(run, plan, live, targets, names, options.json)
        if earlier is not None and repeat.is_like(run, earlier):
            repeat.widen(run, earlier)
            run.save(options.json, promises.plain(run))
            live.say(f"\n{run.repeated}")
        page = options.report or options.json.with_suffix(".html")
        report.write(run, page)
        live.say(f"\n{run.seconds:.0f} s; figures in {_shown(options.json)}, report in {_shown(page)}")
    return 1 if broken else 0


LATE_FACTOR = 1.5
"""A workload that takes so much longer than on a quiet machine begins no further rounds once it has enough for an interval."""


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


def _announced(names: Sequence[str], plan: Plan) -> str:
    count = f"{len(names)} workload{'s' if len(names) != 1 else ''}"
    return f"{count}, about {clock(expected(names, plan))} on two quiet cores ({START_SECONDS:.0f} s of it to start and end)"


def _pace(run: Run) -> float:
    """How many times longer than on a quiet machine it took so far, at least once."""
    expects = sum(outcome.expected for outcome in run.outcomes)
    return max(1.0, sum(outcome.seconds for outcome in run.outcomes) / expects) if expects else 1.0


def _no_time_for(name: str, plan: Plan, passed: float, pace: float = 1.0) -> str | None:
    """Why a workload has to be left out, where the whole has a limit."""
    if passed + pace * WORKLOADS[name].expected(plan) <= plan.limit_seconds:
        return None
    return f"{name}: the machine is busy, and {plan.limit_seconds:.0f} s were over"


def _ready_programs(live: Live) -> list[str]:
    """Install and compile the load programs that are not yet, so that no workload's time has it; say what cannot be had."""
    missing = []
    for program in (NODE_POSTGRES, PGX, JDBC, PRISMA):
        live.now(f"making the load program of {program.name} ready")
        if (reason := program.missing()) is not None:
            missing.append(f"{program.name}: {reason}")
    return missing


def prepare(arguments: Sequence[str] | None = None) -> int:
    """Make the load programs ready and measure nothing."""
    argparse.ArgumentParser(prog="python -m bench prepare", description=prepare.__doc__).parse_args(arguments)
    with Live() as live:
        for line in _ready_programs(live):
            live.say(f"skipped  {line}")
        live.say("ready")
    return 0


def _carry_out(run: Run, plan: Plan, live: Live, targets: list[Target], names: Sequence[str], path: Path) -> int:
    """Run the workloads one after another, saving after each; return how many broke."""
    broken, watch = 0, Stopwatch()
    with origin(live) as server, Suite(plan, live, server, targets) as suite:
        run.versions["PostgreSQL"] = server.execute("SHOW server_version")
        live.say(_head(run))
        for number, name in enumerate(names):
            left = sum(WORKLOADS[other].expected(plan) for other in names[number:])
            live.progress = f"{number + 1}/{len(names)}, {clock(left)} left"
            if (line := _no_time_for(name, plan, watch.seconds, _pace(run))) is not None:
                suite.skip(line)
                run.skipped.append(line)
                continue
            own, expects = Stopwatch(), WORKLOADS[name].expected(plan)
            suite.late_after = time.monotonic() + LATE_FACTOR * expects
            try:
                outcome = WORKLOADS[name].run(suite)
            except Exception as error:  # one broken workload must not cost the others' figures
                broken += 1
                live.where = ""
                live.say(f"\n{name} broke: {type(error).__name__}: {error}")
                run.skipped.append(f"{name} broke: {type(error).__name__}: {str(error).splitlines()[0]}")
                continue
            finally:
                live.board = None
            outcome.seconds, outcome.expected = round(own.seconds, 1), round(expects, 1)
            run.outcomes.append(outcome)
            run.skipped += [line for line in suite.skipped if line not in run.skipped]
            show(live, outcome)
            run.seconds = watch.seconds
            run.machine["load after"] = load()
            run.save(path, promises.plain(run))
        live.progress = ""
    return broken


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
    live.say(f"\n{outcome.title}  ({outcome.key}, {outcome.seconds:.0f} s, expected {outcome.expected:.0f})")
    live.say(text.figures(outcome))
    if outcome.key != "round-trips":
        for goal in outcome.goals:
            reach = f" ({found})" if (found := text.reach(goal)) else ""
            here = f"{goal.name}: {goal.value:.2f}{reach}, {goal.bound} {goal.limit:g} {goal.unit}"
            live.say(f"  {goal.verdict:6}  {here.rstrip()}")
    for line in outcome.skipped:
        live.say(f"  skipped  {line}")
