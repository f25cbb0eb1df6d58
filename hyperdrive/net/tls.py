"""TLS over any transport of ours, by ``ssl.MemoryBIO`` (ssl#memory-bio-support).

Why not the event loop's own TLS: bytes that were read before the switch must be refused or fed in, as the caller
decides (direct TLS hands in its first bytes, everything else refuses them); records towards clients stay small; and an
idle connection should cost little memory. ::

    peer ⇄ raw transport ⇄ TlsTransport ⇄ protocol
            data_received → feed → decrypt → protocol.data_received
            raw.write     ← encrypt ← write

A ``TlsTransport`` is the raw transport's protocol object and the protocol's transport. Back-pressure passes through:
what is written is encrypted at once, so the raw transport's buffer is the only one. Knows ``ssl`` and transports; knows
nothing of PostgreSQL. Deadlines are the caller's: ``abort`` ends a handshake that takes too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

from hyperdrive.errors import HyperdriveError, OriginLost, OriginUnreachable, ProtocolViolation
from hyperdrive.net.certificates import server_end_point
from hyperdrive.net.contexts import ServerContext
from hyperdrive.net.transport import Transport

# libpq's asynchronous interface can leave decrypted bytes unread when a record is larger than its buffer.
CLIENT_RECORD_BYTES = 8 * 1024
# The largest record that TLS allows; also the piece in which input is fed, so that no memory BIO grows beyond it.
RECORD_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What a handshake agreed on. *peer_…* are of a verified certificate only; names are empty otherwise."""

    version: str
    cipher: str
    alpn: str | None
    server_end_point: bytes | None
    peer_common_name: str | None
    peer_dns_names: tuple[str, ...]
    peer_subject: str


