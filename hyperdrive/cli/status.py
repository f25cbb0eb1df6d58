"""``hyperdrive status``: ask a running proxy how it is. Exit code 0 if it can serve clients, 1 otherwise."""

from __future__ import annotations

import argparse
import http.client
import json
from typing import Any

from hyperdrive.cli.common import say, settings, table
from hyperdrive.config import Address
from hyperdrive.config.units import ADDRESS
from hyperdrive.errors import ConfigError, NotReady


def run(options: argparse.Namespace) -> int:
    """Print the state once."""
    status = fetch(admin_address(options))
    say(json.dumps(status, indent=2) if options.json else render(status))
    return 0 if status["ready"] else 1


def admin_address(options: argparse.Namespace) -> Address:
    """Where the admin HTTP of the proxy listens.

    Raises:
        ConfigError: nowhere, or the address is not one.
    """
    if options.admin:
        try:
            address = ADDRESS.read(options.admin)
        except ValueError:
            raise ConfigError(f"--admin: {options.admin!r} is wrong; expected {ADDRESS.right}") from None
    else:
        options.admin = None
        address = settings(argparse.Namespace(config=options.config)).admin_listen
    if not isinstance(address, Address):
        raise ConfigError("admin_listen: off, so there is nobody to ask; give --admin HOST:PORT")
    return address


def fetch(address: Address) -> dict[str, Any]:
    """The answer of ``/api/status``.

    Raises:
        NotReady: nobody answers there, or somebody else.
    """
    host = "127.0.0.1" if address.host == "*" else address.host
    connection = http.client.HTTPConnection(host, address.port, timeout=5)
    try:
        connection.request("GET", "/api/status")
        response = connection.getresponse()
        if response.status != 200:
            raise NotReady(f"{address} answers {response.status} {response.reason}: not a Hyperdrive, or too old")
        answer: dict[str, Any] = json.loads(response.read())
        return answer
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise NotReady(f"no proxy answers at {address}: {exc}") from exc
    finally:
        connection.close()


def render(status: dict[str, Any]) -> str:
    """The answer for people."""
    ready = "ready" if status["ready"] else "not ready: " + status["missing"]
    head = f"hyperdrive {status['version']}  {ready}  {status.get('compiled', '')}".rstrip()
    columns = ["cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_used", "sv_login"]
    names = ["clients", "waiting", "busy", "idle", "unchecked", "opening"]
    rows: list[tuple[object, ...]] = [("database", "user", "mode", *names, "wait s", "phase", "last error")]
    for pool in status["pools"]:
        counts = (int(pool[column]) for column in columns)
        wait = f"{pool['maxwait']:.1f}"
        rows.append(
            (pool["database"], pool["user"], pool["pool_mode"], *counts, wait, pool["phase"], pool["last_error"])
        )
    totals: list[tuple[object, ...]] = [("database", "transactions", "round trips")]
    columns = ["transactions", "round_trips"]
    totals += [(row["database"], *(row[column] for column in columns)) for row in status["stats"]]
    return "\n\n".join([head, table(rows), table(totals)])
