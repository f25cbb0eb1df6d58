"""One's own database and statements: ``python -m bench --origin URL --queries FILE``, direct and through us.

Reads only, in sessions that are read-only by ``default_transaction_read_only``. Statements that write, lock or cannot be read are left
out unless the person who started it says yes at a terminal. Says before and after what it measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pglast
from pglast.parser import parse_sql_json

from bench import report, text
from bench.live import Live
from bench.machine import machine, versions
from bench.results import LATEST, Outcome, Run
from bench.suite import available
from bench.targets import CACHED, Address, Direct, Running, Target, Us

REPEATS = 20
CONNECTS = 3
CATALOG_SECONDS = 15.0
"""So long a cache may take to know a database that is far away."""
OWN = LATEST.with_name("own.json")
_READ_ONLY = "-c default_transaction_read_only=on"


@dataclass(frozen=True, slots=True)
class Query:
    """A statement of the file."""

    number: int
    sql: str
    is_read: bool

    @property
    def name(self) -> str:
        """Short enough for a table."""
        words = " ".join(self.sql.split())
        return f"{self.number}: {words[:57] + '…' if len(words) > 58 else words}"


_MORE_THAN_READING = {"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "LockingClause", "intoClause"}
"""Nodes and one field of the parser that make a SELECT more than a read."""


def read_queries(source: str) -> list[Query]:
    """The statements of a file, in order; one is a read when it is a SELECT or VALUES that writes and locks nothing.

    Raises:
        pglast.parser.ParseError: PostgreSQL would not read it.
    """
    return [Query(number, sql, _is_read(sql)) for number, sql in enumerate(pglast.split(source), 1)]


def _is_read(sql: str) -> bool:
    tree = json.loads(parse_sql_json(sql))
    statements = [raw["stmt"] for raw in tree.get("stmts", [])]
    return len(statements) == 1 and list(statements[0]) == ["SelectStmt"] and not _MORE_THAN_READING & set(_keys(tree))


def _keys(tree: object) -> Iterator[str]:
    """Every key below *tree*: nodes and their fields."""
    if isinstance(tree, dict):
        yield from tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _keys(child)


def allowed(queries: Sequence[Query], ask: Callable[[str], str] | None, repeats: int) -> list[Query]:
    """*queries* without those that are no reads, unless *ask* is answered with yes; without anybody to ask, without them."""
    others = [query for query in queries if not query.is_read]
    if not others or ask is None:
        return [query for query in queries if query.is_read]
    listed = "\n".join(f"  {query.name}" for query in others)
    answer = ask(
        f"{len(others)} of {len(queries)} statements are no plain reads:\n{listed}\n"
        f"Each would be run about {repeats} times on every target, and what they write would stay. Run them? [y/N] "
    )
    return list(queries) if answer.strip().lower() in ("y", "yes") else [q for q in queries if q.is_read]


def address_of(url: str) -> Address:
    """The origin at *url*, as libpq reads it.

    Raises:
        ValueError: it is none.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        found = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise ValueError(f"--origin: {str(error).strip()}") from None
    user = str(found.get("user") or "postgres")
    password = found.get("password")
    return Address(
        int(str(found.get("port") or 5432).split(",")[0]),
        user=user,
        password=str(password) if password else None,
        host=str(found.get("host") or "localhost"),
        database=str(found.get("dbname") or user),
        given=url,
    )


def _reach(address: Address) -> None:
    """Log in once, directly.

    Raises:
        ConnectionError: that does not work; the text has the driver's words.
    """
    import psycopg

    try:
        psycopg.connect(address.url).close()
    except psycopg.Error as error:
        raise ConnectionError(str(error)) from None


def measure(live: Live, targets: Sequence[Target], address: Address, queries: Sequence[Query], repeats: int) -> Outcome:
    """Each query on a connection that is kept, and connections with one statement, target after target."""
    outcome = Outcome("own", "your database", "")
    with ExitStack() as stack:
        running = [stack.enter_context(target.start(address)) for target in targets]
        live.board = lambda: text.figures(outcome)
        for number in range(CONNECTS + 1):
            for target in running:
                live.now(f"connecting, {target.name}")
                _add(outcome, "connect and SELECT 1", target, _connect_and_ask(target), number)
        connections = {target.name: stack.enter_context(_connect(target, queries)) for target in running}
        able = [query for query in queries if _works(live, outcome, connections, query)]
        for query in able:
            if CACHED in connections:
                live.now(f"{query.name}: waiting for the cache")
                outcome.skipped += _not_from_cache(connections[CACHED], query)
        for number in range(repeats + 1):
            for query in able:
                for target in running:
                    live.now(f"{target.name}, {query.name}, {number}/{repeats}")
                    _add(outcome, query.name, target, _run(connections[target.name], query), number)
        live.board = None
    outcome.about = _said(outcome, able, repeats, [target.name for target in running])
    return outcome


