"""Write ``sql/majors/NN.json`` from live servers, and print what is to be reviewed by hand.

    python -m hyperdrive.proxy.generate_majors postgresql://…16… postgresql://…18…

Volatile and STABLE built-ins that list A does not name are refused anyway; what a version brings anew is printed, so that somebody
reads what it does before it is ever put there (caching rules §6).
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import asyncpg

from hyperdrive.sql import catalog_queries, majors
from hyperdrive.sql.lists import SETTING_ONLY, is_never

DIRECTORY = Path(majors.__file__).parent
_NOT_CALLABLE = frozenset((2281, 2279, 3838, 325, 269, 3310, 3115, 2280))
"""internal, trigger, event_trigger, index_am_handler, table_am_handler, tsm_handler, fdw_handler, language_handler."""


async def read_rows(url: str) -> tuple[int, dict[str, list[list[Any]]]]:
    """Return the major version of the server at *url*, and its rows."""
    connection = await asyncpg.connect(url)
    try:
        major = int(await connection.fetchval("select current_setting('server_version_num')::int4 / 10000"))
        rows = {}
        for name in majors.QUERIES:
            found = [list(row) for row in await connection.fetch(catalog_queries.QUERIES[name])]
            if name == "functions":
                found = [row for row in found if not _NOT_CALLABLE.intersection((row[10], *row[11]))]
            rows[name] = sorted(found)
    finally:
        await connection.close()
    return major, rows


def render(rows: dict[str, list[list[Any]]]) -> str:
    """The text of the file: a row to a line, so that a difference can be read."""
    parts = []
    for name, found in rows.items():
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in found)
        parts.append(f'"{name}":[\n{lines}\n]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def unreviewed(rows: dict[str, list[list[Any]]], before: dict[str, list[list[Any]]]) -> list[str]:
    """Names of STABLE functions that are new, and on neither list."""
    known = {row[2] for row in before["functions"]}
    return sorted(
        {
            row[2]
            for row in rows["functions"]
            if row[7] == "s" and row[2] not in known and row[2] not in SETTING_ONLY and not is_never(row[2])
        }
    )


def main(urls: list[str]) -> None:
    """Write the file of each server at *urls*."""
    before: dict[str, list[list[Any]]] = {"functions": []}
    for url in urls:
        major, rows = asyncio.run(read_rows(url))
        (DIRECTORY / f"{major}.json").write_text(render(rows))
        sys.stdout.write(f"{major}: STABLE, new, on no list, refused: {' '.join(unreviewed(rows, before))}\n")
        before = rows


if __name__ == "__main__":
    main(sys.argv[1:])
