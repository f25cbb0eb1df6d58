"""One connection to a Redis or Valkey server, on which questions are asked one behind the other and nobody waits for long.

The connection, its login and its wire format are redis-py's (the optional extra ``redis``); what is ours is that calls are made from
callbacks, carried out in their order, and given up together: an answer that is late is none, several late ones in a row end the
connection, and it is opened anew behind everybody's back. Knows commands and time; knows nothing of what is kept there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from hyperdrive.errors import ConfigError
from hyperdrive.tasks import spawn

log = logging.getLogger("hyperdrive.net")

LATE_IN_A_ROW: Final = 3
"""So many questions without an answer in time, and the connection is given up."""
CONFIRM_SECONDS: Final = 1.0
"""How long anything may go unanswered."""
CONNECT_SECONDS: Final = 2.0
RETRY_FIRST_SECONDS: Final = 0.1
RETRY_MAX_SECONDS: Final = 10.0
MAX_OUT_BYTES: Final = 8 << 20
"""What may wait to be sent; what nobody needs is left out then, and when what somebody needs does not fit the connection is given up."""
MADE_SECONDS: Final = 86400
SCHEMES: Final = ("redis://", "rediss://", "unix://")

Then = Callable[["list[Any] | None"], None]


def check_url(url: str) -> None:
    """Raises:
    ConfigError: there is nothing to connect to a server with, or *url* names none.
    """
    try:
        from redis.asyncio.connection import parse_url
    except ImportError:
        raise ConfigError(
            "cache_redis: the package redis is not installed; install hyperdrive[redis], or leave this setting out"
        ) from None
    try:
        parse_url(url)
    except ValueError as exc:
        raise ConfigError(f"cache_redis: {exc}") from exc


def without_password(url: str) -> str:
    """*url* as it may be shown."""
    parts = urlsplit(url)
    _, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{parts.username or ''}{at}{host}", query="").geturl()


class _Call:
    """Commands sent together, and who hears of their replies."""

    __slots__ = ("deadline", "left", "replies", "then")

    def __init__(self, count: int, then: Then | None) -> None:
        self.left = count
        self.replies: list[Any] = []
        self.then = then
        self.deadline: asyncio.TimerHandle | None = None

    def answer(self, replies: list[Any] | None) -> None:
        then, self.then = self.then, None
        if self.deadline is not None:
            self.deadline.cancel()
        if then is not None:
            then(replies)


class RedisStore:
    """A store of bytes by name. *up* and *down* are told when it can be reached and when it cannot any more."""

    def __init__(self, url: str, *, answer_seconds: float) -> None:
        check_url(url)
        self._url = url
        self._name = without_password(url)
        self._answer_seconds = answer_seconds
        self.up: Callable[[], None] = lambda: None
        self.down: Callable[[], None] = lambda: None
        self.incarnation = b""
        self.losses = 0
        self._calls: deque[_Call] = deque()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._late = 0
        self._wake = asyncio.Event()
        self._confirm: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._pack: Callable[[Sequence[Sequence[Any]]], list[bytes]] = lambda commands: []

    # --- life -----------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and stay connected, in a task of its own."""
        self._task = spawn(self._run(), name="second level")

    async def close(self) -> None:
        """What has been asked is sent, and answered if that does not take long; then the connection ends."""
        loop = asyncio.get_running_loop()
        end = loop.time() + 5 * self._answer_seconds + 0.1
        while self._calls and self.incarnation and loop.time() < end:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.002)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._lost()

    async def _run(self) -> None:
        pause = RETRY_FIRST_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            connection = self._new_connection()
            began = loop.time()
            try:
                await self._serve(connection)
            finally:
                self._lost()
                await connection.disconnect(nowait=True)
            if loop.time() - began > RETRY_MAX_SECONDS:
                pause = RETRY_FIRST_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_MAX_SECONDS)

    async def _serve(self, connection: Any) -> None:
        """Log in, and carry out what is asked until the connection ends, however it does."""
        from redis.exceptions import RedisError

        talking: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()
                incarnation = await _incarnation_of(connection)
            self._pack, self.incarnation = connection.pack_commands, incarnation
            log.info("= second level: %s can be asked", self._name)
            self._ended = asyncio.Event()
            self.up()
            talking += [spawn(self._write(connection), name="second level: write")]
            talking += [spawn(self._read(connection), name="second level: read")]
            await self._ended.wait()
        except (RedisError, OSError, TimeoutError, ValueError) as exc:
            log.warning("! second level: %s: %s", self._name, exc or type(exc).__name__)
        finally:
            for task in talking:
                task.cancel()
            if talking:
                await asyncio.wait(talking)

    def _new_connection(self) -> Any:
        from redis.asyncio.connection import Connection, parse_url
        from redis.exceptions import ConnectionError as Lost

        arguments: dict[str, Any] = dict(parse_url(self._url))
        kind: Any = arguments.pop("connection_class", Connection)
        used: list[Any] = []

        async def connected(connection: Any) -> None:
            if used:
                raise Lost("the connection was lost")  # redis-py would open it again, and nobody would know
            used.append(connection)
            await connection.on_connect()

        arguments |= {
            "protocol": 2,
            "socket_timeout": None,
            "socket_connect_timeout": CONNECT_SECONDS,
            "client_name": "hyperdrive",
            "decode_responses": False,
            "redis_connect_func": connected,
        }
        return kind(**arguments)

    async def _write(self, connection: Any) -> None:
        from redis.exceptions import RedisError

        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                out, self._out, self._out_bytes = self._out, [], 0
                await connection.send_packed_command(out, check_health=False)
        except (RedisError, OSError) as exc:
            self._give_up(str(exc))

    async def _read(self, connection: Any) -> None:
        from redis.exceptions import RedisError, ResponseError

        try:
            while True:
                try:
                    reply = await connection.read_response(disable_decoding=True)
                except ResponseError as exc:
                    reply = exc
                self._hear(reply)
        except (RedisError, OSError) as exc:
            self._give_up(str(exc))

    def _lost(self) -> None:
        """Nothing more comes on this connection."""
        if self.incarnation:
            self.losses += 1
            self.incarnation = b""
            self.down()
        if self._confirm is not None:
            self._confirm.cancel()
            self._confirm = None
        self._out, self._out_bytes, self._late = [], 0, 0
        self._wake.clear()
        calls, self._calls = self._calls, deque()
        for call in calls:
            call.answer(None)

    def _give_up(self, why: str) -> None:
        if self.incarnation:
            log.warning("! second level: %s: %s", self._name, why)
        self._ended.set()
        # Nobody shall rely on it until the task has found that out.
        self._lost()

    # --- asking ---------------------------------------------------------------------------------------------------------------

    def fetch(self, names: Sequence[bytes], made: Mapping[bytes, bytes], found: Callable[[Any], None]) -> None:
        """See ``cache.second.Port``: *found* is called with values and the server's time, or with ``None``."""
        commands: list[Sequence[Any]] = [("SET", name, value, "NX", "EX", MADE_SECONDS) for name, value in made.items()]
        commands += [("MGET", *names), ("TIME",)]

        def answered(replies: list[Any] | None) -> None:
            found(None if replies is None else _reply_of(replies[-2], replies[-1]))

        call = self._ask(commands, answered)
        if call is not None:
            call.deadline = asyncio.get_running_loop().call_later(self._answer_seconds, self._is_late, call)

    def store(self, values: Mapping[bytes, bytes], seconds: float) -> None:
        """Keep *values* for so long."""
        milliseconds = max(1, int(1000 * seconds))
        self._ask([("SET", name, value, "PX", milliseconds) for name, value in values.items()], None)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes may be given to it now."""
        return bool(self.incarnation) and self._out_bytes + size <= MAX_OUT_BYTES // 2

    def _ask(self, commands: Sequence[Sequence[Any]], then: Then | None) -> _Call | None:
        call = _Call(len(commands), then)
        if not self.incarnation:
            asyncio.get_running_loop().call_soon(call.answer, None)
            return None
        packed = self._pack(commands)
        self._out += packed
        self._out_bytes += sum(map(len, packed))
        self._calls.append(call)
        self._wake.set()
        if self._confirm is None:
            self._confirm = asyncio.get_running_loop().call_later(CONFIRM_SECONDS, self._unanswered, call)
        if self._out_bytes > MAX_OUT_BYTES:
            asyncio.get_running_loop().call_soon(self._give_up, "it does not take what it is given")
        return call

    def _hear(self, reply: Any) -> None:
        calls = self._calls
        if not calls:
            return  # given up
        call = calls[0]
        call.replies.append(reply)
        call.left -= 1
        if call.left:
            return
        calls.popleft()
        self._confirm_next()
        failed = next((one for one in call.replies if isinstance(one, Exception)), None)
        if failed is not None:
            # Out of memory, read-only, moved, no permission: what it was told it may not have taken.
            call.answer(None)
            self._give_up(str(failed))
            return
        if call.then is not None:
            self._late = 0
        call.answer(call.replies)

    def _confirm_next(self) -> None:
        if self._confirm is not None:
            self._confirm.cancel()
            self._confirm = None
        if self._calls:
            self._confirm = asyncio.get_running_loop().call_later(CONFIRM_SECONDS, self._unanswered, self._calls[0])

    def _unanswered(self, call: _Call) -> None:
        self._confirm = None
        if self._calls and self._calls[0] is call:
            self._give_up("it does not answer")

    def _is_late(self, call: _Call) -> None:
        call.answer(None)
        self._late += 1
        if self._late >= LATE_IN_A_ROW:
            self._give_up(f"{self._late} answers in a row were late")


class Answer:
    """Values in the order of their names, and the server's time."""

    __slots__ = ("now", "values")

    def __init__(self, values: Sequence[bytes | None], now: float) -> None:
        self.values = values
        self.now = now


def _reply_of(values: Any, time: Any) -> Answer:
    return Answer(values, int(time[0]) + int(time[1]) / 1e6)


async def _incarnation_of(connection: Any) -> bytes:
    """What tells this server, since it started, from any other.

    Raises:
        ValueError: it does not say.
    """
    await connection.send_command("INFO", "server")
    said = await connection.read_response(disable_decoding=True)
    for line in said.splitlines():
        if line.startswith(b"run_id:"):
            found: bytes = line[7:].strip()
            return found
    raise ValueError("it does not tell its run_id")
