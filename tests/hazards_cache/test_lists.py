"""The lists that are typed by hand, held against each major version (caching rules §6)."""

from __future__ import annotations

from typing import Any

from hyperdrive.sql.catalog import PG_CATALOG, Function
from hyperdrive.sql.lists import NEVER, SETTING_ONLY, is_never

FROM_16 = frozenset(
    """json_agg_strict jsonb_agg_strict json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict
    jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict date_add date_subtract""".split()  # noqa: SIM905
)


def builtins(database: Any, name: str) -> list[Function]:
    return [function for function in database.catalog.functions.get(name, ()) if function.schema == PG_CATALOG]


def test_each_name_of_list_a_exists_and_is_volatile_nowhere(database: Any) -> None:
    for name in SETTING_ONLY:
        found = builtins(database, name)
        assert found, name
        assert "v" not in {function.volatility for function in found}, name


def test_list_a_holds_nothing_in_vain(database: Any) -> None:
    """A name without a STABLE overload needs no list; only a version may differ."""
    needless = {
        name for name in SETTING_ONLY if all(function.volatility == "i" for function in builtins(database, name))
    }
    assert needless == set()


def test_list_b_beats_list_a() -> None:
    assert {"age"} == {name for name in SETTING_ONLY if is_never(name)}
    assert not is_never("age", 2)
    assert is_never("age", 1)
    assert not SETTING_ONLY & NEVER


def test_every_other_stable_or_volatile_builtin_is_refused(database: Any) -> None:
    """What a new version brings is refused until somebody has read what it does."""
    reviewed = 0
    for name, group in database.catalog.functions.items():
        for function in group:
            if (
                function.schema != PG_CATALOG
                or function.volatility == "i"
                or function.kind == "p"
                or name in SETTING_ONLY
            ):
                continue
            reviewed += 1
            arguments = ", ".join(["null"] * function.arguments)
            quoted = f'pg_catalog."{name}"({arguments})'
            call = f"select {quoted}" if function.kind != "w" else f"select {quoted} over ()"
            assert database.rule(call) in ("function", "multi-statement", "type"), call
    assert reviewed > 500


def test_builtins_that_answer_from_clock_session_or_catalogs_are_never_cached(database: Any) -> None:
    """What is marked IMMUTABLE and is not: list B is asked first."""
    for name in (
        "pg_typeof",
        "now",
        "version",
        "current_setting",
        "format_type",
        "pg_get_viewdef",
        "has_table_privilege",
        "satisfies_hash_partition",
    ):
        assert builtins(database, name), name
        assert is_never(name), name
