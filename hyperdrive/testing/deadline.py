"""An end for tests that hang, also within uvloop, where an exception out of a signal handler is only logged.

A test that waits has its tasks cancelled, after their stacks were printed; one that computes or blocks gets an exception.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from types import FrameType

import pytest

_AGAIN_SECONDS = 3.0


class Deadline:
    """The alarm of one test; ``SIGALRM`` belongs to it meanwhile."""

    def __init__(self, seconds: float) -> None:
        self._text = f"Timeout: not done after {seconds:g} s"
        self._rings = 0
        signal.signal(signal.SIGALRM, self._ring)
        # Again and again, as a test may swallow a cancellation or an exception.
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)

    def cancel(self) -> None:
        """Take the alarm back."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def _ring(self, _number: int, _frame: FrameType | None) -> None:
        self._rings += 1
        loop = asyncio._get_running_loop()
        waits = loop is not None and asyncio.current_task(loop) is None
        # A callback that never returns looks like waiting, too: so every other time, an exception.
        if loop is None or not waits or self._rings % 2 == 0:
            pytest.fail(self._text)
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            if self._rings == 1:
                sys.stderr.write(f"--- {self._text}: {task.get_name()}\n")
                task.print_stack(file=sys.stderr)
            task.cancel(self._text)
