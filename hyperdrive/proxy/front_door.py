"""A client before it is one: TLS, start-up, authentication, then the welcome.

Carries out what ``session.handshake`` decides, waits where something has to be looked up, and bounds all of it by a deadline. One
task per client lives here, and ends when the client is let in: the query path has none.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from hyperdrive.errors import HyperdriveError, ProtocolViolation, TooManyConnections
from hyperdrive.net.tls import TlsInfo, TlsTransport
from hyperdrive.net.transport import Transport
from hyperdrive.pgwire.messages import error_message
from hyperdrive.proxy import guard
from hyperdrive.proxy.auth import Pending
from hyperdrive.proxy.guard import guarded
from hyperdrive.session.handshake import (
    Action,
    Admit,
    Cancel,
    CheckPassword,
    ClientHandshake,
    Close,
    HandshakePolicy,
    LookUpUser,
    Send,
    StartTls,
)
from hyperdrive.tasks import spawn

if TYPE_CHECKING:
    from hyperdrive.proxy.proxy import Proxy

log = logging.getLogger("hyperdrive.proxy")


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """What a listener asks of clients."""

    policy: HandshakePolicy
    tls: ssl.SSLContext | None = None
    login_seconds: float = 60.0
    _policies: dict[tuple[bool, bool], HandshakePolicy] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def policy_for(self, *, is_unix: bool, is_local: bool) -> HandshakePolicy:
        """The policy for clients that come this way, made once."""
        found = self._policies.get((is_unix, is_local))
        if found is None:
            tls_available = self.tls is not None and not is_unix
            found = replace(self.policy, is_unix=is_unix, is_local=is_local, tls_available=tls_available)
            self._policies[is_unix, is_local] = found
        return found


class FrontDoor(asyncio.Protocol):
    """One connection until it is a client, or is turned away."""

    def __init__(
        self, proxy: Proxy, settings: DoorSettings, *, is_unix: bool = False, is_loopback: bool = False
    ) -> None:
        """*is_unix*, *is_loopback*: where the listener is.

        A peer on loopback says nothing when the listener is open to the network: a relay on this machine brings anyone.
        """
        self._proxy = proxy
        self._settings = settings
        self._is_unix = is_unix
        self._is_loopback = is_loopback
        self._transport: Transport = cast("Transport", None)
        self._handshake: ClientHandshake
        self._is_open = False
        self._deadline: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._over = False
        self._ahead = b""
        """The end of a login that is not written yet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("Transport", transport)
        if self._is_open:  # the same connection, now under TLS
            return
        self._is_open = True
        is_local = self._is_unix or (self._is_loopback and _is_loopback(self._transport))
        self._handshake = ClientHandshake(self._settings.policy_for(is_unix=self._is_unix, is_local=is_local))
        loop = asyncio.get_running_loop()
        if self._settings.login_seconds:
            self._deadline = loop.call_later(self._settings.login_seconds, self._too_slow)
        self._proxy.doors.add(self)
        if self._proxy.is_crowded:
            self._fatal(TooManyConnections("sorry, too many clients already"))

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        try:
            self._carry_out(self._handshake.receive(data))
        except Exception as exc:
            self.failed(exc)

    def failed(self, exc: Exception) -> None:
        """Our own code is at fault: the client is told, and nobody has got in."""
        error = guard.fault(self._proxy.metrics, "login", "a login", exc)
        if not self._over:
            guard.carry_out(lambda: self._fatal(error), self._transport.close, self._end)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def refuse(self, error: HyperdriveError) -> None:
        """Turn the client away, wherever it is."""
        self._carry_out(self._handshake.refuse(error))

    # --- actions ------------------------------------------------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action]) -> None:
        for number, action in enumerate(actions, 1):
            match action:
                case Send(data):
                    if number < len(actions) and isinstance(actions[number], Admit):
                        self._ahead = data
                    else:
                        self._transport.write(data)
                case StartTls(reply, client_hello):
                    self._start_tls(reply, client_hello)
                case LookUpUser(user, database):
                    found = self._proxy.directory.look_up_nowait(user, database)
                    if isinstance(found, Pending):
                        self._wait_for(self._look_up(user, database), "look up")
                    else:
                        self._carry_out(self._handshake.user_found(found))
                case CheckPassword():
                    self._wait_for(self._check(action), "check password")
                case Admit():
                    if not self._admit_now(action):
                        self._transport.pause_reading()
                        self._wait_for(self._admit(action), "admit")
                case Cancel(pid, key):
                    self._cancel(self._proxy.cancel(pid, key))
                case Close(data, error):
                    if error.code == "28P01":
                        self._proxy.directory.client_refused(self._handshake.user)
                    self._proxy.metrics.clients_refused += 1
                    self._proxy.metrics.count_error(error)
                    log.info("! client refused: %s %s", error.code, error.log_text)
                    self._close(data)

    def _cancel(self, delivery: asyncio.Future[None] | None) -> None:
        """Close when the request has arrived: who waits for that knows, as with PostgreSQL, that nothing it sends later is hit."""
        if delivery is None:
            self._close(b"")
            return
        self._end()  # nothing else is listened to, nor said
        delivery.add_done_callback(lambda _: self._close(b""))

    def _wait_for(self, work: Coroutine[Any, Any, None], what: str) -> None:
        self._task = spawn(self._guarded(work), name=f"client {what}")

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as exc:
            self.failed(exc)

    async def _look_up(self, user: str, database: str) -> None:
        try:
            secret = await self._proxy.directory.look_up(user, database)
        except HyperdriveError as error:
            self._carry_out(self._handshake.refuse(error))
            return
        self._carry_out(self._handshake.user_found(secret))

    async def _check(self, check: CheckPassword) -> None:
        matches = await asyncio.to_thread(check.matches)
        self._carry_out(self._handshake.password_checked(matches))

    def _admit_now(self, admit: Admit) -> bool:
        """Whether it is settled, one way or the other: usually all that a client has to be told is known.

        Then AuthenticationOk leaves together with it, in one packet that wakes the client once.
        """
        ahead, self._ahead = self._ahead, b""
        error: HyperdriveError | None = None
        try:
            if self._proxy.admit_nowait(admit, self._transport, self, ahead):
                return True
        except HyperdriveError as exc:
            error = exc
        self._transport.write(ahead)
        if error is not None:
            self._fatal(error)
        return error is not None

    async def _admit(self, admit: Admit) -> None:
        try:
            await self._proxy.admit(admit, self._transport, self)
        except HyperdriveError as error:
            self._fatal(error)

    def _fatal(self, error: HyperdriveError) -> None:
        self._proxy.metrics.clients_refused += 1
        self._proxy.metrics.count_error(error)
        log.info("! client refused: %s %s", error.code, error.log_text)
        self._close(error_message(error, severity="FATAL"))

    def _start_tls(self, reply: bytes, client_hello: bytes) -> None:
        context = self._settings.tls
        assert context is not None
        raw = self._transport
        raw.pause_reading()
        if reply:
            raw.write(reply)
        tls = TlsTransport(raw, context, server_side=True, protocol=self, on_handshake=self._tls_done)
        self._transport = cast("Transport", tls)
        tls.start(client_hello)
        raw.resume_reading()

    @guarded(None)
    def _tls_done(self, outcome: TlsInfo | HyperdriveError) -> None:
        if isinstance(outcome, HyperdriveError):
            log.info("! TLS with a client failed: %s", outcome.log_text)
            self._proxy.metrics.clients_refused += 1
            self._transport.abort()
            self._end()
            return
        names = [outcome.peer_common_name] if outcome.peer_common_name else []
        self._carry_out(self._handshake.tls_established(outcome.alpn, outcome.server_end_point, names))

    # --- ends ---------------------------------------------------------------------------------------------------------------------

    def _too_slow(self) -> None:
        self._deadline = None
        if not self._over:
            error = ProtocolViolation(
                "canceling authentication due to timeout",
                sqlstate="57014",
                log_text=f"waited for {self._handshake.waits_for}",
            )
            if self._handshake.is_over:
                self._fatal(error)
            else:
                self.refuse(error)

    def _close(self, data: bytes) -> None:
        if data:
            self._transport.write(data)
        self._transport.close()
        self._end()

    def admitted(self) -> None:
        """The connection has become a client."""
        self._task = None
        self._end()

    def _end(self) -> None:
        self._over = True
        self._proxy.doors.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()


def _is_loopback(transport: Transport) -> bool:
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return True
    if (
        peer[0] == "127.0.0.1"
    ):  # nearly all of them, and taking an address apart costs as much as the rest of a connection
        return True
    try:
        return ipaddress.ip_address(str(peer[0]).partition("%")[0]).is_loopback
    except ValueError:
        return False
