"""What several commands need: settings from the usual places, and an origin as a driver takes it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from hyperdrive.config import Loader, Settings, loader_for
from hyperdrive.config.settings import MEANINGS
from hyperdrive.dsn import Dsn

# What asyncpg understands in a URL; anything else it would send to the server as a setting.
_DRIVER_KEYS = frozenset(
    [
        "sslmode",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslrootcert",
        "sslcrl",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "sslnegotiation",
    ]
)


def loader(options: argparse.Namespace) -> Loader:
    """Where the settings of this command come from; flags are those that were given."""
    flags = {key: getattr(options, key) for key in MEANINGS if getattr(options, key, None) is not None}
    return loader_for(options.config, flags)


def settings(options: argparse.Namespace) -> Settings:
    """The settings themselves.

    Raises:
        ConfigError: with every mistake.
    """
    return loader(options).load()


def driver_arguments(dsn: Dsn, connect_seconds: float) -> Mapping[str, Any]:
    """The arguments of ``asyncpg.connect`` for *dsn*."""
    first = dsn.hosts[0]
    query = dict(parse_qsl(dsn.url(with_password=True).partition("?")[2]))
    kept = urlencode({key: value for key, value in query.items() if key in _DRIVER_KEYS and key != "sslnegotiation"})
    return {
        "dsn": f"postgresql:///?{kept}",
        "host": [place.host if place.is_unix else place.address for place in dsn.hosts]
        if dsn.hosts[1:]
        else first.host,
        "port": [place.port for place in dsn.hosts] if dsn.hosts[1:] else first.port,
        "user": dsn.user,
        "password": dsn.password,
        "database": dsn.database,
        "timeout": dsn.connect_timeout or connect_seconds,
        "direct_tls": dsn.sslnegotiation == "direct",
        # The origin may itself be a pooler that cannot keep prepared statements.
        "statement_cache_size": 0,
    }


def say(text: str = "") -> None:
    """A line on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def table(rows: list[tuple[object, ...]]) -> str:
    """Rows as columns; numbers to the right. The first row is the head."""
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    numeric = [all(isinstance(row[i], int) for row in rows[1:]) and len(rows) > 1 for i in range(len(widths))]
    return "\n".join(
        "  ".join(t.rjust(w) if n else t.ljust(w) for t, w, n in zip(line, widths, numeric, strict=True)).rstrip()
        for line in texts
    )
