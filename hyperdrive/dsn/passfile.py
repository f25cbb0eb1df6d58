"""Password files (libpq-pgpass)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hyperdrive.dsn.keywords import SOCKET_DIRECTORIES
from hyperdrive.dsn.values import Dsn
from hyperdrive.errors import ConfigError


def password_from_file(path: str, dsn: Dsn) -> str | None:
    """The password for *dsn* in the password file *path* (libpq-pgpass), or ``None``.

    The first line that matches host, port, database and user wins; ``*`` matches anything.

    Raises:
        ConfigError: the file cannot be read, or others may read it, in which case libpq ignores it too.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"passfile: cannot read {path!r}: {exc}") from exc
    if mode & 0o077:
        raise ConfigError(f"passfile: {path!r} may be read by others; it needs permissions u=rw (0600) or less")
    for place in dsn.hosts:
        host = "localhost" if place.is_unix and place.host in SOCKET_DIRECTORIES else place.host
        wanted = (host, str(place.port), dsn.database, dsn.user)
        for line in lines:
            if line and not line.startswith("#"):
                parts = _passfile_fields(line)
                if len(parts) == 5 and all(p in ("*", w) for p, w in zip(parts[:4], wanted, strict=True)):
                    return parts[4]
    return None


def _passfile_fields(line: str) -> list[str]:
    """Split at colons that no backslash protects."""
    return [re.sub(r"\\(.)", r"\1", part) for part in re.findall(r"(?:^|:)((?:[^:\\]|\\.)*)", line)]
