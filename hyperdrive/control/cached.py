"""The cache of one process as rows, and what PURGE does to it.

Looks at the store when somebody asks; so looking costs the query path nothing. Knows the cache, catalogs and rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Final

from hyperdrive.admin.state import CacheRow, ShapeRow, TableRow
from hyperdrive.cache.entry import Entry, Shape
from hyperdrive.errors import ClientError
from hyperdrive.proxy.cache import Cache
from hyperdrive.proxy.database import Database
from hyperdrive.proxy.identity import is_read_as
from hyperdrive.sql.catalog import Catalog, Relation
from hyperdrive.sql.rules import Refused
from hyperdrive.sql.shapes import shape

_KINDS: Final = {"r": "table", "p": "partitioned table", "m": "materialized view"}
_INTERNAL: Final = frozenset({"pg_catalog", "information_schema", "pg_toast"})
_RAISED_BY: Final = "logical decoding (wal_level = logical), which is not built yet"


def cache_rows(cache: Cache) -> list[CacheRow]:
    """One row for each database; counters are those of the process, in the row of all."""
    entries, sizes = Counter[str](), Counter[str]()
    for entry in cache.store:
        entries[entry.space.domain.name] += 1
        sizes[entry.space.domain.name] += entry.size_bytes
    reads, store = cache.reads, cache.store
    rows = [
        CacheRow(
            "*",
            cache.settings.mode.value,
            entries=store.count,
            size_bytes=store.size_bytes,
            limit_bytes=store.max_bytes,
            hits=store.hits,
            stale=reads.queries_stale,
            misses=reads.queries_miss,
            bypasses=reads.queries_bypass,
        )
    ]
    for name, database in cache.databases.items():
        rows.append(CacheRow(name, _state(cache, database), database.domain.epoch, entries[name], sizes[name]))
    return rows


def _state(cache: Cache, database: Database) -> str:
    if cache.is_on and cache.suspended:
        return "another worker is not heard of"
    if cache.is_on and database.catalog is None:
        return database.why_unknown
    return cache.settings.mode.value


def table_rows(cache: Cache) -> list[TableRow]:
    """Every table that answers may depend on, with the number of those that do."""
    tags: Counter[tuple[str, Hashable]] = Counter()
    for entry in cache.store:
        tags.update((entry.space.domain.name, tag.name) for tag in entry.tags)
    rows: list[TableRow] = []
    for name, database in cache.databases.items():
        catalog = database.catalog
        if catalog is not None:
            shown = [
                relation
                for relation in catalog.relations.values()
                if relation.kind in _KINDS and catalog.schema_names.get(relation.schema, "") not in _INTERNAL
            ]
            rows += [_table(catalog, database, relation, tags[name, relation.oid]) for relation in shown]
    return rows


def _table(catalog: Catalog, database: Database, relation: Relation, entries: int) -> TableRow:
    name = catalog.qualified(relation)
    policy = database.policies.of((name,))
    is_logged = relation.persistence == "p"
    why = "writes through us are seen at once, others when an answer is too old"
    if relation.has_row_security:
        why = "row security: never cached"
    elif not is_logged:
        why = "unlogged: never cached unless declared"
    elif not policy.is_cached:
        why = "switched off in [tables]"
    return TableRow(
        database.name,
        name,
        _KINDS[relation.kind],
        1,
        policy.max_age + policy.stale_while_revalidate,
        policy.is_cached and is_logged and not relation.has_row_security,
        why,
        _RAISED_BY,
        entries,
    )


def shape_rows(cache: Cache) -> list[ShapeRow]:
    """What was counted of statements, those that are stored included."""
    hits: Counter[int] = Counter()
    saved: Counter[int] = Counter()
    for entry in cache.store:
        if entry.shape is not None:
            hits[id(entry.shape)] += entry.hits
            saved[id(entry.shape)] += int(1e6 * entry.hits * entry.cost_seconds)
    return [
        _shape(database, seen, hits[id(seen)], saved[id(seen)] / 1e6)
        for database in cache.databases.values()
        for seen in database.shapes.values()
    ]


def _shape(database: Database, seen: Shape, hits: int, saved: float) -> ShapeRow:
    verdict = seen.note
    is_refused = isinstance(verdict, Refused)
    all_hits = hits + seen.hits
    return ShapeRow(
        database.name,
        statement_name(seen.name),
        "refused" if is_refused else "cacheable",
        verdict.rule.value if isinstance(verdict, Refused) else "",
        verdict.object if isinstance(verdict, Refused) else "",
        verdict.hint if isinstance(verdict, Refused) else "",
        ", ".join(getattr(verdict, "names", ())),
        all_hits + seen.misses + seen.bypasses,
        all_hits,
        seen.misses,
        seen.bypasses,
        seen.saved_seconds + saved,
        seen.seconds,
        seen.would_be_hits,
        seen.would_be_stale,
    )


# --- purge ----------------------------------------------------------------------------------------------------------------------


def purge(cache: Cache, what: str, name: str) -> int:
    """Drop what *what* and *name* mean; what is under way is not stored either. Returns how many entries went.

    Raises:
        ClientError: there is no such table, or nothing that can be called so.
    """
    return cache.purge(_wanted(cache, what, name))


def _wanted(cache: Cache, what: str, name: str) -> Callable[[Entry], bool]:
    match what:
        case "all":
            return lambda entry: True
        case "tag":
            return lambda entry: entry.has(("tag", name))
        case "table":
            tags = _tags_of(cache, name)
            return lambda entry: any((entry.space.domain.name, tag.name) in tags for tag in entry.tags)
        case "statement":
            wanted = statement_name(name.encode())
            return lambda entry: entry.shape is not None and statement_name(entry.shape.name) == wanted
        case "role":
            oids = {
                (database.name, role.oid)
                for database in cache.databases.values()
                if database.catalog is not None and (role := database.catalog.roles.get(name)) is not None
            }
            return lambda entry: any(
                entry.space.domain.name == database and is_read_as(entry.space.identity, oid) for database, oid in oids
            )
    raise ClientError(f"there is no purge by {what}", hint="all, table, tag, statement or role", sqlstate="42601")


def _tags_of(cache: Cache, name: str) -> set[tuple[str, Hashable]]:
    """The tags of a table of that name in any database, with its partitions and what inherits from it."""
    schema, _, table = name.rpartition(".")
    found: set[tuple[str, Hashable]] = set()
    known = [database for database in cache.databases.values() if database.catalog is not None]
    for database in known:
        catalog = database.catalog
        assert catalog is not None
        for relation in catalog.relations.values():
            if relation.name == table and schema in ("", catalog.schema_names.get(relation.schema)):
                for oid in catalog.descendants.get(relation.oid, frozenset((relation.oid,))):
                    found.add((database.name, oid))
    if not found and known:
        raise ClientError(f'relation "{name}" does not exist', sqlstate="42P01")
    return found


def statement_name(text: bytes) -> str:
    """What statements that differ in their values only have in common, with a question mark for each value."""
    form = shape(text)
    return text.decode("utf-8", "replace") if form is None else form.replace("\0", "?").replace("'", "?")
