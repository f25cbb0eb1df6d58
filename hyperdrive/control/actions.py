"""What the console does to one process: PAUSE and its relatives.

Knows the proxy; knows neither who asks nor the other workers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hyperdrive.control.cached import purge
from hyperdrive.errors import QueryCanceled, ShuttingDown
from hyperdrive.pool.interfaces import CloseReason
from hyperdrive.proxy.proxy import Proxy

BY_DATABASE = ("pause", "resume", "reconnect", "kill", "disable", "enable")


class LocalActions:
    """Carried out here and now. *reload* and *stop* are the application's."""

    def __init__(self, proxy: Proxy, reload: Callable[[], Awaitable[str]], stop: Callable[[str], None]) -> None:
        self.proxy = proxy
        self.reload = reload
        self.stop = stop

    async def do(self, action: str, database: str | None) -> None:
        """One of ``BY_DATABASE``; *database* as clients call it."""
        if database is not None:
            database = self.proxy.settings.database_names.get(database, database)
        pools = self.proxy.pools
        match action, database:
            case "pause", _:
                pools.pause(database)
                await pools.until_quiet(database)
                if not pools.is_paused(database):
                    raise QueryCanceled("PAUSE was ended by RESUME before all servers had come back")
            case "resume", _:
                pools.resume(database)
            case "reconnect", _:
                pools.reconnect(database)
            case "kill", _:
                self._kill(database)
            case "disable", str():
                self.proxy.disabled.add(database)
            case "enable", str():
                self.proxy.disabled.discard(database)

    def _kill(self, database: str | None) -> None:
        """Clients are told; servers go without a word, whatever they run. New clients wait for RESUME."""
        pools = self.proxy.pools
        pools.pause(database)
        error = ShuttingDown("terminating connection due to administrator command")
        for client in list(self.proxy.clients.values()):
            if database in (None, client.context.pool.key.database):
                client.end(error)
        for relay in list(self.proxy.relays.values()):
            if database in (None, relay.pool_key.database):
                relay.end()
        for pool in pools.of(database):
            for row in pool.servers():
                row.server.discard(CloseReason.KILLED)

    def purge(self, what: str, name: str) -> int:
        """Drop entries of this process; returns how many.

        Raises:
            ClientError: there is no such table, or nothing that can be called so.
        """
        return purge(self.proxy.cache, what, name)

    def kill_client(self, number: int) -> bool:
        """Drop one client; ``False`` if it is none of ours."""
        client, relay = self.proxy.clients.get(number), self.proxy.relays.get(number)
        if client is not None:
            client.end(ShuttingDown("terminating connection due to administrator command"))
        elif relay is not None:
            relay.end()
        return client is not None or relay is not None
