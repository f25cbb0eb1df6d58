"""What a verdict costs: ``python -m bench.micro.classify``. Microseconds of CPU per text, best of five."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable

from hyperdrive.sql import VerdictCache, classify, parse
from hyperdrive.sql.screen import screen

TEXTS = {
    "pgbench select": b"SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
    "pgbench update": b"UPDATE pgbench_accounts SET abalance = abalance + -3042 WHERE aid = 81234;",
    "pgbench insert": b"INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (10, 1, 73821, -4220, CURRENT_TIMESTAMP);",
    "aggregate": b"SELECT count(*), max(a) FROM t WHERE id IN (1, 2, 3) AND b < now()",
    "with a comment": b"SELECT a FROM t WHERE id = 12345 /* traceparent='00-5bd66ef5095369c7b0d1f8f4bd33716a-01' */",
    "1000 rows": b"insert into t (a, b) values " + b", ".join([b"(1, 'abc')"] * 1000),
    "begin": b"BEGIN",
    "set": b"SET search_path = a, b",
    "own function": b"SELECT own_function(a) FROM t WHERE id = 12345",
    "with": b"WITH x AS (SELECT 1) SELECT * FROM x JOIN y USING (z) WHERE a = 'b' AND c < now()",
    "set_config": b"SELECT set_config('search_path', 'x', false)",
    "asyncpg reset": b"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
}


def microseconds(function: Callable[[], object]) -> float:
    timer = timeit.Timer(function, timer=time.process_time)
    number = max(10, int(20_000 / max(1.0, timer.timeit(10) / 10 * 1e6)))
    return min(timer.repeat(5, number)) / number * 1e6


def main() -> None:
    print(f"{'':16}{'unseen':>10}{'parser':>10}{'known':>10}   us")
    for name, sql in TEXTS.items():
        cache = VerdictCache()
        cache.classify(sql)
        cache.classify(sql)
        how = "look" if screen(sql) is not None else ""
        figures = [microseconds(lambda s=sql: classify(s)), microseconds(lambda s=sql: parse(s))]  # type: ignore[misc]
        figures.append(microseconds(lambda s=sql, c=cache: c.classify(s)))  # type: ignore[misc]
        print(f"{name:16}" + "".join(f"{figure:10.2f}" for figure in figures) + f"   {how}")


if __name__ == "__main__":
    main()
