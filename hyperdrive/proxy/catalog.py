"""Loading a database's catalogs with asyncpg, and polling whether they have changed.

One connection per database, opened when it is needed and kept for the polls. Everything is read in one REPEATABLE READ READ ONLY
snapshot with an empty search_path. Knows asyncpg and how to wait; what the rows mean is ``sql.catalog``'s. All of it runs beside
the hot path: while nothing is known, every read is refused with ``origin-unknown``.

The interval of the polls is the bound for whatever changes behind our back and is not seen by other means: privileges, roles,
settings' defaults, DDL (caching rules §7.3).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import asyncpg

from hyperdrive.clock import Clock
from hyperdrive.errors import HyperdriveError
from hyperdrive.net.connect import Address
from hyperdrive.net.contexts import Negotiation, TlsPolicy
from hyperdrive.pgwire.passwords import OriginCredentials
from hyperdrive.proxy.connect import Origin
from hyperdrive.sql import catalog_queries as queries
from hyperdrive.sql.catalog import Catalog, Declarations, Identity, build
from hyperdrive.tasks import spawn

log = logging.getLogger("hyperdrive.proxy")

Connect = Callable[[], Awaitable[Any]]
"""Opens an asyncpg connection to the database, with our own knowledge of addresses, TLS and passwords."""

_ROUND_SECONDS: Final = 120.0
"""A load or a poll that takes longer has failed."""
_RETRY_SECONDS: Final = 1.0
_SLACK_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.05
_MAX_PAUSE_SECONDS: Final = 1.0
_DOUBT_SECONDS: Final = 0.5
"""Between two polls at the least, however much is done that may have been DDL."""
_DOUBT_SHARE: Final = 10.0
"""And so many times what the last one took."""
# asyncpg takes a server that ends in the middle of an answer for a fault of its own now and then.
_FAILURES: Final = (
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
    *(OSError, TimeoutError, HyperdriveError),
)


async def load(connection: Any, *, epoch: int = 1, declarations: Declarations | None = None) -> Catalog | None:
    """Return the catalog of the database that the asyncpg *connection* is in; ``None`` if its identity cannot be told.

    Three round trips, whatever the size. Raises what asyncpg raises. Then, and when cancelled, the connection is to be closed.
    """
    # No limit of the role's own may end it, the rows of each question stay together, and compiling it would take longer than running it.
    await connection.execute(_BEGIN)
    try:
        copied = await _copy(connection, queries.gathered(connection.get_server_version().major))
    except asyncpg.InsufficientPrivilegeError:  # a provider may have closed what tells the system identifier
        await connection.execute("rollback")
        return None
    await connection.execute("commit")
    return await asyncio.to_thread(_understand, copied, epoch, declarations)


_BEGIN: Final = """begin isolation level repeatable read, read only; set local search_path = '';
set local statement_timeout = 0; set local max_parallel_workers_per_gather = 0; set local jit = off"""


def _understand(copied: bytes, epoch: int, declarations: Declarations | None) -> Catalog:
    rows = dict(queries.lines_of(copied))
    ((system_identifier, *rest),) = rows.pop("identity")
    ((digest,),) = rows.pop("fingerprint")
    identity = Identity(int(system_identifier), *rest)
    return build(rows, identity, epoch=epoch, fingerprint=digest, declarations=declarations)


async def fingerprint(connection: Any) -> str:
    """Return a text that changes whenever anything changes that the catalog says, or privileges, or our sight (§7.3)."""
    return (await _copy(connection, queries.FINGERPRINT)).decode().rstrip("\n")


async def _copy(connection: Any, sql: str) -> bytes:
    """What *sql* gives, in COPY's text format: one round trip, where a query that returns rows takes two."""
    if connection.is_closed():  # asyncpg checks this for queries alone
        raise asyncpg.InterfaceError("the connection is closed")
    came: list[bytes] = []

    async def take(data: bytes) -> None:
        came.append(data)

    await connection.copy_from_query(sql, output=take)
    return b"".join(came)


