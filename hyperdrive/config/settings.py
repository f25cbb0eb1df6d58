"""Every setting: its name, default, meaning, and whether RELOAD may change it.

This is the one table that the loader, ``SHOW CONFIG`` and the reference page (``docs/settings.md``) are made from. The
packages below never see it: each has a settings class of its own, whose defaults hold here, too, and which ``pool`` and
``socket_options`` fill from this one.
"""

# ruff: noqa: RUF009 - _setting() makes a field

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from hyperdrive.config.units import (
    ADDRESS,
    ADDRESSES,
    DURATION,
    FLAG,
    NAMES,
    SIZE,
    TEXT,
    Address,
    Kind,
    choice,
    mode_bits,
    whole,
)
from hyperdrive.dsn import Dsn, parse_dsn
from hyperdrive.net.redis import SCHEMES, without_password
from hyperdrive.net.transport import SocketOptions
from hyperdrive.pgwire import scram
from hyperdrive.pool.settings import PoolMode, PoolSettings

CACHE = choice("on", "off", "shadow")
POOL_MODE = choice("transaction", "session", "statement")
EAGER = choice("off", "on", "always")
AUTH_METHOD = choice("scram", "md5", "password", "cert", "trust")
LOG_LEVEL = choice("debug", "info", "warning", "error")


def _origin(value: object) -> Dsn | None:
    if not isinstance(value, str):
        raise ValueError
    return parse_dsn(value) if value.strip() else None


def _functions(value: object) -> tuple[str, ...]:
    names: tuple[str, ...] = NAMES.read(value)
    if not all(_FUNCTION.fullmatch(name) for name in names):
        raise ValueError
    return names


_FUNCTION = re.compile(r"[^.=+\s]+\.[^=+\s]+(?:=[^.=+\s]+\.[^=+\s]+(?:\+[^.=+\s]+\.[^=+\s]+)*)?")
FUNCTIONS = Kind("functions", "schema.function or schema.function=schema.table+schema.table", _functions, NAMES.show)


def _second(value: object) -> str:
    if not isinstance(value, str) or (value and not value.startswith(SCHEMES)):
        raise ValueError
    return value


SECOND = Kind("URL", "redis://, rediss:// or unix://, such as redis://cache.internal:6379/0", _second, without_password)

ORIGIN = Kind(
    "connection string",
    "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or host=… user=…",
    _origin,
    lambda d: str(d or ""),
)


