"""An origin by the book, for ``profile``: answers what really reached it, with one canned row, in the right transaction status."""

from __future__ import annotations

from hyperdrive.pgwire import messages as m
from hyperdrive.pgwire.framing import split

COLUMN = m.row_description([(b"abalance", 23, 4)])
ROW = m.data_row([b"-1234"])
DONE = m.command_complete(b"SELECT 1")
NO_DATA = b"n\0\0\0\4"

_ENDS = {b"BEGIN": m.READY_IN_TRANSACTION, b"COMMIT": m.READY_IDLE, b"ROLLBACK": m.READY_IDLE}


class Book:
    """One session at the origin: which statements it knows, and whether it is in a transaction."""

    def __init__(self, rows: int = 1) -> None:
        self._rows = ROW * rows + (DONE if rows == 1 else m.command_complete(b"SELECT %d" % rows))
        self._ready = m.READY_IDLE
        self._statements: dict[bytes, bytes] = {}
        self._running = b""

    def answer(self, written: bytes) -> bytes:
        """What it says to everything in *written*."""
        return b"".join(map(self._one, split(written)[0]))

    def _one(self, message: bytes) -> bytes:
        kind, body = message[:1], message[5:]
        if kind == b"Q":
            self._running = body[:-1]
            return self._described() + self._executed() + self._ready
        if kind == b"P":
            name, sql = body.split(b"\0", 2)[:2]
            self._statements[name] = sql
            return m.PARSE_COMPLETE
        if kind == b"B":
            self._running = self._statements.get(body.split(b"\0", 2)[1], b"")
            return m.BIND_COMPLETE
        if kind == b"D":
            if body[:1] == b"S":
                return m.parameter_description([23]) + COLUMN
            return self._described() or NO_DATA
        if kind == b"E":
            return self._executed()
        return {b"S": self._ready, b"C": m.CLOSE_COMPLETE}.get(kind, b"")

    @property
    def _command(self) -> bytes:
        return self._running.split(b" ", 1)[0].strip(b";").upper()

    def _described(self) -> bytes:
        return b"" if self._command in _ENDS else COLUMN

    def _executed(self) -> bytes:
        command = self._command
        if command in _ENDS:
            self._ready = _ENDS[command]
            return m.command_complete(command)
        return self._rows
