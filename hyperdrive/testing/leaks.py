"""What a test must not leave behind: tasks, sockets and pipes, child processes.

Descriptors are compared by kind and number, because an event loop replaces some of its own. Where the system has no
``/proc``, only tasks are compared.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_KINDS = ("socket:", "pipe:", "anon_inode:")


@dataclass(frozen=True, slots=True)
class Holdings:
    """What this process holds at one moment."""

    descriptors: Counter[str]
    children: frozenset[int]
    tasks: frozenset[asyncio.Task[object]]

    def beyond(self, before: Holdings) -> list[str]:
        """Say what is held now and was not *before*."""
        found = [f"{number} more {kind}" for kind, number in (self.descriptors - before.descriptors).items()]
        found += [f"child process {describe(pid)}" for pid in sorted(self.children - before.children)]
        found += [f"task {task.get_name()}: {task.get_coro()}" for task in self.tasks - before.tasks if not task.done()]
        return found


def holdings(*, spared_children: frozenset[int] = frozenset(), spared_pipes: int = 0) -> Holdings:
    """Return what this process holds now; within a running loop, its tasks too. What is *spared* does not count."""
    try:
        tasks = frozenset(asyncio.all_tasks() - {asyncio.current_task()})
    except RuntimeError:
        tasks = frozenset()
    descriptors = _descriptors()
    descriptors.subtract({"pipe": spared_pipes})
    return Holdings(descriptors, _children() - spared_children, tasks)


def describe(pid: int) -> str:
    """Return *pid* with its command line."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        command = "gone"
    return f"{pid} ({command[:120]})"


def _descriptors() -> Counter[str]:
    counted: Counter[str] = Counter()
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return counted
    for name in names:
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith(_KINDS):
            counted[target.partition(":")[0] if target.startswith(_KINDS[:2]) else target] += 1
    return counted


def _children() -> frozenset[int]:
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(int(pid) for pid in path.read_text().split())
        except OSError:
            continue
    return frozenset(found)
