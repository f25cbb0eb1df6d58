"""What may be known of a password: all of it, an md5 hash, a SCRAM secret, or that none is needed.

Formats as in ``pg_authid.rolpassword`` (catalog-pg-authid) and the md5 challenge of protocol-flow#PROTOCOL-FLOW-START-UP.
Pure; must not know where the users come from.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from hyperdrive.pgwire.scram import ScramKeys, ScramSecret, maybe_parse_secret

_MD5 = re.compile(r"md5[0-9a-f]{32}")
MD5_SALT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class PlainPassword:
    """The password itself. *keys*, when given, were derived from it beforehand, so that a SCRAM exchange costs nothing."""

    password: bytes = field(repr=False)
    keys: ScramKeys | None = None


@dataclass(frozen=True, slots=True)
class Md5Secret:
    """``md5`` and 32 hexadecimal digits, of password and user name."""

    hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TrustedUser:
    """A user for whom no password is known, let in from this machine only, where the policy says so."""


Secret: TypeAlias = PlainPassword | Md5Secret | ScramSecret | TrustedUser


@dataclass(frozen=True, slots=True)
class OriginCredentials:
    """Everything we have with which *user* could log in at the origin; any part may be missing."""

    user: bytes
    password: bytes | None = field(default=None, repr=False)
    md5: Md5Secret | None = None
    keys: tuple[ScramKeys, ...] = ()

    def maybe_keys(self, salt: bytes, iterations: int) -> ScramKeys | None:
        """The keys for this challenge, if they have been derived or learned before."""
        for keys in self.keys:
            if keys.iterations == iterations and keys.salt == salt:
                return keys
        return None


def parse_secret(text: str) -> PlainPassword | Md5Secret | ScramSecret:
    """Tell by its form what a stored password is, as the server does: what looks like no hash is a password."""
    if _MD5.fullmatch(text):
        return Md5Secret(text.encode())
    secret = maybe_parse_secret(text)
    return secret if secret is not None else PlainPassword(text.encode("utf-8", "surrogateescape"))


def md5_secret(password: bytes, user: bytes) -> Md5Secret:
    """What a server with ``password_encryption = md5`` stores."""
    return Md5Secret(_md5(password + user))


def md5_response(secret: Md5Secret, salt: bytes) -> bytes:
    """The answer to AuthenticationMD5Password, without its terminating zero."""
    return _md5(secret.hash[3:] + salt)


def md5_matches(answer: bytes, secret: Md5Secret, salt: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(answer, md5_response(secret, salt))


def passwords_equal(left: bytes, right: bytes) -> bool:
    """Compare in a time that tells neither contents nor the length of what is kept."""
    return hmac.compare_digest(hashlib.sha256(left).digest(), hashlib.sha256(right).digest())


def _md5(raw: bytes) -> bytes:
    return b"md5" + hashlib.md5(raw, usedforsecurity=False).hexdigest().encode()
