"""Which decision a pool takes: a pure function of its state and the time.

``plan`` looks at everything and is asked when something unusual happened or a deadline came; ``growth`` looks at counts
only. Neither changes anything: ``pool.py`` carries the actions out, in their order. Knows no socket, no task and no loop.
The common cases never come here: an idle server is taken, a server comes back while nobody waits or goes to the head of
the queue. ``tests/hyperdrive/pool/test_pool.py`` holds those short cuts against ``plan``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeAlias, TypeVar

from hyperdrive.errors import HyperdriveError, PoolTimeout, ShuttingDown
from hyperdrive.pool.interfaces import CloseReason, Phase, S, ServerState
from hyperdrive.pool.settings import PoolSettings, or_never

T = TypeVar("T")

#: A decision that could not be carried out now (no room, a spare missing) is looked at again after so many seconds.
RETRY_SECONDS = 1.0
#: The next look is never nearer than this, so that a decision without effect cannot spin.
SOONEST_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Open:
    """Start connecting: for clients that wait, and for the stock of the pool. Only the first may rob other pools."""

    for_waiters: int
    for_stock: int

    @property
    def count(self) -> int:
        return self.for_waiters + self.for_stock


@dataclass(frozen=True, slots=True)
class Close(Generic[S]):
    """Close a server that nobody uses."""

    server: S
    reason: CloseReason


@dataclass(frozen=True, slots=True)
class Retire(Generic[S]):
    """Close a server in use when it comes back."""

    server: S
    reason: CloseReason


@dataclass(frozen=True, slots=True)
class Probe(Generic[S]):
    """Ask an idle server for a sign of life."""

    server: S


@dataclass(frozen=True, slots=True)
class Suspect:
    """A probe was missed: the way to the origin may be broken, so every idle server has to prove itself."""


@dataclass(frozen=True, slots=True)
class Offer(Generic[S, T]):
    """Hand *server* to *taker*."""

    taker: T
    server: S


@dataclass(frozen=True, slots=True)
class Refuse(Generic[T]):
    """End the wait of *taker*."""

    taker: T
    error: HyperdriveError


Action: TypeAlias = Open | Close[S] | Retire[S] | Probe[S] | Suspect | Offer[S, T] | Refuse[T]


@dataclass(frozen=True, slots=True)
class State(Generic[S, T]):
    """A pool at one moment. The collections are read, never kept."""

    settings: PoolSettings
    phase: Phase = Phase.RUNNING
    #: The pool keeps its minimum. An unused one rests, until a client asks.
    warm: bool = True
    #: The stack: longest idle first, the next to be taken last.
    idle: Sequence[S] = ()
    #: Lent, RETIRING included.
    active: Sequence[S] = ()
    probing: Sequence[S] = ()
    connecting: int = 0
    #: When each came, first come first.
    waiters: Mapping[T, float] | None = None
    #: Those of them whose transaction has begun: a pool that drains lets them finish it.
    unfinished: Collection[T] = ()
    #: How many more the shared limits allow.
    room: float = inf
    #: Connects failed since the last success; none starts before.
    failures: int = 0
    connect_at: float = -inf
    last_error: HyperdriveError | None = None


@dataclass(frozen=True, slots=True)
class Plan(Generic[S, T]):
    """What to do now, and when to ask again at the latest."""

    actions: list[Action[S, T]]
    look_again_at: float


def growth(
    settings: PoolSettings,
    *,
    waiting: int,
    live: int,
    leaving: int,
    coming: int,
    connecting: int,
    in_use: int,
    warm: bool,
) -> Open:
    """How many servers to open, ahead of shared limits and back-off.

    *live* servers exist; *leaving* of them end soon; *coming* are being probed and serve a waiter in a round trip;
    *in_use* are lent. Waiters are counted, not woken one by one: a burst of 50 opens what it needs at once.
    """
    places = min(settings.pool_size - live - connecting, settings.max_connecting - connecting)
    if places <= 0:
        return Open(0, 0)
    for_waiters = min(places, max(0, waiting - connecting - coming))
    # As many stay as are in use now, or the minimum: what leaves beyond that was surplus and gets no successor.
    stock = max(settings.min_size if warm else 0, in_use if leaving else 0)
    for_stock = max(0, stock - (live - leaving) - connecting - for_waiters)
    return Open(for_waiters, min(places - for_waiters, for_stock))


def plan(state: State[S, T], now: float) -> Plan[S, T]:
    """Decide everything that is due at *now*."""
    match state.phase:
        case Phase.RUNNING:
            return _Planner(state, now).run()
        case Phase.PAUSED:
            return _paused(state, now)
        case Phase.DRAINING:
            return _draining(state, now)
        case Phase.CLOSED:
            return _closed(state)


def timeout_error(state: State[S, T]) -> PoolTimeout:
    """What a waiter hears at its deadline: the pool's numbers, and the cause when the origin was it."""
    settings, cause = state.settings, state.last_error
    live = len(state.idle) + len(state.active) + len(state.probing)
    waiting = len(state.waiters or ())
    numbers = (
        f"{len(state.active)} of at most {settings.pool_size} server connections are in use, "
        f"{state.connecting} are being opened, {waiting} clients wait."
    )
    if cause is not None and not live:
        # The origin is the cause: its code says more to a driver than "too many connections".
        text = (
            f"no server connection within query_wait_timeout ({settings.query_wait_timeout:g} s): {cause.client_text}"
        )
        return PoolTimeout(
            text, log_text=f"{text} [{cause.log_text}]", safe_to_retry=True, sqlstate=cause.code, hint=numbers
        )
    detail = None if cause is None else f"The last attempt to open one failed: {cause.client_text}"
    if state.phase is Phase.PAUSED:
        detail = "The pool is paused, until somebody says RESUME in the console."
    text = f"no server connection became free within query_wait_timeout ({settings.query_wait_timeout:g} s)"
    return PoolTimeout(text, safe_to_retry=True, hint=numbers, detail=detail)


