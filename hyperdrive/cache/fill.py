"""A fill: an answer under way from the origin, and whether it may be stored (caching-rules §10.3, rungs 0 to 2).

``open_fill`` notes what holds when it is sent; what comes is copied as it passes; ``may_store`` asks afterwards whether anything
happened in between that it may not have seen. The client is answered in any case.

A later rung adds to this without changing it: the stream touches a tag's ``touched_at`` alone and keeps what it has not seen
visible; *validate* then holds the fill's ``proof``, its snapshot, against that.
"""

from __future__ import annotations

from collections.abc import Callable

from hyperdrive.cache.entry import Entry
from hyperdrive.cache.policy import Policy
from hyperdrive.cache.shared import Shared
from hyperdrive.cache.tags import Space, Tag

Validate = Callable[["Fill"], bool]


class Fill:
    """One of them. Made by ``open_fill`` right before its request is written."""

    __slots__ = (
        "_bound",
        "_chunks",
        "epoch",
        "key",
        "no",
        "opened_seq",
        "policy",
        "proof",
        "sent_at",
        "shared",
        "size",
        "space",
        "tags",
    )

    def __init__(self, space: Space, key: bytes, tags: tuple[Tag, ...], policy: Policy, now: float, bound: int) -> None:
        domain = space.domain
        self.space = space
        self.key = key
        self.tags = tags
        self.policy = policy
        self.no = domain.next_fill()
        self.opened_seq = domain.seq
        self.epoch = space.epoch
        self.sent_at = now
        self.proof: object = None
        """What the origin said of the moment it read; a *validate* may ask for it."""
        self.shared: Shared | None = None
        """What the second level said when it was asked first."""
        self.size = 0
        self._bound = bound
        self._chunks: list[bytes] | None = [] if bound else None

    def send(self, now: float) -> None:
        """Its request is written at *now*, perhaps long after it was opened: what happened meanwhile it will see."""
        domain = self.space.domain
        self.no = domain.next_fill()
        self.opened_seq = domain.seq
        self.sent_at = now

    @property
    def is_copied(self) -> bool:
        """It has not outgrown its bound, and nobody let go of it."""
        return self._chunks is not None

    def feed(self, data: bytes) -> None:
        """Part of the answer passed by."""
        chunks = self._chunks
        if chunks is None:
            return
        self.size += len(data)
        if self.size > self._bound:
            # The client goes on reading; only the copy ends.
            self._chunks = None
            self.space.domain.metrics.not_stored_size += 1
        else:
            chunks.append(data)

    def let_go(self) -> None:
        """Copy no more."""
        self._chunks = None

    def take(self) -> bytes | None:
        """What was copied, if all of it was."""
        chunks, self._chunks = self._chunks, None
        if chunks is None:
            return None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def is_doomed(self) -> bool:
        """Something it may not have seen happened since it was opened."""
        if self.epoch != self.space.domain.epoch:
            return True
        opened = self.opened_seq
        return any(tag.doomed_at > opened or tag.holds for tag in self.tags)

    def may_store(self, validate: Validate | None = None) -> bool:
        """Whether its answer may be an entry (rule 20). *validate* is asked for what only a stream can know."""
        if self.is_doomed() or (validate is not None and not validate(self)):
            self.space.domain.metrics.not_stored_raced += 1
            return False
        return True

    def entry(self, body: bytes, now: float, chance: float) -> Entry:
        """The entry for *body*, complete at *now*; to be made only if ``may_store``. *chance* is uniform in [0, 1)."""
        return self.adopt(body, self.sent_at, now - self.sent_at, chance)

    def adopt(self, body: bytes, sent_at: float, cost_seconds: float, chance: float) -> Entry:
        """The same for an answer that somebody else was sent at *sent_at*."""
        seq = self.space.domain.seq
        entry = Entry(self.space, self.key, body, self.tags, seq=seq, fill_no=self.no, sent_at=sent_at)
        entry.proof = self.proof
        self.policy.date(entry, cost_seconds, chance)
        return entry


def open_fill(space: Space, key: bytes, tags: tuple[Tag, ...], policy: Policy, now: float, *, bound: int) -> Fill:
    """A fill about to be sent at *now*. *tags* are those of what it reads; CATALOG is added. *bound* 0 copies nothing."""
    return Fill(space, key, (*tags, space.domain.catalog), policy, now, bound)
