"""A distance in one process: a loopback TCP relay that delays, counts round trips, and breaks connections.

::

    client ⇄ Relay (each direction held back by delay_seconds) ⇄ target

Bytes are queued with the time at which they are due, so a long delay costs no throughput: as many bytes are under way as
arrive within it, up to ``WINDOW_BYTES`` a direction. They come late by up to a millisecond and never early. The kernel's
handshake on loopback costs nothing, so the relay makes up for it: what a client sends counts as sent one round trip after
it connected, when it would have been connected.

**A round trip** is counted when bytes reach the client although, since bytes last reached it, it has sent some that
reached the target: it asked, and the answer came. Pipelined messages are one round trip, a streamed answer is one,
what nobody answers (Terminate) and what the server says unasked are none. Connections are counted by themselves, in
``connections_total``; each costs one round trip more.

Also a program: ``python -m hyperdrive.testing.relay --listen 127.0.0.1:0 --target 127.0.0.1:5432 --delay-ms 40`` says
where it listens, and answers each line on its standard input with its counters in JSON (``reset`` sets them to zero).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from hyperdrive.clock import SystemClock
from hyperdrive.tasks import spawn

WINDOW_BYTES = 16 * 1024 * 1024
# With a bandwidth, bytes travel in pieces of this size; otherwise as they were read.
PIECE_BYTES = 16 * 1024

How = Literal["reset", "close"]
_now = SystemClock.now


class Direction(Enum):
    """Which way bytes travel."""

    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut a connection when *offset* bytes have been delivered in *direction*: with RST, or FIN on both sides."""

    direction: Direction
    offset: int
    how: How = "reset"


