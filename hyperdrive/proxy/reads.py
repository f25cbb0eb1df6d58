"""Reads from the cache: one client's side of it.

``answer`` is the query path: a hit is one lookup, two comparisons and one write. What is not found at once goes on to ``_look``, which
knows hints and settings, stale entries, flights to join and fills to lead; what may not be cached at all is refused with its rule
(caching-rules §4). Everything is synchronous: nothing waits here.
"""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

from hyperdrive.cache.fill import open_fill
from hyperdrive.cache.flight import Flight
from hyperdrive.cache.policy import Override, Policy
from hyperdrive.metrics import Saved
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import BIND, PARSE, QUERY
from hyperdrive.proxy.asked import Read, glanced_key, has_clock_value, is_select, read_of
from hyperdrive.proxy.cache import InTransactions, Mode
from hyperdrive.proxy.controls import NOTHING, Controls, controls_of
from hyperdrive.proxy.fills import Filling
from hyperdrive.proxy.guard import guarded
from hyperdrive.proxy.identity import agrees
from hyperdrive.proxy.tokens import Floor, token_of
from hyperdrive.session.server import IDLE
from hyperdrive.sql.introspection import may_be_introspection
from hyperdrive.sql.resolve import Cacheable
from hyperdrive.sql.rules import Refused, Rule
from hyperdrive.sql.verdict import SCREENED, Command, Isolation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperdrive.cache.entry import Entry, Shape
    from hyperdrive.cache.tags import Space
    from hyperdrive.proxy.cache import PoolCache
    from hyperdrive.proxy.client import ClientConnection
    from hyperdrive.proxy.identity import Identity
    from hyperdrive.session.client import ClientSession
    from hyperdrive.session.held import Held
    from hyperdrive.session.server import ServerSession
    from hyperdrive.session.settings import Label
    from hyperdrive.sql.hints import Hints

KNOWN: Final = Cacheable(tags=(), names=(), scan=())
"""The verdict of what only the schema can change: nothing but the end of its epoch drops it."""
KNOWN_POLICY: Final = Policy(max_age=60.0, stale_while_revalidate=0.0, stale_if_error=0.0)
"""As long as that, should a change that nobody sees not end the epoch."""

_PLAIN_SELECT: Final = SCREENED[Command.SELECT]


def level_of(held: Held, identity: Identity) -> bytes:
    """The isolation level of a transaction that is held back."""
    return held.isolation.value if held.isolation is not None else identity.isolation


