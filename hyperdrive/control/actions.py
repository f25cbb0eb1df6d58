"""What the console does to one process: PAUSE and its relatives.

Knows the proxy; knows neither who asks nor the other workers.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from hyperdrive.control.cached import purge
from hyperdrive.errors import ClientError, ConfigError, QueryCanceled, ShuttingDown
from hyperdrive.pool.interfaces import CloseReason
from hyperdrive.proxy.proxy import Proxy

log = logging.getLogger("hyperdrive.control")

BY_DATABASE = ("pause", "resume", "reconnect", "kill", "disable", "enable")


class LocalActions:
    """Carried out here and now. *reload* and *stop* are the application's."""

    def __init__(self, proxy: Proxy, reload: Callable[[], Awaitable[str]], stop: Callable[[str], None]) -> None:
        self.proxy = proxy
        self.reload = reload
        self._stop = stop
        self._shutdown: str | None = None
        self.reloads = 0
        """How often the configuration was read again."""
        self.given = 0
        """Commands that were carried out; who takes over from others while one comes in asks again."""

    async def do(self, action: str, database: str | None) -> None:
        """One of ``BY_DATABASE``; *database* as clients call it.

        Raises:
            ClientError: RESUME of one database while PAUSE holds for all.
            QueryCanceled: PAUSE was ended before it was complete.
        """
        if database is not None:
            database = self.proxy.settings.database_names.get(database, database)
        pools = self.proxy.pools
        self.given += 1
        match action, database:
            case "pause", _:
                pools.pause(database)
                await pools.until_quiet(database)
                if not pools.is_paused(database):
                    raise QueryCanceled("PAUSE was ended by RESUME before all servers had come back")
            case "resume", str() if pools.is_paused(None):
                raise ClientError("PAUSE holds for all databases: RESUME without a name ends it", sqlstate="55000")
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

    def shut_down(self, how: str) -> None:
        """SHUTDOWN; *how* is what it waits for."""
        self._shutdown = how
        self._stop(how)

    # --- what outlives its command ------------------------------------------------------------------------------------

    def standing(self) -> dict[str, Any]:
        """What holds until another command ends it, for a worker that begins now."""
        return {
            "paused": list(self.proxy.pools.paused),
            "disabled": list(self.proxy.disabled),
            "reloads": self.reloads,
            "shutdown": self._shutdown,
        }

    async def take_over(self, standing: dict[str, Any]) -> None:
        """Hold to it as well."""
        for database in standing["paused"]:
            self.proxy.pools.pause(database)
        self.proxy.disabled.update(standing["disabled"])
        if standing["reloads"] and not self.reloads:
            try:
                await self.reload()
            except ConfigError as error:
                log.error("! the others have read a configuration that cannot be read now: %s", error.log_text)
        if standing["shutdown"] is not None and self._shutdown is None:
            self.shut_down(standing["shutdown"])

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