class Relay:
    """A relay from an address of its own to *target*: (host, port), or the path of a unix socket.

    *delay_seconds* is for one way; a round trip takes twice that. *jitter_seconds* is added at random and reorders
    nothing. *bandwidth* is in bytes per second and direction. All of them may be changed while it runs. ``async with``
    starts and closes it.
    """

    def __init__(
        self,
        target: tuple[str, int] | str,
        *,
        delay_seconds: float = 0.0,
        jitter_seconds: float = 0.0,
        bandwidth: float | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.target = target
        self.delay_seconds = delay_seconds
        self.jitter_seconds = jitter_seconds
        self.bandwidth = bandwidth
        self.host = host
        self.port = port
        self.connections_total = 0
        self.round_trips = 0
        self.bytes_total = dict.fromkeys(Direction, 0)
        self.links: set[Link] = set()
        self.thawed = asyncio.Event()
        self.thawed.set()
        self._cuts: list[Cut] = []
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Relay:
        await self.admit()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_frozen(self) -> bool:
        return not self.thawed.is_set()

    async def admit(self) -> None:
        """Listen; after ``refuse`` on the same port."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: Link(self).client, self.host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections; those that exist go on."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await asyncio.sleep(0)  # uvloop closes the socket in the loop's next turn

    async def close(self) -> None:
        """Refuse new connections, reset those that exist, and wait until they are gone."""
        await self.refuse()
        self.thaw()
        self.cut("reset")
        while self.links:
            self._changed.clear()
            await self._changed.wait()

    def cut(self, how: How = "reset") -> None:
        """End every connection now: with RST, or with FIN on both sides. Bytes under way are lost."""
        for link in list(self.links):
            link.cut(how)

    def cut_at(self, direction: Direction, offset: int, how: How = "reset") -> None:
        """Cut the next new connection when *offset* bytes were delivered in *direction*; not one byte more is."""
        self._cuts.append(Cut(direction, offset, how))

    def freeze(self) -> None:
        """Swallow everything like a firewall that forgot the flows: nothing is read, delivered or refused."""
        self.thawed.clear()
        for link in self.links:
            link.settle()

    def thaw(self) -> None:
        """Go on after ``freeze``; what was under way arrives."""
        self.thawed.set()
        for link in self.links:
            link.settle()

    def reset_counters(self) -> None:
        """Count from zero; connections that exist go on."""
        self.connections_total = self.round_trips = 0
        self.bytes_total = dict.fromkeys(Direction, 0)

    def counters(self) -> dict[str, int]:
        """The counters by name."""
        sizes = {f"bytes_{direction.value}": size for direction, size in self.bytes_total.items()}
        return {"connections_total": self.connections_total, "round_trips": self.round_trips, **sizes}

    def take_cut(self) -> Cut | None:
        """The cut that the next connection gets."""
        return self._cuts.pop(0) if self._cuts else None

    def forget(self, link: Link) -> None:
        """*link* is gone."""
        self.links.discard(link)
        self._changed.set()


class Link:
    """One connection through the relay: two ends, and a pipe in each direction."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.planned_cut: Cut | None = None
        self.client = End(self)
        self.server = End(self)
        self.to_server = Pipe(self, self.client, self.server, Direction.TO_SERVER)
        self.to_client = Pipe(self, self.server, self.client, Direction.TO_CLIENT)
        self.client.outgoing, self.client.incoming = self.to_server, self.to_client
        self.server.outgoing, self.server.incoming = self.to_client, self.to_server
        self.established_at = 0.0
        self._has_asked = False
        self._is_cut = False

    def client_came(self) -> None:
        """A client connected to us; as far away as it is, it has only begun to."""
        self.relay.links.add(self)
        self.relay.connections_total += 1
        self.planned_cut = self.relay.take_cut()
        self.established_at = _now() + 2 * self.relay.delay_seconds
        spawn(self._connect(), name="relay connects")

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(2 * self.relay.delay_seconds)
            await self.relay.thawed.wait()
            if self._is_cut:
                return
            if isinstance(self.relay.target, str):
                await loop.create_unix_connection(lambda: self.server, self.relay.target)
            else:
                await loop.create_connection(lambda: self.server, *self.relay.target)
        except OSError:
            self.cut("reset")
        finally:
            if self.server.transport is None:
                self.server.is_gone = True
                self.forget_if_gone()

    def delivered(self, direction: Direction, size_bytes: int) -> None:
        """Count; see the module's docstring for what a round trip is."""
        self.relay.bytes_total[direction] += size_bytes
        if direction is Direction.TO_SERVER:
            self._has_asked = True
        elif self._has_asked:
            self._has_asked = False
            self.relay.round_trips += 1

    def settle(self) -> None:
        """After a freeze or a thaw: read and deliver, or stop to."""
        for pipe in (self.to_server, self.to_client):
            pipe.settle()

    def cut(self, how: How) -> None:
        """End both sides; bytes under way are lost."""
        self._is_cut = True
        for end in (self.client, self.server):
            end.incoming.stop()
            end.hang_up(how)

    def end_if_both_ended(self) -> None:
        """Both directions have seen FIN: nothing more can come."""
        if self.to_server.has_ended and self.to_client.has_ended:
            self.client.hang_up("close")
            self.server.hang_up("close")

    def forget_if_gone(self) -> None:
        """Both sockets are closed."""
        if self.client.is_gone and self.server.is_gone:
            self.relay.forget(self)


class End(asyncio.Protocol):
    """One socket of a link."""

    outgoing: Pipe
    incoming: Pipe

    def __init__(self, link: Link) -> None:
        self.link = link
        self.transport: Any = None
        self.is_gone = False
        self.is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if self is self.link.client:
            self.link.client_came()
        self.link.settle()

    def data_received(self, data: bytes) -> None:
        self.outgoing.put(data)

    def eof_received(self) -> bool:
        self.outgoing.put_end("close")
        return True  # the other direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        self.outgoing.put_end("reset" if exc else "close")
        self.link.forget_if_gone()

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self.incoming.deliver()

    def hang_up(self, how: How) -> None:
        """Close: with RST, or with FIN after what was written."""
        if self.transport is None or self.is_gone:
            return
        if how == "close":
            self.transport.close()
            return
        # With a linger time of zero close(2) sends RST (socket(7)).
        sock = self.transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Pipe:
    """One direction of a link: bytes, and the end of the stream, in the order and at the time they are due."""

    def __init__(self, link: Link, source: End, sink: End, direction: Direction) -> None:
        self.link = link
        self.source = source
        self.sink = sink
        self.direction = direction
        self.has_ended = False
        self._queue: deque[tuple[float, bytes | How]] = deque()
        self._queued_bytes = 0
        self._delivered_bytes = 0
        self._last_due = 0.0
        self._free_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._end_is_queued = False
        self._is_stopped = False

    def put(self, data: bytes) -> None:
        """Send *data* on its way."""
        relay = self.link.relay
        start = _now()
        if self.direction is Direction.TO_SERVER:
            start = max(start, self.link.established_at)
        if relay.bandwidth is None:
            self._append(start, data, len(data))
        else:
            for at in range(0, len(data), PIECE_BYTES):
                piece = data[at : at + PIECE_BYTES]
                start = self._free_at = max(start, self._free_at) + len(piece) / relay.bandwidth
                self._append(start, piece, len(piece))
        self._read_or_pause()
        self.deliver()

    def put_end(self, how: How) -> None:
        """The source sends no more; the sink hears it after what is under way."""
        if not self._end_is_queued:
            self._end_is_queued = True
            self._append(max(_now(), self._free_at), how, 0)
            self.deliver()

    def _append(self, start: float, item: bytes | How, size_bytes: int) -> None:
        relay = self.link.relay
        jitter = random.uniform(0, relay.jitter_seconds) if relay.jitter_seconds else 0.0
        self._last_due = max(self._last_due, start + relay.delay_seconds + jitter)
        self._queue.append((self._last_due, item))
        self._queued_bytes += size_bytes

    def deliver(self) -> None:
        """Write what is due, and come back when the next is."""
        if self._is_stopped or self.link.relay.is_frozen or self.sink.transport is None:
            return
        while self._queue and not self.sink.is_full and not self._is_stopped:
            due, item = self._queue[0]
            if (early := due - _now()) > 0:
                self._come_back(early)
                break
            self._queue.popleft()
            if isinstance(item, bytes):
                self._queued_bytes -= len(item)
                self._write(item)
            else:
                self._end(item)
        self._read_or_pause()

    def _come_back(self, seconds: float) -> None:
        if self._timer is None:
            # uvloop rounds to milliseconds: up, so that it is due by then.
            delay = math.ceil(seconds * 1000) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self.deliver()

    def _write(self, data: bytes) -> None:
        cut = self.link.planned_cut
        if cut is not None and cut.direction is self.direction and self._delivered_bytes + len(data) >= cut.offset:
            data = data[: max(cut.offset - self._delivered_bytes, 0)]
            self.stop()
            self.sink.transport.set_write_buffer_limits(high=0)  # counts what is not with the kernel yet
            self.sink.transport.write(data)
            self._cut_when_written(cut.how)
        else:
            self.sink.transport.write(data)
        self._delivered_bytes += len(data)
        if data:
            self.link.delivered(self.direction, len(data))

    def _cut_when_written(self, how: How) -> None:
        if self.sink.is_gone or not self.sink.transport.get_write_buffer_size():
            self.link.cut(how)
        else:
            asyncio.get_running_loop().call_soon(self._cut_when_written, how)

    def _end(self, how: How) -> None:
        self.has_ended = True
        if self.sink.is_gone:
            return
        if how == "reset":
            self.sink.hang_up("reset")
        elif self.source.is_gone:
            self.sink.hang_up("close")
        else:
            if self.sink.transport.can_write_eof() and not self.sink.transport.is_closing():
                self.sink.transport.write_eof()
            self.link.end_if_both_ended()

    def stop(self) -> None:
        """Deliver nothing more."""
        self._is_stopped = True
        self._queue.clear()
        self._queued_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def settle(self) -> None:
        """After a freeze or a thaw."""
        self._read_or_pause()
        self.deliver()

    def _read_or_pause(self) -> None:
        transport = self.source.transport
        if transport is None or self.source.is_gone or transport.is_closing() or self._end_is_queued:
            return
        wants = not self.link.relay.is_frozen and self._queued_bytes < WINDOW_BYTES
        if wants and not transport.is_reading():
            transport.resume_reading()
        elif not wants and transport.is_reading():
            transport.pause_reading()


async def _serve(relay: Relay) -> None:
    lines = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer
    )
    async with relay:
        sys.stdout.write(f"listening {relay.host}:{relay.port}\n")
        sys.stdout.flush()
        while line := await lines.readline():
            if line.strip() == b"reset":
                relay.reset_counters()
            sys.stdout.write(json.dumps(relay.counters()) + "\n")
            sys.stdout.flush()
    pipe.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Relay until standard input ends."""
    parser = argparse.ArgumentParser(
        prog="python -m hyperdrive.testing.relay", description="A distance on one machine."
    )
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--target", required=True, metavar="HOST:PORT|/PATH")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="one way")
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--bandwidth", type=float, help="bytes per second and direction")
    options = parser.parse_args(arguments)
    import uvloop

    host, _, port = options.listen.rpartition(":")
    target_host, _, target_port = options.target.rpartition(":")

    async def run() -> None:
        await _serve(
            Relay(
                options.target if options.target.startswith("/") else (target_host, int(target_port)),
                delay_seconds=options.delay_ms / 1000,
                jitter_seconds=options.jitter_ms / 1000,
                bandwidth=options.bandwidth,
                host=host,
                port=int(port),
            )
        )

    uvloop.run(run())


if __name__ == "__main__":
    main()