def shutdown_error() -> ShuttingDown:
    """What a waiter hears when the pool goes away."""
    return ShuttingDown("terminating connection due to administrator command", safe_to_retry=True)


def overdue(state: State[S, T], now: float) -> tuple[list[T], float]:
    """The waiters whose deadline has come, and the deadline of the first one left."""
    timeout = or_never(state.settings.query_wait_timeout)
    late: list[T] = []
    for taker, since in (state.waiters or {}).items():
        if since + timeout > now:
            return late, since + timeout  # arrival order is deadline order
        late.append(taker)
    return late, inf


def _closed(state: State[S, T]) -> Plan[S, T]:
    error = shutdown_error()
    actions: list[Action[S, T]] = [Refuse(taker, error) for taker in state.waiters or ()]
    actions += [Close(server, CloseReason.SHUTDOWN) for server in (*state.idle, *state.probing)]
    actions += _retire_all(state.active, CloseReason.SHUTDOWN)
    return Plan(actions, inf)


def _draining(state: State[S, T], now: float) -> Plan[S, T]:
    """Transactions that have begun are finished, also those that need a server only now; nothing else is begun."""
    late, deadline = overdue(state, now)
    actions: list[Action[S, T]] = []
    waiting: list[T] = []
    for taker in state.waiters or ():
        if taker not in state.unfinished:
            actions.append(Refuse(taker, shutdown_error()))
        elif taker in late:
            actions.append(Refuse(taker, timeout_error(state)))
        else:
            waiting.append(taker)
    idle = list(state.idle)
    while waiting and idle:
        actions.append(Offer(waiting.pop(0), idle.pop()))
    actions += [Close(server, CloseReason.SHUTDOWN) for server in (*idle, *state.probing)]
    actions += _retire_all(state.active, CloseReason.SHUTDOWN)
    if not waiting:
        return Plan(actions, inf)
    live = len(state.active)
    lacking = growth(
        state.settings,
        waiting=len(waiting),
        live=live,
        leaving=0,
        coming=0,
        connecting=state.connecting,
        in_use=live,
        warm=False,
    )
    if lacking.count and now >= state.connect_at:
        actions.append(lacking)
    return Plan(actions, min(deadline, max(state.connect_at, now + RETRY_SECONDS)))


def _paused(state: State[S, T], now: float) -> Plan[S, T]:
    """As PgBouncer's PAUSE: servers are closed as they come free, so that the origin can be restarted."""
    late, deadline = overdue(state, now)
    actions: list[Action[S, T]] = []
    if late:
        error = timeout_error(state)
        actions += [Refuse(taker, error) for taker in late]
    actions += [Close(server, CloseReason.PAUSE) for server in (*state.idle, *state.probing)]
    actions += _retire_all(state.active, CloseReason.PAUSE)
    return Plan(actions, deadline)


def _retire_all(active: Sequence[S], reason: CloseReason) -> list[Retire[S]]:
    return [Retire(server, reason) for server in active if server.pool_state is not ServerState.RETIRING]


