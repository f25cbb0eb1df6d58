"""TLS at the origin's side of a distance, for a Postgres that was built without: ``python -m bench.tls ORIGIN_PORT VERSION``.

    client ⇄ relay (delays) ⇄ here (SSLRequest, the handshake) ⇄ Postgres on loopback

The handshake's round trips so cross the distance like those of a server with TLS of its own. As PostgreSQL does, no session tickets
are given out. Prints its port; ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import tempfile
from pathlib import Path

from hyperdrive.testing.certs import Authority

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_PIECE = 256 * 1024


VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(version: str = "1.3") -> ssl.SSLContext:
    """A context with a certificate made just now."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        files = Authority(Path(name)).server()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols(["postgresql"])
    return context


class Terminator:
    """Accepts connections, answers SSLRequest with S, and passes on what was inside."""

    def __init__(self, origin_port: int, version: str) -> None:
        self._origin_port = origin_port
        self._context = server_context(version)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection to its end."""
        try:
            first = await reader.readexactly(len(_SSL_REQUEST))
            if first == _SSL_REQUEST:
                writer.write(b"S")
                await writer.start_tls(self._context)
                first = b""
            back, forth = await asyncio.open_connection("127.0.0.1", self._origin_port)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return
        forth.write(first)
        await asyncio.gather(_pass_on(reader, forth), _pass_on(back, writer))


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(_PIECE):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


async def main(origin_port: int, version: str) -> None:
    server = await asyncio.start_server(Terminator(origin_port, version).serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
