"""Tasks that are kept alive and whose failure is logged.

The event loop holds tasks weakly (asyncio-task#asyncio.create_task); ``spawn`` keeps a strong reference until the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from hyperdrive.metrics import counter

T = TypeVar("T")


@dataclass(slots=True)
class TaskMetrics:
    """What became of the tasks of this process."""

    failed: int = counter("", family="internal_errors", where="task")


metrics = TaskMetrics()

log = logging.getLogger("hyperdrive.tasks")
_alive: set[asyncio.Task[Any]] = set()


def spawn(coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Start *coro* as a task called *name*; an exception that nobody awaits is logged."""
    task = asyncio.get_running_loop().create_task(coro, name=name)
    _alive.add(task)
    task.add_done_callback(_finished)
    return task


def _finished(task: asyncio.Task[Any]) -> None:
    _alive.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        metrics.failed += 1
        log.error("! task %s failed", task.get_name(), exc_info=error)
