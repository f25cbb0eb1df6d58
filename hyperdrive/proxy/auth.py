"""Who may log in, and with what their pools log in at the origin.

Users come from the origin's connection string, from the configuration, and from ``auth_query``, in this order; hazard W-07 says
how that query may run. Secrets are kept for seconds, so that a storm of logins is one query per user and a change of password
is noticed soon. Knows asyncpg; knows neither clients nor pools.

What a pool for a user can log in with (``UserDirectory.origin_credentials``):

=============================  ================================================================================================
the directory has              towards the origin
=============================  ================================================================================================
the plaintext password         every method
a SCRAM secret                 SCRAM, once a client has logged in: its proof shows the ClientKey, which fits the origin if salt
                               and iteration count are the same there, as they are when the secret comes from ``auth_query``;
                               every method, if the client sent its password in cleartext
an md5 hash                    md5
nothing (trust, certificates)  whatever the origin accepts without a password
=============================  ================================================================================================
"""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

import asyncpg
from cachetools import LRUCache, TTLCache

from hyperdrive.clock import Clock, SystemClock
from hyperdrive.dsn import Dsn
from hyperdrive.errors import HyperdriveError, NotReady, OriginError, OriginUnreachable
from hyperdrive.net.contexts import TlsPolicy
from hyperdrive.pgwire import scram
from hyperdrive.pgwire.passwords import (
    Md5Secret,
    OriginCredentials,
    PlainPassword,
    Secret,
    TrustedUser,
    parse_secret,
)
from hyperdrive.pgwire.scram import ScramKeys
from hyperdrive.tasks import spawn

DEFAULT_AUTH_QUERY: Final = (
    "SELECT rolname, rolpassword, rolvaliduntil FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin"
)
_CLIENT_TEXT: Final = "users could not be looked up"


@dataclass(frozen=True, slots=True)
class DirectorySettings:
    """How long answers of ``auth_query`` are kept, and of how many users."""

    known_seconds: float = 10.0
    unknown_seconds: float = 2.0
    recheck_seconds: float = 1.0
    """How old an answer must be before a failed login makes us ask again: who guesses must not be able to cause a query each."""
    max_users: int = 10_000
    scram_iterations: int = scram.DEFAULT_ITERATIONS
    """Of passwords known in the clear. The handshake's policy must say the same, or unknown users would show."""


@dataclass(frozen=True, slots=True)
class StoredPassword:
    """A row of ``auth_query``."""

    secret: str | None
    valid_until: datetime.datetime | None = None


class AuthQuery(Protocol):
    """Where users that are not configured come from."""

    async def fetch(self, user: str) -> StoredPassword | None:
        """Return what is stored for *user*; raises ``HyperdriveError`` when that cannot be found out."""

    async def close(self) -> None: ...


def configured_users(origin: Dsn, passwords: Mapping[str, str]) -> dict[str, Secret]:
    """The user of *origin*, and those of the configuration, whose passwords may be stored as PostgreSQL stores them.

    Without a password in *origin* its user is trusted, where the listener may trust anybody. An empty password in the
    configuration says nothing about how that user logs in. An entry for the origin's own user wins over its URL's.
    """
    users: dict[str, Secret] = {
        origin.user: TrustedUser() if origin.password is None else PlainPassword(origin.password.encode())
    }
    users.update((name, parse_secret(text)) for name, text in passwords.items() if text)
    return users


class Pending(Enum):
    """``UserDirectory.look_up_nowait`` cannot say without waiting."""

    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class _Entry:
    secret: Secret | None
    valid_until: datetime.datetime | None = None
    read_at: float = 0.0


