"""What the ``hyperdrive.*`` settings of a session ask of the cache.

They live in the session's label and, where they are of one transaction, beside it (``session.ours``). Knows journals; who obeys is ``reads``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from hyperdrive.cache.policy import Override
from hyperdrive.session.ours import is_on, seconds, value_of
from hyperdrive.session.outcome import Journal
from hyperdrive.session.settings import PREFIX


@dataclass(frozen=True, slots=True)
class Controls:
    """What a session asks for."""

    is_on: bool = True
    max_staleness: float | None = None
    override: Override | None = None
    min_token: bytes = b""


NOTHING: Final = Controls()


def controls_of(journal: Journal) -> Controls:
    """What the settings of a session ask for; one that makes no sense was refused when it was set, so it is not here."""
    items = journal.own(PREFIX)
    return _controls(tuple(sorted(items.items()))) if items else NOTHING


@lru_cache(1024)
def _controls(items: tuple[tuple[bytes, bytes], ...]) -> Controls:
    values = {name.removeprefix(PREFIX): value_of(sql) for name, sql in items}
    max_age, behind = _seconds(values, b"max_age"), _seconds(values, b"stale_while_revalidate")
    is_default = max_age is None and behind is None
    return Controls(
        is_on=is_on(values.get(b"cache") or b"on"),
        max_staleness=_seconds(values, b"max_staleness"),
        override=None if is_default else Override(max_age=max_age, stale_while_revalidate=behind),
        min_token=values.get(b"min_token") or b"",
    )


def _seconds(values: Mapping[bytes, bytes | None], name: bytes) -> float | None:
    value = values.get(name)
    return None if value is None else seconds(value)
