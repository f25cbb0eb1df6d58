"""Counting, and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum

from hyperdrive.metrics import Family, Registry, Saved, TrafficMetrics, add_up, counter


class Reason(Enum):
    OLD = "old"


@dataclass(slots=True)
class PoolLike:
    #: Clients that
    #: had to queue
    waits: int = 0
    wait_seconds: float = counter("Time in the queue")
    closed: dict[Reason, int] = field(default_factory=dict)


def by_name(families: list[Family]) -> dict[str, Family]:
    return {family.name: family for family in families}


def test_attributes_become_families() -> None:
    registry, metrics = Registry(), TrafficMetrics()
    registry.add(metrics)
    metrics.queries_hit += 2
    metrics.queries_bypass += 1
    metrics.origin_round_trips_saved[Saved.BEGIN] += 3
    found = by_name(registry.families())
    queries = found["hyperdrive_queries_total"].samples
    assert queries == {(("cache", how),): n for how, n in [("hit", 2), ("stale", 0), ("miss", 0), ("bypass", 1)]}
    assert found["hyperdrive_origin_round_trips_saved_total"].samples == {(("how", "begin"),): 3}
    assert found["hyperdrive_stale_hits_total"].samples == {(): 0}


def test_the_names_that_the_contract_promises_exist() -> None:
    registry = Registry()
    registry.add(TrafficMetrics())
    promised = {"queries", "origin_round_trips", "origin_round_trips_saved", "stale_hits"}
    assert {f"hyperdrive_{name}_total" for name in promised} <= set(by_name(registry.families()))


def test_every_family_of_ours_is_documented() -> None:
    registry = Registry()
    registry.add(TrafficMetrics())
    assert [family.name for family in registry.families() if not family.doc] == []
    assert all(one.metadata for one in fields(TrafficMetrics))


def test_several_sources_add_up_and_one_that_leaves_is_remembered() -> None:
    registry, first, second = Registry(), PoolLike(waits=1, closed={Reason.OLD: 1}), PoolLike(waits=2)
    registry.add(first, "pool")
    registry.add(second, "pool")
    for _ in range(2):
        found = by_name(registry.families())
        assert found["hyperdrive_pool_waits_total"].samples == {(): 3}
        assert found["hyperdrive_pool_closed_total"].samples == {(("reason", "old"),): 1}
        assert found["hyperdrive_pool_wait_seconds_total"].doc == "Time in the queue"
        assert found["hyperdrive_pool_waits_total"].doc == "Clients that had to queue"
        registry.remove(first)


def test_a_gauge_is_asked_each_time() -> None:
    registry, idle = Registry(), [1, 2]
    registry.gauge("pool_servers", "Server connections", lambda: {(("state", "idle"),): len(idle)})
    registry.gauge("clients", "Clients", lambda: 7)
    idle.append(3)
    found = by_name(registry.families())
    assert found["hyperdrive_pool_servers"].samples == {(("state", "idle"),): 3}
    assert (found["hyperdrive_clients"].kind, found["hyperdrive_clients"].samples) == ("gauge", {(): 7})


def test_processes_add_up() -> None:
    registries = [Registry(), Registry()]
    for registry in registries:
        registry.add(PoolLike(waits=2), "pool")
    total = by_name(add_up(r.families() for r in registries))
    assert total["hyperdrive_pool_waits_total"].samples == {(): 4}
