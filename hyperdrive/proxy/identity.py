"""Who reads, and under which settings: what makes two sessions the same to the cache (caching-rules §2, fields 1 to 5).

The settings that a client asked for are a label; what they come to, defaults of the role, the database and the configuration
included, only the origin knows. So each label is put to a server once per epoch, and the answer becomes the front part of every key.
What cannot be modelled refuses (rule 5). Knows rows and labels; asks nobody itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hyperdrive.session.settings import PREFIX, Label, label

FORMAT: Final = b"1"
"""Of the key; moves when what the bytes mean does."""

IDLE_SETTINGS: Final = (
    "application_name",
    "statement_timeout",
    "lock_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "work_mem",
    "effective_cache_size",
    "seq_page_cost",
    "random_page_cost",
    "cpu_tuple_cost",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
    "parallel_setup_cost",
    "parallel_tuple_cost",
)
"""Settings on which no answer depends (caching-rules §2, the exclusion list), besides tcp_*, log_* and track_*."""

_IDLE_PREFIXES: Final = ("tcp_", "log_", "track_")
_IDLE_BYTES: Final = frozenset(name.encode() for name in IDLE_SETTINGS)
_IDLE_PREFIX_BYTES: Final = (*(prefix.encode() for prefix in _IDLE_PREFIXES), PREFIX)

_KEPT: Final = f"name <> all ('{{{','.join(IDLE_SETTINGS)}}}') and name !~ '^(tcp|log|track)_'"

_ANYBODYS: Final = """context in ('user', 'superuser') and reset_val is distinct from boot_val and name !~ '^transaction_'
  and name not like '%.%' and name not in ('dynamic_library_path', 'session_preload_libraries', 'extension_control_path')"""
"""Settings that sessions may have of their own, without those that only some roles see and those of libraries, which are there once
something has loaded them: a server's defaults look the same to everybody and at any time."""

ASK: Final = f"""
select pg_catalog.json_build_object(
 'session', (select oid::text from pg_catalog.pg_roles where rolname = session_user),
 'current', (select oid::text from pg_catalog.pg_roles where rolname = current_user),
 'path', (select pg_catalog.json_agg(n.oid::int8 order by s.place)
  from pg_catalog.unnest(pg_catalog.current_schemas(true)) with ordinality s(name, place)
  join pg_catalog.pg_namespace n on n.nspname = s.name where n.nspname !~ '^pg_(toast_)?temp_'),
 'settings', (select pg_catalog.json_object_agg(name, setting order by name)
  from pg_catalog.pg_settings where setting is distinct from boot_val and {_KEPT}),
 'baseline', (select pg_catalog.md5(pg_catalog.string_agg(name || '=' || coalesce(reset_val, ''), ',' order by name))
  from pg_catalog.pg_settings where {_KEPT} and {_ANYBODYS}) || ' ' || (extract(epoch from pg_catalog.pg_conf_load_time()))::text,
 'custom', (select pg_catalog.json_object_agg(name, pg_catalog.current_setting(name, true) order by name)
  from (select distinct pg_catalog.split_part(c, '=', 1) as name
   from pg_catalog.pg_db_role_setting s cross join lateral pg_catalog.unnest(s.setconfig) c
   where s.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
   and s.setrole in (0, (select oid from pg_catalog.pg_roles where rolname = session_user))) x where name like '%.%'),
 'isolation', pg_catalog.current_setting('default_transaction_isolation'),
 'read_only', pg_catalog.current_setting('default_transaction_read_only'),
 'replication_role', pg_catalog.current_setting('session_replication_role'),
 'encoding', pg_catalog.current_setting('client_encoding')
)::text""".encode()
"""One row with one text. Everything is qualified: it runs under the client's own search_path."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the sessions with one label are. Only ``refused`` counts if it is not empty."""

    key: bytes = b""
    epoch: int = 0
    user: int = 0
    """OID of ``current_user``."""
    path: tuple[int, ...] = ()
    baseline: str = ""
    """Stands for the defaults of the server that answered; another's answers are not stored under this identity."""
    reported: Mapping[bytes, bytes] | None = None
    """What that server had told of its settings."""
    isolation: bytes = b"read committed"
    is_read_only: bool = False
    """``default_transaction_read_only``."""
    is_utf8: bool = True
    refused: str = ""
    """Why such a session takes no part: the object of rule ``session-state``."""


