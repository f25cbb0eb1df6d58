"""The tree of errors, each with what a client, an operator and a driver need to know.

An error has an SQLSTATE (errcodes-appendix), a ``kind`` (closed enum, also the metric label), whether a retry is safe, and two
texts: ``client_text`` for the client, ``log_text`` with hosts and causes for the log. Foreign exceptions are translated where
they enter, chained. An origin's ErrorResponse is passed on as bytes and never rebuilt.

::

    HyperdriveError
    ├── ConfigError              a setting is wrong; names its key and place
    ├── ClientError              what a client sent or asked for cannot be done
    │   ├── ProtocolViolation        08P01
    │   ├── FeatureNotSupported      0A000
    │   ├── AuthenticationFailed     28P01 / 28000
    │   ├── UnknownStatement         26000
    │   └── DuplicateStatement       42P05
    ├── OriginError              the origin's side
    │   ├── OriginUnreachable        08006, nothing was sent
    │   ├── OriginLost               08006, mid-conversation
    │   ├── OutcomeUnknown           08007
    │   ├── OriginRefused            the origin's own ErrorResponse, kept as bytes
    │   ├── OriginLoginFailed        28000, we could not or would not log in
    │   └── LedgerMismatch           08P01, a server answered what nobody asked
    ├── PoolTimeout              53300, no server in time
    ├── TooManyConnections       53300, a limit on clients
    ├── ShuttingDown             57P01
    ├── NotReady                 57P03
    └── InternalError            XX000
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class Kind(Enum):
    """Why something failed; the label ``kind`` of ``hyperdrive_errors_total``."""

    CONFIG = "config"
    PROTOCOL = "protocol"
    UNSUPPORTED = "unsupported"
    AUTHENTICATION = "authentication"
    STATEMENT_NAME = "statement_name"
    ORIGIN_UNREACHABLE = "origin_unreachable"
    ORIGIN_LOST = "origin_lost"
    ORIGIN_REFUSED = "origin_refused"
    OUTCOME_UNKNOWN = "outcome_unknown"
    LEDGER = "ledger"
    POOL_TIMEOUT = "pool_timeout"
    TOO_MANY = "too_many"
    SHUTDOWN = "shutdown"
    NOT_READY = "not_ready"
    CANCELED = "canceled"
    INTERNAL = "internal"


class HyperdriveError(Exception):
    """Base of all our errors. *log_text* defaults to *client_text*."""

    sqlstate: ClassVar[str] = "XX000"
    kind: ClassVar[Kind] = Kind.INTERNAL

    def __init__(
        self,
        client_text: str,
        *,
        log_text: str | None = None,
        safe_to_retry: bool = False,
        sqlstate: str | None = None,
        hint: str | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(client_text)
        self.client_text = client_text
        self.log_text = log_text or client_text
        self.safe_to_retry = safe_to_retry
        self.code = sqlstate or self.sqlstate
        self.hint = hint
        self.detail = detail


class ConfigError(HyperdriveError):
    """A setting is wrong. The text names its key, its place and what would be right."""

    sqlstate = "F0000"
    kind = Kind.CONFIG


class ClientError(HyperdriveError):
    """What a client sent or asked for cannot be done."""


class ProtocolViolation(ClientError):
    """Bytes that the protocol does not allow."""

    sqlstate = "08P01"
    kind = Kind.PROTOCOL


class FeatureNotSupported(ClientError):
    """Legal, but not offered here."""

    sqlstate = "0A000"
    kind = Kind.UNSUPPORTED


class AuthenticationFailed(ClientError):
    """Wrong user or password: 28P01; no rule lets the user in: 28000."""

    sqlstate = "28P01"
    kind = Kind.AUTHENTICATION


class UnknownStatement(ClientError):
    """Bind, Describe or EXECUTE of a name that is not prepared; the connection stays."""

    sqlstate = "26000"
    kind = Kind.STATEMENT_NAME


class DuplicateStatement(ClientError):
    """Parse of a name that is already prepared; the connection stays."""

    sqlstate = "42P05"
    kind = Kind.STATEMENT_NAME


class TransactionAborted(ClientError):
    """A statement in a failed transaction, which the server cannot be asked about; the connection stays."""

    sqlstate = "25P02"
    kind = Kind.PROTOCOL


class WrongParameters(ClientError):
    """Bind with more or fewer parameters than its statement has; the connection stays."""

    sqlstate = "08P01"
    kind = Kind.PROTOCOL


class OriginError(HyperdriveError):
    """The origin's side failed."""

    sqlstate = "08006"
    kind = Kind.ORIGIN_LOST


class OriginUnreachable(OriginError):
    """No connection could be made; nothing was sent."""

    kind = Kind.ORIGIN_UNREACHABLE


class OriginLost(OriginError):
    """A server connection broke during a conversation."""


class OutcomeUnknown(OriginError):
    """The connection broke after a statement that may have committed was sent."""

    sqlstate = "08007"
    kind = Kind.OUTCOME_UNKNOWN


class LedgerMismatch(OriginError):
    """A server answered what nobody asked; it is closed and counted."""

    sqlstate = "08P01"
    kind = Kind.LEDGER


class OriginRefused(OriginError):
    """The origin refused a login. *response* is its whole ErrorResponse message, to be passed on as it is."""

    kind = Kind.ORIGIN_REFUSED

    def __init__(self, client_text: str, *, response: bytes, sqlstate: str, log_text: str | None = None) -> None:
        super().__init__(client_text, log_text=log_text, safe_to_retry=True, sqlstate=sqlstate)
        self.response = response


class OriginLoginFailed(OriginError):
    """We could not log in at the origin, or would not: no password, a method too weak for the link, a false signature."""

    sqlstate = "28000"
    kind = Kind.AUTHENTICATION


class PoolTimeout(HyperdriveError):
    """No server connection became free in time. Nothing was sent."""

    sqlstate = "53300"
    kind = Kind.POOL_TIMEOUT


class TooManyConnections(HyperdriveError):
    """A limit on client connections is reached."""

    sqlstate = "53300"
    kind = Kind.TOO_MANY


class ShuttingDown(HyperdriveError):
    """The proxy is going away, or an administrator ended the connection."""

    sqlstate = "57P01"
    kind = Kind.SHUTDOWN


class NotReady(HyperdriveError):
    """The proxy cannot serve yet."""

    sqlstate = "57P03"
    kind = Kind.NOT_READY


class QueryCanceled(ClientError):
    """A cancel request arrived while the client waited for a server connection."""

    sqlstate = "57014"
    kind = Kind.CANCELED


class InternalError(HyperdriveError):
    """Our own bug; the id in the text is also in the log."""
