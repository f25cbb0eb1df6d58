"""Random conversations of two clients on one server: each hears exactly what it hears when it is alone and direct.

Simple and extended queries, several scopes in one write, errors at every position, unknown and duplicate names, row limits,
transactions and savepoints, settings; writes are cut anywhere. ``HYPERDRIVE_SOAK=1`` runs thousands.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from difflib import unified_diff

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.frontend import (
    bind,
    close_portal,
    close_statement,
    describe_portal,
    describe_statement,
    execute,
    flush,
    parse,
    query,
    sync,
)
from hyperdrive.testing.transcript import transcript
from hyperdrive.testing.wire import ConnectionClosed, connect

EXAMPLES = 3000 if os.environ.get("HYPERDRIVE_SOAK") else 40
OWNER = "OWNER"

SQL = [
    "select 'OWNER'",
    "select 'OWNER', n from t_OWNER order by n",
    "select 'OWNER', i from generate_series(1, 3) i",
    "insert into t_OWNER values (1) returning 'OWNER'",
    "update t_OWNER set n = n + 1",
    "select 1/0",
    "select 1/(n - n) from t_OWNER",
    "selec",
    "",
    "begin",
    "commit",
    "rollback",
    "savepoint a",
    "rollback to a",
    "release a",
    "set timezone = 'Asia/Tokyo'",
    "set timezone = 'UTC'",
    "set work_mem = '3MB'",
    "set local work_mem = '5MB'",
    "show timezone",
    "show work_mem",
    "reset all",
    "deallocate s1",
    "deallocate all",
]
LISTS = [
    "select 'OWNER'; select 1/0; select 2",
    "insert into t_OWNER values (2); select 'OWNER'",
    "begin; insert into t_OWNER values (3); commit",
    "begin; select 'OWNER'",
    "set timezone = 'Europe/Berlin'; select 1/0",
    "commit; select 'OWNER'",
    "do $$ begin raise notice 'OWNER'; end $$",
]
NAMES = st.sampled_from(["", "s1", "s2"])
PORTALS = st.sampled_from(["", "p1"])
TEXTS = st.sampled_from(SQL)

MESSAGES = st.one_of(
    st.builds(parse, TEXTS, NAMES),
    st.builds(lambda name, portal: bind(name, portal=portal), NAMES, PORTALS),
    st.builds(describe_statement, NAMES),
    st.builds(describe_portal, PORTALS),
    st.builds(execute, PORTALS, st.sampled_from([0, 0, 1, 2])),
    st.builds(close_statement, NAMES),
    st.builds(close_portal, PORTALS),
    st.just(flush()),
)
USUAL = st.one_of(
    st.builds(lambda sql: parse(sql) + bind() + describe_portal() + execute(), TEXTS),
    st.builds(lambda sql, name: parse(sql, name) + describe_statement(name) + bind(name) + execute(), TEXTS, NAMES),
    st.builds(lambda name: bind(name) + describe_portal() + execute(), NAMES),
)
SCOPES = st.one_of(
    st.builds(query, TEXTS),
    st.builds(query, st.sampled_from(LISTS)),
    st.builds(lambda parts: b"".join(parts) + sync(), st.lists(USUAL, min_size=1, max_size=2)),
    st.builds(lambda parts: b"".join(parts) + sync(), st.lists(MESSAGES, min_size=0, max_size=6)),
)
WRITES = st.tuples(st.lists(SCOPES, min_size=1, max_size=4), st.lists(st.integers(1, 400), max_size=3))
TALKS = st.lists(WRITES, min_size=1, max_size=7)


@dataclass
class Stage:
    """The proxy and its origin."""

    origin_url: str
    url: str


@pytest.fixture
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    from hyperdrive.testing.proxy import running_proxy

    url = await database_of(request.getfixturevalue("pg18").url, "random_conversations")
    await run_sql(
        url,
        "set client_min_messages = error; drop table if exists t_a, t_b; create table t_a (n int); create table t_b (n int)",
    )
    async with running_proxy(url, pool_size=1) as proxy:
        yield Stage(url, proxy.url)


async def talk(url: str, owner: str, writes: list[tuple[list[bytes], list[int]]]) -> list[str]:
    """Run one client's conversation; a transcript line per message."""
    lines: list[str] = []
    conn = await connect(url)
    try:
        for scopes, cuts in writes:
            # The owner's letter goes in without a change of length.
            data = b"".join(scopes).replace(OWNER.encode(), f"{owner:_<5}".encode())
            await conn.send_cut(data, cuts)
            lines += transcript(await conn.read_until("Z", len(scopes)))
            lines.append("--")
        lines += transcript(await conn.query("rollback"))
    except (ConnectionClosed, TimeoutError) as failed:
        lines.append(f"!! {type(failed).__name__}: {failed}")
    finally:
        await conn.close()
    return lines


RESET = "truncate t_a____, t_b____"


@settings(
    max_examples=EXAMPLES,
    derandomize=not os.environ.get("HYPERDRIVE_SOAK"),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
@given(a=TALKS, b=TALKS)
@pytest.mark.timeout(3600 if os.environ.get("HYPERDRIVE_SOAK") else 120)
async def test_two_clients_on_one_server_hear_what_they_hear_alone(
    stage: Stage, a: list[tuple[list[bytes], list[int]]], b: list[tuple[list[bytes], list[int]]]
) -> None:
    await run_sql(
        stage.origin_url,
        "set client_min_messages = error; create table if not exists t_a____ (n int); create table if not exists t_b____ (n int);"
        + RESET,
    )
    expected = [await talk(stage.origin_url, "a", a), await talk(stage.origin_url, "b", b)]
    await run_sql(stage.origin_url, RESET)
    got = await asyncio.gather(talk(stage.url, "a", a), talk(stage.url, "b", b))
    for owner, direct, ours in zip("ab", expected, got, strict=True):
        difference = "\n".join(unified_diff(direct, ours, f"{owner} direct", f"{owner} through us", lineterm="", n=4))
        assert not difference, difference[:4000]
