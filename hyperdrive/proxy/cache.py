"""The cache of one process: its store, the databases it knows, and who the sessions of each pool are to it.

``Cache`` has the store and the switch; a ``Database`` has the domain, the catalog and the verdicts of one database of the origin, for
all its users; a ``PoolCache`` belongs to one pool and knows the identity behind each label. Whoever serves is in ``reads``, whoever
fills in ``fills``, and what writes do is in ``writes``. Knows no client.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from math import inf
from random import random
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from hyperdrive.cache.entry import Entry, Shape
from hyperdrive.cache.fill import Fill
from hyperdrive.cache.metrics import CacheMetrics
from hyperdrive.cache.policy import Override, Policies, Policy
from hyperdrive.cache.second import SecondLevel, Shelf
from hyperdrive.cache.store import Store
from hyperdrive.cache.tags import Domain, Space
from hyperdrive.errors import HyperdriveError
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import DATA_ROW, ERROR_RESPONSE, QUERY, split
from hyperdrive.pool.acquire import acquire
from hyperdrive.pool.interfaces import CloseReason, Phase, PoolKey
from hyperdrive.proxy.identity import ASK, Identity, customs_of, effective, identify
from hyperdrive.proxy.metrics import ReadMetrics
from hyperdrive.proxy.refresh import Refresh
from hyperdrive.session.server import IDLE
from hyperdrive.session.settings import UNKNOWN, Label, transition
from hyperdrive.sql.introspection import is_introspection, may_be_introspection, names_called
from hyperdrive.sql.parse import classify
from hyperdrive.sql.readers import ReadVerdicts, WriteVerdicts
from hyperdrive.sql.rules import Refused, Rule
from hyperdrive.sql.text import strip_comments
from hyperdrive.sql.writes import Writes
from hyperdrive.tasks import spawn

if TYPE_CHECKING:
    from hyperdrive.proxy.context import PoolContext
    from hyperdrive.proxy.fills import Filling
    from hyperdrive.proxy.server import ServerConnection
    from hyperdrive.session.client import ClientSession
    from hyperdrive.sql.catalog import Catalog
    from hyperdrive.sql.resolve import Cacheable

log = logging.getLogger("hyperdrive.cache")

RECONNECT_SECONDS: Final = 60.0
"""Servers are replaced at most so often because their defaults differ: an origin of several hosts may never agree with itself."""
SHAPES: Final = 2000
"""Shapes of statements that are counted apart, per database; the oldest makes room."""
KNOWN: Final = 2000
"""Texts of which is remembered whether only the schema can change their answer, per database."""
NEWER_SECONDS: Final = 1.0
"""By so much an answer of the second level must be newer to take the place of one's own: that one may have been the same."""
IDENTITIES: Final = 1000
"""Labels remembered per pool."""


class Mode(Enum):
    """``cache``: what the cache does at all."""

    ON = "on"
    OFF = "off"
    SHADOW = "shadow"
    """Everything but serve: answers are stored, compared with what the origin says, and counted."""


class InTransactions(Enum):
    """``cache_in_transactions`` (caching-rules §13)."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How the cache of a process behaves."""

    mode: Mode = Mode.OFF
    size_bytes: int = 256 << 20
    entry_bytes: int = 4 << 20
    policy: Policy = field(default_factory=Policy)
    tables: tuple[tuple[str, Override], ...] = ()
    in_transactions: InTransactions = InTransactions.AUTO
    refreshes: int = 8
    """Refreshes behind clients that may be under way at a time, per pool."""
    flight_seconds: float = 10.0
    """How long a client waits for another's answer before it asks for itself."""
    uses: Callable[[PoolKey], bool] = lambda key: True
    """Whether the cache has a part in what that user asks in that database."""
    knows: bool = False
    """Whether catalogs are kept even without the cache: for proofs, and for answers that only the schema can change."""


class Heard:
    """A change that others have to hear of before anyone is told that it is done."""

    __slots__ = ()

    def when_heard(self, then: Callable[[], None]) -> None:
        """Have *then* called when they have; at once, if they have already."""
        then()


