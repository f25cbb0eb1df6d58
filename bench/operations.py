"""What programs do with a database, by driver: each operation is set up outside the time, then run once inside it.

The goals are those of the project: round trips that we may need, without the cache and with it. Drivers of other languages run in a
process that ``bench.actors`` starts; what they lack is a line.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from bench.actors import DJANGO, JDBC, NODE_POSTGRES, PGX, PRISMA, SQLALCHEMY, Actor, Program
from bench.load.like_npgsql import LikeNpgsql
from bench.targets import Running

READ = "SELECT name, price FROM bench_items WHERE id = 42"
WRITE = "UPDATE bench_counters SET n = n + 1 WHERE id = 42"

Act = Callable[[], None]
_DJANGO_IS_SET_UP = threading.Lock()
"""Once in a process, and targets are measured side by side."""


@dataclass(frozen=True, slots=True)
class Operation:
    """*run* is a context manager: entering sets up and gives the act to be timed, leaving tidies up.

    It is given the target, or where *package* is a load program, that program at the target. *goal* is without the cache; *cached* with it, ``None`` where nothing is to be had from a cache.
    """

    name: str
    package: str | Program
    goal: int
    cached: int | None
    run: Callable[[Any], AbstractContextManager[Act]]

    def missing(self) -> str | None:
        """Why it cannot run here."""
        if isinstance(self.package, Program):
            return self.package.missing()
        if importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed"
        return None


# --- psycopg 3 -----------------------------------------------------------------------------------------------------


def _psycopg(target: Running, *, autocommit: bool = True) -> Any:
    import psycopg

    made = psycopg.connect(target.dsn, autocommit=autocommit)
    if not target.has_statements:
        made.prepare_threshold = None
    return made


@contextmanager
def psycopg_connect(target: Running) -> Iterator[Act]:
    opened: list[Any] = []

    def act() -> None:
        opened.append(_psycopg(target))
        opened[0].execute(READ).fetchone()

    yield act
    opened[0].close()


def psycopg_statements(*statements: str) -> Callable[[Running], AbstractContextManager[Act]]:
    """The statements one after another on a connection that is there already."""

    @contextmanager
    def run(target: Running) -> Iterator[Act]:
        with _psycopg(target) as connection:
            connection.execute(READ).fetchone()

            def act() -> None:
                for statement in statements:
                    connection.execute(statement)

            yield act

    return run


# --- asyncpg -------------------------------------------------------------------------------------------------------


class _Asyncpg:
    """asyncpg on a loop of its own."""

    def __init__(self, target: Running) -> None:
        self._target = target
        self.runner = asyncio.Runner()
        self.connection: Any = None

    def connect(self) -> None:
        import asyncpg

        cache = {} if self._target.has_statements else {"statement_cache_size": 0}
        self.connection = self.runner.run(asyncpg.connect(self._target.dsn, **cache))

    def fetch(self) -> None:
        self.runner.run(self.connection.fetch("SELECT name, price FROM bench_items WHERE id = $1", 42))

    def transact(self) -> None:
        async def work() -> None:
            async with self.connection.transaction():
                await self.connection.execute("UPDATE bench_counters SET n = n + 1 WHERE id = $1", 42)

        self.runner.run(work())

    def close(self) -> None:
        if self.connection is not None:
            self.runner.run(self.connection.close())
        self.runner.close()


def asyncpg_operation(act: str, *, connected: bool = True) -> Callable[[Running], AbstractContextManager[Act]]:
    """The method *act* of the client, on a new connection."""

    @contextmanager
    def run(target: Running) -> Iterator[Act]:
        client = _Asyncpg(target)
        try:
            client.runner.get_loop()
            if connected:
                client.connect()
            yield getattr(client, act)
        finally:
            client.close()

    return run


# --- SQLAlchemy ----------------------------------------------------------------------------------------------------


def _engine(target: Running) -> Any:
    import sqlalchemy

    arguments = {} if target.has_statements else {"prepare_threshold": None}
    url = target.dsn.replace("postgresql://", "postgresql+psycopg://")
    return sqlalchemy.create_engine(url, connect_args=arguments)


def _read(engine: Any) -> None:
    import sqlalchemy
    from sqlalchemy.orm import Session

    with Session(engine) as session:
        session.execute(sqlalchemy.text(READ)).all()


@contextmanager
def sqlalchemy_read(target: Running) -> Iterator[Act]:
    engine = _engine(target)
    _read(engine)
    yield lambda: _read(engine)
    engine.dispose()


@contextmanager
def sqlalchemy_fresh(target: Running) -> Iterator[Act]:
    engines: list[Any] = []

    def act() -> None:
        engines.append(_engine(target))
        _read(engines[0])

    yield act
    engines[0].dispose()


# --- Django --------------------------------------------------------------------------------------------------------


def _django(target: Running, **more: str) -> Any:
    import django
    from django.conf import settings
    from django.db.utils import ConnectionHandler

    with _DJANGO_IS_SET_UP:
        if not settings.configured:
            settings.configure(INSTALLED_APPS=[], DATABASES={}, USE_TZ=True)
            django.setup()
    handler = ConnectionHandler(
        {
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": target.host,
                "PORT": str(target.port),
                "NAME": target.database,
                "USER": target.user,
                "PASSWORD": target.password or "",
                **more,
            }
        }
    )
    return handler["default"]


@contextmanager
def django_connect(target: Running) -> Iterator[Act]:
    """A request on a connection of its own, as Django has it by default, by a program whose time zone is not the server's."""
    connection = _django(target, TIME_ZONE="Europe/Berlin")

    def act() -> None:
        with connection.cursor() as cursor:
            cursor.execute(READ)
            cursor.fetchall()

    yield act
    connection.close()


