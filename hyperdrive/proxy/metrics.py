"""What the proxy counts, as plain attributes; rendered elsewhere as ``hyperdrive_<name>_total``."""

# ruff: noqa: RUF009 - counter() and counters_by() are fields

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hyperdrive.errors import HyperdriveError, Kind
from hyperdrive.metrics import Saved, counter, counters_by


@dataclass(slots=True)
class ProxyMetrics:
    """Counters of one process."""

    ledger_mismatches: int = counter(
        "Servers that answered what nobody asked; they were closed, and it must stay 0", family="ledger_mismatch"
    )
    reads_retried: int = counter("Reads sent once more because their server was lost before the first byte came back")
    clients_admitted: int = counter("Clients let in")
    clients_refused: int = counter("Clients turned away at the door")
    clients_timed_out: int = counter("Clients ended because they were idle for too long")
    clients_stalled: int = counter("Clients ended because they took nothing of what they were sent for too long")
    cancels: int = counter("Cancel requests that named a client of ours", family="cancel_requests", found="yes")
    cancels_unknown: int = counter("", family="cancel_requests", found="no")
    errors: Counter[Kind] = counters_by("kind", "Errors of ours told to clients, by kind")
    internal_errors: Counter[str] = counters_by(
        "where", "Faults of our own that ended a client's connection or a server's; each is logged, and it must stay 0"
    )

    def count_error(self, error: HyperdriveError) -> None:
        """Count *error* under its kind."""
        self.errors[error.kind] += 1


@dataclass(slots=True)
class ReadMetrics:
    """How the cache took part in what clients asked."""

    queries_hit: int = counter("Batches of clients, by how the cache took part", family="queries", cache="hit")
    queries_stale: int = counter("", family="queries", cache="stale")
    queries_miss: int = counter("", family="queries", cache="miss")
    queries_bypass: int = counter("", family="queries", cache="bypass")
    bypasses: Counter[str] = counters_by(
        "rule", "Batches in which the cache had no part, by rule", family="cache_bypasses"
    )
    stale_if_error: int = counter("Answers served beyond their age because the origin could not be reached")
    shadow_hits: int = counter("In shadow mode: answers that would have been served")
    shadow_saved_seconds: float = counter("In shadow mode: time of the origin that those would have saved")
    shadow_stale: int = counter("In shadow mode: answers that would have differed from the origin's")


@dataclass(slots=True)
class DatabaseMetrics:
    """What clients do with one database. The query path adds to two of them per batch, and to nothing else."""

    origin_round_trips: int = counter("Round trips to the origin that a client waited for; a pipeline counts once")
    released: int = counter(
        "Transactions that ended, single statements included; of a pipeline only the last one", family="transactions"
    )
    origin_round_trips_saved: Counter[Saved] = counters_by("how", "Round trips that were not needed, by reason")
    #: those after which a pinned client, or one in session pooling, kept its server
    kept: int = counter("", family="transactions")
    abandoned: int = counter("Clients that left while they had a server", family="servers_abandoned")
