"""What a peer has not taken of what it was sent, as far as this machine's kernel knows.

A transport's own buffer says little: the kernel takes up to some megabytes behind it. Knows sockets; knows no protocol. Where the
platform tells less, less is known: the transport's buffer alone, and nothing of acknowledgements.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
from typing import Final

from hyperdrive.net.transport import Transport

_SIOCOUTQ: Final = 0x5411 if sys.platform == "linux" else None
"""tcp(7), unix(7): bytes in the send queue. Of a unix socket it counts the kernel's memory, which is as good for a comparison."""
_TCP_INFO: Final = socket.TCP_INFO if sys.platform == "linux" else None
_RETRANSMITS, _PROBES = 2, 3
"""Where struct tcp_info (linux/tcp.h) has how often the same bytes were sent again, and the window asked for, without any answer."""


def unsent_bytes(transport: Transport) -> int:
    """Bytes that the peer's kernel has not taken, whether our own holds them or the transport."""
    kept = transport.get_write_buffer_size()
    number = _descriptor(transport)
    if _SIOCOUTQ is None or number < 0:
        return kept
    try:
        (queued,) = struct.unpack("i", fcntl.ioctl(number, _SIOCOUTQ, bytes(4)))
    except OSError:
        return kept
    return kept + int(queued)


def is_unanswered(transport: Transport) -> bool:
    """The peer's kernel answers nothing to what is sent again and again; one that says that it has no room does answer.

    TCP_USER_TIMEOUT makes no such difference: it counts while the peer's window is closed as well (tcp_probe_timer). On a unix
    socket the peer is gone when its kernel is.
    """
    sock = transport.get_extra_info("socket")
    if _TCP_INFO is None or sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 8)
    except OSError:
        return False
    # One question about the window may stay without an answer: those are rationed (tcp_invalid_ratelimit).
    return bool(told[_RETRANSMITS] > 0 or told[_PROBES] > 1)


def _descriptor(transport: Transport) -> int:
    sock = transport.get_extra_info("socket")
    return -1 if sock is None or transport.is_closing() else int(sock.fileno())
