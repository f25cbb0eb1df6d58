"""A database with one of everything that the decision has to know, and its catalog, on each major version."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg
import pytest

from hyperdrive.proxy.catalog import load
from hyperdrive.sql.catalog import Catalog, Declarations
from hyperdrive.sql.reads import analyse
from hyperdrive.sql.resolve import Cacheable, resolve
from hyperdrive.sql.rules import Refused
from hyperdrive.sql.writes import Writes, targets
from hyperdrive.testing.postgres import MAJORS, SUPERUSER, SUPERUSER_PASSWORD, Postgres, PostgresFarm

DATABASE = "cache_rules"

SCHEMA = """
create table t (id int primary key, v int, ts timestamptz, at timestamp, d date, txt text, j jsonb, nums int[], hour time, r tstzrange);
create table txt (id int primary key, c text);
create table child (id int primary key, t_id int references t on delete cascade on update cascade);
create table grandchild (id int primary key, child_id int references child on delete set null);
create table aunt (id int primary key, t_id int references t);
create unlogged table unlogged_t (id int);
create sequence s;
create table ttz (id int, tz timetz);
create table treg (id int, c regclass);

create function pg_catalog.smuggled(int) returns int language sql volatile as 'select $1';
create function pg_catalog.smuggled_stable(int) returns int language sql stable as 'select $1';
create operator pg_catalog.=#= (rightarg = int, function = pg_catalog.smuggled);
create function u(int) returns int language sql volatile as 'select $1';
create function us(int) returns int language sql stable as 'select $1';
create function ui(int) returns int language sql immutable as 'select $1';
create function ud(int) returns int language sql immutable security definer as 'select $1';
create function udef(x timestamptz default now()) returns timestamptz language sql immutable as 'select x';
create function u(t) returns int language sql volatile as 'select 1';
create function pure(t) returns int language sql immutable as 'select 1';
create function random_add(float8, int) returns float8 language sql volatile as 'select $1 + random()';
create aggregate shaky(int) (sfunc = random_add, stype = float8, initcond = '0');
create aggregate steady(int) (sfunc = int4pl, stype = int, initcond = '0');

create view plain_view as select id, v from t where v > 0;
create view clock_view as select id, now() as n from t;
create view deep_view as select id from (select * from clock_view) x;
create view word_view as select id, txt::date as d from t;
create view lock_view as select * from t for update;
create view call_view as select u(id) from t;
create view catalog_view as select relname from pg_class;
create view count_view as select count(*) as n from t;
create materialized view mat as select id, now() as n from t;

create table rls (id int, tenant text);
alter table rls enable row level security;
create policy p on rls using (tenant = current_setting('app.tenant'));
create view rls_view as select * from rls;

create table parted (a int, b text) partition by list (a);
create table parted_1 partition of parted for values in (1);
create table parted_2 partition of parted for values in (2) partition by list (b);
create table parted_2x partition of parted_2 for values in ('x');
create table parent (a int);
create table heir (b int) inherits (parent);

create foreign data wrapper nowhere;
create server far foreign data wrapper nowhere;
create foreign table foreign_t (id int) server far;

create function random_eq(int, text) returns bool language sql volatile as 'select random() > 0.5';
create operator === (leftarg = int, rightarg = text, function = random_eq);
create function calm_eq(int, text) returns bool language sql immutable as 'select $1::text = $2';
create operator ==== (leftarg = int, rightarg = text, function = calm_eq);
create schema other;
create operator other.+ (leftarg = int, rightarg = text, function = random_eq);

create type comp as (a int, b text);
create function comp_text(comp) returns text language sql volatile as 'select $1.b || random()';
create cast (comp as text) with function comp_text(comp) as implicit;
create table tc (id int, col comp);
create type calm as (a int, b text);
create table tcalm (id int, col calm);
create type mood as enum ('sad', 'happy');
create domain positive as int check (value > 0);
create function odd(int) returns bool language sql volatile as 'select random() > 0.5 and $1 > 0';
create domain shaky_domain as int check (odd(value));
create domain my_date as date;
create type comp_date as (a date);
create type span as range (subtype = timestamptz);
create table typed (m mood, p positive, ms mood[], sp span, my my_date);
create table shaky_typed (id int, p shaky_domain);
create domain nested as shaky_domain;
create domain late as int default u(1);
create domain nested_late as late;
create domain by_operator as int check (value === 'a');
create domain by_cast as int check (value::text::nested > 0);
create type holding as (a nested);
create type holding_more as (a holding[]);
create domain over_row as holding;
create type shaky_span as range (subtype = nested, multirange_type_name = shaky_multirange);
create table in_default (a late);
create table in_nested_default (a nested_late);
create table in_array (a nested[]);
create table in_row (id int, a holding_more);
create table in_domain_over_row (a over_row);
create table in_span (a shaky_span);
create table in_spans (a shaky_multirange);
create table in_operator (a by_operator);
create table in_cast (a by_cast);
create table checked_by_cast (a int check (a::text::nested > 0));
create table checked_by_operator (a int check (a === 'a'));
create table defaulted_by_cast (id int, a int default '1'::nested);
create table indexed (a int);
create function takes_nested(nested) returns int language sql immutable as 'select 1';
create index on indexed (takes_nested(a));
create function atomic_u(int) returns int language sql immutable begin atomic select u($1); end;
create function atomic_ui(int) returns int language sql immutable begin atomic select ui($1); end;
create function u_by_default(int default u(1)) returns int language sql immutable as 'select $1';
create function ui_by_default(int default ui(1)) returns int language sql immutable as 'select $1';
create table indexed_atomic (a int);
create index on indexed_atomic (atomic_u(a));
create table defaulted_by_default (id int, a int default u_by_default());
create table calm_rows (a positive, b positive[], c calm, d my_date);

