"""Opening a server connection: reach the origin, log in, hand over.

Knows how a pool's user logs in and what libpq's ``sslmode`` says of a second attempt. What happens after ReadyForQuery is the
server connection's.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hyperdrive.errors import HyperdriveError, OriginRefused, OriginUnreachable
from hyperdrive.net.connect import Address, Connected, connect
from hyperdrive.net.contexts import TlsPolicy
from hyperdrive.net.transport import DEFAULT_OPTIONS, SocketOptions, Transport
from hyperdrive.pgwire import startup
from hyperdrive.pgwire.passwords import OriginCredentials
from hyperdrive.pgwire.scram import ScramKeys
from hyperdrive.session.login import ChannelBinding, DeriveKeys, LoggedIn, OriginLogin, Send

log = logging.getLogger("hyperdrive.proxy")


@dataclass(slots=True)
class Learned:
    """What earlier connections to an origin have shown."""

    hangs_up_on_3_2: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the origin is and how it is reached."""

    addresses: tuple[Address, ...]
    tls: TlsPolicy
    channel_binding: ChannelBinding = ChannelBinding.PREFER
    connect_seconds: float = 15.0
    login_seconds: float = 15.0
    options: SocketOptions = DEFAULT_OPTIONS
    parameters: Mapping[bytes, bytes] = field(default_factory=dict)
    """Start-up parameters of every server connection, from the origin's connection string."""
    protocol: int = startup.PROTOCOL_3_2
    """3.2 for longer cancel keys; an older origin negotiates down, and some poolers hang up: they get 3.0."""
    learned: Learned = field(default_factory=Learned, compare=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that is logged in. *keys* were derived on the way and may be kept for the next login."""

    transport: Transport
    login: LoggedIn
    keys: ScramKeys | None
    address: str


class _LoginProtocol(asyncio.Protocol):
    """Feeds the login and lets one task wait for its end."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes | None] = asyncio.Queue()

    def data_received(self, data: bytes) -> None:
        self.received.put_nowait(data)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.received.put_nowait(None)


async def open_server(
    origin: Origin, credentials: OriginCredentials, database: str, extra: Mapping[bytes, bytes] | None = None
) -> Opened:
    """Connect and log in. Cancelling is safe: no socket is left.

    Raises:
        OriginUnreachable: no address answered, or the login took too long.
        OriginRefused: the origin said no.
        OriginLoginFailed: a login that we cannot or will not do.
    """
    try:
        return await _attempt(origin, origin.tls, credentials, database, extra)
    except _RefusedError as exc:
        # pg_hba.conf may want the other of TLS and clear text (libpq: allow, prefer).
        refused = exc.refused
        again = origin.tls.after_refusal(used_tls=exc.used_tls) if refused.code.startswith("28") else None
        if again is None:
            raise refused from None
        try:
            return await _attempt(origin, again, credentials, database, extra)
        except (HyperdriveError, _RefusedError):
            raise refused from None


class _RefusedError(Exception):
    """The origin said no, over a connection with or without TLS."""

    def __init__(self, refused: OriginRefused, used_tls: bool) -> None:
        super().__init__(refused.client_text)
        self.refused = refused
        self.used_tls = used_tls


class _HungUpError(OriginUnreachable):
    """The connection was closed instead of an answer to StartupMessage."""


async def _attempt(
    origin: Origin,
    tls: TlsPolicy,
    credentials: OriginCredentials,
    database: str,
    extra: Mapping[bytes, bytes] | None,
) -> Opened:
    """One attempt, or two: what hangs up on protocol 3.2 is asked for 3.0 (poolers and load balancers before 2025)."""
    protocol = startup.PROTOCOL_3_0 if origin.learned.hangs_up_on_3_2 else origin.protocol
    try:
        return await _attempt_with(protocol, origin, tls, credentials, database, extra)
    except _HungUpError:
        if protocol == startup.PROTOCOL_3_0:
            raise
    opened = await _attempt_with(startup.PROTOCOL_3_0, origin, tls, credentials, database, extra)
    log.info("= %s hangs up on protocol 3.2; it gets 3.0 from now on", opened.address)
    origin.learned.hangs_up_on_3_2 = True
    return opened


async def _attempt_with(
    protocol: int,
    origin: Origin,
    tls: TlsPolicy,
    credentials: OriginCredentials,
    database: str,
    extra: Mapping[bytes, bytes] | None,
) -> Opened:
    connected = await connect(
        origin.addresses, _LoginProtocol, timeout_seconds=origin.connect_seconds, tls=tls, options=origin.options
    )
    try:
        async with asyncio.timeout(origin.login_seconds or None):
            login, keys = await _log_in(connected, protocol, origin, tls, credentials, database, extra)
        return Opened(connected.transport, login, keys, _shown(connected.transport))
    except TimeoutError as exc:
        connected.transport.abort()
        raise OriginUnreachable("the database did not complete the login in time", safe_to_retry=True) from exc
    except OriginRefused as refused:
        connected.transport.abort()
        raise _RefusedError(refused, connected.tls is not None) from None
    except BaseException:
        connected.transport.abort()
        raise


async def _log_in(
    connected: Connected[_LoginProtocol],
    protocol: int,
    origin: Origin,
    tls: TlsPolicy,
    credentials: OriginCredentials,
    database: str,
    extra: Mapping[bytes, bytes] | None,
) -> tuple[LoggedIn, ScramKeys | None]:
    # With a root certificate at hand, sslmode=require verifies as well (libpq-ssl#LIBPQ-SSL-PROTECTION).
    verified = connected.tls is not None and tls.context.verify_mode is ssl.CERT_REQUIRED
    is_unix = any(address.is_unix for address in origin.addresses)
    login = OriginLogin(
        credentials,
        database.encode("utf-8", "surrogateescape"),
        parameters={**origin.parameters, **(extra or {})},
        protocol=protocol,
        channel_binding=origin.channel_binding,
        allow_cleartext=verified or is_unix or _is_loopback(connected.transport),
        server_end_point=connected.tls.server_end_point if connected.tls is not None else None,
    )
    connected.transport.write(login.start())
    keys: ScramKeys | None = None
    heard = False
    while True:
        data = await connected.protocol.received.get()
        if data is None:
            raise (OriginUnreachable if heard else _HungUpError)(
                "the database closed the connection during the login",
                log_text=f"{_shown(connected.transport)}: closed while waiting for {login.waits_for}",
                safe_to_retry=True,
            )
        heard = True
        actions = login.receive(data)
        while actions:
            action = actions.pop(0)
            if isinstance(action, Send):
                connected.transport.write(action.data)
            elif isinstance(action, DeriveKeys):
                keys = await asyncio.to_thread(action.compute)
                actions += login.keys_derived(keys)
            else:
                return action, keys


def _is_loopback(transport: Transport) -> bool:
    peer = transport.get_extra_info("peername")
    return isinstance(peer, tuple) and (str(peer[0]).startswith("127.") or peer[0] == "::1")


def _shown(transport: Transport) -> str:
    peer = transport.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"


async def send_cancel(origin: Origin, addresses: Sequence[Address], pid: int, key: bytes) -> None:
    """Send a CancelRequest and wait until the origin has closed the connection (protocol-flow-canceling-requests)."""
    connected = await connect(
        addresses, _LoginProtocol, timeout_seconds=origin.connect_seconds, tls=origin.tls, options=origin.options
    )
    try:
        connected.transport.write(startup.cancel_request(pid, key))
        async with asyncio.timeout(origin.connect_seconds or None):
            while await connected.protocol.received.get() is not None:
                pass
    finally:
        connected.transport.abort()
