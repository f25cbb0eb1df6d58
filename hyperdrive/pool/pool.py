"""One pool: who has which server connection of one database and user.

Being in a state is being in its collection, and only this file moves servers between them. What to do when something is
due is decided by ``assign``; this file carries it out, connects, and keeps one timer. ``take`` and ``release`` are the
query path: callbacks, no task, no plan. Nothing here awaits between looking at the state and changing it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from math import inf, isfinite
from random import random as _random
from typing import Generic, Protocol, assert_never

from hyperdrive.clock import Clock
from hyperdrive.errors import HyperdriveError, InternalError, OriginUnreachable, PoolTimeout
from hyperdrive.pool import assign
from hyperdrive.pool.assign import Close, Offer, Open, Probe, Refuse, Retire, Suspect
from hyperdrive.pool.backoff import Backoff, is_temporary
from hyperdrive.pool.interfaces import CloseReason, Phase, PoolKey, S, ServerState, Taker
from hyperdrive.pool.limits import Limits
from hyperdrive.pool.metrics import PoolMetrics
from hyperdrive.pool.settings import PoolSettings
from hyperdrive.pool.snapshot import PoolSnapshot, ServerSnapshot, pool_snapshot, server_snapshot
from hyperdrive.tasks import spawn

log = logging.getLogger("hyperdrive.pool")

# A global costs a tenth of an enum's attribute (Python 3.11: 15 ns and 200 ns), and the query path reads several.
_ACTIVE, _IDLE, _RETIRING = ServerState.ACTIVE, ServerState.IDLE, ServerState.RETIRING
_PROBING = ServerState.PROBING
_LENT = frozenset({_ACTIVE, _RETIRING})
_RUNNING = Phase.RUNNING


class Timer(Protocol):
    """What ``call_later`` returns."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class Pool(Generic[S]):
    """The servers of one database and user, and the queue for them.

    *connect* opens a server and logs it in; cancelling it must close whatever it opened. *call_later* and *random* are
    the loop's and the library's unless a test brings its own. Use from one event loop only.
    """

    __slots__ = (
        "__weakref__",
        "_assigning",
        "_backoff",
        "_call_later",
        "_connect",
        "_connecting",
        "_connects",
        "_generation",
        "_idle",
        "_last_used_at",
        "_limits",
        "_now",
        "_on_suspect",
        "_plan_again",
        "_planning",
        "_pressed",
        "_probing",
        "_quiet",
        "_random",
        "_refused",
        "_retiring",
        "_servers",
        "_special",
        "_timer",
        "_timer_at",
        "_waiters",
        "_warm",
        "clients",
        "key",
        "last_error",
        "metrics",
        "phase",
        "settings",
    )

    def __init__(
        self,
        key: PoolKey,
        settings: PoolSettings,
        connect: Callable[[PoolKey], Awaitable[S]],
        clock: Clock,
        limits: Limits | None = None,
        metrics: PoolMetrics | None = None,
        *,
        call_later: CallLater | None = None,
        random: Callable[[], float] = _random,
        on_suspect: Callable[[Pool[S]], None] | None = None,
    ) -> None:
        self.key = key
        self.settings = settings
        self.metrics = metrics or PoolMetrics()
        #: Clients logged in to this pool, counted by the proxy: for ``cl_active``, and a pool with some is not removed.
        self.clients = 0
        self.phase = _RUNNING
        self.last_error: HyperdriveError | None = None
        self._connect = connect
        self._now = clock.now
        self._limits = limits or Limits(now=clock.now)
        self._call_later = call_later
        self._random = random
        self._on_suspect = on_suspect
        self._backoff = Backoff(random)

        self._servers: dict[S, None] = {}
        self._idle: list[S] = []  # a stack, the next to be taken last
        self._probing: dict[S, None] = {}
        self._retiring: dict[S, CloseReason] = {}  # a part of those in use
        self._waiters: OrderedDict[Taker[S], float] = OrderedDict()  # when each came; popping a dict's head is O(n)
        self._connecting = 0
        self._connects: set[asyncio.Task[S | HyperdriveError]] = set()
        self._generation = 0  # RECONNECT: connects of an earlier one went to where the origin used to be

        self._special = False  # release() has more to do than push: a queue, a phase, or another pool's hunger
        self._pressed = False
        self._assigning = False
        self._planning = False
        self._plan_again = False
        self._warm = False
        self._refused: HyperdriveError | None = None
        self._last_used_at = self._now()
        self._timer: Timer | None = None
        self._timer_at = inf
        self._quiet: list[asyncio.Future[None]] = []
        self._limits.join(self)

    # The query path

    def take(self) -> S | None:
        """Return the newest idle server, or ``None``: then ``wait``. Newest first, as in PgBouncer: it is warm, and the
        others grow old enough to be closed."""
        if self._idle:
            server = self._idle.pop()
            server.pool_state = _ACTIVE
            return server
        return None

    def release(self, server: S) -> None:
        """Take *server* back: clean, in status I, owed nothing. Goes to the first waiter or on the stack."""
        if self._special or server.pool_state is not _ACTIVE:
            self._release_specially(server)
            return
        server.used_at = self._now()
        server.pool_state = _IDLE
        self._idle.append(server)

    # The queue

    def wait(self, taker: Taker[S]) -> None:
        """Queue *taker*, in arrival order, for at most ``query_wait_timeout``; opens servers if that is allowed.

        May call ``taker.offer`` or ``taker.refuse`` before it returns.
        """
        now = self._now()
        if self.phase is Phase.CLOSED or (self.phase is Phase.DRAINING and not taker.is_in_transaction):
            self._refuse(taker, assign.shutdown_error(), now)
            return
        self._warm = True
        if self._refused is not None and not self._servers and now < self._backoff.ready_at:
            self._refuse(taker, self._refused, now)
            return
        self.metrics.waits += 1
        self._waiters[taker] = now
        self._special = True
        if self._idle:
            self._assign()
        if self._waiters:
            if len(self._servers) + self._connecting < self.settings.pool_size:
                self._grow()
            if self.settings.query_wait_timeout > 0:
                self._arm(now + self.settings.query_wait_timeout)

    def forget(self, taker: Taker[S]) -> None:
        """*taker* waits no longer; nothing happens if it does not."""
        if (since := self._waiters.pop(taker, None)) is not None:
            self.metrics.wait_seconds += self._now() - since
            self._settle()

    # Servers come and go

    def adopt(self, server: S) -> None:
        """Make *server*, which was opened elsewhere, one of the pool's."""
        self._limits.take(self.key)
        self._admit(server)

    def discard(self, server: S, reason: str, detail: str = "") -> None:
        """*server* is broken, or its state is beyond repair: never lent again, and replaced if needed.

        *reason* is counted (as OTHER when it is no ``CloseReason``), *detail* is logged. The caller closes it. Nothing
        happens for a server that the pool has closed itself.
        """
        if server in self._servers:
            log.info("x %s: server discarded: %s %s", self.key, reason, detail)
            self._drop(server, reason)
            self._limits.give_back(self.key)
            self.upkeep()

    def probed(self, server: S) -> None:
        """The answer to ``server.probe()`` has come."""
        if server not in self._probing:
            return
        del self._probing[server]
        server.checked_at = self._now()
        server.pool_state = _IDLE
        # To its old place: it is not the warmest because we asked it something.
        position = len(self._idle)
        while position and self._idle[position - 1].used_at > server.used_at:
            position -= 1
        self._idle.insert(position, server)
        self._came_free()
        self._arm(server.checked_at + self.settings.server_check_delay)

    # Administration

    def start(self) -> None:
        """Open the minimum now, and keep it."""
        self._warm = True
        self.upkeep()

    def change(self, settings: PoolSettings) -> None:
        """Use *settings* from now on. Lifetimes already drawn stay."""
        self.settings = settings
        self.upkeep()

    def pause(self) -> None:
        """Lend nothing until ``resume``; close servers as they come free. ``until_quiet`` tells when all are."""
        if self.phase is _RUNNING:
            self._enter(Phase.PAUSED)

    def resume(self) -> None:
        """End a pause."""
        if self.phase is Phase.PAUSED:
            self._enter(_RUNNING)

    def reconnect(self) -> None:
        """Replace every server: idle ones now, those in use when they come back."""
        self._generation += 1
        for server in list(self._servers):
            if server.pool_state is _ACTIVE:
                self._retire(server, CloseReason.RECONNECT)
            elif server.pool_state is not _RETIRING:
                self._close(server, CloseReason.RECONNECT)
        self._backoff.succeeded()  # what failed was the old place
        self.upkeep()

    def suspect(self) -> None:
        """The way to the origin may be broken: every idle server has to answer a probe before it is lent again."""
        for server in self._idle:
            server.checked_at = -inf
        self.upkeep()

    async def until_quiet(self) -> None:
        """Return when no server is in use, or when the pool lends again. Cancelling changes nothing."""
        while self.in_use and self.phase is not _RUNNING:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._quiet.append(future)
            await future

    def lend_no_more(self) -> None:
        """Refuse clients from now on, but for those in the middle of a transaction; close servers as they come free."""
        if self.phase is not Phase.CLOSED:
            self._enter(Phase.DRAINING)

    async def drain(self, timeout_seconds: float | None = None) -> bool:
        """Refuse clients from now on, wait for servers in use, then close. ``False``: some were still in use.

        Cancelling leaves the pool draining.
        """
        self.lend_no_more()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.until_quiet()
        except TimeoutError:
            quiet = False
        else:
            quiet = True
        self.close()
        if self._connects:
            await asyncio.wait(list(self._connects))
        return quiet

    def close(self, reason: CloseReason = CloseReason.SHUTDOWN) -> None:
        """Close every server, in use or not, and refuse every waiter. Connects under way are cancelled."""
        if self.phase is Phase.CLOSED:
            return
        self._enter(Phase.CLOSED)
        for server in list(self._servers):
            self._close(server, reason)
        for task in self._connects:
            task.cancel()
        self._disarm()
        self._limits.leave(self)

    def rest(self) -> None:
        """Nobody uses the pool: close its idle servers and keep none warm, until a client asks again."""
        self._warm = False
        while self._idle:
            self._close(self._idle[0], CloseReason.UNUSED)
        self._limits.leave(self)
        self.upkeep()

    @property
    def in_use(self) -> int:
        """Servers lent."""
        return len(self._servers) - len(self._idle) - len(self._probing)

    @property
    def is_down(self) -> bool:
        """There is no server, and the last attempt to open one failed."""
        return not self._servers and self.last_error is not None

    @property
    def waiting(self) -> int:
        """Clients in the queue."""
        return len(self._waiters)

    def waited(self, taker: Taker[S]) -> float:
        """Seconds that *taker* has been in the queue; 0 if it is not."""
        since = self._waiters.get(taker)
        return 0.0 if since is None else self._now() - since

    def unused_since(self) -> float:
        """When a client last used a server; ``inf`` while somebody needs the pool."""
        if self.clients or self._waiters or self.in_use or self._connecting:
            return inf
        # A server that was opened as a successor and never lent says nothing about clients.
        used = (server.used_at for server in self._servers if server.used_at > server.born_at)
        return max([self._last_used_at, *used])

    def snapshot(self) -> PoolSnapshot:
        """A row of SHOW POOLS."""
        now = self._now()
        return pool_snapshot(
            self.key,
            self.settings,
            phase=self.phase,
            clients=self.clients,
            waiting=len(self._waiters),
            first_since=next(iter(self._waiters.values()), now),
            idle=self._idle,
            tested=len(self._probing),
            in_use=self.in_use,
            login=self._connecting,
            last_error=self.last_error,
            now=now,
        )

    def servers(self) -> Iterator[ServerSnapshot[S]]:
        """The rows of SHOW SERVERS."""
        now = self._now()
        return (server_snapshot(self.key, server, now) for server in list(self._servers))

    # What the limits ask (limits.Member)

    def share_counts(self) -> tuple[int, float]:
        """Servers, and since when the first client waits."""
        return len(self._servers) + self._connecting, next(iter(self._waiters.values()), inf)

    def idle_since(self, *, keep_minimum: bool) -> float:
        """Last use of the longest idle server that can be spared."""
        keep = self.settings.min_size if keep_minimum and self._warm else 0
        return self._idle[0].used_at if self._idle and len(self._servers) > keep else inf

    def give(self) -> None:
        """Close the longest idle server for the sake of another pool, which uses its place."""
        server = self._idle[0]
        self._drop(server, CloseReason.MADE_ROOM)
        self._limits.give_back_quietly(self.key)
        self._shut(server, CloseReason.MADE_ROOM)
        self._arm(self._now() + assign.RETRY_SECONDS)  # the minimum may be missing one now

    def grow(self) -> None:
        """There may be room under the limits."""
        self._grow()

    def attend(self, hungry: bool) -> None:
        """Other pools are in need, or no longer."""
        self._pressed = hungry
        self._settle()

    # Upkeep: the plan, and carrying it out

    def upkeep(self) -> None:
        """Do what is due. The pool's timer calls this; so may anybody else, at any time."""
        if self._planning:  # called back by a server or a taker, out of the loop below
            self._plan_again = True
            return
        self._planning = True
        try:
            self._plan_again = True
            while self._plan_again:
                self._plan_again = False
                plan = assign.plan(self._state(), self._now())
                for action in plan.actions:
                    self._carry_out(action)
                if not any(isinstance(action, Open) for action in plan.actions):
                    self._limits.satisfied(self)
        finally:
            self._planning = False
        self._settle()
        if self.phase is not Phase.CLOSED:
            self._arm(plan.look_again_at)

    def _state(self) -> assign.State[S, Taker[S]]:
        return assign.State(
            self.settings,
            phase=self.phase,
            warm=self._warm and self._refused is None,
            idle=self._idle,
            active=[server for server in self._servers if server.pool_state in _LENT],
            probing=list(self._probing),
            connecting=self._connecting,
            waiters=self._waiters,
            unfinished=self._unfinished(),
            room=self._limits.room(self.key),
            failures=self._backoff.failures,
            connect_at=self._backoff.ready_at,
            last_error=self.last_error,
        )

    def _unfinished(self) -> set[Taker[S]]:
        if self.phase is not Phase.DRAINING:
            return set()
        return {taker for taker in self._waiters if taker.is_in_transaction}

    def _carry_out(self, action: assign.Action[S, Taker[S]]) -> None:
        # An earlier action of the same plan may have called back and moved things: each looks again.
        match action:
            case Refuse(taker, error):
                if (since := self._waiters.pop(taker, None)) is not None:
                    self._refuse(taker, error, since)
            case Offer():
                self._assign()
            case Open():
                self._open(action)
            case Close(server, reason):
                if server.pool_state is _IDLE or server.pool_state is _PROBING:
                    self._close(server, reason)
            case Retire(server, reason):
                if server.pool_state is _ACTIVE:
                    self._retire(server, reason)
            case Probe(server):
                if server.pool_state is _IDLE:
                    self._probe(server)
            case Suspect():
                log.warning("%% %s: a server did not answer its check; the others are checked now", self.key)
                self.suspect()
                if self._on_suspect is not None:
                    self._on_suspect(self)
            case _:
                assert_never(action)

    def _assign(self) -> None:
        """Hand idle servers to waiters. A taker that calls back finds everything in order, and does not recurse."""
        if self._assigning or (self.phase is not _RUNNING and self.phase is not Phase.DRAINING):
            return
        self._assigning = True
        try:
            while self._waiters and self._idle:
                taker, since = self._waiters.popitem(last=False)
                self.metrics.wait_seconds += self._now() - since
                server = self._idle.pop()
                server.pool_state = _ACTIVE
                try:
                    accepted = taker.offer(server)
                except Exception:
                    log.exception("! %s: a hand-over failed", self.key)
                    if server in self._servers:
                        self._close(server, CloseReason.HANDOVER)
                        self._grow()
                    continue
                if not accepted:
                    server.pool_state = _IDLE
                    self._idle.append(server)
        finally:
            self._assigning = False
        if not self._waiters:
            self._settle()

    def _release_specially(self, server: S) -> None:
        state = server.pool_state
        if state is _ACTIVE and self.phase is _RUNNING:
            server.used_at = self._now()
            server.pool_state = _IDLE
            self._idle.append(server)
            self._came_free()
        elif state is _ACTIVE or state is _RETIRING:
            self._close(server, self._retiring.get(server, CloseReason.SHUTDOWN))
            self.upkeep()
        elif state is not ServerState.CLOSED:  # then it broke, or was killed, while it was lent
            raise InternalError(f"a server that is {state.value} was released")

    def _came_free(self) -> None:
        if self._pressed and self.phase is _RUNNING:
            self._limits.make_way(self)
        if self._waiters:
            self._assign()
        if self._waiters and len(self._servers) + self._connecting < self.settings.pool_size:
            self._grow()  # it made way, and has to queue for a place itself now

    def _refuse(self, taker: Taker[S], error: HyperdriveError, since: float) -> None:
        self.metrics.wait_seconds += self._now() - since
        if isinstance(error, PoolTimeout):
            self.metrics.timeouts += 1
        else:
            self.metrics.refusals += 1
        try:
            taker.refuse(error)
        except Exception:
            log.exception("! %s: a refusal failed", self.key)

    def _probe(self, server: S) -> None:
        now = self._now()
        self._idle.remove(server)
        self._probing[server] = None
        server.pool_state = _PROBING
        server.answer_by = now + self.settings.probe_timeout
        self.metrics.probes += 1
        try:
            server.probe()
        except Exception:
            log.exception("! %s: a probe failed", self.key)
            self._close(server, CloseReason.OTHER)
            self._plan_again = True

    # Opening

    def _grow(self) -> None:
        """The part of the plan that a full queue asks for over and over, by counts alone."""
        drains = self.phase is Phase.DRAINING
        if self.phase is not _RUNNING and not (drains and self._waiters):
            return
        live = len(self._servers)
        wanted = assign.growth(
            self.settings,
            waiting=len(self._waiters),
            live=live,
            leaving=0 if drains else len(self._retiring),
            coming=len(self._probing),
            connecting=self._connecting,
            in_use=self.in_use,
            warm=self._warm and self._refused is None and not drains,
        )
        if not wanted.count:
            self._limits.satisfied(self)
        elif self._now() < self._backoff.ready_at:
            self._limits.satisfied(self)
            self._arm(self._backoff.ready_at)
        else:
            self._open(wanted)

    def _open(self, wanted: Open) -> None:
        self._limits.join(self)  # a pool that rested has left
        started = 0
        while started < wanted.count:
            if self._limits.room(self.key) <= 0 and not (started < wanted.for_waiters and self._limits.make_room(self)):
                break
            self._start_connecting()
            started += 1
        if started < wanted.for_waiters:
            self._limits.hungry(self)
        else:
            self._limits.satisfied(self)
        if started < wanted.count:
            self._arm(self._now() + assign.RETRY_SECONDS)

    def _start_connecting(self) -> None:
        self._limits.take(self.key)
        self._connecting += 1
        task = spawn(self._open_one(), name=f"connect {self.key}")
        self._connects.add(task)
        # Counting down belongs to the callback: a task that is cancelled before its first step never runs its finally.
        task.add_done_callback(partial(self._connected, generation=self._generation, started_at=self._now()))

    async def _open_one(self) -> S | HyperdriveError:
        bound = self.settings.open_timeout
        try:
            async with asyncio.timeout(bound if isfinite(bound) else None):
                return await self._connect(self.key)
        except HyperdriveError as exc:
            return exc
        except TimeoutError:
            return OriginUnreachable(f"no connection to the database within {bound:g} s", safe_to_retry=True)
        except OSError as exc:
            return OriginUnreachable("no connection to the database", log_text=f"{self.key}: {exc}", safe_to_retry=True)
        except Exception as exc:
            log.exception("! %s: connecting failed", self.key)
            return InternalError("connecting to the database failed", log_text=f"{self.key}: {exc!r}")

    def _connected(self, task: asyncio.Task[S | HyperdriveError], *, generation: int, started_at: float) -> None:
        self._connects.discard(task)
        self._connecting -= 1
        now = self._now()
        if task.cancelled():
            self._limits.give_back(self.key)
            return
        result = task.result()
        if isinstance(result, HyperdriveError):
            self._limits.give_back_quietly(self.key)
            self._connect_failed(result, started_at)
            self._limits.feed()
            return
        self.metrics.opened += 1
        self.metrics.open_seconds += now - started_at
        self._backoff.succeeded()
        self._refused = self.last_error = None
        if generation != self._generation or not self._may_admit():
            result.pool_state = ServerState.CLOSED
            self._limits.give_back(self.key)
            self._shut(result, CloseReason.SHUTDOWN if self.phase is not _RUNNING else CloseReason.RECONNECT)
            self.upkeep()
            return
        self._admit(result)

    def _may_admit(self) -> bool:
        return self.phase is _RUNNING or (self.phase is Phase.DRAINING and bool(self._unfinished()))

    def _connect_failed(self, error: HyperdriveError, started_at: float) -> None:
        now = self._now()
        temporary = is_temporary(error)
        self.metrics.connect_failures += 1
        self.last_error = error
        if self._backoff.failed(now, started_at=started_at, temporary=temporary, settings=self.settings):
            pause = self._backoff.ready_at - now
            log.warning("! %s: connect failed, next not before %.2f s: %s", self.key, pause, error.log_text)
        if not temporary and not self._servers and self.phase is not Phase.CLOSED:
            # With servers left the queue goes on: they come back, and what refused us may be a limit or a new password.
            self._refused = error
            while self._waiters and self._refused is not None:
                taker, since = self._waiters.popitem(last=False)
                self._refuse(taker, error, since)
        self.upkeep()

    def _admit(self, server: S) -> None:
        now = self._now()
        server.born_at = server.used_at = server.checked_at = now
        lifetime = self.settings.server_lifetime
        server.expires_at = (
            now + lifetime * (1 - self.settings.lifetime_jitter * self._random()) if lifetime > 0 else inf
        )
        server.pool_state = _IDLE
        self._servers[server] = None
        self._idle.append(server)
        if self._waiters:
            self._assign()  # it serves at least one client before it may have to make room for another pool
        else:
            self._came_free()
        self.upkeep()

    # Closing

    def _retire(self, server: S, reason: CloseReason) -> None:
        server.pool_state = _RETIRING
        self._retiring[server] = reason

    def _close(self, server: S, reason: CloseReason) -> None:
        self._drop(server, reason)
        self._limits.give_back(self.key)
        self._shut(server, reason)

    def _drop(self, server: S, reason: str) -> None:
        """Forget *server*; its place under the limits is the caller's to give back."""
        state = server.pool_state
        del self._servers[server]
        if state is _IDLE:
            self._idle.remove(server)
        elif state is _PROBING:
            del self._probing[server]
        self._retiring.pop(server, None)
        server.pool_state = ServerState.CLOSED
        if state in _LENT:
            self._last_used_at = self._now()
        elif server.used_at > server.born_at:
            self._last_used_at = max(self._last_used_at, server.used_at)
        self.metrics.count_closed(reason)
        if self._quiet and not self.in_use:
            self._tell_quiet()

    def _shut(self, server: S, reason: CloseReason) -> None:
        try:
            server.close(reason)
        except Exception:
            log.exception("! %s: closing a server failed", self.key)

    def _tell_quiet(self) -> None:
        for future in self._quiet:
            if not future.done():
                future.set_result(None)
        self._quiet.clear()

    # Phase and timer

    def _enter(self, phase: Phase) -> None:
        log.info("= %s: %s", self.key, phase.value)
        self.phase = phase
        if phase is _RUNNING:
            self._tell_quiet()  # it will not be, and whoever waits for it shall know
        self._settle()
        self.upkeep()

    def _settle(self) -> None:
        self._special = bool(self._waiters) or self._pressed or self.phase is not _RUNNING

    def _arm(self, at: float) -> None:
        """Have ``upkeep`` called at *at* or earlier. One timer for everything: whatever is due first."""
        if at >= self._timer_at or not isfinite(at) or self.phase is Phase.CLOSED:
            return
        self._disarm()
        self._timer_at = at
        call_later = self._call_later or asyncio.get_running_loop().call_later
        self._timer = call_later(max(0.0, at - self._now()), self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, inf

    def _fire(self) -> None:
        self._timer, self._timer_at = None, inf
        self.upkeep()
