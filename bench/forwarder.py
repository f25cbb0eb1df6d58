"""The floor: what forwarding costs in Python on uvloop when nothing is decided. ``python -m bench.forwarder ORIGIN_PORT``.

One server connection for each client, bytes passed on as they come; no pool, no framing, no statements. Whatever we use beyond this is
our own code; whatever this uses beyond PgBouncer is Python's and the loop's.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast


class Side(asyncio.Protocol):
    """One end; what it reads is written to the other."""

    def __init__(self, origin_port: int | None = None) -> None:
        self._origin_port = origin_port
        self.other: Side | None = None
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._early = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._origin_port is not None:
            self._task = asyncio.get_running_loop().create_task(self._connect(self._origin_port))

    async def _connect(self, port: int) -> None:
        _, side = await asyncio.get_running_loop().create_connection(Side, "127.0.0.1", port)
        side.other, self.other = self, side
        if self._early:
            side.transport.write(self._early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


async def main(origin_port: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Side(origin_port), "127.0.0.1", 0)
    print(f"ready postgresql://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
