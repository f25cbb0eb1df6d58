"""Where and with what a run was made: goes into the JSON and the report, so that figures can be compared with care."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import psutil

from hyperdrive.proxy import lane

ROOT = Path(__file__).parent.parent
_PACKAGES = ("uvloop", "pglast", "psycopg", "asyncpg", "SQLAlchemy", "Django")


def machine() -> dict[str, str]:
    """Processor, memory, system, and how busy it was before we began."""
    return {
        "processor": _processor(),
        "cores": f"{len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, 'cpu_affinity') else os.cpu_count()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load before": load(),
    }


def load() -> str:
    """How busy the machine was in the last one, five and fifteen minutes; a run by itself makes about three on two cores."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Ours, the commit with a mark for changes not committed, Python and what does the work below us."""
    found = {
        "hyperdrive": metadata.version("hyperdrive"),
        "commit": commit(),
        "compiled": lane.described().removeprefix("compiled: "),
    }
    found["Python"] = sys.version.split()[0]
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The short id of the commit, ``+changes`` where files of the proxy differ from it."""
    try:
        name = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "hyperdrive")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+changes" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def raise_descriptor_limit() -> int:
    """Ask for as many open files as we may have; return that number."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
