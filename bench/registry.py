"""The workloads by name, in the order in which they run, and how long each takes.

The seconds are counted from rounds and waits, for two quiet cores; their sum is what a run announces, and a test holds it at about ten
minutes, and below two where time is short. A busy machine takes longer: then rounds are left out, see ``Suite.interleaved``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench import round_trips
from bench.results import Outcome
from bench.suite import FULL, QUICK, Plan, Suite
from bench.workloads import (
    bulk,
    drivers,
    forwarding,
    freshness,
    hits,
    idle,
    pages,
    serverless,
    storm,
    verdicts,
    web,
    workers,
)

START_SECONDS = 6.0
"""For the origin with its tables, and for ending everything."""


@dataclass(frozen=True, slots=True)
class Workload:
    """How it is run, and the seconds it takes."""

    run: Callable[[Suite], Outcome]
    full: float
    quick: float

    def expected(self, plan: Plan) -> float:
        """Seconds under *plan*, about: what is longer is taken to be so in everything."""
        usual = FULL if plan.is_thorough else QUICK
        factor = plan.seconds * plan.rounds / (usual.seconds * usual.rounds)
        return (self.full if plan.is_thorough else self.quick) * max(1.0, factor)


WORKLOADS: dict[str, Workload] = {
    "serverless": Workload(serverless.serverless, 68, 6),
    "launch": Workload(serverless.launch, 18, 4),
    "round-trips": Workload(round_trips.round_trips, 60, 9),
    "pages": Workload(pages.pages, 26, 5),
    "mix": Workload(web.mix, 32, 6),
    "writes": Workload(web.writes, 27, 5),
    "hits": Workload(hits.hits, 63, 9),
    "aggregate": Workload(hits.aggregate, 20, 3),
    "misses": Workload(hits.misses, 17, 3),
    "stampede": Workload(freshness.stampede, 24, 4),
    "invalidation": Workload(freshness.invalidation, 10, 2),
    "staleness": Workload(freshness.staleness, 36, 6),
    "verdicts": Workload(verdicts.verdicts, 3, 1),
    "select": Workload(forwarding.select_only, 60, 6),
    "updates": Workload(forwarding.updates, 28, 4),
    "connects": Workload(forwarding.connects, 5, 3),
    "storm": Workload(storm.storm, 10, 4),
    "drivers": Workload(drivers.drivers, 18, 5),
    "scale": Workload(web.scale, 28, 5),
    "busy": Workload(forwarding.busy, 10, 3),
    "idle": Workload(idle.idle, 17, 6),
    "bulk": Workload(bulk.bulk, 16, 4),
    "workers": Workload(workers.workers, 16, 5),
}

_FIRST = (
    "serverless",
    "hits",
    "select",
    "round-trips",
    "misses",
    "aggregate",
    "verdicts",
    "idle",
    "workers",
    "stampede",
)
_NOT_QUICK = ("updates", "connects")
"""``select`` and ``storm`` say nearly the same."""

QUICK_ORDER = (*_FIRST, *(name for name in WORKLOADS if name not in (*_FIRST, *_NOT_QUICK)))
"""Where two minutes are to be enough: on a busy machine the last are left out."""


def expected(names: Iterable[str], plan: Plan) -> float:
    """Seconds of a run of *names*."""
    return START_SECONDS + sum(WORKLOADS[name].expected(plan) for name in names)
