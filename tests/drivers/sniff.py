"""What a driver really sends: run a command behind a relay and print the frontend messages, one line per write.

``python -m tests.drivers.sniff URL COMMAND …`` runs COMMAND with a DATABASE_URL that leads through the relay to the
server of URL, without TLS. Letters are the protocol's (``P`` Parse, ``B`` Bind, ``D`` Describe, ``E`` Execute, ``S`` Sync,
``Q`` Query …); a line is what arrived before the server said anything, so lines are round trips.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from urllib.parse import urlsplit, urlunsplit

NAMELESS = {b"S": "S", b"H": "H", b"X": "X", b"d": "d", b"c": "c", b"f": "f", b"p": "p"}


def text(body: bytes) -> tuple[str, bytes]:
    head, _, rest = body.partition(b"\0")
    return " ".join(head.decode(errors="replace").split()), rest


def describe(kind: bytes, body: bytes) -> str:
    """Return one frontend message in short."""
    if kind == b"Q":
        return f"Q[{text(body)[0]}]"
    if kind == b"P":
        name, rest = text(body)
        sql, rest = text(rest)
        return f"P({name})[{sql}]"
    if kind == b"B":
        portal, rest = text(body)
        return f"B({portal}<{text(rest)[0]})"
    if kind in (b"D", b"C"):
        return f"{kind.decode()}({body[:1].decode()}:{text(body[1:])[0]})"
    if kind == b"E":
        portal, rest = text(body)
        limit = struct.unpack("!i", rest[:4])[0]
        return f"E({portal}{f',{limit}' if limit else ''})"
    return NAMELESS.get(kind, repr(kind))


class Conversation:
    """Collects one connection's messages; ``said`` marks that the server answered."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.buffer = b""
        self.started = False
        self.line: list[str] = []

    def heard(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head = 1 if self.started else 0
            if len(self.buffer) < head + 4:
                return
            size = head + struct.unpack_from("!I", self.buffer, head)[0]
            if len(self.buffer) < size:
                return
            message, self.buffer = self.buffer[:size], self.buffer[size:]
            if self.started:
                self.line.append(describe(message[:1], message[5:]))
                continue
            code = struct.unpack_from("!I", message, 4)[0]
            names = {80877103: "SSLRequest", 80877104: "GSSENCRequest", 80877102: "CancelRequest"}
            if code in names:
                self.line.append(names[code])
            else:
                self.started = True
                values = [part.decode(errors="replace") for part in message[8:].rstrip(b"\0").split(b"\0")]
                pairs = " ".join(f"{name}={value}" for name, value in zip(values[::2], values[1::2], strict=False))
                self.line.append(f"StartupMessage {code >> 16}.{code & 65535} {pairs}")

    def said(self) -> None:
        if self.line:
            print(f"{self.number:>3}  {' '.join(self.line)}", flush=True)
            self.line = []


async def relay(url: str, command: list[str]) -> int:
    parts = urlsplit(url)
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        conversation = Conversation(count)
        origin_reader, origin_writer = await asyncio.open_connection(parts.hostname, parts.port)

        async def back() -> None:
            while data := await origin_reader.read(65536):
                conversation.said()
                writer.write(data)
            writer.close()

        answering = asyncio.create_task(back())
        try:
            while data := await reader.read(65536):
                conversation.heard(data)
                origin_writer.write(data)
        except ConnectionError:
            pass
        conversation.said()
        origin_writer.close()
        await asyncio.gather(answering, return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    credentials = parts.netloc.rpartition("@")[0]
    address = urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "DATABASE_URL": address})
    code = await process.wait()
    server.close()
    return code


if __name__ == "__main__":
    sys.exit(asyncio.run(relay(sys.argv[1], sys.argv[2:])))
