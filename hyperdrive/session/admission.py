"""What a listener asks of its clients, and what ``handshake`` asks of whoever runs it: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from hyperdrive.errors import HyperdriveError
from hyperdrive.pgwire import scram
from hyperdrive.pgwire.passwords import PlainPassword
from hyperdrive.pgwire.scram import ScramKeys, ScramSecret

Setting: TypeAlias = tuple[bytes, bytes]


class Method(Enum):
    """How clients prove who they are; the values of ``--auth``."""

    SCRAM = "scram"
    MD5 = "md5"
    PASSWORD = "password"
    CERT = "cert"
    TRUST = "trust"


@dataclass(frozen=True, slots=True)
class HandshakePolicy:
    """What a listener asks of a client. One per accepted connection's kind, not per client.

    *is_local*: the client sits on this machine (unix socket or loopback), the only place where trust is possible, unless
    *trust_remote* was asked for. *mock_key* makes the salts of unknown users; workers of one port share it.
    *scram_iterations* are those of passwords that we know in the clear, and therefore of users that do not exist.
    """

    mock_key: bytes = field(repr=False)
    method: Method = Method.SCRAM
    tls_available: bool = False
    require_tls: bool = False
    is_unix: bool = False
    is_local: bool = False
    trust_remote: bool = False
    allow_cleartext_password: bool = False
    scram_iterations: int = scram.DEFAULT_ITERATIONS

    @property
    def may_trust(self) -> bool:
        return self.is_unix or self.is_local or self.trust_remote


# ---- actions ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Write *data*."""

    data: bytes


@dataclass(frozen=True, slots=True)
class StartTls:
    """Stop reading, write *reply*, become a TLS server that first reads *client_hello*; then ``tls_established``."""

    reply: bytes
    client_hello: bytes = b""


@dataclass(frozen=True, slots=True)
class LookUpUser:
    """Find what is known of the user's password; answer with ``user_found`` or ``refuse``, now or later."""

    user: str
    database: str


@dataclass(frozen=True, slots=True)
class CheckPassword:
    """Compute ``matches()``, in a thread since it takes milliseconds; answer with ``password_checked``."""

    password: bytes = field(repr=False)
    secret: ScramSecret

    def matches(self) -> bool:
        return scram.password_matches(self.password, self.secret)


@dataclass(frozen=True, slots=True)
class Admit:
    """The client is who it says, and has been told AuthenticationOk. The handshake is over.

    *settings* are the session settings it asked for, those in ``options`` first, later ones win; *parameters* the
    StartupMessage as it came. *protocol* is the version both speak. *learned* is what the client showed us that we could use
    to log in at the origin in its name. *leftover* are bytes that belong to the session.
    """

    user: str
    database: str
    settings: tuple[Setting, ...]
    parameters: Mapping[bytes, bytes]
    protocol: int
    is_tls: bool
    learned: ScramKeys | PlainPassword | None = field(default=None, repr=False)
    leftover: bytes = field(default=b"", repr=False)

    @property
    def protocol_minor(self) -> int:
        return self.protocol & 0xFFFF

    @property
    def replication(self) -> bytes | None:
        """The value of the ``replication`` parameter, which asks for a walsender."""
        return self.parameters.get(b"replication")


@dataclass(frozen=True, slots=True)
class Cancel:
    """A CancelRequest: cancel what it names if it fits, then close without a word (protocol-flow-canceling-requests)."""

    pid: int
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Close:
    """Write *data*, close. *error* says why, for log and metrics."""

    data: bytes
    error: HyperdriveError


Action: TypeAlias = Send | StartTls | LookUpUser | CheckPassword | Admit | Cancel | Close
