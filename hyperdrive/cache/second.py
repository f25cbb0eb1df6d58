"""The second level: answers that several processes share, below the cache of each (caching-rules §14).

It lies in a store of bytes by name that anybody may lose at any moment: whatever is missing, slow or broken there is a miss. What makes
an answer found there as good as one's own is its *generations*. Each tag of a domain has one in the store, sixteen random bytes. An
answer carries those that its tags had before it was asked for; an event gives its tags new ones; and an answer whose generations are
not the present ones does not exist. Since they are drawn and not counted, one that the store has forgotten never comes back.

What is asked of the store is carried out in the order in which it was asked, so nothing is waited for: a question asked behind an event
finds the event's generations. When that order breaks, with the connection, every generation of the process's domains is renewed before
the first question on the next one. Names begin with the store's own incarnation, so one that was restored or replaced begins empty.

Knows domains, fills and a port; knows no socket, no SQL, and nothing of what the names of domains mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Final, Protocol

from hyperdrive.cache.entry import Entry
from hyperdrive.cache.fill import Fill
from hyperdrive.cache.metrics import SecondMetrics
from hyperdrive.cache.shared import Shared, name_of, read_value, write_value
from hyperdrive.cache.tags import CATALOG, Domain

GENERATION_SECONDS: Final = 86400.0
"""How long the store has to remember the generation of a tag: one that it forgets costs a miss."""
MARK_SECONDS: Final = 60.0
"""How long a process may be away after it was closed in order and find its answers again."""
MOST_MADE: Final = 100_000
"""Tags of which is remembered that the store has a generation."""


class Reply(Protocol):
    """An answer of the store."""

    @property
    def values(self) -> Sequence[bytes | None]:
        """What it has under the names that were asked for, in their order."""

    @property
    def now(self) -> float:
        """The time on its own clock, after that."""


Found = Callable[[Reply | None], None]


class Port(Protocol):
    """A store of bytes by name. Calls return at once, and are carried out in the order they were made, until ``incarnation`` changes."""

    @property
    def incarnation(self) -> bytes:
        """Which one it is; empty while it cannot be reached. A store that has lost or restored its content is another."""

    def fetch(self, names: Sequence[bytes], made: Mapping[bytes, bytes], found: Found) -> None:
        """Ask for *names*; of those in *made* that are not there, make them first, for ``GENERATION_SECONDS``.

        *found* is called once, later: with ``None`` if there is no answer in time.
        """

    def store(self, values: Mapping[bytes, bytes], seconds: float) -> None:
        """Keep *values* for so long; nobody waits for it."""

    def has_room(self, size: int) -> bool:
        """Whether so many bytes may be given to it now."""


class SecondLevel:
    """One process's part in it. *mark* names the process beyond its end; empty: it has no such name."""

    def __init__(self, port: Port, metrics: SecondMetrics, now: Callable[[], float], *, mark: bytes = b"") -> None:
        self.port = port
        self.metrics = metrics
        self.now = now
        self.chance: Callable[[], float] = lambda: 0.0
        self._mark = mark
        self._shelves: list[Shelf] = []
        self._is_ready = False
        self.is_trusted = False
        """What lay there before the present connection holds: this process, under its earlier number, was closed in order."""
        self._was_up = False

    def shelf(self, domain: Domain) -> Shelf:
        """The part of *domain*, which tells its events from now on."""
        shelf = Shelf(self, domain)
        self._shelves.append(shelf)
        domain.below = shelf
        return shelf

    @property
    def is_ready(self) -> bool:
        """It can be asked."""
        return self._is_ready

    # --- the connection -------------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """The port can be reached, and nothing that was asked earlier will be carried out any more."""
        self._is_ready = self.is_trusted = False
        for shelf in self._shelves:
            shelf.begin()
        if self._was_up or not self._mark:
            self._was_up = self._is_ready = True
            return
        name = self._mark_name()
        self.port.fetch([name], {}, self._marked)
        self.port.store({name: b"running"}, GENERATION_SECONDS)

    def _marked(self, reply: Reply | None) -> None:
        if reply is None:
            return  # the connection goes, or is about to
        self.is_trusted = reply.values[0] == b"closed"
        self._was_up = self._is_ready = True

    def down(self) -> None:
        """It cannot be reached, or not be relied on."""
        self._is_ready = False
        self.metrics.losses += 1

    def forget(self) -> None:
        """From now on changes may happen unheard: nobody who comes later may rely on what lies there now."""
        self._mark = b""

    def close(self) -> None:
        """The process ends, and everything it changed has been told: the next one of its name may rely on what lies there."""
        is_settled = all(not shelf.domain.holds for shelf in self._shelves)
        if self._mark and self._is_ready and is_settled:
            self.port.store({self._mark_name(): b"closed"}, MARK_SECONDS)

    def _mark_name(self) -> bytes:
        return b"hyperdrive:1:%s:mark:%s" % (self.port.incarnation, self._mark)


