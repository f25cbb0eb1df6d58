"""What is compared: direct, us, and what a user would pick instead; each started fresh in front of an origin."""

from bench.targets.base import (
    DATABASE,
    HOST,
    MAX_CLIENTS,
    POOL_SIZE,
    USER,
    Address,
    Missing,
    Running,
    Target,
    await_port,
    end,
    free_port,
)
from bench.targets.others import Odyssey, PgCat, PgDog
from bench.targets.ours import CACHED, SHORT_SCRAM, SHORT_SCRAM_SAID, US, Direct, Floor, Us, knows, short_scram
from bench.targets.poolers import PgBouncer, Pgpool

__all__ = [
    "CACHED",
    "DATABASE",
    "HOST",
    "MAX_CLIENTS",
    "POOL_SIZE",
    "SHORT_SCRAM",
    "SHORT_SCRAM_SAID",
    "US",
    "USER",
    "Address",
    "Direct",
    "Floor",
    "Missing",
    "Odyssey",
    "PgBouncer",
    "PgCat",
    "PgDog",
    "Pgpool",
    "Running",
    "Target",
    "Us",
    "await_port",
    "end",
    "free_port",
    "knows",
    "short_scram",
]
