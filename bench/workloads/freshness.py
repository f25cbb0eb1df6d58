"""How right a cache is: a herd on an expired key, how soon a write is seen, and hits against staleness under writes.

Rivals are what people do today: a TTL cache in the program, and Pgpool-II, which drops what its own writes touched.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench import text
from bench.actors import ASYNCPG, HERD, ActFailed, actor
from bench.distance import Distance
from bench.results import Outcome, quantiles
from bench.suite import Suite
from bench.targets import CACHED, Pgpool, Running, Target, Us, knows

HERD_CLIENTS = 100
HERD_MAX_AGE = 1.0
SEEN_LIMIT_SECONDS = 1.0
REPEATS = 2
READERS = 8
RATES = (1.0, 20.0)
"""Writes a second."""
TTLS = (1.0, 10.0)


def stampede(suite: Suite) -> Outcome:
    """All ask for the same aggregate at once, just after it expired."""
    outcome = Outcome(
        "stampede",
        "a stampede on an expired key",
        f"{HERD_CLIENTS} clients ask for the same aggregate at the same moment, after its age of {HERD_MAX_AGE:g} s has passed; the origin "
        f"at {suite.plan.link}. Round trips are counted at its side.",
    )
    away = suite.far(tls=None)
    for target in suite.usual if suite.plan.is_thorough else [t for t in suite.usual if t.name == CACHED]:
        if isinstance(target, Us) and target.cache:
            with suite.alone(_short_lived(target), away.address) as running:
                if running is not None:
                    _stampedes(suite, outcome, away, running)
        else:
            for one in suite.running([target], away.address):
                _stampedes(suite, outcome, away, one)
    found = outcome.find("round trips", CACHED)
    outcome.promise("round trips for the herd", "at most", 1, "", found.samples if found else [])
    return outcome


def _short_lived(target: Us) -> Target:
    """The cache as the herd wants it: an age that ends, nothing served beyond it, and the catalogs not asked while it is counted."""
    flags = ["--max-age", f"{HERD_MAX_AGE:g}", "--stale-while-revalidate", "0"]
    if knows(target.root, "--catalog-poll"):
        flags += ["--catalog-poll", "1h"]
    return Us(target.name, flags, target.root, cache=True)


def _stampedes(suite: Suite, outcome: Outcome, away: Distance, target: Running) -> None:
    with actor(HERD, target) as asked:
        asked.ask(f"open {HERD_CLIENTS}")
        asked.ask("read 3")
        # Of the others nothing is promised.
        rounds = suite.plan.few if target.name == CACHED else suite.plan.shown
        for _, one in suite.interleaved(outcome, [target], rounds):
            time.sleep(HERD_MAX_AGE + 0.2)
            away.settle()
            away.ask("reset")
            found = asked.ask("read 3")
            away.settle()
            latencies: Sequence[float] = found["latencies"]
            outcome.add("round trips", one.name, "", float(away.crossings()))
            outcome.add("time until all are served", one.name, "ms", latencies[-1], latencies=quantiles(latencies))
        asked.ask("close")


def invalidation(suite: Suite) -> Outcome:
    """From a commit to the first read that shows it."""
    outcome = Outcome(
        "invalidation",
        "how soon a write is seen",
        "A row is read until it is cached, then written and committed; the time until a reader on another connection sees the new "
        f"version. Written through the same target, and behind its back at the origin. After {SEEN_LIMIT_SECONDS:g} s we stop waiting.",
    )
    import psycopg

    targets = [target for target in suite.targets if target.name in ("direct", "us", CACHED, Pgpool.name)]
    with psycopg.connect(suite.address.url, autocommit=True) as origin:
        for _, target in suite.interleaved(outcome, suite.running(targets), suite.plan.shown):
            with (
                psycopg.connect(target.dsn, autocommit=True, prepare_threshold=None) as reader,
                psycopg.connect(target.dsn, autocommit=True, prepare_threshold=None) as through,
            ):
                for how, writer in (("through it", through), ("behind its back", origin)):
                    for _repeat in range(REPEATS if suite.plan.is_thorough else 1):
                        outcome.add(f"written {how}", target.name, "ms", _seen_after(reader, writer) * 1000)
    found = outcome.find("written through it", CACHED)
    if found is not None:
        late = [float(value >= SEEN_LIMIT_SECONDS * 1000) for value in found.samples]
        outcome.promise("own writes that were not seen", "at most", 0, "", [sum(late)])
    return outcome


def _seen_after(reader: Any, writer: Any) -> float:
    """Seconds from the commit's answer to the answer of the first read that has it, at most the limit."""
    ask = "SELECT version FROM bench_versions WHERE id = 7"
    before = 0
    for _ in range(3):
        before = reader.execute(ask).fetchone()[0]
    writer.execute("UPDATE bench_versions SET version = version + 1 WHERE id = 7")
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SEEN_LIMIT_SECONDS:
        if reader.execute(ask).fetchone()[0] > before:
            return time.perf_counter() - start
    return max(elapsed, SEEN_LIMIT_SECONDS)


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to cache: a target, a TTL in the program, and where the writes go."""

    name: str
    target: Target
    ttl: float = 0.0
    behind: bool = False
    rate: float = RATES[0]


def staleness(suite: Suite) -> Outcome:
    """Hit rate and staleness while somebody writes."""
    outcome = Outcome(
        "staleness",
        "hits against staleness",
        f"{READERS} readers with Zipf keys over 1,000 rows while one row a second is written with the same Zipf, or twenty; the "
        f"origin at {suite.plan.link}. A read is stale when a later version was committed before it began. TTL: a cache in the program "
        "that keeps what it read for so long. Behind: written at the origin, past the proxy.",
    )
    if (reason := ASYNCPG.missing()) is not None:
        outcome.skipped.append(f"asyncpg: {reason}")
        return outcome
    away = suite.far(tls=None)
    suite.live.board = lambda: text.figures(outcome)
    for contender in _contenders(suite):
        suite.live.where = f"{outcome.title}, {contender.name}"
        for running in suite.running([contender.target], away.address):
            try:
                _watch(suite, outcome, away, running, contender)
            except ActFailed as error:
                outcome.skipped.append(f"{contender.name}: {error}")
    suite.live.where = ""
    for name, rate in zip((CACHED, f"{CACHED}, 20/s"), RATES, strict=True):
        found = outcome.find("stale reads", name)
        outcome.promise(f"stale reads, {rate:g} writes a second", "at most", 0, "%", found.samples if found else [])
    return outcome


def _contenders(suite: Suite) -> list[Contender]:
    by_name = {target.name: target for target in suite.targets}
    direct = by_name["direct"]
    made = [Contender("direct", direct)]
    made += [Contender(f"TTL {ttl:g} s", direct, ttl) for ttl in TTLS]
    made.append(Contender(f"TTL {TTLS[0]:g} s, 20/s", direct, TTLS[0], rate=RATES[1]))
    if Pgpool.name in by_name:
        made.append(Contender(Pgpool.name, by_name[Pgpool.name]))
    if not suite.plan.is_thorough:
        made = made[1:2]
    if CACHED in by_name:
        made.append(Contender(CACHED, by_name[CACHED]))
        made.append(Contender(f"{CACHED}, 20/s", by_name[CACHED], rate=RATES[1]))
        if suite.plan.is_thorough:  # how soon such a write is seen stands in ``invalidation`` as well
            made.append(Contender(f"{CACHED}, behind", by_name[CACHED], behind=True))
    return made


def _watch(suite: Suite, outcome: Outcome, away: Distance, target: Running, contender: Contender) -> None:
    seconds = 3.0 if suite.plan.is_thorough else 1.0
    writer = suite.address.url if contender.behind else target.dsn
    with actor(HERD, target) as asked:
        away.settle()
        away.ask("reset")
        found = asked.ask(f"watch {seconds} {READERS} {contender.rate} {contender.ttl} {writer}")
        trips = away.crossings()
    reads = max(1, int(found["reads"]))
    latencies: Sequence[float] = found["latencies"]
    # What crossed was a write, a connection, or a read that was not hit.
    asked_origin = trips - (0 if contender.behind else int(found["writes"]))
    outcome.add("hit rate", contender.name, "%", 100 * max(0.0, 1 - asked_origin / reads))
    outcome.add("stale reads", contender.name, "%", 100 * int(found["stale"]) / reads)
    outcome.add("worst staleness", contender.name, "s", float(found["worst"]))
    outcome.add("reads", contender.name, "1/s", reads / seconds)
    outcome.add("p50", contender.name, "ms", latencies[len(latencies) // 2], latencies=quantiles(latencies))