create table triggered (id int primary key);
create function on_write() returns trigger language plpgsql as 'begin return new; end';
create trigger written after insert on triggered execute function on_write();
create table triggering (id int references triggered on delete cascade);
create table tsv (id int, body text, v tsvector);
create trigger tsv_v before insert on tsv for each row execute function tsvector_update_trigger(v, 'pg_catalog.english', body);
create table ruled (id int);
create rule also as on insert to ruled do also insert into t values (1);
create view updatable as select id, c from txt;
create view instead_view as select id from txt;
create function instead() returns trigger language plpgsql as 'begin return new; end';
create trigger instead_of instead of insert on instead_view for each row execute function instead();
create table defaulted (id int default us(1));
create table cascading (id int primary key);
create table cascaded (id int references cascading on delete cascade);
create trigger cascaded_trigger after delete on cascaded execute function on_write();

create schema hidden;
create table hidden.secret (id int);
create table other.t (id int);
create role reader;
create role member in role reader;
grant usage on schema other to reader;
create schema reader authorization reader;
"""


@dataclass
class Database:
    """The catalog of the database above, and the questions that the tests ask."""

    postgres: Postgres
    url: str
    catalog: Catalog
    path: tuple[int, ...]
    declare: Callable[[Declarations], Catalog]

    def judge(
        self, sql: str, *types: int, path: Sequence[int] | None = None, declared: Declarations | None = None
    ) -> Cacheable | Refused:
        reading = analyse(sql.encode())
        if isinstance(reading, Refused):
            return reading
        catalog = self.catalog if declared is None else self.declare(declared)
        return resolve(reading, catalog, self.path if path is None else path, types)

    def reload(self) -> None:
        """After DDL of the test's own, which it takes back."""
        self.catalog = asyncio.run(_load(self.url))

    def rule(self, sql: str, *types: int, declared: Declarations | None = None) -> str:
        """The name of the rule that refuses *sql*; ``cacheable`` if none does."""
        found = self.judge(sql, *types, declared=declared)
        return found.rule.value if isinstance(found, Refused) else "cacheable"

    def tags(self, sql: str) -> set[str]:
        found = self.judge(sql)
        assert isinstance(found, Cacheable), f"{sql}: {found}"
        return self.named(found.tags)

    def named(self, oids: Sequence[int] | frozenset[int]) -> set[str]:
        return {self.catalog.qualified(self.catalog.relations[oid]).removeprefix("public.") for oid in oids}

    def writes(self, sql: str, declared: Declarations | None = None) -> Writes:
        return targets(sql.encode(), self.catalog if declared is None else self.declare(declared), self.path)

    def written(self, sql: str) -> set[str] | str:
        """What *sql* changes: names of relations, ``unknown``, or ``epoch``."""
        found = self.writes(sql)
        if found.ends_epoch:
            return "epoch"
        return "unknown" if found.relations is None else self.named(found.relations)


async def _load(url: str, declarations: Declarations | None = None) -> Catalog:
    connection = await asyncpg.connect(url)
    try:
        catalog = await load(connection, declarations=declarations)
    finally:
        await connection.close()
    assert catalog is not None
    return catalog


_made: dict[int, Database] = {}


def make_database(postgres: Postgres) -> Database:
    if postgres.major not in _made:
        postgres.execute(f"create database {DATABASE}", "postgres")
        postgres.execute(SCHEMA, DATABASE)
        url = postgres.url_for(SUPERUSER, SUPERUSER_PASSWORD, DATABASE)
        catalog = asyncio.run(_load(url))
        path = catalog.path('"$user", public', catalog.roles[SUPERUSER].oid)
        assert path is not None
        declared: dict[str, Catalog] = {}

        def declare(declarations: Declarations) -> Catalog:
            key = repr(declarations)
            if key not in declared:
                declared[key] = asyncio.run(_load(url, declarations))
            return declared[key]

        _made[postgres.major] = Database(postgres, url, catalog, path, declare)
    return _made[postgres.major]


@pytest.fixture(params=[pytest.param(major, id=f"pg{major}") for major in MAJORS], scope="session")
def database(request: pytest.FixtureRequest, farm: PostgresFarm) -> Database:
    """The database on each major version in turn."""
    return make_database(farm.shared(request.param))


@pytest.fixture(scope="session")
def database18(farm: PostgresFarm) -> Database:
    """The database on PostgreSQL 18 alone."""
    return make_database(farm.shared(18))
