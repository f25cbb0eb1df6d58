"""W-17 at length: bytes that nobody should send, after a good login. Others must not notice.

Whatever a client sends, at worst it loses its own connection; the server it used is clean for the next one, and a new client can
log in. ``HYPERDRIVE_SOAK=1`` runs thousands.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.frontend import (
    bind,
    close_statement,
    copy_data,
    copy_done,
    describe_portal,
    execute,
    extended,
    flush,
    function_call,
    message,
    parse,
    query,
    startup,
    sync,
)
from hyperdrive.testing.wire import WireConnection, connect, open_wire

EXAMPLES = 3000 if os.environ.get("HYPERDRIVE_SOAK") else 60

SEEDS = [
    query("select 1"),
    query("begin") + query("insert into t values (1, 'x')") + query("select 1/0"),
    extended("select $1::int", ["1"]) + sync(),
    parse("select 1", "s1")
    + bind("s1", portal="p")
    + describe_portal("p")
    + execute("p", 1)
    + flush()
    + close_statement("s1")
    + sync(),
    query("copy t from stdin") + copy_data(b"1\tx\n") + copy_done(),
    parse("copy t from stdin") + bind() + execute() + sync() + copy_data(b"1\tx\n") + copy_done() + sync(),
    query("copy (select 1) to stdout") + query("set timezone = 'Asia/Tokyo'") + query("deallocate all"),
    function_call(1397, [b"\0\0\0\7"]) + sync(),
]
KINDS = "QPBDECHSFdcfpXRKZT\0\x16jA"

mutation = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 400), st.integers(1, 255)),
    st.tuples(st.just("delete"), st.integers(0, 400), st.integers(1, 12)),
    st.tuples(st.just("insert"), st.integers(0, 400), st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("cut"), st.integers(0, 400), st.just(0)),
    st.tuples(
        st.just("length"), st.integers(1, 40), st.sampled_from([0, 3, 4, 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1000])
    ),
)
MUTATED = st.tuples(
    st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3).map(b"".join), st.lists(mutation, min_size=1, max_size=3)
)
RANDOM_MESSAGES = st.lists(
    st.builds(message, st.sampled_from(KINDS), st.binary(max_size=40)), min_size=1, max_size=5
).map(b"".join)


def mutate(data: bytes, how: list[tuple[str, int, Any]]) -> bytes:
    for kind, at, with_ in how:
        at %= max(len(data), 1)
        match kind:
            case "flip":
                data = data[:at] + bytes([data[at] ^ with_]) + data[at + 1 :] if data else data
            case "delete":
                data = data[:at] + data[at + with_ :]
            case "insert":
                data = data[:at] + with_ + data[at:]
            case "cut":
                data = data[:at]
            case "length":
                data = data[:at] + with_.to_bytes(4, "big") + data[at + 4 :]
    return data


HOSTILE = st.one_of(MUTATED.map(lambda pair: mutate(*pair)), RANDOM_MESSAGES, st.binary(max_size=60))


@dataclass
class Stage:
    proxy: Any
    other: WireConnection


@pytest.fixture
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    from hyperdrive.testing.proxy import running_proxy

    url = await database_of(request.getfixturevalue("pg18").url, "fuzz")
    await run_sql(url, "set client_min_messages = error; drop table if exists t; create table t (id int, v text)")
    async with running_proxy(url, pool_size=1) as proxy, await connect(proxy.url) as other:
        await other.scope(parse("select 'other', $1::text", "s1") + sync())
        yield Stage(proxy, other)


async def others_are_well(stage: Stage, mark: int) -> None:
    """The client that was there before has its statement, settings and a clean server; a fresh one gets in."""
    replies = await stage.other.scope(bind("s1", [str(mark)]) + execute() + sync())
    assert replies.rows == [("other", str(mark))], replies
    state = "select current_setting('TimeZone'), current_user, pg_current_xact_id_if_assigned()"
    assert (await stage.other.query(state)).rows == [("UTC", "postgres", None)]
    async with await connect(stage.proxy.url) as fresh:
        assert (await fresh.query("select 'fresh'")).rows == [("fresh",)]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=HOSTILE, mark=st.integers(0, 9), abort=st.booleans())
@pytest.mark.timeout(3600 if os.environ.get("HYPERDRIVE_SOAK") else 120)
async def test_w17_hostile_bytes_harm_nobody_else(stage: Stage, data: bytes, mark: int, abort: bool) -> None:
    hostile = await connect(stage.proxy.url)
    try:
        hostile.send(data)
        try:
            async with asyncio.timeout(0.02):
                await hostile.reader.read(1 << 16)
        except (TimeoutError, ConnectionError):
            pass
        if abort:
            hostile.abort()
    finally:
        await hostile.close()
    await others_are_well(stage, mark)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    data=st.one_of(
        st.binary(max_size=80),
        st.tuples(st.just(startup({"user": "postgres"})), st.lists(mutation, min_size=1, max_size=3)).map(
            lambda p: mutate(*p)
        ),
    )
)
async def test_w01_hostile_first_bytes_harm_nobody_else(stage: Stage, data: bytes) -> None:
    hostile = await open_wire(stage.proxy.url)
    try:
        hostile.send(data)
        try:
            async with asyncio.timeout(0.01):
                await hostile.reader.read(1 << 16)
        except (TimeoutError, ConnectionError):
            pass
    finally:
        await hostile.close()
    await others_are_well(stage, 1)
