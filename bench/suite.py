"""What every workload needs: the origin, the targets, how long to measure, and where to tell about it."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from bench import text
from bench.distance import Distance, Link, Tls, distance
from bench.live import Live
from bench.origin import trusting, with_password
from bench.readiness import await_hits
from bench.results import Outcome
from bench.targets import (
    CACHED,
    Address,
    Direct,
    Floor,
    Missing,
    Odyssey,
    PgBouncer,
    PgCat,
    PgDog,
    Pgpool,
    Running,
    Target,
    Us,
)
from hyperdrive.localserver import LocalServer

AWAY = Link(40.0)
HUNDRED = Link(50.0)
LEAST_ROUNDS = 3
"""However late it is: the interval of two rounds says nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often."""

    seconds: float = 1.0
    """Of one round of one target: short and many, since what disturbs a machine comes and goes."""
    rounds: int = 5
    """Of what is promised and close."""
    idle_clients: int = 10_000
    busy_clients: int = 2_000
    storm_clients: int = 500
    pin: bool = True
    """Measure pinned to cores as well."""
    link: Link = AWAY
    """How far the origin is, where a workload is about distance."""
    trips_link: Link = HUNDRED
    """For the table of round trips."""
    repeats: int = 2
    """Of each operation over a distance, after the first."""
    requests: int = 5
    """Requests on new connections over a distance, of each kind."""
    limit_seconds: float = math.inf
    """So long the whole run may take; what has no time left is left out, with a line."""
    is_thorough: bool = True
    """Measure every protocol and driver; otherwise one of each."""

    @property
    def few(self) -> int:
        """Rounds of what is promised and far from its limit: enough for an interval."""
        return min(3, self.rounds)

    @property
    def shown(self) -> int:
        """Rounds of what is shown and not promised."""
        return min(2, self.rounds)


QUICK = Plan(
    seconds=1.0,
    rounds=1,
    idle_clients=1_000,
    busy_clients=500,
    storm_clients=200,
    pin=False,
    link=Link(10.0),
    trips_link=Link(10.0),
    requests=1,
    repeats=1,
    limit_seconds=112.0,
    is_thorough=False,
)
FULL = Plan()


@dataclass(slots=True)
class Suite:
    """One run under way. ``with`` ends what it started; targets and distances are shared by the workloads until then."""

    plan: Plan
    live: Live
    origin: LocalServer
    targets: list[Target]
    skipped: list[str] = field(default_factory=list)
    late_after: float = math.inf
    """When, on ``time.monotonic``, the machine is known to be busy: no further rounds begin beyond the first few."""
    _stack: ExitStack = field(default_factory=ExitStack)
    _started: dict[tuple[Target, int], Running] = field(default_factory=dict)
    _away: dict[Tls | None, Distance] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.now("ending what was started")
        for running in self._started.values():
            for pid in running.roots:  # all at once; then one waits for each
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGTERM)
        self._stack.close()

    @property
    def proxies(self) -> list[Target]:
        """All but direct."""
        return [target for target in self.targets if target.is_proxy]

    @property
    def forwarders(self) -> list[Target]:
        """Those that answer nothing themselves: direct, us without the cache, poolers."""
        return [target for target in self.targets if target.name not in (CACHED, Pgpool.name)]

    @property
    def usual(self) -> list[Target]:
        """All but Pgpool-II, which gives each client a process and is here for its cache."""
        return [target for target in self.targets if target.name != Pgpool.name]

    @property
    def origin_pids(self) -> list[int]:
        return [self.origin.pid] if self.origin.pid is not None else []

    @property
    def address(self) -> Address:
        """The origin without a password."""
        return trusting(self.origin)

    def running(self, targets: Sequence[Target], origin: Address | None = None) -> list[Running]:
        """All of *targets* in front of *origin*, started when they are first asked for.

        What does not start is left out, with a line.
        """
        address = origin or self.address
        new = [target for target in targets if (target, address.port) not in self._started]
        if new:
            self.live.now(f"starting {', '.join(target.name for target in new)}")
            with ThreadPoolExecutor(len(new)) as pool:
                for target, outcome in zip(new, pool.map(lambda one: self._begin(one, address), new), strict=True):
                    self._keep(target, address, outcome)
        return [self._started[target, address.port] for target in targets if (target, address.port) in self._started]

    def _begin(self, target: Target, address: Address) -> _Begun | Missing | RuntimeError:
        """Start it, and wait until it is ready; in a thread."""
        with ExitStack() as stack:  # whatever happens until it is ready, it does not stay behind
            try:
                running = stack.enter_context(target.start(address))
                no_hit = await_hits(running) if _has_cache(target) else None
            except (Missing, RuntimeError) as reason:
                return reason
            except Exception as error:  # one target must not cost the others their figures
                return RuntimeError(f"{type(error).__name__}: {error}")
            return _Begun(stack.pop_all(), running, no_hit)

    def _keep(self, target: Target, address: Address, outcome: _Begun | Missing | RuntimeError) -> None:
        if not isinstance(outcome, _Begun):
            self.skip(_why(target, outcome))
            return
        self._stack.push(outcome.context)
        self._started[target, address.port] = outcome.running
        if outcome.no_hit is not None:
            self.skip(f"{target.name}: no hit in time, {outcome.no_hit}")

    @contextmanager
    def alone(self, target: Target, origin: Address) -> Iterator[Running | None]:
        """*target* started anew and ended afterwards; ``None``, with a line, when it does not start."""
        with ExitStack() as stack:
            self.live.now(f"starting {target.name}")
            try:
                running = stack.enter_context(target.start(origin))
            except (Missing, RuntimeError) as reason:
                self.skip(_why(target, reason))
                running = None
            if running is not None:
                self._await_cache(target, running)
            yield running

    def _await_cache(self, target: Target, running: Running) -> None:
        if _has_cache(target):
            self.live.now(f"{target.name}: waiting for the first hit")
            if (reason := await_hits(running)) is not None:
                self.skip(f"{target.name}: no hit in time, {reason}")

    def skip(self, reason: str) -> None:
        """Remember what was left out, once."""
        line = " ".join(reason.split())
        if line not in self.skipped:
            self.skipped.append(line)
            self.live.say(f"  skipped  {line}")

    def far(self, *, tls: Tls | None = "1.3") -> Distance:
        """The origin at a distance: with *tls* and a password, as one that is far away is reached."""
        if tls not in self._away:
            address = with_password(self.origin) if tls else self.address
            self._away[tls] = self._stack.enter_context(distance(address, self.plan.link, tls=tls))
        return self._away[tls]

    def interleaved(
        self, outcome: Outcome, running: Sequence[Running], rounds: int, label: str = ""
    ) -> Iterator[tuple[int, Running]]:
        """Rounds over all targets, told about; every round begins with another, so that none always has the quiet moment."""
        self.live.board = lambda: text.figures(outcome)
        for number in range(rounds):
            if number >= LEAST_ROUNDS and time.monotonic() > self.late_after:
                self.live.where = ""
                outcome.skipped.append(f"rounds beyond {number} of {rounds}{label}: the machine is busy, time is over")
                return
            shift = number % max(1, len(running))
            for target in [*running[shift:], *running[:shift]]:
                self.live.where = f"{outcome.title}{label}, {target.name}, round {number + 1}/{rounds}"
                self.live.now("…")
                yield number, target
        self.live.where = ""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A target that was started; *no_hit* says why its cache is not ready."""

    context: AbstractContextManager[object]
    running: Running
    no_hit: str | None


def _has_cache(target: Target) -> bool:
    return isinstance(target, Us) and bool(target.cache)


def _why(target: Target, reason: Exception) -> str:
    """What stands in the report; a program that did not start says why at the end of its log."""
    if isinstance(reason, Missing):
        return str(reason)
    lines = [line for line in str(reason).splitlines() if line.strip()] or ["nothing was said"]
    return f"{target.name} did not start: {lines[-1]}"


def available(candidates: Sequence[Target]) -> tuple[list[Target], list[str]]:
    """Those that are installed, and a line for each that is not."""
    found: list[Target] = []
    missing: list[str] = []
    for target in candidates:
        try:
            target.version()
            found.append(target)
        except Missing as reason:
            missing.append(str(reason))
    return found, missing


def usual_targets(*, floor: bool = False) -> list[Target]:
    """Whatever a user would pick between; *floor* adds the forwarder that decides nothing."""
    rivals = [PgBouncer(), Pgpool(), Odyssey(), PgCat(), PgDog()]
    return [Direct(), Us(), Us(CACHED, cache=True), *rivals, *([Floor()] if floor else [])]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
