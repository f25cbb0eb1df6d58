"""How far away the origin is: a relay as a process of its own, with TLS behind it where wanted. No root, no kernel modules.

Presets are round figures of about what programs see between such places; whoever knows better says milliseconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from bench.machine import ROOT
from bench.targets import Address, end

QUIET_SECONDS = 0.02
Tls = Literal["1.2", "1.3"]


@dataclass(frozen=True, slots=True)
class Link:
    """A distance; *bandwidth* is in bytes per second and direction."""

    delay_ms: float
    """One way."""
    jitter_ms: float = 0.0
    bandwidth: float | None = None
    name: str = ""

    def __str__(self) -> str:
        text = f"{2 * self.delay_ms:g} ms there and back"
        if self.jitter_ms:
            text += f", up to {self.jitter_ms:g} ms of jitter each way"
        if self.bandwidth:
            text += f", {self.bandwidth / 1e6:g} MB/s"
        return f"{self.name} ({text})" if self.name else text

    @property
    def round_trip_seconds(self) -> float:
        return 2 * self.delay_ms / 1000


PRESETS = {
    "same-zone": Link(0.25, 0.05, name="same-zone"),
    "frankfurt-virginia": Link(45.0, 1.0, name="frankfurt-virginia"),
    "singapore-virginia": Link(110.0, 2.0, name="singapore-virginia"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose a distance."""
    parser.add_argument(
        "--distance", metavar="MS|NAME", help=f"one way, in milliseconds (default: 40), or {', '.join(PRESETS)}"
    )
    parser.add_argument("--jitter-ms", type=float, metavar="MS", help="added at random each way")
    parser.add_argument("--bandwidth", type=float, metavar="MB/S", help="megabytes per second and direction")


def chosen(options: argparse.Namespace, default: Link) -> Link:
    """What the arguments say.

    Raises:
        ValueError: neither a number nor a preset.
    """
    given = default
    if options.distance is not None:
        preset = PRESETS.get(options.distance)
        try:
            given = preset if preset is not None else Link(float(options.distance))
        except ValueError:
            raise ValueError(f"{options.distance!r} is neither milliseconds nor one of {', '.join(PRESETS)}") from None
    if options.jitter_ms is not None:
        given = replace(given, jitter_ms=options.jitter_ms)
    if options.bandwidth is not None:
        given = replace(given, bandwidth=options.bandwidth * 1e6)
    return given


@dataclass(slots=True)
class Distance:
    """A relay that runs, in front of *address*'s origin."""

    process: subprocess.Popen[str]
    address: Address
    link: Link

    @property
    def round_trip_seconds(self) -> float:
        return self.link.round_trip_seconds

    def ask(self, line: str = "") -> dict[str, int]:
        """Its counters; ``reset`` sets them to zero."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        counters: dict[str, int] = json.loads(self.process.stdout.readline())
        return counters

    def settle(self) -> dict[str, int]:
        """Wait until nothing travels; return the counters."""
        before = self.ask()
        while True:
            # What is under way arrives within one delay and is answered within another.
            time.sleep(self.round_trip_seconds + 2 * self.link.jitter_ms / 1000 + QUIET_SECONDS)
            now = self.ask()
            if now == before:
                return now
            before = now

    def crossings(self) -> int:
        """Round trips and connections so far; a connection costs one."""
        counters = self.ask()
        return counters["round_trips"] + counters["connections_total"]


@contextmanager
def distance(origin: Address, link: Link, *, tls: Tls | None = None) -> Iterator[Distance]:
    """A relay in front of *origin*; with *tls*, TLS of that version is at its far side and required."""
    with ExitStack() as stack:
        port = origin.port
        if tls:
            port = int(stack.enter_context(_program(["-m", "bench.tls", f"{origin.port}", tls]))[1])
        command = ["-m", "hyperdrive.testing.relay", "--target", f"127.0.0.1:{port}"]
        command += ["--delay-ms", f"{link.delay_ms:g}", "--jitter-ms", f"{link.jitter_ms:g}"]
        command += ["--bandwidth", f"{link.bandwidth:g}"] if link.bandwidth else []
        process, said = stack.enter_context(_program(command))
        address = replace(origin, port=int(said.rpartition(":")[2]), tls=tls is not None or origin.tls)
        yield Distance(process, address, link)


@contextmanager
def _program(arguments: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program of ours that says in one line that it is ready, and ends with its standard input."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(arguments)} did not start")
        yield process, line.strip()
    finally:
        process.stdin.close()
        end(process)
        process.stdout.close()
