"""Labels are equal when they are the same object, and lead from one to the other by SQL."""

from __future__ import annotations

import gc

import pytest

from hyperdrive.session import settings
from hyperdrive.session.settings import EMPTY, UNKNOWN, in_block, label, locally, statement_for, transition, values


def test_labels_with_the_same_items_are_the_same_object() -> None:
    one = label({b"a": b"SET a TO 1", b"b": b"SET b TO 2"})
    assert one is label({b"b": b"SET b TO 2", b"a": b"SET a TO 1"})
    assert one is EMPTY.with_(b"b", b"SET b TO 2").with_(b"a", b"SET a TO 1")
    assert EMPTY is one.with_(b"a", None).with_(b"b", None)
    assert one is not label({b"a": b"SET a TO '1'", b"b": b"SET b TO 2"}), "another text is another label"
    assert UNKNOWN is not EMPTY


def test_labels_that_nobody_has_are_forgotten() -> None:
    label({b"only": b"here"})
    gc.collect()
    assert not [key for key in settings._interned if key == ((b"only", b"here"),)]


def test_reported_values_are_compared_by_identity() -> None:
    assert values({b"a": b"1", b"b": b"2"}) is values({b"b": b"2", b"a": b"1"})
    assert values({b"a": b"1"}) is not values({b"a": b"2"})


@pytest.mark.parametrize(
    ("have", "want", "expected"),
    [
        ({}, {}, b""),
        ({}, {b"b": b"SET b TO 1", b"a": b"SET a TO 1"}, b"SET a TO 1; SET b TO 1"),
        ({b"a": b"SET a TO 1"}, {}, b'RESET "a"'),
        ({b"a": b"SET a TO 1", b"b": b"SET b TO 1"}, {b"a": b"SET a TO 2", b"b": b"SET b TO 1"}, b"SET a TO 2"),
        ({b"my.setting": b"x"}, {}, b'RESET "my"."setting"'),
        ({b"Odd Name": b"x"}, {}, b'RESET "Odd Name"'),
    ],
)
def test_a_transition_says_only_what_differs(
    have: dict[bytes, bytes], want: dict[bytes, bytes], expected: bytes
) -> None:
    assert expected == transition(label(have), label(want))


ROLE = {b"role": b"SET ROLE reader"}
OWNER = {b"session_authorization": b"SET SESSION AUTHORIZATION owner"}
OTHER = {b"work_mem": b"SET work_mem TO '1MB'"}


def test_identity_is_given_up_first_and_taken_last() -> None:
    """Other settings may need the rights that a role takes away (W-36)."""
    assert b'RESET ROLE; RESET "work_mem"' == transition(label({**ROLE, **OTHER}), EMPTY)
    assert b"SET work_mem TO '1MB'; SET ROLE reader" == transition(EMPTY, label({**ROLE, **OTHER}))
    both = label({**ROLE, **OWNER})
    assert b"SET SESSION AUTHORIZATION owner; SET ROLE reader" == transition(EMPTY, both)
    assert b"RESET SESSION AUTHORIZATION; RESET ROLE" == transition(both, EMPTY)


def test_a_role_is_kept_when_something_else_changes() -> None:
    assert b"SET work_mem TO '1MB'" == transition(label(ROLE), label({**ROLE, **OTHER}))


def test_a_changed_identity_is_built_anew() -> None:
    """SET SESSION AUTHORIZATION takes the role away with it."""
    sql = transition(label({**ROLE, **OWNER}), label(ROLE))
    assert b"RESET SESSION AUTHORIZATION; RESET ROLE; SET ROLE reader" == sql


def test_an_unknown_label_is_reset_whole() -> None:
    """RESET ALL forgets neither role nor session_authorization (W-36)."""
    sql = transition(UNKNOWN, label({**ROLE, **OTHER}))
    commands = sql.split(b"; ")
    assert [b"RESET SESSION AUTHORIZATION", b"RESET ALL"] == commands[:2]
    assert [b"SET work_mem TO '1MB'", b"SET ROLE reader"] == commands[-2:]
    assert transition(UNKNOWN, EMPTY).startswith(b"RESET SESSION AUTHORIZATION; RESET ALL")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        pytest.param("search_path", "a, b", "'a', 'b'", id="list"),
        pytest.param("search_path", 'one, "Two, ""2"""', """'one', 'Two, "2"'""", id="names in quotes"),
        pytest.param("search_path", '"$user", public', "'$user', 'public'", id="usual"),
        pytest.param("search_path", '"user", a', "'user', 'a'", id="keyword"),
        pytest.param("datestyle", "ISO, DMY", "'ISO, DMY'", id="list of another kind"),
        pytest.param("application_name", "it's", "'it''s'", id="quote"),
    ],
)
def test_startup_values_become_a_set(name: str, value: str, expected: str) -> None:
    """SET takes no snapshot (W-39), and of a list of names each element stands by itself (W-38)."""
    assert f'SET "{name}" TO {expected}' == statement_for(name.encode(), value.encode()).decode()


@pytest.mark.parametrize("value", ["", "a,b", "One", '"one"', "user", "$user", "a,,b", "a b", " a", "a, "])
def test_a_list_that_set_would_write_otherwise_is_set_by_a_query(value: str) -> None:
    """It reads back as it was given (W-38)."""
    sql = statement_for(b"search_path", value.encode())
    assert f"SELECT pg_catalog.set_config('search_path', '{value}', false)" == sql.decode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "''"),
        ("a,b", "'a', 'b'"),
        ("One", "'one'"),
        ('"It\'s",\\', "'It''s',  E'\\\\'"),
        ("a,,b", "'a,,b'"),
        ("a", "'a'"),
    ],
)
def test_within_a_transaction_it_is_a_set_that_finds_the_same(value: str, expected: str) -> None:
    """A query would take a snapshot, and fix its level (W-39)."""
    sql = statement_for(b"search_path", value.encode())
    assert f'SET "search_path" TO {expected}' == in_block(sql).decode()
    assert f'SET LOCAL "search_path" TO {expected}' == locally(sql).decode()