# --- polling -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class CatalogMetrics:
    """What the watch over one database's catalogs has done."""

    loads: int = 0
    """Catalogs read whole."""
    polls: int = 0
    """Fingerprints compared."""
    failures: int = 0
    """Rounds that failed: the origin could not be reached, or would not answer."""
    epochs: int = 0
    """Times that a catalog became void, by DDL through us or by a changed fingerprint."""


class CatalogWatch:
    """Keeps one database's catalog, as far as it is known.

    ``changed(catalog)`` is called whenever it becomes another, ``changed(None)`` when it becomes unknown. The same object may
    come back after ``None``: then nothing had changed, and what was decided by it still holds.
    """

    __slots__ = (
        "_catalog", "_changed", "_clock", "_connect", "_connection", "_declarations", "_doubted", "_epoch", "_last", "_lost_seconds",
        "_poll_seconds", "_task", "_took_seconds", "_verified_at", "_wake", "metrics",
    )  # fmt: skip

    def __init__(
        self,
        connect: Connect,
        changed: Callable[[Catalog | None], None],
        clock: Clock,
        *,
        poll_seconds: float = 15.0,
        lost_seconds: float | None = None,
        declarations: Declarations | None = None,
    ) -> None:
        self._connect = connect
        self._changed = changed
        self._clock = clock
        self._pace(poll_seconds, lost_seconds)
        self._declarations = declarations
        self.metrics = CatalogMetrics()
        self._epoch = 1
        self._catalog: Catalog | None = None
        self._last: Catalog | None = None
        """The newest catalog of this epoch, also while it is not vouched for."""
        self._verified_at = clock.now()
        self._took_seconds = 0.0
        """The last poll."""
        self._doubted: asyncio.TimerHandle | None = None
        """A poll ahead of its time."""
        self._connection: Any = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def _pace(self, poll_seconds: float, lost_seconds: float | None) -> None:
        self._poll_seconds = poll_seconds
        # Without polls nobody vouches for privileges; one may fail.
        self._lost_seconds = 2 * poll_seconds + _SLACK_SECONDS if lost_seconds is None else lost_seconds

    def change(self, *, poll_seconds: float, lost_seconds: float | None) -> None:
        """RELOAD: poll at another pace from now on, and once now if it is another."""
        before = self._poll_seconds, self._lost_seconds
        self._pace(poll_seconds, lost_seconds)
        if before != (self._poll_seconds, self._lost_seconds):
            self._wake.set()

    @property
    def catalog(self) -> Catalog | None:
        """What is known now."""
        return self._catalog

    @property
    def epoch(self) -> int:
        """Counts up whenever a catalog becomes void."""
        return self._epoch

    def start(self, name: str) -> None:
        """Begin to load and to poll, in a task called after the database *name*."""
        self._task = spawn(self._run(), name=f"catalog of {name}")

    async def close(self) -> None:
        """Stop; the connection is closed."""
        self._trust()
        task, self._task = self._task, None
        while task is not None and not task.done():
            # A rollback that fails on the way out turns the cancellation into an error of asyncpg's, and the watch would go on.
            task.cancel()
            await asyncio.wait([task], timeout=_PAUSE_SECONDS)
        await self._disconnect()

    def end_epoch(self) -> None:
        """DDL has been committed, or anything else that voids what is known: forget it at once, and read anew."""
        self._epoch += 1
        self.metrics.epochs += 1
        self._last = None
        self._publish(None)
        self._wake.set()

    def doubt(self) -> None:
        """Code ran of which nobody knows what it did; it may have been DDL. Look soon."""
        if self._doubted is None:
            wait = max(_DOUBT_SECONDS, _DOUBT_SHARE * self._took_seconds)
            due = self._verified_at + wait - self._clock.now()
            self._doubted = asyncio.get_running_loop().call_later(max(0.0, due), self._wake.set)

    def _publish(self, catalog: Catalog | None) -> None:
        if catalog is not self._catalog:
            self._catalog = catalog
            self._changed(catalog)

    async def _run(self) -> None:
        failures = 0
        pause = 0.0
        while True:
            self._wake.clear()
            self._trust()
            epoch = self._epoch
            failures = 0 if await self._succeeds() else failures + 1
            # DDL comes in bursts, migrations above all: what is void before it is read is not read at once again.
            pause = 0.0 if epoch == self._epoch else min(2 * pause or _PAUSE_SECONDS, _MAX_PAUSE_SECONDS)
            await asyncio.sleep(pause)
            if self._catalog is not None and self._clock.now() - self._verified_at > self._lost_seconds:
                self._publish(None)
            retry = min(_RETRY_SECONDS * 2 ** min(failures, 10), self._poll_seconds)
            try:
                async with asyncio.timeout(retry if failures or self._catalog is None else self._poll_seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _trust(self) -> None:
        doubted, self._doubted = self._doubted, None
        if doubted is not None:
            doubted.cancel()

    async def _succeeds(self) -> bool:
        try:
            async with asyncio.timeout(_ROUND_SECONDS):
                await self._round()
            return True
        except _FAILURES as exc:
            log.warning("! the catalog could not be read: %s", exc or type(exc).__name__)
        except Exception:
            # Our own bug, or names in no encoding: whatever it is, nobody may go on with what nobody verifies.
            log.exception("! the catalog could not be understood")
            self._publish(None)
        self.metrics.failures += 1
        await self._disconnect()
        return False

    async def _round(self) -> None:
        """Verify what is known, or read everything."""
        is_new = self._connection is None
        if is_new:
            self._connection = await self._connect()
        asked_at, epoch = self._clock.now(), self._epoch
        if self._last is not None and not is_new:
            self.metrics.polls += 1
            found = await fingerprint(self._connection)
            self._took_seconds = self._clock.now() - asked_at
            if epoch != self._epoch:
                return  # it is void already
            if found == self._last.fingerprint:
                self._verified_at = asked_at
                self._publish(self._last)
                return
            self.end_epoch()
            epoch = self._epoch
        await self._load(asked_at, epoch)

    async def _load(self, asked_at: float, epoch: int) -> None:
        catalog = await load(self._connection, epoch=epoch, declarations=self._declarations)
        self.metrics.loads += 1
        if epoch != self._epoch:
            return  # DDL was committed meanwhile: the snapshot may be from before it
        if catalog is None:
            log.warning("! the origin does not tell its system identifier: nothing is cached")
            return
        last = self._last
        if last is not None and (last.fingerprint, last.identity) != (catalog.fingerprint, catalog.identity):
            self.end_epoch()  # another server, or changed while the connection was lost
            catalog.epoch = self._epoch
            last = None
        self._last = last or catalog
        self._verified_at = asked_at
        self._publish(self._last)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
            await asyncio.sleep(0)


# --- connecting --------------------------------------------------------------------------------------------------------


def connector(origin: Origin, credentials: OriginCredentials, database: str) -> Connect:
    """Return what opens asyncpg connections to *database* of *origin*: its addresses in turn, TLS as its policy says.

    asyncpg needs the password itself: with a SCRAM secret alone it cannot log in.
    """

    async def connect() -> Any:
        failure: Exception | None = None
        for address in origin.addresses:
            try:
                return await _open(origin, origin.tls, address, credentials, database)
            except _FAILURES as exc:
                failure = exc
        raise failure or OSError("the origin has no address")

    return connect


async def _open(origin: Origin, tls: TlsPolicy, address: Address, credentials: OriginCredentials, database: str) -> Any:
    context = tls.context if tls.starts_with_tls and not address.is_unix else False
    try:
        return await asyncpg.connect(
            host=address.host_address or address.host,
            port=address.port,
            user=credentials.user.decode(),
            password=None if credentials.password is None else credentials.password.decode(),
            database=database,
            ssl=context,
            direct_tls=bool(context) and tls.negotiation is Negotiation.DIRECT,
            timeout=origin.connect_seconds or 60.0,
            statement_cache_size=0,
            server_settings={"application_name": "hyperdrive catalog"},
        )
    except (ConnectionError, asyncpg.InvalidAuthorizationSpecificationError):
        # No TLS there, or pg_hba.conf wants the other of TLS and clear text (libpq: allow, prefer).
        again = tls.after_refusal(used_tls=bool(context))
        if again is None or address.is_unix:
            raise
        return await _open(origin, replace(again), address, credentials, database)
