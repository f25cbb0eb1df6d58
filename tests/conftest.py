"""What all tests share: uvloop, PostgreSQL servers, and the check that nothing is left behind."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from hyperdrive.proxy import lane
from hyperdrive.testing.deadline import Deadline
from hyperdrive.testing.leaks import Holdings, holdings
from hyperdrive.testing.postgres import MAJORS, Postgres, PostgresFarm

# Machines are busy: a slow example says nothing. `make test` tries the same examples each time, so that what fails is what
# somebody has just changed; `make fuzz` and `make soak` look for what those do not find.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", settings.get_profile("random"), derandomize=True)
settings.register_profile("quick", settings.get_profile("default"), max_examples=20)
settings.register_profile("fuzz", settings.get_profile("random"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# How long what a test let go of may take to be gone: transports close a few turns of the loop later.
LEAK_GRACE_SECONDS = 2.0

_farm = PostgresFarm()

# The first loop makes a pipe that libuv keeps as long as the process; no test shall be blamed for it.
uvloop.new_event_loop().close()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Async tests run on what production runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """The plugin's own alarm raises an exception, which uvloop catches: ours ends async tests, too."""
    if settings.method != "signal" or threading.current_thread() is not threading.main_thread():
        return None
    item.cancel_timeout = Deadline(settings.timeout).cancel  # type: ignore[attr-defined]
    return True


def pytest_report_header() -> str:
    """Which form of the query path is tested."""
    return f"hyperdrive: {lane.described()}"


# --- PostgreSQL ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def farm() -> Iterator[PostgresFarm]:
    """All PostgreSQL servers of the session; the fixtures below are what most tests want."""
    yield _farm
    _farm.close()


@pytest.fixture(scope="session")
def pg16(farm: PostgresFarm) -> Postgres:
    """The shared PostgreSQL 16."""
    return farm.shared(16)


@pytest.fixture(scope="session")
def pg18(farm: PostgresFarm) -> Postgres:
    """The shared PostgreSQL 18."""
    return farm.shared(18)


@pytest.fixture(params=[pytest.param(major, id=f"pg{major}") for major in MAJORS])
def postgres(request: pytest.FixtureRequest, farm: PostgresFarm) -> Postgres:
    """A shared server of each major version in turn."""
    return farm.shared(request.param)


@pytest.fixture
def make_postgres(farm: PostgresFarm) -> Iterator[Callable[..., Postgres]]:
    """Start servers of the test's own: ``make_postgres(18, settings={…}, auth="md5")``; they end with the test."""
    made = []

    def make(major: int = 18, **options: Any) -> Postgres:
        server = farm.make(major, **options)
        made.append(server)
        return farm.prepare(server)

    yield make
    for server in made:
        farm.discard(server)


@pytest.fixture
def throwaway(make_postgres: Callable[..., Postgres]) -> Postgres:
    """A PostgreSQL 18 of the test's own, to be stopped, killed and restarted (``throwaway.server.kill_sync()``)."""
    return make_postgres(18)


# --- leaks ---------------------------------------------------------------------------------------------------------


def held() -> Holdings:
    """What this process holds, apart from the session's servers, which any test may be the first to need."""
    return holdings(spared_children=_farm.pids, spared_pipes=len(_farm.pids) // 2)


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves tasks, sockets, pipes or child processes behind."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("nothing_is_left_in_the_loop")
        yield
        return
    before = held()
    yield
    deadline = time.monotonic() + LEAK_GRACE_SECONDS
    while (left := held().beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, f"left behind: {'; '.join(left)}"


@pytest.fixture
async def nothing_is_left_in_the_loop() -> AsyncIterator[None]:
    """The same within the loop, where tasks can be seen and transports go on closing."""
    before = held()
    yield
    deadline = time.monotonic() + LEAK_GRACE_SECONDS
    while (left := held().beyond(before)) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert not left, f"left behind: {'; '.join(left)}"