class Shelf:
    """One domain's part: answers and generations. Until ``label`` has named the domain, nothing is asked for."""

    __slots__ = ("_catalog", "_is_open", "_made", "_origin", "_owes_all", "_second", "domain")

    def __init__(self, second: SecondLevel, domain: Domain) -> None:
        self._second = second
        self.domain = domain
        self._origin = b""
        self._catalog = b""
        self._made: set[bytes] = set()
        self._is_open = False
        """On this connection everything it has to tell has been told."""
        self._owes_all = False
        """Something has changed while it could not be told."""

    def label(self, origin: bytes, catalog: bytes) -> None:
        """The domain is *origin* to whoever shares it; *catalog* stands for what makes its answers mean the same."""
        if origin != self._origin:
            self.begin()
        self._origin, self._catalog = origin, catalog

    def begin(self) -> None:
        """A new connection, or another origin: nothing is known of what lies there."""
        self._is_open = False
        self._made.clear()

    @property
    def can_ask(self) -> bool:
        """Whether asking may find something."""
        return self._second.is_ready and bool(self._origin)

    # --- events -----------------------------------------------------------------------------------------------------------------

    def raised(self, names: Iterable[Hashable] | None) -> None:
        """Answers with these tags are gone, with ``None`` all. Called by the domain, with every event of its own."""
        if not self.can_ask:
            self._owes_all = True
            return
        self._open()
        tags = [CATALOG] if names is None else [name for name in names if name_of(name)]
        if tags:
            self._second.port.store({self._generation(tag): _drawn() for tag in tags}, GENERATION_SECONDS)

    def _open(self) -> None:
        """Before anything else on this connection: what may have changed unheard has changed."""
        if self._is_open:
            return
        self._is_open = True
        if self._owes_all or not self._second.is_trusted:
            self._owes_all = False
            self._second.port.store({self._generation(CATALOG): _drawn()}, GENERATION_SECONDS)

    # --- answers ----------------------------------------------------------------------------------------------------------------

    def probe(self, fill: Fill, then: Callable[[Entry | None], None]) -> None:
        """Look for what *fill* is about to ask the origin for; *then* hears, later, of an entry that holds, or of none.

        If there is none the fill has noted the generations that its own answer will carry.
        """
        self._open()
        names = sorted({name for tag in fill.tags if (name := name_of(tag.name))})
        shared = Shared(self._key(fill), tuple(names))
        wanted = [self._prefix(b"g") + name for name in names]
        new = [name for name in wanted if name not in self._made]
        if len(self._made) > MOST_MADE:
            self._made.clear()
        self._made.update(new)
        self._second.metrics.asked += 1
        self._second.port.fetch(
            [self._entry_name(shared), *wanted],
            {name: _drawn() for name in new},
            partial(self._found, fill, shared, self._second.now(), then),
        )

    def _found(
        self, fill: Fill, shared: Shared, asked_at: float, then: Callable[[Entry | None], None], reply: Reply | None
    ) -> None:
        if reply is None:
            self._second.metrics.late += 1
            then(None)
            return
        value, *generations = reply.values
        if None in generations:
            self._made.clear()  # it forgets: make them again, next time
        else:
            shared.generations = tuple(one for one in generations if one is not None)
            shared.noted_at = reply.now
            fill.shared = shared
        then(self._entry(fill, shared, value, asked_at, reply.now) if value is not None and fill.shared else None)

    def _entry(self, fill: Fill, shared: Shared, value: bytes, asked_at: float, now: float) -> Entry | None:
        found = read_value(value, shared)
        if found is None:
            self._second.metrics.unfit += 1
            return None
        # Counted from before the question: at most older than it is.
        sent_at = asked_at - (now - found.noted_at)
        if sent_at > asked_at or fill.is_doomed():
            return None
        entry = fill.adopt(found.body, sent_at, found.cost_seconds, self._second.chance())
        if self._second.now() >= entry.fresh_until:
            return None
        self._second.metrics.found += 1
        return entry

    def keep(self, fill: Fill, entry: Entry) -> None:
        """*entry*, which *fill* has brought, is for everybody."""
        shared, second = fill.shared, self._second
        if shared is None or not self.can_ask or not self._is_open or not entry.is_valid():
            return
        seconds = entry.fresh_until - second.now()
        if seconds <= 0 or not second.port.has_room(entry.size_bytes):
            return
        second.metrics.kept += 1
        value = write_value(shared, entry.cost_seconds, entry.body)
        second.port.store({self._entry_name(shared): value}, seconds)

    # --- names ------------------------------------------------------------------------------------------------------------------

    def _key(self, fill: Fill) -> bytes:
        """All that makes the answer what it is, each behind its length; compared whole, as in the cache itself."""
        parts = (self._origin, self._catalog, fill.space.identity, fill.key)
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    def _prefix(self, kind: bytes) -> bytes:
        # The braces keep what is asked for together in one place where a store is divided.
        return b"hyperdrive:1:{%s:%s}:%s:" % (self._second.port.incarnation, self._origin, kind)

    def _generation(self, tag: Hashable) -> bytes:
        return self._prefix(b"g") + name_of(tag)

    def _entry_name(self, shared: Shared) -> bytes:
        return self._prefix(b"e") + blake2b(shared.key, digest_size=16).hexdigest().encode()


def _drawn() -> bytes:
    """A generation that never was."""
    return os.urandom(16)