class UserDirectory:
    """Secrets by user name. One per origin; ``close`` it at the end.

    *process_secret* is the handshake's ``mock_key``: salts made here must look like those of users who do not exist. *origin*
    is what the origin's connection string says; for its user it wins, since clients may be given another password.
    """

    def __init__(
        self,
        users: Mapping[str, Secret],
        *,
        process_secret: bytes,
        origin: OriginCredentials | None = None,
        auth_query: AuthQuery | None = None,
        settings: DirectorySettings = DirectorySettings(),
        clock: Clock | None = None,
    ) -> None:
        self._users = dict(users)
        self._process_secret = process_secret
        self._settings = settings
        self._origin = origin
        self._auth_query = auth_query
        self._clock = clock = clock or SystemClock()
        self._known: TTLCache[str, _Entry] = TTLCache(settings.max_users, settings.known_seconds, clock.now)
        self._unknown: TTLCache[str, _Entry] = TTLCache(settings.max_users, settings.unknown_seconds, clock.now)
        self._flights: dict[str, asyncio.Task[_Entry | HyperdriveError]] = {}
        self._abandoned: set[asyncio.Task[_Entry | HyperdriveError]] = set()
        # What logged in last, for the origin's sake; outlives the entries above, since pools do.
        self._learned: LRUCache[str, OriginCredentials] = LRUCache(settings.max_users)
        self.queries = 0
        """How often ``auth_query`` ran."""

    # -- towards clients

    def look_up_nowait(self, user: str, database: str) -> Secret | Pending | None:
        """What is known of *user* at this moment, or ``Pending``. The *database* makes no difference within an origin."""
        secret = self._users.get(user)
        if secret is not None:
            return Pending.PENDING if isinstance(secret, PlainPassword) and secret.keys is None else secret
        if self._auth_query is None or not _is_name(user):
            return None
        entry = self._known.get(user) or self._unknown.get(user)
        return Pending.PENDING if entry is None else self._valid(entry)

    async def look_up(self, user: str, database: str) -> Secret | None:
        """Return what is known of *user*, ``None`` for one that cannot log in.

        Waiting for the same user is shared. Cancelling is safe: the query goes on for the others.

        Raises:
            OriginError: ``auth_query`` failed.
            NotReady: the origin does not accept connections at the moment.
        """
        found = self.look_up_nowait(user, database)
        if not isinstance(found, Pending):
            return found
        flight = self._flights.get(user)
        if flight is None:
            # Failure is a value here: it belongs to all who wait, and to nobody who has left.
            flight = self._flights[user] = spawn(self._fill(user), name=f"look up user {user!r}")
            flight.add_done_callback(lambda done: self._landed(user, done))
        outcome = await asyncio.shield(flight)
        if isinstance(outcome, HyperdriveError):
            raise outcome
        return self._valid(outcome)

    async def _fill(self, user: str) -> _Entry | HyperdriveError:
        try:
            secret = self._users.get(user)
            if secret is not None:
                return _Entry(await self._with_keys(user, secret))
            assert self._auth_query is not None
            self.queries += 1
            row = await self._auth_query.fetch(user)
            if row is None or not row.secret:
                return _Entry(None, None, self._clock.now())
            secret = await self._with_keys(user, parse_secret(row.secret))
            return _Entry(secret, row.valid_until, self._clock.now())
        except HyperdriveError as error:
            return error

    def _landed(self, user: str, flight: asyncio.Task[_Entry | HyperdriveError]) -> None:
        self._abandoned.discard(flight)
        if self._flights.get(user) is not flight:
            return  # forgotten meanwhile: what it found may be older than the reason for that
        del self._flights[user]
        if flight.cancelled() or flight.exception() is not None:
            return
        entry = flight.result()
        if isinstance(entry, HyperdriveError):
            return
        if user in self._users:
            if isinstance(entry.secret, PlainPassword):
                self._users[user] = entry.secret  # the same password, now with its keys
        elif entry.secret is None:
            self._unknown[user] = entry
        else:
            self._known[user] = entry

    async def _with_keys(self, user: str, secret: Secret) -> Secret:
        if not isinstance(secret, PlainPassword):
            return secret
        salt = scram.salt_for(user.encode("utf-8", "surrogateescape"), self._process_secret)
        iterations = self._settings.scram_iterations
        keys = await asyncio.to_thread(scram.derive_keys, secret.password, salt, iterations)
        return PlainPassword(secret.password, keys)

    def _valid(self, entry: _Entry) -> Secret | None:
        """``VALID UNTIL`` is judged at each login, not when the entry was read."""
        until = entry.valid_until
        if until is None:
            return entry.secret
        if until.tzinfo is None:
            until = until.replace(tzinfo=datetime.UTC)
        now = datetime.datetime.fromtimestamp(self._clock.wall(), datetime.UTC)
        return None if until < now else entry.secret

    def client_refused(self, user: str) -> None:
        """A client's login failed: its password may have been changed since the secret was read, so read it anew soon.

        What was learned stays: a stranger's failure must not lock the user's pool out of the origin.
        """
        entry = self._known.get(user) or self._unknown.get(user)
        if entry is not None and self._clock.now() - entry.read_at >= self._settings.recheck_seconds:
            self.forget(user)

    def forget(self, user: str) -> None:
        """Read the user's secret anew next time; an answer that is under way now is for those who wait for it only."""
        self._known.pop(user, None)
        self._unknown.pop(user, None)
        flight = self._flights.pop(user, None)
        if flight is not None:
            self._abandoned.add(flight)

    def replace_users(self, users: Mapping[str, Secret]) -> None:
        """Take the users of a changed configuration. Sessions go on; the next login counts."""
        for name in self._users.keys() | users.keys():
            if self._users.get(name) != users.get(name):
                self._learned.pop(name, None)
                self.forget(name)
        self._users = dict(users)

    async def replace_auth_query(self, query: AuthQuery | None) -> None:
        """Ask *query* from now on."""
        before, self._auth_query = self._auth_query, query
        self._known.clear()
        self._unknown.clear()
        if before is not None:
            await before.close()

    # -- towards the origin

    def learn(self, user: str, learned: ScramKeys | PlainPassword | None) -> None:
        """Keep what a client has just proved (``Admit.learned``), or keys that were derived for a login at the origin."""
        if learned is None:
            return
        before = self._learned.get(user) or OriginCredentials(_raw(user))
        if isinstance(learned, PlainPassword):
            after = OriginCredentials(before.user, learned.password, before.md5, before.keys)
        else:
            # Two: a primary and a standby of another cluster may have stored the password with different salts.
            others = [
                keys for keys in before.keys if (keys.salt, keys.iterations) != (learned.salt, learned.iterations)
            ]
            after = OriginCredentials(before.user, before.password, before.md5, (learned, *others[:1]))
        self._learned[user] = after

    def origin_credentials(self, user: str) -> OriginCredentials:
        """Everything with which a pool of *user* could log in at the origin, perhaps nothing; see the table above."""
        learned = self._learned.get(user) or OriginCredentials(_raw(user))
        password, md5 = learned.password, learned.md5
        secret = self._users.get(user)
        if secret is None:
            entry = self._known.get(user)
            secret = entry.secret if entry is not None else None
        if isinstance(secret, PlainPassword):
            password = secret.password
        elif isinstance(secret, Md5Secret):
            md5 = secret
        if self._origin is not None and self._origin.user == learned.user:
            password = self._origin.password
        return OriginCredentials(learned.user, password, md5, learned.keys)

    def origin_refused(self, user: str, sqlstate: str) -> None:
        """The origin did not let *user* in: with class 28 the secret is read anew (W-62), with 28P01 nothing learned holds."""
        if sqlstate == "28P01":
            self._learned.pop(user, None)
        if sqlstate.startswith("28"):
            self.forget(user)

    async def close(self) -> None:
        """End look-ups that are under way, and the connection of ``auth_query``."""
        flights = [*self._flights.values(), *self._abandoned]
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        if self._auth_query is not None:
            await self._auth_query.close()


