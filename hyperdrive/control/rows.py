"""What one process has, as rows: clients, servers, pools, counters.

Reads the proxy's objects when somebody asks and changes nothing; so looking costs the query path nothing. Knows the proxy
and the pools; knows no console and no other process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from hyperdrive import tasks
from hyperdrive.admin.exposition import add_gauges
from hyperdrive.admin.state import (
    CacheRow,
    ConnectionRow,
    DatabaseRow,
    MemoryRow,
    ShapeRow,
    StatementRow,
    StatsRow,
    TableRow,
    UserRow,
)
from hyperdrive.config.settings import Settings
from hyperdrive.control import cached
from hyperdrive.metrics import Family, Registry, Saved
from hyperdrive.net.transport import Transport
from hyperdrive.pool.interfaces import PoolKey, ServerState
from hyperdrive.pool.metrics import PoolMetrics
from hyperdrive.pool.snapshot import PoolSnapshot
from hyperdrive.proxy.client import ClientConnection
from hyperdrive.proxy.context import APPLICATION_NAME
from hyperdrive.proxy.metrics import DatabaseMetrics
from hyperdrive.proxy.proxy import Proxy
from hyperdrive.proxy.relay import Relay


@dataclass(frozen=True, slots=True)
class _Ends:
    address: str
    port: int
    local_address: str
    local_port: int
    tls: str


def _ends(transport: Transport) -> _Ends:
    here, there = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    info = transport.get_extra_info("tls_info")
    tls = f"{info.version}/{info.cipher}" if info is not None else ""
    return _Ends(*_place(there), *_place(here), tls)


def _place(name: object) -> tuple[str, int]:
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else ("unix", 0)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


class LocalRows:
    """The rows of this process. *settings* are asked for anew each time, since RELOAD replaces them."""

    def __init__(self, proxy: Proxy, settings: Callable[[], Settings], main: PoolKey) -> None:
        self.proxy = proxy
        self._settings = settings
        self._main = main

    # --- is it well? --------------------------------------------------------------------------------------------------

    def readiness(self) -> str:
        """Empty when clients can be served, otherwise what is missing."""
        if self.proxy.is_shutting_down:
            return "shutting down"
        pool = self.proxy.pools.find(self._main)
        if pool is None:
            return "starting"
        now = pool.snapshot()
        if now.sv_active or now.sv_idle or now.sv_used or now.sv_tested:
            return ""
        if pool.last_error is not None:
            return f"no connection to the database: {pool.last_error.client_text}"
        return "connecting to the database" if now.sv_login and not pool.metrics.opened else ""

    # --- rows ---------------------------------------------------------------------------------------------------------

    def pools(self) -> list[PoolSnapshot]:
        return [pool.snapshot() for pool in self.proxy.pools]

    def clients(self) -> list[ConnectionRow]:
        found = [self._client(client) for client in list(self.proxy.clients.values())]
        return found + [self._relay(relay) for relay in list(self.proxy.relays.values())]

    def _client(self, client: ClientConnection) -> ConnectionRow:
        context, session, ends = client.context, client.session, _ends(client.transport)
        clock = self.proxy.clock
        server = client.server
        return ConnectionRow(
            client.pid,
            context.pool.key.user,
            context.pool.key.database,
            "waiting" if client.waiting else "active" if server is not None else "idle",
            ends.address,
            ends.port,
            ends.local_address,
            ends.local_port,
            connected_at=clock.wall() - (clock.now() - client.since),
            wait_seconds=context.pool.waited(client) if client.waiting else 0.0,
            link=server.pid if server is not None else 0,
            remote_pid=server.pid if server is not None else 0,
            tls=ends.tls,
            application_name=_text(session.told.get(APPLICATION_NAME)),
            prepared_statements=len(session.statement_names()),
            pins=", ".join(sorted(set(session.pins()))),
        )

    def _relay(self, relay: Relay) -> ConnectionRow:
        clock, ends = self.proxy.clock, _ends(relay.client)
        return ConnectionRow(
            relay.pid,
            relay.pool_key.user,
            relay.pool_key.database,
            "active",
            ends.address,
            ends.port,
            ends.local_address,
            ends.local_port,
            connected_at=clock.wall() - (clock.now() - relay.since),
            remote_pid=relay.server_pid,
            tls=ends.tls,
            application_name=_text(relay.admit.parameters.get(APPLICATION_NAME)),
            replication=relay.kind,
            pins="replication",
        )

    def servers(self) -> list[ConnectionRow]:
        found = []
        clock = self.proxy.clock
        for pool in self.proxy.pools:
            for row in pool.servers():
                server = row.server
                ends = _ends(server.transport)
                found.append(
                    ConnectionRow(
                        server.pid,
                        row.user,
                        row.database,
                        row.state if server.errand.value == "none" else server.errand.value,
                        ends.address,
                        ends.port,
                        ends.local_address,
                        ends.local_port,
                        connected_at=clock.wall() - row.age_seconds,
                        close_needed=server.pool_state is ServerState.RETIRING,
                        link=server.client.pid if server.client is not None else 0,
                        remote_pid=server.pid,
                        tls=ends.tls,
                        application_name=_text(server.session.view.get(APPLICATION_NAME)),
                        prepared_statements=len(server.session.statements),
                    )
                )
        return found

    def stats(self) -> list[StatsRow]:
        linked = Counter(
            client.context.pool.key.database for client in self.proxy.clients.values() if client.server is not None
        )
        waits = self.proxy.pools.metrics
        nothing, no_waits = DatabaseMetrics(), PoolMetrics()
        rows = []
        for database in sorted(self.proxy.stats.keys() | waits.keys()):
            counted = self.proxy.stats.get(database, nothing)
            rows.append(
                StatsRow(
                    database,
                    transactions=counted.released + counted.kept,
                    assignments=counted.released + counted.abandoned + linked[database],
                    wait_seconds=waits.get(database, no_waits).wait_seconds,
                    round_trips=counted.origin_round_trips,
                    round_trips_saved=counted.origin_round_trips_saved.total(),
                )
            )
        return rows

    def databases(self) -> list[DatabaseRow]:
        proxy, settings = self.proxy, self._settings()
        host = proxy.origin.addresses[0]
        servers, clients, at_origin = Counter[str](), Counter[str](), Counter[str]()
        for pool in proxy.pools:
            at_origin[pool.key.database] += sum(1 for _ in pool.servers())
            clients[pool.key.database] += pool.clients
        names = {proxy.settings.database_names.get(name, name): name for name in settings.databases}
        held = {name for name in (*proxy.disabled, *proxy.pools.paused) if name is not None}
        for key in [self._main.database, *at_origin, *sorted(held)]:
            names.setdefault(key, key)
        servers.update(at_origin)
        rows = []
        for database, name in names.items():
            own = settings.database(name)
            rows.append(
                DatabaseRow(
                    name,
                    host.host,
                    host.port,
                    database,
                    own.pool_size or 0,
                    own.min_pool_size or 0,
                    own.pool_mode or "",
                    server_lifetime=settings.server_lifetime,
                    max_connections=own.max_db_connections or 0,
                    connections=servers[database],
                    client_connections=clients[database],
                    is_paused=proxy.pools.is_paused(database),
                    is_disabled=database in proxy.disabled,
                )
            )
        return rows

    def users(self) -> list[UserRow]:
        settings = self._settings()
        servers, clients = Counter[str](), Counter[str]()
        for pool in self.proxy.pools:
            servers[pool.key.user] += sum(1 for _ in pool.servers())
            clients[pool.key.user] += pool.clients
        rows = []
        for name in dict.fromkeys([self._main.user, *settings.users, *servers]):
            own = settings.users.get(name)
            rows.append(
                UserRow(
                    name,
                    own.pool_mode if own else None,
                    settings.max_connections_of(name),
                    servers[name],
                    clients[name],
                )
            )
        return rows

    def statements(self) -> list[StatementRow]:
        rows = []
        for context in self.proxy.contexts():
            clients = Counter(
                shared for client in list(context.clients) for shared in set(client.session.shared_statements())
            )
            servers = Counter(shared for row in context.pool.servers() for shared in row.server.session.statements)
            key = context.pool.key
            for shared in context.pipe.registry:
                sql = _text(shared.body.partition(b"\0")[0])
                rows.append(
                    StatementRow(_text(shared.name), sql, key.database, key.user, clients[shared], servers[shared])
                )
        return rows

    def memory(self) -> list[MemoryRow]:
        """Bytes of what grows with use; objects of a fixed size are not measured."""
        clients = list(self.proxy.clients.values())
        servers = [row.server for pool in self.proxy.pools for row in pool.servers()]
        texts = [len(shared.body) for context in self.proxy.contexts() for shared in context.pipe.registry]
        return [
            MemoryRow("client_write_buffers", len(clients), sum(c.transport.get_write_buffer_size() for c in clients)),
            MemoryRow("server_write_buffers", len(servers), sum(s.transport.get_write_buffer_size() for s in servers)),
            MemoryRow("statement_texts", len(texts), sum(texts)),
        ]

    # --- the cache ----------------------------------------------------------------------------------------------------

    def cache(self) -> list[CacheRow]:
        return cached.cache_rows(self.proxy.cache)

    def tables(self) -> list[TableRow]:
        return cached.table_rows(self.proxy.cache)

    def shapes(self) -> list[ShapeRow]:
        return cached.shape_rows(self.proxy.cache)

    # --- metrics ------------------------------------------------------------------------------------------------------

    def _saved_by_all(self) -> Counter[Saved]:
        """What is counted elsewhere as well, and by no database: logins that ended here, and answers from the cache."""
        reads = self.proxy.cache.reads
        return Counter(
            {
                Saved.CONNECT: self.proxy.metrics.clients_admitted,
                Saved.CACHE: reads.queries_hit + reads.queries_stale,
            }
        )

    def families(self) -> list[Family]:
        """Every metric of this process."""
        registry = Registry()
        registry.add(self.proxy.metrics)
        registry.add(tasks.metrics)
        cache = self.proxy.cache
        cache.reads.queries_hit = cache.store.hits
        registry.add(cache.reads)
        registry.add(cache.metrics, "cache")
        if cache.second is not None:
            registry.add(cache.second.metrics, "second_level")
        registry.gauge("cache_bytes", "Memory that stored answers take", lambda: cache.store.size_bytes)
        registry.gauge("cache_limit_bytes", "The most that they may take", lambda: cache.store.max_bytes)
        registry.gauge("cache_entries", "Answers stored", lambda: cache.store.count)
        for one in self.proxy.stats.values():
            registry.add(one)
        registry.add(DatabaseMetrics(origin_round_trips_saved=self._saved_by_all()))
        for pool in self.proxy.pools.metrics.values():
            registry.add(pool, "pool")
        add_gauges(registry, self)
        return registry.families()
