"""What the house calls a transport, and the socket options that each of ours has.

A transport has asyncio's interface (asyncio-protocol#transports): a plain uvloop transport has it, and so has our
``net.tls.TlsTransport``. Knows sockets; knows no protocol that runs over them.
"""

from __future__ import annotations

import socket
from asyncio import BaseProtocol
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Transport(Protocol):
    """A byte stream to a peer. ``write`` never waits; ``pause_writing`` of the protocol says when to stop."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*; what the socket does not take at once is copied and kept."""

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several buffers in order, in as few system calls as may be."""

    def close(self) -> None:
        """Send what is buffered, then close; ``connection_lost(None)`` follows."""

    def abort(self) -> None:
        """Close now; what is buffered is lost."""

    def is_closing(self) -> bool:
        """Whether ``close`` or ``abort`` was called, or the peer is gone."""

    def pause_reading(self) -> None:
        """No ``data_received`` until ``resume_reading``; twice is as good as once."""

    def resume_reading(self) -> None:
        """Go on after ``pause_reading``."""

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken yet."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Where the protocol's ``pause_writing`` and ``resume_writing`` are called, in bytes."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As in asyncio: ``peername``, ``sockname``, ``socket``; over TLS also ``tls_info``."""

    def set_protocol(self, protocol: BaseProtocol) -> None:
        """Hand the stream to another protocol object; ``connection_made`` is not called."""

    def get_protocol(self) -> BaseProtocol:
        """The present protocol object."""


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """Options of a TCP socket; a zero leaves the system's own value.

    A peer that is gone without a word is noticed after idle + interval * count = 90 seconds, below the 350 seconds
    after which the commonest load balancers forget a flow. TCP_USER_TIMEOUT is not among them: it would end peers that live
    and only have no room (``net.unsent``), and on Linux it takes the place of *keepalive_count* (tcp_keepalive_timer).
    """

    keepalive: bool = True
    keepalive_idle_seconds: float = 60.0
    keepalive_interval_seconds: float = 10.0
    keepalive_count: int = 3


DEFAULT_OPTIONS = SocketOptions()

# macOS has the idle time under another name.
_IDLE = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
_INTERVAL = getattr(socket, "TCP_KEEPINTVL", None)
_COUNT = getattr(socket, "TCP_KEEPCNT", None)


def tune(sock: socket.socket, options: SocketOptions = DEFAULT_OPTIONS) -> None:
    """Set *options* and TCP_NODELAY on *sock*; a socket that is not TCP is left alone.

    On a listening socket they pass to every accepted one. Options that the platform lacks are skipped.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # We write whole batches ourselves; waiting for more would only add delay.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(options.keepalive))
    if options.keepalive:
        _set(sock, _IDLE, round(options.keepalive_idle_seconds))
        _set(sock, _INTERVAL, round(options.keepalive_interval_seconds))
        _set(sock, _COUNT, options.keepalive_count)


def _set(sock: socket.socket, option: int | None, value: int) -> None:
    if option is not None and value > 0:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
