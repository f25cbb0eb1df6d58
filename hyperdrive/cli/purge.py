"""``hyperdrive purge``: drop stored answers of a running proxy. Exit code 0 when it did, even if nothing matched."""

from __future__ import annotations

import argparse
import http.client
import json

from hyperdrive.cli.common import say
from hyperdrive.cli.status import admin_address
from hyperdrive.config import Address
from hyperdrive.errors import ConfigError, NotReady

KINDS = ("table", "tag", "statement", "role")


def run(options: argparse.Namespace) -> int:
    """Purge, and say how much went."""
    wanted = {kind: getattr(options, kind) for kind in KINDS if getattr(options, kind) is not None}
    if len(wanted) + bool(options.all) != 1:
        raise ConfigError("purge: give one of --table, --tag, --statement, --role or --all")
    count = ask(admin_address(options), wanted or {"all": True})
    say(f"{count} {'answer' if count == 1 else 'answers'} dropped")
    return 0


def ask(address: Address, wanted: dict[str, object]) -> int:
    """How many answers the proxy at *address* has dropped.

    Raises:
        NotReady: nobody answers there, or it refuses.
    """
    host = "127.0.0.1" if address.host == "*" else address.host
    connection = http.client.HTTPConnection(host, address.port, timeout=10)
    try:
        connection.request("POST", "/api/purge", json.dumps(wanted), {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise NotReady(text.decode("utf-8", "replace").strip() or f"{address} answers {response.status}")
        return int(json.loads(text)["purged"])
    except (OSError, http.client.HTTPException, ValueError, KeyError) as exc:
        raise NotReady(f"no proxy answers at {address}: {exc}") from exc
    finally:
        connection.close()
