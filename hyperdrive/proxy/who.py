"""Who a client is to the cache, and what it asks of it: identity, settings, the transaction it is in (rules 1 to 5 and 17).

Knows sessions, identities and controls; knows no entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperdrive.cache.policy import Override
from hyperdrive.proxy.answered import Answered
from hyperdrive.proxy.cache import InTransactions, Mode
from hyperdrive.proxy.controls import NOTHING, Controls, controls_of
from hyperdrive.proxy.identity import agrees
from hyperdrive.proxy.tokens import Floor
from hyperdrive.sql.rules import Rule
from hyperdrive.sql.verdict import Isolation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperdrive.cache.tags import Space
    from hyperdrive.proxy.identity import Identity
    from hyperdrive.proxy.pool_cache import PoolCache
    from hyperdrive.session.client import ClientSession
    from hyperdrive.session.held import Held
    from hyperdrive.session.settings import Label
    from hyperdrive.sql.hints import Hints


def level_of(held: Held, identity: Identity) -> bytes:
    """The isolation level of a transaction that is held back."""
    return held.isolation.value if held.isolation is not None else identity.isolation


class Who(Answered):
    """The part of a reader that knows whose reads they are."""

    __slots__ = ("_cache", "_controls", "_floor", "_identity", "_now", "_space", "_told", "_wanted")

    def __init__(self, pool: PoolCache) -> None:
        super().__init__(pool)
        self._cache = pool.cache
        self._now = pool.cache.now
        # A session is on the query path while these two are its label and what it was told: nothing about it has changed.
        self._wanted: Label | None = None
        self._told: Mapping[bytes, bytes] | None = None
        self._space: Space
        self._identity: Identity | None = None
        self._controls: Controls = NOTHING
        self._floor = Floor()

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
