"""Connecting to the origin: names, addresses, deadlines, and TLS as ``sslmode`` says.

The meanings are libpq's (libpq-connect#LIBPQ-MULTIPLE-HOSTS, libpq-ssl, protocol-flow#PROTOCOL-FLOW-SSL). Names are
resolved at every connect, so a moved origin is followed. Bytes that stand behind the one that answers SSLRequest are
refused (CVE-2021-23222), and an ErrorResponse instead of it is text of nobody: logged, never shown (CVE-2024-10977).
Knows transports and TLS; the login that follows is not its business.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, cast

from hyperdrive.errors import HyperdriveError, OriginUnreachable
from hyperdrive.net.contexts import ALPN, Negotiation, SslMode, TlsPolicy
from hyperdrive.net.listener import socket_path
from hyperdrive.net.tls import TlsInfo, TlsTransport
from hyperdrive.net.transport import DEFAULT_OPTIONS, SocketOptions, Transport, tune
from hyperdrive.pgwire import startup
from hyperdrive.tasks import spawn

log = logging.getLogger("hyperdrive.net")

P = TypeVar("P", bound=asyncio.BaseProtocol)

SSL_REQUEST = startup.ssl_request()
NO_TLS = TlsPolicy(SslMode.DISABLE)
CLIENT_TEXT = "could not connect to the database"


@dataclass(frozen=True, slots=True)
class Address:
    """One place where the origin may be. *host* is a name, an IP address, or the directory of a unix socket.

    *host_address* is an IP address to connect to without asking DNS; *host* is still the name in the certificate.
    """

    host: str
    port: int = 5432
    host_address: str | None = None

    @property
    def is_unix(self) -> bool:
        return self.host_address is None and self.host.startswith(("/", "@"))

    def __str__(self) -> str:
        if self.is_unix:
            return f"{self.host}/.s.PGSQL.{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Connected(NamedTuple, Generic[P]):
    """An open connection; *tls* is ``None`` in clear. The transport's ``peername`` is the address reached."""

    transport: Transport
    protocol: P
    tls: TlsInfo | None


class _Place(NamedTuple):
    """One resolved address."""

    address: Address
    family: int
    sockaddr: tuple[object, ...] | str

    def __str__(self) -> str:
        if self.family == socket.AF_UNIX or self.sockaddr[0] == self.address.host:
            return str(self.address)
        return f"{self.address} ({self.sockaddr[0]})"


async def connect(
    endpoint: Sequence[Address],
    factory: Callable[[], P],
    *,
    timeout_seconds: float,
    tls: TlsPolicy = NO_TLS,
    options: SocketOptions = DEFAULT_OPTIONS,
    shuffle: random.Random | None = None,
) -> Connected[P]:
    """Connect to the first place of *endpoint* that answers.

    All hosts are tried in order, each with all its addresses; with *shuffle* in random order, as with libpq's
    ``load_balance_hosts``. *timeout_seconds* is for all of it: each place gets an equal share of what is left. The
    protocol is made when the connection is ready for the StartupMessage. Cancelling is safe: no socket is left, and a
    protocol that was made gets its ``connection_lost``.

    Raises:
        OriginUnreachable: no place answered; the log's text has each with its cause. Nothing was sent but SSLRequest.
        ConfigError: a file of *tls* cannot be used.
    """
    if tls.starts_with_tls or tls.mode is SslMode.ALLOW:
        _ = tls.context  # a file that cannot be used is no failure of the origin
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    failures: list[str] = []
    hosts = list(endpoint)
    if shuffle:
        shuffle.shuffle(hosts)
    for host_index, host in enumerate(hosts):
        host_deadline = _share(loop.time(), deadline, len(hosts) - host_index)
        try:
            async with asyncio.timeout_at(host_deadline):
                places = await _resolve(host)
        except TimeoutError:
            failures.append(f"{host}: the name was not resolved in time")
            continue
        except OSError as exc:
            failures.append(f"{host}: {_cause(exc)}")
            continue
        if shuffle:
            shuffle.shuffle(places)
        for index, place in enumerate(places):
            place_deadline = _share(loop.time(), host_deadline, len(places) - index)
            try:
                async with asyncio.timeout_at(place_deadline):
                    return await _connect_place(place, factory, tls, options)
            except TimeoutError:
                failures.append(f"{place}: no answer in time")
            except OSError as exc:
                failures.append(f"{place}: {_cause(exc)}")
            except OriginUnreachable as exc:
                failures.append(f"{place}: {exc.log_text}")
    raise OriginUnreachable(CLIENT_TEXT, log_text="; ".join(failures) or "no address is configured", safe_to_retry=True)


def _share(now: float, deadline: float, places: int) -> float:
    return now + (deadline - now) / places


def _cause(exc: OSError) -> str:
    """The system's words; asyncio puts its own in front of some."""
    if isinstance(exc, socket.gaierror) or not exc.errno:
        return exc.strerror or str(exc)
    return os.strerror(exc.errno)


def resolver() -> Callable[..., Awaitable[list[tuple[Any, ...]]]]:
    """What asks DNS; tests put their own in its place."""
    return asyncio.get_running_loop().getaddrinfo


