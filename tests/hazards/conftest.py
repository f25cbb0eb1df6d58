"""What the hazard tests share: one stage per test, on each embedded version, and tables that say whose row it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from hyperdrive.testing.databases import database_of, run_sql
from hyperdrive.testing.fake_origin import FakeOrigin
from hyperdrive.testing.scene import Scene

RESET_TABLES = """
set client_min_messages = error; drop schema if exists public, one, two cascade; create schema public;
create table t (id int primary key, who text);
create sequence s;
"""


@pytest.fixture(params=["pg16", "pg18"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """A stage with a real origin."""
    server = request.getfixturevalue(request.param)
    url = await database_of(server.url, "hazards")
    await run_sql(url, RESET_TABLES)
    async with AsyncExitStack() as stack:
        yield Scene(url, stack, server.major)


@pytest.fixture
async def fake() -> AsyncIterator[FakeOrigin]:
    """A scripted origin."""
    async with FakeOrigin() as origin:
        yield origin


@pytest.fixture
async def fake_scene(fake: FakeOrigin) -> AsyncIterator[Scene]:
    """A stage with the scripted origin, which has no catalog; whoever reads that would be one more session of it."""
    async with AsyncExitStack() as stack:
        yield Scene(fake.url, stack, 16, cache="off", known_answers=False, eager_commit=False)
