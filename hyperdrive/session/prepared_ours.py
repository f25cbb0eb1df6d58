"""Statements about settings of ours that arrive prepared, named or not, in one scope or in several (asyncpg, pgx, psycopg from its fifth).

The origin knows no ``hyperdrive.last_read`` and could describe no such row, so what Parse, Describe, Bind and Execute of them would be
told is told here. Only of scopes that hold nothing else; knows no server.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from hyperdrive.errors import DuplicateStatement, ProtocolViolation
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import BIND, DESCRIBE, EXECUTE, PARSE, SYNC
from hyperdrive.session.batch import Op, name_at, shown
from hyperdrive.session.runs import Runs
from hyperdrive.session.statements import NAME_BYTES, Named
from hyperdrive.sql.verdict import Kind, Statement, Verdict

_SHAPE: Final = re.compile(rb"P?d?(BD?E)?")
"""Of one statement; ``d`` is Describe of it, ``D`` of its portal."""

_KEY: Final = b"ours"
"""Takes the place of settings in the key of such a shared statement: none changes what it is."""


class PreparedOurs(Runs):
    """The part of a client session that answers for them."""

    __slots__ = ()

    def _ours_scope(
        self, scope: list[Op], end: int, carry_out: Callable[[Statement], bytes], *, in_block: bool
    ) -> bytes | None:
        """Replies to *scope*, which a message of kind *end* ends, by *carry_out*; ``None``: it is not such a one, and nothing is done.

        ReadyForQuery is left to the caller.
        """
        kinds = bytes([_letter(kind, raw) for kind, raw, _ in scope])
        if not kinds or _SHAPE.fullmatch(kinds) is None:
            return None
        try:
            verdict, name = self._prepared(scope[0])
            if verdict is None or not all(_is_of(name, kind, raw) for kind, raw, _ in scope):
                return None
        except ProtocolViolation:
            return None
        statement = verdict.single
        if statement is None or not self._is_ours(statement, in_block=in_block):
            return None
        if statement.kind is Kind.SHOW and not self._describes(statement):
            return None  # the origin does not know it either, and says so
        if self._refusal(statement) is not None and (in_block or end != SYNC or scope[-1][0] != EXECUTE):
            return None
        if scope[0][0] == PARSE and not self._remember_prepared(scope[0], name):
            # The origin would look at the text first, and know no such setting.
            taken = DuplicateStatement(f'prepared statement "{shown(name)}" already exists')
            return messages.error_message(taken) if end == SYNC and not in_block else None
        described, is_binary = self._description(statement), False
        out = []
        for kind, raw, _ in scope:
            if kind == PARSE:
                out.append(messages.PARSE_COMPLETE)
            elif kind == BIND:
                out.append(messages.BIND_COMPLETE)
                is_binary = raw[-2:] == b"\0\1" and raw[-4:-2] == b"\0\1"
            elif kind == DESCRIBE:
                out.append(messages.NO_PARAMETERS if raw[5:6] == b"S" else b"")
                out.append(described[:-1] + b"\1" if is_binary and statement.kind is Kind.SHOW else described)
            else:
                out.append(_cut(carry_out(statement), statement, raw))
        return b"".join(out)

    def _prepared(self, op: Op) -> tuple[Verdict | None, bytes]:
        """The verdict and the name of the statement that the scope beginning with *op* is about."""
        kind, raw, verdict = op
        at = 5 if kind == PARSE else 6
        if kind == BIND:
            at = name_at(raw, 5)[1]
        name = name_at(raw, at)[0][:NAME_BYTES]
        if kind == PARSE:
            return verdict, name
        if not name:
            return self.unnamed_verdict if self.unnamed is not None else None, name
        named = self.named(name)
        return named.statement.verdict if named is not None else None, name

    def _remember_prepared(self, op: Op, name: bytes) -> bool:
        """What Parse makes; ``False``: the name is taken."""
        _, raw, verdict = op
        if not name:
            self.unnamed, self.unnamed_verdict = raw, verdict
            return True
        if name in self._shared or self._is_lent(name):
            return False
        assert verdict is not None
        shared = self.pipe.registry.intern(raw[name_at(raw, 5)[1] :], _KEY, verdict)
        named = self._shared[name] = Named(shared, name, self.journal.wanted, self.pipe.epoch)
        named.is_pending = False
        return True


def _letter(kind: int, raw: bytes) -> int:
    return ord("d") if kind == DESCRIBE and raw[5:6] == b"S" else kind


def _is_of(name: bytes, kind: int, raw: bytes) -> bool:
    """Whether the message is about the statement of that *name*, through the unnamed portal and without parameters."""
    if kind == PARSE:
        return name_at(raw, 5)[0][:NAME_BYTES] == name
    if kind == BIND:
        portal, at = name_at(raw, 5)
        bound, at = name_at(raw, at)
        formats = int.from_bytes(raw[at : at + 2], "big")
        return not portal and bound[:NAME_BYTES] == name and raw[at + 2 + 2 * formats : at + 4 + 2 * formats] == b"\0\0"
    if kind == DESCRIBE and raw[5:6] == b"S":
        return name_at(raw, 6)[0][:NAME_BYTES] == name
    return not name_at(raw, 6 if kind == DESCRIBE else 5)[0]


def _cut(reply: bytes, statement: Statement, execute: bytes) -> bytes:
    """*reply* as PostgreSQL gives it under Execute's row limit: SHOW has one row, and a limit that is reached suspends the portal."""
    if statement.kind is Kind.SHOW and execute[-4:] == b"\0\0\0\1":
        return reply.removesuffix(messages.command_complete(statement.tag or b"")) + messages.PORTAL_SUSPENDED
    return reply
