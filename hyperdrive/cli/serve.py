"""``hyperdrive serve``: run the proxy until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import uvloop

from hyperdrive import __version__, logs
from hyperdrive.app import serve
from hyperdrive.cli.common import loader, say
from hyperdrive.config import Loader, Settings
from hyperdrive.dsn import parse_dsn
from hyperdrive.errors import ConfigError
from hyperdrive.localserver import LocalServer
from hyperdrive.proxy import lane
from hyperdrive.workers import Supervisor

log = logging.getLogger("hyperdrive.cli")

DIRECTORY = Path(".hyperdrive")


def run(options: argparse.Namespace) -> int:
    """Serve; 0 when it was told to stop."""
    source = loader(options)
    chosen = source.load()
    logs.configure(chosen.log_level, chosen.log_format)
    lane.check()
    log.info("= hyperdrive %s, %s", __version__, lane.described())
    try:
        if chosen.workers > 1:
            return _supervise(chosen, source)
        uvloop.run(_serve(chosen, source))
    except OSError as exc:
        sys.stderr.write(f"hyperdrive: {exc}\n")
        return 1
    return 0


def _ready(url: str) -> None:
    say(f"ready {url}")


async def _serve(chosen: Settings, source: Loader) -> None:
    if chosen.origin is not None:
        await serve(chosen, _ready, source)
        return
    async with embedded(DIRECTORY) as url:
        await serve(replace(chosen, origin=parse_dsn(url)), _ready, source, chosen)


def _supervise(chosen: Settings, source: Loader) -> int:
    """Several workers. No event loop runs here, so that forking is safe."""
    if chosen.origin is not None:
        return Supervisor(chosen, _ready, source).run()
    with tempfile.TemporaryDirectory(prefix="hyperdrive-") as short:
        _say_embedded(DIRECTORY)
        server = _local_server(DIRECTORY, Path(short))
        server.start_sync()
        try:
            return Supervisor(replace(chosen, origin=parse_dsn(server.url())), _ready, source, chosen).run()
        finally:
            server.stop_sync()


def _say_embedded(directory: Path) -> None:
    log.info("= no origin given: starting an embedded PostgreSQL in %s", directory)
    log.warning("= programs on this machine need no password; give an ORIGIN_URL with one if that is not right")


@asynccontextmanager
async def embedded(directory: Path, *, quiet: bool = False) -> AsyncIterator[str]:
    """An embedded PostgreSQL with its data in *directory*; the value is its URL.

    It trusts whoever reaches its socket, and only the socket's directory decides who does: so clients on loopback need no
    password either, and the line that we print is all it takes.
    """
    # A socket's path may have 107 bytes, so it is not below a directory that may be deep.
    with tempfile.TemporaryDirectory(prefix="hyperdrive-") as short:
        if not quiet:
            _say_embedded(directory)
        server = _local_server(directory, Path(short))
        await server.start()
        try:
            yield server.url()
        finally:
            await asyncio.shield(server.stop())


def _local_server(directory: Path, short: Path) -> LocalServer:
    try:
        directory.mkdir(mode=0o711, exist_ok=True)  # the data directory within is closed; its owner must get there
    except OSError as exc:
        raise ConfigError(
            f"the embedded PostgreSQL has no place for its data: {directory.absolute()}: {exc.strerror}",
            hint="start in a directory where one can be made, or give an ORIGIN_URL",
        ) from exc
    # When we are root the server runs as somebody else, who must get through to its own, closed, directory within.
    short.chmod(0o711)
    return LocalServer(directory / "postgres", auth="trust", tcp=False, socket_dir=short / "run")
