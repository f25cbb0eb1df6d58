"""Listening sockets: several addresses, shared ports, unix sockets.

We accept ourselves instead of through ``loop.create_server``: under uvloop a process without free descriptors accepts
clients and hangs up on them without a word. Here they wait in the kernel's queue, the log says so once, and accepting
goes on when there is room. Options set on a listening socket pass to the accepted ones, so they cost no system calls.
Knows sockets and the event loop; knows no protocol.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from hyperdrive.errors import ConfigError
from hyperdrive.net.transport import DEFAULT_OPTIONS, SocketOptions, tune
from hyperdrive.tasks import spawn

log = logging.getLogger("hyperdrive.net")

ProtocolFactory = Callable[[], asyncio.BaseProtocol]

# As in PostgreSQL's own listen queue for large settings; the kernel lowers it to net.core.somaxconn.
DEFAULT_BACKLOG = 4096
# So many clients per turn of the loop; the others that are connected wait no longer than for these.
ACCEPTS_PER_TURN = 64
REST_SECONDS = 0.1

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def socket_path(directory: str, port: int) -> str:
    """The unix socket that libpq looks for when its host is *directory*; a leading ``@`` is the abstract namespace."""
    path = f"{directory.rstrip('/') or '/'}/.s.PGSQL.{port}"
    return "\0" + path[1:] if path.startswith("@") else path


class Listener:
    """Open listening sockets, accepting until ``close``."""

    def __init__(self, sockets: Sequence[socket.socket], factory: ProtocolFactory) -> None:
        self.sockets = tuple(sockets)
        self.exhausted_total = 0  # how often accepting had to rest for want of descriptors or memory
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._rests: dict[socket.socket, asyncio.TimerHandle] = {}
        self._files = {path: path.stat().st_ino for sock in sockets if (path := _file_of(sock))}
        self._accepting = False
        self._told = False
        self.resume()

    @property
    def port(self) -> int:
        """The port of the first address; of a unix socket the number in its name."""
        sock = self.sockets[0]
        if sock.family == socket.AF_UNIX:
            name = _text(sock.getsockname())
            return int(name.rpartition(".")[2]) if name.rpartition(".")[2].isdecimal() else 0
        return int(sock.getsockname()[1])

    @property
    def addresses(self) -> list[str]:
        """What people would type: ``127.0.0.1:6543``, ``[::1]:6543``, ``/run/hyperdrive/.s.PGSQL.6543``."""
        return [_printed(sock) for sock in self.sockets]

    def pause(self) -> None:
        """Leave new clients in the kernel's queue."""
        self._accepting = False
        for sock in self.sockets:
            self._loop.remove_reader(sock.fileno())
        for rest in self._rests.values():
            rest.cancel()
        self._rests.clear()

    def resume(self) -> None:
        """Accept again after ``pause``."""
        if not self._accepting:
            self._accepting = True
            for sock in self.sockets:
                self._loop.add_reader(sock.fileno(), self._accept, sock)

    def close(self) -> None:
        """Accept no more and remove our unix sockets; connections that were accepted live on. Twice does no harm."""
        if self.sockets[0].fileno() == -1:
            return
        self.pause()
        for path, inode in self._files.items():
            try:
                if path.stat().st_ino == inode:  # not one that a successor put in its place
                    path.unlink()
            except FileNotFoundError:
                pass
        for sock in self.sockets:
            sock.close()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _ = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno in _EXHAUSTED:
                    self._rest(listening, exc)
                    return
                continue  # that client is gone already (ECONNABORTED and the network's errors, accept(2))
            sock.setblocking(False)
            self._told = False
            # Never cancelled: uvloop would then close the transport without connection_lost.
            spawn(self._hand_over(sock), name="accept")

    async def _hand_over(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, sock)
        except OSError as exc:
            sock.close()
            log.debug("! a client was gone before it was served: %s", exc)
        except BaseException:
            sock.close()
            raise

    def _rest(self, listening: socket.socket, exc: OSError) -> None:
        """Try again a little later: the socket stays readable, and asking it at once would only burn the CPU."""
        self.exhausted_total += 1
        if not self._told:
            log.error("! cannot accept clients: %s; they wait until there is room", exc.strerror)
            self._told = True
        self._loop.remove_reader(listening.fileno())
        self._rests[listening] = self._loop.call_later(REST_SECONDS, self._end_rest, listening)

    def _end_rest(self, listening: socket.socket) -> None:
        del self._rests[listening]
        self._loop.add_reader(listening.fileno(), self._accept, listening)


