"""The only place where things are wired together: settings become a running proxy.

Knows every package (``wiring`` says what their settings are); nothing but the command line, the library and tests knows it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from hyperdrive.admin.console import Console
from hyperdrive.admin.http import StatusServer, StatusSite
from hyperdrive.clock import SystemClock
from hyperdrive.config.loader import Loader
from hyperdrive.config.settings import Settings
from hyperdrive.config.units import Address as ListenAddress
from hyperdrive.control.actions import LocalActions
from hyperdrive.control.door import ConsoleDoor
from hyperdrive.control.fanout import Fanout
from hyperdrive.control.peers import Peer, PeerServer, peer_path
from hyperdrive.control.rows import LocalRows
from hyperdrive.control.state import Control
from hyperdrive.errors import ConfigError
from hyperdrive.net.listener import Listener, listen, listen_unix
from hyperdrive.pgwire.passwords import OriginCredentials
from hyperdrive.pool.interfaces import PoolKey
from hyperdrive.pool.limits import Limits
from hyperdrive.proxy.auth import DirectorySettings, UserDirectory, configured_users
from hyperdrive.proxy.catalog import CatalogWatch, connector
from hyperdrive.proxy.database import Database
from hyperdrive.proxy.front_door import FrontDoor
from hyperdrive.proxy.guard import watch_loop
from hyperdrive.proxy.proxy import Proxy
from hyperdrive.proxy.stalls import Stalls
from hyperdrive.proxy.sweep import Sweeper
from hyperdrive.tasks import spawn
from hyperdrive.wiring import (
    auth_query,
    cache_settings,
    declarations_of,
    door_settings,
    limit_settings,
    lost_seconds,
    origin_of,
    passwords,
    pool_settings,
    proxy_settings,
    second_level,
    socket_options,
)

log = logging.getLogger("hyperdrive.app")

DRAIN_SECONDS: Final = 5.0
"""How long transactions may go on after SIGTERM."""

FOREVER: Final = 1e9
PERIOD_SECONDS: Final = 60.0
"""Over what the averages of SHOW STATS are taken; PgBouncer's stats_period."""

STOP_SOON: Final = "soon"


@dataclass(frozen=True, slots=True)
class Membership:
    """What makes a process one of several workers; ``workers`` fills it."""

    number: int = 0
    count: int = 1
    directory: str = ""
    """Where the workers' own sockets are; empty when there is one process only."""
    share: Callable[[Settings], Settings] = lambda settings: settings
    """This worker's part of the limits."""
    unix_socket: socket.socket | None = None
    """The one unix socket of all workers, listening."""


