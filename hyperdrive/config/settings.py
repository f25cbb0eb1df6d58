"""Every setting: its name, default, meaning, and whether RELOAD may change it.

This is the one table that the loader, ``SHOW CONFIG`` and the reference page (``docs/settings.md``) are made from. The
packages below never see it: each has a settings class of its own, whose defaults hold here, too, and which ``wiring`` fills
from this one.
"""

# ruff: noqa: RUF009 - setting() makes a field

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from hyperdrive.config.entries import DatabaseSettings, TableSettings, UserSettings
from hyperdrive.config.kinds import AUTH_METHOD, CACHE, EAGER, FUNCTIONS, LOG_LEVEL, ORIGIN, POOL_MODE, SECOND
from hyperdrive.config.meaning import meanings, setting
from hyperdrive.config.units import (
    ADDRESS,
    ADDRESSES,
    DURATION,
    FLAG,
    NAMES,
    SIZE,
    TEXT,
    Address,
    choice,
    mode_bits,
    whole,
)
from hyperdrive.dsn import Dsn
from hyperdrive.net.transport import SocketOptions
from hyperdrive.pgwire import scram
from hyperdrive.pool.settings import PoolSettings

_POOL = PoolSettings()
_SOCKET = SocketOptions()
_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a process. Durations are seconds, sizes bytes; 0 means "no limit" or "never" where it says so."""

    # ── origin ──
    origin: Dsn | None = setting(
        ORIGIN,
        None,
        "The PostgreSQL behind us, as libpq writes it. Its user and password are also what clients log in with. Left out,"
        " an embedded PostgreSQL is started in `.hyperdrive/`.",
        "Origin",
    )
    connect_timeout: float = setting(
        DURATION,
        _POOL.connect_timeout,
        "How long reaching the origin may take, TLS included (its name is resolved anew each time); a `connect_timeout` in its connection string counts where it"
        " is shorter. As PgBouncer's `server_connect_timeout`.",
        live=True,
    )
    server_login_timeout: float = setting(
        DURATION, _POOL.login_timeout, "How long logging in there may take after that.", live=True
    )
    backoff_first: float = setting(
        DURATION, _POOL.backoff_first, "The pause after a failed connect; it doubles with each failure.", live=True
    )
    backoff_max: float = setting(
        DURATION, _POOL.backoff_max, "The longest such pause. As PgBouncer's `server_login_retry`.", live=True
    )
    refused_retry: float = setting(
        DURATION,
        _POOL.refused_retry,
        "After the origin refused a login, clients are told so for this long without asking it again.",
        live=True,
    )
    max_connecting: int = setting(
        whole(1, 1000), _POOL.max_connecting, "Server connections that one pool opens at the same time.", live=True
    )
    listen: tuple[Address, ...] = setting(
        ADDRESSES,
        (Address("127.0.0.1", 6543),),
        "Where clients connect. Port 0 takes any free one. `*:6543` listens on every address.",
        "Listening",
    )
    unix_socket_dir: str = setting(
        TEXT,
        "",
        "A directory for a unix-domain socket, named `.s.PGSQL.PORT` after the first `listen` port; empty: none.",
    )
    unix_socket_mode: int = setting(mode_bits(), 0o777, "Permissions of that socket. As PostgreSQL's default.")
    admin_listen: Address | None = setting(
        ADDRESS, Address("127.0.0.1", 6544), "Where the status page and metrics are served over HTTP, or `off`."
    )
    workers: int = setting(
        whole(1, 256), 1, "Processes that share the ports and split the limits between them. One uses one core."
    )
    max_client_connections: int = setting(
        whole(1), 10000, "Most clients at a time; the next one gets `53300`. An idle client costs a few KiB.", live=True
    )
    client_login_timeout: float = setting(
        DURATION, 60.0, "How long a client may take to log in. As in PgBouncer; PostgreSQL's is 1min, too.", live=True
    )
    client_idle_timeout: float = setting(
        DURATION, 0.0, "How long a client may stay connected without asking anything; 0: for ever.", live=True
    )
    idle_transaction_timeout: float = setting(
        DURATION,
        0.0,
        "How long a client may sit in a transaction without asking anything; it holds a server that others wait for. 0: for"
        " ever.",
        live=True,
    )
    client_stall_timeout: float = setting(
        DURATION,
        300.0,
        "How long a client may take nothing of an answer that waits for it (more than `write_buffer_size`); it holds a server that others"
        " wait for. A byte that its machine takes begins the time anew; one that reads less than a sixteenth of its socket's buffer in"
        " that time looks as if it did not read. 0: for ever.",
    )
    tcp_keepalive: bool = setting(
        FLAG, _SOCKET.keepalive, "Whether the kernel probes quiet TCP connections, on both sides."
    )
    tcp_keepalive_idle: float = setting(
        DURATION,
        _SOCKET.keepalive_idle_seconds,
        "Quiet time before the first probe; 0: the system's. Load balancers commonly forget a connection after 350 s.",
    )
    tcp_keepalive_interval: float = setting(
        DURATION, _SOCKET.keepalive_interval_seconds, "Time between probes; 0: the system's."
    )
    tcp_keepalive_count: int = setting(
        whole(0, 127), _SOCKET.keepalive_count, "Unanswered probes before the peer counts as gone; 0: the system's."
    )
    tcp_user_timeout: float = setting(
        DURATION,
        90.0,
        "How long what was sent may stay unacknowledged before an origin, or a client that holds a server, counts as gone; 0: as long as"
        " the system takes it, commonly 15 minutes. A peer that acknowledges and has no room, as an origin whose COPY waits for a lock,"
        " is not gone. On Linux only.",
    )
    write_buffer_size: int = setting(
        SIZE, 256 * 1024, "Bytes waiting to be sent to one peer before we stop reading from the other side."
    )
    # ── pool ──
    pool_mode: str = setting(
        POOL_MODE,
        "transaction",
        "When a client gives its server back: after each `transaction`, when its `session` ends, or after each `statement`"
        " (transactions of several statements are then refused).",
        "Pool",
        live=True,
    )
    pool_size: int = setting(
        whole(1, 10000), _POOL.pool_size, "Most server connections per database and user. As in PgBouncer.", live=True
    )
    min_pool_size: int = setting(
        whole(0, 10000),
        _POOL.min_size,
        "Server connections kept ready for each database and user in use, so that no client waits for a connect.",
        live=True,
    )
    max_db_connections: int = setting(
        whole(0), 0, "Most server connections per database, for all its users; 0: no limit.", live=True
    )
    max_user_connections: int = setting(
        whole(0), 0, "Most server connections per user, in all databases; 0: no limit.", live=True
    )
    max_server_connections: int = setting(
        whole(0),
        0,
        "Most server connections in all; 0: no limit. PostgreSQL's own `max_connections` is 100.",
        live=True,
    )
    query_wait_timeout: float = setting(
        DURATION,
        _POOL.query_wait_timeout,
        "How long a client waits for a free server before it gets `53300`; 0: for ever. (PgBouncer: 120 s.)",
        live=True,
    )
    server_lifetime: float = setting(
        DURATION,
        _POOL.server_lifetime,
        "Age at which a server connection is replaced, up to a tenth earlier; 0: never. As in PgBouncer.",
        live=True,
    )
    server_idle_timeout: float = setting(
        DURATION,
        _POOL.server_idle_timeout,
        "How long a server connection above `min_pool_size` stays unused before it is closed; 0: for ever. As in PgBouncer.",
        live=True,
    )
    server_check_delay: float = setting(
        DURATION,
        _POOL.server_check_delay,
        "How long a server connection may sit unused before it is probed, off the query path; 0: never.",
        live=True,
    )
    server_check_timeout: float = setting(
        DURATION, _POOL.probe_timeout, "How long the answer to that probe may take.", live=True
    )
    pool_idle_timeout: float = setting(
        DURATION,
        _POOL.unused_pool_timeout,
        "How long a pool without clients is kept. As PgBouncer's `autodb_idle_timeout`.",
        live=True,
    )
    max_prepared_statements: int = setting(
        whole(0, 100000), 200, "Prepared statements kept on each server connection, least used first out.", live=True
    )
    pin_unknown: bool = setting(
        FLAG,
        False,
        "Whether a statement that cannot be classified keeps its server for the client until it leaves.",
        live=True,
    )
    # ── round trips ──
    hold_begin: bool = setting(
        FLAG,
        True,
        "Whether BEGIN is answered here and travels with the first statement, and a transaction that never reached the origin"
        " ends here.",
        "Round trips",
        live=True,
    )
    eager_rollback: str = setting(
        EAGER,
        "on",
        "Whether ROLLBACK is answered at once and carried out behind. Its locks are released up to half a round trip later"
        " than the client is told, so `on` leaves out transactions that took locks for others to wait for (LOCK, FOR UPDATE,"
        " advisory locks); `always` does not.",
        live=True,
    )
    eager_commit: bool = setting(
        FLAG,
        True,
        "Whether COMMIT of a transaction that provably only read is answered at once and carried out behind.",
        live=True,
    )
    local_settings: bool = setting(
        FLAG,
        True,
        "Whether SET, RESET and SHOW of what the origin is known to accept are answered here; they travel with the next statement."
        " Likewise UNLISTEN, CLOSE ALL and DISCARD of what a session has none of.",
        live=True,
    )
    known_statements: bool = setting(
        FLAG,
        True,
        "Whether Parse and Describe of a statement that was described before are answered here, while the schema has not changed.",
        live=True,
    )
    known_answers: bool = setting(
        FLAG,
        True,
        "Whether what drivers ask of each new connection (`version()`, types, tables) is answered here, while the schema has not"
        " changed, and the empty queries with which they check one; also with `cache = off`. This and `eager_commit` need the catalog of each database, which is loaded and polled"
        " over a connection of its own every `catalog_poll`.",
        live=True,
    )
    # ── cache ──
    cache: str = setting(
        CACHE,
        "on",
        "Whether reads are answered from memory where that is proven right. `off` is the kill switch: with RELOAD everything that is"
        " stored goes at once. `shadow` serves nothing, and counts what it would have served and how often that would have been stale.",
        "Cache",
        live=True,
    )
    cache_size: int = setting(
        SIZE, 256 * 1024 * 1024, "Bytes of memory for answers, for all workers together, overhead included.", live=True
    )
    cache_entry_size: int = setting(
        SIZE,
        4 * 1024 * 1024,
        "Larger answers are passed on and not stored. (Cloudflare's Hyperdrive: 50 MB.)",
        live=True,
    )
    max_age: float = setting(
        DURATION,
        60.0,
        "How old an answer may be, counted from when it was asked for. What is written through us drops answers at once; this is the"
        " bound for what is written past us. As Cloudflare's Hyperdrive.",
        live=True,
    )
    stale_while_revalidate: float = setting(
        DURATION,
        15.0,
        "How much older an answer may be while it is being asked for again, once and behind the client. As Cloudflare's Hyperdrive.",
        live=True,
    )
    stale_if_error: float = setting(
        DURATION,
        0.0,
        "How much older than `max_age` an answer may be while the database cannot be reached; 0: not at all. What is known to have"
        " changed is not served then either.",
        live=True,
    )
    cache_redis: str = setting(
        SECOND,
        "",
        "A Redis or Valkey server where several processes share their answers, such as `redis://cache.internal:6379/0`; `rediss://` is"
        " TLS. What this process has not in its own memory is looked for there before the database is asked, and what it was told is"
        " kept there. If the server is lost, slow or empty, that is a miss. Whoever can write to it can put answers into the cache:"
        " protect it like the database. Needs `pip install hyperdrive[redis]`. Empty: none.",
    )
    cache_redis_timeout: float = setting(
        DURATION,
        0.02,
        "How long a client may wait for `cache_redis` before the database is asked. After three such waits in a row the connection is"
        " given up and opened anew in the background, and meanwhile nobody waits.",
    )
    cache_in_transactions: str = setting(
        choice("auto", "always", "never"),
        "auto",
        "Whether reads inside a READ COMMITTED transaction that has not written are answered from memory. `auto`: in READ ONLY ones,"
        " so that no program decides on old data what it writes; `always`: in others as well; `never`: in none.",
        live=True,
    )
    catalog_poll: float = setting(
        DURATION,
        15.0,
        "How often the database's catalogs are asked whether tables, views, functions, rights or settings were changed past us: the"
        " bound for what such a change leaves unseen.",
        live=True,
    )
    cache_trust_immutable: bool = setting(
        FLAG,
        True,
        "Whether functions and operators of your own that are marked IMMUTABLE may be part of a cached read, and are taken for ones that"
        " write nothing. What is marked STABLE or VOLATILE never is, unless `cache_functions` says so.",
    )
    cache_functions: tuple[str, ...] = setting(
        FUNCTIONS,
        (),
        "Functions of your own of which the cache cannot know what they touch, with the tables: `public.price=public.items+public.rates`,"
        " or `public.norm` alone where there are none. A STABLE function so named may be part of a cached read, which is dropped when the"
        " tables change; a trigger function so named no longer makes each write to its table one that may have changed anything.",
    )
    cache_types: tuple[str, ...] = setting(
        NAMES,
        (),
        "Types of extensions whose functions you vouch for: `citext`, `hstore`, `public.vector`. Reads of columns of other such types"
        " are not cached.",
    )
    cache_age_only: tuple[str, ...] = setting(
        NAMES,
        (),
        "Patterns of foreign and unlogged tables, such as `public.remote_*`, whose reads may be cached although nobody tells when they"
        " change: their answers may be as old as `max_age`.",
    )
    cache_clean_dates: bool = setting(
        FLAG,
        False,
        "Whether you vouch that no text in the database says `now`, `today`, `tomorrow` or `yesterday` where a statement turns it into"
        " a date or time, as in `(document->>'day')::date`. Without that such reads are not cached.",
    )
    # ── who may log in ──
    auth_method: str = setting(
        AUTH_METHOD,
        "scram",
        "How clients prove who they are. `password` only over TLS or from this machine; `cert` by a certificate of"
        " `tls_client_ca` whose common name is the user; `trust` not at all, and only from this machine.",
        "Authentication",
    )
    scram_iterations: int = setting(
        whole(1, scram.MAX_ITERATIONS),
        scram.DEFAULT_ITERATIONS,
        "How often the hash of SCRAM is applied to a password that we know in the clear; users with a stored secret keep its count."
        " Each login costs the client so much computing, 2 to 5 ms with 4096. Those protect a recorded login against guessing the"
        " password, so fewer are accepted only where nobody can listen: on loopback and unix sockets, or with `tls_require`. pg8000"
        " refuses fewer than 4096, and so did pgjdbc (42.7.3 does, 42.7.7 does not). As PostgreSQL 16's setting.",
    )
    auth_query: str = setting(
        TEXT,
        "",
        "A query with one parameter, the user's name, that returns name and stored password of users that are not in"
        " `[users]`; runs as `auth_user` with `search_path` fixed to `pg_catalog`. `default`: the one that reads `pg_authid`,"
        " for which `auth_user` must be a superuser. Empty: none.",
        live=True,
    )
    auth_user: str = setting(TEXT, "", "Who runs `auth_query`; must be in `[users]`. Empty: the user of `origin`.")
    auth_dbname: str = setting(TEXT, "", "Where `auth_query` runs. Empty: the database of `origin`.")
    admin_users: tuple[str, ...] = setting(
        NAMES, (), "Who may do everything in the console. The user of `origin` always may.", live=True
    )
    stats_users: tuple[str, ...] = setting(NAMES, (), "Who may only look, with SHOW, in the console.", live=True)
    # ── TLS towards clients ──
    tls_cert: str = setting(
        TEXT,
        "",
        "A file with our certificate and its chain, PEM. With it, clients may use TLS. (TLS towards the origin is set in its"
        " connection string: `sslmode` and its relatives.)",
        "TLS towards clients",
        live=True,
    )
    tls_key: str = setting(TEXT, "", "The file with its private key.", live=True)
    tls_client_ca: str = setting(TEXT, "", "Authorities whose certificates clients may present, PEM.", live=True)
    tls_require: bool = setting(FLAG, False, "Whether clients over TCP without TLS are turned away.", live=True)
    # ── logging ──
    log_level: str = setting(LOG_LEVEL, "info", "What is worth a line on standard error.", "Logging", live=True)
    log_format: str = setting(choice("text", "json"), "text", "Lines for people, or one JSON object per line.")
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

    def max_connections_of(self, user: str) -> int:
        """The limit on server connections of *user*; 0 is no limit."""
        own = self.users.get(user)
        if own is None or own.max_user_connections is None:
            return self.max_user_connections
        return own.max_user_connections


MEANINGS = meanings(Settings)
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