class Database:
    """One database of the origin, as the cache sees it. Its epoch is the domain's."""

    __slots__ = (
        "_announce",
        "_changed",
        "_doubted",
        "_epoch_ended",
        "_known",
        "_reads",
        "_writes",
        "catalog",
        "domain",
        "name",
        "origin",
        "policies",
        "shapes",
        "shelf",
        "why_unknown",
    )

    def __init__(
        self,
        name: str,
        metrics: CacheMetrics,
        policies: Policies,
        announce: Announce,
        epoch_ended: Callable[[str], None],
    ) -> None:
        self.name = name
        self._announce = announce
        self._epoch_ended = epoch_ended
        self.domain = Domain(name, metrics)
        self.policies = policies
        self.catalog: Catalog | None = None
        self.origin = b""
        """Fields 1 and 2 of the key: system identifier, timeline, database."""
        self.why_unknown = "the catalog is not loaded yet"
        self._reads = ReadVerdicts()
        self._writes = WriteVerdicts()
        self._known: LRUCache[bytes, frozenset[str] | None] = LRUCache(KNOWN)
        """Texts that only the schema can change, with the names of functions in them; ``None``: others."""
        self.shapes: dict[int, Shape] = {}
        self.shelf: Shelf | None = None
        """Its part in the second level, if there is one."""
        self._changed: Callable[[], None] = lambda: None
        self._doubted: Callable[[], None] = lambda: None

    # --- the catalog ----------------------------------------------------------------------------------------------------------

    def learn(self, catalog: Catalog | None) -> None:
        """*catalog* holds from now on, for the present epoch; ``None``: nothing is known, and what was stored is dropped."""
        if catalog is None:
            self.forget("the catalog is not known" if self.catalog is not None else self.why_unknown)
            return
        identity = catalog.identity
        if identity.in_recovery:
            self.forget("the origin is in recovery")
            return
        self.origin = b"%d,%d,%d" % (identity.system_identifier, identity.timeline, identity.database)
        self.catalog = catalog
        if self.shelf is not None:
            # Whoever sees another catalog may mean something else by the same question: rights, views, functions.
            self.shelf.label(self.origin, catalog.fingerprint.encode())
        self._reads.use(catalog)
        self._writes.use(catalog)

    def forget(self, why: str) -> None:
        """Nothing is known of the database any more, and what was stored is dropped."""
        self.why_unknown = why
        if self.catalog is not None:
            self._end_epoch()

    def _end_epoch(self) -> None:
        self.catalog = None
        self._reads.use(None)
        self._writes.use(None)
        self.domain.end_epoch()
        self._epoch_ended(self.name)

    def watch(self, changed: Callable[[], None], doubted: Callable[[], None]) -> None:
        """Have *changed* called when the epoch ends, so that the catalog is loaded anew, and *doubted* when it may have."""
        self._changed = changed
        self._doubted = doubted

    def judge(self, text: bytes, identity: Identity, types: tuple[int, ...]) -> Cacheable | Refused:
        """The verdict of *text*, which has no comments, for whoever has that identity."""
        catalog = self.catalog
        if catalog is None:
            return Refused(Rule.ORIGIN_UNKNOWN, self.why_unknown)
        return self._reads.read(text, identity.path, types)

    def is_known(self, text: bytes) -> bool:
        """Whether only the schema can change what *text*, which has no comments, answers (E-8)."""
        if not may_be_introspection(text):
            return False
        if text in self._known:
            names = self._known[text]
        else:
            names = self._known[text] = names_called(text) if is_introspection(text, classify(text)) else None
        # A function of a user's, called like one of PostgreSQL's or like a column, may do anything.
        return names is not None and (self.catalog is None or self.catalog.impure_names.isdisjoint(names))

    def are_pure(self, functions: Sequence[bytes]) -> bool:
        """Whether functions of these names, with a schema or without, are IMMUTABLE, whichever is meant."""
        if self.catalog is None:
            return False
        for name in functions:
            meant = self.catalog.functions.get(name.decode(errors="replace").rpartition(".")[2], ())
            if not meant or any(function.volatility != "i" for function in meant):
                return False
        return True

    def written(self, text: bytes, path: tuple[int, ...] | None) -> Writes:
        """What *text* may change, run under *path*; ``None``: nobody knows under which."""
        return self._writes.targets(text, path)

    def shape_of(self, verdict: Cacheable | Refused, text: bytes) -> Shape:
        """What is counted of statements with that *verdict*, which those of one shape share; *text* is one of them."""
        found = self.shapes.get(id(verdict))
        if found is None:
            if len(self.shapes) >= SHAPES:
                del self.shapes[next(iter(self.shapes))]
            found = self.shapes[id(verdict)] = Shape(text)
            found.note = verdict  # and while it is here nobody else has its id
        return found

    # --- changes --------------------------------------------------------------------------------------------------------------

    def touch(self, tags: frozenset[int] | None, *, ends_epoch: bool = False, is_ours: bool = True) -> Heard | None:
        """*tags* have changed, ``None`` is anything; *is_ours*: by a write through this process, so that the others must hear of it.

        Returns what to wait for before anyone is told, if there is somebody else who must hear.
        """
        if ends_epoch:
            self.why_unknown = "the catalog is loaded anew after a change"
            self._end_epoch()
            self._changed()
        elif tags is None:
            self.domain.touch_all()
            self._doubted()  # the schema, for all we know
        elif tags:
            self.domain.touch(tags)
        else:
            return None
        return self._announce(self, tags, ends_epoch) if is_ours else None