_POOL = PoolSettings()
_SOCKET = SocketOptions()


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the table says of a setting besides its default."""

    kind: Kind
    text: str
    section: str
    live: bool


def _setting(kind: Kind, default: Any, text: str, section: str = "", *, live: bool = False) -> Any:
    return field(default=default, metadata={"meaning": Meaning(kind, text, section, live)})


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """``[databases.NAME]``: what differs for clients that ask for database NAME; ``None`` means as for all."""

    dbname: str = _setting(TEXT, "", "The database at the origin; the same name if left out.")
    pool_mode: str | None = _setting(POOL_MODE, None, "When a client gives its server back.", live=True)
    pool_size: int | None = _setting(whole(1, 10000), None, "Most server connections per user.", live=True)
    min_pool_size: int | None = _setting(whole(0, 10000), None, "Server connections kept ready.", live=True)
    max_db_connections: int | None = _setting(
        whole(0), None, "Most server connections of this database, for all its users; 0 is no limit.", live=True
    )
    cache: bool | None = _setting(FLAG, None, "Whether the cache has a part in what clients ask here.", live=True)


@dataclass(frozen=True, slots=True)
class TableSettings:
    """``[tables."PATTERN"]``: what differs for reads of the relations whose ``schema.name`` matches; ``None`` means as for all."""

    max_age: float | None = _setting(DURATION, None, "How old an answer may be.", live=True)
    stale_while_revalidate: float | None = _setting(
        DURATION, None, "How much older while it is being asked for again.", live=True
    )
    stale_if_error: float | None = _setting(
        DURATION, None, "How much older while the database cannot be reached.", live=True
    )
    cache: bool | None = _setting(FLAG, None, "Whether reads of it are cached at all.", live=True)


@dataclass(frozen=True, slots=True)
class UserSettings:
    """``[users]``: who may log in besides the user of ``origin``; ``NAME = "…"`` is short for ``password``."""

    password: str = field(
        default="",
        repr=False,
        metadata={
            "meaning": Meaning(
                TEXT,
                "The password, or what PostgreSQL stores of it (`SCRAM-SHA-256$…`, `md5…`).",
                "",
                True,
            )
        },
    )
    pool_mode: str | None = _setting(POOL_MODE, None, "When a client of this user gives its server back.", live=True)
    max_user_connections: int | None = _setting(
        whole(0), None, "Most server connections of this user, in all databases; 0 is no limit.", live=True
    )
    cache: bool | None = _setting(FLAG, None, "Whether the cache has a part in what this user asks.", live=True)


_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a process. Durations are seconds, sizes bytes; 0 means "no limit" or "never" where it says so."""

    # ── origin ──
    origin: Dsn | None = _setting(
        ORIGIN,
        None,
        "The PostgreSQL behind us, as libpq writes it. Its user and password are also what clients log in with. Left out,"
        " an embedded PostgreSQL is started in `.hyperdrive/`.",
        "Origin",
    )
    connect_timeout: float = _setting(
        DURATION,
        _POOL.connect_timeout,
        "How long reaching the origin may take, TLS included (its name is resolved anew each time); a `connect_timeout` in its connection string counts where it"
        " is shorter. As PgBouncer's `server_connect_timeout`.",
        live=True,
    )
    server_login_timeout: float = _setting(
        DURATION, _POOL.login_timeout, "How long logging in there may take after that.", live=True
    )
    backoff_first: float = _setting(
        DURATION, _POOL.backoff_first, "The pause after a failed connect; it doubles with each failure.", live=True
    )
    backoff_max: float = _setting(
        DURATION, _POOL.backoff_max, "The longest such pause. As PgBouncer's `server_login_retry`.", live=True
    )
    refused_retry: float = _setting(
        DURATION,
        _POOL.refused_retry,
        "After the origin refused a login, clients are told so for this long without asking it again.",
        live=True,
    )
    max_connecting: int = _setting(
        whole(1, 1000), _POOL.max_connecting, "Server connections that one pool opens at the same time.", live=True
    )
    listen: tuple[Address, ...] = _setting(
        ADDRESSES,
        (Address("127.0.0.1", 6543),),
        "Where clients connect. Port 0 takes any free one. `*:6543` listens on every address.",
        "Listening",
    )
    unix_socket_dir: str = _setting(
        TEXT,
        "",
        "A directory for a unix-domain socket, named `.s.PGSQL.PORT` after the first `listen` port; empty: none.",
    )
    unix_socket_mode: int = _setting(mode_bits(), 0o777, "Permissions of that socket. As PostgreSQL's default.")
    admin_listen: Address | None = _setting(
        ADDRESS, Address("127.0.0.1", 6544), "Where the status page and metrics are served over HTTP, or `off`."
    )
    workers: int = _setting(
        whole(1, 256), 1, "Processes that share the ports and split the limits between them. One uses one core."
    )
    max_client_connections: int = _setting(
        whole(1), 10000, "Most clients at a time; the next one gets `53300`. An idle client costs a few KiB.", live=True
    )
    client_login_timeout: float = _setting(
        DURATION, 60.0, "How long a client may take to log in. As in PgBouncer; PostgreSQL's is 1min, too.", live=True
    )
    client_idle_timeout: float = _setting(
        DURATION, 0.0, "How long a client may stay connected without asking anything; 0: for ever.", live=True
    )
    idle_transaction_timeout: float = _setting(
        DURATION,
        0.0,
        "How long a client may sit in a transaction without asking anything; it holds a server that others wait for. 0: for"
        " ever.",
        live=True,
    )
    tcp_keepalive: bool = _setting(
        FLAG, _SOCKET.keepalive, "Whether the kernel probes quiet TCP connections, on both sides."
    )
    tcp_keepalive_idle: float = _setting(
        DURATION,
        _SOCKET.keepalive_idle_seconds,
        "Quiet time before the first probe; 0: the system's. Load balancers commonly forget a connection after 350 s.",
    )
    tcp_keepalive_interval: float = _setting(
        DURATION, _SOCKET.keepalive_interval_seconds, "Time between probes; 0: the system's."
    )
    tcp_keepalive_count: int = _setting(
        whole(0, 127), _SOCKET.keepalive_count, "Unanswered probes before the peer counts as gone; 0: the system's."
    )
    tcp_user_timeout: float = _setting(
        DURATION,
        _SOCKET.user_timeout_seconds,
        "How long sent bytes may stay unacknowledged before the peer counts as gone; 0: the system's.",
    )
    write_buffer_size: int = _setting(
        SIZE, 256 * 1024, "Bytes waiting to be sent to one peer before we stop reading from the other side."
    )
    # ── pool ──
    pool_mode: str = _setting(
        POOL_MODE,
        "transaction",
        "When a client gives its server back: after each `transaction`, when its `session` ends, or after each `statement`"
        " (transactions of several statements are then refused).",
        "Pool",
        live=True,
    )
    pool_size: int = _setting(
        whole(1, 10000), _POOL.pool_size, "Most server connections per database and user. As in PgBouncer.", live=True
    )
    min_pool_size: int = _setting(
        whole(0, 10000),
        _POOL.min_size,
        "Server connections kept ready for each database and user in use, so that no client waits for a connect.",
        live=True,
    )
    max_db_connections: int = _setting(
        whole(0), 0, "Most server connections per database, for all its users; 0: no limit.", live=True
    )
    max_user_connections: int = _setting(
        whole(0), 0, "Most server connections per user, in all databases; 0: no limit.", live=True
    )
    max_server_connections: int = _setting(
        whole(0),
        0,
        "Most server connections in all; 0: no limit. PostgreSQL's own `max_connections` is 100.",
        live=True,
    )
    query_wait_timeout: float = _setting(
        DURATION,
        _POOL.query_wait_timeout,
        "How long a client waits for a free server before it gets `53300`; 0: for ever. (PgBouncer: 120 s.)",
        live=True,
    )
    server_lifetime: float = _setting(
        DURATION,
        _POOL.server_lifetime,
        "Age at which a server connection is replaced, up to a tenth earlier; 0: never. As in PgBouncer.",
        live=True,
    )
    server_idle_timeout: float = _setting(
        DURATION,
        _POOL.server_idle_timeout,
        "How long a server connection above `min_pool_size` stays unused before it is closed; 0: for ever. As in PgBouncer.",
        live=True,
    )
    server_check_delay: float = _setting(
        DURATION,
        _POOL.server_check_delay,
        "How long a server connection may sit unused before it is probed, off the query path; 0: never.",
        live=True,
    )
    server_check_timeout: float = _setting(
        DURATION, _POOL.probe_timeout, "How long the answer to that probe may take.", live=True
    )
    pool_idle_timeout: float = _setting(
        DURATION,
        _POOL.unused_pool_timeout,
        "How long a pool without clients is kept. As PgBouncer's `autodb_idle_timeout`.",
        live=True,
    )
    max_prepared_statements: int = _setting(
        whole(0, 100000), 200, "Prepared statements kept on each server connection, least used first out.", live=True
    )
    pin_unknown: bool = _setting(
        FLAG,
        False,
        "Whether a statement that cannot be classified keeps its server for the client until it leaves.",
        live=True,
    )
    # ── round trips ──
    hold_begin: bool = _setting(
        FLAG,
        True,
        "Whether BEGIN is answered here and travels with the first statement, and a transaction that never reached the origin"
        " ends here.",
        "Round trips",
        live=True,
    )
    eager_rollback: str = _setting(
        EAGER,
        "on",
        "Whether ROLLBACK is answered at once and carried out behind. Its locks are released up to half a round trip later"
        " than the client is told, so `on` leaves out transactions that took locks for others to wait for (LOCK, FOR UPDATE,"
        " advisory locks); `always` does not.",
        live=True,
    )
    eager_commit: bool = _setting(
        FLAG,
        True,
        "Whether COMMIT of a transaction that provably only read is answered at once and carried out behind.",
        live=True,
    )
    local_settings: bool = _setting(
        FLAG,
        True,
        "Whether SET, RESET and SHOW of what the origin is known to accept are answered here; they travel with the next statement."
        " Likewise UNLISTEN, CLOSE ALL and DISCARD of what a session has none of.",
        live=True,
    )
    known_statements: bool = _setting(
        FLAG,
        True,
        "Whether Parse and Describe of a statement that was described before are answered here, while the schema has not changed.",
        live=True,
    )
    known_answers: bool = _setting(
        FLAG,
        True,
        "Whether what drivers ask of each new connection (`version()`, types, tables) is answered here, while the schema has not"
        " changed, and the empty queries with which they check one; also with `cache = off`. This and `eager_commit` need the catalog of each database, which is loaded and polled"
        " over a connection of its own every `catalog_poll`.",
        live=True,
    )
    # ── cache ──
    cache: str = _setting(
        CACHE,
        "on",
        "Whether reads are answered from memory where that is proven right. `off` is the kill switch: with RELOAD everything that is"
        " stored goes at once. `shadow` serves nothing, and counts what it would have served and how often that would have been stale.",
        "Cache",
        live=True,
    )
    cache_size: int = _setting(
        SIZE, 256 * 1024 * 1024, "Bytes of memory for answers, for all workers together, overhead included.", live=True
    )
    cache_entry_size: int = _setting(
        SIZE,
        4 * 1024 * 1024,
        "Larger answers are passed on and not stored. (Cloudflare's Hyperdrive: 50 MB.)",
        live=True,
    )
    max_age: float = _setting(
        DURATION,
        60.0,
        "How old an answer may be, counted from when it was asked for. What is written through us drops answers at once; this is the"
        " bound for what is written past us. As Cloudflare's Hyperdrive.",
        live=True,
    )
    stale_while_revalidate: float = _setting(
        DURATION,
        15.0,
        "How much older an answer may be while it is being asked for again, once and behind the client. As Cloudflare's Hyperdrive.",
        live=True,
    )
    stale_if_error: float = _setting(
        DURATION,
        0.0,
        "How much older than `max_age` an answer may be while the database cannot be reached; 0: not at all. What is known to have"
        " changed is not served then either.",
        live=True,
    )
    cache_redis: str = _setting(
        SECOND,
        "",
        "A Redis or Valkey server where several processes share their answers, such as `redis://cache.internal:6379/0`; `rediss://` is"
        " TLS. What this process has not in its own memory is looked for there before the database is asked, and what it was told is"
        " kept there. If the server is lost, slow or empty, that is a miss. Whoever can write to it can put answers into the cache:"
        " protect it like the database. Needs `pip install hyperdrive[redis]`. Empty: none.",
    )
    cache_redis_timeout: float = _setting(
        DURATION,
        0.02,
        "How long a client may wait for `cache_redis` before the database is asked. After three such waits in a row the connection is"
        " given up and opened anew in the background, and meanwhile nobody waits.",
    )
    cache_in_transactions: str = _setting(
        choice("auto", "always", "never"),
        "auto",
        "Whether reads inside a READ COMMITTED transaction that has not written are answered from memory. `auto`: in READ ONLY ones,"
        " so that no program decides on old data what it writes; `always`: in others as well; `never`: in none.",
        live=True,
    )
    catalog_poll: float = _setting(
        DURATION,
        15.0,
        "How often the database's catalogs are asked whether tables, views, functions, rights or settings were changed past us: the"
        " bound for what such a change leaves unseen.",
        live=True,
    )
    cache_trust_immutable: bool = _setting(
        FLAG,
        True,
        "Whether functions and operators of your own that are marked IMMUTABLE may be part of a cached read. What is marked STABLE or"
        " VOLATILE never is, unless `cache_functions` says so.",
    )
    cache_functions: tuple[str, ...] = _setting(
        FUNCTIONS,
        (),
        "Functions of your own of which the cache cannot know what they touch, with the tables: `public.price=public.items+public.rates`,"
        " or `public.norm` alone where there are none. A STABLE function so named may be part of a cached read, which is dropped when the"
        " tables change; a trigger function so named no longer makes each write to its table one that may have changed anything.",
    )
    cache_types: tuple[str, ...] = _setting(
        NAMES,
        (),
        "Types of extensions whose functions you vouch for: `citext`, `hstore`, `public.vector`. Reads of columns of other such types"
        " are not cached.",
    )
    cache_age_only: tuple[str, ...] = _setting(
        NAMES,
        (),
        "Patterns of foreign and unlogged tables, such as `public.remote_*`, whose reads may be cached although nobody tells when they"
        " change: their answers may be as old as `max_age`.",
    )
    cache_clean_dates: bool = _setting(
        FLAG,
        False,
        "Whether you vouch that no text in the database says `now`, `today`, `tomorrow` or `yesterday` where a statement turns it into"
        " a date or time, as in `(document->>'day')::date`. Without that such reads are not cached.",
    )
    # ── who may log in ──
    auth_method: str = _setting(
        AUTH_METHOD,
        "scram",
        "How clients prove who they are. `password` only over TLS or from this machine; `cert` by a certificate of"
        " `tls_client_ca` whose common name is the user; `trust` not at all, and only from this machine.",
        "Authentication",
    )
    scram_iterations: int = _setting(
        whole(1, scram.MAX_ITERATIONS),
        scram.DEFAULT_ITERATIONS,
        "How often the hash of SCRAM is applied to a password that we know in the clear; users with a stored secret keep its count."
        " Each login costs the client so much computing, 2 to 5 ms with 4096. Those protect a recorded login against guessing the"
        " password, so fewer are accepted only where nobody can listen: on loopback and unix sockets, or with `tls_require`. pg8000"
        " refuses fewer than 4096, and so did pgjdbc (42.7.3 does, 42.7.7 does not). As PostgreSQL 16's setting.",
    )
    auth_query: str = _setting(
        TEXT,
        "",
        "A query with one parameter, the user's name, that returns name and stored password of users that are not in"
        " `[users]`; runs as `auth_user` with `search_path` fixed to `pg_catalog`. `default`: the one that reads `pg_authid`,"
        " for which `auth_user` must be a superuser. Empty: none.",
        live=True,
    )
    auth_user: str = _setting(TEXT, "", "Who runs `auth_query`; must be in `[users]`. Empty: the user of `origin`.")
    auth_dbname: str = _setting(TEXT, "", "Where `auth_query` runs. Empty: the database of `origin`.")
    admin_users: tuple[str, ...] = _setting(
        NAMES, (), "Who may do everything in the console. The user of `origin` always may.", live=True
    )
    stats_users: tuple[str, ...] = _setting(NAMES, (), "Who may only look, with SHOW, in the console.", live=True)
    # ── TLS towards clients ──
    tls_cert: str = _setting(
        TEXT,
        "",
        "A file with our certificate and its chain, PEM. With it, clients may use TLS. (TLS towards the origin is set in its"
        " connection string: `sslmode` and its relatives.)",
        "TLS towards clients",
        live=True,
    )
    tls_key: str = _setting(TEXT, "", "The file with its private key.", live=True)
    tls_client_ca: str = _setting(TEXT, "", "Authorities whose certificates clients may present, PEM.", live=True)
    tls_require: bool = _setting(FLAG, False, "Whether clients over TCP without TLS are turned away.", live=True)
    # ── logging ──
    log_level: str = _setting(LOG_LEVEL, "info", "What is worth a line on standard error.", "Logging", live=True)
    log_format: str = _setting(choice("text", "json"), "text", "Lines for people, or one JSON object per line.")
    # ── tables ──
    users: Mapping[str, UserSettings] = field(default_factory=lambda: _EMPTY)
    databases: Mapping[str, DatabaseSettings] = field(default_factory=lambda: _EMPTY)
    tables: Mapping[str, TableSettings] = field(default_factory=lambda: _EMPTY)

    def database(self, name: str) -> DatabaseSettings:
        """What ``[databases.NAME]`` says, completed from the settings for all."""
        own = self.databases.get(name) or DatabaseSettings()
        return DatabaseSettings(
            dbname=own.dbname or name,
            pool_mode=own.pool_mode or self.pool_mode,
            pool_size=self.pool_size if own.pool_size is None else own.pool_size,
            min_pool_size=min(
                self.min_pool_size if own.min_pool_size is None else own.min_pool_size,
                self.pool_size if own.pool_size is None else own.pool_size,
            ),
            max_db_connections=self.max_db_connections if own.max_db_connections is None else own.max_db_connections,
            cache=own.cache,
        )

    def uses_cache(self, user: str, database: str) -> bool:
        """Whether the cache has a part in what *user* asks in *database*."""
        own_user, own_database = self.users.get(user), self.databases.get(database)
        return (own_user is None or own_user.cache is not False) and (
            own_database is None or own_database.cache is not False
        )

    def pool(self, user: str, database: str) -> PoolSettings:
        """How the pool of a pair behaves: the user's own settings, then the database's, then those for all."""
        own = self.users.get(user) or UserSettings()
        of_database = self.database(database)
        return PoolSettings(
            pool_size=of_database.pool_size or self.pool_size,
            min_size=of_database.min_pool_size or 0,
            mode=PoolMode(own.pool_mode or of_database.pool_mode),
            query_wait_timeout=self.query_wait_timeout,
            server_lifetime=self.server_lifetime,
            server_idle_timeout=self.server_idle_timeout,
            server_check_delay=self.server_check_delay,
            probe_timeout=self.server_check_timeout,
            connect_timeout=self._connect_timeout(),
            login_timeout=self.server_login_timeout,
            backoff_first=self.backoff_first,
            backoff_max=self.backoff_max,
            refused_retry=self.refused_retry,
            max_connecting=self.max_connecting,
            unused_pool_timeout=self.pool_idle_timeout,
        )

    def _connect_timeout(self) -> float:
        ours, theirs = self.connect_timeout, self.origin.connect_timeout if self.origin else None
        return min(ours or theirs, theirs) if theirs else ours

    def socket_options(self) -> SocketOptions:
        """What is set on every TCP socket."""
        return SocketOptions(
            keepalive=self.tcp_keepalive,
            keepalive_idle_seconds=self.tcp_keepalive_idle,
            keepalive_interval_seconds=self.tcp_keepalive_interval,
            keepalive_count=self.tcp_keepalive_count,
            user_timeout_seconds=self.tcp_user_timeout,
        )

    def max_connections_of(self, user: str) -> int:
        """The limit on server connections of *user*; 0 is no limit."""
        own = self.users.get(user)
        if own is None or own.max_user_connections is None:
            return self.max_user_connections
        return own.max_user_connections


def meanings(cls: type[Any]) -> dict[str, Meaning]:
    """The settings of a class and what the table says of each, in order; tables within are left out."""
    return {f.name: f.metadata["meaning"] for f in dataclasses.fields(cls) if "meaning" in f.metadata}


MEANINGS = meanings(Settings)
DATABASE_MEANINGS = meanings(DatabaseSettings)
USER_MEANINGS = meanings(UserSettings)
TABLE_MEANINGS = meanings(TableSettings)
DEFAULTS = Settings()

_SHORT_FLAGS: Final = {"admin_listen": "admin", "auth_method": "auth"}


def flag_of(key: str) -> str:
    """The flag of the setting *key*, without its dashes."""
    return _SHORT_FLAGS.get(key, key).replace("_", "-")


def shown(settings: Settings) -> list[tuple[str, str, str, bool]]:
    """Each setting with its value and default as texts and whether it is live: the rows of SHOW CONFIG. No passwords."""
    return [
        (key, meaning.kind.show(getattr(settings, key)), meaning.kind.show(getattr(DEFAULTS, key)), meaning.live)
        for key, meaning in MEANINGS.items()
    ]
