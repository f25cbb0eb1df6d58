"""What the clients and servers of one pool share: how statements are classified and shared, and what a new client is told.

A welcome (ParameterStatus values and the label behind them) is learned once per set of start-up settings and then given from
memory (W-05, W-08). Knows pools and sessions; knows no listener and no configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from hyperdrive.clock import Clock
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import DATA_ROW, split
from hyperdrive.pool.pool import Pool
from hyperdrive.pool.settings import PoolMode
from hyperdrive.session.pipe import Pipe
from hyperdrive.session.settings import Label, label, statement_for, values
from hyperdrive.sql.verdict import Isolation

if TYPE_CHECKING:
    import asyncio

    from hyperdrive.proxy.client import ClientConnection
    from hyperdrive.proxy.metrics import DatabaseMetrics, ProxyMetrics
    from hyperdrive.proxy.pool_cache import PoolCache
    from hyperdrive.proxy.server import ServerConnection

WELCOMES: Final = 1000
"""Sets of start-up settings remembered per pool."""

_ISOLATION: Final = b"default_transaction_isolation"
UNREPORTED: Final = (_ISOLATION, b"default_transaction_read_only", b"default_transaction_deferrable")
_SHOW_UNREPORTED: Final = b"; ".join([b"SHOW " + name for name in UNREPORTED])

APPLICATION_NAME: Final = b"application_name"
_NAME_BYTES: Final = 63


@dataclass(frozen=True, slots=True)
class Welcome:
    """What clients with the same start-up settings get: their label, the values they are told, and those as messages."""

    label: Label
    told: Mapping[bytes, bytes]
    messages: bytes = field(repr=False)


def welcome(label_: Label, told: Mapping[bytes, bytes]) -> Welcome:
    """The welcome for *label_* when the server reported *told*."""
    told = values(told)
    return Welcome(label_, told, messages.parameter_statuses(told))


class PoolContext:
    """One pool and what belongs to it."""

    __slots__ = (
        "_forget",
        "_send_cancel",
        "base",
        "cache",
        "clients",
        "clock",
        "defaults",
        "metrics",
        "mode",
        "pipe",
        "pool",
        "stats",
        "welcomes",
        "write_high",
    )

    def __init__(
        self,
        pipe: Pipe,
        mode: PoolMode,
        clock: Clock,
        metrics: ProxyMetrics,
        stats: DatabaseMetrics,
        *,
        write_high: int,
        forget: Callable[[ClientConnection], None],
        send_cancel: Callable[[ServerConnection], asyncio.Future[None]],
    ) -> None:
        self.pool: Pool[ServerConnection]
        self.pipe = pipe
        self.mode = mode
        self.clock = clock
        self.metrics = metrics
        self.stats = stats
        self.write_high = write_high
        """Bytes waiting to be sent to one peer above which the other side is not read."""
        self.clients: set[ClientConnection] = set()
        self.cache: PoolCache | None = None
        """The cache's side of the pool; ``None``: there is no cache."""
        self.base: Mapping[bytes, bytes] | None = None
        """Values reported by the server that logged in last, before anyone changed them."""
        self.welcomes: LRUCache[tuple[Label, bytes | None], Welcome] = LRUCache(WELCOMES)
        self.defaults: Mapping[bytes, bytes] | None = None
        """Settings that no server reports (``UNREPORTED``), as sessions of this pool begin with them; ``None``: not known."""
        self._forget = forget
        self._send_cancel = send_cancel
        pipe.default_isolation = self.default_isolation

    @property
    def is_session_mode(self) -> bool:
        """Clients keep their server until they leave."""
        return self.mode is PoolMode.SESSION

    def logged_in(self, view: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        """A server logged in and reported *view*; return the one mapping that stands for these values."""
        view = values(view)
        if self.base is not view:
            # Another version, role or configuration than before: nothing learned holds.
            self.base = view
            self.welcomes.clear()
            self.defaults = None
            self.pipe.accepted.clear()
            self.pipe.end_epoch()
        return view

    async def learn_defaults(self, server: ServerConnection) -> None:
        """Ask a server that has just logged in for what it does not report; once until something changes.

        Raises:
            OriginLost: the connection broke meanwhile.
        """
        if self.defaults is None:
            rows = [m[11:] for m in split(await server.ask(_SHOW_UNREPORTED))[0] if m[0] == DATA_ROW]
            if len(rows) == len(UNREPORTED):
                self.defaults = dict(zip(UNREPORTED, rows, strict=True))

    def default_isolation(self, label_: Label) -> Isolation | None:
        """The level of a transaction that names none; ``None`` if the session has changed it, or it is not known."""
        if self.defaults is None or _ISOLATION in label_.items:
            return None
        return next((level for level in Isolation if level.value == (self.defaults or {}).get(_ISOLATION)), None)

    def forget(self, client: ClientConnection) -> bool:
        """*client* is leaving; ``False`` when it has left before."""
        if client not in self.clients:
            return False
        self.clients.discard(client)
        self.pool.clients -= 1
        self._forget(client)
        return True

    def send_cancel(self, server: ServerConnection) -> asyncio.Future[None]:
        """Cancel what *server* runs; done when the origin has the request."""
        return self._send_cancel(server)

    def label_of(self, startup: Iterable[tuple[bytes, bytes]]) -> tuple[Label, bytes | None]:
        """The label that the settings of a StartupMessage ask for, and the application_name, which needs no check.

        Settings that have the server's own value anyway are left out, so that most clients have the same label.
        """
        base = self.base or {}
        known = {name.lower(): value for name, value in base.items()}
        items: dict[bytes, bytes] = {}
        application_name: bytes | None = None
        for name, value in startup:
            lower = name.lower()
            if (
                lower == APPLICATION_NAME
                and value.isascii()
                and value.decode().isprintable()
                and len(value) <= _NAME_BYTES
            ):
                application_name = value
            elif known.get(lower) != value:
                items[lower] = statement_for(lower, value)
            else:
                items.pop(lower, None)
        return label(items), application_name

    def maybe_welcome(self, key: tuple[Label, bytes | None]) -> Welcome | None:
        """What was learned for this label and application_name; ``None``: a server has to be asked."""
        found = self.welcomes.get(key)
        if found is not None or self.base is None:
            return found
        plain, application_name = key
        if application_name is None:
            return self.learn(key, plain, self.base) if not plain.items else None
        checked = self.maybe_welcome((plain, None))
        if checked is None:
            return None
        told = checked.told
        if told.get(APPLICATION_NAME) == application_name:
            return self._keep(key, checked)
        return self._keep(
            key,
            welcome(
                checked.label.with_(APPLICATION_NAME, statement_for(APPLICATION_NAME, application_name)),
                {**told, APPLICATION_NAME: application_name},
            ),
        )

    def learn(self, key: tuple[Label, bytes | None], effective: Label, told: Mapping[bytes, bytes]) -> Welcome:
        """A server accepted the label of *key*, which comes to *effective*, and then reported *told*."""
        return self._keep(key, welcome(effective, told))

    def _keep(self, key: tuple[Label, bytes | None], found: Welcome) -> Welcome:
        self.welcomes[key] = found
        return found
