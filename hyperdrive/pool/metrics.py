"""What a pool counts, as plain attributes. Rendered elsewhere as ``hyperdrive_pool_<name>[_total]``."""

from __future__ import annotations

from dataclasses import dataclass, field

from hyperdrive.pool.interfaces import CloseReason


@dataclass(slots=True)
class PoolMetrics:
    """Counters only; gauges are lengths, taken when asked (``Pool.snapshot``)."""

    #: takers that had to queue
    waits: int = 0
    #: their time in the queue, however it ended
    wait_seconds: float = 0.0
    #: takers refused at their deadline
    timeouts: int = 0
    #: takers refused for another cause: the origin refused the login, shutdown
    refusals: int = 0
    #: servers opened, seconds that took, and attempts that failed
    opened: int = 0
    open_seconds: float = 0.0
    connect_failures: int = 0
    #: servers closed, by reason
    closed: dict[CloseReason, int] = field(default_factory=dict)
    #: health checks begun
    probes: int = 0

    def count_closed(self, reason: str) -> None:
        """Count under *reason*, or under OTHER when it is free text."""
        try:
            label = CloseReason(reason)
        except ValueError:
            label = CloseReason.OTHER
        self.closed[label] = self.closed.get(label, 0) + 1