class App:
    """One running proxy of one process. ``async with App(settings) as app`` starts and ends it.

    *loader* is what RELOAD reads again and *loaded* what it gave, before ports and an embedded origin were known; *mock_key* is shared by the workers of a port.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        loader: Loader | None = None,
        loaded: Settings | None = None,
        mock_key: bytes | None = None,
        member: Membership | None = None,
    ) -> None:
        if settings.origin is None:
            raise ConfigError("origin: no database to connect to")
        self.dsn = settings.origin
        self.member = member or Membership()
        self.whole = settings
        self.settings = self.member.share(settings)
        self.listeners: list[Listener] = []
        self.admin_port = 0
        self._loader = loader
        self._loaded = loaded or settings
        self._mock_key = mock_key or secrets.token_bytes(32)
        self._stop = asyncio.Event()
        self._stop_how = ""
        self._door = door_settings(self.settings, self._mock_key)
        self.proxy = self._make_proxy()
        self._sweeper = Sweeper(self.proxy)
        self._stalls = Stalls(self.proxy)
        self.proxy.idle_timeout_set = self._sweeper.look_soon
        self._watches: list[CatalogWatch] = []
        self.proxy.cache.wanted = self._keep_catalog
        self._shared = second_level(self.settings, self.proxy.cache, self.member.number)
        rows = LocalRows(self.proxy, lambda: self.whole, PoolKey(self.dsn.database, self.dsn.user))
        peers = [
            Peer(self.member.directory, number) for number in range(self.member.count) if number != self.member.number
        ]
        self.control = Control(
            rows, LocalActions(self.proxy, self.reload, self.stop), lambda: self.whole, self.dsn.user, peers
        )
        self.console = Console(self.control, self.proxy.clock)
        self._console_door = ConsoleDoor(self.proxy, self.console)
        self.proxy.console = self._console_door
        self.proxy.forward_cancel = self.control.forward_cancel if peers else None
        self._fanout = Fanout(self.proxy.cache, self.member.number, self.member.directory, peers) if peers else None
        if self._fanout is not None:
            self.control.link = self._fanout.link
        self._peer_server = PeerServer(self.control.answer, self._fanout.follow if self._fanout is not None else None)
        self._status: StatusServer | None = None
        self._periods: asyncio.Task[None] | None = None

    # --- settings -----------------------------------------------------------------------------------------------------

    def _make_proxy(self) -> Proxy:
        settings, dsn = self.settings, self.dsn
        clock = SystemClock()
        directory = UserDirectory(
            configured_users(dsn, passwords(settings)),
            process_secret=self._mock_key,
            origin=OriginCredentials(dsn.user.encode(), dsn.password.encode()) if dsn.password is not None else None,
            auth_query=auth_query(dsn, settings),
            settings=DirectorySettings(scram_iterations=settings.scram_iterations),
            clock=clock,
        )
        return Proxy(
            origin_of(dsn, settings),
            directory,
            proxy_settings(settings, self.member.number),
            pool_settings(settings),
            clock,
            Limits(limit_settings(settings), now=clock.now),
            cache=cache_settings(settings),
        )

    async def reload(self) -> str:
        """Read the configuration, certificates included, again; clients and transactions go on.

        Returns what a person should know.

        Raises:
            ConfigError: there is a mistake, and nothing has changed.
        """
        if self._loader is None:
            return "there is no configuration to read again"
        found = self._loader.reload(self._loaded)
        whole = replace(found.settings, origin=self.dsn, listen=self.whole.listen, admin_listen=self.whole.admin_listen)
        settings = self.member.share(whole)
        # All that can fail comes first.
        door = door_settings(settings, self._mock_key)
        origin = origin_of(self.dsn, settings)
        if origin.tls.starts_with_tls:
            _ = origin.tls.context
        query_is_new = settings.auth_query != self.settings.auth_query
        self._loaded, self.whole, self.settings, self._door = found.settings, whole, settings, door
        proxy = self.proxy
        proxy.change(origin, proxy_settings(settings, self.member.number), pool_settings(settings))
        proxy.pools.limits.change(limit_settings(settings))
        proxy.change_cache(cache_settings(settings))
        for watch in self._watches:
            watch.change(poll_seconds=settings.catalog_poll, lost_seconds=lost_seconds(settings))
        proxy.directory.replace_users(configured_users(self.dsn, passwords(settings)))
        self._sweeper.change(settings.client_idle_timeout, settings.idle_transaction_timeout)
        logging.getLogger("hyperdrive").setLevel(settings.log_level.upper())
        if query_is_new:
            await proxy.directory.replace_auth_query(auth_query(self.dsn, settings))
        self.control.actions.reloads += 1
        changed = ", ".join(found.changed) or "nothing"
        log.info("= configuration read again; changed: %s", changed)
        if found.needs_restart:
            notice = f"after a restart only: {', '.join(found.needs_restart)}"
            log.warning("= %s", notice)
            return notice
        return ""

    async def _reload_and_log(self) -> None:
        try:
            await self.reload()
        except ConfigError as error:
            log.error("! nothing has changed: %s", error.log_text)

    # --- life ---------------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The first port that clients connect to."""
        return self.listeners[0].port

    def url(self) -> str:
        """The connection string to paste, without the password."""
        return client_url(self.whole, self.port)

    async def __aenter__(self) -> App:
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _start(self) -> None:
        settings, proxy, member = self.settings, self.proxy, self.member
        several = member.count > 1
        if member.directory:
            await self._peer_server.start(peer_path(member.directory, member.number))
        if self._fanout is not None:
            await self._fanout.start()
            await self.control.catch_up()
        if self._shared is not None:
            self._shared.start()
        for address in settings.listen:
            self.listeners.append(
                await listen(
                    address.host,
                    address.port,
                    partial(self._front_door, is_loopback=address.is_loopback),
                    reuse_port=several,
                    options=socket_options(settings),
                )
            )
        if member.unix_socket is not None:
            self.listeners.append(Listener([member.unix_socket], partial(self._front_door, is_unix=True)))
        elif settings.unix_socket_dir:
            self.listeners.append(
                await listen_unix(
                    settings.unix_socket_dir,
                    self.listeners[0].port if self.listeners else 6543,
                    partial(self._front_door, is_unix=True),
                    mode=settings.unix_socket_mode,
                )
            )
        self._sweeper.change(settings.client_idle_timeout, settings.idle_transaction_timeout)
        self._stalls.start(settings.client_stall_timeout, settings.tcp_user_timeout)
        proxy.warm(PoolKey(self.dsn.database, self.dsn.user))
        self._periods = spawn(self._keep_periods(), name="minutes")
        if settings.admin_listen is not None:
            await self._start_admin(settings.admin_listen, reuse_port=several)

    def _front_door(self, *, is_unix: bool = False, is_loopback: bool = False) -> FrontDoor:
        return FrontDoor(self.proxy, self._door, is_unix=is_unix, is_loopback=is_loopback)

    async def _start_admin(self, address: ListenAddress, *, reuse_port: bool) -> None:
        site = StatusSite(self.console, self.control, is_local=address.is_loopback)
        self._status = StatusServer(site)
        try:
            self.admin_port = await self._status.start(address.host, address.port, reuse_port=reuse_port)
        except OSError as exc:
            raise ConfigError(f"admin_listen: cannot listen on {address}: {exc.strerror or exc}") from exc
        if not self.member.number:
            log.info("= status page and metrics: http://%s:%d/", address.host, self.admin_port)

    async def _keep_periods(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            await self.control.refresh()
            self.console.period.tick(self.control)
            self.proxy.forget_unused()

    def stop(self, how: str = STOP_SOON) -> None:
        """End ``run``: ``""`` at once, ``"soon"`` as SIGTERM does, ``"servers"`` or ``"clients"`` when those have finished.

        A second call hurries the first.
        """
        self._stop_how = "" if self._stop.is_set() else how
        self._stop.set()

    async def run(self) -> None:
        """Serve until ``stop``."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, self.stop)
        with suppress(NotImplementedError):
            loop.add_signal_handler(signal.SIGHUP, lambda: spawn(self._reload_and_log(), name="reload"))
        await self._stop.wait()
        log.info("= stopping")
        for listener in self.listeners:
            listener.close()
        if self._stop_how == "clients":
            await self._hurried(self._until_clients_left())
        if self._stop_how:
            await self._hurried(self.close(drain_seconds=DRAIN_SECONDS if self._stop_how == STOP_SOON else FOREVER))

    async def _until_clients_left(self) -> None:
        while self.proxy.clients or self.proxy.relays:  # noqa: ASYNC110 - nobody is in a hurry here
            await asyncio.sleep(0.1)

    async def _hurried(self, work: Coroutine[Any, Any, None]) -> None:
        """Await *work*, unless ``stop`` is called once more."""
        task = spawn(work, name="stop")
        self._stop.clear()
        again = spawn(self._stop.wait(), name="stop now")
        await asyncio.wait([task, again], return_when=asyncio.FIRST_COMPLETED)
        if again.done():
            self._stop_how = ""
        again.cancel()
        task.cancel()
        await asyncio.wait([task, again])
        self._stop.set()

    async def close(self, *, drain_seconds: float | None = None) -> None:
        """Stop listening, then end the proxy."""
        for listener in self.listeners:
            listener.close()
        await self.proxy.close(drain_seconds=drain_seconds)
        self._sweeper.close()
        self._stalls.close()
        self._console_door.close()
        if self._periods is not None:
            self._periods.cancel()
        if self._status is not None:
            await self._status.close()
        if self._fanout is not None:
            await self._fanout.close()
        await self._peer_server.close()
        if self._shared is not None:
            if self.proxy.cache.second is not None:
                self.proxy.cache.second.close()
            await self._shared.close()
        for watch in self._watches:
            await watch.close()

    def _keep_catalog(self, database: Database) -> None:
        """The cache has come to know *database*: load its catalog, and keep it known."""
        dsn, settings = self.dsn, self.settings
        credentials = OriginCredentials(dsn.user.encode(), dsn.password.encode() if dsn.password is not None else None)
        watch = CatalogWatch(
            connector(self.proxy.origin, credentials, database.name),
            database.learn,
            self.proxy.clock,
            poll_seconds=settings.catalog_poll,
            declarations=declarations_of(settings),
            lost_seconds=lost_seconds(settings),
        )
        database.watch(watch.end_epoch, watch.doubt)
        self._watches.append(watch)
        watch.start(database.name)


def client_url(settings: Settings, port: int) -> str:
    """The connection string to paste, without the password."""
    address, dsn = settings.listen[0], settings.origin
    assert dsn is not None
    host = "127.0.0.1" if address.host in ("", "*", "0.0.0.0", "::") else address.host
    return f"postgresql://{quote(dsn.user, safe='')}@{host}:{port}/{quote(dsn.database, safe='')}"


def keep_for_good() -> None:
    """What a process made to start it keeps to its end, so the collector need not look through it: a pause of 15 ms and more."""
    gc.collect()
    gc.freeze()


async def serve(
    settings: Settings, ready: Callable[[str], None], loader: Loader | None = None, loaded: Settings | None = None
) -> None:
    """Run one process until SIGINT, SIGTERM or SHUTDOWN; call *ready* with the connection string when clients can be served."""
    async with App(settings, loader=loader, loaded=loaded) as app:
        watch_loop(asyncio.get_running_loop(), app.proxy.metrics)
        keep_for_good()
        ready(app.url())
        await app.run()