class _Planner(Generic[S, T]):
    """One look at a running pool. A method per question; ``self`` is the plan as far as it is made."""

    def __init__(self, state: State[S, T], now: float) -> None:
        self.state = state
        self.settings = state.settings
        self.now = now
        self.actions: list[Action[S, T]] = []
        self.look_again_at = inf
        self.idle = list(state.idle)
        self.probing = list(state.probing)
        self.in_use = len(state.active)
        self.waiting: list[T] = []
        self.suspicious = False
        self.minimum = self.settings.min_size if state.warm else 0

    def run(self) -> Plan[S, T]:
        self.refuse_the_late()
        self.close_the_silent()
        self.offer()
        self.replace_the_old()
        self.close_the_unneeded()
        self.probe_the_quiet()
        self.grow()
        return Plan(self.actions, max(self.look_again_at, self.now + SOONEST_SECONDS))

    def look_at(self, time: float) -> None:
        if time < self.look_again_at:
            self.look_again_at = time

    @property
    def live(self) -> int:
        return len(self.idle) + len(self.probing) + self.in_use

    def refuse_the_late(self) -> None:
        late, deadline = overdue(self.state, self.now)
        if late:
            error = timeout_error(self.state)
            self.actions += [Refuse(taker, error) for taker in late]
        self.look_at(deadline)
        self.waiting = list(self.state.waiters or ())[len(late) :]

    def close_the_silent(self) -> None:
        for server in [server for server in self.probing if server.answer_by <= self.now]:
            self.probing.remove(server)
            self.actions.append(Close(server, CloseReason.PROBE_MISSED))
            self.suspicious = True
        if self.suspicious:
            self.actions.append(Suspect())
        for server in self.probing:
            self.look_at(server.answer_by)

    def offer(self) -> None:
        while self.waiting and self.idle:
            self.actions.append(Offer(self.waiting.pop(0), self.idle.pop()))
            self.in_use += 1

    # Lifetime: a server has a successor before it goes. Where none can be had first (the pool or a limit is full) it
    # goes first, a few at a time; while connects fail it stays, as an old server is better than none.

    def is_old(self, server: S) -> bool:
        return server.expires_at - self.settings.replace_ahead <= self.now

    def replace_the_old(self) -> None:
        active = [server for server in self.state.active if server.pool_state is not ServerState.RETIRING]
        everyone = [*self.idle, *self.probing, *active]
        old = [server for server in everyone if self.is_old(server)]
        for server in everyone:
            # Twice: its successor is opened, then it is closed.
            start = server.expires_at - self.settings.replace_ahead
            self.look_at(start if start > self.now else max(server.expires_at, self.now + RETRY_SECONDS))
        if not old:
            return
        staying = len(everyone) - len(old)
        needed = max(self.minimum, self.in_use)
        full = self.live + self.state.connecting >= self.settings.pool_size or self.state.room <= 0
        spare = staying - needed  # what may go without a successor; below zero, so many are missing
        at_once = self.settings.max_connecting - self.state.connecting
        for server in sorted(old, key=lambda server: server.expires_at):
            if server.expires_at > self.now:
                return
            if self.live > needed or spare >= 0:
                pass  # more than needed are left, or as many have come as are needed
            elif full and at_once > 0 and not self.state.failures:
                at_once -= 1
            else:
                continue
            if server.pool_state is ServerState.ACTIVE:
                self.actions.append(Retire(server, CloseReason.LIFETIME))
            elif server in self.idle:
                self.idle.remove(server)
                self.actions.append(Close(server, CloseReason.LIFETIME))

    def close_the_unneeded(self) -> None:
        # A smaller pool_size after RELOAD: surplus idle ones go at once.
        while self.idle and self.live > self.settings.pool_size:
            self.actions.append(Close(self.idle.pop(0), CloseReason.REMOVED))
        timeout = or_never(self.settings.server_idle_timeout)
        for server in list(self.idle):
            if self.live <= self.minimum:
                return
            if server.used_at + timeout > self.now:
                self.look_at(server.used_at + timeout)
                return  # the others were used later
            self.idle.remove(server)
            self.actions.append(Close(server, CloseReason.IDLE_TIMEOUT))

    def probe_the_quiet(self) -> None:
        delay = or_never(self.settings.server_check_delay)
        if self.in_use:
            self.look_at(self.now + delay)  # whatever comes back in the meantime is due later than that
        # Longest idle first. The newest stays on the stack while another is being asked, so that a client finds one;
        # it has its turn when the first is back.
        for server in list(self.idle):
            suspected = server.checked_at == -inf
            due = max(server.used_at, server.checked_at) + delay
            if due > self.now and not suspected:
                self.look_at(due)
            elif self.idle[-1] is server and self.probing and not suspected:
                self.look_at(self.now + RETRY_SECONDS)
            else:
                self.idle.remove(server)
                self.probing.append(server)
                self.actions.append(Probe(server))
                self.look_at(self.now + self.settings.probe_timeout)

    def grow(self) -> None:
        lacking = growth(
            self.settings,
            waiting=len(self.waiting),
            live=self.live,
            leaving=self.leaving(),
            coming=len(self.probing),
            connecting=self.state.connecting,
            in_use=self.in_use,
            warm=self.state.warm,
        )
        if not lacking.count:
            return
        if self.now < self.state.connect_at:
            self.look_at(self.state.connect_at)
            return
        self.actions.append(lacking)
        if lacking.count > self.state.room:
            self.look_at(self.now + RETRY_SECONDS)

    def leaving(self) -> int:
        gone = {id(action.server) for action in self.actions if isinstance(action, Retire)}
        return sum(
            1
            for server in (*self.idle, *self.probing, *self.state.active)
            if server.pool_state is ServerState.RETIRING or id(server) in gone or self.is_old(server)
        )
