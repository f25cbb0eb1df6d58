"""What a pool needs of servers and of the clients that wait for one, and the words they share.

The proxy implements ``Server`` and ``Taker``; this package never imports it. Whoever holds a server in state ACTIVE owns
it alone; in every other state the pool does.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple, Protocol, TypeVar

from hyperdrive.errors import HyperdriveError


class PoolKey(NamedTuple):
    """One pool per database and user."""

    database: str
    user: str

    def __str__(self) -> str:
        return f"{self.database}/{self.user}"


class ServerState(Enum):
    """Where a server is. A state is entered by being moved to its collection, in ``pool.py`` only."""

    NEW = "new"  # not yet adopted
    IDLE = "idle"  # on the stack
    ACTIVE = "active"  # lent to a taker
    RETIRING = "retiring"  # lent, and closed when it comes back
    PROBING = "tested"  # a Sync is under way; PgBouncer calls it so
    CLOSED = "closed"  # forgotten by the pool


class Phase(Enum):
    """What the pool as a whole does."""

    RUNNING = "running"
    PAUSED = "paused"  # clients wait, servers in use come back and are closed, none is opened
    DRAINING = "draining"  # servers in use come back and are closed; only clients in a transaction are lent one
    CLOSED = "closed"


class CloseReason(StrEnum):
    """Why a server was closed; the label of ``hyperdrive_pool_closed_total``. A ``str``, so that it is its own text."""

    LIFETIME = "server_lifetime"
    IDLE_TIMEOUT = "server_idle_timeout"
    PROBE_MISSED = "server did not answer the check"
    MADE_ROOM = "made room for another pool"
    RECONNECT = "RECONNECT"
    PAUSE = "PAUSE"
    SHUTDOWN = "shutdown"
    UNUSED = "pool unused"
    REMOVED = "pool is too large"
    ORIGIN_CLOSED = "origin closed the connection"
    LEDGER = "origin answered what nobody asked"
    CLIENT_LEFT = "client left it unclean"
    KILLED = "KILL"
    HANDOVER = "hand-over failed"
    FAULT = "internal error"
    OTHER = "other"


class Server(Protocol):
    """A server connection, logged in. Compared and hashed by identity. The attributes are set by the pool alone."""

    pool_state: ServerState
    born_at: float  # all on the pool's clock, in seconds
    used_at: float  # last release
    checked_at: float  # last answer to a probe
    expires_at: float
    answer_by: float  # deadline of the probe under way

    def probe(self) -> None:
        """Send a Sync; answer later with ``pool.probed(self)``, or ``pool.discard(self, reason)`` when it breaks."""

    def close(self, reason: str) -> None:
        """Close the connection. The pool has forgotten it already; calling ``discard`` from here does nothing."""


class Pooled:
    """The attributes of ``Server`` as slots, for server classes to inherit."""

    __slots__ = ("answer_by", "born_at", "checked_at", "expires_at", "pool_state", "used_at")

    def __init__(self) -> None:
        self.pool_state = ServerState.NEW
        self.born_at = self.used_at = self.checked_at = self.expires_at = self.answer_by = 0.0


S = TypeVar("S", bound=Server)
S_contra = TypeVar("S_contra", bound=Server, contravariant=True)


class Taker(Protocol[S_contra]):
    """A client in the queue. Compared and hashed by identity."""

    @property
    def is_in_transaction(self) -> bool:
        """It wants the server for a transaction that has begun without one: a pool that drains lets it finish (W-63)."""

    def offer(self, server: S_contra) -> bool:
        """Take *server* over, at once; ``False`` means that the taker is gone and the giver keeps it."""

    def refuse(self, error: HyperdriveError) -> None:
        """The wait is over without a server. *error* may be shared with other takers."""