Announce = Callable[["Database | None", "frozenset[int] | None", bool], "Heard | None"]
"""Told of a change: of which database (``None``: of all), of what (``None``: unknown), and whether the epoch ends."""


class Cache:
    """The cache of one process."""

    def __init__(self, settings: CacheSettings, now: Callable[[], float]) -> None:
        self.settings = settings
        self.now = now
        self.process = secrets.token_hex(8).encode()
        """Tells it from every other, in tokens."""
        self.chance: Callable[[], float] = random
        """Uniform in [0, 1): for jitter and early refreshes."""
        self.metrics = CacheMetrics()
        self.reads = ReadMetrics()
        self.store = Store(settings.size_bytes, settings.entry_bytes, self.metrics, now)
        self.second: SecondLevel | None = None
        """Shared with other processes; to be given before any database is asked for."""
        self.databases: dict[str, Database] = {}
        self.wanted: Callable[[Database], None] = lambda database: None
        """Told of each database that is asked for the first time: its catalog has to be loaded."""
        self.on_touch: Announce = lambda database, tags, ends_epoch: None
        """Told of every change made through this process."""
        self.on_epoch: Callable[[str], None] = lambda database: None
        """Told of each database whose catalog has changed, by whoever it was changed."""
        self.suspended: set[int] = set()
        """Workers whose writes we may not hear of: until we do again nothing is served."""
        self.vouched_until = inf
        """Until when all that others have written is known to have been heard of: from then on nothing is served."""
        self._policies = Policies(settings.policy, settings.tables)

    @property
    def is_on(self) -> bool:
        """It takes part at all."""
        return self.settings.mode is not Mode.OFF

    @property
    def keeps_catalogs(self) -> bool:
        """What the catalogs say is wanted, if only for proofs."""
        return self.is_on or self.settings.knows

    def database(self, name: str) -> Database:
        """What is known of the database *name* of the origin."""
        found = self.databases.get(name)
        if found is None:
            found = self.databases[name] = Database(
                name,
                self.metrics,
                self._policies,
                lambda *change: self.on_touch(*change),
                lambda ended: self.on_epoch(ended),
            )
            if self.second is not None:
                found.shelf = self.second.shelf(found.domain)
            if self.keeps_catalogs:
                self.wanted(found)
        return found

    def end_epochs(self, *, is_ours: bool = True) -> Heard | None:
        """Something changed that all databases have in common, such as a role. Returns what ``Database.touch`` does."""
        for database in list(self.databases.values()):
            database.touch(None, ends_epoch=True, is_ours=False)
        return self.on_touch(None, None, True) if is_ours else None

    def change(self, settings: CacheSettings) -> None:
        """RELOAD, or the kill switch: entries were dated by the old policies, so a change of those drops them."""
        before, self.settings = self.settings, settings
        if self.second is not None and not self.is_on:
            self.second.forget()  # writes are not noted any more
        self.store.resize(settings.size_bytes, settings.entry_bytes)
        if (before.policy, before.tables, before.mode) != (settings.policy, settings.tables, settings.mode):
            self._policies = Policies(settings.policy, settings.tables)
            for database in self.databases.values():
                database.policies = self._policies
                database.domain.touch_all()
            self.store.purge(lambda entry: True)
        if self.keeps_catalogs and before.mode is Mode.OFF and not before.knows:
            for database in self.databases.values():
                self.wanted(database)

    def keep_below(self, fill: Fill, entry: Entry) -> None:
        """*entry*, which *fill* has brought, is for others as well, if it noted what that takes."""
        if fill.shared is not None and fill.space.domain.below is not None:
            shelf = self.databases[fill.space.domain.name].shelf
            if shelf is not None:
                shelf.keep(fill, entry)

    # --- purge ----------------------------------------------------------------------------------------------------------------

    def purge(self, wanted: Callable[[Entry], bool]) -> int:
        """Drop each entry that is *wanted*, and store nothing that is under way; returns how many were dropped."""
        for database in self.databases.values():
            database.domain.doom()
        return self.store.purge(wanted)


