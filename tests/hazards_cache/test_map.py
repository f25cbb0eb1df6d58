"""Every rule, hazard and oracle of the caching rules has a test: this is the list, and what it names is there.

The specification is no part of the repository; its ids are: rules by their number and name (§4), hazards by their row (§5.2 and §5.3;
those of §5.1 are the table in ``test_hazards``), changes by their row (§10.5), oracles by their number (§15). A test is given as
``file::name`` below ``tests/``.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from hyperdrive.sql.rules import Rule
from tests.hazards_cache import test_hazards

TESTS = Path(__file__).parent.parent
VECTORS = "hazards_cache/test_rules.py::test_each_rule_refuses_its_smallest_case"

RULES: dict[str, str] = {
    "01 off": "cache/test_rules.py::test_r01_off",
    "02 origin-unknown": "cache/test_rules.py::test_r02_origin_unknown hazards_cache/test_catalog.py::test_what_may_not_be_known_is_unknown",
    "03 stream-down": "cache/test_rules.py::test_r03_stream_down cache/test_workers.py::test_while_a_worker_is_not_heard_of_nothing_is_served",
    "04 in-transaction": "cache/test_rules.py::test_r04_in_transaction cache/test_rules.py::test_r04_in_a_pipeline cache/test_transactions.py::test_own_uncommitted_rows_are_read",
    "05 session-state": "cache/test_rules.py::test_r05_session_state cache/test_privileges.py::test_serializable_sessions_take_no_part",
    "06 multi-statement": f"{VECTORS} cache/test_rules.py::test_r06_multi_statement",
    "07 portal": "cache/test_rules.py::test_r07_portal cache/test_serving.py::test_literals_converted_at_parse_are_not_served_under_other_settings",
    "08 not-select": VECTORS,
    "09 locking": VECTORS,
    "10 relation": f"{VECTORS} hazards_cache/test_rules.py::test_r10_age_only_by_the_operators_leave",
    "11 system-column": f"{VECTORS} cache/test_rules.py::test_r11_what_moves_rows_moves_no_answer",
    "12 view": f"{VECTORS} hazards_cache/test_strictness.py::test_a_view_hides_nothing",
    "13 row-security": f"{VECTORS} cache/test_privileges.py::test_row_security_is_never_cached",
    "14 function": f"{VECTORS} hazards_cache/test_lists.py::test_every_other_stable_or_volatile_builtin_is_refused",
    "15 operator": VECTORS,
    "15 cast": VECTORS,
    "15 type": f"{VECTORS} hazards_cache/test_rules.py::test_r15_parameters_pass_the_type_audit",
    "16 clock-word": f"{VECTORS} hazards_cache/test_clock_words.py::test_flagged hazards_cache/test_rules.py::test_r16_parameters_are_scanned_unless_their_type_knows_no_clock",
    "17 own-write": "cache/test_rules.py::test_r17_own_write cache/test_consistency.py::test_readers_never_see_less_than_the_writer_was_told cache/test_tokens.py::test_what_was_written_in_another_region_is_read_with_its_token",
    "18 no-entry": "cache/test_rules.py::test_r18_no_entry cache/test_serving.py::test_other_settings_are_another_key",
    "19 invalidated": "cache/test_rules.py::test_r19_invalidated_and_expired hyperdrive/cache/test_tags.py::test_an_invalidated_entry_is_not_served_inside_its_stale_window_either",
    "19 expired": "cache/test_rules.py::test_r19_invalidated_and_expired cache/test_serving.py::test_past_its_stale_window_an_answer_is_a_miss",
    "20 raced": "cache/test_races.py::test_a_write_during_a_fill_is_not_overwritten_by_it hyperdrive/cache/test_fill.py::test_the_interleaving_of_the_rules",
    "21 reply": "cache/test_explained.py::test_rule_21_a_notice_forbids_storing cache/test_serving.py::test_errors_are_never_stored",
    "22 size": "cache/test_rules.py::test_r22_size cache/test_serving.py::test_an_answer_over_the_cap_streams_and_is_not_stored",
    "23 admission": "cache/test_rules.py::test_r23_admission hyperdrive/cache/test_store.py::test_a_hundred_thousand_keys_of_a_scan_do_not_push_out_a_hot_one",
}  # fmt: skip
REFUSED_UNREAD = {"encoding", "strings", "too-long", "syntax"}
"""Rules of §3, which have no number: ``test_r03_too_long_and_not_utf8`` and what ``test_rules`` judges."""

SESSION: dict[str, str] = {
    "role: grant, revoke, membership, alter role": "cache/test_privileges.py::test_what_is_taken_away_is_gone cache/test_privileges.py::test_membership_that_is_taken_away",
    "set role, set session authorization, set_config": "cache/test_privileges.py::test_a_session_that_became_somebody_else_reads_as_that cache/test_rules.py::test_r05_set_config_is_modelled_or_bypassed",
    "row security": "cache/test_privileges.py::test_row_security_is_never_cached",
    "search_path, $user, invisible schemas": "hazards_cache/test_path.py::test_the_effective_path_is_the_servers hazards_cache/test_path.py::test_the_path_decides_what_a_name_means",
    "a temporary table shadows a permanent one": "cache/test_privileges.py::test_temporary_tables_shadow_permanent_ones",
    "unreported settings and changed defaults": "cache/test_privileges.py::test_defaults_that_change_are_not_mixed",
    "background refresh without the session's identity": "cache/test_serving.py::test_a_refresh_has_the_identity_of_the_session",
    "listen": "cache/test_rules.py::test_r05_session_state",
}  # fmt: skip

PROTOCOL: dict[str, str] = {
    "reading or storing inside a transaction": "cache/test_transactions.py::test_what_was_read_behind_a_write_is_never_stored cache/test_transactions.py::test_always_serves_what_may_write_too_until_it_does",
    "a pipelined batch is an implicit transaction": "cache/test_rules.py::test_r04_in_a_pipeline cache/test_invalidation.py::test_a_pipelined_read_behind_a_write_sees_it",
    "commit outcome unknown": "cache/test_invalidation.py::test_the_outcome_of_a_lost_server_counts_as_done_and_is_doubted_for_a_while",
    "portal suspended, re-execute, cursors": "cache/test_rules.py::test_r07_portal cache/test_row_limits.py::test_rule_4_inside_a_transaction_a_portal_goes_on_and_is_the_origins",
    "bind of an old named statement": "cache/test_serving.py::test_named_statements_are_served_and_share_their_entry_with_unnamed_ones cache/test_invalidation.py::test_writes_of_each_protocol_are_seen",
    "describe after ddl": "cache/test_serving.py::test_a_statement_described_before_ddl_is_run_by_the_origin_once",
    "a flight sent before a follower's own write": "cache/test_races.py::test_a_follower_whose_own_write_came_later_asks_for_itself hyperdrive/cache/test_flight.py::test_a_flight_sent_before_ones_own_write_is_not_joined",
    "a client leaves during a fill it leads": "cache/test_races.py::test_a_leader_that_leaves_leaves_the_fill_to_the_others",
}  # fmt: skip

CHANGES: dict[str, str] = {
    "write seen through us": "cache/test_invalidation.py::test_a_write_drops_what_it_may_have_changed hazards_cache/test_writes.py::test_targets",
    "unknown write": "cache/test_invalidation.py::test_a_function_that_writes_is_an_unknown_write cache/test_invalidation.py::test_a_trigger_makes_a_write_unknown",
    "rollback": "cache/test_invalidation.py::test_a_transaction_drops_at_its_commit_and_not_before",
    "ddl, grant, roles, defaults": "cache/test_invalidation.py::test_ddl_through_us_ends_the_epoch hazards_cache/test_catalog.py::test_every_change_shows_in_the_fingerprint cache/test_hidden_writes.py::test_roles_are_changed_by_way_of_another_database",
    "purge": "cache/test_console.py::test_purge_in_the_console cache/test_console.py::test_what_is_under_way_is_not_stored_behind_a_purge cache/test_workers.py::test_purges_are_told",
    "another worker's write": "cache/test_workers.py::test_a_write_by_one_worker_is_read_by_the_other_at_once cache/test_workers.py::test_a_gap_drops_everything",
    "the second level": "hyperdrive/cache/test_second.py::test_no_order_of_things_shows_a_process_less_than_it_was_told cache/test_second_level.py::test_its_loss_is_a_miss",
}  # fmt: skip

ORACLES: dict[str, str] = {
    "1 point in the past": "cache/test_consistency.py::test_readers_never_see_less_than_the_writer_was_told",
    "2 versions never go back": "cache/test_consistency.py::test_readers_never_see_less_than_the_writer_was_told",
    "3 privilege matrix": "cache/test_privileges.py::test_what_is_taken_away_is_gone",
    "4 byte-for-byte differential": "cache/test_differential.py::test_random_sessions_get_the_origins_bytes",
    "5 raw protocol traces": "cache/test_rules.py::test_r07_portal cache/test_races.py::test_followers_of_a_leader_that_is_cancelled_ask_for_themselves",
    "6 classifier vectors": f"{VECTORS} hazards_cache/test_strictness.py::test_nesting_hides_nothing hazards_cache/test_builtins.py::test_a_builtin_that_is_cacheable_answers_the_same_twice",
    "7 fill schedules": "hyperdrive/cache/test_fill.py::test_no_schedule_of_two_writes_and_two_fills_serves_what_a_client_knows_to_be_old",
    "10 shadow mode": "cache/test_console.py::test_shadow_mode_counts_what_would_have_been_served_until_it_expires",
}  # fmt: skip
WITHOUT_A_STREAM = {"8 arming", "9 shadow verification in production"}
"""Oracles of what is not built yet."""

ALL = {
    f"{kind}: {name}": tests
    for kind, table in {
        "rule": RULES, "session": SESSION, "protocol": PROTOCOL, "change": CHANGES, "oracle": ORACLES,
    }.items()
    for name, tests in table.items()
}  # fmt: skip


@cache
def names_in(path: Path) -> frozenset[str]:
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


@pytest.mark.parametrize(("what", "tests"), ALL.items(), ids=list(ALL))
def test_what_the_list_names_is_there(what: str, tests: str) -> None:
    missing = []
    for test in tests.split():
        file, _, name = test.partition("::")
        if name not in names_in(TESTS / file):
            missing.append(test)
    assert [] == missing


def test_each_rule_is_in_the_list() -> None:
    assert {rule.value for rule in Rule} - REFUSED_UNREAD == {name.partition(" ")[2] for name in RULES}
    assert {f"{number:02}" for number in range(1, 24)} == {name.partition(" ")[0] for name in RULES}


def test_each_hazard_and_oracle_is_in_the_list() -> None:
    """So many rows have the tables of the specification (§5.1 without what has a test of its own, §5.2, §5.3, §15)."""
    assert (19, 8, 8, 10) == (
        len(test_hazards.HAZARDS),
        len(SESSION),
        len(PROTOCOL),
        len(ORACLES) + len(WITHOUT_A_STREAM),
    )
