"""What the proxy counts, as plain attributes; rendered elsewhere as ``hyperdrive_<name>``."""

from __future__ import annotations

from dataclasses import dataclass, field

from hyperdrive.errors import HyperdriveError, Kind


@dataclass(slots=True)
class ProxyMetrics:
    """Counters of one process."""

    #: servers that answered what nobody asked; must stay 0 (``hyperdrive_ledger_mismatch_total``)
    ledger_mismatches: int = 0
    #: reads sent once more because their server was lost before the first byte came back
    reads_retried: int = 0
    #: clients let in, and turned away at the door
    clients_admitted: int = 0
    clients_refused: int = 0
    #: cancel requests that named a client of ours, and that did not
    cancels: int = 0
    cancels_unknown: int = 0
    #: errors told to clients, by kind
    errors: dict[Kind, int] = field(default_factory=dict)

    def count_error(self, error: HyperdriveError) -> None:
        """Count *error* under its kind."""
        self.errors[error.kind] = self.errors.get(error.kind, 0) + 1
