"""The proxy of one process: lets clients in, opens servers, and knows who is who.

Holds the pools, their contexts, the user directory and the table of cancel keys. Made by ``app`` from settings; knows no
configuration file and no listening socket.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from hyperdrive.clock import Clock
from hyperdrive.errors import (
    ClientError,
    HyperdriveError,
    NotReady,
    OriginLoginFailed,
    OriginLost,
    OriginRefused,
    ShuttingDown,
    TooManyConnections,
)
from hyperdrive.net.transport import Transport
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import DATA_ROW, ERROR_RESPONSE, split
from hyperdrive.pool.acquire import acquire
from hyperdrive.pool.backoff import is_temporary
from hyperdrive.pool.interfaces import CloseReason, PoolKey
from hyperdrive.pool.limits import Limits
from hyperdrive.pool.pool import Pool
from hyperdrive.pool.pools import MAX_COUNTED, OTHERS, Pools
from hyperdrive.pool.settings import PoolMode, PoolSettings
from hyperdrive.proxy import lane
from hyperdrive.proxy.auth import UserDirectory
from hyperdrive.proxy.cache import Cache, CacheSettings
from hyperdrive.proxy.client import ClientConnection
from hyperdrive.proxy.connect import Origin, open_server, send_cancel
from hyperdrive.proxy.context import PoolContext, Welcome
from hyperdrive.proxy.identity import ASK
from hyperdrive.proxy.metrics import DatabaseMetrics, ProxyMetrics
from hyperdrive.proxy.pool_cache import PoolCache, row_of
from hyperdrive.proxy.relay import Relay, asks_for_replication, open_relay
from hyperdrive.proxy.server import ServerConnection
from hyperdrive.session import idle
from hyperdrive.session.admission import Setting
from hyperdrive.session.client import ClientSession
from hyperdrive.session.handshake import Admit
from hyperdrive.session.ours import refusal
from hyperdrive.session.pipe import Classify, Pipe, Switches
from hyperdrive.session.server import IDLE
from hyperdrive.session.settings import (
    IDLE_SESSION,
    MERGED,
    PREFIX,
    UNKNOWN,
    Label,
    label,
    show,
    statement_for,
    transition,
)
from hyperdrive.session.statements import StatementRegistry
from hyperdrive.sql.cache import VerdictCache
from hyperdrive.tasks import spawn

if TYPE_CHECKING:
    from hyperdrive.proxy.front_door import FrontDoor

log = logging.getLogger("hyperdrive.proxy")


def is_ours(name: bytes) -> bool:
    """Whether a setting of a StartupMessage is one that we answer ourselves."""
    return name.lower().startswith(PREFIX)


def stays_here(name: bytes, value: bytes) -> bool:
    """Whether it is one that no server is asked for; an ``idle_session_timeout`` that makes no sense is left to the origin."""
    return is_ours(name) or (name.lower() == IDLE_SESSION and idle.milliseconds(value) is not None)


def _split(startup: Iterable[Setting]) -> tuple[list[Setting], dict[bytes, bytes]]:
    """The settings of a StartupMessage that a server is asked for, and those that stay here, the latter by name in small letters."""
    theirs: list[Setting] = []
    ours: dict[bytes, bytes] = {}
    for name, value in startup:
        if stays_here(name, value):
            ours[name.lower()] = value
        else:
            theirs.append((name, value))
    return theirs, ours


CONSOLES = frozenset({"hyperdrive", "pgbouncer"})
"""Databases that are the console (DESIGN §1)."""

KEY_BYTES_3_0 = 4
KEY_BYTES_3_2 = 32
_MOST_WORKERS = 256
DRAIN_LOOK_SECONDS = 0.02
"""How often it is looked at who is still in a transaction, while the proxy ends."""
_MOST_AT_DOOR = 64


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """How the proxy treats clients; pools have settings of their own."""

    max_clients: int = 10_000
    max_statements: int = 200
    pin_unknown: bool = False
    switches: Switches = field(default_factory=Switches)
    """Which round trips are saved."""
    write_high: int = 256 * 1024
    worker: int = 0
    """Which worker this is: cancel keys tell it, so that a request finds the right one."""
    database_names: Mapping[str, str] = field(default_factory=dict)
    """What a database that clients ask for is called at the origin, where that differs."""

    def switches_for(self, mode: PoolMode) -> Switches:
        """Those of a pool in *mode*: statement pooling has no transactions to hold back."""
        return replace(self.switches, hold_begin=False) if mode is PoolMode.STATEMENT else self.switches


class ConsoleDoor(Protocol):
    """Takes over clients of the console."""

    def __call__(self, transport: Transport, admit: Admit) -> None:
        """Greet the client and become the transport's protocol.

        Raises:
            HyperdriveError: the user may not use the console.
        """


class Proxy:
    """Everything of one process between listening sockets and the origin."""

    def __init__(
        self,
        origin: Origin,
        directory: UserDirectory,
        settings: ProxySettings,
        pool_settings: Callable[[PoolKey], PoolSettings],
        clock: Clock,
        limits: Limits | None = None,
        *,
        cache: CacheSettings | None = None,
        console: ConsoleDoor | None = None,
        forward_cancel: Callable[[int, int, bytes], asyncio.Future[None] | None] | None = None,
    ) -> None:
        lane.check()
        self.origin = origin
        self.directory = directory
        self.settings = settings
        self.clock = clock
        self.metrics = ProxyMetrics()
        self.pools: Pools[ServerConnection] = Pools(pool_settings, self._connect, clock, limits)
        self.verdicts = VerdictCache()
        self._classify = self.verdicts.classify  # one for all clients
        self.cache = Cache(cache or CacheSettings(), clock.now)
        self.cache.on_epoch = self.schema_changed
        self.clients: dict[int, ClientConnection] = {}
        self.relays: dict[int, Relay] = {}
        self.doors: set[FrontDoor] = set()
        self.disabled: set[str] = set()
        """Databases, by their names at the origin, that take no new clients."""
        self.console = console
        self._pool_settings = pool_settings
        self.forward_cancel = forward_cancel
        """``forward_cancel(worker, pid, key)`` takes a cancel request to where its client is."""
        self.idle_timeout_set: Callable[[], None] = lambda: None
        """To be called when a client has set an ``idle_session_timeout`` of its own."""
        self._contexts: dict[PoolKey, PoolContext] = {}
        self.stats: dict[str, DatabaseMetrics] = {}
        """By database."""
        self._shutting_down = False

    # --- clients ------------------------------------------------------------------------------------------------------------------

    @property
    def is_shutting_down(self) -> bool:
        """No client is let in any more."""
        return self._shutting_down

    @property
    def is_crowded(self) -> bool:
        """Too many are at the door already; as PostgreSQL, which lets twice its connections try to log in."""
        return len(self.doors) + len(self.clients) > 2 * self.settings.max_clients + _MOST_AT_DOOR

    def admit_nowait(self, admit: Admit, transport: Transport, door: FrontDoor, ahead: bytes) -> bool:
        """As ``admit``, if nobody has to be asked for that: the greeting is written in one packet with *ahead*.

        ``False``: nothing was done, ``admit`` has to wait.

        Raises:
            HyperdriveError: it cannot be served; to be told as FATAL.
        """
        if (admit.database in CONSOLES and self.console is not None) or asks_for_replication(admit):
            return False
        context = self._context_of(admit)
        welcome = self._maybe_welcome(context, *_split(admit.settings))
        if welcome is None:
            return False
        self._greet(context, welcome, admit, transport, door, ahead)
        return True

    async def admit(self, admit: Admit, transport: Transport, door: FrontDoor) -> None:
        """Make a client of a connection that proved who it is; greet it from memory (W-08).

        Raises:
            HyperdriveError: it cannot be served; to be told as FATAL.
        """
        if admit.database in CONSOLES and self.console is not None:
            self._check_open()
            self.console(transport, admit)
            door.admitted()
            return
        if asks_for_replication(admit):
            await self._admit_relay(self._key_of(admit), admit, transport, door)
            return
        context = self._context_of(admit)
        welcome = await self._welcome(context, admit.settings)
        if transport.is_closing():
            return
        self._check_room()  # others may have come in while the welcome was learned
        self._greet(context, welcome, admit, transport, door)

    def _context_of(self, admit: Admit) -> PoolContext:
        return self.context(self._key_of(admit))

    def _key_of(self, admit: Admit) -> PoolKey:
        """Which pool serves it, if it may be served at all."""
        self._check_open()
        self._check_room()
        self.directory.learn(admit.user, admit.learned)
        key = PoolKey(self.settings.database_names.get(admit.database, admit.database), admit.user)
        if key.database in self.disabled:
            raise NotReady(f'database "{admit.database}" is not currently accepting connections', sqlstate="55000")
        return key

    def _greet(
        self,
        context: PoolContext,
        welcome: Welcome,
        admit: Admit,
        transport: Transport,
        door: FrontDoor,
        ahead: bytes = b"",
    ) -> None:
        session = ClientSession(context.pipe, welcome.label, welcome.told)
        if context.is_session_mode:
            session.keeps_server = True
        pid, cancel_key = self.new_key(admit.protocol_minor)
        client = ClientConnection(context, session, transport, pid, cancel_key)
        self.clients[pid] = client
        context.clients.add(client)
        context.pool.clients += 1
        self.metrics.clients_admitted += 1
        if context.cache is not None:
            context.cache.maybe_identity(welcome.label)  # so that it is known by the time it reads
        key_data = messages.backend_key_data(pid, cancel_key)
        transport.write(b"".join((ahead, welcome.messages, key_data, messages.READY_IDLE)))
        door.admitted()
        if IDLE_SESSION in welcome.label.items:
            self.idle_timeout_set()
        client.begin(admit.leftover)

    async def _admit_relay(self, key: PoolKey, admit: Admit, transport: Transport, door: FrontDoor) -> None:
        relay = await open_relay(self, key, admit, transport)
        if relay is not None:
            self.metrics.clients_admitted += 1
            door.admitted()
            relay.begin()

    def _check_open(self) -> None:
        if self._shutting_down:
            raise ShuttingDown("the database system is shutting down")

    def _check_room(self) -> None:
        if len(self.clients) + len(self.relays) >= self.settings.max_clients:
            raise TooManyConnections("sorry, too many clients already")

    def new_key(self, minor: int) -> tuple[int, bytes]:
        """A pid that no client of ours has, and a secret; both say nothing about the origin's (W-04)."""
        while True:
            pid = (secrets.randbits(23) << 8 | self.settings.worker % _MOST_WORKERS) & 0x7FFFFFFF
            if pid >> 8 and pid not in self.clients and pid not in self.relays:
                return pid, secrets.token_bytes(KEY_BYTES_3_2 if minor >= 2 else KEY_BYTES_3_0)

    def _forget(self, client: ClientConnection) -> None:
        del self.clients[client.pid]

    def cancel(self, pid: int, key: bytes, *, forwarded: bool = False) -> asyncio.Future[None] | None:
        """A CancelRequest came. Nothing is ever answered to it; what is returned is done when it has arrived where it is meant for."""
        client = self.clients.get(pid) or self.relays.get(pid)
        if client is not None:
            if hmac.compare_digest(client.key, key):
                self.metrics.cancels += 1
                return client.cancel()
        elif not forwarded and self.forward_cancel is not None and pid % _MOST_WORKERS != self.settings.worker:
            return self.forward_cancel(pid % _MOST_WORKERS, pid, key)
        self.metrics.cancels_unknown += 1
        return None

    # --- welcome ------------------------------------------------------------------------------------------------------------------

    def _maybe_welcome(
        self, context: PoolContext, theirs: Sequence[Setting], ours: Mapping[bytes, bytes]
    ) -> Welcome | None:
        """What a client with these settings is told; ``None``: a server has to be asked."""
        found = context.maybe_welcome(context.label_of(theirs)) if context.base is not None else None
        return self._with_ours(found, ours) if found is not None and ours else found

    async def _welcome(self, context: PoolContext, startup: Iterable[Setting]) -> Welcome:
        theirs, ours = _split(startup)
        found = self._maybe_welcome(context, theirs, ours)
        if found is None:
            found = await self._ask_for_welcome(context, theirs)
            found = self._with_ours(found, ours) if ours else found
        return found

    async def _ask_for_welcome(self, context: PoolContext, startup: Sequence[Setting]) -> Welcome:
        try:
            server = await acquire(context.pool)
        except OriginRefused as refused:
            self._drop_refused(context, refused)
            raise
        try:
            key = context.label_of(startup)
            found = context.maybe_welcome(key)
            if found is None:
                found = await self._learn(context, server, key)
        except BaseException:
            if server.session.queue or server.session.status != IDLE:
                server.discard(CloseReason.OTHER)
            else:
                context.pool.release(server)
            raise
        context.pool.release(server)
        return found

    @staticmethod
    def _with_ours(found: Welcome, ours: Mapping[bytes, bytes]) -> Welcome:
        """The welcome of a client that gave *ours*, settings of ours, as well.

        Raises:
            ClientError: one of them makes no sense.
        """
        wanted = found.label
        for name, value in ours.items():
            is_idle = name == IDLE_SESSION and idle.is_known(found.told)
            refused = None if is_idle else refusal(name, value)
            if refused is not None:
                raise ClientError(refused[0], sqlstate=refused[1])
            wanted = wanted.with_(name, statement_for(name, value))
        return Welcome(wanted, found.told, found.messages)

    async def _learn(self, context: PoolContext, server: ServerConnection, key: tuple[Label, bytes | None]) -> Welcome:
        """Ask *server* to take the client's start-up settings: one flight, once per set of them (W-05).

        Raises:
            OriginRefused: with the origin's own error, as FATAL.
        """
        wanted, application_name = key
        state = server.session
        # From a label that knows nothing: every value is set, whatever the server has. How each reads is what the last rows say.
        names = sorted(wanted.items)
        left = [wanted.items[IDLE_SESSION]] if IDLE_SESSION in wanted.items else []
        sql = b"; ".join([transition(UNKNOWN, wanted), *left, *(show(name) for name in names)])
        state.label = UNKNOWN
        canonical: list[bytes] = []
        for message in split(await server.ask(sql))[0]:
            if message[0] == ERROR_RESPONSE:
                fields = messages.read_error_fields(message)
                raise OriginRefused(
                    fields.get("M", ""),
                    response=messages.error_response(
                        fields.get("M", ""),
                        fields.get("C", "XX000"),
                        severity="FATAL",
                        detail=fields.get("D"),
                        hint=fields.get("H"),
                    ),
                    sqlstate=fields.get("C", "XX000"),
                )
            if message[0] == DATA_ROW:
                canonical.append(message[11:])
        del canonical[: max(0, len(canonical) - len(names))]
        if len(canonical) != len(names):
            server.discard(CloseReason.OTHER)
            raise OriginLost("the start-up settings could not be verified")
        if not left:
            state.label = wanted
        told = state.view
        base = context.base or {}
        defaults = {name.lower(): value for name, value in base.items()}
        effective = dict(wanted.items)
        for name, value in zip(names, canonical, strict=True):
            # A value that only looks different ('utf-8' for UTF8) needs no label of its own.
            if defaults.get(name) == value:
                effective.pop(name, None)
            elif name == MERGED:
                effective[name] = statement_for(name, value)  # both halves
        found = context.learn((wanted, None), label(effective), told)
        if application_name is not None:
            found = context.maybe_welcome(key) or found
        return found

    def _drop_refused(self, context: PoolContext, refused: OriginRefused) -> None:
        """Anybody may ask for databases that do not exist: what was made for such a login goes soon after it.

        Soon, as until then the pool repeats the refusal without a new attempt. One whose refusal may pass stays: it knows when
        to try again (W-62).
        """
        if not is_temporary(refused):
            delay = context.pool.settings.refused_retry
            asyncio.get_running_loop().call_later(delay, self._drop_unused, context)

    def _drop_unused(self, context: PoolContext) -> None:
        key = context.pool.key
        if not context.clients and self.pools.drop(context.pool) and self._contexts.get(key) is context:
            del self._contexts[key]

    # --- servers ------------------------------------------------------------------------------------------------------------------

    def context(self, key: PoolKey) -> PoolContext:
        """The context of the pool of *key*; both are made when first asked for."""
        pool = self.pools.find(key)
        context = self._contexts.get(key)
        if pool is not None and context is not None and context.pool is pool:
            return context
        mode = self._pool_settings(key).mode
        stats = self._stats_of(key.database)
        pipe = Pipe(
            self._reader,
            StatementRegistry(),
            max_statements=self.settings.max_statements,
            pin_unknown=self.settings.pin_unknown,
            defaults_changed=self._defaults_changed,
            schema_changed=partial(self._changed_here, key.database),
            switches=self.settings.switches_for(mode),
            saved=stats.origin_round_trips_saved,
        )
        pipe.schema_doubted = partial(self._doubted_here, key.database)
        pipe.idle_timeout_set = lambda: self.idle_timeout_set()
        context = PoolContext(
            pipe,
            mode,
            self.clock,
            self.metrics,
            stats,
            write_high=self.settings.write_high,
            forget=self._forget,
            send_cancel=self._send_cancel,
        )
        self._contexts[key] = context
        context.pool = self.pools.get(key)
        self._give_cache(key, context)
        return context

    def _give_cache(self, key: PoolKey, context: PoolContext) -> None:
        if self.cache.keeps_catalogs:
            context.cache = PoolCache(self.cache, self.cache.database(key.database), context)
            context.pipe.is_read_only = context.cache.proves
            context.pipe.is_builtin = context.cache.database.is_builtin
        else:
            context.cache = None
            context.pipe.is_read_only = lambda texts, label: False
            context.pipe.is_builtin = lambda function: False

    def _defaults_changed(self) -> None:
        """A client changed what later sessions begin with: new servers tell what that is."""
        for context in self._contexts.values():
            context.defaults = None
        self.pools.reconnect()

    def _changed_here(self, database: str) -> None:
        """A client changed the schema. With the cache on, its writes are noted, and end the epoch in their place."""
        self.schema_changed(database)
        known = self.cache.databases.get(database)
        if known is not None and not self.cache.is_on:
            known.touch(None, ends_epoch=True)

    def _doubted_here(self, database: str, functions: Sequence[bytes]) -> None:
        """A client called code, such as *functions*, that may have changed the schema: what only that can change is asked again. With the
        cache on, its writes are noted, and see to it."""
        known = self.cache.databases.get(database)
        if known is not None and not self.cache.is_on and not known.are_pure(functions):
            known.touch(None)

    def schema_changed(self, database: str) -> None:
        """What is known of the statements of *database* may be wrong from now on."""
        for key, context in self._contexts.items():
            if key.database == database:
                context.pipe.end_epoch()

    def contexts(self) -> list[PoolContext]:
        """The contexts of all pools."""
        return list(self._contexts.values())

    def _stats_of(self, database: str) -> DatabaseMetrics:
        name = database if database in self.stats or len(self.stats) < MAX_COUNTED else OTHERS
        return self.stats.setdefault(name, DatabaseMetrics())

    def _reader(self, ascii_safe: bool, standard_strings: bool) -> Classify:
        if ascii_safe and standard_strings:
            return self._classify
        return self.verdicts.reader(ascii_safe=ascii_safe, standard_strings=standard_strings)

    def warm(self, key: PoolKey) -> Pool[ServerConnection]:
        """Open the minimum of a pool before the first client comes, and keep it."""
        context = self.context(key)
        return self.pools.get(context.pool.key, keep=True)

    async def _connect(self, key: PoolKey) -> ServerConnection:
        credentials = self.directory.origin_credentials(key.user)
        try:
            opened = await open_server(self.origin, credentials, key.database)
        except (OriginRefused, OriginLoginFailed) as refused:
            self.directory.origin_refused(key.user, refused.code)  # the password may have been changed (W-62)
            raise
        if opened.keys is not None:
            self.directory.learn(key.user, opened.keys)
        context = self._contexts[key]
        login = opened.login
        server = ServerConnection(
            context, login.pid, login.cancel_key, context.logged_in(login.parameters), opened.address
        )
        server.attach(opened.transport)
        if login.leftover:
            server.data_received(login.leftover)
        try:
            await context.learn_defaults(server)
            if context.cache is not None:
                await self._ask_defaults(context.cache, server)
                await context.learn_defaults(server)  # again, if they have turned out to be others than before
        except BaseException:
            # Nobody knows of it yet: if it is not closed here, it never is.
            server.transport.abort()
            raise
        return server

    async def _ask_defaults(self, cache: PoolCache, server: ServerConnection) -> None:
        """What a server's settings are before anyone changes them decides whose answers are alike (caching-rules §2)."""
        if cache.cache.is_on:
            server.session.noted = {}
        row = row_of(await server.ask(ASK))
        if row is not None:
            cache.logged_in(server, row)

    def _send_cancel(self, server: ServerConnection) -> asyncio.Future[None]:
        return spawn(self._deliver_cancel(server), name=f"cancel {server.pid}")

    async def _deliver_cancel(self, server: ServerConnection) -> None:
        try:
            await send_cancel(self.origin, self.origin.addresses, server.pid, server.cancel_key)
        except (HyperdriveError, TimeoutError, OSError) as exc:
            log.warning("! cancel of server %d failed: %s", server.pid, exc)
        finally:
            server.cancel_over()

    def change(self, origin: Origin, settings: ProxySettings, pool_settings: Callable[[PoolKey], PoolSettings]) -> None:
        """RELOAD: these settings hold from now on; connections that stand keep what they began with."""
        self.origin = replace(origin, learned=self.origin.learned)
        self.settings = settings
        self._pool_settings = pool_settings
        for key, context in self._contexts.items():
            context.mode = pool_settings(key).mode
            context.write_high = settings.write_high
            context.pipe.max_statements = settings.max_statements
            context.pipe.pin_unknown = settings.pin_unknown
            context.pipe.switches = settings.switches_for(context.mode)
        self.pools.change(pool_settings)

    def change_cache(self, settings: CacheSettings) -> None:
        """RELOAD of the cache's settings; ``cache = off`` drops everything at once."""
        was_on, kept = self.cache.is_on, self.cache.keeps_catalogs
        self.cache.change(settings)
        for key, context in self._contexts.items():
            before = context.cache.caches_reads if context.cache is not None else False
            after = self.cache.is_on and settings.uses(key)
            if (before, kept, was_on) == (after, self.cache.keeps_catalogs, self.cache.is_on):
                continue
            self._give_cache(key, context)
            for client in context.clients:
                client.use_cache(context.cache)
            if self.cache.is_on and not was_on:
                context.pool.reconnect()  # what the servers of now have done, and begun with, nobody knows
        if was_on and not self.cache.is_on:
            log.info("= the cache is off")

    def forget_unused(self) -> None:
        """Drop what belonged to pools that were removed; their counters stay."""
        for key, context in list(self._contexts.items()):
            if not context.clients and self.pools.find(key) is not context.pool:
                del self._contexts[key]

    # --- end ----------------------------------------------------------------------------------------------------------------------

    async def _until_transactions_end(self, error: HyperdriveError) -> None:
        """Return when no client is in a transaction, a server's or a held one, and none keeps a server; end those that are idle."""
        while True:
            clients = list(self.clients.values())
            for client in clients:
                if client.server is None and not client.waiting and not client.is_in_transaction:
                    client.end(error)
            if not self.clients and not any(pool.in_use for pool in self.pools):
                return
            await asyncio.sleep(DRAIN_LOOK_SECONDS)

    async def close(self, *, drain_seconds: float | None = None) -> None:
        """Turn clients away, wait for transactions up to *drain_seconds*, then end everything."""
        self._shutting_down = True
        error = ShuttingDown("terminating connection due to administrator command")
        for door in list(self.doors):
            door.refuse(error)
        if drain_seconds:
            self.pools.lend_no_more()
            with suppress(TimeoutError):
                async with asyncio.timeout(drain_seconds):
                    await self._until_transactions_end(error)
        for client in list(self.clients.values()):
            client.end(error)
        for relay in list(self.relays.values()):
            relay.end()
        self.pools.close()
        await self.directory.close()
