"""Clients of the console: connected to the proxy like any other, and then talking to ``admin.wire``.

One task per client while it has a command under way; they are few. Knows sockets and the console; knows no command.
"""

from __future__ import annotations

import asyncio
import logging

from hyperdrive.admin.console import Console
from hyperdrive.admin.wire import MAX_BUFFERED_BYTES, ConsoleSession, greeting
from hyperdrive.errors import HyperdriveError, InternalError, ShuttingDown, TooManyConnections
from hyperdrive.net.transport import Transport
from hyperdrive.pgwire import messages
from hyperdrive.proxy.proxy import Proxy
from hyperdrive.session.handshake import Admit
from hyperdrive.tasks import spawn

log = logging.getLogger("hyperdrive.admin")

MAX_CLIENTS = 100
"""They do not count against ``max_client_connections``: whoever looks after a full proxy must get in."""


class ConsoleDoor:
    """Lets clients into the console. Given to the proxy, which calls it."""

    def __init__(self, proxy: Proxy, console: Console) -> None:
        self.console = console
        self.clients: set[ConsoleClient] = set()
        self._proxy = proxy

    def __call__(self, transport: Transport, admit: Admit) -> None:
        """Greet the client and take the connection over.

        Raises:
            AuthenticationFailed: the user may do nothing here.
            TooManyConnections: there are enough already.
        """
        self.console.check_login(admit.user)
        if len(self.clients) >= MAX_CLIENTS:
            raise TooManyConnections("sorry, too many clients of the console already")
        pid, key = self._proxy.new_key(admit.protocol_minor)
        client = ConsoleClient(self, transport, ConsoleSession(self.console, admit.user))
        transport.write(greeting() + messages.backend_key_data(pid, key) + messages.READY_IDLE)
        transport.set_protocol(client)
        if admit.leftover:
            client.data_received(admit.leftover)
        transport.resume_reading()

    def close(self) -> None:
        """Hang up on all of them."""
        error = ShuttingDown("terminating connection due to administrator command")
        for client in list(self.clients):
            client.end(error)


class ConsoleClient(asyncio.Protocol):
    """One of them. Commands run one after the other."""

    def __init__(self, door: ConsoleDoor, transport: Transport, session: ConsoleSession) -> None:
        self._door = door
        self._transport = transport
        self._session = session
        self._came = b""
        self._task: asyncio.Task[None] | None = None
        door.clients.add(self)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if len(self._came) > MAX_BUFFERED_BYTES:
            self._transport.pause_reading()
        if self._task is None:
            self._task = spawn(self._work(), name="console")

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.clients.discard(self)
        if self._task is not None:
            self._task.cancel()  # PAUSE may wait for long; what it has begun stays

    async def _work(self) -> None:
        try:
            while self._came and not self._session.is_closed:
                data, self._came = self._came, b""
                self._transport.resume_reading()
                self._transport.write(await self._session.receive(data))
        except HyperdriveError as error:
            self.end(error)
        except Exception:
            log.exception("! a command of the console failed")
            self.end(InternalError("internal error of the proxy"))
        finally:
            self._task = None
        if self._session.is_closed:
            self._transport.close()

    def end(self, error: HyperdriveError) -> None:
        """Say why, and close."""
        self._transport.write(messages.error_message(error, severity="FATAL"))
        self._transport.close()
