"""One run of one statement, alone in its scope: what such a scope looks like, what is told of it, and what it leaves behind.

A BEGIN, a COMMIT or a SET comes not only as a Query: drivers also send it as an unnamed statement, prepare it under a name, and run it
by that name ever after (JDBC's COMMIT). Whether it needs a server is decided in ``transactions``. Knows no server.
"""

from __future__ import annotations

from typing import Final

from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import BIND, DESCRIBE, EXECUTE, PARSE, SYNC
from hyperdrive.session.batch import UNREAD, Op, name_at
from hyperdrive.session.known import Known
from hyperdrive.session.statements import NAME_BYTES, Named
from hyperdrive.sql.verdict import Kind, Statement, Verdict

FIRST_RUNS: Final = (b"PBE", b"PBDE", b"PDBE")
RUNS: Final = frozenset({*FIRST_RUNS, b"BE", b"BDE"})
"""Messages of such a scope without its Sync."""

GIVES_ROWS: Final = frozenset({Kind.SHOW, Kind.PLAIN})
"""What is answered here and has a row: SHOW, and ``set_config``."""

_NO_PARAMETERS: Final = b"\0\0"
"""Behind the text of a Parse: no types."""
_AS_TEXT: Final = frozenset({bytes(6), bytes(4) + b"\0\1\0\0"})
_PLAIN_BINDS: Final = _AS_TEXT | {bytes(4) + b"\0\1\0\1"}
"""Behind the names of a Bind: no parameters. The format of results matters only where there are any."""


class Runs(Known):
    """The part of a client session that sees what a scope is a run of."""

    __slots__ = ()

    def _only_run(self) -> Statement | None:
        """The statement of a batch that is one such scope and nothing else."""
        *scope, last = self.ops
        if last[0] != SYNC or bytes([kind for kind, _, _ in scope]) not in RUNS:
            return None
        verdict = self._run_of(scope)
        return verdict.single if verdict is not None else None

    def _run_of(self, scope: list[Op]) -> Verdict | None:
        """The verdict of the statement that *scope*, shaped as one of ``RUNS``, runs once and without parameters."""
        found = self._parsed(scope[0]) if scope[0][0] == PARSE else self._bound(scope[0][1])
        if found is None:
            return None
        name, verdict = found
        shows = verdict.kind in GIVES_ROWS
        for kind, raw, _ in scope:
            if kind == BIND:
                is_plain = raw.startswith(b"\0" + name + b"\0", 5) and raw[7 + len(name) :] in (
                    _AS_TEXT if shows else _PLAIN_BINDS
                )
            elif kind == DESCRIBE:
                is_plain = raw[5:] in (b"P\0", b"S" + name + b"\0")
            else:
                # A limit of rows is nothing to a statement without any.
                is_plain = kind == PARSE or (raw[5:6] == b"\0" and (not shows or raw[6:] == bytes(4)))
            if not is_plain:
                return None
        return verdict

    def _parsed(self, op: Op) -> tuple[bytes, Verdict] | None:
        """Name and verdict of a Parse that makes a statement without parameters, if the name is free."""
        _, raw, verdict = op
        name, body_at = name_at(raw, 5)
        key = name[:NAME_BYTES]
        if verdict is None or verdict is UNREAD or raw[name_at(raw, body_at)[1] :] != _NO_PARAMETERS:
            return None
        return None if name and (key in self._shared or self._is_lent(key)) else (name, verdict)

    def _bound(self, raw: bytes) -> tuple[bytes, Verdict] | None:
        """The same of a Bind of a statement that is there."""
        name = name_at(raw, name_at(raw, 5)[1])[0]
        if name:
            named = self.named(name[:NAME_BYTES])
            if named is None or named.statement.body[len(named.statement.sql) + 1 :] != _NO_PARAMETERS:
                return None
            return name, named.statement.verdict
        unnamed, verdict = self.unnamed, self.unnamed_verdict
        if unnamed is None or verdict is None or unnamed[name_at(unnamed, 6)[1] :] != _NO_PARAMETERS:
            return None
        return name, verdict

    def _leave_parsed(self, scope: list[Op]) -> None:
        """What the Parse of a scope that is answered here made, if there is one, is the client's from now on."""
        kind, raw, verdict = scope[0]
        if kind != PARSE:
            return
        assert verdict is not None
        name, body_at = name_at(raw, 5)
        if not name:
            self.unnamed, self.unnamed_verdict = raw, verdict
            return
        key = name[:NAME_BYTES]
        in_force = self.journal.in_force
        shared = self.pipe.registry.intern(raw[body_at:], self._parse_settings(in_force), verdict)
        named = self._shared[key] = Named(shared, key, in_force, self.pipe.epoch)
        named.is_pending = False


def tell_scope(scope: list[Op], description: bytes, reply: bytes) -> bytes:
    """The replies to such a scope, in the client's order, without ReadyForQuery."""
    out = []
    for kind, raw, _ in scope:
        if kind == DESCRIBE:
            out += [messages.NO_PARAMETERS if raw[5:6] == b"S" else b"", description]
        else:
            out.append({PARSE: messages.PARSE_COMPLETE, BIND: messages.BIND_COMPLETE, EXECUTE: reply}[kind])
    return b"".join(out)
