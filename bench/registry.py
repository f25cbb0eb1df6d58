"""The workloads by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable

from bench import round_trips
from bench.results import Outcome
from bench.suite import Suite
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

WORKLOADS: dict[str, Callable[[Suite], Outcome]] = {
    "serverless": serverless.serverless,
    "launch": serverless.launch,
    "round-trips": round_trips.round_trips,
    "pages": pages.pages,
    "mix": web.mix,
    "writes": web.writes,
    "hits": hits.hits,
    "aggregate": hits.aggregate,
    "misses": hits.misses,
    "stampede": freshness.stampede,
    "invalidation": freshness.invalidation,
    "staleness": freshness.staleness,
    "verdicts": verdicts.verdicts,
    "select": forwarding.select_only,
    "updates": forwarding.updates,
    "connects": forwarding.connects,
    "storm": storm.storm,
    "drivers": drivers.drivers,
    "scale": web.scale,
    "busy": forwarding.busy,
    "idle": idle.idle,
    "bulk": bulk.bulk,
    "workers": workers.workers,
}

NOT_QUICK = ("updates", "connects")
"""Left out where two minutes are to be enough: ``select`` and ``storm`` say nearly the same."""
