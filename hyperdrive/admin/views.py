"""What SHOW shows, and the JSON API with it: names, columns and rows.

Columns have PgBouncer's names and order (pgbouncer.org/usage.html), so that its exporters work; ours follow at the end.
Knows the rows of ``state``; knows no protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from hyperdrive import __version__
from hyperdrive.admin.state import ConnectionRow, ConsoleState, StatsRow
from hyperdrive.clock import Clock

Value = str | int | None
MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class View:
    """One SHOW. *columns* are texts unless named in *numbers*."""

    columns: tuple[str, ...]
    numbers: frozenset[str]
    rows: Callable[[ConsoleState], Iterable[Sequence[Value]]]
    admin_only: bool = False


def _view(columns: str, rows: Callable[[ConsoleState], Iterable[Sequence[Value]]], *, admin_only: bool = False) -> View:
    """Columns in one text; a ``#`` behind a name marks a number."""
    names = columns.split()
    numbers = frozenset(name[:-1] for name in names if name.endswith("#"))
    return View(tuple(name.rstrip("#") for name in names), numbers, rows, admin_only)


def _micros(seconds: float) -> int:
    return int(seconds * MICROSECONDS)


def _maybe_micros(seconds: float | None) -> int | None:
    return None if seconds is None else _micros(seconds)


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC" if seconds else ""


def _pools(state: ConsoleState) -> Iterable[Sequence[Value]]:
    for p in state.pools():
        counts = (p.cl_active, p.cl_waiting, 0, 0, p.sv_active, 0, 0, p.sv_idle, p.sv_used, p.sv_tested, p.sv_login)
        wait = (int(p.maxwait), _micros(p.maxwait % 1))
        yield (p.database, p.user, *counts, *wait, p.pool_mode, None, p.phase, p.last_error)


def _connections(letter: str, rows: Iterable[ConnectionRow]) -> Iterable[Sequence[Value]]:
    for c in rows:
        places = (c.address, c.port, c.local_address, c.local_port)
        times = (_moment(c.connected_at), _moment(c.requested_at), int(c.wait_seconds), _micros(c.wait_seconds % 1))
        link = "" if not c.link else f"{'s' if letter == 'C' else 'c'}{c.link}"
        head = (letter, c.user, c.database, c.replication, c.state, *places, *times, int(c.close_needed))
        tail = (c.remote_pid, c.tls, c.application_name, c.prepared_statements, c.id, c.pins)
        yield (*head, f"{letter.lower()}{c.id}", link, *tail)


_CONNECTION = (
    "type user database replication state addr port# local_addr local_port# connect_time request_time wait# wait_us#"
    " close_needed# ptr link remote_pid# tls application_name prepared_statements# id# pins"
)


def _databases(state: ConsoleState) -> Iterable[Sequence[Value]]:
    for d in state.databases():
        sizes = (d.pool_size, d.min_pool_size, 0, int(d.server_lifetime))
        limits = (d.max_connections, d.connections, 0, d.client_connections, int(d.is_paused), int(d.is_disabled))
        yield (d.name, d.host, d.port, d.origin_database, None, *sizes, d.pool_mode, None, *limits)


def _users(state: ConsoleState) -> Iterable[Sequence[Value]]:
    for u in state.users():
        yield (u.name, None, None, u.pool_mode, u.max_connections, u.connections, 0, u.client_connections)


_LISTS = [
    "databases",
    "users",
    "peers",
    "pools",
    "peer_pools",
    "free_clients",
    "used_clients",
    "login_clients",
    "free_servers",
    "used_servers",
    "dns_names",
    "dns_zones",
    "dns_queries",
    "dns_pending",
]


def _lists(state: ConsoleState) -> Iterable[Sequence[Value]]:
    found = dict(state.lists())
    yield from ((name, found.pop(name, 0)) for name in _LISTS)
    yield from found.items()


