"""Conversations as scripts, run direct and through a proxy to compare what came back.

A script is a list of steps; each names its client, what is sent and how long to read. ``run_script`` gives the transcript, one
line per message with the client's name in front. Clients are opened at their first step and closed at the end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hyperdrive.testing.transcript import Replies, transcript
from hyperdrive.testing.wire import ConnectionClosed, LoginFailed, WireConnection, open_wire


@dataclass(frozen=True, slots=True)
class Step:
    """*client* sends *data*, then reads to the *times*-th message of *kinds*; without *kinds*, to the end of the connection."""

    data: bytes
    kinds: str
    times: int
    client: str
    cuts: tuple[int, ...] = ()


def say(data: bytes, ready: int = 1, *, client: str = "a", cuts: Sequence[int] = ()) -> Step:
    """Send *data* and read until *ready* ReadyForQuery have come."""
    return Step(data, "Z", ready, client, tuple(cuts))


def until(data: bytes, kinds: str, times: int = 1, *, client: str = "a") -> Step:
    """Send *data* and read up to the *times*-th message of *kinds*."""
    return Step(data, kinds, times, client)


def to_end(data: bytes, *, client: str = "a") -> Step:
    """Send *data* and read until the connection is closed."""
    return Step(data, "", 0, client)


@dataclass(frozen=True)
class Script:
    """A conversation with what it needs.

    *setup* is SQL that runs on a connection of its own before each run. *servers* is the size of the pool that it can live
    with; a script that pins needs one more than the clients it pins, as others join in. *versions* are major versions.
    """

    name: str
    steps: Sequence[Step]
    setup: str = ""
    servers: int = 1
    parameters: Mapping[str, str] = field(default_factory=dict)
    versions: tuple[int, ...] = (13, 14, 15, 16, 17, 18)

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


Compare = Callable[[Script], Awaitable[None]]
"""The fixture that runs a script both ways and asserts that nothing differs."""


async def run_script(
    script: Script, url: str, *, between: Callable[[], Awaitable[None]] | None = None, welcome: bool = False
) -> list[str]:
    """Run *script* against *url* and return its transcript.

    *between* is awaited wherever no client of the script is in a transaction or in the middle of an answer. With *welcome*
    the transcript starts with what each login brought, sorted, as the order of ParameterStatus there is not defined.
    """
    clients: dict[str, WireConnection] = {}
    idle: dict[str, bool] = {}
    lines: list[str] = []
    try:
        for step in script.steps:
            if step.client not in clients:
                conn = clients[step.client] = await open_wire(url)
                try:
                    came = await conn.login(script.parameters)
                except LoginFailed as failed:
                    lines += _prefixed(step.client, failed.replies.without("R"))
                    return lines
                if welcome:
                    # How the two sides authenticate is their own affair, and no part of a conversation.
                    lines += sorted(_prefixed(step.client, came.without("R")))
            conn = clients[step.client]
            replies = await _one_step(conn, step)
            lines += _prefixed(step.client, replies)
            idle[step.client] = bool(replies) and replies[-1].kind == "Z" and replies[-1].body == b"I"
            if between is not None and all(idle.values()):
                await between()
    except BaseException as exc:
        for conn in clients.values():
            exc.add_note(conn.conversation())
        raise
    finally:
        for conn in clients.values():
            await conn.close()
    return lines


async def _one_step(conn: WireConnection, step: Step) -> Replies:
    if step.cuts:
        await conn.send_cut(step.data, step.cuts)
    elif step.data:
        conn.send(step.data)
    if not step.kinds:
        return await conn.read_to_end()
    try:
        return await conn.read_until(step.kinds, step.times)
    except ConnectionClosed as closed:
        raise AssertionError(f"{step.client}: closed in the middle of {step}") from closed


def _prefixed(client: str, replies: Replies) -> list[str]:
    return [f"{client} {line}" for line in transcript(replies)]
