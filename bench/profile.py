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

from bench.book import Book
from hyperdrive.clock import SystemClock
from hyperdrive.net.transport import Transport
from hyperdrive.pgwire import messages as m
from hyperdrive.pool.interfaces import PoolKey
from hyperdrive.pool.settings import PoolSettings
from hyperdrive.proxy.client import ClientConnection
from hyperdrive.proxy.proxy import Proxy, ProxySettings
from hyperdrive.proxy.server import ServerConnection
from hyperdrive.session.client import ClientSession
from hyperdrive.session.settings import EMPTY

SELECT = b"SELECT abalance FROM pgbench_accounts WHERE aid = "
_CACHE_BYTES = 4 << 20
"""More than a core's own caches hold."""
_VIEW = {b"client_encoding": b"UTF8", b"standard_conforming_strings": b"on", b"server_version": b"18.0"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one read from the client brings, and what the origin answers to it; nothing when it was not asked."""

    asked: bytes
    answered: bytes = b""


@dataclass(frozen=True, slots=True)
class Case:
    """A way to ask, as a driver does it: *before* runs once, *turns* again and again, each a read from the client or several."""

    name: str
    about: str
    turns: list[list[bytes]]
    before: tuple[bytes, ...] = ()
    queries: int = 1
    """Statements in one turn, by which the time is divided."""
    rows: int = 1
    """Rows in a reply."""


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


class Scene:
    """One client and one server of one pool, linked as the proxy links them. Needs a running loop, which does nothing."""

    def __init__(self, rows: int = 1) -> None:
        self._book = Book(rows)
        self.turns: list[list[Exchange]] = []
        """What is asked again and again, with the replies that were seen to fit."""
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

    def converse(self, asked: bytes) -> bytes:
        """One read from the client, and an origin that answers what really reached it, until nobody has more to say."""
        self.to_origin.take()
        self.client.data_received(asked)
        answered = b""
        while (sent := self.to_origin.take()) is not None:
            reply = self._book.answer(sent)
            answered += reply
            self.server.data_received(reply)
        return answered

    def play(self, exchange: Exchange) -> None:
        """One read from the client, then one from the server, if the origin has been asked anything."""
        self.client.data_received(exchange.asked)
        if exchange.answered:
            self.server.data_received(exchange.answered)


def cases() -> list[Case]:
    """How drivers ask for one row."""
    parameters = [str(n).encode() for n in range(10_000, 14_096)]

    def scope(name: bytes, value: bytes) -> bytes:
        return m.bind(b"", name, [value]) + m.describe(b"P") + m.execute() + m.SYNC

    return [
        Case("simple", "pgbench -M simple: literals differ", [[m.query(SELECT + p + b";")] for p in parameters]),
        Case("simple, same text", "a Query seen before", [[m.query(SELECT + b"1;")]]),
        Case(
            "extended",
            "pgbench -M extended: Parse Bind Describe Execute Sync, unnamed",
            [[m.parse(b"", SELECT + b"$1;") + scope(b"", p)] for p in parameters],
        ),
        Case(
            "prepared",
            "pgbench -M prepared: Bind Describe Execute Sync, named",
            [[scope(b"P0_1", p)] for p in parameters],
            before=(m.parse(b"P0_1", SELECT + b"$1;") + m.SYNC,),
        ),
        Case(
            "prepared, asyncpg",
            "Bind Execute Sync, named and binary",
            [[m.bind(b"", b"__asyncpg_1__", [p]) + m.execute() + m.SYNC] for p in parameters],
            before=(
                m.parse(b"__asyncpg_1__", SELECT + b"$1") + m.describe(b"S", b"__asyncpg_1__") + m.FLUSH,
                m.SYNC,
            ),
        ),
        Case(
            "transaction",
            "BEGIN; SELECT; COMMIT in three simple queries, per statement",
            [[m.query(b"BEGIN"), m.query(SELECT + p), m.query(b"COMMIT")] for p in parameters],
            queries=3,
        ),
        Case(
            "longer transaction",
            "BEGIN; four SELECTs; COMMIT in six simple queries, per statement",
            [[m.query(b"BEGIN"), *[m.query(SELECT + p)] * 4, m.query(b"COMMIT")] for p in parameters],
            queries=6,
        ),
        Case("100 rows", "a Query with a hundred rows", [[m.query(SELECT + b"1;")]], rows=100),
    ]


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds per query: the best batch, which other processes disturbed least, and the median."""

    name: str
    best_us: float
    median_us: float


def prepared(case: Case) -> Scene:
    """A scene in which *case* has been set up; its turns have the replies that fitted in a conversation by the book.

    All turns are alike but for a value, so the replies of one fit all; which they are depends on what the proxy keeps to itself.
    """
    scene = Scene(case.rows)
    for asked in case.before:
        scene.converse(asked)
    replies: list[bytes] = []
    for turn in case.turns[:2] * 2:
        replies = [scene.converse(asked) for asked in turn]
    scene.turns = [[Exchange(asked, replies[n]) for n, asked in enumerate(turn)] for turn in case.turns]
    return scene


def measure(case: Case, iterations: int, batches: int = 20) -> Cost:
    """Time *iterations* turns of *case*, in batches."""
    scene = prepared(case)
    play = scene.play
    turns = cycle(scene.turns)
    for turn in scene.turns:
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
    turns = cycle(scene.turns)
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
                if not data:
                    continue
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
    turns = cycle(scene.turns)
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
