"""The only place where things are wired together: settings become a running proxy.

Knows every package; nothing but the command line, the library and tests knows it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

from hyperdrive.clock import SystemClock
from hyperdrive.config.settings import Settings
from hyperdrive.dsn import Dsn
from hyperdrive.errors import ConfigError
from hyperdrive.net.connect import Address
from hyperdrive.net.contexts import ClientCertificates, Negotiation, SslMode, TlsPolicy, server_context
from hyperdrive.net.listener import Listener, listen, listen_unix
from hyperdrive.pgwire.passwords import OriginCredentials
from hyperdrive.pgwire.startup import parse_options
from hyperdrive.pool.interfaces import PoolKey
from hyperdrive.pool.limits import Limits, LimitSettings
from hyperdrive.proxy.auth import DEFAULT_AUTH_QUERY, PostgresAuthQuery, UserDirectory, auth_connector, configured_users
from hyperdrive.proxy.connect import Origin
from hyperdrive.proxy.front_door import DoorSettings, FrontDoor
from hyperdrive.proxy.proxy import Proxy, ProxySettings
from hyperdrive.session.handshake import HandshakePolicy, Method
from hyperdrive.session.login import ChannelBinding

log = logging.getLogger("hyperdrive.app")

DRAIN_SECONDS = 5.0
"""How long transactions may go on after SIGTERM."""


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
        options=settings.socket_options(),
        parameters=parameters,
    )


class App:
    """One running proxy of one process. ``async with App(settings) as app`` starts and ends it."""

    def __init__(self, settings: Settings, *, worker: int = 0, mock_key: bytes | None = None) -> None:
        if settings.origin is None:
            raise ConfigError("origin: no database to connect to")
        self.settings = settings
        self.dsn = settings.origin
        self.worker = worker
        self.listeners: list[Listener] = []
        self._mock_key = mock_key or secrets.token_bytes(32)
        self._stack = AsyncExitStack()
        self.proxy = self._make_proxy()

    def _make_proxy(self) -> Proxy:
        settings, dsn = self.settings, self.dsn
        origin = origin_of(dsn, settings)
        passwords = {name: user.password for name, user in settings.users.items() if user.password}
        query = None
        if settings.auth_query:
            target = dsn.with_database(settings.auth_dbname or dsn.database)
            if settings.auth_user:
                target = target.with_user(settings.auth_user, passwords.get(settings.auth_user))
            text = DEFAULT_AUTH_QUERY if settings.auth_query == "default" else settings.auth_query
            query = PostgresAuthQuery(auth_connector(target, origin.tls), text)
        clock = SystemClock()
        directory = UserDirectory(
            configured_users(dsn, passwords),
            process_secret=self._mock_key,
            origin=OriginCredentials(dsn.user.encode(), dsn.password.encode()) if dsn.password is not None else None,
            auth_query=query,
            clock=clock,
        )
        limits = Limits(
            LimitSettings(
                total=settings.max_server_connections,
                per_database=settings.max_db_connections,
                per_user=settings.max_user_connections,
                users={name: settings.max_connections_of(name) for name in settings.users},
                databases={
                    settings.database(name).dbname: own.max_db_connections
                    for name, own in settings.databases.items()
                    if own.max_db_connections is not None
                },
            ),
            now=clock.now,
        )
        names = {name: settings.database(name).dbname for name in settings.databases}
        origin_names = {origin_name: name for name, origin_name in names.items()}
        return Proxy(
            origin,
            directory,
            ProxySettings(
                max_clients=settings.max_client_connections,
                max_statements=settings.max_prepared_statements,
                pin_unknown=settings.pin_unknown,
                write_high=settings.write_buffer_size,
                worker=self.worker,
                database_names=names,
            ),
            lambda key: settings.pool(key.user, origin_names.get(key.database, key.database)),
            clock,
            limits,
        )

    @property
    def port(self) -> int:
        """The first port that clients connect to."""
        return self.listeners[0].port

    def url(self) -> str:
        """The connection string to paste, without the password."""
        address = self.settings.listen[0]
        host = "127.0.0.1" if address.host in ("", "*", "0.0.0.0", "::") else address.host
        return f"postgresql://{self.dsn.user}@{host}:{self.port}/{self.dsn.database}"

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
        settings = self.settings
        door = self._door_settings()
        proxy = self.proxy
        for address in settings.listen:
            self.listeners.append(
                await listen(
                    address.host,
                    address.port,
                    lambda address=address: FrontDoor(proxy, door, is_loopback=address.is_loopback),  # type: ignore[misc]
                    reuse_port=settings.workers > 1,
                    options=settings.socket_options(),
                )
            )
        if settings.unix_socket_dir:
            self.listeners.append(
                await listen_unix(
                    settings.unix_socket_dir,
                    self.listeners[0].port if self.listeners else 6543,
                    lambda: FrontDoor(proxy, door, is_unix=True),
                    mode=settings.unix_socket_mode,
                )
            )
        proxy.warm(PoolKey(self.dsn.database, self.dsn.user))

    def _door_settings(self) -> DoorSettings:
        settings = self.settings
        context: Any = None
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
                mock_key=self._mock_key,
                method=Method(settings.auth_method or "scram"),
                tls_available=context is not None,
                require_tls=settings.tls_require,
            ),
            tls=context,
            login_seconds=settings.client_login_timeout,
        )

    async def close(self, *, drain_seconds: float | None = None) -> None:
        """Stop listening, then end the proxy."""
        for listener in self.listeners:
            listener.close()
        await self.proxy.close(drain_seconds=drain_seconds)
        await self._stack.aclose()


async def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Run until SIGINT or SIGTERM; call *ready* with the connection string when clients can be served."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    async with App(settings) as app:
        ready(app.url())
        await stop.wait()
        await app.close(drain_seconds=DRAIN_SECONDS)
