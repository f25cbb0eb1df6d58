"""Round trips that whole driver programs wait for: direct, and through the proxy.

``python -m tests.drivers.trips [DRIVER …]`` runs each program of ``run`` twice and prints a table. Direct they are counted by a relay,
connections included; through the proxy by its own counter of flights that clients waited for, since at the origin's side what is
carried out behind, and what the proxy asks for itself, could not be told from them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import AsyncExitStack

from hyperdrive.testing.postgres import PostgresFarm
from hyperdrive.testing.proxy import RunningProxy, running_proxy
from hyperdrive.testing.relay import Relay
from hyperdrive.testing.wire import Address
from tests.drivers.run import DRIVERS, PROGRAM_LIMIT_SECONDS, ROOT, Driver, Missing


async def ends_well(driver: Driver, command: list[str], url: str) -> bool:
    """Run the program once."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env={**os.environ, **dict(driver.env), "DATABASE_URL": url},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PROGRAM_LIMIT_SECONDS):
            code = await process.wait()
    except TimeoutError:
        process.kill()
        code = await process.wait()
    return not code


def waited(proxy: RunningProxy) -> int:
    """Round trips that clients of *proxy* have waited for."""
    return sum(stats.origin_round_trips for stats in proxy.app.proxy.stats.values())


async def compare(names: list[str], origin_url: str, pool_size: int) -> list[tuple[str, str]]:
    """A line of the table per driver."""
    origin = Address.of(origin_url)
    rows: list[tuple[str, str]] = []
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(Relay((origin.host, origin.port)))
        direct_url = origin_url.replace(f":{origin.port}/", f":{relay.port}/")
        proxy = await stack.enter_async_context(running_proxy(origin_url, pool_size=pool_size, min_pool_size=pool_size))
        for driver in DRIVERS:
            if names and driver.name not in names:
                continue
            try:
                await asyncio.to_thread(driver.prepare)
                command = driver.command()
            except Missing as missing:
                rows.append((driver.name, f"skipped: {missing}"))
                continue
            relay.reset_counters()
            is_right = await ends_well(driver, command, direct_url)
            direct = relay.round_trips + relay.connections_total
            before = waited(proxy)
            is_right = await ends_well(driver, command, proxy.url) and is_right
            ours = waited(proxy) - before
            rows.append((driver.name, f"{direct} | {ours} | {1 - ours / direct:.0%}{'' if is_right else ', failed'}"))
            print(f"| {rows[-1][0]} | {rows[-1][1]} |", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("drivers", nargs="*", metavar="DRIVER")
    parser.add_argument("--pool-size", type=int, default=3)
    parser.add_argument("--major", type=int, default=18)
    options = parser.parse_args()
    farm = PostgresFarm()
    try:
        print("| driver | direct | through us | saved |\n|---|---|---|---|", flush=True)
        asyncio.run(compare(options.drivers, farm.shared(options.major).app_url, options.pool_size))
    finally:
        farm.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
