"""What each package's settings are, from those of the process: one function per package, and none that starts anything.

The packages below never see the table of settings; ``app`` calls these when it starts and again with RELOAD.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from ssl import SSLContext

from hyperdrive.cache.metrics import SecondMetrics
from hyperdrive.cache.policy import Override, Policy
from hyperdrive.cache.second import SecondLevel
from hyperdrive.config.entries import UserSettings
from hyperdrive.config.settings import Settings
from hyperdrive.dsn import Dsn
from hyperdrive.net.connect import Address
from hyperdrive.net.contexts import ClientCertificates, Negotiation, SslMode, TlsPolicy, server_context
from hyperdrive.net.redis import RedisStore
from hyperdrive.net.transport import SocketOptions
from hyperdrive.pgwire.startup import parse_options
from hyperdrive.pool.interfaces import PoolKey
from hyperdrive.pool.limits import LimitSettings
from hyperdrive.pool.settings import PoolMode, PoolSettings
from hyperdrive.proxy.auth import DEFAULT_AUTH_QUERY, PostgresAuthQuery, auth_connector
from hyperdrive.proxy.cache import Cache, CacheSettings, InTransactions, Mode
from hyperdrive.proxy.connect import Origin
from hyperdrive.proxy.front_door import DoorSettings
from hyperdrive.proxy.proxy import ProxySettings
from hyperdrive.session.handshake import HandshakePolicy, Method
from hyperdrive.session.login import ChannelBinding
from hyperdrive.session.pipe import Eager, Switches
from hyperdrive.sql.catalog import Declarations


def origin_of(dsn: Dsn, settings: Settings) -> Origin:
    """How the origin of a connection string is reached."""
    parameters = dict(parse_options(dsn.options.encode())) if dsn.options else {}
    return Origin(
        addresses=tuple(Address(host.host, host.port, host.hostaddr or None) for host in dsn.hosts),
        tls=TlsPolicy(
            mode=SslMode(dsn.sslmode),
            negotiation=Negotiation(dsn.sslnegotiation),
            root_cert=dsn.sslrootcert or None,
            cert=dsn.sslcert or None,
            key=dsn.sslkey or None,
            password=dsn.sslpassword or None,
            crl=dsn.sslcrl or None,
            crl_dir=dsn.sslcrldir or None,
            min_version=dsn.ssl_min_protocol_version,
            max_version=dsn.ssl_max_protocol_version,
            sni=dsn.sslsni,
        ),
        channel_binding=ChannelBinding(dsn.channel_binding),
        connect_seconds=settings.connect_timeout,
        login_seconds=settings.server_login_timeout,
        options=socket_options(settings),
        parameters=parameters,
    )


def auth_query(dsn: Dsn, settings: Settings) -> PostgresAuthQuery | None:
    """Who looks up users that the configuration does not name, if anybody does; *dsn* is the origin's."""
    if not settings.auth_query:
        return None
    target = dsn.with_database(settings.auth_dbname or dsn.database)
    if settings.auth_user:
        target = target.with_user(settings.auth_user, passwords(settings).get(settings.auth_user))
    text = DEFAULT_AUTH_QUERY if settings.auth_query == "default" else settings.auth_query
    return PostgresAuthQuery(auth_connector(target, origin_of(dsn, settings).tls), text)


def proxy_settings(settings: Settings, worker: int) -> ProxySettings:
    """What holds for every client of the process, which is worker number *worker*."""
    return ProxySettings(
        max_clients=settings.max_client_connections,
        max_statements=settings.max_prepared_statements,
        pin_unknown=settings.pin_unknown,
        switches=Switches(
            hold_begin=settings.hold_begin,
            eager_rollback=Eager(settings.eager_rollback),
            eager_commit=settings.eager_commit,
            local_settings=settings.local_settings,
            known_statements=settings.known_statements,
            known_answers=settings.known_answers,
        ),
        write_high=settings.write_buffer_size,
        worker=worker,
        database_names={name: settings.database(name).dbname for name in settings.databases},
    )


def door_settings(settings: Settings, mock_key: bytes) -> DoorSettings:
    """How clients log in; *mock_key* is what unknown users' salts are made from.

    Raises:
        ConfigError: a file of TLS is missing or wrong.
    """
    context: SSLContext | None = None
    if settings.tls_cert:
        method_is_cert = settings.auth_method == "cert"
        context = server_context(
            settings.tls_cert,
            settings.tls_key or None,
            client_ca=settings.tls_client_ca or None,
            client_certificates=ClientCertificates.REQUIRED if method_is_cert else ClientCertificates.OPTIONAL,
        )
    return DoorSettings(
        policy=HandshakePolicy(
            mock_key=mock_key,
            method=Method(settings.auth_method or "scram"),
            tls_available=context is not None,
            require_tls=settings.tls_require,
            scram_iterations=settings.scram_iterations,
        ),
        tls=context,
        login_seconds=settings.client_login_timeout,
    )


