"""A proxy as a process of its own, for programs that must not share an event loop or descriptors with it.

``serving(origin_url)`` starts ``python -m tests.drivers.serve`` and yields the URL to connect to, ``served`` its process id as
well; the process ends when its standard input is closed, so it cannot outlive whoever started it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def serving(origin_url: str, **overrides: object) -> Iterator[str]:
    """Run a proxy for *origin_url*; yield its URL. What it wrote to its log is shown if it did not end well."""
    with served(origin_url, **overrides) as (url, _):
        yield url


@contextmanager
def served(origin_url: str, **overrides: object) -> Iterator[tuple[str, int]]:
    """As ``serving``, with the process id."""
    with TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.drivers.serve", origin_url, json.dumps(overrides)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                process.wait(20)
                log.seek(0)
                raise RuntimeError(f"the proxy did not start:\n{log.read()}")
            yield url, process.pid
        finally:
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
            log.seek(0)
            if text := log.read():
                print(f"--- log of the proxy\n{text[-20_000:]}", file=sys.stderr)


async def serve(origin_url: str, overrides: dict[str, object]) -> None:
    from hyperdrive.testing.proxy import running_proxy

    async with running_proxy(origin_url, **overrides) as proxy:
        print(proxy.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(sys.argv[1], json.loads(sys.argv[2])))
