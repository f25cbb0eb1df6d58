"""We are the server: from a client's first byte to AuthenticationOk.

Rules: protocol-flow#PROTOCOL-FLOW-START-UP and PROTOCOL-FLOW-SSL, hazards W-01 to W-06; texts and SQLSTATEs are the server's.
Decides and returns actions; knows no socket, no user directory and no clock. What comes after AuthenticationOk (ParameterStatus,
BackendKeyData, ReadyForQuery) is not said here, because it depends on the pool.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final

from hyperdrive.errors import AuthenticationFailed, FeatureNotSupported, HyperdriveError, ProtocolViolation
from hyperdrive.pgwire import scram, startup
from hyperdrive.pgwire.messages import error_message
from hyperdrive.pgwire.passwords import (
    MD5_SALT_BYTES,
    Md5Secret,
    PlainPassword,
    Secret,
    TrustedUser,
    md5_matches,
    md5_secret,
    passwords_equal,
)
from hyperdrive.pgwire.scram import ScramKeys, ScramSecret, ScramServer
from hyperdrive.pgwire.startup import CancelRequest, GssEncRequest, SslRequest, StartupMessage
from hyperdrive.session.admission import (
    Action,
    Admit,
    Cancel,
    CheckPassword,
    Close,
    HandshakePolicy,
    LookUpUser,
    Method,
    Send,
    Setting,
    StartTls,
)

MAX_AUTH_MESSAGE_BYTES: Final = 65_535  # the server's own bound; tokens used as passwords can be long
MAX_EARLY_BYTES: Final = 2 * 65_535  # what a client may send ahead while we look its user up
NEWEST_PROTOCOL: Final = startup.PROTOCOL_3_2

__all__ = [
    "Action",
    "Admit",
    "Cancel",
    "CheckPassword",
    "ClientHandshake",
    "Close",
    "HandshakePolicy",
    "LookUpUser",
    "Method",
    "Send",
    "Setting",
    "StartTls",
]


class _State(Enum):
    FIRST_PACKET = "a first packet"
    TLS = "the end of the TLS handshake"
    LOOK_UP = "the user's secret"
    ANSWER = "an answer to our authentication request"
    CHECK = "the result of a password check"
    OVER = "nothing"


# ---- the conversation ---------------------------------------------------------------------------------------------------


class ClientHandshake:
    """One client's start-up. Each call returns what is to be done, in order; after Admit, Cancel or Close it is over.

    Nothing but a use that contradicts this description raises; what the client does wrong ends in Close.
    """

    def __init__(self, policy: HandshakePolicy) -> None:
        self._policy = policy
        self._state = _State.FIRST_PACKET
        self._buffer = bytearray()
        self._actions: list[Action] = []
        self._ssl_was_asked = self._gss_was_asked = False
        self._is_tls = self._is_direct_tls = False
        self._certificate_hash: bytes | None = None
        self._certificate_names: Sequence[str] = ()
        self._parameters: Mapping[bytes, bytes] = {}
        self._protocol = startup.PROTOCOL_3_0
        self._user = self._database = b""
        self._secret: Secret | None = None
        self._read_answer: Callable[[bytes], None] = self._password_answer
        self._scram: ScramServer | None = None
        self._sasl_mechanism = b""
        self._md5_salt = b""
        self._cleartext = b""
        self._is_doomed = False

    @property
    def is_over(self) -> bool:
        return self._state is _State.OVER

    @property
    def user(self) -> str:
        """Who the client says it is; empty before it has said so."""
        return _text(self._user)

    @property
    def waits_for(self) -> str:
        """For logs and for a login deadline's text."""
        return self._state.value

    # -- what the shell reports

    def receive(self, data: bytes | bytearray | memoryview) -> list[Action]:
        """Take bytes of the client; they are copied."""
        return self._run(self._received, data)

    def tls_established(
        self,
        alpn: str | None,
        server_end_point: bytes | None = None,
        client_certificate_names: Sequence[str] = (),
    ) -> list[Action]:
        """TLS stands. *server_end_point* is our certificate's hash as of RFC 5929 (``None``: no channel binding).

        *client_certificate_names* are those of a certificate that has been verified, else none.
        """
        return self._run(self._tls_established, alpn, server_end_point, client_certificate_names)

    def user_found(self, secret: Secret | None) -> list[Action]:
        """Answer to LookUpUser; ``None`` is a user that does not exist or may not log in."""
        return self._run(self._user_found, secret)

    def password_checked(self, matches: bool) -> list[Action]:
        """Answer to CheckPassword."""
        return self._run(self._password_checked, matches)

    def refuse(self, error: HyperdriveError) -> list[Action]:
        """End it for a reason of ours: the look-up failed, too many connections, shutting down, too slow."""
        return self._run(self._raise, error)

    def _run(self, step: Callable[..., None], *arguments: object) -> list[Action]:
        if self._state is _State.OVER:
            return []
        try:
            step(*arguments)
        except HyperdriveError as error:
            self._end(Close(error_message(error, severity="FATAL"), error))
        actions, self._actions = self._actions, []
        return actions

    @staticmethod
    def _raise(error: HyperdriveError) -> None:
        raise error

    def _end(self, action: Admit | Cancel | Close) -> None:
        self._actions.append(action)
        self._state = _State.OVER
        self._buffer.clear()

    # -- first packets

    def _received(self, data: bytes) -> None:
        if self._state is _State.TLS:
            raise ProtocolViolation("received unencrypted data after SSL request")
        self._buffer += data
        while self._state is _State.FIRST_PACKET and self._read_first_packet():
            pass
        while self._state is _State.ANSWER and self._read_answer_message():
            pass
        if len(self._buffer) > MAX_EARLY_BYTES:
            raise ProtocolViolation("too much data before the end of authentication")

    def _read_first_packet(self) -> bool:
        is_first = not (self._is_tls or self._ssl_was_asked or self._gss_was_asked)
        if is_first and self._buffer[:1] == bytes([startup.TLS_HANDSHAKE_BYTE]):
            self._start_direct_tls()
            return False
        try:
            found = startup.read_first_packet(self._buffer)
        except ProtocolViolation as error:
            # As the server: whoever sends a wrong length may not speak our protocol, and who cancels is never answered.
            is_ours = startup.is_startup_message(self._buffer)
            self._end(Close(error_message(error, severity="FATAL") if is_ours else b"", error))
            return False
        if found is None:
            return False
        packet, length = found
        del self._buffer[:length]
        match packet:
            case SslRequest():
                self._answer_ssl_request()
            case GssEncRequest():
                if self._gss_was_asked or (self._is_tls and not self._is_direct_tls):
                    raise _unsupported_protocol(startup.GSSENC_REQUEST_CODE)
                self._gss_was_asked = True
                self._actions.append(Send(b"N"))
            case CancelRequest(pid, key):
                self._end(Cancel(pid, key))
            case StartupMessage():
                self._start_up(packet)
        return True

    def _start_direct_tls(self) -> None:
        if not self._policy.tls_available or self._policy.is_unix:
            self._end(Close(b"", FeatureNotSupported("this listener does not offer TLS")))
            return
        self._is_direct_tls = True
        self._state = _State.TLS
        self._actions.append(StartTls(b"", bytes(self._buffer)))
        self._buffer.clear()

    def _answer_ssl_request(self) -> None:
        if self._ssl_was_asked:
            raise _unsupported_protocol(startup.SSL_REQUEST_CODE)
        self._ssl_was_asked = True
        if not self._policy.tls_available or self._policy.is_unix or self._is_tls:
            self._actions.append(Send(b"N"))
            return
        if self._buffer:
            # Whoever wrote these bytes did so before there was a key; they must not be read as if they came through TLS.
            raise ProtocolViolation(
                "received unencrypted data after SSL request",
                detail="This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
            )
        self._state = _State.TLS
        self._actions.append(StartTls(b"S"))

    def _tls_established(self, alpn: str | None, certificate_hash: bytes | None, names: Sequence[str]) -> None:
        assert self._state is _State.TLS, self._state
        if alpn is None and self._is_direct_tls:
            raise ProtocolViolation(
                "received direct SSL connection request without ALPN protocol negotiation extension"
            )
        if alpn is not None and alpn != startup.ALPN_PROTOCOL:
            raise ProtocolViolation("received SSL connection request with unexpected ALPN protocol")
        self._is_tls = True
        self._certificate_hash = certificate_hash
        self._certificate_names = tuple(names)
        self._state = _State.FIRST_PACKET

    def _start_up(self, message: StartupMessage) -> None:
        if message.major != 3:
            raise _unsupported_protocol(message.version)
        self._protocol = min(message.version, NEWEST_PROTOCOL)
        unknown = [name for name in message.parameters if name.startswith(b"_pq_.")]
        if message.version > NEWEST_PROTOCOL or unknown:
            self._actions.append(Send(startup.negotiate_protocol_version(self._protocol, unknown)))
        self._parameters = message.parameters
        user = message.parameters.get(b"user", b"")
        if not user:
            raise AuthenticationFailed("no PostgreSQL user name specified in startup packet", sqlstate="28000")
        self._user = user[: startup.MAX_NAME_BYTES]
        self._database = (message.parameters.get(b"database") or user)[: startup.MAX_NAME_BYTES]
        policy = self._policy
        if policy.require_tls and not self._is_tls and not policy.is_unix:
            raise AuthenticationFailed(
                "this server accepts encrypted connections only", sqlstate="28000", hint="Connect with sslmode=require."
            )
        if policy.method is Method.CERT:
            self._check_certificate()
        elif policy.method is Method.TRUST:
            if not policy.may_trust:
                raise AuthenticationFailed(
                    f'no password is needed here, but user "{_text(self._user)}" must connect from the same machine',
                    sqlstate="28000",
                )
            self._admit(None)
        else:
            self._state = _State.LOOK_UP
            self._actions.append(LookUpUser(_text(self._user), _text(self._database)))

    def _check_certificate(self) -> None:
        if not self._certificate_names:
            raise AuthenticationFailed("connection requires a valid client certificate", sqlstate="28000")
        if _text(self._user) not in self._certificate_names:
            raise AuthenticationFailed(
                f'certificate authentication failed for user "{_text(self._user)}"',
                log_text=f"the certificate names {', '.join(map(repr, self._certificate_names))}",
                sqlstate="28000",
            )
        self._admit(None)

    # -- authentication

    def _user_found(self, secret: Secret | None) -> None:
        assert self._state is _State.LOOK_UP, self._state
        if isinstance(secret, TrustedUser):
            if self._policy.may_trust:
                self._admit(None)
                return
            secret = None  # from elsewhere the user has no password that could be right
        self._secret = secret
        self._state = _State.ANSWER
        match self._policy.method:
            case Method.PASSWORD:
                self._ask_for_cleartext()
            case Method.MD5 if not isinstance(secret, ScramSecret):
                self._is_doomed = secret is None
                self._md5_salt = secrets.token_bytes(MD5_SALT_BYTES)
                self._read_answer = self._md5_answer
                self._actions.append(Send(startup.authentication(startup.AUTH_MD5, self._md5_salt)))
            case _:
                self._ask_for_scram()
        self._received(b"")

    def _ask_for_cleartext(self) -> None:
        policy = self._policy
        if not (self._is_tls or policy.is_unix or policy.allow_cleartext_password):
            raise AuthenticationFailed(
                "passwords are accepted over encrypted connections only",
                sqlstate="28000",
                hint="Connect with sslmode=require.",
            )
        self._read_answer = self._password_answer
        self._actions.append(Send(startup.authentication(startup.AUTH_CLEARTEXT)))

    def _ask_for_scram(self) -> None:
        secret = self._scram_secret()
        self._scram = ScramServer(secret, certificate_hash=self._certificate_hash, is_doomed=self._is_doomed)
        self._read_answer = self._sasl_initial_answer
        self._actions.append(Send(startup.authentication_sasl(self._scram.mechanisms)))

    def _scram_secret(self) -> ScramSecret:
        """The user's, or one that nobody fits: whoever asks cannot tell whether the user exists."""
        policy = self._policy
        match self._secret:
            case ScramSecret():
                return self._secret
            case PlainPassword(_, ScramKeys() as keys):
                return keys.secret()
            case PlainPassword(password):
                # Slow, on the caller's time: a directory hands passwords out together with their keys.
                salt = scram.salt_for(self._user, policy.mock_key)
                return scram.derive_keys(password, salt, policy.scram_iterations).secret()
        self._is_doomed = True
        return scram.mock_secret(self._user, policy.mock_key, policy.scram_iterations)

    def _read_answer_message(self) -> bool:
        buffer = self._buffer
        if not buffer:
            return False
        if buffer[0] != 0x70:
            expected = "password" if self._scram is None else "SASL"
            raise ProtocolViolation(f"expected {expected} response, got message type {buffer[0]}")
        if len(buffer) < 5:
            return False
        (length,) = struct.unpack_from("!i", buffer, 1)
        if not 4 <= length <= MAX_AUTH_MESSAGE_BYTES:
            raise ProtocolViolation("invalid message length")
        if len(buffer) < 1 + length:
            return False
        body = bytes(buffer[5 : 1 + length])
        del buffer[: 1 + length]
        self._read_answer(body)
        return True

    def _sasl_initial_answer(self, body: bytes) -> None:
        assert self._scram is not None
        mechanism, zero, rest = body.partition(b"\0")
        if not zero:
            raise ProtocolViolation("invalid string in message")
        if len(rest) < 4:
            raise ProtocolViolation("invalid SASLInitialResponse message")
        if mechanism not in self._scram.mechanisms:
            raise ProtocolViolation("client selected an invalid SASL authentication mechanism")
        (length,) = struct.unpack_from("!i", rest)
        self._sasl_mechanism = mechanism
        if length == -1 and len(rest) == 4:
            # No initial response: an empty challenge asks for it.
            self._read_answer = self._sasl_first_answer
            self._actions.append(Send(startup.authentication(startup.AUTH_SASL_CONTINUE)))
        elif length == len(rest) - 4:
            self._sasl_first_answer(rest[4:])
        else:
            raise ProtocolViolation("invalid SASLInitialResponse message")

    def _sasl_first_answer(self, body: bytes) -> None:
        assert self._scram is not None
        challenge = self._scram.first(self._sasl_mechanism, body)
        self._read_answer = self._sasl_final_answer
        self._actions.append(Send(startup.authentication(startup.AUTH_SASL_CONTINUE, challenge)))

    def _sasl_final_answer(self, body: bytes) -> None:
        assert self._scram is not None
        try:
            final = self._scram.final(body)
        except AuthenticationFailed as error:
            if error.code == "28P01":
                raise self._wrong_password() from error
            raise
        learned = self._scram.keys if isinstance(self._secret, ScramSecret) else None
        self._admit(learned, startup.authentication(startup.AUTH_SASL_FINAL, final))

    def _md5_answer(self, body: bytes) -> None:
        answer = _without_zero(body)
        match self._secret:
            case Md5Secret():
                secret = self._secret
            case PlainPassword(password):
                secret = md5_secret(password, self._user)
            case _:
                secret = md5_secret(self._policy.mock_key, self._user)
        if not md5_matches(answer, secret, self._md5_salt) or self._is_doomed:
            raise self._wrong_password()
        self._admit(None)

    def _password_answer(self, body: bytes) -> None:
        password = _without_zero(body)
        if not password:
            raise AuthenticationFailed("empty password returned by client")
        match self._secret:
            case Md5Secret():
                self._cleartext = password
                self._settle(passwords_equal(md5_secret(password, self._user).hash, self._secret.hash))
            case PlainPassword(expected, None):
                self._settle(passwords_equal(password, expected))
            case _:
                # All others cost the same, unknown users included.
                self._cleartext = password
                self._state = _State.CHECK
                self._actions.append(CheckPassword(password, self._scram_secret()))

    def _password_checked(self, matches: bool) -> None:
        assert self._state is _State.CHECK, self._state
        self._settle(matches and not self._is_doomed)

    def _settle(self, is_right: bool) -> None:
        if not is_right:
            raise self._wrong_password()
        self._admit(None if isinstance(self._secret, PlainPassword) else PlainPassword(self._cleartext))

    def _wrong_password(self) -> AuthenticationFailed:
        user = _text(self._user)
        if self._secret is None:
            why = "no such user, or it has no usable password"
        elif self._is_doomed:
            why = "its secret does not suit the authentication method"
        else:
            why = "wrong password"
        text = f'password authentication failed for user "{user}"'
        return AuthenticationFailed(text, log_text=f"{text}: {why}")

    def _admit(self, learned: ScramKeys | PlainPassword | None, data: bytes = b"") -> None:
        self._actions.append(Send(data + startup.authentication(startup.AUTH_OK)))
        # As in the server, wrong options are found once the client is known.
        settings = startup.parse_options(self._parameters.get(b"options", b""))
        settings += [
            (name, value)
            for name, value in self._parameters.items()
            if name not in (b"user", b"database", b"options", b"replication") and not name.startswith(b"_pq_.")
        ]
        self._end(
            Admit(
                _text(self._user),
                _text(self._database),
                tuple(settings),
                self._parameters,
                self._protocol,
                self._is_tls,
                learned,
                bytes(self._buffer),
            )
        )


def _without_zero(body: bytes) -> bytes:
    if body[-1:] != b"\0" or b"\0" in body[:-1]:
        raise ProtocolViolation("invalid password packet size")
    return body[:-1]


def _unsupported_protocol(version: int) -> FeatureNotSupported:
    return FeatureNotSupported(
        f"unsupported frontend protocol {version >> 16}.{version & 0xFFFF}: server supports 3.0 to 3.2"
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