def batch_of(key: bytes) -> bytes:
    """The whole batch that asks for what is under *key*, with unnamed statement and portal."""
    if key[0] == QUERY:
        return key
    end = key.index(b"\0", 1) + 1
    end += 2 + 4 * int.from_bytes(key[end : end + 2], "big")
    parse = messages.message(b"P", b"\0" + key[1:end])
    bound_end, limit = (len(key) - 4, key[-4:]) if key[:1].islower() else (len(key), bytes(4))
    described = messages.describe(b"P") if key[:1] in b"Dd" else b""
    execute = messages.message(b"E", b"\0" + limit)
    return parse + messages.message(b"B", b"\0\0" + key[end:bound_end]) + described + execute + messages.SYNC


class PoolCache:
    """The cache's side of one pool: who its sessions are."""

    __slots__ = (
        "_asking",
        "_identities",
        "_reconnect_at",
        "baseline",
        "cache",
        "caches_reads",
        "context",
        "database",
        "refreshing",
    )

    def __init__(self, cache: Cache, database: Database, context: PoolContext) -> None:
        self.cache = cache
        self.database = database
        self.context = context
        self.baseline = ""
        """Of the server that logged in last: the defaults that hold now."""
        self.caches_reads = cache.is_on and cache.settings.uses(context.pool.key)
        """Whether the users' own reads are cached; what only the schema can change is known all the same."""
        self.refreshing = 0
        self._identities: LRUCache[Label, Identity] = LRUCache(IDENTITIES)
        self._asking: set[Label] = set()
        self._reconnect_at = 0.0

    def maybe_identity(self, wanted: Label) -> Identity | None:
        """Who a session with that label is; ``None``: it is not known yet, and a server is being asked."""
        plain = effective(wanted)
        found = self._identities.get(plain)
        if found is not None and found.epoch == self.database.domain.epoch and found.baseline == self.baseline:
            return found
        if plain not in self._asking and self.database.catalog is not None:
            self._asking.add(plain)
            spawn(self._ask(plain), name=f"identity in {self.context.pool.key}")
        return None

    def known(self, wanted: Label) -> Identity | None:
        """The same from memory alone."""
        found = self._identities.get(effective(wanted))
        if found is not None and found.epoch == self.database.domain.epoch:
            return found
        return None

    def proves(self, texts: Sequence[bytes], wanted: Label) -> bool:
        """Whether these SELECTs of a session with that label provably write nothing and call nothing volatile (E-5)."""
        identity = self.maybe_identity(wanted)
        return identity is not None and not identity.refused and all(self._reads_only(text, identity) for text in texts)

    def _reads_only(self, text: bytes, identity: Identity) -> bool:
        try:
            clean = strip_comments(text)
        except ValueError:
            return False
        return not isinstance(self.database.judge(clean, identity, ()), Refused) or self.database.is_known(clean)

    def refresh(self, session: ClientSession, key: bytes, filling: Filling) -> None:
        """Ask again for what is under *key*, with the identity of *session*."""
        self.refreshing += 1
        filling.on_end = self._refreshed
        refresh = Refresh(self.context, session.journal.wanted, session.told, batch_of(key), filling)
        shelf = self.database.shelf
        if shelf is None or not shelf.can_ask:
            refresh.start()
        else:
            shelf.probe(filling.fill, partial(self._looked_below, refresh, filling))

    def _looked_below(self, refresh: Refresh, filling: Filling, entry: Entry | None) -> None:
        """Somebody may have asked again already."""
        fill = filling.fill
        present = fill.space.entries.get(fill.key)
        if entry is None or (present is not None and entry.sent_at < present.sent_at + NEWER_SECONDS):
            refresh.start()
        else:
            filling.adopt(entry)

    def _refreshed(self) -> None:
        self.refreshing -= 1

    def space(self, identity: Identity) -> Space:
        """Where its entries are."""
        return self.database.domain.space(identity.key)

    def logged_in(self, server: ServerConnection, row: bytes) -> None:
        """A new server told its defaults."""
        try:
            server.customs = customs_of(row)
            found = identify(row, server.session.label, b"", 0, server.session.view, server.customs)
        except (ValueError, KeyError) as error:
            # Not quite a PostgreSQL: it is served, and nothing of it is cached, as nobody can be identified there.
            log.warning("! %s: cannot tell the defaults of settings: %s", self.context.pool.key, error)
            return
        self._compare(server, found.baseline)

    async def _ask(self, wanted: Label) -> None:
        try:
            epoch = self.database.domain.epoch
            server = await acquire(self.context.pool)
            try:
                identity = await self._ask_server(server, wanted, epoch)
            except BaseException:
                server.discard(CloseReason.OTHER)
                raise
            self.context.pool.release(server)
            if epoch == self.database.domain.epoch:
                self._identities[wanted] = identity
        except (HyperdriveError, ValueError, KeyError) as error:
            # That a pool which ends answers nothing is no news.
            level = logging.WARNING if self.context.pool.phase is Phase.RUNNING else logging.DEBUG
            log.log(level, "! %s: cannot tell who a session is: %s", self.context.pool.key, error)
        finally:
            self._asking.discard(wanted)

    async def _ask_server(self, server: ServerConnection, wanted: Label, epoch: int) -> Identity:
        state = server.session
        sql = transition(state.label, wanted)
        if sql:
            state.label = UNKNOWN
            reply = await server.ask(sql)
            if any(message[0] == ERROR_RESPONSE for message in split(reply)[0]):
                return Identity(epoch=epoch, baseline=self.baseline, refused="settings that a server refused")
        state.label = wanted
        row = row_of(await server.ask(ASK))
        if row is None or state.status != IDLE:
            return Identity(epoch=epoch, baseline=self.baseline, refused="settings that a server does not tell")
        identity = identify(row, wanted, self.database.origin, epoch, state.view, server.customs)
        self._compare(server, identity.baseline)
        return identity

    def _compare(self, server: ServerConnection, baseline: str) -> None:
        """*server* has told its defaults. If those of now are others, answers of older servers are worth nothing to anybody."""
        server.baseline = baseline
        before, self.baseline = self.baseline, baseline
        now = self.cache.now()
        if before and before != baseline and now >= self._reconnect_at:
            log.info("= %s: defaults of settings have changed", self.context.pool.key)
            self._reconnect_at = now + RECONNECT_SECONDS
            self.context.pool.reconnect()


def row_of(reply: bytes) -> bytes | None:
    """The one value of the last row of a captured reply; ``None`` if there is an error or no row."""
    found: bytes | None = None
    for message in split(reply)[0]:
        if message[0] == ERROR_RESPONSE:
            return None
        if message[0] == DATA_ROW:
            found = message[11:]
    return found
