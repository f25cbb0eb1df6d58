"""Serving what is stored, and asking for it: an entry is written if it may be, refreshed behind the client, or filled by what the origin
will say (rules 17 to 19, caching-rules §14).

Knows entries and fills; how a client waits for another's answer is ``waiting``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperdrive.cache.fill import open_fill
from hyperdrive.cache.flight import Flight
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import PARSE, QUERY
from hyperdrive.proxy.asked import Read, is_select, read_of
from hyperdrive.proxy.fills import Filling
from hyperdrive.proxy.who import Who
from hyperdrive.sql.rules import Refused, Rule

if TYPE_CHECKING:
    from hyperdrive.cache.entry import Entry
    from hyperdrive.cache.policy import Policy
    from hyperdrive.proxy.client import ClientConnection
    from hyperdrive.proxy.pool_cache import PoolCache
    from hyperdrive.session.client import ClientSession
    from hyperdrive.sql.hints import Hints
    from hyperdrive.sql.resolve import Cacheable


class Serving(Who):
    """The part of a reader that serves and asks."""

    __slots__ = ("_client", "_store", "last_write_no")

    def __init__(self, client: ClientConnection, pool: PoolCache) -> None:
        super().__init__(pool)
        self._client = client
        self._store = pool.cache.store
        self.last_write_no = 0
        """Fills with this number or a smaller one may not have seen what the session wrote."""

    def _serves(self, session: ClientSession, read: Read, entry: Entry, fresh_until: float, stale_until: float) -> bool:
        """Serve *entry* if it may be served now."""
        if not entry.is_valid():
            self._store.drop(entry)
            self.last_rule = Rule.INVALIDATED
            return False
        if entry.fill_no <= self.last_write_no or entry.sent_at <= self._floor.since:
            self.last_rule = Rule.OWN_WRITE
            return False
        now = self._now()
        most = self._controls.max_staleness
        if most is not None and now - entry.sent_at > most:
            self.last_rule = Rule.EXPIRED
            return False
        if now < fresh_until:
            if now >= entry.early_from and entry.wants_refresh(now, 1.0 - self._pool.cache.chance()):
                self._refresh(session, read, entry)
            self._store.hits += 1
            self._serve(session, read.kind, entry, "hit", now)
        elif now < stale_until:
            self._refresh(session, read, entry)
            self._pool.cache.reads.queries_stale += 1
            self._serve(session, read.kind, entry, "stale", now)
        elif now < entry.error_until and self._pool.context.pool.is_down:
            self._pool.cache.reads.stale_if_error += 1
            self._serve(session, read.kind, entry, "stale", now)
        else:
            self.last_rule = Rule.EXPIRED
            return False
        return True

    def _serve(self, session: ClientSession, kind: int, entry: Entry, how: str, now: float) -> None:
        entry.hits += 1
        self.last_kind, self.last_entry, self.last_at, self.last_rule = how, entry, now, None
        body = entry.body
        if session.held is not None:
            session.held.saw_read()
        if session.block is not None:
            body = body[:-1] + b"T"
        if kind == PARSE:
            _, session.unnamed, session.unnamed_verdict = session.ops[0]
            body = messages.PARSE_COMPLETE + body
        elif kind == QUERY:
            session.unnamed = None
        session.drop_whole()
        self._client.write(body)

    def _add_tags(self, entry: Entry, hints: Hints | None) -> None:
        """A tag of a hint is the entry's from now on, or a purge by that tag would miss it (caching-rules §2)."""
        if hints is not None and hints.tags:
            names = [user_tag(name) for name in hints.tags]
            tag = self._pool.database.domain.tag
            entry.tags += tuple(tag(name) for name in names if not entry.has(name))

    def rescue(self, session: ClientSession) -> bool:
        """The origin cannot be reached: serve what is expired, if the policy allows it (stale-if-error)."""
        session.regain_whole()
        if session.whole is None or not is_select(session.ops[0][2]) or self._settle(session) is None:
            return False
        if not self._is_vouched:
            return False
        read = read_of(session.ops[0][0], session.ops[0][1], session)
        if isinstance(read, Refused) or session.held is not None:
            return False
        entry = self._space.entries.get(read.key)
        now = self._now()
        if entry is None or not entry.is_valid() or now >= entry.error_until or entry.fill_no <= self.last_write_no:
            return False
        most = self._controls.max_staleness
        if (most is not None and now - entry.sent_at > most) or entry.sent_at <= self._floor.since:
            return False
        self._pool.cache.reads.stale_if_error += 1
        self._serve(session, read.kind, entry, "stale", now)
        return True

    def _filling(self, read: Read, found: Cacheable, policy: Policy, kind: int, *, bound: int | None = None) -> Filling:
        pool, space = self._pool, self._space
        tag = space.domain.tag
        tags = [tag(oid) for oid in found.tags]
        if read.hints is not None:
            tags += [tag(user_tag(name)) for name in read.hints.tags]
        if bound is None:
            bound = pool.cache.settings.entry_bytes
        fill = open_fill(space, read.key, tuple(tags), policy, self._now(), bound=bound)
        assert self._identity is not None
        flight = Flight(fill) if bound else None
        filling = Filling(pool.cache, fill, flight, kind, self._identity, pool.database.shape_of(found, read.text))
        filling.info = self._client.session.ops[0][2]
        if read.unsettled is not None:
            filling.settles, filling.pipe = read.unsettled, self._client.session.pipe
        return filling

    def _shadow(self, entry: Entry, hints: Hints | None) -> Entry | None:
        """*entry*, if it would be served now but for the mode. To the store it counts as used."""
        now, most = self._now(), self._controls.max_staleness
        until = entry.stale_until
        override = self._override(hints)
        if override is not None:
            policy = self._pool.cache.settings.policy.and_(override)
            until = entry.sent_at + policy.max_age + policy.stale_while_revalidate
        is_new = entry.fill_no > self.last_write_no and entry.sent_at > self._floor.since
        if not entry.is_valid() or not is_new or now >= until or (most is not None and now - entry.sent_at > most):
            return None
        self._store.saw(entry)
        return entry

    def _refresh(self, session: ClientSession, read: Read, entry: Entry) -> None:
        """Ask for *entry* again, behind the client and once, with the identity it has (caching-rules §14)."""
        pool = self._pool
        if read.key in self._space.flights or pool.refreshing >= pool.cache.settings.refreshes:
            return
        assert self._identity is not None
        found = pool.database.judge(read.text, self._identity, read.types)
        if isinstance(found, Refused):
            return  # the verdict has changed since: the entry may live to its end
        policy = pool.database.policies.of(found.names)
        override = self._override(read.hints)
        if override is not None:
            policy = policy.and_(override)
        # Made from its key the batch is complete, and names no statement that only this client has.
        pool.cache.metrics.refreshes += 1
        pool.refresh(session, read.key, self._filling(read, found, policy, QUERY if read.kind == QUERY else PARSE))


def user_tag(name: str) -> tuple[str, str]:
    """The tag of a hint, apart from relations, which are numbers."""
    return ("tag", name)