class Reader:
    """What the cache does for one client. It is also the follower that waits in a flight on the client's behalf."""

    __slots__ = (
        "_cache",
        "_client",
        "_controls",
        "_flight",
        "_floor",
        "_identity",
        "_now",
        "_pool",
        "_probing",
        "_space",
        "_store",
        "_timer",
        "_told",
        "_wanted",
        "last_at",
        "last_entry",
        "last_kind",
        "last_object",
        "last_rule",
        "last_write_no",
    )

    def __init__(self, client: ClientConnection, pool: PoolCache) -> None:
        self._client = client
        client.session.reads = self
        self._pool = pool
        self._cache = pool.cache
        self._now = pool.cache.now
        self._store = pool.cache.store
        # A session is on the query path while these two are its label and what it was told: nothing about it has changed.
        self._wanted: Label | None = None
        self._told: Mapping[bytes, bytes] | None = None
        self._space: Space
        self._identity: Identity | None = None
        self._controls: Controls = NOTHING
        self._floor = Floor()
        self._flight: Flight | None = None
        self._probing: Filling | None = None
        """What the second level is being asked for."""
        self._timer: asyncio.TimerHandle | None = None
        self.last_write_no = 0
        """Fills with this number or a smaller one may not have seen what the session wrote."""
        self.last_kind = ""
        """How the last read was answered: hit, stale, miss, bypass."""
        self.last_entry: Entry | None = None
        self.last_at = 0.0
        self.last_rule: Rule | None = None
        self.last_object = ""

    # --- the query path -------------------------------------------------------------------------------------------------------

    def glance(self, data: bytes) -> bool:
        """Serve *data*, all that came in one read, if it is a batch whose answer is at hand.

        Nothing has looked at it yet. That an entry stands under its key says that it is one whole read, and everything else that
        was ever asked about it; only what is not in the key has to be looked at here.
        """
        client = self._client
        session = client.session
        if (
            session.journal.wanted is not self._wanted
            or session.told is not self._told
            or client.server is not None
            or client.waiting
            or session.held is not None
            or not session.is_fresh
        ):
            return False
        kind = data[0]
        key = data if kind == QUERY else glanced_key(kind, data, session)
        space = self._space
        entry = space.entries.get(key)
        if entry is None or entry.seen != space.domain.seq or entry.fill_no <= self.last_write_no:
            return False
        now = self._now()
        if now >= entry.early_from or now >= self._cache.vouched_until:
            return False
        entry.hits += 1
        self._store.hits += 1
        self.last_kind = "hit"
        self.last_entry = entry
        self.last_at = now
        if kind == QUERY:
            session.unnamed = None
            client.write(entry.body)
        elif kind == PARSE:
            session.unnamed = data
            session.unnamed_verdict = entry.info  # type: ignore[assignment]  # the cache does not know what it is
            client.write(messages.PARSE_COMPLETE + entry.body)
        else:
            client.write(entry.body)
        session.close_portal()
        return True

    def answer(self, session: ClientSession) -> bool:
        """Serve the batch, one whole read, or wait for somebody else's answer to it; ``False``: it has to be sent."""
        if not self._pool.caches_reads:
            return self._look_known(session)
        if self._store.is_choosy and self._passes(session):
            return False
        return self._look(session)

    def _passes(self, session: ClientSession) -> bool:
        """Whether the batch is a read of a text never seen before, while only what comes again is kept.

        A programme that writes values into its texts sends nothing else, so this costs as little as it can: the text is judged, as
        it may write for all we know, and its sighting remembered.
        """
        kind, data, verdict = session.ops[0]
        identity = self._identity
        if (
            verdict is not _PLAIN_SELECT
            or kind != QUERY
            or identity is None
            or session.journal.wanted is not self._wanted
            or session.told is not self._told
            or session.block is not None
            or not identity.is_utf8
            or b"--" in data
            or b"/*" in data
        ):
            return False
        space = self._space
        if identity.epoch != space.domain.epoch or data in space.entries or data in space.flights:
            return False
        database = self._pool.database
        text = data[5:-1]
        found = database.judge(text, identity, ())
        if isinstance(found, Refused) or self._store.admits(space, data):
            return False
        self._pool.cache.reads.queries_miss += 1
        database.shape_of(found, text).misses += 1
        self.last_kind, self.last_rule, self.last_entry, self.last_object = "miss", Rule.ADMISSION, None, ""
        session.proven = session.ops[0]
        return True

    def answer_inside(self, session: ClientSession) -> bool:
        """The same in a transaction that a server has, and that has provably only read."""
        return self._look(session) if self._pool.caches_reads else self._look_known(session)

    def _look(self, session: ClientSession) -> bool:
        """The same for whatever is not found at a glance."""
        kind, data, verdict = session.ops[0]
        if not is_select(verdict):
            # Several statements in one text: what drivers ask of a new connection, or nothing of ours.
            if self._look_known(session):
                return True
            return False if self._client.lead is not None else self._count(Rule.NOT_SELECT)
        identity = self._settle(session)
        if identity is None:
            return False
        may_serve = self._is_vouched
        block = session.block
        if block is not None:
            known = self._maybe_known(session)
            if known is not None:
                return known  # asked for already, if it has to be
            refused, may_serve = self._in_transaction(block, identity, may_serve)
            if refused:
                return self.bypass(Rule.IN_TRANSACTION, refused)
        read = read_of(kind, data, session)
        if isinstance(read, Refused):
            return self._refuse(read)
        if not identity.is_utf8 and not read.text.isascii():
            return self.bypass(Rule.ENCODING, "client_encoding")
        return self._read(session, read, identity, may_serve and read.unsettled is None)

    def _read(self, session: ClientSession, read: Read, identity: Identity, may_serve: bool) -> bool:
        database = self._pool.database
        entry = self._space.entries.get(read.key)
        shadow = self._shadow(entry, read.hints) if entry is not None and may_serve and self._is_shadow else None
        may_serve = may_serve and not self._is_shadow
        self.last_rule = Rule.NO_ENTRY
        override = self._override(read.hints)
        if entry is not None and override is None and may_serve:
            # That it is stored is the verdict, and it is dated by the policy.
            if self._serves(session, read, entry, entry.fresh_until, entry.stale_until):
                return True
        found = database.judge(read.text, identity, read.types)
        if isinstance(found, Refused):
            if self._is_known(read.text):
                return self._ask_known(session, read)
            database.shape_of(found, read.text).bypasses += 1
            return self._refuse(found)
        if found.scan and read.parameters_at and has_clock_value(read, found.scan):
            database.shape_of(found, read.text).bypasses += 1
            return self.bypass(Rule.CLOCK_WORD, "a parameter")
        policy = database.policies.of(found.names)
        if override is not None:
            policy = policy.and_(override)
        if not policy.is_cached or policy.max_age <= 0.0:
            database.shape_of(found, read.text).bypasses += 1
            return self.bypass(Rule.OFF, "policy")
        if entry is not None and override is not None and may_serve:
            self._add_tags(entry, read.hints)
            fresh_until = entry.sent_at + policy.max_age
            if self._serves(session, read, entry, fresh_until, fresh_until + policy.stale_while_revalidate):
                return True
        return self._ask(session, read, found, policy, may_serve, shadow)

    # --- what only the schema can change (E-8) ------------------------------------------------------------------------------------

    def _is_known(self, text: bytes) -> bool:
        return self._pool.context.pipe.switches.known_answers and self._pool.database.is_known(text)

    def _look_known(self, session: ClientSession) -> bool:
        return self._maybe_known(session) or False

    def _maybe_known(self, session: ClientSession) -> bool | None:
        """What drivers ask of each new connection: answered within a schema epoch, with or without the cache of reads.

        ``None``: it is nothing of the kind.
        """
        kind, data, verdict = session.ops[0]
        if verdict is None or not verdict.is_read:
            return None
        # A Bind has no text to look at, so the statement remembers what its own looked like.
        if not (session.named_by(data).statement.worth_a_look if kind == BIND else may_be_introspection(data)):
            return None
        if not self._pool.context.pipe.switches.known_answers:
            return None
        read = read_of(kind, data, session)
        if isinstance(read, Refused) or read.unsettled is not None or not self._is_known(read.text):
            return None
        identity = self._identify(session)
        if identity is None or (not identity.is_utf8 and not read.text.isascii()):
            return None
        held = session.block
        if held is not None and (held.has_local_settings or level_of(held, identity) != Isolation.READ_COMMITTED.value):
            return None
        return self._ask_known(session, read)

    def _ask_known(self, session: ClientSession, read: Read) -> bool:
        entry = self._space.entries.get(read.key)
        now = self._now()
        is_fresh = entry is not None and entry.is_valid() and entry.sent_at > self._floor.since
        if entry is not None and is_fresh and now < entry.fresh_until and now < self._cache.vouched_until:
            session.pipe.saved[Saved.KNOWN] += 1
            self._serve(session, read.kind, entry, "hit", now)
            return True
        return self._ask(session, read, KNOWN, KNOWN_POLICY, may_serve=self._is_vouched)

    # --- who is it? -----------------------------------------------------------------------------------------------------------

    @property
    def _is_shadow(self) -> bool:
        return self._pool.cache.settings.mode is Mode.SHADOW

    @property
    def _is_vouched(self) -> bool:
        """All that other workers have written is known to have been heard of."""
        return self._now() < self._cache.vouched_until

    def _settle(self, session: ClientSession) -> Identity | None:
        """Who the session is now; ``None``: it takes no part, which has been counted."""
        pool = self._pool
        wanted, told = session.journal.wanted, session.told
        identity = self._identity
        if (
            identity is not None
            and wanted is self._wanted
            and told is self._told
            and identity.epoch == pool.database.domain.epoch
            and not pool.cache.suspended
            and not session.journal.local
        ):
            return identity
        self._wanted = None
        if not pool.cache.is_on:
            return self._not(Rule.OFF, "cache")
        controls = controls_of(session.journal)
        if not controls.is_on:
            return self._not(Rule.OFF, "hyperdrive.cache")
        if controls.max_staleness == 0.0:
            return self._not(Rule.EXPIRED, "hyperdrive.max_staleness")
        identity = self._identify(session)
        if identity is None:
            return None
        self._controls = controls
        if controls is NOTHING and not self._is_shadow and not session.journal.local:
            self._wanted, self._told = wanted, told
        return identity

    def _identify(self, session: ClientSession) -> Identity | None:
        """Who the session is now, with the space of its entries; ``None``: nothing of it can be kept apart, which has been counted."""
        pool = self._pool
        if pool.cache.suspended:
            return self._not(Rule.STREAM_DOWN, "another worker is not heard of")
        if pool.database.catalog is None:
            return self._not(Rule.ORIGIN_UNKNOWN, pool.database.why_unknown)
        identity = pool.maybe_identity(session.journal.wanted)
        if identity is None:
            return self._not(Rule.SESSION_STATE, "settings that are being looked up")
        if identity.refused:
            return self._not(Rule.SESSION_STATE, identity.refused)
        if identity.reported is not None and not agrees(session.told, identity.reported):
            return self._not(Rule.SESSION_STATE, "a reported setting that has changed")
        token = controls_of(session.journal).min_token
        if not self._floor.accepts(token, pool.cache, pool.database):
            return self._not(Rule.OWN_WRITE, "hyperdrive.min_token of another origin")
        self._identity, self._space = identity, pool.space(identity)
        return identity

    def _not(self, rule: Rule, what: str) -> Identity | None:
        self.bypass(rule, what)
        return None

    def _in_transaction(self, held: Held, identity: Identity, may_serve: bool) -> tuple[str, bool]:
        """Of a transaction of which nothing has reached the origin: why a read in it takes no part, and whether it may be served
        (caching-rules §13)."""
        policy = self._pool.cache.settings.in_transactions
        if policy is InTransactions.NEVER:
            return "cache_in_transactions = never", False
        isolation = level_of(held, identity)
        if isolation != Isolation.READ_COMMITTED.value:
            return isolation.decode(), False
        if held.has_local_settings:
            return "SET LOCAL", False
        is_read_only = identity.is_read_only if held.read_only is None else held.read_only
        return "", may_serve and (policy is InTransactions.ALWAYS or is_read_only)

    def _override(self, hints: Hints | None) -> Override | None:
        """What the session and the statement ask for; the statement has the last word."""
        override = self._controls.override
        if hints is None:
            return override
        hinted = Override(
            max_age=hints.max_age_seconds,
            stale_while_revalidate=hints.stale_while_revalidate_seconds,
            is_cached=hints.cache,
        )
        return hinted if override is None else override.under(hinted)

    # --- serving --------------------------------------------------------------------------------------------------------------

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

    # --- asking ---------------------------------------------------------------------------------------------------------------

    def _ask(
        self,
        session: ClientSession,
        read: Read,
        found: Cacheable,
        policy: Policy,
        may_serve: bool,
        shadow: Entry | None = None,
    ) -> bool:
        """Nothing to serve: wait for an answer that is under way, or lead a fill. *shadow* is what would have been served."""
        pool, space = self._pool, self._space
        session.proven = session.ops[0]
        self.last_kind, self.last_entry, self.last_object = "miss", None, ""
        shape = pool.database.shape_of(found, read.text)
        if read.unsettled is not None:
            self._missed(shape)
            self._client.lead = self._filling(read, found, policy, read.kind, bound=0)
            return False
        flight = space.flights.get(read.key)
        is_patient = self._controls.max_staleness is None and self._floor.since == -inf
        may_wait = self._client.server is None and may_serve and is_patient
        if flight is not None:
            if may_wait and flight.may_join(self.last_write_no):
                self._missed(shape)
                self._join(flight)
                return True
        elif shadow is None and not self._store.admits(space, read.key):
            self._missed(shape)
            self.last_rule = Rule.ADMISSION
            return False
        filling = self._filling(read, found, policy, read.kind)
        if flight is None and may_wait and found is not KNOWN and self._probe(filling):
            return True
        self._missed(shape)
        self._client.lead = filling
        filling.expected = shadow
        return False

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

    # --- the second level -----------------------------------------------------------------------------------------------------

    def _probe(self, filling: Filling) -> bool:
        """Look into the second level before the origin is asked; the client waits, for milliseconds at most."""
        shelf = self._pool.database.shelf
        if shelf is None or not shelf.can_ask or self._client.lead is not None:
            return False
        self._probing = filling
        self._client.waiting = True
        shelf.probe(filling.fill, partial(self._probed, filling))
        return True

    def _probed(self, filling: Filling, entry: Entry | None) -> None:
        if self._probing is not filling:
            return  # the client has left, and the flight has failed
        self._probing = None
        if entry is not None:
            self._store.hits += 1
            filling.adopt(entry)
            if entry.is_valid():
                self._serve_waiting(entry, "hit")
            else:
                self._client.run_alone()  # whoever was served by it has changed something
            return
        if filling.shape is not None:
            self._missed(filling.shape)
        self._client.lead = filling
        self._client.run_alone()

    # --- waiting for another --------------------------------------------------------------------------------------------------

    def _join(self, flight: Flight) -> None:
        flight.join(self)
        self._flight = flight
        self._client.waiting = True
        self._timer = asyncio.get_running_loop().call_later(self._pool.cache.settings.flight_seconds, self._tired)

    def leave(self) -> None:
        """The client waits no longer; nothing happens if it does not."""
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.leave(self)
        probing, self._probing = self._probing, None
        if probing is not None:
            probing.fail()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def retire(self) -> None:
        """There is no cache any more: whoever waits in a flight asks for itself."""
        if self._flight is not None or self._probing is not None:
            self.run_alone()

    def failed(self, exc: Exception) -> None:
        """Our own code is at fault while another's answer is handed on: it concerns this client, not the one that asked."""
        self._client.failed(exc)

    @guarded(None)
    def _tired(self) -> None:
        self.leave()
        self._client.run_alone()

    @guarded(None)
    def serve(self, entry: Entry) -> None:
        """The leader's answer has come."""
        self.leave()
        self._serve_waiting(entry, "miss")

    def _serve_waiting(self, entry: Entry, how: str) -> None:
        client = self._client
        session = client.session
        if session.whole is None or client.transport.is_closing():
            client.run_alone()  # more came meanwhile
            return
        client.waiting = False
        self._serve(session, session.ops[0][0], entry, how, self._now())
        client.transport.resume_reading()
        if session.terminated:
            client.connection_lost(None)

    @guarded(None)
    def run_alone(self) -> None:
        """There is no answer to share."""
        self.leave()
        self._client.run_alone()

    # --- what is counted ------------------------------------------------------------------------------------------------------

    def bypass(self, rule: Rule, what: str = "") -> bool:
        """The cache has no part in the batch, by *rule*."""
        self._count(rule)
        self.last_kind, self.last_rule, self.last_object, self.last_entry = "bypass", rule, what, None
        return False

    def _missed(self, shape: Shape) -> None:
        self._pool.cache.reads.queries_miss += 1
        shape.misses += 1

    def _count(self, rule: Rule) -> bool:
        reads = self._pool.cache.reads
        reads.queries_bypass += 1
        reads.bypasses[rule.value] += 1
        return False

    def passed_by(self, session: ClientSession, server: ServerSession | None) -> None:
        """The batch goes to the origin without a look at the cache: *server* works for the session already, or it is no whole read."""
        if not self._pool.caches_reads:
            return
        verdict = next((op[2] for op in session.ops if op[2] is not None), None)
        if not is_select(verdict) and (verdict is None or not verdict.is_multi):
            self._count(Rule.NOT_SELECT)
        elif server is not None and server.status != IDLE:
            self.bypass(Rule.IN_TRANSACTION)
        elif session.journal.is_pinned:
            self.bypass(Rule.SESSION_STATE, ", ".join(session.journal.reasons()))
        elif verdict is not None and verdict.is_multi:
            self.bypass(Rule.MULTI_STATEMENT)
        else:
            self.bypass(Rule.PORTAL)

    def _refuse(self, refused: Refused) -> bool:
        return self.bypass(refused.rule, refused.object)

    def token(self) -> bytes:
        """``SHOW hyperdrive.token``: what a read must not be older than to have seen what this session has."""
        return token_of(self._pool.cache, self._pool.database)

    def last_read(self) -> str:
        """``SHOW hyperdrive.last_read``: how the last read was answered, its age, the rule."""
        if not self.last_kind and not self._pool.caches_reads:
            return f"bypass rule={Rule.OFF.value}"
        parts = [self.last_kind or "none"]
        if self.last_entry is not None:
            parts.append(f"age={self.last_at - self.last_entry.sent_at:.3f}s")
        if self.last_rule is not None and self.last_kind not in ("hit", "stale"):
            parts.append(f"rule={self.last_rule.value}")
            if self.last_object:
                parts.append(f"object={self.last_object}")
        return " ".join(parts)


def user_tag(name: str) -> tuple[str, str]:
    """The tag of a hint, apart from relations, which are numbers."""
    return ("tag", name)
