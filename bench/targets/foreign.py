"""Programs of others as targets: their process under an account without rights, and a client's login like the origin's.

``poolers`` has those that distributions carry, ``others`` those that have to be built.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.targets.base import POOL_SIZE, Address, Missing, Running, Target, daemon, directory, find, free_port, own


class Foreign(Target):
    """A pooler that reads its configuration from a directory, and is told its port there."""

    program_name = ""
    how = ""
    """How to get it."""
    version_flag = "--version"

    def __init__(self) -> None:
        self.program = find(self.program_name)

    def version(self) -> str:
        if self.program is None:
            raise Missing(f"{self.name}: not installed; {self.how}")
        done = subprocess.run([self.program, self.version_flag], capture_output=True, text=True, check=False)
        words = (done.stdout + done.stderr).split()
        return next((word.strip("v,") for word in words if word.strip("v,")[:1].isdigit()), "unknown")

    @property
    def traits(self) -> Mapping[str, str]:
        """What it cannot do, see ``Running``."""
        return {}

    def command(self, origin: Address, port: int, place: Path, pool_size: int) -> list[str]:
        """Write the configuration into *place*; return how the program is started on it."""
        raise NotImplementedError

    @contextmanager
    def start(self, origin: Address, *, pool_size: int = POOL_SIZE, workers: int = 1) -> Iterator[Running]:
        self.version()
        port = free_port()
        with directory() as place:
            own(place)
            command = self.command(origin, port, place, pool_size)
            for path in place.rglob("*"):
                own(path)
            with daemon(command, port, place) as pid:
                yield Running(
                    self.name,
                    port,
                    (pid,),
                    self.traits,
                    user=origin.user,
                    password=origin.password,
                    database=origin.database,
                )


def lines(settings: Mapping[str, object]) -> list[str]:
    """``key = value``, as most of them like it."""
    return [f"{key} = {value}" for key, value in settings.items()]
