"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both roles, as PostgreSQL speaks them.

Rules: RFC 5802 and 7677, with the server's deviations (sasl-authentication): the user name in client-first is ignored, because
StartupMessage already gave it, and a password that SASLprep refuses is used as raw bytes. Pure computation on messages from
strangers: each field is bounded before it is used. The expensive part, ``derive_keys``, is a function of its own: callers keep
its results and may run it in a thread. Must not know sockets, sessions or who the users are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from hyperdrive.errors import (
    AuthenticationFailed,
    FeatureNotSupported,
    OriginLoginFailed,
    ProtocolViolation,
)

MECHANISM: Final = b"SCRAM-SHA-256"
MECHANISM_PLUS: Final = b"SCRAM-SHA-256-PLUS"
DEFAULT_ITERATIONS: Final = 4096  # the server's scram_iterations
MAX_ITERATIONS: Final = 1_000_000  # about half a second of one core; a hostile peer must not ask for more
MAX_SALT_BYTES: Final = 1024
MAX_NONCE_BYTES: Final = 1024
MAX_MESSAGE_BYTES: Final = 8192
SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 18
_KEY_BYTES: Final = 32
_NONCE = re.compile(rb"[\x21-\x2b\x2d-\x7e]+")  # RFC 5802 "printable": ASCII without comma and blanks


# ---- keys and secrets ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a password becomes for one salt and iteration count; enough to log in without the password."""

    salt: bytes
    iterations: int
    client_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def secret(self) -> ScramSecret:
        """What a server keeps of these keys; nobody can log in with it."""
        return ScramSecret(self.salt, self.iterations, _sha256(self.client_key), self.server_key)


@dataclass(frozen=True, slots=True)
class ScramSecret:
    """What a server knows of a password: a line of ``pg_authid.rolpassword``."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def text(self) -> str:
        """As in ``pg_authid``: ``SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>``."""
        salt, stored, server = (_b64(raw).decode() for raw in (self.salt, self.stored_key, self.server_key))
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"


def maybe_parse_secret(text: str) -> ScramSecret | None:
    """Read a SCRAM secret; ``None`` when *text* is none (the server then takes it for a plaintext password)."""
    parts = text.split("$")
    if len(parts) != 3 or parts[0] != "SCRAM-SHA-256":
        return None
    iterations, _, salt_text = parts[1].partition(":")
    stored_text, _, server_text = parts[2].partition(":")
    if not (iterations.isascii() and iterations.isdigit() and len(iterations) <= 7):
        return None
    salt, stored, server = (_maybe_b64decode(part) for part in (salt_text, stored_text, server_text))
    if not salt or len(salt) > MAX_SALT_BYTES or stored is None or server is None:
        return None
    if len(stored) != _KEY_BYTES or len(server) != _KEY_BYTES or not 1 <= int(iterations) <= MAX_ITERATIONS:
        return None
    return ScramSecret(salt, int(iterations), stored, server)


def derive_keys(password: bytes, salt: bytes, iterations: int = DEFAULT_ITERATIONS) -> ScramKeys:
    """Compute the keys; milliseconds of CPU. It lets other threads run meanwhile, so call it in one.

    Raises:
        ValueError: *iterations* is not between 1 and ``MAX_ITERATIONS``.
    """
    if not 1 <= iterations <= MAX_ITERATIONS:
        raise ValueError(f"iterations must be between 1 and {MAX_ITERATIONS}")
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password), salt, iterations)
    return ScramKeys(salt, iterations, _hmac(salted, b"Client Key"), _hmac(salted, b"Server Key"))


def password_matches(password: bytes, secret: ScramSecret) -> bool:
    """Whether a cleartext *password* fits *secret*; as expensive as ``derive_keys``."""
    keys = derive_keys(password, secret.salt, secret.iterations)
    return hmac.compare_digest(keys.server_key, secret.server_key)


def salt_for(user: bytes, process_secret: bytes) -> bytes:
    """A salt that is always the same for *user* and says nothing about whether that user exists.

    Processes that share a port must share *process_secret*: a salt that changes from one login to the next tells a
    stranger that the user is unknown.
    """
    return _hmac(process_secret, b"salt\0" + user)[:SALT_BYTES]


def mock_secret(user: bytes, process_secret: bytes, iterations: int = DEFAULT_ITERATIONS) -> ScramSecret:
    """A secret for a user that does not exist; no proof fits it, and checking one costs as much as for others."""
    stored, server = (_hmac(process_secret, label + user) for label in (b"stored\0", b"server\0"))
    return ScramSecret(salt_for(user, process_secret), iterations, stored, server)


def saslprep(password: bytes) -> bytes:
    """RFC 4013, or the bytes as they are where it cannot be applied (sasl-authentication#SASL-SCRAM-SHA-256)."""
    if password.isascii():
        return password
    try:
        text = password.decode("utf-8")
    except UnicodeDecodeError:
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    )
    if not mapped:
        return password
    normal = unicodedata.normalize("NFKC", mapped)
    if any(_is_prohibited(char) for char in normal) or not _is_bidi_sound(normal):
        return password
    return normal.encode("utf-8")