def _add(outcome: Outcome, metric: str, target: Running, seconds: float, number: int) -> None:
    if number:  # the first warms up
        outcome.add(metric, target.name, "ms", seconds * 1000, latencies=[seconds * 1000])


def _connect(target: Running, queries: Sequence[Query] = ()) -> Any:
    import psycopg

    options = _READ_ONLY if all(query.is_read for query in queries) else ""
    return psycopg.connect(target.dsn, autocommit=True, options=options)


def _connect_and_ask(target: Running) -> float:
    start = time.perf_counter()
    with _connect(target) as connection:
        connection.execute("SELECT 1").fetchone()
        return time.perf_counter() - start


def _run(connection: Any, query: Query) -> float:
    start = time.perf_counter()
    cursor = connection.execute(query.sql)
    if cursor.description is not None:
        cursor.fetchall()
    return time.perf_counter() - start


def _works(live: Live, outcome: Outcome, connections: Mapping[str, Any], query: Query) -> bool:
    """Once on each target before anything is measured; one that fails anywhere is left out, with the database's words."""
    import psycopg

    for name, connection in connections.items():
        live.now(f"{name}, {query.name}, first time")
        try:
            _run(connection, query)
        except psycopg.Error as error:
            outcome.skipped.append(f"{query.name}, {name}: {str(error).strip().splitlines()[0]}")
            return False
    return True


_FOR_NOW = ("origin-unknown", "being looked up")
"""Reasons that pass."""


def _not_from_cache(connection: Any, query: Query) -> list[str]:
    """Why a read does not come from the cache, if it does not; waits until the cache knows the database's catalogs."""
    if not query.is_read:
        return []
    deadline, said = time.monotonic() + CATALOG_SECONDS, ""
    while time.monotonic() < deadline:
        for _ in range(2):  # what has literals in it is stored on second sight
            _run(connection, query)
        row = connection.execute("SHOW hyperdrive.last_read", prepare=False).fetchone()
        said = str(row[0]) if row is not None else ""
        if said.startswith("hit"):
            return []
        if said.startswith("bypass") and not any(reason in said for reason in _FOR_NOW):
            break
        time.sleep(0.1)
    return [f"{query.name}: does not come from the cache, {said}"]


def _said(outcome: Outcome, queries: Sequence[Query], repeats: int, targets: Sequence[str]) -> str:
    one = outcome.find("connect and SELECT 1", "direct")
    connecting = f" Connecting directly and SELECT 1 take {one.median:.1f} ms from here." if one is not None else ""
    reads = sum(query.is_read for query in queries)
    return (
        f"{len(queries)} statements ({reads} reads, {len(queries) - reads} others), {repeats} times each after one that is not counted, "
        f"by psycopg 3 from this machine, one at a time: {', '.join(targets)}.{connecting} Time is up to the last row."
    )


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    made.add_argument("--origin", required=True, metavar="URL", help="postgresql://USER:PASSWORD@HOST/DATABASE")
    made.add_argument("--queries", required=True, type=Path, metavar="FILE", help="SQL statements, by semicolons")
    made.add_argument("--repeats", type=int, default=REPEATS, metavar="N")
    made.add_argument("--json", type=Path, default=OWN, metavar="FILE")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and say what; 2 when there is nothing to measure."""
    options = parser().parse_args(arguments)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        queries = read_queries(options.queries.read_text())
        address = address_of(options.origin)
        _reach(address)
    except (OSError, ValueError, pglast.parser.ParseError, ConnectionError) as error:
        sys.stderr.write(f"bench: {str(error).strip()}\n")
        return 2
    if not queries:
        sys.stderr.write(f"bench: {options.queries} has no statements\n")
        return 2
    chosen = allowed(queries, input if sys.stdin.isatty() else None, options.repeats)
    run = Run("python -m bench --origin … --queries …", started, 0.0, machine(), versions())
    with Live() as live:
        for query in queries:
            if query not in chosen:
                run.skipped.append(f"not run, since it is no plain read: {query.name}")
                live.say(run.skipped[-1])
        targets, missing = available([Direct(), Us(), Us(CACHED, cache=True)])
        run.skipped += missing
        outcome = measure(live, targets, address, chosen, options.repeats)
        run.outcomes.append(outcome)
        run.save(options.json)
        report.write(run, options.json.with_suffix(".html"))
        live.say(f"\n{outcome.about}\n\n{text.figures(outcome)}")
        for line in [*missing, *outcome.skipped]:
            live.say(f"  skipped  {line}")
        live.say(f"\nfigures in {options.json}, report in {options.json.with_suffix('.html')}")
    return 0
