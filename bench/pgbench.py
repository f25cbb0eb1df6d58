"""Run pgbench and read what it says: transactions per second, latencies, errors."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.targets import DATABASE, USER, Running
from hyperdrive.localinstall import find_installation

_TPS = re.compile(r"^tps = ([\d.]+) \(without initial", re.MULTILINE)
# With -C there is no "initial" connection time.
_TPS_ALL = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)
_DONE = re.compile(r"number of transactions actually processed: (\d+)")
_FAILED = re.compile(r"number of failed transactions: (\d+)")
_PROGRESS = re.compile(r"progress: ([\d.]+) s, ([\d.]+) tps, lat ([\d.]+|nan) ms")
GRACE_SECONDS = 30.0
"""So long after its time pgbench is taken to hang."""
_LATENCIES = 20_000
"""Latencies kept of each run, about."""


class PgbenchFailed(Exception):
    """pgbench ended with an error; the text has its own words."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one run of pgbench did; latencies in milliseconds, sorted."""

    tps: float
    transactions: int
    failed: int
    latencies: tuple[float, ...]
    complaints: str = ""

    def percentile(self, share: float) -> float:
        if not self.latencies:
            return 0.0
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def program(name: str = "pgbench") -> str:
    """Where pgbench is: in the embedded server's wheel."""
    return str(find_installation().program(name))


def initialize(port: int, scale: int) -> None:
    """Make pgbench's tables."""
    command = [program(), "-i", "-q", "-s", f"{scale}", "-h", "127.0.0.1", "-p", f"{port}", "-U", USER, DATABASE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PgbenchFailed(done.stderr)


def run(
    target: Running,
    arguments: Sequence[str],
    *,
    seconds: float,
    clients: int,
    threads: int = 1,
    on_progress: Callable[[float, float], None] = lambda _seconds, _tps: None,
    expected_tps: float = 20_000,
) -> Report:
    """Run *arguments* (such as ``-S -M prepared``) against *target*; *on_progress* hears (seconds, tps) each second.

    Raises:
        PgbenchFailed: it did not do its work to the end.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        sampling = min(1.0, _LATENCIES / max(1.0, expected_tps * seconds))
        command = [
            program(),
            "-n",
            "-c",
            f"{clients}",
            "-j",
            f"{threads}",
            "-T",
            f"{max(1, round(seconds))}",
            "-P",
            "1",
        ]
        command += ["-l", f"--log-prefix={directory}/log", f"--sampling-rate={sampling:.6f}"]
        command += ["-h", target.host, "-p", f"{target.port}", "-U", target.user]
        command += [*arguments, target.database]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PGCONNECT_TIMEOUT": "30",
                "PGSSLMODE": "require" if target.tls else "disable",
                "PGGSSENCMODE": "disable",
                "PGPASSWORD": target.password or "",
            },
        )
        assert process.stdout is not None and process.stderr is not None
        complaints: list[str] = []
        watchdog = threading.Timer(seconds + GRACE_SECONDS, process.kill)
        watchdog.start()
        try:
            for line in process.stderr:
                if found := _PROGRESS.search(line):
                    on_progress(float(found[1]), float(found[2]))
                elif not line.startswith("pgbench (") and len(complaints) < 20:
                    complaints.append(line)
            text = process.stdout.read()
            process.wait()
        finally:
            watchdog.cancel()
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
            process.stderr.close()
        done = _DONE.search(text)
        if done is None:
            raise PgbenchFailed(
                "".join(complaints) or text or f"pgbench was killed after {seconds + GRACE_SECONDS:.0f} s"
            )
        failed = _FAILED.search(text)
        tps = _TPS.search(text) or _TPS_ALL.search(text)
        report = Report(
            tps=float(tps[1]) if tps else 0.0,
            transactions=int(done[1]),
            failed=int(failed[1]) if failed else 0,
            latencies=_latencies(Path(directory)),
            complaints="".join(complaints),
        )
        if process.returncode and not complaints:
            raise PgbenchFailed(text)
        return report


def _latencies(directory: Path) -> tuple[float, ...]:
    found: list[float] = []
    for path in directory.iterdir():
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) > 2 and words[2].isdigit():
                found.append(int(words[2]) / 1000)
    return tuple(sorted(found))
