"""We are the client: from StartupMessage to the origin's first ReadyForQuery.

Rules: protocol-flow#PROTOCOL-FLOW-START-UP, hazards W-02, W-03, W-06. SSLRequest has been dealt with before. Decides and returns
actions; knows no socket, no pool and no clock. The origin is not trusted either: its messages are bounded, its signature is
verified, and a password does not leave over a link that nobody vouches for.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from hyperdrive.errors import OriginLoginFailed, OriginRefused, ProtocolViolation
from hyperdrive.pgwire import scram, startup
from hyperdrive.pgwire.passwords import OriginCredentials, md5_response, md5_secret
from hyperdrive.pgwire.scram import ScramClient, ScramKeys

MAX_LOGIN_MESSAGE_BYTES: Final = 65_535
MAX_LOGIN_BYTES: Final = 1_048_576  # everything an origin may say before it is ready
MAX_NOTICES: Final = 16

_METHODS: Final = {
    startup.AUTH_KERBEROS_V5: "Kerberos V5",
    startup.AUTH_GSS: "GSSAPI",
    startup.AUTH_GSS_CONTINUE: "GSSAPI",
    startup.AUTH_SSPI: "SSPI",
}


class ChannelBinding(Enum):
    """libpq's ``channel_binding``."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class Send:
    """Write *data*."""

    data: bytes


@dataclass(frozen=True, slots=True)
class DeriveKeys:
    """Call ``compute()``, in a thread since it takes milliseconds; answer with ``keys_derived``. The keys may be kept."""

    password: bytes = field(repr=False)
    salt: bytes
    iterations: int

    def compute(self) -> ScramKeys:
        return scram.derive_keys(self.password, self.salt, self.iterations)


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """ReadyForQuery has come. *parameters* are the ParameterStatus values; *leftover* belongs to the session.

    *notices* are whole NoticeResponse messages. An origin that gave no key (some poolers) has an empty *cancel_key*.
    """

    parameters: dict[bytes, bytes]
    pid: int
    cancel_key: bytes = field(repr=False)
    protocol_version: int
    notices: tuple[bytes, ...] = ()
    leftover: bytes = b""


Action: TypeAlias = Send | DeriveKeys | LoggedIn


class _State(Enum):
    START = "start"
    REQUEST = "an authentication request"
    KEYS = "SCRAM keys"
    SASL_CHALLENGE = "the SCRAM challenge"
    SASL_FINAL = "the SCRAM signature"
    OK = "AuthenticationOk"
    READY = "ReadyForQuery"
    OVER = "nothing"


