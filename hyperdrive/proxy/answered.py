"""How a client's reads are answered, as far as it is counted and shown: ``SHOW hyperdrive.last_read``, and one number per rule.

Knows rules and what was decided; decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperdrive.proxy.asked import is_select
from hyperdrive.proxy.tokens import token_of
from hyperdrive.session.server import IDLE
from hyperdrive.sql.rules import Refused, Rule

if TYPE_CHECKING:
    from hyperdrive.cache.entry import Entry, Shape
    from hyperdrive.proxy.pool_cache import PoolCache
    from hyperdrive.session.client import ClientSession
    from hyperdrive.session.server import ServerSession


class Answered:
    """The part of a reader that remembers how the last read was answered."""

    __slots__ = ("_pool", "last_at", "last_entry", "last_kind", "last_object", "last_rule")

    def __init__(self, pool: PoolCache) -> None:
        self._pool = pool
        self.last_kind = ""
        """How the last read was answered: hit, stale, miss, bypass."""
        self.last_entry: Entry | None = None
        self.last_at = 0.0
        self.last_rule: Rule | None = None
        self.last_object = ""

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
