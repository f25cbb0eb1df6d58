"""What a session asks of its server that may change something there, until the server is idle again.

Texts by themselves prove nothing, so everything is noted that is not known to be harmless by its kind; what it may change is worked out
afterwards, by who knows the catalog. Knows verdicts; knows no catalog and no cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hyperdrive.sql.verdict import Kind, SetConfig, Statement, Verdict

Noted = dict[bytes, Verdict | None]
"""Texts with their verdicts, each once. ``None``: what it is cannot be told."""

ANOTHER_PATH: Final = b"\0path"
"""Noted when names may mean something else than the session's settings say: SET LOCAL search_path, a role, ``set_config``."""

COMMITS: Final = b"\0commits"
"""Noted when a transaction may end in the middle of a scope and another one begin: AND CHAIN, a list of statements with a COMMIT in it.
No status byte tells of it."""

_UNREADABLE: Final = b"\0"
MOST_NOTED: Final = 1000
"""Texts of one transaction; with more of them it is unknown what it changes."""

_QUIET: Final = frozenset(
    {
        Kind.BEGIN,
        Kind.COMMIT,
        Kind.ROLLBACK,
        Kind.SAVEPOINT,
        Kind.RELEASE,
        Kind.ROLLBACK_TO,
        Kind.SET_TRANSACTION,
        Kind.SET_CONSTRAINTS,
        Kind.SHOW,
        Kind.DISCARD_PLANS,
        Kind.DISCARD_SEQUENCES,
        Kind.DISCARD_TEMP,
        Kind.DEALLOCATE,
        Kind.DEALLOCATE_ALL,
        Kind.LISTEN,
        Kind.UNLISTEN,
        Kind.UNLISTEN_ALL,
        Kind.NOTIFY,
        Kind.CLOSE,
        Kind.CLOSE_ALL,
        Kind.FETCH,
        Kind.LOCK,
        Kind.PREPARE_TRANSACTION,
        Kind.EMPTY,
    }
)
"""Kinds that change no rows. A cursor's query is noted where it is declared, a transaction's statements where they are sent; of a
prepared transaction the end is what counts, and that is noted."""

_MAY_CHAIN: Final = frozenset({Kind.COMMIT, Kind.MULTI})

_SETS: Final = frozenset(
    {Kind.SET, Kind.SET_LOCAL, Kind.RESET, Kind.RESET_ALL, Kind.DISCARD_ALL, Kind.SET_SESSION_CHARACTERISTICS}
)
_PATHS: Final = frozenset({b"search_path", b"role", b"session_authorization"})


def note(noted: Noted, verdict: Verdict | None, text: bytes) -> None:
    """*text* goes to the server."""
    if verdict is None or verdict.statements is None:
        noted[_UNREADABLE] = noted[COMMITS] = None
        return
    kind = verdict.kind
    if kind in _MAY_CHAIN and any(_goes_on(one, kind) for one in verdict.statements):
        noted[COMMITS] = None
    if len(noted) >= MOST_NOTED:
        noted[_UNREADABLE] = None
        return
    if kind in _QUIET:
        return
    if kind in _SETS:
        note_settings(noted, verdict.statements)
        return
    for effect in verdict.effects:
        if isinstance(effect, SetConfig) and (not isinstance(effect.name, bytes) or effect.name.lower() in _PATHS):
            noted[ANOTHER_PATH] = None
    noted[text] = verdict


def _goes_on(statement: Statement, kind: Kind) -> bool:
    return statement.kind is Kind.COMMIT and (statement.chain or kind is Kind.MULTI)


def note_settings(noted: Noted, statements: Iterable[Statement]) -> None:
    """*statements* that set something, or were held back, go to the server."""
    for statement in statements:
        if statement.kind in _SETS and (statement.setting is None or statement.setting.name in _PATHS):
            noted[ANOTHER_PATH] = None