class OriginLogin:
    """One login. Send what ``start`` returns, then feed ``receive`` until LoggedIn; any exception ends it.

    *parameters* go into StartupMessage beside user and database. *allow_cleartext* says that the link is safe for a password
    (verified TLS, a unix socket) or that the user wants it regardless; it counts for md5, too, whose hash is as good as the
    password. *server_end_point* is the tls-server-end-point hash of the origin's certificate, ``None`` without TLS.
    """

    def __init__(
        self,
        credentials: OriginCredentials,
        database: bytes,
        *,
        parameters: Mapping[bytes, bytes] | None = None,
        # libpq's default as well: poolers and load balancers in front of an origin have been seen to hang up on 3.2.
        protocol: int = startup.PROTOCOL_3_0,
        channel_binding: ChannelBinding = ChannelBinding.PREFER,
        allow_cleartext: bool = False,
        server_end_point: bytes | None = None,
    ) -> None:
        self._credentials = credentials
        self._startup_parameters = {b"user": credentials.user, b"database": database, **(parameters or {})}
        self._offered = self._protocol = protocol
        self._channel_binding = channel_binding
        self._allow_cleartext = allow_cleartext
        self._certificate_hash = server_end_point if channel_binding is not ChannelBinding.DISABLE else None
        self._state = _State.START
        self._buffer = bytearray()
        self._received_bytes = 0
        self._actions: list[Action] = []
        self._scram: ScramClient | None = None
        self._was_bound = False
        self._negotiated = False
        self._parameters: dict[bytes, bytes] = {}
        self._pid = 0
        self._cancel_key = b""
        self._notices: list[bytes] = []

    @property
    def waits_for(self) -> str:
        """For the text of a login time-out."""
        return self._state.value

    def start(self) -> bytes:
        """The StartupMessage."""
        self._state = _State.REQUEST
        return startup.startup_message(self._startup_parameters, self._offered)

    def receive(self, data: bytes | bytearray | memoryview) -> list[Action]:
        """Take bytes of the origin; they are copied.

        Raises:
            OriginRefused: the origin said no; holds its whole ErrorResponse.
            OriginLoginFailed: it asked for what we have not or would not give, could not prove itself, or broke the protocol.
        """
        self._buffer += data
        self._received_bytes += len(data)
        try:
            while self._state is not _State.OVER and self._read_message():
                pass
        except ProtocolViolation as error:
            raise _broken(error.client_text) from error
        if self._received_bytes > MAX_LOGIN_BYTES and self._state is not _State.OVER:
            raise _broken("too much data before ReadyForQuery")
        actions, self._actions = self._actions, []
        return actions

    def keys_derived(self, keys: ScramKeys) -> list[Action]:
        """Answer to DeriveKeys. Raises what ``receive`` raises."""
        assert self._state is _State.KEYS, self._state
        self._send_proof(keys)
        return self.receive(b"")

    # -- messages

    def _read_message(self) -> bool:
        buffer = self._buffer
        if self._state is _State.KEYS or len(buffer) < 5:
            return False
        (length,) = struct.unpack_from("!i", buffer, 1)
        if not 4 <= length <= MAX_LOGIN_MESSAGE_BYTES:
            raise ProtocolViolation(f"length {length} of message type {buffer[0]}")
        if len(buffer) < 1 + length:
            return False
        message = bytes(buffer[: 1 + length])
        del buffer[: 1 + length]
        self._take(message[:1], message[5:], message)
        return True

    def _take(self, kind: bytes, body: bytes, message: bytes) -> None:
        if kind == b"E":
            raise _refusal(body, message)
        if kind == b"N":
            if len(self._notices) < MAX_NOTICES:
                self._notices.append(message)
        elif self._state is _State.READY:
            self._take_after_ok(kind, body)
        elif kind == b"R" and len(body) >= 4:
            (code,) = struct.unpack_from("!i", body)
            self._authenticate(code, body[4:])
        elif kind == b"v":
            self._negotiate(body)
        else:
            raise ProtocolViolation(f"message type {kind[0]} while waiting for {self._state.value}")

    def _take_after_ok(self, kind: bytes, body: bytes) -> None:
        if kind == b"S":
            name, value, rest = _strings(body, 2)
            if rest:
                raise ProtocolViolation("invalid ParameterStatus message")
            self._parameters[name] = value
        elif kind == b"K":
            key = body[4:]
            if self._protocol == startup.PROTOCOL_3_0 and len(key) != 4:
                raise ProtocolViolation("invalid BackendKeyData message")
            if not startup.MIN_CANCEL_KEY_BYTES <= len(key) <= startup.MAX_CANCEL_KEY_BYTES:
                raise ProtocolViolation("invalid BackendKeyData message")
            (self._pid,) = struct.unpack_from("!i", body)
            self._cancel_key = key
        elif kind == b"v":
            self._negotiate(body)
        elif kind == b"Z" and body == b"I":
            self._state = _State.OVER
            leftover = bytes(self._buffer)
            self._buffer.clear()
            self._actions.append(
                LoggedIn(self._parameters, self._pid, self._cancel_key, self._protocol, tuple(self._notices), leftover)
            )
        else:
            raise ProtocolViolation(f"message type {kind[0]} while waiting for ReadyForQuery")

    def _negotiate(self, body: bytes) -> None:
        """An older origin names the version it speaks; options it does not know are no loss, as we offer none of them."""
        version, _ = startup.read_negotiate_protocol_version(body)
        if self._negotiated or version > self._offered or version not in (startup.PROTOCOL_3_0, startup.PROTOCOL_3_2):
            raise ProtocolViolation(f"NegotiateProtocolVersion for {version:#x} after {self._offered:#x} was offered")
        self._negotiated = True
        self._protocol = version

    # -- authentication

    def _authenticate(self, code: int, data: bytes) -> None:
        match self._state, code:
            case ((_State.REQUEST | _State.OK), startup.AUTH_OK):
                if self._channel_binding is ChannelBinding.REQUIRE and not self._was_bound:
                    raise OriginLoginFailed(
                        "channel binding is required, but the database let us in without it",
                        log_text="AuthenticationOk",
                    )
                self._state = _State.READY
            case _State.REQUEST, startup.AUTH_CLEARTEXT:
                self._send_cleartext()
            case _State.REQUEST, startup.AUTH_MD5 if len(data) == 4:
                self._send_md5(data)
            case _State.REQUEST, startup.AUTH_SASL:
                self._start_sasl(startup.read_string_list(data))
            case _State.SASL_CHALLENGE, startup.AUTH_SASL_CONTINUE:
                self._continue_sasl(data)
            case _State.SASL_FINAL, startup.AUTH_SASL_FINAL:
                assert self._scram is not None
                self._scram.verify(data)
                self._was_bound = self._scram.is_bound
                self._state = _State.OK
            case _State.REQUEST, _ if code in _METHODS:
                raise OriginLoginFailed(
                    f"the database asks for {_METHODS[code]} authentication, which is not supported",
                )
            case ((_State.SASL_CHALLENGE | _State.SASL_FINAL), startup.AUTH_OK):
                raise OriginLoginFailed(
                    "the database did not prove that it knows the password",
                    log_text="AuthenticationOk before the SCRAM exchange was complete: this may be somebody else's server",
                )
            case _:
                raise ProtocolViolation(f"authentication request {code} while waiting for {self._state.value}")

    def _send_cleartext(self) -> None:
        self._refuse_weak("cleartext password")
        password = self._credentials.password
        if password is None:
            raise self._no_password()
        self._actions.append(Send(startup.password_message(password + b"\0")))
        self._state = _State.OK

    def _send_md5(self, salt: bytes) -> None:
        self._refuse_weak("md5")
        credentials = self._credentials
        if credentials.password is not None:
            secret = md5_secret(credentials.password, credentials.user)
        elif credentials.md5 is not None:
            secret = credentials.md5
        else:
            raise self._no_password()
        self._actions.append(Send(startup.password_message(md5_response(secret, salt) + b"\0")))
        self._state = _State.OK

    def _refuse_weak(self, method: str) -> None:
        if self._channel_binding is ChannelBinding.REQUIRE:
            raise OriginLoginFailed(f"channel binding is required, but the database asks for {method} authentication")
        if not self._allow_cleartext:
            raise OriginLoginFailed(
                f"the database asks for {method} authentication over a connection that is not verified",
                hint="Use sslmode=verify-full towards the database, or SCRAM-SHA-256 passwords in it.",
            )

    def _no_password(self) -> OriginLoginFailed:
        user = self._credentials.user.decode("utf-8", "replace")
        return OriginLoginFailed(
            f'no password is known with which user "{user}" could log in at the database', sqlstate="28P01"
        )

    def _start_sasl(self, mechanisms: list[bytes]) -> None:
        plus_is_offered = scram.MECHANISM_PLUS in mechanisms
        is_required = self._channel_binding is ChannelBinding.REQUIRE
        if is_required and (self._certificate_hash is None or not plus_is_offered):
            raise OriginLoginFailed(
                "channel binding is required, but the database does not offer it on this connection",
            )
        client = ScramClient(certificate_hash=self._certificate_hash, plus_is_offered=plus_is_offered)
        if client.mechanism not in mechanisms:
            raise OriginLoginFailed(
                "the database asks for none of the SASL mechanisms that are supported here",
                log_text=f"offered: {b', '.join(mechanisms)[:200]!r}",
            )
        if self._credentials.password is None and not self._credentials.keys:
            raise self._no_password()
        self._scram = client
        self._actions.append(Send(startup.sasl_initial_response(client.mechanism, client.first())))
        self._state = _State.SASL_CHALLENGE

    def _continue_sasl(self, data: bytes) -> None:
        assert self._scram is not None
        salt, iterations = self._scram.challenge(data)
        keys = self._credentials.maybe_keys(salt, iterations)
        if keys is not None:
            self._send_proof(keys)
        elif self._credentials.password is not None:
            self._actions.append(DeriveKeys(self._credentials.password, salt, iterations))
            self._state = _State.KEYS
        else:
            # The keys we learned belong to another salt: the password has been changed at the origin since.
            raise self._no_password()

    def _send_proof(self, keys: ScramKeys) -> None:
        assert self._scram is not None
        self._actions.append(Send(startup.password_message(self._scram.final(keys))))
        self._state = _State.SASL_FINAL


def _strings(body: bytes, count: int) -> list[bytes]:
    """*count* zero-terminated strings and what follows them."""
    pieces = body.split(b"\0", count)
    if len(pieces) != count + 1:
        raise ProtocolViolation("string without terminator")
    return pieces


def _refusal(body: bytes, message: bytes) -> OriginRefused:
    fields = {piece[:1]: piece[1:] for piece in body.split(b"\0") if piece}
    sqlstate = fields.get(b"C", b"").decode("ascii", "replace")
    if not (len(sqlstate) == 5 and sqlstate.isascii() and sqlstate.isalnum()):
        sqlstate = "XX000"
    text = fields.get(b"M", b"the database refused the connection").decode("utf-8", "replace")
    return OriginRefused(text, response=message, sqlstate=sqlstate)


def _broken(reason: str) -> OriginLoginFailed:
    return OriginLoginFailed("the database broke the protocol during login", log_text=reason, sqlstate="08P01")
