"""``hyperdrive top``: the state of a running proxy, again and again, until interrupted."""

from __future__ import annotations

import argparse
import sys
import time

from hyperdrive.cli.common import say
from hyperdrive.cli.status import admin_address, fetch, render
from hyperdrive.errors import ConfigError, NotReady

_CLEAR = "\x1b[H\x1b[2J"


def run(options: argparse.Namespace) -> int:
    """Look until Ctrl-C; a proxy that is away for a while is waited for."""
    if options.interval < 0.1:
        raise ConfigError("--interval: expected at least 0.1 seconds")
    address = admin_address(options)
    before: dict[str, int] = {}
    text = render(fetch(address))  # nobody there at the start is an error
    while True:
        say((_CLEAR if sys.stdout.isatty() else "") + text)
        time.sleep(options.interval)
        try:
            status = fetch(address)
        except NotReady as error:
            text = error.client_text
            continue
        now = {name: sum(row[name] for row in status["stats"]) for name in ("transactions", "round_trips")}
        rates = {name: (now[name] - before.get(name, now[name])) / options.interval for name in now}
        before = now
        text = f"{render(status)}\n\n{rates['transactions']:,.0f} transactions/s, {rates['round_trips']:,.0f} round trips/s"
