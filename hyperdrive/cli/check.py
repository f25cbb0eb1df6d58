"""``hyperdrive check``: look at an origin as its doctor would.

Only reads. Each finding says what was looked at, how it is, and what follows for us. Exit code 0 if nothing stands in the
way, 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg

from hyperdrive.cli.common import driver_arguments, say, settings
from hyperdrive.config import Settings
from hyperdrive.dsn import Dsn
from hyperdrive.errors import ConfigError

OLDEST = 13
NEWEST = 18

_QUERY = """
select current_setting('server_version_num')::int as version, version() as banner, pg_is_in_recovery() as in_recovery,
       (select rolsuper from pg_roles where rolname = current_user) as is_superuser,
       (select rolreplication from pg_roles where rolname = current_user) as may_replicate,
       (select rolconnlimit from pg_roles where rolname = current_user) as role_limit,
       (select datconnlimit from pg_database where datname = current_database()) as database_limit,
       current_setting('max_connections')::int as max_connections,
       (select count(*)::int from pg_stat_activity where backend_type = 'client backend') as connections,
       current_setting('wal_level') as wal_level,
       current_setting('max_replication_slots')::int as max_slots,
       (select count(*)::int from pg_replication_slots) as slots,
       current_setting('max_wal_senders')::int as max_senders,
       current_setting('server_encoding') as encoding,
       coalesce((select setting::int from pg_settings where name = 'idle_session_timeout'), 0) as idle_session_ms,
       coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false) as tls,
       coalesce((select version from pg_stat_ssl where pid = pg_backend_pid()), '') as tls_version
"""

Grade = Literal["ok", "note", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    grade: Grade
    subject: str
    text: str


def run(options: argparse.Namespace) -> int:
    """Look, and print what was found."""
    chosen = settings(options)
    if chosen.origin is None:
        raise ConfigError("origin: none to check; give postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    found = asyncio.run(examine(chosen.origin, chosen))
    width = max(len(finding.subject) for finding in found)
    for finding in found:
        say(f"{finding.grade:<4}  {finding.subject:<{width}}  {finding.text}")
    return 1 if any(finding.grade == "fail" for finding in found) else 0


async def examine(dsn: Dsn, chosen: Settings) -> list[Finding]:
    """All findings; the first that fails may be the last."""
    places = ", ".join(map(str, dsn.hosts))
    started = time.monotonic()
    try:
        connection = await asyncpg.connect(**driver_arguments(dsn, chosen.connect_timeout))
    except asyncpg.PostgresError as exc:
        return [
            Finding("ok", "reachable", places),
            Finding(
                "fail", "log-in", f"{type(exc).sqlstate or ''} {exc} (user {dsn.user}, database {dsn.database})".strip()
            ),
        ]
    except (OSError, TimeoutError, asyncpg.InterfaceError, ValueError) as exc:
        return [Finding("fail", "reachable", f"{places}: {exc or type(exc).__name__}")]
    connected = time.monotonic() - started
    try:
        trips = [await _trip(connection) for _ in range(3)]
        facts = dict(await connection.fetchrow(_QUERY))
    finally:
        await connection.close(timeout=5)
    trip = min(trips)
    text = f"{places}; a round trip takes {trip * 1000:.1f} ms, connecting took {connected * 1000:.0f} ms"
    return [Finding("ok", "reachable", text), *_judge(facts, dsn, chosen)]


async def _trip(connection: asyncpg.Connection[Any]) -> float:
    started = time.monotonic()
    await connection.execute("select 1")
    return time.monotonic() - started


def _judge(facts: Mapping[str, Any], dsn: Dsn, chosen: Settings) -> list[Finding]:
    return [
        Finding("ok", "log-in", f"user {dsn.user}, database {dsn.database}"),
        _version(facts),
        _tls(facts, dsn),
        _connections(facts, chosen),
        _idle(facts, chosen),
        _role(facts),
        _changes(facts),
        *(
            [Finding("note", "encoding", f"the database is in {facts['encoding']}")]
            if facts["encoding"] != "UTF8"
            else []
        ),
    ]


def _version(facts: Mapping[str, Any]) -> Finding:
    major = facts["version"] // 10_000
    grade: Grade = "ok" if OLDEST <= major <= NEWEST else "note"
    tested = "" if grade == "ok" else f"; tested are {OLDEST} to {NEWEST}"
    return Finding(grade, "version", " ".join(facts["banner"].split()[:2]) + tested)


def _tls(facts: Mapping[str, Any], dsn: Dsn) -> Finding:
    if dsn.hosts[0].is_unix:
        return Finding("ok", "TLS", "a unix-domain socket needs none")
    if not facts["tls"]:
        return Finding(
            "note", "TLS", f"not in use (sslmode={dsn.sslmode}): passwords and data cross the network readable"
        )
    if dsn.sslmode in ("verify-full", "verify-ca"):
        return Finding("ok", "TLS", f"{facts['tls_version']}, sslmode={dsn.sslmode}")
    return Finding(
        "note", "TLS", f"{facts['tls_version']}; sslmode={dsn.sslmode} does not prove who answers, verify-full does"
    )


def _connections(facts: Mapping[str, Any], chosen: Settings) -> Finding:
    limits = [
        facts[key] for key in ("max_connections", "role_limit", "database_limit") if facts[key] and facts[key] > 0
    ]
    free = facts["max_connections"] - facts["connections"]
    wanted = chosen.pool_size * 1
    text = f"{facts['connections']} of {facts['max_connections']} in use; a pool takes up to {wanted}"
    if wanted > min(limits):
        return Finding("note", "connections", f"{text}, more than the limit of {min(limits)}: lower pool_size")
    return Finding("note" if wanted > free else "ok", "connections", text)


def _idle(facts: Mapping[str, Any], chosen: Settings) -> Finding:
    seconds = facts["idle_session_ms"] / 1000
    if 0 < seconds <= chosen.server_idle_timeout:
        return Finding(
            "note",
            "idle servers",
            f"idle_session_timeout ends them after {seconds:g} s; set server_idle_timeout below that",
        )
    return Finding("ok", "idle servers", "kept" if not seconds else f"kept for {seconds:g} s, longer than we keep them")


def _role(facts: Mapping[str, Any]) -> Finding:
    where = "a standby: it takes no writes" if facts["in_recovery"] else "the primary"
    rights = "a superuser: more than we need" if facts["is_superuser"] else "an ordinary role"
    return Finding("note" if facts["in_recovery"] or facts["is_superuser"] else "ok", "role", f"{where}; {rights}")


def _changes(facts: Mapping[str, Any]) -> Finding:
    """What following the origin's changes would need. Pooling needs nothing of it."""
    missing = []
    if facts["wal_level"] != "logical":
        missing.append(
            f"wal_level is {facts['wal_level']}, not logical (ALTER SYSTEM SET wal_level = logical, and a restart)"
        )
    if not (facts["may_replicate"] or facts["is_superuser"]):
        missing.append("the role may not replicate (ALTER ROLE … REPLICATION)")
    if facts["slots"] >= facts["max_slots"]:
        missing.append(f"all {facts['max_slots']} replication slots are in use")
    if not facts["max_senders"]:
        missing.append("max_wal_senders is 0")
    if missing:
        return Finding("note", "change stream", f"not to be had, and pooling does not need it: {'; '.join(missing)}")
    return Finding("ok", "change stream", f"could be read: {facts['max_slots'] - facts['slots']} slots are free")