# ---- auth_query ---------------------------------------------------------------------------------------------------------

Connect = Callable[[], Awaitable["asyncpg.Connection[Any]"]]


class PostgresAuthQuery:
    """``auth_query`` on a connection of its own, opened when it is first needed and kept.

    *query* has one parameter, the user's name, and returns name, stored password and, if it has a third column, until when
    that is valid. Nothing of a client goes to this connection but that one bind parameter.
    """

    def __init__(self, connect: Connect, query: str = DEFAULT_AUTH_QUERY, *, timeout_seconds: float = 5.0) -> None:
        self._connect = connect
        self._query = query
        self._timeout_seconds = timeout_seconds
        self._connection: asyncpg.Connection[Any] | None = None
        self._turn = asyncio.Lock()

    async def fetch(self, user: str) -> StoredPassword | None:
        """Run the query; look-ups take turns, the time limit counts from when theirs comes.

        Raises:
            NotReady: the origin starts, stops or has no connection left (temporary).
            OriginError: it cannot be reached, or refused the query.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    row = await self._fetch_row(user)
            except (asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError) as exc:
                raise NotReady(_CLIENT_TEXT, log_text=f"auth_query: {exc}", safe_to_retry=True) from exc
            except asyncpg.PostgresError as exc:
                raise OriginError(_CLIENT_TEXT, log_text=f"auth_query: {exc} ({exc.sqlstate})") from exc
            except (OSError, asyncpg.InterfaceError) as exc:  # a TimeoutError is an OSError
                await self._drop()
                text = f"auth_query: {exc or type(exc).__name__}"
                raise OriginUnreachable(_CLIENT_TEXT, log_text=text, safe_to_retry=True) from exc
            except BaseException:
                await self._drop()
                raise
        if row is None:
            return None
        if len(row) < 2:
            raise OriginError(_CLIENT_TEXT, log_text="auth_query must return the user's name and stored password")
        if row[0] != user:
            # A query that finds by pattern or ignores its parameter would let one user in with another's password.
            raise OriginError(_CLIENT_TEXT, log_text=f"auth_query returned {row[0]!r} when asked for {user!r}")
        valid_until = row[2] if len(row) > 2 else None
        if not isinstance(row[1], str | None) or not isinstance(valid_until, datetime.datetime | None):
            raise OriginError(_CLIENT_TEXT, log_text="auth_query must return a text and a timestamp with time zone")
        return StoredPassword(row[1], valid_until)

    async def _fetch_row(self, user: str) -> asyncpg.Record | None:
        reused = self._connection is not None and not self._connection.is_closed()
        try:
            return await self._ask(user)
        except (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError):
            # A kept connection may have been cut while nobody used it; that is no answer.
            if not reused:
                raise
            await self._drop()
            return await self._ask(user)

    async def _ask(self, user: str) -> asyncpg.Record | None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        return await self._connection.fetchrow(self._query, user)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=1.0)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()


def auth_connector(
    origin: Dsn, tls: TlsPolicy, *, timeout_seconds: float = 5.0, application_name: str = "hyperdrive auth_query"
) -> Connect:
    """How ``PostgresAuthQuery`` connects: to *origin*, as its user, with settings that nobody else can influence.

    ``search_path`` is a start-up parameter, so it wins over ALTER ROLE and ALTER DATABASE; CVE-2025-12819 in PgBouncer
    came from leaving it to others.
    """

    async def connect() -> asyncpg.Connection[Any]:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            host=[host.host if tls.checks_name else host.address for host in origin.hosts],
            port=[host.port for host in origin.hosts],
            user=origin.user,
            # Not given is not the same as empty: asyncpg would ask the environment.
            password=origin.password or "",
            database=origin.database,
            ssl=_asyncpg_ssl(tls),
            timeout=timeout_seconds,
            statement_cache_size=0,
            server_settings={"search_path": "pg_catalog", "application_name": application_name},
        )
        return connection

    return connect


def _asyncpg_ssl(tls: TlsPolicy) -> ssl.SSLContext | str | bool:
    if not tls.starts_with_tls:
        return "allow" if tls.mode.value == "allow" else False
    return tls.context if tls.requires_tls else "prefer"


def _is_name(user: str) -> bool:
    """Whether a role can be called so; bytes that are no UTF-8 cannot be sent as a parameter."""
    try:
        return "\0" not in user and bool(user.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _raw(user: str) -> bytes:
    return user.encode("utf-8", "surrogateescape")
