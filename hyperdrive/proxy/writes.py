"""What clients write through us, and what that drops: applied before the client hears that its commit is done (caching-rules §10.5).

A server's session notes each statement that is no proven read; when the origin says that the session is idle again, what those could
have changed is worked out with the catalog and touched. A lost server's outcome is unknown and counts as done, now and once more when
its backend can no longer be at work. Knows sessions, catalogs and domains; knows no socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperdrive.session.noted import ANOTHER_PATH, COMMITS, Noted
from hyperdrive.sql.writes import NOTHING, UNKNOWN_AND_EPOCH, Writes

if TYPE_CHECKING:
    from collections.abc import Collection

    from hyperdrive.proxy.cache import Cache
    from hyperdrive.proxy.database import Database, Heard
    from hyperdrive.proxy.identity import Identity
    from hyperdrive.proxy.pool_cache import PoolCache
    from hyperdrive.session.client import ClientSession

DOUBT_SECONDS: Final = 10.0
"""How long the backend of a lost server may still be at work: until then nothing that it may change is stored."""


def changed_by(noted: Noted, pool: PoolCache, session: ClientSession | None) -> Writes:
    """What the noted statements of *session* may have changed, if all of them took effect."""
    identity = _identity_of(noted, pool, session)
    hidden = session.journal.temporary if session is not None else ()
    found = NOTHING
    for text, verdict in noted.items():
        if text in (ANOTHER_PATH, COMMITS):
            continue
        if verdict is None or verdict.statements is None:
            # Not even its kind is known: it may have been DDL.
            return UNKNOWN_AND_EPOCH
        # In another encoding the same bytes are another name.
        is_clear = identity is not None and (identity.is_utf8 or text.isascii()) and not _may_mean(text, hidden)
        found |= pool.database.written(text, identity.path if identity is not None and is_clear else None)
    return found


def _identity_of(noted: Noted, pool: PoolCache, session: ClientSession | None) -> Identity | None:
    """Who the session is, and so where its names are looked up; ``None``: nobody knows."""
    # What an opaque session's server has is not what its label says.
    if session is None or session.is_opaque or ANOTHER_PATH in noted:
        return None
    return pool.maybe_identity(session.journal.wanted)


def _may_mean(text: bytes, hidden: Collection[bytes | None]) -> bool:
    """Whether *text* may name one of the temporary objects *hidden*: a view of that name writes elsewhere than the table it hides."""
    if not hidden:
        return False
    words = text.lower()
    return b'u&"' in words or any(
        name is None or b'"' in name or not name.isascii() or name.lower() in words for name in hidden
    )


def applied(noted: Noted, pool: PoolCache, session: ClientSession | None) -> tuple[bool, Heard | None]:
    """A transaction of *session* is over: touch what it may have changed.

    Whether it was an unknown write, so that what the session reads next must have been sent after it; and what to wait for before
    the client is told.
    """
    found = changed_by(noted, pool, session)
    return found.relations is None, _touch(pool.cache, pool.database, found)


def lost(noted: Noted, pool: PoolCache, session: ClientSession | None) -> Doubt | None:
    """The server is gone, and nobody knows whether what it did was committed. To be released after ``DOUBT_SECONDS``."""
    found = changed_by(noted, pool, session)
    if found.relations is not None and not found.relations:
        return None
    _touch(pool.cache, pool.database, found)
    return Doubt(pool.cache, pool.database, found)


def _touch(cache: Cache, database: Database, found: Writes) -> Heard | None:
    if found.is_shared:
        return cache.end_epochs()
    return database.touch(found.relations, ends_epoch=found.ends_epoch)


class Doubt:
    """A commit that may become visible at any moment, or never."""

    __slots__ = ("_cache", "_database", "_hold", "_writes")

    def __init__(self, cache: Cache, database: Database, writes: Writes) -> None:
        self._cache = cache
        self._database = database
        self._writes = writes
        self._hold = database.domain.hold(writes.relations)

    def release(self) -> None:
        """It has happened by now, or never will."""
        self._hold.release()
        _touch(self._cache, self._database, self._writes)