@contextmanager
def django_request(target: Running) -> Iterator[Act]:
    connection = _django(target)
    with connection.cursor() as cursor:
        cursor.execute(READ)

    def act() -> None:
        # What ATOMIC_REQUESTS puts around a view.
        connection.set_autocommit(False)
        try:
            with connection.cursor() as cursor:
                cursor.execute(READ)
                cursor.fetchall()
            connection.commit()
        finally:
            connection.set_autocommit(True)

    yield act
    connection.close()


# --- like Npgsql ---------------------------------------------------------------------------------------------------


def like_npgsql(act: str, sql: str) -> Callable[[Running], AbstractContextManager[Act]]:
    """The method *act* of a replay with *sql*, on a connection that is there already unless it makes one itself."""

    @contextmanager
    def run(target: Running) -> Iterator[Act]:
        client = LikeNpgsql(target)
        try:
            if not act.startswith("connect"):
                client.connect_and_read(READ)
            yield lambda: getattr(client, act)(sql)
        finally:
            client.close()

    return run


# --- programs of their own -----------------------------------------------------------------------------------------


def acting(act: str, *before: str, closes: bool = False) -> Callable[[Actor], AbstractContextManager[Act]]:
    """The *act* of a load program, after what comes *before* was asked for."""

    @contextmanager
    def run(asked: Actor) -> Iterator[Act]:
        for line in before:
            asked.ask(line)
        yield lambda: _ignore(asked.ask(act))
        if closes:
            asked.ask("close")

    return run


def _ignore(_answer: object) -> None:
    pass


def _other(act: str, *, is_warm: bool = True) -> Callable[[Actor], AbstractContextManager[Act]]:
    """*is_warm*: it was done before, so that a compiler at run time has had its time; a first use can be done only once."""
    once = [act] if is_warm else []
    before = [*once, "close"] if act == "connect-read" else ["open", *once]
    return acting(act, *before, closes=True)


def _node(act: str, driver: str = "") -> Callable[[Actor], AbstractContextManager[Act]]:
    return acting(act, *([f"open {driver}"] if driver else []), closes=True)


