"""What is shipped of each major version is what the server brings."""

from __future__ import annotations

import pytest

from hyperdrive.proxy.generate_majors import read_rows, unreviewed
from hyperdrive.sql.catalog import PG_CATALOG
from hyperdrive.sql.majors import MAJORS, PUBLIC, builtin_catalog, rows_of
from hyperdrive.sql.reads import analyse
from hyperdrive.sql.resolve import resolve
from hyperdrive.sql.rules import Refused
from hyperdrive.testing.postgres import Postgres


async def test_the_shipped_rows_are_the_servers(postgres: Postgres) -> None:
    """Where a minor version changes a built-in, ``generate_majors`` is to be run again."""
    major, rows = await read_rows(postgres.url)
    shipped = rows_of(major)
    for name in ("functions", "operators", "casts", "types", "ranges"):
        own = [row for row in shipped[name] if not isinstance(row[0], int) or row[0] < 12_000]
        assert own == [row for row in rows[name] if not isinstance(row[0], int) or row[0] < 12_000], name


@pytest.mark.parametrize("major", MAJORS)
def test_a_decision_without_an_origin(major: int) -> None:
    cases = {
        "select count(*) from a.t join u using (id) where x = $1": "cacheable",
        "select random()": "function",
        "select u(1)": "function",
        "select * from pg_class": "relation",
        "select x::date from t": "clock-word",
        "select uuidv7()": "function",
        "with t as (select 1) select * from t": "cacheable",
    }
    for sql, expected in cases.items():
        reading = analyse(sql.encode())
        if not isinstance(reading, Refused):
            reading = resolve(reading, builtin_catalog(major, reading.relations), (PG_CATALOG, PUBLIC))  # type: ignore[assignment]
        assert expected == (reading.rule.value if isinstance(reading, Refused) else "cacheable"), sql


def test_what_a_new_version_brings_is_told() -> None:
    assert ["jsonb_populate_record_valid", "pg_numa_available"] == unreviewed(rows_of(18), rows_of(16))
