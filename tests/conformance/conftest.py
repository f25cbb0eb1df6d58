"""What the differential tests share: each script runs direct, then through a proxy, alone and with others in between."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from difflib import unified_diff

import pytest

from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.script import Compare, Script, run_script
from hyperdrive.testing.wire import connect
from tests.conformance.disturbing import Disturber

RESET_TABLES = """
set client_min_messages = error; drop schema if exists public, one, two cascade; create schema public;
create table t (id int primary key, v text);
insert into t values (1, 'one'), (2, 'two'), (3, 'three');
create table log (who text, n int);
"""


MODES = [("pg18", "alone"), ("pg16", "disturbed")]
if os.environ.get("HYPERDRIVE_SOAK"):
    MODES += [("pg16", "alone"), ("pg18", "disturbed")]


@pytest.fixture(params=MODES, ids="-".join)
async def compare(request: pytest.FixtureRequest) -> Compare:
    """Run a script both ways and compare the transcripts.

    *disturbed* means that between any two transactions another client takes the same server and changes all it can.
    """
    server, mode = request.param
    origin_url = await database_of(request.getfixturevalue(server).url, "conformance")
    version = request.getfixturevalue(server).major

    async def both_ways(script: Script) -> None:
        from hyperdrive.testing.proxy import running_proxy

        if version not in script.versions:
            pytest.skip(f"says nothing about {version}")
        setup = RESET_TABLES + script.setup
        await run_sql(origin_url, setup)
        expected = await run_script(script, origin_url)
        await run_sql(origin_url, setup)
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(running_proxy(origin_url, pool_size=script.servers))
            between = None
            if mode == "disturbed":
                between = Disturber(await stack.enter_async_context(await connect(proxy.url)))
            got = await run_script(script, proxy.url, between=between)
        difference = "\n".join(unified_diff(expected, got, "direct", "through us", n=3, lineterm=""))
        assert not difference, f"{script.name}\n{difference[:4000]}"

    return both_ways
