"""The cache's side of one pool: who its sessions are, as its servers tell, and what is asked again behind them.

Knows labels, identities and servers; what is stored and what may be is in ``cache`` and ``database``. Knows no client.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from hyperdrive.cache.entry import Entry
from hyperdrive.cache.tags import Space
from hyperdrive.errors import HyperdriveError
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import DATA_ROW, ERROR_RESPONSE, QUERY, split
from hyperdrive.pool.acquire import acquire
from hyperdrive.pool.interfaces import CloseReason, Phase
from hyperdrive.proxy.identity import ASK, Identity, customs_of, effective, identify
from hyperdrive.proxy.refresh import Refresh
from hyperdrive.session.server import IDLE
from hyperdrive.session.settings import UNKNOWN, Label, transition
from hyperdrive.sql.rules import Refused
from hyperdrive.sql.text import strip_comments
from hyperdrive.tasks import spawn

if TYPE_CHECKING:
    from hyperdrive.proxy.cache import Cache
    from hyperdrive.proxy.context import PoolContext
    from hyperdrive.proxy.database import Database
    from hyperdrive.proxy.fills import Filling
    from hyperdrive.proxy.server import ServerConnection
    from hyperdrive.session.client import ClientSession

log = logging.getLogger("hyperdrive.cache")

RECONNECT_SECONDS: Final = 60.0
"""Servers are replaced at most so often because their defaults differ: an origin of several hosts may never agree with itself."""
IDENTITIES: Final = 1000
"""Labels remembered per pool."""
NEWER_SECONDS: Final = 1.0
"""By so much an answer of the second level must be newer to take the place of one's own: that one may have been the same."""


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
        if not before or before == baseline:
            return
        self.context.defaults = None
        now = self.cache.now()
        if now >= self._reconnect_at:
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