def _is_prohibited(char: str) -> bool:
    return (
        stringprep.in_table_c12(char)
        or stringprep.in_table_c21_c22(char)
        or stringprep.in_table_c3(char)
        or stringprep.in_table_c4(char)
        or stringprep.in_table_c5(char)
        or stringprep.in_table_c6(char)
        or stringprep.in_table_c7(char)
        or stringprep.in_table_c8(char)
        or stringprep.in_table_c9(char)
        or stringprep.in_table_a1(char)
    )


def _is_bidi_sound(text: str) -> bool:
    """RFC 3454 section 6: right-to-left text starts and ends so, and has nothing left-to-right in it."""
    if not any(stringprep.in_table_d1(char) for char in text):
        return True
    if any(stringprep.in_table_d2(char) for char in text):
        return False
    return stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])


# ---- the server's side --------------------------------------------------------------------------------------------------


class ScramServer:
    """One exchange in which we are the server. Call ``first``, then ``final``; each raises when the client is wrong.

    *certificate_hash* is the tls-server-end-point data of our certificate when the connection has TLS, else ``None``: with
    it SCRAM-SHA-256-PLUS is on offer. *is_doomed* goes through the same motions for a user who cannot get in.
    After ``final``, ``keys`` holds what the client proved to have.
    """

    def __init__(
        self,
        secret: ScramSecret,
        *,
        certificate_hash: bytes | None = None,
        is_doomed: bool = False,
        nonce: bytes | None = None,
    ) -> None:
        self._secret = secret
        self._certificate_hash = certificate_hash
        self._is_doomed = is_doomed
        self._our_nonce = nonce or _new_nonce()
        self._gs2_header = self._nonce = self._transcript = b""
        self.keys: ScramKeys | None = None

    @property
    def mechanisms(self) -> list[bytes]:
        """What AuthenticationSASL offers."""
        return [MECHANISM] if self._certificate_hash is None else [MECHANISM_PLUS, MECHANISM]

    def first(self, mechanism: bytes, message: bytes) -> bytes:
        """Read client-first-message, return server-first-message.

        Raises:
            ProtocolViolation: not what RFC 5802 allows.
            FeatureNotSupported: an authorization identity, a mandatory extension.
            AuthenticationFailed: 28000, somebody between us hid that we offer channel binding.
        """
        if mechanism not in self.mechanisms:
            raise ProtocolViolation("client selected an invalid SASL authentication mechanism")
        _check_size(message)
        flag, rest = message[:1], message[1:]
        if flag == b"p":
            binding, comma, bare = rest.partition(b",")
            if mechanism != MECHANISM_PLUS:
                raise _malformed("The client selected SCRAM-SHA-256 without channel binding, but sends binding data.")
            if not comma or binding != b"=tls-server-end-point":
                raise ProtocolViolation("unsupported SCRAM channel-binding type")
        elif flag in (b"n", b"y"):
            if mechanism == MECHANISM_PLUS:
                raise _malformed("The client selected SCRAM-SHA-256-PLUS, but its message has no binding data.")
            if rest[:1] != b",":
                raise _malformed("Comma expected after the channel-binding flag.")
            if flag == b"y" and self._certificate_hash is not None:
                raise AuthenticationFailed(
                    "SCRAM channel binding negotiation error",
                    sqlstate="28000",
                    detail="The client supports SCRAM channel binding but thinks the server does not. "
                    "However, this server does support channel binding.",
                )
            bare = rest[1:]
        else:
            raise _malformed("Unexpected channel-binding flag.")
        if bare.startswith(b"a="):
            raise FeatureNotSupported("client uses authorization identity, but it is not supported")
        if not bare.startswith(b","):
            raise _malformed("Unexpected attribute in client-first-message.")
        bare = bare[1:]
        self._gs2_header = message[: len(message) - len(bare)]
        client_nonce = self._read_bare(bare)
        self._nonce = client_nonce + self._our_nonce
        reply = b"r=%b,s=%b,i=%d" % (self._nonce, _b64(self._secret.salt), self._secret.iterations)
        self._transcript = bare + b"," + reply
        return reply

    @staticmethod
    def _read_bare(bare: bytes) -> bytes:
        if bare.startswith(b"m="):
            raise FeatureNotSupported("client requires an unsupported SCRAM extension")
        # The user name is ignored: it is empty in libpq, "*" or the real one elsewhere. Extensions behind the nonce, too.
        user, _, rest = bare.partition(b",")
        if not user.startswith(b"n="):
            raise _malformed("Expected the user name.")
        nonce, *extensions = rest.split(b",")
        if not nonce.startswith(b"r=") or not 0 < len(nonce) - 2 <= MAX_NONCE_BYTES:
            raise _malformed("Expected the client's nonce.")
        if not _is_nonce(nonce[2:]):
            raise ProtocolViolation("non-printable characters in SCRAM nonce")
        if not all(_is_attribute(extension) for extension in extensions):
            raise _malformed("Attribute expected.")
        return nonce[2:]

    def final(self, message: bytes) -> bytes:
        """Read client-final-message, return server-final-message.

        Raises:
            ProtocolViolation: malformed, or not an answer to what ``first`` returned.
            AuthenticationFailed: the proof or the channel binding is wrong; its text leaves out the user's name.
        """
        _check_size(message)
        without_proof, found, proof_text = message.rpartition(b",p=")
        binding, comma, rest = without_proof.partition(b",")
        nonce, *extensions = rest.split(b",")
        if not found or not comma or binding[:2] != b"c=" or nonce[:2] != b"r=":
            raise _malformed("Expected channel binding, nonce and proof.")
        if not all(_is_attribute(extension) for extension in extensions):
            raise _malformed("Attribute expected.")
        expected = self._gs2_header
        if expected.startswith(b"p"):
            assert self._certificate_hash is not None
            expected += self._certificate_hash
        if not hmac.compare_digest(binding[2:], _b64(expected)):
            if self._gs2_header.startswith(b"p"):
                raise AuthenticationFailed("SCRAM channel binding check failed", sqlstate="28000")
            raise ProtocolViolation("unexpected SCRAM channel-binding attribute in client-final-message")
        if not hmac.compare_digest(nonce[2:], self._nonce):
            raise ProtocolViolation("invalid SCRAM response", detail="Nonce does not match.")
        proof = _maybe_b64decode(proof_text)
        if proof is None or len(proof) != _KEY_BYTES:
            raise _malformed("Malformed proof in client-final-message.")
        transcript = self._transcript + b"," + without_proof
        client_key = _xor(proof, _hmac(self._secret.stored_key, transcript))
        is_right = hmac.compare_digest(_sha256(client_key), self._secret.stored_key)
        if self._is_doomed or not is_right:
            raise AuthenticationFailed("password authentication failed")
        self.keys = ScramKeys(self._secret.salt, self._secret.iterations, client_key, self._secret.server_key)
        return b"v=" + _b64(_hmac(self._secret.server_key, transcript))