OPERATIONS = (
    Operation("psycopg 3: connect + read", "psycopg", 1, 0, psycopg_connect),
    Operation("psycopg 3: BEGIN; SELECT; ROLLBACK", "psycopg", 1, 0, psycopg_statements("BEGIN", READ, "ROLLBACK")),
    Operation("psycopg 3: BEGIN; SELECT; COMMIT", "psycopg", 1, 0, psycopg_statements("BEGIN", READ, "COMMIT")),
    Operation("psycopg 3: BEGIN; UPDATE; COMMIT", "psycopg", 2, None, psycopg_statements("BEGIN", WRITE, "COMMIT")),
    Operation("psycopg 3: SET; SELECT", "psycopg", 1, 0, psycopg_statements("SET statement_timeout = '9s'", READ)),
    Operation("asyncpg: connect", "asyncpg", 0, None, asyncpg_operation("connect", connected=False)),
    Operation("asyncpg: first fetch", "asyncpg", 1, 0, asyncpg_operation("fetch")),
    Operation("asyncpg: transaction with one UPDATE", "asyncpg", 2, None, asyncpg_operation("transact")),
    Operation("SQLAlchemy 2 + psycopg: read in a pooled session", "sqlalchemy", 1, 0, sqlalchemy_read),
    Operation("SQLAlchemy 2 + psycopg: fresh engine + read", "sqlalchemy", 1, 0, sqlalchemy_fresh),
    Operation("SQLAlchemy 2: page of five statements", SQLALCHEMY, 5, 0, acting("page 1", "page 1")),
    Operation("Django: connect with a time zone + read", "django", 1, 0, django_connect),
    Operation("Django: read in a transaction", "django", 1, 0, django_request),
    Operation("Django: page of five statements", DJANGO, 5, 0, acting("page 1", "page 1")),
    Operation("node-postgres: connect + read", NODE_POSTGRES, 1, 0, _node("pg-connect-read")),
    Operation("node-postgres: BEGIN; SELECT; COMMIT", NODE_POSTGRES, 1, 0, _node("pg-read-in-transaction", "pg")),
    Operation("node-postgres: BEGIN; UPDATE; COMMIT", NODE_POSTGRES, 2, None, _node("pg-write-in-transaction", "pg")),
    Operation("postgres.js: connect + read", NODE_POSTGRES, 1, 0, _node("postgres-connect-read")),
    Operation("postgres.js: first use of a statement", NODE_POSTGRES, 1, 0, _node("postgres-first-read", "postgres")),
    Operation(
        "postgres.js: BEGIN; UPDATE; COMMIT", NODE_POSTGRES, 2, None, _node("postgres-write-in-transaction", "postgres")
    ),
    Operation("Drizzle: read in a transaction", NODE_POSTGRES, 1, 0, _node("drizzle-read-in-transaction", "drizzle")),
    Operation("pgx: connect + read", PGX, 1, 0, _other("connect-read")),
    Operation("pgx: first use of a statement", PGX, 1, 0, _other("first-read", is_warm=False)),
    Operation("pgx: BEGIN; SELECT; COMMIT", PGX, 1, 0, _other("read-in-transaction")),
    Operation("pgx: BEGIN; UPDATE; COMMIT", PGX, 2, None, _other("write-in-transaction")),
    Operation("JDBC: connect + read", JDBC, 1, 0, _other("connect-read")),
    Operation("JDBC: BEGIN; SELECT; COMMIT", JDBC, 1, 0, _other("read-in-transaction")),
    Operation("JDBC: BEGIN; UPDATE; COMMIT", JDBC, 2, None, _other("write-in-transaction")),
    Operation("Prisma: connect + read", PRISMA, 1, 0, _other("connect-read")),
    Operation("Prisma: BEGIN; SELECT; COMMIT", PRISMA, 1, 0, _other("read-in-transaction")),
    Operation("Prisma: BEGIN; UPDATE; COMMIT", PRISMA, 2, None, _other("write-in-transaction")),
    Operation("like Npgsql: connect + read", "hyperdrive", 1, 0, like_npgsql("connect_and_read", READ)),
    Operation("like Npgsql: read in a pooled session", "hyperdrive", 1, 0, like_npgsql("read_from_pool", READ)),
    Operation("like Npgsql: BEGIN; SELECT; COMMIT", "hyperdrive", 1, 0, like_npgsql("transact", READ)),
    Operation("like Npgsql: BEGIN; UPDATE; COMMIT", "hyperdrive", 2, None, like_npgsql("transact", WRITE)),
)
