"""The metrics in Prometheus' text format, and the gauges that come from the console's rows.

Knows prometheus-client, which knows the format; counting is done in ``metrics``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hyperdrive import __version__
from hyperdrive.metrics import Family, Labels, Registry
from hyperdrive.pool.snapshot import PoolSnapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Families(Protocol):
    """Where the metrics come from: a ``Registry``, or the sum of several."""

    def families(self) -> list[Family]: ...


class _Ours(Collector):
    def __init__(self, registry: Families) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.families():
            yield _metric(family)


def _metric(family: Family) -> Metric:
    names = [name for name, _ in next(iter(family.samples), ())]
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.doc, labels=names)
    for labels, value in family.samples.items():
        metric.add_metric([text for _, text in labels], value)
    return metric


class Exposition:
    """``render`` gives what ``/metrics`` answers: ours, and the process's memory, CPU and descriptors."""

    def __init__(self, registry: Families) -> None:
        self._all = CollectorRegistry(auto_describe=False)
        self._all.register(_Ours(registry))
        ProcessCollector(registry=self._all)

    def render(self) -> bytes:
        """The whole text."""
        return generate_latest(self._all)


class PoolRows(Protocol):
    """What the gauges are made from."""

    def pools(self) -> Iterable[PoolSnapshot]: ...
    def readiness(self) -> str: ...


def add_gauges(registry: Registry, state: PoolRows) -> None:
    """Gauges of clients, servers and pools, each asked for when somebody looks."""

    def clients() -> Mapping[Labels, float]:
        pools = list(state.pools())
        return {_state("active"): sum(p.cl_active for p in pools), _state("waiting"): sum(p.cl_waiting for p in pools)}

    def servers() -> Mapping[Labels, float]:
        pools = list(state.pools())
        return {
            _state(name): sum(getattr(p, f"sv_{name}") for p in pools)
            for name in ("active", "idle", "used", "tested", "login")
        }

    registry.gauge("clients", "Clients: with a server or nothing to ask, and waiting for a server", clients)
    registry.gauge("servers", "Server connections by state", servers)
    registry.gauge("pools", "Pools, one for each database and user in use", lambda: len(list(state.pools())))
    registry.gauge(
        "max_wait_seconds",
        "How long the client that has waited longest has waited",
        lambda: max((p.maxwait for p in state.pools()), default=0.0),
    )
    registry.gauge("ready", "1 if clients can be served", lambda: int(not state.readiness()))
    registry.gauge("build_info", "1; the label is the version", lambda: {(("version", __version__),): 1})


def _state(name: str) -> Labels:
    return (("state", name),)
