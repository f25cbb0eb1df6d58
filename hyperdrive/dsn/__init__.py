"""Connection strings as libpq understands them.

``text`` knows both forms, ``keywords`` what there is, ``values`` what comes of it; here it is checked and
completed. Opens no connection; the only file it ever reads is a password file that was named. The environment (libpq-envars) is
looked at only when the caller hands it in.

A keyword that libpq knows and we cannot carry out is an error rather than silently ignored, because some of them are
about security (``require_auth``, ``requirepeer``). Those that cannot matter to a proxy are in ``IGNORED``, with the reason.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NoReturn

from hyperdrive.dsn.keywords import (
    CHOICES,
    DEFAULT_PORT,
    ENVIRONMENT,
    IGNORED,
    KEYWORDS,
    NUMBERS,
    SOCKET_DIRECTORIES,
    TLS_VERSIONS,
    UNSUPPORTED,
)
from hyperdrive.dsn.passfile import password_from_file
from hyperdrive.dsn.text import parse_pairs
from hyperdrive.dsn.values import Dsn, Host
from hyperdrive.errors import ConfigError

__all__ = [
    "IGNORED",
    "KEYWORDS",
    "UNSUPPORTED",
    "Dsn",
    "Host",
    "dsn_from_pairs",
    "parse_dsn",
    "parse_pairs",
    "password_from_file",
]


def parse_dsn(
    text: str,
    *,
    env: Mapping[str, str] | None = None,
    os_user: Callable[[], str] = getpass.getuser,
    exists: Callable[[str], bool] = os.path.exists,
) -> Dsn:
    """Read a URI or keyword/value connection string.

    *env* is the environment whose ``PG*`` variables fill what *text* leaves out; by default none is looked at. Without
    a user the operating system's is taken, without a database the user's name, without a host the first usual directory
    in which a socket exists, otherwise ``localhost``: as in libpq, which fixes the directory when it is built.

    Raises:
        ConfigError: names the keyword at fault and what it may be.
    """
    return dsn_from_pairs(parse_pairs(text), env=env, os_user=os_user, exists=exists)


def dsn_from_pairs(
    pairs: Mapping[str, str],
    *,
    env: Mapping[str, str] | None = None,
    os_user: Callable[[], str] = getpass.getuser,
    exists: Callable[[str], bool] = os.path.exists,
) -> Dsn:
    """Check keywords and values and fill in defaults; see ``parse_dsn``."""
    given = {key: value for key, value in pairs.items() if value != ""}
    for variable, key in ENVIRONMENT.items():
        if env is not None and key not in pairs and env.get(variable):
            given[key] = env[variable]
    _refuse_unsupported(given)
    for key, choices in CHOICES.items():
        if key in given and given[key] not in choices:
            raise ConfigError(f"{key}: {given[key]!r} is not one of {', '.join(choices)}")
    numbers = {key: _number(key, given[key]) for key in NUMBERS if key in given}
    hosts = _hosts(given, exists)
    user = given.get("user") or os_user()
    # libpq: zero, negative or absent means to wait for ever.
    timeout = numbers.pop("connect_timeout", 0)
    plain = (
        "passfile",
        "options",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslcrl",
        "sslcrldir",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "channel_binding",
    )
    dsn = Dsn(
        hosts=hosts,
        user=user,
        database=given.get("dbname") or user,
        password=given.get("password"),
        application_name=given.get("application_name") or given.get("fallback_application_name", ""),
        connect_timeout=float(timeout) if timeout > 0 else None,
        sslsni=given.get("sslsni", "1") == "1",
        keepalives=given.get("keepalives", "1") == "1",
        **{key: given[key] for key in plain if key in given},  # type: ignore[arg-type]
        **numbers,  # type: ignore[arg-type]
    )
    if dsn.sslrootcert == "system" and "sslmode" not in given:
        dsn = replace(dsn, sslmode="verify-full")  # libpq changes the default together with it
    _check_combinations(dsn)
    return dsn


def _refuse_unsupported(given: Mapping[str, str]) -> None:
    for key, value in given.items():
        if key in UNSUPPORTED and value not in UNSUPPORTED[key]:
            allowed = UNSUPPORTED[key]
            right = f"only {' or '.join(allowed)}" if allowed else "leave it out"
            raise ConfigError(f"{key}: not supported towards the origin; {right}")


def _number(key: str, value: str) -> int:
    if not re.fullmatch(r"\s*[+-]?\d{1,9}\s*", value, re.ASCII):
        raise ConfigError(f"{key}: {value!r} is not a whole number")
    return int(value)


def _hosts(given: Mapping[str, str], exists: Callable[[str], bool]) -> tuple[Host, ...]:
    """Pair host, hostaddr and port up as libpq-connect#LIBPQ-MULTIPLE-HOSTS says."""
    addresses = given.get("hostaddr", "").split(",")
    names = given["host"].split(",") if "host" in given else [""] * len(addresses)
    if "hostaddr" not in given:
        addresses = [""] * len(names)
    if len(addresses) != len(names):
        raise ConfigError(f"hostaddr: {len(addresses)} addresses for {len(names)} hosts; give as many of each")
    ports = given.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise ConfigError(f"port: {len(ports)} ports for {len(names)} hosts; give one, or as many")
    return tuple(_place(n, a, p, exists) for n, a, p in zip(names, addresses, ports, strict=True))


def _place(name: str, address: str, port_text: str, exists: Callable[[str], bool]) -> Host:
    port = _number("port", port_text) if port_text else DEFAULT_PORT
    if not 0 < port < 65536:
        raise ConfigError(f"port: {port} is not between 1 and 65535")
    if not name and not address:
        usual = (d for d in SOCKET_DIRECTORIES if exists(f"{d}/.s.PGSQL.{port}"))
        name = next(usual, "localhost")
    return Host(name, port, address)


def _check_combinations(dsn: Dsn) -> None:
    def wrong(text: str) -> NoReturn:
        raise ConfigError(text)

    if dsn.sslnegotiation == "direct" and dsn.sslmode in ("disable", "allow", "prefer"):
        wrong(f"sslnegotiation: direct needs sslmode=require or stronger; sslmode is {dsn.sslmode}")
    if dsn.sslrootcert == "system" and dsn.sslmode != "verify-full":
        wrong(f"sslrootcert: system needs sslmode=verify-full; sslmode is {dsn.sslmode}")
    low, high = dsn.ssl_min_protocol_version, dsn.ssl_max_protocol_version
    if high and TLS_VERSIONS.index(low) > TLS_VERSIONS.index(high):
        wrong(f"ssl_min_protocol_version: {low} is above ssl_max_protocol_version {high}")
    if dsn.sslkey and not dsn.sslcert:
        wrong("sslkey: a key needs its certificate; give sslcert as well")
