"""What one query costs in the proxy's own code, without sockets: ``python -m bench micro``.

A client connection and a server connection as the proxy makes them, on transports that swallow what is written, so that a figure
is the work between two ``read`` calls and nothing else: cutting, classifying, taking a server, composing, relaying the replies,
giving the server back. The origin's replies are canned. What the kernel and the loop cost on top is the other benchmarks' subject.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import io
import pstats
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, cast

from hyperdrive.clock import SystemClock
from hyperdrive.net.transport import Transport
from hyperdrive.pgwire import messages as m
from hyperdrive.pgwire.framing import split
from hyperdrive.pool.interfaces import PoolKey
from hyperdrive.pool.settings import PoolSettings
from hyperdrive.proxy.client import ClientConnection
from hyperdrive.proxy.proxy import Proxy, ProxySettings
from hyperdrive.proxy.server import ServerConnection
from hyperdrive.session.client import ClientSession
from hyperdrive.session.settings import EMPTY

SELECT = b"SELECT abalance FROM pgbench_accounts WHERE aid = "
_COLUMN = m.row_description([(b"abalance", 23, 4)])
_ROW = m.data_row([b"-1234"])
_DONE = m.command_complete(b"SELECT 1")
_CACHE_BYTES = 4 << 20
"""More than a core's own caches hold."""
_VIEW = {b"client_encoding": b"UTF8", b"standard_conforming_strings": b"on", b"server_version": b"18.0"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one read from the client brings, and what the origin answers to it."""

    asked: bytes
    answered: bytes


@dataclass(frozen=True, slots=True)
class Case:
    """A way to ask, as a driver does it: *before* runs once, *turns* again and again."""

    name: str
    about: str
    turns: list[list[Exchange]]
    before: tuple[bytes, ...] = ()
    queries: int = 1
    """Statements in one turn, by which the time is divided."""


class NullTransport:
    """Keeps what was written last, for who wants to answer it."""

    def __init__(self) -> None:
        self.written: bytes | None = None

    def write(self, data: bytes) -> None:
        self.written = data

    def take(self) -> bytes | None:
        written, self.written = self.written, None
        return written

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def ignore(self, *_: object) -> None:
        """For everything that a transport is told and has no answer to."""

    pause_reading = resume_reading = set_protocol = set_write_buffer_limits = close = abort = ignore


_ANSWERS = {
    b"P": m.PARSE_COMPLETE,
    b"B": m.BIND_COMPLETE,
    b"D": _COLUMN,
    b"E": _ROW + _DONE,
    b"C": m.CLOSE_COMPLETE,
    b"S": m.READY_IDLE,
    b"Q": _COLUMN + _ROW + _DONE + m.READY_IDLE,
}
_SPECIAL = {
    b"QBEGIN": m.command_complete(b"BEGIN") + m.READY_IN_TRANSACTION,
    b"QCOMMIT": m.command_complete(b"COMMIT") + m.READY_IDLE,
}


def _answer(message: bytes) -> bytes:
    """What an origin says to one message."""
    kind = message[:1]
    if message[5:6] == b"S" and kind == b"D":
        return m.parameter_description([23]) + _COLUMN
    return _SPECIAL.get(kind + message[5:-1], _ANSWERS.get(kind, b""))


class Scene:
    """One client and one server of one pool, linked as the proxy links them. Needs a running loop, which does nothing."""

    def __init__(self) -> None:
        # Nobody connects and nobody logs in, so there is no origin and nobody who knows passwords.
        nothing = cast("Any", None)
        proxy = Proxy(nothing, nothing, ProxySettings(), lambda _: PoolSettings(min_size=0), SystemClock())
        context = proxy.context(PoolKey("app", "app"))
        view = context.logged_in(_VIEW)
        self.to_origin = NullTransport()
        self.server = ServerConnection(context, 1, b"key", view, "nowhere")
        self.server.attach(cast("Transport", self.to_origin))
        context.pool.adopt(self.server)
        self.client = ClientConnection(
            context, ClientSession(context.pipe, EMPTY, view), cast("Transport", NullTransport()), 1, b"key"
        )
        context.clients.add(self.client)

    def converse(self, asked: bytes) -> None:
        """One read from the client, and an origin that answers what really reached it, until nobody has more to say."""
        self.to_origin.take()
        self.client.data_received(asked)
        while (sent := self.to_origin.take()) is not None:
            self.server.data_received(b"".join(map(_answer, split(sent)[0])))

    def play(self, exchange: Exchange) -> None:
        """One read from the client, then one from the server."""
        self.client.data_received(exchange.asked)
        self.server.data_received(exchange.answered)


def cases() -> list[Case]:
    """How drivers ask for one row."""
    reply = _COLUMN + _ROW + _DONE + m.READY_IDLE
    extended = m.PARSE_COMPLETE + m.BIND_COMPLETE + reply
    bound = m.BIND_COMPLETE + reply
    parameters = [str(n).encode() for n in range(10_000, 14_096)]

    def scope(name: bytes, value: bytes) -> bytes:
        return m.bind(b"", name, [value]) + m.describe(b"P") + m.execute() + m.SYNC

    return [
        Case(
            "simple",
            "pgbench -M simple: literals differ",
            [[Exchange(m.query(SELECT + p + b";"), reply)] for p in parameters],
        ),
        Case("simple, same text", "a Query seen before", [[Exchange(m.query(SELECT + b"1;"), reply)]]),
        Case(
            "extended",
            "pgbench -M extended: Parse Bind Describe Execute Sync, unnamed",
            [[Exchange(m.parse(b"", SELECT + b"$1;") + scope(b"", p), extended)] for p in parameters],
        ),
        Case(
            "prepared",
            "pgbench -M prepared: Bind Describe Execute Sync, named",
            [[Exchange(scope(b"P0_1", p), bound)] for p in parameters],
            before=(m.parse(b"P0_1", SELECT + b"$1;") + m.SYNC,),
        ),
        Case(
            "prepared, asyncpg",
            "Bind Execute Sync, named and binary",
            [
                [
                    Exchange(
                        m.bind(b"", b"__asyncpg_1__", [p]) + m.execute() + m.SYNC,
                        m.BIND_COMPLETE + _ROW + _DONE + m.READY_IDLE,
                    )
                ]
                for p in parameters
            ],
            before=(
                m.parse(b"__asyncpg_1__", SELECT + b"$1") + m.describe(b"S", b"__asyncpg_1__") + m.FLUSH,
                m.SYNC,
            ),
        ),
        Case(
            "transaction",
            "BEGIN; SELECT; COMMIT in three simple queries, per statement",
            [
                [
                    Exchange(m.query(b"BEGIN"), m.command_complete(b"BEGIN") + m.READY_IN_TRANSACTION),
                    Exchange(m.query(SELECT + p), _COLUMN + _ROW + _DONE + m.READY_IN_TRANSACTION),
                    Exchange(m.query(b"COMMIT"), m.command_complete(b"COMMIT") + m.READY_IDLE),
                ]
                for p in parameters
            ],
            queries=3,
        ),
        Case(
            "100 rows",
            "a Query with a hundred rows",
            [
                [
                    Exchange(
                        m.query(SELECT + b"1;"), _COLUMN + _ROW * 100 + m.command_complete(b"SELECT 100") + m.READY_IDLE
                    )
                ]
            ],
        ),
    ]


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds per query: the best batch, which other processes disturbed least, and the median."""

    name: str
    best_us: float
    median_us: float


def prepared(case: Case) -> Scene:
    """A scene in which *case* has been set up, and two turns of it were answered by the book."""
    scene = Scene()
    for asked in case.before:
        scene.converse(asked)
    if len(case.turns[0]) == 1:
        for turn in case.turns[:2] * 2:
            scene.converse(turn[0].asked)
    return scene


def measure(case: Case, iterations: int, batches: int = 20) -> Cost:
    """Time *iterations* turns of *case*, in batches."""
    scene = prepared(case)
    play = scene.play
    turns = cycle(case.turns)
    for turn in case.turns:
        for exchange in turn:
            play(exchange)
    size = max(1, iterations // batches)
    taken: list[float] = []
    for _ in range(batches):
        batch = [next(turns) for _ in range(size)]
        start = time.perf_counter()
        for turn in batch:
            for exchange in turn:
                play(exchange)
        taken.append((time.perf_counter() - start) / size / case.queries * 1e6)
    return Cost(case.name, min(taken), statistics.median(taken))


def measure_cold(case: Case, iterations: int) -> Cost:
    """Time single turns with the processor's caches emptied before each read, as after a turn of the kernel and of others.

    In a loop of its own our code finds everything in the nearest cache; between two ``read`` calls of a proxy under load the kernel
    has run, and PostgreSQL's processes too. The truth lies near this figure, the one to optimise for: touch less.
    """
    scene = prepared(case)
    turns = cycle(case.turns)
    rubbish = bytearray(_CACHE_BYTES)
    clock = time.perf_counter
    taken: list[float] = []
    for _ in range(iterations):
        turn = next(turns)
        total = 0.0
        for exchange in turn:
            for receive, data in (
                (scene.client.data_received, exchange.asked),
                (scene.server.data_received, exchange.answered),
            ):
                bytes(rubbish)
                start = clock()
                receive(data)
                total += clock() - start
        taken.append(total / case.queries * 1e6)
    taken.sort()
    return Cost(case.name, taken[len(taken) // 10], statistics.median(taken))


def profile(case: Case, iterations: int, lines: int = 14) -> str:
    """Where the time goes, by function. The profiler itself slows calls down, so read shares and not seconds."""
    scene = prepared(case)
    turns = cycle(case.turns)
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(iterations):
        for exchange in next(turns):
            scene.play(exchange)
    profiler.disable()
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(lines)
    return "\n".join(line for line in text.getvalue().splitlines() if line.strip())


def run(iterations: int, say: Callable[[str], None] = print) -> list[Cost]:
    """Measure every case and print as they come."""
    costs = []
    say(f"µs per query in our own code, {iterations:,} iterations; cold: with the caches emptied before each read")
    say(f"{'':20}{'best':>8}{'median':>8}{'cold':>8}{'median':>8}")
    for case in cases():
        cost = measure(case, iterations)
        cold = measure_cold(case, max(200, iterations // 100))
        costs.append(cost)
        say(
            f"{cost.name:20}{cost.best_us:8.2f}{cost.median_us:8.2f}{cold.best_us:8.2f}{cold.median_us:8.2f}   {case.about}"
        )
    return costs


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench micro", description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=200_000)
    parser.add_argument("--profile", metavar="CASE", help="show where the time of one case goes, by function")
    return asyncio.run(_main(parser, parser.parse_args(arguments)))


async def _main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.profile:
        chosen = [case for case in cases() if case.name == options.profile]
        if not chosen:
            parser.error(f"no such case; there are: {', '.join(case.name for case in cases())}")
        print(profile(chosen[0], options.iterations))
        return 0
    run(options.iterations)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