# ---- the client's side --------------------------------------------------------------------------------------------------


class ScramClient:
    """One exchange in which we are the client. Call ``first``, ``challenge``, ``final``, ``verify``, in this order.

    *certificate_hash* is the tls-server-end-point data of the server's certificate, ``None`` without TLS or when channel
    binding is switched off. *plus_is_offered* says whether the server offers SCRAM-SHA-256-PLUS.
    What the server sends wrong raises ``OriginLoginFailed``.
    """

    def __init__(
        self, *, certificate_hash: bytes | None = None, plus_is_offered: bool = False, nonce: bytes | None = None
    ) -> None:
        self._nonce = nonce or _new_nonce()
        self._binding = b""
        if certificate_hash is None:
            self._gs2_header = b"n,,"
        elif plus_is_offered:
            self._gs2_header = b"p=tls-server-end-point,,"
            self._binding = certificate_hash
        else:
            # We could, but were told that the server cannot; it will notice if that was a lie.
            self._gs2_header = b"y,,"
        self.is_bound = self._gs2_header.startswith(b"p")
        self._full_nonce = self._server_first = self._server_signature = b""

    @property
    def mechanism(self) -> bytes:
        return MECHANISM_PLUS if self.is_bound else MECHANISM

    def first(self, user: bytes = b"") -> bytes:
        """client-first-message. *user* stays empty for PostgreSQL, which has it from StartupMessage."""
        name = user.replace(b"=", b"=3D").replace(b",", b"=2C")
        self._bare = b"n=" + name + b",r=" + self._nonce
        return self._gs2_header + self._bare

    def challenge(self, message: bytes) -> tuple[bytes, int]:
        """Read server-first-message; return the salt and iteration count that the keys need."""
        if len(message) > MAX_MESSAGE_BYTES:
            raise _origin_malformed("server-first-message is too long")
        nonce, *others = message.split(b",")
        if len(others) < 2 or nonce[:2] != b"r=" or others[0][:2] != b"s=" or others[1][:2] != b"i=":
            raise _origin_malformed("server-first-message lacks nonce, salt or iterations")
        full = nonce[2:]
        if not full.startswith(self._nonce) or len(full) == len(self._nonce) or not _is_nonce(full):
            raise _origin_malformed("the server's nonce does not continue ours")
        salt = _maybe_b64decode(others[0][2:])
        if not salt or len(salt) > MAX_SALT_BYTES:
            raise _origin_malformed("the salt is malformed")
        count = others[1][2:]
        if not count.isdigit() or len(count) > 9 or int(count) < 1:
            raise _origin_malformed("the iteration count is malformed")
        if int(count) > MAX_ITERATIONS:
            raise _origin_malformed(f"{int(count)} iterations are more than the {MAX_ITERATIONS} we compute")
        self._full_nonce, self._server_first = full, message
        return salt, int(count)

    def final(self, keys: ScramKeys) -> bytes:
        """client-final-message, with *keys* derived for what ``challenge`` returned."""
        without_proof = b"c=" + _b64(self._gs2_header + self._binding) + b",r=" + self._full_nonce
        transcript = self._bare + b"," + self._server_first + b"," + without_proof
        self._server_signature = _hmac(keys.server_key, transcript)
        proof = _xor(keys.client_key, _hmac(_sha256(keys.client_key), transcript))
        return without_proof + b",p=" + _b64(proof)

    def verify(self, message: bytes) -> None:
        """Read server-final-message; raise unless the server has proved that it knows the password, too."""
        if message.startswith(b"e="):
            reason = message[2:200].decode("ascii", "backslashreplace")
            raise OriginLoginFailed(
                "the database refused the SCRAM exchange", log_text=f"server-final-message says error {reason!r}"
            )
        signature, *_ = message[:MAX_MESSAGE_BYTES].split(b",")
        raw = _maybe_b64decode(signature[2:]) if signature[:2] == b"v=" else None
        if raw is None or len(raw) != _KEY_BYTES:
            raise _origin_malformed("server-final-message has no signature")
        if not self._server_signature or not hmac.compare_digest(raw, self._server_signature):
            raise OriginLoginFailed(
                "the database did not prove that it knows the password",
                log_text="wrong SCRAM server signature: this may be somebody else's server",
            )


# ---- small things -------------------------------------------------------------------------------------------------------


def _new_nonce() -> bytes:
    return _b64(secrets.token_bytes(_NONCE_BYTES))


def _is_nonce(raw: bytes) -> bool:
    return len(raw) <= MAX_NONCE_BYTES and _NONCE.fullmatch(raw) is not None


def _is_attribute(raw: bytes) -> bool:
    return len(raw) >= 2 and raw[:1].isalpha() and raw[1:2] == b"=" and b"\0" not in raw


def _check_size(message: bytes) -> None:
    if not message:
        raise _malformed("The message is empty.")
    if len(message) > MAX_MESSAGE_BYTES or b"\0" in message:
        raise _malformed("Message length does not match input length.")


def _malformed(detail: str) -> ProtocolViolation:
    return ProtocolViolation("malformed SCRAM message", detail=detail)


def _origin_malformed(reason: str) -> OriginLoginFailed:
    return OriginLoginFailed("the database sent a malformed SCRAM message", log_text=reason, sqlstate="08P01")


def _b64(raw: bytes) -> bytes:
    return base64.b64encode(raw)


def _maybe_b64decode(text: str | bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _sha256(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
