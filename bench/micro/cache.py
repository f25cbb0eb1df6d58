"""What the cache itself costs: ``python -m bench.micro.cache``. Nanoseconds of CPU per step, best of five."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable

from hyperdrive.cache.fill import open_fill
from hyperdrive.testing.caches import CacheBench

KEY = b"Q\0\0\0\x40SELECT abalance FROM pgbench_accounts WHERE aid = 12345;\0"
BODY = bytes(90)


def nanoseconds(function: Callable[[], object], number: int = 100_000) -> float:
    """Of one call."""
    timer = timeit.Timer(function, timer=time.process_time)
    return min(timer.repeat(5, number)) / number * 1e9


def steps(bench: CacheBench) -> dict[str, Callable[[], object]]:
    """What is measured."""
    space, domain, store, now = bench.space, bench.domain, bench.store, time.monotonic
    bench.fill(KEY, 1, 2)
    entry = space.entries[KEY]
    tags = (domain.tag(1), domain.tag(2))
    entry.early_from = now() + 3600.0
    policy = bench.policy

    def hit() -> bytes | None:
        found = space.entries.get(KEY)
        if found is not None and found.seen == domain.seq and now() < found.early_from:
            found.hits += 1
            store.hits += 1
            return found.body
        return None

    def hit_after_an_event() -> bool:
        domain.seq += 1
        return entry.is_valid()

    def miss() -> bool:
        return space.entries.get(b"another") is None and store.admits(space, b"another")

    def fill_and_store() -> bool:
        fill = open_fill(space, KEY, tags, policy, 0.0, bound=1 << 20)
        fill.feed(BODY)
        body = fill.take()
        return body is not None and fill.may_store() and store.put(fill.entry(body, 0.001, 0.5))

    return {
        "hit": hit,
        "check two tags": hit_after_an_event,
        "miss": miss,
        "fill and store": fill_and_store,
        "invalidate one": lambda: domain.touch((1,)),
        "invalidate all": domain.touch_all,
    }


def main() -> None:
    for name, step in steps(CacheBench()).items():
        print(f"{name:16}{nanoseconds(step):8.0f} ns")


if __name__ == "__main__":
    main()
