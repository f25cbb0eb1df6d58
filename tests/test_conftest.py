"""The checks that all tests rely on: a hanging test ends, and what a test leaves behind is seen."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from hyperdrive.testing.deadline import Deadline
from hyperdrive.testing.leaks import holdings


@pytest.fixture
def soon() -> Iterator[None]:
    """An alarm within this test; the session's own is off meanwhile."""
    deadline = Deadline(0.05)
    yield
    deadline.cancel()


@pytest.mark.usefixtures("soon")
def test_a_test_that_blocks_is_ended() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"not done after 0\.05 s"):
        time.sleep(30)


@pytest.mark.usefixtures("soon")
def test_a_test_that_waits_is_ended_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    async def waits() -> None:
        await asyncio.get_running_loop().create_future()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(asyncio.CancelledError):
        runner.run(waits())
    assert "in waits" in capsys.readouterr().err


def leaves_a_socket() -> Callable[[], object]:
    return socket.socket().close


def leaves_a_child() -> Callable[[], object]:
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    return lambda: child.communicate()


@pytest.mark.parametrize(
    ("leave", "seen"), [pytest.param(leaves_a_socket, "socket"), pytest.param(leaves_a_child, "child process")]
)
def test_what_is_left_behind_is_seen(leave: Callable[[], Callable[[], object]], seen: str) -> None:
    before = holdings()
    clean_up = leave()
    left = holdings().beyond(before)
    clean_up()
    assert seen in " ".join(left)
    assert [] == holdings().beyond(before)


async def test_a_task_that_is_left_behind_is_seen() -> None:
    before = holdings()
    task = asyncio.create_task(asyncio.sleep(30), name="forgotten")
    left = holdings().beyond(before)
    task.cancel()
    assert "forgotten" in " ".join(left)


async def test_async_tests_run_on_uvloop() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
