"""Counters: plain attributes, documented where they are declared, rendered elsewhere (``admin.exposition``).

A package has a dataclass of counters and adds to its attributes: ``metrics.round_trips += 1`` costs no call. ``counter``
declares one with its text, or a comment ``#: …`` stands above it; a family with labels is either several attributes (hot paths) or one ``Counter`` keyed by an
enum. A gauge is a function that is asked when somebody looks, so it cannot drift.

``Registry`` joins those objects into families named ``hyperdrive_<noun>_<unit>[_total]``. Base units; labels from enums,
never SQL, users or addresses. What several sources count is added up, and a source that goes leaves its counts behind.
"""

# ruff: noqa: RUF009 - counter() and counters_by() are fields

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cache
from typing import Any, Literal

Labels = tuple[tuple[str, str], ...]
Reading = float | Mapping[Labels, float]


@dataclass(slots=True)
class Family:
    """One metric with all its labels, as it was when asked."""

    name: str
    kind: Literal["counter", "gauge"]
    doc: str
    samples: dict[Labels, float] = field(default_factory=dict)

    def add(self, labels: Labels, value: float) -> None:
        self.samples[labels] = self.samples.get(labels, 0) + value


def counter(doc: str, *, family: str = "", **labels: str) -> Any:
    """A counter of a metrics dataclass. *family* joins several attributes under one name, told apart by *labels*."""
    return field(default=0, metadata={"doc": doc, "family": family, "labels": tuple(sorted(labels.items()))})


def counters_by(label: str, doc: str, *, family: str = "") -> Any:
    """A family with one label, as a ``Counter`` keyed by an enum (or by a text from a closed list)."""
    return field(default_factory=Counter, metadata={"doc": doc, "family": family, "label": label})


class Saved(Enum):
    """Why a round trip was not needed; the label ``how`` of ``hyperdrive_origin_round_trips_saved_total``."""

    CONNECT = "connect"
    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    PARSE = "parse"
    DESCRIBE = "describe"
    SETTING = "setting"
    DISCARD = "discard"
    EMPTY = "empty"
    KNOWN = "known"
    CACHE = "cache"

    __hash__ = object.__hash__  # Enum's own is a Python function, and the query path counts


@dataclass(slots=True)
class TrafficMetrics:
    """What passes through and what it costs. Each attribute belongs to the family ``hyperdrive_<its name, or family>_total``."""

    queries_hit: int = counter("Statements answered, by how the cache took part", family="queries", cache="hit")
    queries_stale: int = counter("", family="queries", cache="stale")
    queries_miss: int = counter("", family="queries", cache="miss")
    queries_bypass: int = counter("", family="queries", cache="bypass")
    transactions: int = counter("Transactions that reached the origin, single statements included")
    origin_round_trips: int = counter("Round trips to the origin that a client waited for")
    origin_round_trips_saved: Counter[Saved] = counters_by("how", "Round trips that were not needed, by reason")
    stale_hits: int = counter("Answers older than their maximum age, served while being refreshed")
    client_received_bytes: int = counter("Bytes received", family="received_bytes", side="client")
    server_received_bytes: int = counter("", family="received_bytes", side="server")
    client_sent_bytes: int = counter("Bytes sent", family="sent_bytes", side="client")
    server_sent_bytes: int = counter("", family="sent_bytes", side="server")
    query_seconds: float = counter("Time servers spent on statements, seen from here")
    transaction_seconds: float = counter("Time servers were linked to clients")
    pins: Counter[Any] = counters_by("reason", "Times a client kept its server beyond its transaction, by reason")
    rollbacks: int = counter("Transactions that a client left open and we rolled back, keeping the server")


class Registry:
    """All that counts in this process."""

    def __init__(self) -> None:
        self._sources: dict[int, tuple[object, str]] = {}
        self._gauges: list[tuple[str, str, Callable[[], Reading]]] = []
        self._left: dict[str, Family] = {}

    def add(self, source: object, noun: str = "") -> None:
        """Count in *source*, a dataclass, from now on; *noun* goes ahead of its names (``pool``)."""
        self._sources[id(source)] = (source, noun)

    def remove(self, source: object) -> None:
        """*source* goes; what it counted stays, since a counter never falls."""
        found = self._sources.pop(id(source), None)
        if found is not None:
            _collect(*found, self._left)

    def gauge(self, name: str, doc: str, read: Callable[[], Reading]) -> None:
        """``hyperdrive_<name>`` is what *read* returns whenever asked: a number, or one for each set of labels."""
        self._gauges.append((f"hyperdrive_{name}", doc, read))

    def families(self) -> list[Family]:
        """Everything as it is now, sorted by name."""
        found = {name: Family(f.name, f.kind, f.doc, dict(f.samples)) for name, f in self._left.items()}
        for source, noun in self._sources.values():
            _collect(source, noun, found)
        for name, doc, read in self._gauges:
            reading = read()
            family = found.setdefault(name, Family(name, "gauge", doc))
            for labels, value in reading.items() if isinstance(reading, Mapping) else [((), reading)]:
                family.add(labels, value)
        return sorted(found.values(), key=lambda family: family.name)


def add_up(parts: Iterable[Iterable[Family]]) -> list[Family]:
    """The families of several processes as those of one."""
    found: dict[str, Family] = {}
    for part in parts:
        for family in part:
            total = found.setdefault(family.name, Family(family.name, family.kind, family.doc))
            for labels, value in family.samples.items():
                total.add(labels, value)
    return sorted(found.values(), key=lambda family: family.name)


def _collect(source: object, noun: str, found: dict[str, Family]) -> None:
    for one in fields(source):  # type: ignore[arg-type]  # a dataclass, as ``add`` asks
        value = getattr(source, one.name)
        if not isinstance(value, (int, float, Mapping)):
            continue
        middle = one.metadata.get("family") or one.name
        name = "_".join(part for part in ("hyperdrive", noun, middle, "total") if part)
        family = found.setdefault(name, Family(name, "counter", ""))
        family.doc = family.doc or one.metadata.get("doc") or _comments(type(source)).get(one.name, "")  # type: ignore[arg-type]
        if isinstance(value, Mapping):
            label = one.metadata.get("label", "reason")
            for key, count in value.items():
                family.add(((label, str(key.value if isinstance(key, Enum) else key)),), count)
        else:
            family.add(one.metadata.get("labels", ()), value)


@cache
def _comments(cls: type) -> dict[str, str]:
    """What the comments ``#: …`` above the attributes of *cls* say; one stands for all up to the next."""
    try:
        source = inspect.getsource(cls)
    except OSError:
        return {}
    found: dict[str, str] = {}
    doc: list[str] = []
    fresh = False
    for line in map(str.strip, source.splitlines()):
        if line.startswith("#:"):
            doc = [*(doc if fresh else []), line.removeprefix("#:").strip()]
            fresh = True
        elif match := re.match(r"(\w+)\s*:", line):
            found[match[1]] = " ".join(doc)
            fresh = False
    return found