def _memory(state: ConsoleState) -> Iterable[Sequence[Value]]:
    for m in state.memory():
        yield (m.name, m.size_bytes // m.count if m.count else 0, m.count, 0, m.size_bytes)


def _config(state: ConsoleState) -> Iterable[Sequence[Value]]:
    return ((c.key, c.value, c.default, "yes" if c.is_live else "no") for c in state.config())


def _statements(state: ConsoleState) -> Iterable[Sequence[Value]]:
    return ((s.name, s.database, s.user, s.clients, s.servers, s.sql) for s in state.statements())


def _cache(state: ConsoleState) -> Iterable[Sequence[Value]]:
    for c in state.cache():
        asked = c.hits + c.stale + c.misses
        share = f"{100 * (c.hits + c.stale) / asked:.1f}%" if asked else ""
        counts = (c.hits, c.stale, c.misses, c.bypasses)
        yield (c.database, c.state, c.epoch, c.entries, c.size_bytes, c.limit_bytes, *counts, share)


def _tables(state: ConsoleState) -> Iterable[Sequence[Value]]:
    for t in state.tables():
        yield (
            t.database,
            t.name,
            t.kind,
            t.rung,
            f"{t.bound_seconds:g} s",
            "yes" if t.is_cached else "no",
            t.entries,
            t.why,
            t.raised_by,
        )


def _shapes(state: ConsoleState) -> Iterable[Sequence[Value]]:
    for s in sorted(state.shapes(), key=lambda row: (-row.calls, row.database, row.sql)):
        times = (int(1000 * s.saved_seconds), int(1000 * s.origin_seconds))
        counts = (s.calls, s.hits, s.misses, s.bypasses, *times, s.would_be_hits, s.would_be_stale)
        yield (s.database, s.sql, s.verdict, s.rule, s.object, s.depends_on, *counts, s.hint)


def _state(state: ConsoleState) -> Iterable[Sequence[Value]]:
    yield ("active", "yes" if not state.readiness() else "no")
    yield ("paused", "yes" if any(d.is_paused for d in state.databases()) else "no")
    yield ("suspended", "no")


_TOTALS = (
    "total_server_assignment_count# total_xact_count# total_query_count# total_received# total_sent# total_xact_time#"
    " total_query_time# total_wait_time# total_client_parse_count# total_server_parse_count# total_bind_count#"
)
_AVERAGES = _TOTALS.replace("total_received", "avg_recv").replace("total_", "avg_")
_OURS = "total_round_trips# total_round_trips_saved#"


def _totals(s: StatsRow) -> tuple[int | None, ...]:
    counts = (s.assignments, s.transactions, s.queries, s.received_bytes, s.sent_bytes)
    times = (_maybe_micros(s.transaction_seconds), _maybe_micros(s.query_seconds), _micros(s.wait_seconds))
    return (*counts, *times, s.client_parses, s.server_parses, s.binds)


def _averages(new: StatsRow, old: StatsRow, seconds: float) -> tuple[int | None, ...]:
    """Per second; times per transaction, statement and assignment, as in PgBouncer."""
    change = [None if a is None else a - (b or 0) for a, b in zip(_totals(new), _totals(old), strict=True)]
    assigned, transactions, queries = change[:3]
    per = [seconds] * 5 + [transactions, queries, assigned] + [seconds] * 3
    return tuple(
        None if value is None else int(value / base) if base else 0 for value, base in zip(change, per, strict=True)
    )


class StatsPeriod:
    """Averages of SHOW STATS: over the last whole period, before its end since the start. ``tick`` once per period."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ticks: list[tuple[float, dict[str, StatsRow]]] = [(clock.now(), {})]

    def tick(self, state: ConsoleState) -> None:
        """A period ends now."""
        self._ticks = [*self._ticks[-1:], (self._clock.now(), {row.database: row for row in state.stats()})]

    def averages(self, row: StatsRow) -> tuple[int | None, ...]:
        """The average columns for *row*."""
        since, old = self._ticks[0]
        until, new = self._ticks[-1] if len(self._ticks) > 1 else (self._clock.now(), {row.database: row})
        nothing = StatsRow(row.database)
        return _averages(new.get(row.database, nothing), old.get(row.database, nothing), until - since)


def _sum(rows: Iterable[StatsRow]) -> dict[str, float]:
    names = [f.name for f in fields(StatsRow) if f.name != "database"]
    total: dict[str, float] = {}
    for row in rows:
        for name in names:
            value = getattr(row, name)
            if value is not None:
                total[name] = total.get(name, 0.0) + value
    return total


def views(period: StatsPeriod) -> dict[str, View]:
    """All of SHOW, by name."""

    def stats(state: ConsoleState) -> Iterable[Sequence[Value]]:
        for s in state.stats():
            yield (s.database, *_totals(s), *period.averages(s), s.round_trips, s.round_trips_saved)

    def all_together(state: ConsoleState) -> Iterable[Sequence[Value]]:
        total = _sum(state.stats())
        return ((name, _micros(v) if name.endswith("_seconds") else int(v)) for name, v in total.items())

    return {
        "CLIENTS": _view(_CONNECTION, lambda state: _connections("C", state.clients())),
        "CONFIG": _view("key value default changeable", _config),
        "DATABASES": _view(
            "name host port# database force_user pool_size# min_pool_size# reserve_pool_size# server_lifetime# pool_mode"
            " load_balance_hosts max_connections# current_connections# max_client_connections#"
            " current_client_connections# paused# disabled#",
            _databases,
        ),
        "LISTS": _view("list items#", _lists),
        "MEM": _view("name size# used# free# memtotal#", _memory),
        "POOLS": _view(
            "database user cl_active# cl_waiting# cl_active_cancel_req# cl_waiting_cancel_req# sv_active#"
            " sv_active_cancel# sv_being_canceled# sv_idle# sv_used# sv_tested# sv_login# maxwait# maxwait_us# pool_mode"
            " load_balance_hosts phase last_error",
            _pools,
        ),
        "SERVERS": _view(_CONNECTION, lambda state: _connections("S", state.servers())),
        "STATE": _view("key value", _state),
        "CACHE": _view("database state epoch# entries# size# limit# hits# stale# misses# bypasses# hit_rate", _cache),
        "TABLES": _view("database table kind rung# bound cached entries# why raised_by", _tables),
        # The text of a statement may hold data.
        "PREPARED": _view("name database user clients# servers# sql", _statements, admin_only=True),
        "STATEMENTS": _view(
            "database statement verdict rule object depends_on calls# hits# misses# bypasses# saved_ms# origin_ms#"
            " would_be_hits# would_be_stale# hint",
            _shapes,
            admin_only=True,
        ),
        "STATS": _view(f"database {_TOTALS} {_AVERAGES} {_OURS}", stats),
        "STATS_AVERAGES": _view(
            f"database {_AVERAGES}", lambda state: ((s.database, *period.averages(s)) for s in state.stats())
        ),
        "STATS_TOTALS": _view(f"database {_TOTALS}", lambda state: ((s.database, *_totals(s)) for s in state.stats())),
        "TOTALS": _view("name value#", all_together),
        "USERS": _view(
            "name pool_size# reserve_pool_size# pool_mode max_user_connections# current_connections#"
            " max_user_client_connections# current_client_connections#",
            _users,
        ),
        "VERSION": _view("version", lambda state: [(f"Hyperdrive {__version__}",)]),
    }
