"""Faults of our own: what becomes of a connection whose code raised what it never should.

Nobody knows then what state the client's session and its server are in. So the client is told (XX000, with an id that is also in the
log), both connections end, the fault is counted, and everybody else goes on. Knows errors and counters; knows no protocol.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from hyperdrive.errors import InternalError
from hyperdrive.pool.interfaces import CloseReason

if TYPE_CHECKING:
    from hyperdrive.proxy.metrics import ProxyMetrics
    from hyperdrive.proxy.server import ServerConnection

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("hyperdrive.proxy")


class Breakable(Protocol):
    """What can have a fault."""

    def failed(self, exc: Exception) -> None:
        """Our code raised *exc*: tell whom it concerns, and end."""


B = TypeVar("B", bound=Breakable)


def guarded(default: T) -> Callable[[Callable[Concatenate[B, P], T]], Callable[Concatenate[B, P], T]]:
    """For callbacks off the query path: a fault ends the connection that it concerns, and whoever called sees *default*."""

    def decorate(method: Callable[Concatenate[B, P], T]) -> Callable[Concatenate[B, P], T]:
        @wraps(method)
        def call(self: B, /, *args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return method(self, *args, **kwargs)
            except Exception as exc:
                self.failed(exc)
                return default

        return call

    return decorate


def fault(metrics: ProxyMetrics, where: str, who: str, exc: BaseException) -> InternalError:
    """Log and count *exc*; returns what the client is told."""
    number = secrets.token_hex(4)
    metrics.internal_errors[where] += 1
    log.error("! internal error %s at %s", number, who, exc_info=exc)
    return InternalError(
        f"internal error of the proxy (id {number})",
        log_text=f"internal error {number}: {exc!r}",
        hint="The log has the details under this id.",
    )


def throw_away(server: ServerConnection) -> None:
    """End *server*, whatever state it is in."""
    server.client = None
    carry_out(lambda: server.discard(CloseReason.FAULT), server.transport.abort)


def carry_out(*steps: Callable[[], object]) -> None:
    """Do each of *steps*, also when one before it failed."""
    for step in steps:
        try:
            step()
        except Exception:
            log.exception("! and ending it failed as well")


def watch_loop(loop: asyncio.AbstractEventLoop, metrics: ProxyMetrics) -> None:
    """Log and count what no callback and no task of ours has caught; for a process whose loop is ours alone."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if exc is not None and not isinstance(exc, OSError):  # the network's faults are not ours
            metrics.internal_errors["loop"] += 1
        log.error("! event loop: %s", context.get("message"), exc_info=exc)

    loop.set_exception_handler(handle)
