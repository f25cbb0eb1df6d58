"""Who gets which server connection: pools per database and user, their limits and their upkeep.

Knows servers and takers by the few questions of ``interfaces``; knows no SQL, no message and no socket.
"""

from hyperdrive.pool.acquire import acquire
from hyperdrive.pool.interfaces import CloseReason, Phase, Pooled, PoolKey, Server, ServerState, Taker
from hyperdrive.pool.limits import Limits, LimitSettings
from hyperdrive.pool.metrics import PoolMetrics
from hyperdrive.pool.pool import Pool
from hyperdrive.pool.pools import Pools
from hyperdrive.pool.settings import PoolMode, PoolSettings

__all__ = [
    "CloseReason",
    "LimitSettings",
    "Limits",
    "Phase",
    "Pool",
    "PoolKey",
    "PoolMetrics",
    "PoolMode",
    "PoolSettings",
    "Pooled",
    "Pools",
    "Server",
    "ServerState",
    "Taker",
    "acquire",
]
