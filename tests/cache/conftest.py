"""What the tests of the cache share: one stage per test, on each embedded version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from hyperdrive.testing.cached import CachedScene
from hyperdrive.testing.databases import database_of, run_sql

TABLES = """
set client_min_messages = error; drop schema if exists public, one, two cascade; create schema public;
grant usage on schema public to public;
create table t (id int primary key, v text);
insert into t select n, 'v' || n from generate_series(1, 5) n;
create table other (id int primary key, v text);
insert into other values (1, 'other');
create table child (id int primary key, parent int references t on delete cascade on update set null);
insert into child values (10, 1), (20, 2);
create view shown as select id, v from t where id > 1;
create table parted (k int, v text) partition by list (k);
create table parted_1 partition of parted for values in (1);
create table parted_2 partition of parted for values in (2);
insert into parted values (1, 'one'), (2, 'two');
create materialized view counted as select count(*) as n from t;
"""


@pytest.fixture(params=["pg16", "pg18"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[CachedScene]:
    """A stage with a real origin."""
    server = request.getfixturevalue(request.param)
    url = await database_of(server.url, "cached")
    await run_sql(url, TABLES)
    async with AsyncExitStack() as stack:
        yield CachedScene(url, stack, server.major)
