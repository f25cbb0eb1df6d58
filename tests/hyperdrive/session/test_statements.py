"""Shared statements: one for each text under the same settings, as long as somebody has it."""

from __future__ import annotations

import gc

import pytest

from hyperdrive.session.statements import Named, StatementRegistry
from hyperdrive.sql import classify
from hyperdrive.testing.frontend import bind, execute, parse, sync
from hyperdrive.testing.playbook import Playbook, backend

BODY = b"select 1\0\0\0"


def test_the_same_parse_under_the_same_settings_is_shared() -> None:
    registry = StatementRegistry()
    verdict = classify(b"select 1")
    one = registry.intern(BODY, (), verdict)
    assert one is registry.intern(BODY, (), verdict)
    assert one is not registry.intern(BODY, ((b"search_path", b"SET search_path TO x"),), verdict), "W-19"
    assert one is not registry.intern(b"select 1\0\0\x01\0\0\0\x17", (), verdict), "other parameter types"
    assert len({one.name for one in registry}) == len(registry)


def test_its_parse_message_is_what_the_client_sent_under_our_name() -> None:
    registry = StatementRegistry()
    shared = registry.intern(parse("select $1", "mine", [23])[10:], (), classify(b"select $1"))
    assert parse("select $1", shared.name, [23]) == shared.parse_message()


def test_one_that_nobody_has_is_forgotten_and_its_name_never_used_again() -> None:
    registry = StatementRegistry()
    first = registry.intern(BODY, (), classify(b"select 1"))
    name = first.name
    del first
    gc.collect()
    assert 0 == len(registry)
    assert name != registry.intern(BODY, (), classify(b"select 1")).name


def test_a_forgotten_statement_is_given_to_nobody_else() -> None:
    """Its result has changed: who has it keeps it, a new Parse makes another (W-26)."""
    registry = StatementRegistry()
    one = registry.intern(BODY, (), classify(b"select 1"))
    registry.forget(one)
    assert one is not registry.intern(BODY, (), classify(b"select 1"))


def test_a_name_is_pending_until_its_parse_is_answered() -> None:
    shared = StatementRegistry().intern(BODY, (), classify(b"select 1"))
    named = Named(shared, b"s1")
    assert named.is_pending
    assert named.told is None
    assert named.bind.named is named


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (b"SELECT a FROM t WHERE id = $1", False),
        (b"SELECT oid FROM pg_type WHERE typname = $1", True),
        (b"SELECT 1", True),
    ],
)
def test_a_statement_remembers_whether_it_may_be_a_question_for_the_schema(sql: bytes, expected: bool) -> None:
    """Its Binds have no text, so they cannot be asked (E-8)."""
    shared = StatementRegistry().intern(sql + b"\0\0\0", (), classify(sql))
    assert expected == shared.worth_a_look


def test_a_name_that_is_taken_lends_nothing_to_the_server() -> None:
    """Parse of a taken name fails; the client kept its server for a name that SQL could have used (W-24)."""
    with Playbook() as book:
        book.a.sends(parse("select 1", "s1") + sync())
        book.server.take()
        book.server.sends(backend("1", "Z I"))
        book.a.take()
        book.a.sends(parse("deallocate s1", "s1") + bind("s1") + execute() + sync())
        book.server.gets_letters("C P B S")
        book.server.sends(backend("3", "1", "E 26000 gone", "Z I"))
        book.a.gets_letters("E ZI")
        assert [] == book.a.session.pins()
        assert book.server in book.free
