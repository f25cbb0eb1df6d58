"""What PostgreSQL itself brings, by major version: for a decision without an origin, and to see what a new version changes.

``NN.json`` is written by ``proxy/generate_majors.py`` from a live server, in the rows of ``catalog_queries``; functions that SQL cannot
call are left out. Nothing on the query path reads it: there the origin's own catalogs decide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from typing import Any, Final

from hyperdrive.sql.catalog import Catalog, Identity, build

MAJORS: Final = (16, 18)
"""Those that are shipped."""
QUERIES: Final = ("schemas", "functions", "operators", "casts", "types", "ranges")
"""The queries whose rows are kept."""
PUBLIC: Final = 2200
"""The OID of the schema public."""
_FIRST_ASSUMED: Final = 1 << 24


def rows_of(major: int) -> dict[str, list[list[Any]]]:
    """Return the rows of PostgreSQL *major*."""
    text = files(__package__).joinpath(f"{major}.json").read_text()
    rows: dict[str, list[list[Any]]] = json.loads(text)
    return rows


def builtin_catalog(major: int = MAJORS[-1], relations: Iterable[tuple[str, ...]] = ()) -> Catalog:
    """A catalog of PostgreSQL *major* without anything of anybody's own, but for *relations*, taken for ordinary tables.

    Nothing is known of their columns; names without a schema are put into public.
    """
    rows: dict[str, Any] = dict(rows_of(major))
    schemas = {name: oid for oid, name, _ in rows["schemas"]}
    tables = []
    for number, names in enumerate(dict.fromkeys(relations), _FIRST_ASSUMED):
        schema = names[0] if len(names) == 2 else "public"
        if schema in ("pg_catalog", "information_schema") or (len(names) == 1 and names[0].startswith("pg_")):
            schema = "pg_catalog"
        oid = schemas.setdefault(schema, _FIRST_ASSUMED - 1 - len(schemas))
        tables.append((number, oid, names[-1], "r", "p", False, False))
    rows["schemas"] = [(oid, name, 10) for name, oid in schemas.items()]
    rows["relations"] = tables
    return build(rows, Identity(0, 0, 0, major * 10000))
