"""Reads from the cache: one client's side of it.

``answer`` is the query path: a hit is one lookup, two comparisons and one write. What is not found at once goes on to ``_look``, which
knows hints and settings, stale entries, flights to join and fills to lead; what may not be cached at all is refused with its rule
(caching-rules §4). Who the client is, what is served and asked, how one waits, and what is counted are the classes that this one is
built on. Everything is synchronous: nothing waits here.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from hyperdrive.cache.policy import Policy
from hyperdrive.metrics import Saved
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import BIND, PARSE, QUERY
from hyperdrive.proxy.asked import Read, glanced_key, has_clock_value, is_select, read_of, values_of
from hyperdrive.proxy.waiting import Waiting
from hyperdrive.proxy.who import level_of
from hyperdrive.sql.introspection import may_be_introspection, may_hold
from hyperdrive.sql.lists import has_clock_word
from hyperdrive.sql.resolve import Cacheable
from hyperdrive.sql.rules import Refused, Rule
from hyperdrive.sql.verdict import SCREENED, Command, Isolation

if TYPE_CHECKING:
    from hyperdrive.cache.entry import Entry
    from hyperdrive.proxy.client import ClientConnection
    from hyperdrive.proxy.identity import Identity
    from hyperdrive.proxy.pool_cache import PoolCache
    from hyperdrive.session.client import ClientSession
    from hyperdrive.sql.verdict import Verdict

KNOWN: Final = Cacheable(tags=(), names=(), scan=())
"""The verdict of what only the schema can change: nothing but the end of its epoch drops it."""
KNOWN_POLICY: Final = Policy(max_age=60.0, stale_while_revalidate=0.0, stale_if_error=0.0)
"""As long as that, should a change that nobody sees not end the epoch."""

_PLAIN_SELECT: Final = SCREENED[Command.SELECT]


class Reader(Waiting):
    """What the cache does for one client."""

    __slots__ = ()

    def __init__(self, client: ClientConnection, pool: PoolCache) -> None:
        super().__init__(client, pool)
        client.session.reads = self

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
        if self._store.is_choosy and self._is_passed(session):
            return False
        return self._look(session)

    def _is_passed(self, session: ClientSession) -> bool:
        """``passes``, for a batch that has been cut, if the session is what it was."""
        op = session.ops[0]
        kind, data, verdict = op
        if (
            kind != QUERY
            or session.journal.wanted is not self._wanted
            or session.told is not self._told
            or session.block is not None
            or not self.passes(data, verdict)
        ):
            return False
        session.proven = op
        return True

    def passes(self, data: bytes, verdict: Verdict | None) -> bool:
        """Whether *data*, one Query outside transactions, is a read of a text never seen before, while only what comes again is kept.

        A programme that writes values into its texts sends nothing else, so this costs as little as it can: the text is judged, as
        it may write for all we know, and its sighting remembered. ``False``: nothing has been counted, and ``_look`` goes into it.
        """
        store, identity = self._store, self._identity
        if (
            verdict is not _PLAIN_SELECT
            or identity is None
            or not identity.is_utf8
            or not store.is_choosy
            or b"--" in data
            or b"/*" in data
        ):
            return False
        space, database = self._space, self._pool.database
        if identity.epoch != space.domain.epoch or data in space.entries or data in space.flights:
            return False
        text = data[5:-1]
        found = database.judge(text, identity, ())
        if isinstance(found, Refused) or not store.turns_away(space, data):
            return False
        self._pool.cache.reads.queries_miss += 1
        database.shape_of(found, text).misses += 1
        self.last_kind, self.last_rule, self.last_entry, self.last_object = "miss", Rule.ADMISSION, None, ""
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
        if read.parameters_at and not _are_plain(read):
            return self.bypass(Rule.CLOCK_WORD, "a parameter")
        entry = self._space.entries.get(read.key)
        now = self._now()
        is_fresh = entry is not None and entry.is_valid() and entry.sent_at > self._floor.since
        if entry is not None and is_fresh and now < entry.fresh_until and now < self._cache.vouched_until:
            session.pipe.saved[Saved.KNOWN] += 1
            self._serve(session, read.kind, entry, "hit", now)
            return True
        return self._ask(session, read, KNOWN, KNOWN_POLICY, may_serve=self._is_vouched)

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


def _are_plain(read: Read) -> bool:
    """Whether the parameters leave a known answer known: their types are those of catalogs, and none of them may be the clock (rule 16)."""
    values = values_of(read.data, read.parameters_at)
    return may_hold(read.types) and not any(value is not None and has_clock_word(value) for value in values)
