"""What the cache counts, as plain attributes; rendered elsewhere as ``hyperdrive_cache_<name>_total``."""

from __future__ import annotations

from dataclasses import dataclass

from hyperdrive.metrics import counter


@dataclass(slots=True)
class CacheMetrics:
    """Counters of one process. What was hit or missed is counted where it is served."""

    stored: int = counter("Answers stored")
    evicted: int = counter("Entries that had to make room")
    expired: int = counter("Entries removed because of their age")
    dropped: int = counter("Entries removed because they were invalidated or purged")
    not_stored_raced: int = counter(
        "Answers that were given and not stored, by reason", family="not_stored", reason="raced"
    )
    not_stored_size: int = counter("", family="not_stored", reason="size")
    not_stored_admission: int = counter("", family="not_stored", reason="admission")
    not_stored_reply: int = counter("", family="not_stored", reason="reply")
    invalidations_tag: int = counter("Invalidations, by what was changed", family="invalidations", by="tag")
    invalidations_unknown: int = counter("", family="invalidations", by="unknown")
    invalidations_epoch: int = counter("", family="invalidations", by="epoch")
    invalidations_purge: int = counter("", family="invalidations", by="purge")
    flights_joined: int = counter("Misses that waited for somebody else's answer")
    refreshes: int = counter("Entries asked for again before or after they expired, behind the clients")


@dataclass(slots=True)
class SecondMetrics:
    """What was asked of the second level; rendered elsewhere as ``hyperdrive_second_level_<name>_total``."""

    asked: int = counter("Misses for which the second level was asked", family="questions")
    found: int = counter("Answers that it had, and that held", family="answers", is_fit="yes")
    unfit: int = counter("", family="answers", is_fit="no")
    late: int = counter("Questions that it did not answer in time")
    kept: int = counter("Answers that were given to it")
    losses: int = counter("Times that the connection to it was lost, or given up because it did not answer")
