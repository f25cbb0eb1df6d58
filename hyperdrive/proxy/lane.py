"""The express lane: the usual case of the query path in C, where it has been compiled.

``_lane.c`` does what Python does for one usual whole scope and for its usual whole reply, and for a hit of the cache, in the same order
and to the same objects; for anything else it calls the Python methods, which stay the only place where something is decided. Without
a compiler, or built from other sources than these, it is left out and nothing but the cost is different. ``docs/compiled.md``.

``HYPERDRIVE_COMPILED`` in the environment: ``0`` leaves it out, ``1`` fails without it.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from hyperdrive.cache.entry import Entry
from hyperdrive.cache.store import Store
from hyperdrive.cache.tags import Domain, Space
from hyperdrive.errors import ConfigError
from hyperdrive.pgwire import messages
from hyperdrive.pool.interfaces import ServerState
from hyperdrive.pool.pool import Pool
from hyperdrive.proxy import mirrored
from hyperdrive.proxy.client import ClientConnection
from hyperdrive.proxy.context import PoolContext
from hyperdrive.proxy.metrics import DatabaseMetrics
from hyperdrive.proxy.pool_cache import PoolCache
from hyperdrive.proxy.reads import Reader
from hyperdrive.proxy.server import ServerConnection
from hyperdrive.session import scopes
from hyperdrive.session.client import ClientSession
from hyperdrive.session.outcome import Journal
from hyperdrive.session.pipe import Pipe
from hyperdrive.session.scopes import Step, Whole
from hyperdrive.session.server import ServerSession
from hyperdrive.session.statements import Named, SharedStatement
from hyperdrive.sql.cache import FOLD, Memory, VerdictCache
from hyperdrive.sql.verdict import Verdict

VARIABLE: Final = "HYPERDRIVE_COMPILED"

_CLASSES: Final = {
    "client": ClientConnection,
    "session": ClientSession,
    "journal": Journal,
    "reader": Reader,
    "pool_cache": PoolCache,
    "store": Store,
    "space": Space,
    "domain": Domain,
    "entry": Entry,
    "context": PoolContext,
    "stats": DatabaseMetrics,
    "pool": Pool,
    "server": ServerConnection,
    "state": ServerSession,
    "whole": Whole,
    "step": Step,
    "named": Named,
    "shared": SharedStatement,
    "verdict": Verdict,
    "verdicts": VerdictCache,
    "memory": Memory,
    "pipe": Pipe,
}
_LETTERS: Final = {
    messages.describe(b"P") + messages.execute() + messages.SYNC: b"D",
    messages.execute() + messages.SYNC: b"E",
}
"""How the cache's keys tell the ends of scopes apart (``asked.glanced_key``)."""

PYTHON: Final = (ClientConnection.data_received, ServerConnection.data_received)
"""The methods as they are without it."""


def load() -> tuple[ModuleType | None, str]:
    """The compiled module, or why there is none."""
    if os.environ.get(VARIABLE) == "0":
        return None, f"{VARIABLE}=0"
    try:
        from hyperdrive.proxy import _lane  # type: ignore[attr-defined]  # it is there where it was compiled
    except ImportError as exc:
        return None, "not built" if exc.name is None or "_lane" in str(exc) else str(exc)
    module: ModuleType = _lane
    try:
        is_ours = module.sources == mirrored.digest()
    except OSError as exc:
        return None, f"its sources cannot be read: {exc}"
    return (module, "") if is_ours else (None, "built from other sources; `make compiled` builds it anew")


def around(module: ModuleType, client: Callable[..., None], server: Callable[..., None]) -> tuple[Any, Any]:
    """The compiled methods, which call *client* and *server* for what is not theirs.

    Raises:
        TypeError, AttributeError: what it reads is not what it was.
    """
    methods: tuple[Any, Any] = module.install(
        _CLASSES,
        VerdictCache.classify,
        FOLD,
        scopes.QUERY,
        scopes.BEHIND_PARSE,
        scopes.BEHIND_BIND,
        _LETTERS,
        messages.PARSE_COMPLETE,
        ServerState.ACTIVE,
        ServerState.IDLE,
        deque,
        OrderedDict,
        client,
        server,
    )
    return methods


def _methods() -> tuple[tuple[Any, Any] | None, str]:
    module, why_not = load()
    if module is None:
        return None, why_not
    try:
        return around(module, *PYTHON), ""
    except (TypeError, AttributeError) as exc:
        return None, f"it does not fit: {exc}"


COMPILED, WHY_NOT = _methods()


def use(*, compiled: bool) -> bool:
    """Take the compiled methods, or Python's; ``False`` when they are wanted and there are none. For connections made from now on."""
    methods = COMPILED if compiled else PYTHON
    if methods is None:
        return False
    for owner, method in zip((ClientConnection, ServerConnection), methods, strict=True):
        setattr(owner, "data_received", method)  # noqa: B010 - a method is not to be assigned to, but for this
    return True


IS_COMPILED: Final = use(compiled=True)
"""Whether connections use it."""


def described() -> str:
    """For people: ``compiled: yes``, or ``compiled: no`` and why."""
    return "compiled: yes" if IS_COMPILED else f"compiled: no ({WHY_NOT})"


def check() -> None:
    """Obey the environment.

    Raises:
        ConfigError: it is required, and there is none.
    """
    if os.environ.get(VARIABLE) == "1" and not IS_COMPILED:
        raise ConfigError(f"{VARIABLE}=1, and the compiled part cannot be used: {WHY_NOT}")
