"""SQLAlchemy, Core and ORM: psycopg2, psycopg 3 and (with asyncio) asyncpg below, each with SQLAlchemy's own pool."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from tests.drivers.common import Check, Program, in_threads, main, raises

CLIENTS = 6
ROUNDS = 8


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "drv_sa_author"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(100), unique=True)
    born: orm.Mapped[dt.date | None]
    extra: orm.Mapped[dict[str, object]] = orm.mapped_column(pg.JSONB, default=dict)
    tags: orm.Mapped[list[str]] = orm.mapped_column(pg.ARRAY(sa.Text), default=list)
    books: orm.Mapped[list[Book]] = orm.relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "drv_sa_book"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str]
    added: orm.Mapped[dt.datetime] = orm.mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    cover: orm.Mapped[bytes | None]
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(Author.id))
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


def dialect_url(url: str, dialect: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme=f"postgresql+{dialect}"))


@contextmanager
def engine_of(url: str, dialect: str, **options: object) -> Iterator[sa.Engine]:
    engine = sa.create_engine(
        dialect_url(url, dialect), **{"pool_size": 4, "max_overflow": 4, "pool_timeout": 20} | options
    )
    try:
        yield engine
    finally:
        engine.dispose()


def orm_works(url: str, dialect: str) -> None:
    with engine_of(url, dialect) as engine:
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
        inspector = sa.inspect(engine)
        assert {"id", "name", "born", "extra", "tags"} == {
            column["name"] for column in inspector.get_columns(Author.__tablename__)
        }
        assert [Author.__tablename__] == [
            key["referred_table"] for key in inspector.get_foreign_keys(Book.__tablename__)
        ]
        with orm.Session(engine) as session, session.begin():
            for n in range(30):
                session.add(
                    Author(
                        name=f"author {n}",
                        born=dt.date(1900 + n, 1, 1) if n % 2 else None,
                        extra={"n": n, "nested": [None]},
                        tags=["a", "b,c"],
                        books=[Book(title=f"book {n}.{m}", cover=bytes([n, m]) * 10) for m in range(3)],
                    )
                )
        with orm.Session(engine) as session:
            author = session.scalars(
                sa.select(Author).where(Author.name == "author 7").options(orm.selectinload(Author.books))
            ).one()
            assert (author.born, author.extra, author.tags) == (
                dt.date(1907, 1, 1),
                {"n": 7, "nested": [None]},
                ["a", "b,c"],
            )
            assert [book.cover for book in author.books] == [bytes([7, m]) * 10 for m in range(3)]
            assert author.books[0].added.tzinfo is not None
            author.name = "renamed"
            with raises(IntegrityError, sqlstate="23505"), session.begin_nested():
                session.add(Author(name="author 8"))
                session.flush()
            session.delete(author.books[0])
            session.commit()
            assert session.scalar(sa.select(sa.func.count()).select_from(Book)) == 89
            session.add(Author(name="never"))
            session.flush()
            session.rollback()
            assert session.scalar(sa.select(Author).where(Author.name == "never")) is None
            numbers = session.execute(
                sa.text("select n from generate_series(1, 3000) n").execution_options(yield_per=100)
            )
            assert sum(numbers.scalars()) == 3000 * 3001 // 2  # a server-side cursor
        Base.metadata.drop_all(engine)


def core_works(url: str, dialect: str) -> None:
    table = sa.Table(
        f"drv_sa_core_{dialect}",
        sa.MetaData(),
        sa.Column("n", sa.Integer, primary_key=True),
        sa.Column("client", sa.Integer),
    )
    with engine_of(url, dialect, pool_pre_ping=True) as engine:
        table.metadata.drop_all(engine)
        table.metadata.create_all(engine)
        with engine.begin() as conn:
            conn.execute(table.insert(), [{"n": n, "client": 0} for n in range(1500)])  # insertmanyvalues
            got = conn.execute(table.insert().returning(table.c.n), [{"n": n, "client": 1} for n in range(1500, 1600)])
            assert len(got.all()) == 100
            upsert = pg.insert(table).values(n=1, client=9)
            conn.execute(upsert.on_conflict_do_update(index_elements=["n"], set_={"client": upsert.excluded.client}))
        with engine.connect() as conn:
            with raises(DBAPIError, sqlstate="22012"):
                conn.execute(sa.text("select 1 / :zero"), {"zero": 0})
            conn.rollback()
            assert conn.scalar(sa.select(table.c.client).where(table.c.n == 1)) == 9
        with engine.connect().execution_options(isolation_level="SERIALIZABLE") as conn:
            assert conn.scalar(sa.text("show transaction_isolation")) == "serializable"
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(sa.text(f"vacuum {table.name}"))
            assert conn.scalar(sa.text("show transaction_isolation")) == "read committed"

        def client(number: int) -> None:
            for n in range(ROUNDS):
                with engine.connect() as conn:
                    conn.execute(table.insert(), {"n": 10000 + number * 1000 + n, "client": number})
                    mine = sa.select(sa.func.count()).where(table.c.client == number, table.c.n >= 10000)
                    assert conn.scalar(mine) == (n + 1) // 2 + 1
                    if n % 2:
                        conn.rollback()
                    else:
                        conn.commit()

        in_threads(CLIENTS, client)
        table.metadata.drop_all(engine)


def survives_a_lost_server(url: str, dialect: str) -> None:
    with engine_of(url, dialect, pool_pre_ping=True, pool_size=1, max_overflow=0) as engine:
        with raises(OperationalError, DBAPIError), engine.connect() as conn:
            conn.execute(sa.text("select pg_terminate_backend(pg_backend_pid())"))
            conn.execute(sa.text("select 1"))
        with engine.connect() as conn:
            assert conn.scalar(sa.text("select 1")) == 1


async def orm_works_with_asyncpg(url: str) -> None:
    engine = create_async_engine(dialect_url(url, "asyncpg"), pool_size=4, max_overflow=4, pool_timeout=20)
    try:
        async with engine.begin() as conn:
            await conn.run_sync(Base.metadata.drop_all)
            await conn.run_sync(Base.metadata.create_all)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        async with sessions.begin() as session:
            session.add_all(
                Author(name=f"author {n}", extra={"n": n}, tags=[str(n)], books=[Book(title=f"book {n}", cover=b"\0")])
                for n in range(30)
            )
        async with sessions() as session:
            author = (await session.scalars(sa.select(Author).where(Author.name == "author 7"))).one()
            assert (author.extra, author.tags) == ({"n": 7}, ["7"])
            with raises(IntegrityError, sqlstate="23505"):
                async with session.begin_nested():
                    session.add(Author(name="author 8"))
                    await session.flush()
            author.name = "renamed"
            await session.commit()
            stream = await session.stream_scalars(sa.select(Author.id).execution_options(yield_per=7))
            assert 30 == len([row async for row in stream])
        await swap_with_asyncpg(engine)
        async with engine.begin() as conn:
            await conn.run_sync(Base.metadata.drop_all)
    finally:
        await engine.dispose()


async def swap_with_asyncpg(engine: AsyncEngine) -> None:
    async def client(number: int) -> None:
        for n in range(ROUNDS):
            async with engine.connect() as conn:
                await conn.execute(sa.text("set local statement_timeout = 54321"))
                got = await conn.scalar(sa.select(sa.literal(number) * 100 + sa.bindparam("n", n, sa.Integer)))
                assert got == number * 100 + n
                assert await conn.scalar(sa.text("show statement_timeout")) == "54321ms"
                if n % 2:
                    await conn.rollback()
                else:
                    await conn.commit()
            async with engine.connect() as conn:
                assert await conn.scalar(sa.text("show statement_timeout")) != "54321ms"

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))


async def runs_several_engines_at_once(url: str) -> None:
    """As several processes of one web program would: each engine numbers its prepared statements from 1."""
    engines = [create_async_engine(dialect_url(url, "asyncpg"), pool_size=1, max_overflow=0) for _ in range(4)]
    try:
        await asyncio.gather(*(swap_with_asyncpg(engine) for engine in engines))
    finally:
        for engine in engines:
            await engine.dispose()


def over(dialect: str) -> tuple[Check, ...]:
    """The blocking checks over one driver."""

    def make(body: object, name: str) -> Check:
        def check(url: str) -> None:
            body(url, dialect)  # type: ignore[operator]

        check.__name__ = f"{name}_with_{dialect}"
        return check

    return (
        make(orm_works, "orm_works"),
        make(core_works, "core_works"),
        make(survives_a_lost_server, "survives_a_lost_server"),
    )


PROGRAM = Program(
    driver="SQLAlchemy",
    version=lambda: sa.__version__,
    checks=(*over("psycopg2"), *over("psycopg"), orm_works_with_asyncpg, runs_several_engines_at_once),
)

if __name__ == "__main__":
    main(PROGRAM)
