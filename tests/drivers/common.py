"""What the Python driver programs share: a list of checks, a time limit, one JSON line.

A program is a driver and its checks. A check is a function of a connection URL that returns
normally or raises; it knows nothing of Hyperdrive, so it must hold on a direct connection, too.
The same functions run from ``tests/integration/test_drivers_*.py`` and from the command line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import json
import os
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

Check = Callable[[str], Awaitable[None] | None]

LIMIT_SECONDS = 60.0
"""One check may take this long before it counts as hung; a hung driver is the usual face of a pooler's bug."""


@dataclass(frozen=True, slots=True)
class Program:
    """A driver, and what is checked with it. A check is named after its function."""

    driver: str
    version: Callable[[], str]
    checks: tuple[Check, ...]


class CheckHung(Exception):
    """A check was not over in time. Its thread is abandoned (it is a daemon)."""


def run_check(check: Check, url: str, limit_seconds: float = LIMIT_SECONDS) -> None:
    """Run *check* in a thread of its own, with its own event loop if it is a coroutine.

    Raises whatever the check raises, or CheckHung.
    """
    failures: list[BaseException] = []

    def body() -> None:
        try:
            if inspect.iscoroutinefunction(check):
                asyncio.run(check(url))
            else:
                check(url)
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=body, name=name_of(check), daemon=True)
    thread.start()
    thread.join(limit_seconds)
    if thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        where = "".join(traceback.format_stack(frame)[-4:]) if frame is not None else "unknown"
        raise CheckHung(f"{name_of(check)} was not over after {limit_seconds} s; it stands at\n{where}")
    if failures:
        raise failures[0]


def name_of(check: Check) -> str:
    return str(getattr(check, "__name__", "check"))


def in_threads(count: int, body: Callable[[int], None]) -> None:
    """Run ``body(0) … body(count - 1)`` at the same time; raise the first failure when all are over."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            body(number)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def with_parameters(url: str, **parameters: str) -> str:
    """Return *url* with query parameters added (libpq's URL form)."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query)) | parameters
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))


@contextlib.contextmanager
def raises(*kinds: type[BaseException], sqlstate: str | None = None) -> Iterator[None]:
    """Assert that the block raises one of *kinds*, with *sqlstate* where the driver tells it."""
    try:
        yield
    except kinds as exc:
        if sqlstate not in (None, found := sqlstate_of(exc)):
            raise AssertionError(f"expected {sqlstate}, got {found}: {exc!r}") from exc
    else:
        raise AssertionError(f"no {' or '.join(kind.__name__ for kind in kinds)} was raised")


def sqlstate_of(exc: BaseException) -> str | None:
    """The SQLSTATE of an error of any of the Python drivers."""
    for attribute in ("sqlstate", "pgcode"):
        value = getattr(exc, attribute, None)
        if isinstance(value, str):
            return value
    details = exc.args[0] if exc.args else None
    if isinstance(details, dict):  # pg8000
        return str(details.get("C"))
    origin = getattr(exc, "orig", None) or exc.__cause__  # SQLAlchemy, Django
    return sqlstate_of(origin) if origin is not None else None


def main(program: Program) -> None:
    """Run every check (or those named on the command line) against DATABASE_URL, print one JSON line, exit."""
    parser = argparse.ArgumentParser(description=f"checks of {program.driver}")
    parser.add_argument("checks", nargs="*", help="names of the checks to run; all if none is given")
    wanted = parser.parse_args().checks
    url = os.environ["DATABASE_URL"]
    results: dict[str, bool] = {}
    for check in program.checks:
        if wanted and name_of(check) not in wanted:
            continue
        try:
            run_check(check, url)
        except BaseException:
            results[name_of(check)] = False
            print(f"--- {program.driver}: {name_of(check)}", file=sys.stderr)
            traceback.print_exc()
        else:
            results[name_of(check)] = True
    print(json.dumps({"driver": program.driver, "version": program.version(), "checks": results}), flush=True)
    failed = not all(results.values())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if failed else 0)  # a hung check may hold a non-daemon worker of its driver
