"""Socket options."""

from __future__ import annotations

import socket

import pytest

from hyperdrive.net.transport import SocketOptions, tune


def test_w60_tcp_sockets_do_not_wait_for_more_to_send() -> None:
    with socket.socket() as sock:
        tune(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="macOS has another name for it")
def test_w56_a_peer_that_is_gone_is_noticed_in_time() -> None:
    with socket.socket() as sock:
        tune(sock, SocketOptions(True, 11.0, 3.0, 4))
        tcp = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in tcp] == [11, 3, 4]


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="macOS has another name for it")
def test_a_zero_leaves_the_systems_value() -> None:
    with socket.socket() as sock:
        before = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        tune(sock, SocketOptions(True, 0, 0, 0))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == before
        tune(sock, SocketOptions(keepalive=False))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_unix_sockets_are_left_alone() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        tune(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
