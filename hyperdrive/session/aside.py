"""Statements that are read again, on another server, under the settings at their Parse (W-19).

PostgreSQL reads a text once: bytes, literals and what is derived from them stay as they were, whatever is set later; only names are
looked up anew, under the search path and the role of whoever runs it (plancache.c). So a server that lacks a statement reads it under
the literal settings of its Parse and the names of now. Knows labels and messages; decides nothing about scopes.
"""

from __future__ import annotations

from typing import Final

from hyperdrive.pgwire import messages
from hyperdrive.session import replies
from hyperdrive.session.replies import Action, Expected
from hyperdrive.session.settings import DOUBT, MERGED, SET_HEAD, Label, label, quote_name, stays_here, transition
from hyperdrive.session.statements import SharedStatement

HARMLESS: Final = frozenset(
    {
        b"application_name",
        b"statement_timeout",
        b"lock_timeout",
        b"idle_in_transaction_session_timeout",
        b"idle_session_timeout",
        b"client_min_messages",
        b"extra_float_digits",
    },
)
"""Settings that Parse does not look at."""

_OF_NOW: Final = HARMLESS | {
    b"search_path",
    b"role",
    b"session_authorization",
    b"default_transaction_isolation",
    b"default_transaction_read_only",
    b"default_transaction_deferrable",
}
"""What is looked at again whenever the statement runs, or never."""

_SAVEPOINT: Final = b"_hd"
_PORTAL: Final = b"_hd"


def _is_of_now(name: bytes) -> bool:
    return name in _OF_NOW or stays_here(name)


def reads_alike(then: Label, now: Label) -> bool:
    """Whether a text means the same under both; of one that was read in doubt nothing better is known than now."""
    if then is now or then is DOUBT:
        return True
    if now is DOUBT:
        return False
    return {n: s for n, s in then.items.items() if not _is_of_now(n)} == {
        n: s for n, s in now.items.items() if not _is_of_now(n)
    }


def reading(then: Label, now: Label) -> Label:
    """The label to read under: literals as *then*, names as *now*."""
    items = {name: sql for name, sql in now.items.items() if _is_of_now(name)}
    items |= {name: sql for name, sql in then.items.items() if not _is_of_now(name)}
    return label(items)


def ways(have: Label, then: Label) -> tuple[bytes, bytes]:
    """The SQL that takes a server from label *have* to where texts are read as under *then*, and the SQL back."""
    under = reading(then, have)
    return transition(have, under), transition(under, have)


def inside(
    statement: SharedStatement, types: bytes, now: Label, then: Label, name: bytes
) -> tuple[bytes, list[Expected]] | None:
    """Read *statement* within a transaction, in the client's own scope: a rollback to a savepoint takes the settings back, and not
    the statement. ``None``: the settings cannot be given for a transaction.

    An error is the client's, as that of any Parse in its scope: *name* is what it calls the statement.
    """
    sets = _local_commands(now, reading(then, now))
    if sets is None:
        return None
    first = [b"SAVEPOINT " + _SAVEPOINT, *sets]
    last = [b"ROLLBACK TO SAVEPOINT " + _SAVEPOINT, b"RELEASE SAVEPOINT " + _SAVEPOINT]
    data = [*map(_run, first), statement.parse_message(types), *map(_run, last)]
    steps = [*(Expected(kind, Action.SKIP, name=name) for kind in "PBE"), replies.SKIP_CLOSE]
    parse = Expected("P", Action.SKIP, statement=statement, name=name)
    return b"".join(data), [*steps * len(first), parse, *steps * len(last)]


def _local_commands(now: Label, under: Label) -> list[bytes] | None:
    commands = [b"SET LOCAL %s TO DEFAULT" % quote_name(name) for name in sorted(now.items) if name not in under.items]
    for name in sorted(under.items):
        sql = under.items[name]
        if now.items.get(name) == sql:
            continue
        found = SET_HEAD.match(sql)
        if found is None or (name == MERGED and b";" in sql):
            return None
        commands.append(b"SET LOCAL " + sql[found.end() :])
    return commands


def _run(sql: bytes) -> bytes:
    """Through a portal of our own: one of the client's may be suspended (W-28)."""
    bound = messages.bind(_PORTAL, b"") + messages.execute(_PORTAL) + messages.close(b"P", _PORTAL)
    return messages.parse(b"", sql) + bound
