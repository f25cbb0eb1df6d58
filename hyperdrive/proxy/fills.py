"""Filling the cache: the reply to a read passes on its way to the client, and what may be kept of it is (caching-rules §10.3, rule 21).

``Filling`` sits on the server connection that works for it and is told of what is forwarded. The client is answered in any case, and
first; a follower that waits for the same answer is served afterwards. Knows servers, fills and flights; decides nothing about SQL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hyperdrive.cache.entry import Shape
from hyperdrive.cache.fill import Fill
from hyperdrive.cache.flight import Flight
from hyperdrive.pgwire.framing import BIND, PARSE, QUERY, ROW_DESCRIPTION
from hyperdrive.pgwire.messages import BIND_COMPLETE, PARSE_COMPLETE

if TYPE_CHECKING:
    from hyperdrive.cache.entry import Entry
    from hyperdrive.proxy.cache import Cache
    from hyperdrive.proxy.identity import Identity
    from hyperdrive.proxy.server import ServerConnection
    from hyperdrive.session.pipe import Pipe
    from hyperdrive.session.statements import Named

_STANDBY: Final = b"in_hot_standby"
"""Reported from 14 on."""
_READY: Final = b"Z\0\0\0\x05"
_SUSPENDED: Final = b"s\0\0\0\x04"
_LONGEST_TAG: Final = 40
_BOUND: Final = PARSE_COMPLETE + BIND_COMPLETE


def body_of(reply: bytes, kind: int, *, is_limited: bool = False) -> bytes | None:
    """What an entry keeps of a whole *reply* to a batch that began with a message of *kind*; ``None`` if it is not the answer to a
    SELECT. Other messages than these were counted as they came: here only the ends are looked at.

    *is_limited*: the batch had a row limit, so that as many rows and PortalSuspended are all that it asked for.
    """
    if reply[-6:-1] != _READY or not (_is_selected(reply) or (is_limited and reply[-11:-6] == _SUSPENDED)):
        return None
    if kind == QUERY:
        body = reply if reply[0] == ROW_DESCRIPTION else None
    elif kind == PARSE:
        body = reply[len(PARSE_COMPLETE) :] if reply.startswith(_BOUND) else None
    else:
        assert kind == BIND
        body = reply if reply.startswith(BIND_COMPLETE) else None
    if body is not None and body[-1:] != b"I":
        body = body[:-1] + b"I"
    return body


def _is_selected(reply: bytes) -> bool:
    """Whether CommandComplete of a SELECT stands before ReadyForQuery."""
    tag_at = reply.rfind(b"C\0\0\0", max(0, len(reply) - _LONGEST_TAG), len(reply) - 6)
    if tag_at < 0 or tag_at + 1 + reply[tag_at + 4] != len(reply) - 6 or reply[tag_at + 5 : tag_at + 12] != b"SELECT ":
        return False
    return reply[tag_at + 12 : -7].isdigit()


class Filling:
    """One fill under way, with the flight of those who wait for it."""

    __slots__ = (
        "_cache",
        "_epoch",
        "_identity",
        "_kind",
        "_noise",
        "_server",
        "expected",
        "fill",
        "flight",
        "info",
        "on_end",
        "pipe",
        "settles",
        "shape",
    )

    def __init__(
        self, cache: Cache, fill: Fill, flight: Flight | None, kind: int, identity: Identity, shape: Shape | None
    ) -> None:
        self.fill = fill
        self.flight = flight
        self.shape = shape
        self.expected: Entry | None = None
        """In shadow mode: what would have been served instead."""
        self.on_end: Callable[[], None] | None = None
        """Called once, when there is an entry or there will be none."""
        self.info: object = None
        """To be found with the entry."""
        self.settles: Named | None = None
        """A prepared statement that means what its client was told, if the origin runs it now without a word."""
        self.pipe: Pipe | None = None
        self._epoch = 0
        self._cache = cache
        self._kind = kind
        self._identity = identity
        self._server: ServerConnection | None = None
        self._noise = 0

    def start(self, server: ServerConnection) -> None:
        """The request is about to be written to *server*, which nothing else is asked of."""
        if server.baseline != self._identity.baseline or server.session.view.get(_STANDBY) == b"on":
            # It began with other defaults than those the identity stands for (caching-rules §2), or is a standby among several hosts,
            # which may not have applied what was committed (rule 20): its answer is the client's alone.
            self.fail()
            return
        self.fill.send(self._cache.now())
        self._server = server
        self._noise = server.session.noise
        if self.pipe is not None:
            self._epoch = self.pipe.epoch
        server.filling = self

    def feed(self, out: bytes) -> None:
        """*out* was forwarded to the client."""
        self.fill.feed(out)

    def finish(self) -> None:
        """The reply is complete, and the session idle."""
        server, self._server = self._server, None
        assert server is not None
        server.filling = None
        cache, fill = self._cache, self.fill
        if self.settles is not None and server.session.noise == self._noise:
            self.settles.epoch = self._epoch
        reply = fill.take()
        if reply is None:
            self.fail()
            return
        is_limited = fill.key[:1].islower()
        body = body_of(reply, self._kind, is_limited=is_limited) if server.session.noise == self._noise else None
        if body is None:
            cache.metrics.not_stored_reply += 1
            self.fail()
            return
        if self.expected is not None and self._stands(self.expected, body):
            self.fail()
            return
        if not fill.may_store():
            self.fail()
            return
        entry = fill.entry(body, cache.now(), cache.chance())
        entry.shape, entry.info = self.shape, self.info
        if self.shape is not None:
            self.shape.seconds += entry.cost_seconds
        cache.keep_below(fill, entry)
        self._land(entry)

    def adopt(self, entry: Entry) -> None:
        """The origin need not be asked: *entry*, made for this fill, is somebody else's answer."""
        entry.shape, entry.info = self.shape, self.info
        self.fill.let_go()
        self._land(entry)

    def _land(self, entry: Entry) -> None:
        self._cache.store.put(entry)
        self._end()
        flight, self.flight = self.flight, None
        if flight is not None:
            flight.land(entry)

    def _end(self) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()

    def _stands(self, expected: Entry, body: bytes) -> bool:
        """Shadow mode: what would have been served, beside what the origin says, byte by byte; and whether it stays stored.

        It does while it is fresh, right or not: served, it would have been as old. A stale one would have been asked for again.
        """
        if self.shape is None or not expected.is_valid():
            return False
        reads, now = self._cache.reads, self._cache.now()
        seconds = now - self.fill.sent_at
        self.shape.would_be_hits += 1
        self.shape.saved_seconds += seconds
        self.shape.seconds += seconds
        reads.shadow_hits += 1
        reads.shadow_saved_seconds += seconds
        if expected.body != body:
            self.shape.would_be_stale += 1
            reads.shadow_stale += 1
        return now < expected.fresh_until

    def fail(self) -> None:
        """There will be nothing to store or to share. A second call does nothing."""
        server, self._server = self._server, None
        if server is not None and server.filling is self:
            server.filling = None
        self.fill.let_go()
        self._end()
        flight, self.flight = self.flight, None
        if flight is not None:
            flight.fail()
