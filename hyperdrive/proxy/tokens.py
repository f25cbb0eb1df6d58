"""Tokens: a session, another process or another region reads nothing older than what somebody else wrote (caching-rules §11).

On rungs 0 to 2 nobody can tell which writes an entry has seen. But whoever sets a token has it from a client that was told of its commit,
so what the origin is asked *after the token was set* has seen that write; an entry asked for earlier is bypassed. A token that this very
process gave needs not even that: what it stands for was dropped here before its client was told. One of another origin, or of another
history of it, is met by nothing: until it is replaced every read goes to the origin. Knows texts and times; no session.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyperdrive.proxy.cache import Cache
    from hyperdrive.proxy.database import Database

FORMAT = b"hd1"


def token_of(cache: Cache, database: Database) -> bytes:
    """``SHOW hyperdrive.token``: origin, timeline and database; who says so; how many events it has applied.

    While nobody knows the origin its place is empty, and nothing satisfies such a token.
    """
    origin = database.origin.replace(b",", b":") or b"::"
    return b"%s:%s:%s:%d" % (FORMAT, origin, cache.process, database.domain.seq)


class Floor:
    """What one session may be served, as far as its ``hyperdrive.min_token`` says."""

    __slots__ = ("_token", "since")

    def __init__(self) -> None:
        self._token = b""
        self.since = -inf
        """An entry has to have been asked for after that."""

    def accepts(self, token: bytes, cache: Cache, database: Database) -> bool:
        """*token* is what the session asks for now; ``False``: nothing that is stored can satisfy it."""
        if not token:
            self._token, self.since = b"", -inf
            return True
        origin, process, seq = _parts(token)
        if not database.origin or origin != database.origin:
            self._token = b""
            return False
        if token != self._token:
            is_ours = process == cache.process and seq <= database.domain.seq
            self._token, self.since = token, -inf if is_ours else cache.now()
        return True


def _parts(token: bytes) -> tuple[bytes, bytes, int]:
    """Origin, process and number of a *token* whose shape was looked at when it was set."""
    _, system, timeline, database, process, seq = token.split(b":")
    return b",".join((system, timeline, database)), process, int(seq)
