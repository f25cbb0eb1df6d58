"""An origin that answers every Query with one row from memory: for measuring a proxy without measuring Postgres.

``python -m bench.responder`` prints its port and ends when its standard input does. Queries and Syncs are all it understands: what a
pooler sends of its own (SET, an empty query) is answered well enough for that.
"""

from __future__ import annotations

import asyncio
import sys
from typing import ClassVar, cast

from hyperdrive.pgwire import messages as m
from hyperdrive.pgwire.framing import QUERY, SYNC, TERMINATE, split

WELCOME = (
    m.AUTHENTICATION_OK
    + m.parameter_statuses(
        {
            b"server_version": b"18.0",
            b"server_encoding": b"UTF8",
            b"client_encoding": b"UTF8",
            b"DateStyle": b"ISO, MDY",
            b"TimeZone": b"UTC",
            b"integer_datetimes": b"on",
            b"standard_conforming_strings": b"on",
            b"session_authorization": b"postgres",
            b"is_superuser": b"on",
            b"IntervalStyle": b"postgres",
        }
    )
    + m.backend_key_data(1, b"\0\0\0\1")
    + m.READY_IDLE
)
ROW = m.row_description([(b"?column?", 23, 4)]) + m.data_row([b"1"]) + m.command_complete(b"SELECT 1") + m.READY_IDLE
NOTHING = m.EMPTY_QUERY_RESPONSE + m.READY_IDLE
EMPTY_QUERY = m.query(b"")


def _answer(message: bytes) -> bytes:
    if message[0] == SYNC:
        return m.READY_IDLE
    if message[0] != QUERY:
        return b""
    if message == EMPTY_QUERY:
        return NOTHING
    return ROW if message[5:11] == b"SELECT" else m.command_complete(b"SET") + m.READY_IDLE


class Responder(asyncio.Protocol):
    """One connection."""

    _known: ClassVar[dict[bytes, bytes]] = {m.query(b"SELECT 1;"): ROW}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._is_in = False

    def data_received(self, data: bytes) -> None:
        if self._is_in:
            if data in self._known:
                self.transport.write(self._known[data])
            else:
                self.transport.write(b"".join(map(_answer, split(data)[0])))
                if data[0] == TERMINATE:
                    self.transport.close()
        elif data[4:8] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):  # SSLRequest, GSSENCRequest
            self.transport.write(b"N")
        elif data[4:8] == b"\x04\xd2\x16\x2e":  # CancelRequest
            self.transport.close()
        else:
            self._is_in = True
            self.transport.write(WELCOME)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Responder, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
