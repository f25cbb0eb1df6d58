"""psycopg 3 as a load program: requests on new connections, and prepared statements in threads."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from typing import Any

import psycopg

from bench.load.acting import READ, WRITE, Tally, given, serve

OPTIONS = given()
ITEMS = 10_000


def connect() -> psycopg.Connection[Any]:
    connection = psycopg.connect(OPTIONS.dsn, autocommit=True)
    # Prepared from the first time on, or never.
    connection.prepare_threshold = 0 if OPTIONS.keep_statements else None
    return connection


def request(kind: str, key: str) -> Mapping[str, object]:
    """One request on a new connection, up to its answer; closing it is not in the time."""
    start = time.perf_counter()
    connection = psycopg.connect(OPTIONS.dsn, autocommit=True)
    cursor = connection.execute((READ if kind == "read" else WRITE) + "%s", [int(key)])
    if kind == "read":
        cursor.fetchone()
    seconds = time.perf_counter() - start
    connection.close()
    return {"seconds": seconds}


def request_in_transaction(kind: str, key: str) -> Mapping[str, object]:
    """What ``with psycopg.connect() as connection`` does: BEGIN before, COMMIT behind."""
    start = time.perf_counter()
    with psycopg.connect(OPTIONS.dsn) as connection:
        cursor = connection.execute((READ if kind == "read" else WRITE) + "%s", [int(key)])
        if kind == "read":
            cursor.fetchone()
        connection.commit()
        seconds = time.perf_counter() - start
    return {"seconds": seconds}


def loop(seconds: str, clients: str) -> Mapping[str, object]:
    """The same prepared read on every connection, one after another."""
    tally, lock = Tally(float(seconds)), threading.Lock()

    def client() -> None:
        with connect() as connection:
            while not tally.is_over:
                start = time.perf_counter()
                connection.execute(READ + "%s", [random.randint(1, ITEMS)]).fetchone()
                with lock:
                    tally.add(time.perf_counter() - start)

    threads = [threading.Thread(target=client) for _ in range(int(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally.result()


if __name__ == "__main__":
    serve({"request": request, "transaction": request_in_transaction, "loop": loop})
