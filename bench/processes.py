"""What processes use, as the operating system counts it, and on which cores they run.

CPU is utime + stime of a process tree, with that of children that have ended. It comes in ticks of 10 ms: measure for seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import psutil


def tree(roots: Iterable[int]) -> list[psutil.Process]:
    """The processes with these ids and all below them, as far as they still exist."""
    found: dict[int, psutil.Process] = {}
    for pid in roots:
        try:
            root = psutil.Process(pid)
            for process in [root, *root.children(recursive=True)]:
                found[process.pid] = process
        except psutil.NoSuchProcess:
            continue
    return list(found.values())


def cpu_seconds(roots: Iterable[int]) -> float:
    """CPU time used so far by the trees of *roots*."""
    total = 0.0
    for process in tree(roots):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def user_seconds(roots: Iterable[int]) -> float:
    """CPU time of the trees spent in their own code, not in the kernel."""
    total = 0.0
    for process in tree(roots):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.children_user
    return total


def cpu_by_process(roots: Iterable[int]) -> dict[int, float]:
    """CPU time of each process of the trees, without its children's."""
    result = {}
    for process in tree(roots):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        result[process.pid] = times.user + times.system
    return result


def resident_bytes(roots: Iterable[int]) -> int:
    """Resident memory of the trees; pages that processes share count for each."""
    total = 0
    for process in tree(roots):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def cores() -> list[int]:
    """The cores that we may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def can_pin() -> bool:
    """Whether one core can be set apart."""
    return len(cores()) > 1


def pin(roots: Iterable[int], to: Sequence[int]) -> None:
    """Let the trees of *roots* run on these cores only, with every thread; processes they start inherit it."""
    for process in tree(roots):
        try:
            for thread in process.threads():
                os.sched_setaffinity(thread.id, to)
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue


@contextmanager
def pinned(proxy: Sequence[int], others: Sequence[int]) -> Iterator[None]:
    """The proxy alone on one core; *others*, ourselves and what we start meanwhile on the rest."""
    everything = cores()
    # Ourselves first: the proxy is in our tree.
    pin([*others, os.getpid()], everything[:-1])
    pin(proxy, everything[-1:])
    try:
        yield
    finally:
        pin([*proxy, *others, os.getpid()], everything)
