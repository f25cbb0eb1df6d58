"""Runs a talk of ``vocabulary`` against a URL and writes down every message that came back.

The transcript also has what was asked, so that a difference shows where it began. At the end it has what ``pg_settings`` says
to the client, and the contents of all tables, read on a connection of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from itertools import groupby

from hyperdrive.testing.frontend import flush, query, sync
from hyperdrive.testing.transcript import Message, Replies, transcript
from hyperdrive.testing.wire import ConnectionClosed, LoginFailed, WireConnection, open_wire
from tests.conformance.vocabulary import (
    SETTINGS_SEEN,
    SETUP,
    TABLES,
    Disturb,
    Leave,
    Outside,
    Stretch,
    Talk,
    Write,
)

ENDS_OF = {"P": "1", "B": "2", "D": "Tn", "C": "3", "E": "CIs"}
"""The replies that finish what a message of the extended protocol asks for; an error ends them all."""

LOCK_TIMEOUT = "500ms"
"""So long another session waits for what the client has locked; then both ways say 55P03."""

Between = Callable[[bool], Awaitable[None]]
"""Gives somebody else a turn; the argument says whether the client is at rest, outside of a transaction."""


class Witness:
    """A direct connection that sets the tables up, is the other session of ``Outside``, and reads what is left in the end."""

    def __init__(self, conn: WireConnection) -> None:
        self.conn = conn

    async def reset(self) -> None:
        """All as it was, once nobody uses it any more."""
        await self.conn.query("rollback prepared 'tt'")
        replies = await self.conn.scope(
            query("reset all") + query(SETUP) + query("reset all") + query(f"set lock_timeout = '{LOCK_TIMEOUT}'"),
            ready=4,
        )
        assert not replies.errors, replies

    async def outside(self, sql: str) -> list[str]:
        return [f"outside {line}" for line in transcript(await self.conn.query(sql))]

    async def left(self) -> list[str]:
        """The contents of every table there is."""
        lines: list[str] = []
        for table in TABLES:
            rows = await self.conn.query(f"select * from {table} order by 1")
            lines += [f"left in {table}: {row}" for row in rows.rows] + [f"{table}: {code}" for code in rows.errors]
        return lines


class Speaker:
    """The client of a talk."""

    def __init__(self, url: str, parameters: Mapping[str, str], witness: Witness, between: Between | None) -> None:
        self.url = url
        self.parameters = parameters
        self.witness = witness
        self.between = between
        self.lines: list[str] = []
        self.conn: WireConnection | None = None
        self.status = "I"

    async def speak(self, talk: Talk) -> list[str]:
        """Make all moves; the transcript."""
        try:
            for move in talk:
                await self._move(move)
            for sql in ("rollback", SETTINGS_SEEN, "reset all", "reset role", SETTINGS_SEEN):
                await self._write(f"Q {sql}", query(sql), 1)
        except BaseException as exc:
            if self.conn is not None:
                exc.add_note(self.conn.conversation())
            raise
        finally:
            if self.conn is not None:
                await self.conn.close()
        self.lines += await self.witness.left()
        return _in_order(self.lines)

    async def _move(self, move: object) -> None:
        match move:
            case Write(scopes, cuts):
                data = b"".join(scope.data for scope in scopes)
                await self._write(" + ".join(scope.text for scope in scopes), data, len(scopes), cuts)
            case Stretch():
                await self._stretch(move)
            case Leave(how):
                await self._leave(how)
            case Outside(sql):
                self.lines.append(f"-- outside {sql}")
                self.lines += await self.witness.outside(sql)
            case Disturb():
                await self._give_way(at_rest=self.status == "I")
            case _:
                raise AssertionError(move)

    async def _write(self, text: str, data: bytes, scopes: int, cuts: tuple[int, ...] = ()) -> None:
        conn = await self._connected()
        self.lines.append(f"-- {text}")
        if conn is None:
            return
        try:
            await conn.send_cut(data, cuts)
            await self._note(await conn.read_until("Z", scopes))
        except ConnectionClosed as closed:
            await self._lost(closed)
            return
        if cuts and self.status == "I":
            await self._give_way(at_rest=True)

    async def _stretch(self, stretch: Stretch) -> None:
        conn = await self._connected()
        if conn is None:
            return
        failed = False
        try:
            for piece in stretch.pieces:
                self.lines.append(f"-- {piece.text}")
                conn.send(piece.data + flush())
                for kind in _kinds(piece.data):
                    if failed:
                        break
                    replies = await _one_answer(conn, kind)
                    failed = replies[-1].kind == "E"
                    await self._note(replies)
                await self._give_way(at_rest=False)
            if stretch.syncs:
                self.lines.append("-- S")
                conn.send(sync())
                await self._note(await conn.read_until("Z"))
            else:
                await self._leave(stretch.how)
        except ConnectionClosed as closed:
            await self._lost(closed)

    async def _connected(self) -> WireConnection | None:
        if self.conn is None:
            conn = await open_wire(self.url)
            try:
                came = await conn.login(self.parameters)
            except LoginFailed as failed:
                await conn.close()
                self.lines += transcript(failed.replies.without("R"))
                return None
            self.conn, self.status = conn, "I"
            self.lines += sorted(transcript(came.of("SN"))) + transcript(came.of("Z"))
        return self.conn

    async def _leave(self, how: str) -> None:
        conn, self.conn = self.conn, None
        self.lines.append(f"-- {how}")
        if conn is None:
            return
        if how == "reset":
            conn.abort()
            await asyncio.sleep(0)
        elif how == "terminate":
            await conn.terminate()
        else:
            await conn.close()
        self.status = "I"

    async def _lost(self, closed: ConnectionClosed) -> None:
        self.lines.append("!! closed")
        conn, self.conn = self.conn, None
        if conn is not None:
            await conn.close()
        self.status = "I"

    async def _note(self, replies: Replies) -> None:
        self.lines += transcript(replies)
        if replies and replies[-1].kind == "Z":
            self.status = replies[-1].body.decode()

    async def _give_way(self, *, at_rest: bool) -> None:
        if self.between is not None:
            await self.between(at_rest)


def _in_order(lines: list[str]) -> list[str]:
    """Several ParameterStatus in a row come in no defined order."""
    found: list[str] = []
    for is_status, run in groupby(lines, key=lambda line: line.startswith("S ")):
        together = list(run)
        found += sorted(together) if is_status else together
    return found


def _kinds(data: bytes) -> list[str]:
    kinds, at = [], 0
    while at < len(data):
        kinds.append(chr(data[at]))
        at += 1 + int.from_bytes(data[at + 1 : at + 5], "big")
    return kinds


async def _one_answer(conn: WireConnection, kind: str) -> Replies:
    found = Replies()
    while True:
        message: Message = await conn.receive()
        found.append(message)
        if message.kind == "E" or message.kind in ENDS_OF[kind]:
            return found


async def witness_of(url: str, stack: AsyncExitStack) -> Witness:
    """A witness at the origin, closed with *stack*."""
    conn = await stack.enter_async_context(await open_wire(url))
    await conn.login({"application_name": "witness"})
    return Witness(conn)