class _State(Enum):
    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class TlsTransport(asyncio.Protocol):
    """A transport that encrypts towards *raw* and decrypts towards *protocol*.

    After ``start``, *on_handshake* is called exactly once with a ``TlsInfo`` or an error, unless the owner closes the
    transport before. *protocol* is not told ``connection_made`` (it may have been, with the raw transport), and always
    ``connection_lost``. What is written before the handshake is done is dropped: in clear it must not go out.

    *alpn* is the protocol without which the handshake fails, as direct TLS demands. Errors are ProtocolViolation on the
    server's side, OriginUnreachable and later OriginLost on the client's.
    """

    __slots__ = (
        "_alpn",
        "_error",
        "_incoming",
        "_on_handshake",
        "_outgoing",
        "_paused",
        "_peer_ended",
        "_protocol",
        "_raw",
        "_record_bytes",
        "_server_side",
        "_state",
        "_tls",
        "info",
    )

    def __init__(
        self,
        raw: Transport,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        protocol: asyncio.BaseProtocol,
        on_handshake: Callable[[TlsInfo | HyperdriveError], None],
        server_hostname: str | None = None,
        alpn: str | None = None,
    ) -> None:
        self.info: TlsInfo | None = None
        self._raw = raw
        self._protocol = cast(asyncio.Protocol, protocol)
        self._server_side = server_side
        self._on_handshake: Callable[[TlsInfo | HyperdriveError], None] | None = on_handshake
        self._alpn = alpn
        self._record_bytes = CLIENT_RECORD_BYTES if server_side else RECORD_BYTES
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._state = _State.HANDSHAKE
        self._paused = False
        self._peer_ended = False
        self._error: HyperdriveError | None = None
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )

    def start(self, first_bytes: bytes = b"") -> None:
        """Take the raw transport over and begin the handshake; *first_bytes* were read from the peer already."""
        self._raw.set_protocol(self)
        if first_bytes:
            self.feed(first_bytes)
        else:
            self._shake_hands()

    # -- the raw transport's protocol ------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Encrypted bytes from the peer."""
        if self._state is _State.OPEN:
            if self._paused:
                self._incoming.write(data)  # was under way when reading was paused
            else:
                self._receive(data)
        elif self._state is _State.HANDSHAKE:
            self._incoming.write(data)
            self._shake_hands()

    feed = data_received

    def eof_received(self) -> bool:
        """The peer closed its side, perhaps without a close_notify; the protocol above knows its own ends."""
        if self._state is _State.HANDSHAKE:
            self._fail("the peer closed the connection during the TLS handshake")
        elif self._state is _State.OPEN:
            self._peer_ended = True
            if not self._paused:
                self._end_of_stream()
        return True  # we close ourselves

    def connection_lost(self, exc: Exception | None) -> None:
        """The raw transport is gone."""
        if self._state is _State.HANDSHAKE:
            self._report(self._as_error(f"the connection was lost during the TLS handshake ({exc or 'closed'})", exc))
        self._state = _State.CLOSED
        self._on_handshake = None
        self._protocol.connection_lost(self._error or exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    # -- the protocol's transport ----------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt *data* and send it."""
        if self._state is not _State.OPEN or not data:
            return
        limit = self._record_bytes
        try:
            if len(data) <= limit:
                self._tls.write(data)
                self._raw.write(self._outgoing.read())
                return
            view = memoryview(data)
            records: list[bytes] = []
            for start in range(0, len(view), limit):
                self._tls.write(view[start : start + limit])
                records.append(self._outgoing.read())
            self._raw.writelines(records)
        except ssl.SSLError as exc:
            self._fail("could not encrypt", exc)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """As one ``write``, so that small pieces share a record."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """Send a close_notify and close; the peer's is not waited for."""
        if self._state is _State.OPEN:
            self._state = _State.CLOSING
            with contextlib.suppress(ssl.SSLError):  # it wants the peer's close_notify; we leave without
                self._tls.unwrap()
            self._flush()
        elif self._state is _State.HANDSHAKE:
            self._state = _State.CLOSING
        self._raw.close()

    def abort(self) -> None:
        """Close at once, without a close_notify."""
        if self._state is not _State.CLOSED:
            self._state = _State.CLOSING
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._state in (_State.CLOSING, _State.CLOSED) or self._raw.is_closing()

    def pause_reading(self) -> None:
        self._paused = True
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        if not self._paused:
            return
        self._paused = False
        self._raw.resume_reading()
        if self._peer_ended or self._incoming.pending or self._tls.pending():
            # Not from here: the caller does not expect data before it returns.
            asyncio.get_running_loop().call_soon(self._receive_held)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high=high, low=low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``tls_info`` and ``ssl_object`` are ours, the rest the raw transport's."""
        if name == "tls_info":
            return self.info
        if name == "ssl_object":
            return self._tls
        return self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    # -- inside ----------------------------------------------------------------------------------------------------

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._flush()
            return
        except (ssl.SSLError, ValueError) as exc:
            self._fail(_reason(exc), exc)
            return
        self._flush()
        self.info = self._describe()
        if self._alpn is not None and self.info.alpn != self._alpn:
            self._fail(f'the peer did not agree on the protocol "{self._alpn}" (ALPN)')
            return
        self._state = _State.OPEN
        self._report(self.info)
        if self._incoming.pending and not self._paused:
            self._receive_held()

    def _receive(self, data: bytes) -> None:
        """Decrypt *data* and deliver it in one piece; errors and the end come after what was good."""
        chunks: list[bytes] = []
        goes_on = True
        error: ssl.SSLError | None = None
        try:
            if len(data) <= RECORD_BYTES:
                self._incoming.write(data)
                goes_on = self._decrypt(chunks)
            else:
                view = memoryview(data)
                for start in range(0, len(view), RECORD_BYTES):
                    self._incoming.write(view[start : start + RECORD_BYTES])
                    goes_on = self._decrypt(chunks)
                    if not goes_on:
                        break
        except ssl.SSLError as exc:
            error = exc
        if self._outgoing.pending:
            self._flush()  # an answer to a key update
        if chunks:
            self._protocol.data_received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if error is not None:
            self._fail(_reason(error), error)
        elif not goes_on:
            self._end_of_stream()

    def _decrypt(self, chunks: list[bytes]) -> bool:
        """Append what can be read to *chunks*; ``False`` after the peer's close_notify."""
        read, incoming, pending = self._tls.read, self._incoming, self._tls.pending
        try:
            while chunk := read(RECORD_BYTES):
                chunks.append(chunk)
                if not incoming.pending and not pending():
                    return True
        except ssl.SSLWantReadError:
            return True
        return False

    def _receive_held(self) -> None:
        """What arrived while reading was paused, or together with the end of the handshake."""
        if self._state is _State.OPEN and not self._paused:
            self._receive(b"")
            if self._peer_ended and not self._paused:
                self._end_of_stream()

    def _end_of_stream(self) -> None:
        if self._state is _State.OPEN and not self._protocol.eof_received():
            self.close()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._raw.write(self._outgoing.read())

    def _fail(self, reason: str, cause: Exception | None = None) -> None:
        """Send the alert, if there is one, and close; both sides of us hear of it."""
        if self._state in (_State.CLOSING, _State.CLOSED):
            return
        self._flush()
        self._error = self._as_error(reason, cause)
        self._state = _State.CLOSING
        self._report(self._error)
        self._raw.close()

    def _report(self, outcome: TlsInfo | HyperdriveError) -> None:
        report, self._on_handshake = self._on_handshake, None
        if report is not None:
            report(outcome)

    def _as_error(self, reason: str, cause: Exception | None) -> HyperdriveError:
        error: HyperdriveError
        if self._server_side:
            error = ProtocolViolation("TLS failed", log_text=f"TLS with the client: {reason}")
        elif self._on_handshake is not None:
            error = OriginUnreachable(
                "could not agree on TLS with the database", log_text=f"TLS handshake: {reason}", safe_to_retry=True
            )
        else:
            error = OriginLost("the connection to the database was lost", log_text=f"TLS: {reason}")
        error.__cause__ = cause
        return error

    def _describe(self) -> TlsInfo:
        verified: dict[str, Any] = cast("dict[str, Any] | None", self._tls.getpeercert()) or {}
        subject = [pair for attributes in verified.get("subject", ()) for pair in attributes]
        if self._server_side:
            context = self._tls.context
            end_point = context.end_point if isinstance(context, ServerContext) else None
        else:
            der = self._tls.getpeercert(binary_form=True)
            end_point = server_end_point(der) if der else None
        cipher = self._tls.cipher()
        return TlsInfo(
            version=self._tls.version() or "",
            cipher=cipher[0] if cipher else "",
            alpn=self._tls.selected_alpn_protocol(),
            server_end_point=end_point,
            # As PostgreSQL's cert method: the last common name wins nothing, there is to be one.
            peer_common_name=next((value for name, value in subject if name == "commonName"), None),
            peer_dns_names=tuple(name for kind, name in verified.get("subjectAltName", ()) if kind == "DNS"),
            peer_subject=",".join(f"{name}={value}" for name, value in subject),
        )


def _reason(exc: Exception) -> str:
    """OpenSSL's reason without its file and line."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {exc.verify_message}"
    reason = getattr(exc, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else str(exc)