async def _resolve(address: Address) -> list[_Place]:
    if address.is_unix:
        return [_Place(address, socket.AF_UNIX, socket_path(address.host, address.port))]
    try:
        found = await resolver()(address.host_address or address.host, address.port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:  # a label that is empty or too long
        raise OSError(f"not a host name: {exc}") from exc
    return [_Place(address, family, sockaddr) for family, _, _, _, sockaddr in dict.fromkeys(found)]


async def _connect_place(
    place: _Place, factory: Callable[[], P], tls: TlsPolicy, options: SocketOptions
) -> Connected[P]:
    # A unix socket has no TLS in PostgreSQL, and libpq ignores sslmode there.
    wants_tls = tls.starts_with_tls and place.family != socket.AF_UNIX
    try:
        return await _open(place, factory, tls if wants_tls else None, options)
    except OriginUnreachable as exc:
        if not wants_tls or tls.requires_tls or not isinstance(exc, _HandshakeFailed):
            raise
        log.info("= %s: %s; sslmode=prefer goes on without TLS", place, exc.log_text)
    return await _open(place, factory, None, options)


class _HandshakeFailed(OriginUnreachable):
    """TLS was offered and could not be agreed on: with ``prefer`` a reason to try in clear."""


async def _open(place: _Place, factory: Callable[[], P], tls: TlsPolicy | None, options: SocketOptions) -> Connected[P]:
    loop = asyncio.get_running_loop()
    sock = socket.socket(place.family, socket.SOCK_STREAM)
    opening: _Opening[P] | None = None
    try:
        sock.setblocking(False)
        tune(sock, options)
        await loop.sock_connect(sock, place.sockaddr)
        opening = _Opening(place, factory, tls, loop.create_future())
        # Shielded: uvloop, cancelled here, closes the transport without telling the protocol. It takes two turns of
        # the loop, and if nobody waits by then, _Opening hangs up.
        made = spawn(loop.create_connection(_always(opening), sock=sock), name="open a server connection")
        made.add_done_callback(opening.attached)
        await asyncio.shield(made)
        return await opening.ready
    except BaseException:
        if opening is None:
            sock.close()
        else:
            opening.give_up()  # the transport owns the socket
        raise


def _always(protocol: P) -> Callable[[], P]:
    return lambda: protocol


class _Opening(asyncio.Protocol, Generic[P]):
    """The raw transport's protocol until the real one takes over, in the same turn of the loop: no byte gets lost."""

    def __init__(
        self, place: _Place, factory: Callable[[], P], tls: TlsPolicy | None, ready: asyncio.Future[Connected[P]]
    ) -> None:
        self.ready = ready
        self._place = place
        self._factory = factory
        self._tls = tls
        self._transport: Transport | None = None
        self._is_attached = False
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(Transport, transport)
        if self._is_over:
            pass
        elif self._tls is None:
            self._hand_over(self._transport, None)
        elif self._tls.negotiation is Negotiation.DIRECT:
            self._start_tls(self._tls, self._transport)
        else:
            self._transport.write(SSL_REQUEST)

    def data_received(self, data: bytes) -> None:
        """The answer to SSLRequest: one byte and nothing behind it."""
        tls, raw = self._tls, self._transport
        if self.ready.done() or tls is None or raw is None:
            return
        answer = data[:1]
        if answer == b"E":
            self._fail(f"the server answered SSLRequest with an error, perhaps: {data[:200]!r}")
        elif len(data) > 1:
            self._fail(f"bytes behind the answer to SSLRequest: {data[:40]!r}, perhaps from a man in the middle")
        elif answer == b"S":
            self._start_tls(tls, raw)
        elif answer != b"N":
            self._fail(f"the answer to SSLRequest is {answer!r}; is that a PostgreSQL server?")
        elif tls.requires_tls:
            self._fail(f"the server does not support TLS, but sslmode={tls.mode.value} was demanded")
        else:
            self._hand_over(raw, None)

    def eof_received(self) -> None:
        self._fail("the server closed the connection unexpectedly")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was lost ({exc or 'closed'})")

    def attached(self, _: object) -> None:
        """The transport has taken the socket over; aborted before, uvloop would leave the socket object open."""
        self._is_attached = True
        if self._is_over:
            self._hang_up()

    def give_up(self) -> None:
        """Nobody waits any longer."""
        if not self.ready.cancel() and not self.ready.cancelled():
            self.ready.exception()  # has been seen: nobody else will ask for it
        self._hang_up()

    def _hang_up(self) -> None:
        self._is_over = True
        if self._transport is not None and self._is_attached:
            self._transport.abort()

    def _start_tls(self, tls: TlsPolicy, raw: Transport) -> None:
        address = self._place.address
        direct = tls.negotiation is Negotiation.DIRECT
        try:
            transport = TlsTransport(
                raw,
                tls.context,
                server_side=False,
                protocol=self,
                server_hostname=address.host if tls.sni or tls.checks_name else None,
                on_handshake=lambda outcome: self._after_handshake(transport, outcome),
                alpn=ALPN if direct else None,
            )
        except ValueError as exc:  # a name that SNI cannot carry
            self._fail(f"TLS cannot be asked for this host name: {exc}")
            return
        self._transport = transport
        transport.start()

    def _after_handshake(self, transport: TlsTransport, outcome: TlsInfo | HyperdriveError) -> None:
        if isinstance(outcome, TlsInfo):
            self._hand_over(transport, outcome)
        elif not self.ready.done():
            self.ready.set_exception(_HandshakeFailed(CLIENT_TEXT, log_text=outcome.log_text, safe_to_retry=True))

    def _hand_over(self, transport: Transport, info: TlsInfo | None) -> None:
        if self._is_over:
            return
        protocol = self._factory()
        transport.set_protocol(protocol)
        protocol.connection_made(cast(asyncio.BaseTransport, transport))
        self.ready.set_result(Connected(transport, protocol, info))

    def _fail(self, reason: str) -> None:
        if not self.ready.done():
            self.ready.set_exception(OriginUnreachable(CLIENT_TEXT, log_text=reason, safe_to_retry=True))
        self._hang_up()
