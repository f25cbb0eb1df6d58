"""Values that only our own settings have: which words may be chosen, connection strings, functions and the tables they touch."""

from __future__ import annotations

import re

from hyperdrive.config.units import NAMES, Kind, choice
from hyperdrive.dsn import Dsn, parse_dsn
from hyperdrive.net.redis import SCHEMES, without_password

CACHE = choice("on", "off", "shadow")
POOL_MODE = choice("transaction", "session", "statement")
EAGER = choice("off", "on", "always")
AUTH_METHOD = choice("scram", "md5", "password", "cert", "trust")
LOG_LEVEL = choice("debug", "info", "warning", "error")


def _origin(value: object) -> Dsn | None:
    if not isinstance(value, str):
        raise ValueError
    return parse_dsn(value) if value.strip() else None


def _functions(value: object) -> tuple[str, ...]:
    names: tuple[str, ...] = NAMES.read(value)
    if not all(_FUNCTION.fullmatch(name) for name in names):
        raise ValueError
    return names


_FUNCTION = re.compile(r"[^.=+\s]+\.[^=+\s]+(?:=[^.=+\s]+\.[^=+\s]+(?:\+[^.=+\s]+\.[^=+\s]+)*)?")
FUNCTIONS = Kind("functions", "schema.function or schema.function=schema.table+schema.table", _functions, NAMES.show)


def _second(value: object) -> str:
    if not isinstance(value, str) or (value and not value.startswith(SCHEMES)):
        raise ValueError
    return value


SECOND = Kind("URL", "redis://, rediss:// or unix://, such as redis://cache.internal:6379/0", _second, without_password)

ORIGIN = Kind(
    "connection string",
    "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or host=… user=…",
    _origin,
    lambda d: str(d or ""),
)