def second_level(settings: Settings, cache: Cache, worker: int) -> RedisStore | None:
    """Give *cache* its second level, if there is to be one; return the store behind it, not started yet.

    Also while the cache is off: what is written then is not noted, and whoever comes later must know.
    """
    if not settings.cache_redis:
        return None
    shared = RedisStore(settings.cache_redis, answer_seconds=settings.cache_redis_timeout)
    has_place = cache.is_on and all(address.port for address in settings.listen)
    place = f"{', '.join(map(str, settings.listen))} {worker}".encode()
    second = SecondLevel(shared, SecondMetrics(), cache.now, mark=process_mark(place) if has_place else b"")
    shared.up, shared.down = second.up, second.down
    cache.second = second
    return shared


def process_mark(place: bytes) -> bytes:
    """What names the process that listens at *place*, also when it is started again; empty where nothing does.

    Names of hosts and addresses of containers come twice; a machine that has been running since a certain moment does not.
    """
    try:
        booted = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return b""
    return blake2b(booted + socket.gethostname().encode() + b"/" + place, digest_size=16).hexdigest().encode()


def passwords(settings: Settings) -> dict[str, str]:
    """The users of ``[users]`` that have a password, with it or with what PostgreSQL stores of it."""
    return {name: user.password for name, user in settings.users.items() if user.password}


def pool_of(settings: Settings, user: str, database: str) -> PoolSettings:
    """How the pool of a pair behaves: the user's own settings, then the database's, then those for all."""
    own = settings.users.get(user) or UserSettings()
    of_database = settings.database(database)
    return PoolSettings(
        pool_size=of_database.pool_size or settings.pool_size,
        min_size=of_database.min_pool_size or 0,
        mode=PoolMode(own.pool_mode or of_database.pool_mode),
        query_wait_timeout=settings.query_wait_timeout,
        server_lifetime=settings.server_lifetime,
        server_idle_timeout=settings.server_idle_timeout,
        server_check_delay=settings.server_check_delay,
        probe_timeout=settings.server_check_timeout,
        connect_timeout=_connect_timeout(settings),
        login_timeout=settings.server_login_timeout,
        backoff_first=settings.backoff_first,
        backoff_max=settings.backoff_max,
        refused_retry=settings.refused_retry,
        max_connecting=settings.max_connecting,
        unused_pool_timeout=settings.pool_idle_timeout,
    )


def _connect_timeout(settings: Settings) -> float:
    """The connection string may ask for less than the setting; 0 is no limit."""
    ours, theirs = settings.connect_timeout, settings.origin.connect_timeout if settings.origin else None
    return min(ours or theirs, theirs) if theirs else ours


def socket_options(settings: Settings) -> SocketOptions:
    """What is set on every TCP socket. ``tcp_user_timeout`` is not: ``proxy.stalls`` sees to it, and says why."""
    return SocketOptions(
        keepalive=settings.tcp_keepalive,
        keepalive_idle_seconds=settings.tcp_keepalive_idle,
        keepalive_interval_seconds=settings.tcp_keepalive_interval,
        keepalive_count=settings.tcp_keepalive_count,
    )


def pool_settings(settings: Settings) -> Callable[[PoolKey], PoolSettings]:
    """How the pool of a key behaves. Keys have the origin's names of databases, settings those that clients ask for."""
    origin_names = {settings.database(name).dbname: name for name in settings.databases}
    return lambda key: pool_of(settings, key.user, origin_names.get(key.database, key.database))


def lost_seconds(settings: Settings) -> float | None:
    """After how long without the origin its catalog counts as unknown; ``None``: the usual time.

    Entries that may serve while the origin is away must not go because it is.
    """
    return math.inf if settings.stale_if_error > 0 else None


def declarations_of(settings: Settings) -> Declarations:
    """What the operator vouches for towards the cache."""
    functions = {}
    for one in settings.cache_functions:
        name, _, tables = one.partition("=")
        functions[name] = tuple(filter(None, tables.split("+")))
    return Declarations(
        trust_immutable=settings.cache_trust_immutable,
        types=frozenset(settings.cache_types),
        functions=functions,
        no_clock_words_in_data=settings.cache_clean_dates,
        age_only=settings.cache_age_only,
    )


def cache_settings(settings: Settings) -> CacheSettings:
    """What is cached, for how long, and how much of it."""
    return CacheSettings(
        mode=Mode(settings.cache),
        size_bytes=settings.cache_size,
        entry_bytes=settings.cache_entry_size,
        policy=Policy(settings.max_age, settings.stale_while_revalidate, settings.stale_if_error),
        tables=tuple(
            (pattern, Override(own.max_age, own.stale_while_revalidate, own.stale_if_error, own.cache))
            for pattern, own in settings.tables.items()
        ),
        in_transactions=InTransactions(settings.cache_in_transactions),
        knows=settings.known_answers or settings.eager_commit,
        uses=lambda key: settings.uses_cache(key.user, key.database),
    )


def limit_settings(settings: Settings) -> LimitSettings:
    """How many server connections there may be, over all pools."""
    return LimitSettings(
        total=settings.max_server_connections,
        per_database=settings.max_db_connections,
        per_user=settings.max_user_connections,
        users={name: settings.max_connections_of(name) for name in settings.users},
        databases={
            settings.database(name).dbname: own.max_db_connections
            for name, own in settings.databases.items()
            if own.max_db_connections is not None
        },
    )
