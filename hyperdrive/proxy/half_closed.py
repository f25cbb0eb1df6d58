"""Clients that have closed their sending side, and are still owed something.

PostgreSQL answers what it has received before it looks at the end of the stream, so a program may shut its side down and read on. A
program that is gone looks the same until something is sent to it: then its kernel answers with a reset. So something is sent, a
ParameterStatus with the value that the client knows, which may come at any moment (protocol-flow#PROTOCOL-ASYNC) and says nothing.
Knows clients; decides nothing about servers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from hyperdrive.pgwire import messages

if TYPE_CHECKING:
    from hyperdrive.proxy.client import ClientConnection

PROBE_SECONDS: Final = (0.0, 0.05, 0.5, 2.0)
"""When to send something. The first one draws the reset, and a later one meets it; how much later hangs on the distance."""


def is_owed(client: ClientConnection) -> bool:
    """Whether *client* will hear something without sending more."""
    if client.waiting:
        return True
    server = client.server
    return server is not None and bool(server.session.queue) and not server.session.copy_in


def watch(client: ClientConnection) -> None:
    """*client* sends nothing more: find out soon whether it still reads."""
    loop = asyncio.get_running_loop()
    for seconds in PROBE_SECONDS:
        loop.call_later(seconds, _probe, client)


def _probe(client: ClientConnection) -> None:
    server = client.server
    if client.transport.is_closing() or (server is not None and server.session.is_mid_message):
        return
    told = client.session.told
    if told:
        name = next(iter(told))
        client.write(messages.parameter_status(name, told[name]))