def counts(name: bytes) -> bool:
    """Whether an answer may depend on the setting *name*."""
    return name not in _IDLE_BYTES and not name.startswith(_IDLE_PREFIX_BYTES)


def effective(wanted: Label) -> Label:
    """*wanted* without the settings on which no answer depends, so that clients share what they can."""
    items = wanted.items
    if all(counts(name) for name in items):
        return wanted
    return label({name: sql for name, sql in items.items() if counts(name)})


def custom(items: Mapping[bytes, bytes]) -> Iterable[bytes]:
    """Names and texts of the settings that ``pg_settings`` does not show, those of extensions not loaded and of programs."""
    for name in sorted(items):
        if b"." in name:
            yield name
            yield items[name]


def field(*parts: bytes) -> bytes:
    """*parts*, each behind its length, so that no two lists of parts look the same."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def customs_of(row: bytes) -> str:
    """What a server that has just logged in says of the settings of programs and libraries that its role or database was given.

    Raises:
        ValueError: not such an answer.
    """
    return json.dumps(_said(row)["custom"], sort_keys=True)


def _said(row: bytes) -> dict[str, Any]:
    said = json.loads(row)
    if not isinstance(said, dict) or not {"session", "current", "custom"} <= said.keys():
        raise ValueError("not an answer to the question who a session is")
    return said


def identify(
    row: bytes, wanted: Label, origin: bytes, epoch: int, reported: Mapping[bytes, bytes], customs: str
) -> Identity:
    """The identity that a server's answer to ``ASK`` means; *origin* is fields 1 and 2 of the key, *customs* what ``customs_of`` gave
    when it logged in.

    Raises:
        ValueError: not such an answer.
    """
    said = _said(row)
    baseline = f"{said['baseline']} {customs}"
    if said["session"] is None or said["current"] is None:
        return Identity(epoch=epoch, baseline=baseline, refused="role")
    settings = json.dumps(said["settings"], sort_keys=True, separators=(",", ":")).encode()
    path = tuple(said["path"] or ())
    roles = f"{said['session']},{said['current']}".encode()
    refused = ""
    if said["isolation"] == "serializable":
        # A read that is served takes no part in the detection of conflicts.
        refused = "default_transaction_isolation = serializable"
    elif said["replication_role"] != "origin":
        refused = f"session_replication_role = {said['replication_role']}"
    return Identity(
        key=field(
            FORMAT,
            origin,
            roles,
            b",".join(b"%d" % oid for oid in path),
            settings,
            customs.encode(),
            *custom(wanted.items),
        ),
        epoch=epoch,
        user=int(said["current"]),
        path=path,
        baseline=baseline,
        reported=reported,
        isolation=said["isolation"].encode(),
        is_read_only=said["read_only"] == "on",
        is_utf8=said["encoding"] == "UTF8",
        refused=refused,
    )


def agrees(told: Mapping[bytes, bytes], reported: Mapping[bytes, bytes]) -> bool:
    """Whether a client has been told what the server reported, apart from its application_name."""
    if told is reported:
        return True
    return all(told.get(name) == value for name, value in reported.items() if name != b"application_name")


def is_read_as(key: bytes, role: int) -> bool:
    """Whether the identity *key* is of sessions whose user or role has that OID."""
    at = 0
    parts: list[bytes] = []
    while at < len(key) and len(parts) < 3:
        size = int.from_bytes(key[at : at + 4], "big")
        parts.append(key[at + 4 : at + 4 + size])
        at += 4 + size
    return len(parts) == 3 and b"%d" % role in parts[2].split(b",")
