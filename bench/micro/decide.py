"""What the cache's decision costs: ``python -m bench.micro.decide [MAJOR]``. Microseconds of CPU per text, best of many.

*first* is a shape never seen (parse, analyse, resolve), *shape* a new text of a known shape, *known* a text seen before; *write* the
targets of a statement of a known shape. Under a real catalog, from an embedded server.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from itertools import count

import asyncpg

from hyperdrive.proxy.catalog import load
from hyperdrive.sql.catalog import Catalog
from hyperdrive.sql.readers import ReadVerdicts, WriteVerdicts
from hyperdrive.sql.reads import analyse
from hyperdrive.sql.shapes import may_hold_clock_word, shape
from hyperdrive.testing.postgres import PostgresFarm

SCHEMA = """
create table pgbench_accounts (aid int primary key, bid int, abalance int, filler text);
create table t (id int primary key, a int, b timestamptz, c text, u_id int);
create table u (id int primary key, t_id int, kind text, b text);
create table auth_user (id int primary key, email text, name text);
create table orders (id int primary key, status text, created_at timestamptz, total numeric);
create view open_orders as select * from orders where status <> 'done';
"""
TEXTS = {
    "pgbench": "SELECT abalance FROM pgbench_accounts WHERE aid = {n}",
    "django": 'SELECT "auth_user"."id", "auth_user"."email", "auth_user"."name" FROM "auth_user" WHERE "auth_user"."id" = {n} LIMIT 21',
    "aggregate": "SELECT count(*), max(a) FROM t WHERE id IN (1, 2, {n}) AND b < '2020-01-01' GROUP BY c ORDER BY 1 DESC LIMIT 10",
    "join": "select t.a, u.b from t join u on t.id = u.t_id where u.kind = 'abc' and t.a > {n} order by t.a",
    "with": "WITH x AS (SELECT a FROM t WHERE id = {n}) SELECT * FROM x JOIN u ON x.a = u.id WHERE u.kind = 'b'",
    "prepared": "select id, total, status from orders where status = $1 and total < $2 order by total limit $3 offset {n}",
    "dates": "select date_trunc('day', created_at)::date as day, count(*) from orders where total > {n} group by 1",
    "json": "select json_agg(json_build_object('id', id, 'total', total)) from orders where id = {n}",
    "view": "select * from open_orders where id = {n}",
}
WRITES = {
    "update": "UPDATE pgbench_accounts SET abalance = abalance + -3042 WHERE aid = {n};",
    "insert": "INSERT INTO t (id, a, c) VALUES ({n}, 1, 'it')",
}


def microseconds(function: Callable[[], object], number: int) -> float:
    timer = timeit.Timer(function, timer=time.process_time)
    return min(timer.repeat(10, number)) / number * 1e6


def texts(template: str) -> Iterator[bytes]:
    return (template.format(n=number).encode() for number in count())


def read_figures(template: str, catalog: Catalog, path: tuple[int, ...]) -> list[float]:
    sql = template.format(n=1).encode()
    fresh = texts(template)
    verdicts = ReadVerdicts()
    verdicts.use(catalog)
    # A name that was never seen makes a shape that was never seen.
    unseen = (re.sub(rb"(?i)select", b"select 1 as n%d," % number, sql, count=1) for number in count())

    figures = [
        microseconds(lambda: (may_hold_clock_word(sql), shape(sql)), 1000),
        microseconds(lambda: analyse(sql), 100),
        microseconds(lambda: verdicts.read(next(unseen), path), 100),
    ]
    verdicts.read(next(fresh), path)
    figures.append(microseconds(lambda: verdicts.read(next(fresh), path), 500))
    for _ in range(3):
        verdicts.read(sql, path)
    figures.append(microseconds(lambda: verdicts.read(sql, path), 2000))
    return figures


def write_figure(template: str, catalog: Catalog, path: tuple[int, ...]) -> float:
    fresh = texts(template)
    verdicts = WriteVerdicts()
    verdicts.use(catalog)
    verdicts.targets(next(fresh), path)
    return microseconds(lambda: verdicts.targets(next(fresh), path), 500)


def bench(catalog: Catalog) -> None:
    path = catalog.path("public", catalog.roles["postgres"].oid)
    assert path is not None
    print(f"{'':12}{'look':>8}{'text alone':>12}{'first':>8}{'shape':>8}{'known':>8}   us")
    for name, template in TEXTS.items():
        look, alone, first, shared, known = read_figures(template, catalog, path)
        print(f"{name:12}{look:8.2f}{alone:12.1f}{first:8.1f}{shared:8.2f}{known:8.2f}")
    for name, template in WRITES.items():
        print(f"{name:12}{'':28}{write_figure(template, catalog, path):8.2f}           write")


async def read_catalog(url: str) -> Catalog:
    connection = await asyncpg.connect(url)
    try:
        catalog = await load(connection)
    finally:
        await connection.close()
    assert catalog is not None
    return catalog


def main() -> None:
    farm = PostgresFarm()
    try:
        postgres = farm.shared(int(sys.argv[1]) if len(sys.argv) > 1 else 18)
        postgres.execute(SCHEMA)
        bench(asyncio.run(read_catalog(postgres.url_for("postgres", "postgres-password"))))
    finally:
        farm.close()


if __name__ == "__main__":
    main()