async def listen(
    host: str | Sequence[str],
    port: int,
    factory: ProtocolFactory,
    *,
    backlog: int = DEFAULT_BACKLOG,
    reuse_port: bool = False,
    options: SocketOptions = DEFAULT_OPTIONS,
) -> Listener:
    """Listen on every address of *host*, or of each of them; ``""`` and ``"*"`` are all interfaces.

    With *port* 0 the system chooses one, the same for all addresses. *reuse_port* lets several processes share the
    port, the kernel spreading clients over them.

    Raises:
        ConfigError: an address is unknown, taken or forbidden. Nothing is left open.
    """
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []
    try:
        for name in [host] if isinstance(host, str) else host:
            shown = name or "*"
            try:
                found = await loop.getaddrinfo(
                    None if name in ("", "*") else name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )
            except OSError as exc:
                raise ConfigError(f'cannot listen on "{shown}": {exc.strerror or exc}') from exc
            for family, _, _, _, address in dict.fromkeys(found):
                wanted = sockets[0].getsockname()[1] if sockets and port == 0 else port
                try:
                    sock = _bind_tcp(family, (str(address[0]), wanted, *address[2:]), reuse_port, options)
                except OSError as exc:
                    if exc.errno == errno.EAFNOSUPPORT and len(found) > 1:
                        continue  # a kernel without IPv6
                    raise ConfigError(f"cannot listen on {shown}:{wanted}: {exc.strerror}") from exc
                sockets.append(sock)
        for sock in sockets:
            sock.listen(backlog)
        return Listener(sockets, factory)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise


async def listen_unix(
    directory: str, port: int, factory: ProtocolFactory, *, mode: int = 0o777, backlog: int = DEFAULT_BACKLOG
) -> Listener:
    """Listen on the unix socket that libpq finds with ``host=directory port=port``.

    *mode* is as PostgreSQL's ``unix_socket_permissions``, whose default it has. A socket file that nobody listens on,
    left behind by a crash, is replaced.

    Raises:
        ConfigError: the path is in use, too long or not writable.
    """
    return Listener([bind_unix(directory, port, mode=mode, backlog=backlog)], factory)


def bind_unix(directory: str, port: int, *, mode: int = 0o777, backlog: int = DEFAULT_BACKLOG) -> socket.socket:
    """That socket alone, listening; processes that are forked from this one may share it.

    Raises:
        ConfigError: as ``listen_unix``.
    """
    path = socket_path(directory, port)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        file = None if path.startswith("\0") else Path(path)
        if file and _is_stale(file):
            file.unlink()
        sock.bind(path)
        if file:
            file.chmod(mode)  # before listen(): until then nobody can connect
        sock.listen(backlog)
    except OSError as exc:
        sock.close()
        raise ConfigError(f'cannot listen on "{path}": {exc.strerror or exc}') from exc
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_tcp(family: int, address: tuple[object, ...], reuse_port: bool, options: SocketOptions) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
        tune(sock, options)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_stale(path: Path) -> bool:
    """Whether *path* is a unix socket that nobody listens on."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


def _text(name: str | bytes) -> str:
    return os.fsdecode(name)


def _file_of(sock: socket.socket) -> Path | None:
    """The file of a unix socket; not of one in the abstract namespace."""
    if sock.family != socket.AF_UNIX:
        return None
    name = _text(sock.getsockname())
    return None if name.startswith("\0") else Path(name)


def _printed(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return _text(name).replace("\0", "@", 1)
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"
