"""The extended protocol towards a server: statements, portals, and what has to go ahead of them.

A client's statement name becomes that of a shared statement (W-19 to W-28); how a server gets one is in ``sharing``. Messages are
rewritten at their head only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from typing import Final

from hyperdrive.errors import (
    ClientError,
    DuplicateStatement,
    FeatureNotSupported,
    ProtocolViolation,
    TransactionAborted,
    UnknownStatement,
    WrongParameters,
)
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import BIND, DESCRIBE, EXECUTE, PARSE, QUERY, read_length
from hyperdrive.session import replies
from hyperdrive.session.answers import tag_of
from hyperdrive.session.batch import UNREAD, first_message, name_at, shown
from hyperdrive.session.failures import ABORTED_TEXT
from hyperdrive.session.held import ANALYZED, Live, portal_behind
from hyperdrive.session.known import may_end_epoch
from hyperdrive.session.noted import note
from hyperdrive.session.outcome import PREPARED, Parameters, Watch
from hyperdrive.session.pipe import Pipe
from hyperdrive.session.replies import Action, Expected, fake
from hyperdrive.session.server import FAILED, IDLE, ServerSession
from hyperdrive.session.settings import IDLE_SESSION, UNKNOWN, Label
from hyperdrive.session.sharing import EXITS, WAIT, Sharing
from hyperdrive.session.statements import NAME_BYTES, POISON, Named, SharedStatement
from hyperdrive.sql.text import parameters_in
from hyperdrive.sql.verdict import Kind, Statement, Verdict

_POISON_BIND: Final = messages.bind(b"", POISON)

_SCRATCH: Final = b"_hd_taken"
"""A statement of ours, for a look at a text whose name is taken: the client's unnamed one stays where it is."""
_SCRATCH_CLOSE: Final = messages.close(b"S", _SCRATCH)
_GONE: Final = _SCRATCH_CLOSE + messages.parse(_SCRATCH, b"") + messages.parse(b"", b"DEALLOCATE " + _SCRATCH)
"""A DEALLOCATE that frees what only it needs."""

_NOTHING: Final[frozenset[bytes]] = frozenset()


_GIVES_ROWS: Final = frozenset(
    {Kind.PLAIN, Kind.EXECUTE, Kind.EXPLAIN, Kind.SHOW, Kind.FETCH, Kind.CALL, Kind.MULTI, Kind.UNKNOWN}
)
"""What may have a result: everything else is described even in a failed transaction."""

_MAYBE_PARAMETER: Final = re.compile(rb"\$\d")

_CLEARS: Final = frozenset({Kind.DISCARD_ALL, Kind.DEALLOCATE_ALL, Kind.RESET, Kind.RESET_ALL})
"""What drops names or values that later scopes of a pipeline may count on."""


_DECIDES: Final = frozenset({Kind.PREPARE, Kind.DEALLOCATE, Kind.DEALLOCATE_ALL, Kind.DISCARD_ALL})
"""What makes or frees names."""

_NAMES_STATEMENT: Final = frozenset({Kind.EXECUTE, Kind.EXPLAIN, Kind.DDL, Kind.DEALLOCATE, Kind.PREPARE})
"""What may name a prepared statement; DDL is CREATE TABLE … AS EXECUTE."""


def _accepts(server: ServerSession) -> bool:
    """Whether a Parse is certain not to meet a failed transaction: no scope is outstanding that could fail (W-25)."""
    if server.status == FAILED:
        return False
    return not any(entry.ends_scope and entry.action is not Action.SKIP for entry in server.queue)


def _may_exit(entry: Expected) -> bool:
    """Whether what is under way may end a failed transaction, or go back to a savepoint of it."""
    if entry.watch is None:
        return entry is replies.COMMIT or entry is replies.ROLLBACK
    statements = entry.watch.statements
    return statements is None or any(statement.kind in EXITS for statement in statements)


def _wanted(told: bytes, body: bytes, kind: Kind) -> int | None:
    """How many values a statement takes: as its client was *told*, or as the *body* of its Parse says; ``None``: that cannot be told."""
    if told:
        return int.from_bytes(told[:2], "big")
    sql, _, declared = body.partition(b"\0")
    # Elsewhere the numbers may be those of another statement: PREPARE, a function's body.
    found = parameters_in(sql) if kind is Kind.PLAIN or b"$" not in sql else None
    return None if found is None else max(found, int.from_bytes(declared[:2], "big"))


class Extended(Sharing):
    """The part of a client session that composes the messages of the extended protocol."""

    __slots__ = ("_bound_here", "_clears", "_portal_behind")

    def __init__(self, pipe: Pipe, base: Label, told: Mapping[bytes, bytes]) -> None:
        super().__init__(pipe, base, told)
        self._clears = False
        """Something is under way that drops names or values: what is behind its scope waits."""
        self._bound_here: Set[bytes] = _NOTHING
        """Portals of ``_portals`` that were bound in the scope being composed."""
        self._portal_behind: bytes | None = None
        """What was answered here, in a transaction that a server has, and has taken the unnamed portal: the text of a statement, nothing of
        a Query. ``None``: what the server has is what the client believes."""

    def _settle_portal(self, server: ServerSession, out: list[bytes]) -> None:
        """Let the server have the unnamed portal that the client believes in, if the batch is about to use it.

        One that is closed is so from now on, whatever the batch is, as what binds another may fail before; but a Query takes it anyway.
        """
        behind = self._portal_behind or b""
        if self.ops[0][0] == QUERY or (behind and self.whole is not None):
            self._portal_behind = None
            return
        if behind:
            first = self._first_of_unnamed_portal()
            if not first:
                return
            if first == BIND:
                self._portal_behind = None
                return
        data, entries = portal_behind(behind if server.status != FAILED else b"")
        out.append(data)
        server.queue.extend(entries)
        server.unnamed = None
        server.attention = True
        self._portal_behind = None

    def _first_of_unnamed_portal(self) -> int:
        """The first message of the batch that is about the unnamed portal; 0: there is none."""
        for kind, raw, _ in self.ops:
            if raw[5:6] == b"\0" if kind in (BIND, EXECUTE) else kind == DESCRIBE and raw[5:] == b"P\0":
                return kind
        return 0

    def _fail(self, error: ClientError, server: ServerSession, out: list[bytes]) -> None:
        """Fail the scope on both sides with an error that the origin does not know of (§1, the poison scope)."""
        self._poison(messages.error_message(error), server, out)

    def _poison(self, error: bytes, server: ServerSession, out: list[bytes]) -> None:
        out.append(_POISON_BIND)
        server.queue.append(Expected("B", Action.REPLACE, payload=error))
        server.open_scope = True
        self._skipping = True

    def _lend_names(self, verdict: Verdict, server: ServerSession, out: list[bytes]) -> bool:
        """SQL names statements that the client prepared by protocol: the server has to know them by those names (W-24).

        They go ahead, and the client is pinned until SQL frees them. ``True`` if there were any.
        """
        before = len(out)
        statements = verdict.statements or () if server.status != FAILED else ()
        names = [one.name for one in statements if one.kind in _NAMES_STATEMENT and one.name]
        if any(self._is_undecided(name, server, told=True) for name in names):
            raise WAIT
        for name in names:
            found = self._shared.get(name)
            if found is not None and not self._is_lent(found.name):
                copy = SharedStatement(found.name, found.statement.body, found.statement.verdict)
                out += [messages.close(b"S", copy.name), copy.parse_message()]
                server.queue += [Expected("C", Action.SKIP), Expected("P", Action.SKIP, named=found)]
                self.journal.pin(PREPARED, found.name)
        return len(out) > before

    def _lend_for(self, verdict: Verdict | None, server: ServerSession, out: list[bytes]) -> None:
        # DEALLOCATE reads no statement: only an Execute of it that is the origin's needs one there to free.
        if verdict is not None and not verdict.is_plain and verdict.kind is not Kind.DEALLOCATE:
            server.open_scope = self._lend_names(verdict, server, out) or server.open_scope

    def _parse(self, raw: bytes, verdict: Verdict | None, server: ServerSession, out: list[bytes]) -> None:
        server.open_scope = True
        if len(raw) < 6:
            raise ProtocolViolation("invalid string in message")
        if not raw[5]:
            self._lend_for(verdict, server, out)
            out.append(raw)
            entry = Expected("P")
            entry.before = (raw, self.unnamed, self.unnamed_verdict)
            server.queue.append(entry)
            self.unnamed = server.unnamed = raw
            self.unnamed_verdict = verdict
            self._unnamed_here, self._unnamed_settled = True, None
            return
        name, body_at = name_at(raw, 5)
        key = name[:NAME_BYTES]
        if self._is_undecided(key, server, told=True):
            raise WAIT  # whether the name is taken is not known yet
        if key in self._shared or self._is_lent(key):
            # The origin looks at the text first, and its errors go before ours; so does that of a failed transaction.
            out += [_SCRATCH_CLOSE, messages.message(b"P", _SCRATCH + b"\0" + raw[body_at:])]
            server.queue += [replies.SKIP_CLOSE, Expected("P", Action.SKIP, name=key)]
            raise DuplicateStatement(f'prepared statement "{shown(name)}" already exists')
        self._lend_for(verdict, server, out)
        if verdict is None:
            raise ProtocolViolation("invalid string in message")
        if verdict is UNREAD:
            raise FeatureNotSupported(
                "a named prepared statement of this size cannot be shared",
                hint="Use the unnamed statement for very large texts.",
            )
        in_force = self._in_force(server)
        shared = self.pipe.registry.intern(raw[body_at:], self._parse_settings(in_force), verdict)
        named = self._shared[key] = Named(shared, key, in_force, self.pipe.epoch)
        self._here().add(shared)
        present = server.statements.get(shared)
        if present and _accepts(server) and self.pipe.epoch in (shared.parsed_in, shared.described_in):
            # It has it, and would take the text again: the schema is still the one in which it did (W-26).
            server.statements.move_to_end(shared)
            live = self.live
            if verdict.kind in ANALYZED and live is not None and not live.has_snapshot and not self._runs(raw, key):
                self._take_snapshot(live, server, out)
            server.queue.append(fake(messages.PARSE_COMPLETE, kind="P", named=named))
            return
        entry = Expected("P", statement=shared, name=key, named=named)
        entry.epoch = self._learns_in(server)
        named.is_renewed = self._send_parse(shared, entry, server, out, again=present is not None)

    def _take_snapshot(self, live: Live, server: ServerSession, out: list[bytes]) -> None:
        """What is answered here would take the first snapshot of the transaction: the origin takes one all the same (E-0.4)."""
        data, entries = live.take_snapshot()
        out.append(data)
        server.queue.extend(entries)
        server.unnamed = None
        server.ahead = b""  # there is more than what was held

    def _runs(self, parse: bytes, key: bytes) -> bool:
        """Whether what is bound next in this scope is the statement of *parse*: that takes a snapshot itself, or fails the transaction."""
        ops = iter(self.ops)
        for kind, raw, _ in ops:
            if kind == PARSE and raw is parse:
                break
        kind, bind, _ = next((op for op in ops if op[0] != DESCRIBE), (0, b"", None))
        return kind == BIND and name_at(bind, name_at(bind, 5)[1])[0][:NAME_BYTES] == key

    @staticmethod
    def _no_unnamed(server: ServerSession) -> Exception:
        """What there is to say if the client has no unnamed statement: unless what took it away may be skipped yet."""
        if any(entry.before is not None and entry.before[0] is None for entry in server.queue):
            return WAIT
        return UnknownStatement("unnamed prepared statement does not exist")

    def _lacks_in_failed(self, name: bytes, server: ServerSession) -> tuple[Verdict, bytes, bytes] | None:
        """A statement that a server in a failed transaction does not have: its verdict, what its client was told of its parameters, and the
        body of its Parse.

        It takes no Parse then but that of the transaction's end, so what it would say is said here: it looks at the statement first.
        """
        if server.status != FAILED or any(map(_may_exit, server.queue)):
            return None
        if name:
            found = self.named(name[:NAME_BYTES])
            if found is None or server.statements.get(found.statement):
                return None
            verdict, told, body = found.statement.verdict, found.types, found.statement.body
        else:
            if self.unnamed is None or server.unnamed is self.unnamed or self.unnamed_verdict is None:
                return None
            verdict = self.unnamed_verdict
            told, body = b"", first_message(self.unnamed)[6:]
        return None if verdict.kind in EXITS else (verdict, told, body)

    def _refuse_bind(self, raw: bytes, name: bytes, rest: int, server: ServerSession) -> None:
        lacking = self._lacks_in_failed(name, server)
        if lacking is None:
            return
        verdict, told, body = lacking
        self._check_count(name, _wanted(told, body, verdict.kind), raw, rest)
        raise TransactionAborted(ABORTED_TEXT)

    @staticmethod
    def _check_count(name: bytes, wanted: int | None, raw: bytes, rest: int) -> None:
        """What the origin looks at first in a Bind, if a Parse ahead of it could fail for another reason."""
        given = Parameters(raw, rest).count
        if wanted is not None and given != wanted:
            raise WrongParameters(
                f'bind message supplies {given} parameters, but prepared statement "{shown(name)}" requires {wanted}'
            )

    def _described_in_failed(self, name: bytes, server: ServerSession) -> bool:
        lacking = self._lacks_in_failed(name, server)
        if lacking is None:
            return False
        verdict, told, body = lacking
        kind = verdict.single.kind if verdict.single is not None else verdict.kind
        sql, _, declared = body.partition(b"\0")
        if (kind in _GIVES_ROWS or (not told and _MAYBE_PARAMETER.search(sql))) and not self._was_without_rows(name):
            raise TransactionAborted(ABORTED_TEXT)
        types = told or declared
        server.queue.append(fake(messages.message(b"t", types) + messages.NO_DATA, kind="DS"))
        return True

    def _was_without_rows(self, name: bytes) -> bool:
        """The origin has described it as one that gives no rows, in whatever schema: a text does or does not."""
        if name:
            return self._shared[name[:NAME_BYTES]].statement.told[1] == messages.NO_DATA
        told = self._unnamed_told
        return told is not None and told.parse is self.unnamed and told.named.told == messages.NO_DATA

    def _bind(self, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        portal, name_start = name_at(raw, 5)
        name, rest = name_at(raw, name_start)
        self._refuse_bind(raw, name, rest, server)
        if not name:
            if self.unnamed is None:
                raise self._no_unnamed(server)
            self._send_unnamed(server, out)
            verdict = self.unnamed_verdict
            self._lend_for(verdict, server, out)
            out.append(raw)
            server.queue.append(replies.BIND)
        else:
            found = self.named(name[:NAME_BYTES])
            if found is not None and not server.statements.get(found.statement):
                shared = found.statement
                self._check_count(name, _wanted(found.types, shared.body, shared.verdict.kind), raw, rest)
            found = self._ensure(name, server, out)
            if found is None:
                verdict = None
                out.append(raw)
                server.queue.append(replies.BIND)
            else:
                shared = found.statement
                verdict = shared.verdict
                self._lend_for(verdict, server, out)
                out.append(
                    b"B"
                    + (read_length(raw, 1)[0] - len(name) + len(shared.name)).to_bytes(4, "big")
                    + raw[5:name_start]
                    + shared.name
                    + raw[rest - 1 :]
                )
                server.queue.append(found.bind)
        server.open_scope = True
        if self.live is not None:
            self.live.note(verdict, self._bound_sql(name))
        if server.noted is not None:
            note(server.noted, verdict, self._bound_sql(name))
        if verdict is not None and verdict.is_plain:
            if self._portals:
                self._portals.pop(portal, None)
            return
        if self._portals is None:
            self._portals = {}
        self._portals[portal] = (verdict, Parameters(raw, rest))
        self._bound_here = {*self._bound_here, portal}

    def _bound_sql(self, name: bytes) -> bytes:
        """The text of the statement that Bind names."""
        named = self._shared.get(name[:NAME_BYTES]) if name else None
        if named is not None:
            return named.statement.sql
        unnamed = self.unnamed or b""
        return unnamed[6 : unnamed.find(b"\0", 6)]

    def _describe(self, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        server.open_scope = True
        if raw[5:6] != b"S":
            out.append(raw)
            server.queue.append(replies.DESCRIBE_PORTAL)
            return
        name, _ = name_at(raw, 6)
        if self._described_in_failed(name, server):
            return
        if not name:
            if self.unnamed is None:
                raise self._no_unnamed(server)
            self._send_unnamed(server, out)
            self._lend_for(self.unnamed_verdict, server, out)
            out.append(raw)
        else:
            found = self._ensure(name, server, out)
            if found is not None:
                self._lend_for(found.statement.verdict, server, out)
                out.append(messages.describe(b"S", found.statement.name))
                entry = Expected("DS", statement=found.statement, name=found.name, named=found, describes=True)
                entry.epoch = self._learns_in(server)
                server.queue.append(entry)
                return
            out.append(raw)
        server.queue.append(replies.DESCRIBE_STATEMENT if name else self._describes_unnamed())

    def _execute(self, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        server.open_scope = True
        if self._portals:
            portal, _ = name_at(raw, 5)
            found = self._portals.get(portal)
            if found is not None:
                verdict, parameters = found
                # Only of a portal bound in this scope: whether an older one is still open, the origin knows.
                if (
                    verdict is not None
                    and portal in self._bound_here
                    and self._deallocates(verdict, portal, server, out)
                ):
                    return
                self._check_currval(verdict, server)
                if verdict is not None and verdict.kind is Kind.DEALLOCATE:
                    self._lend_names(verdict, server, out)
                out.append(raw)
                self._before(verdict, server)
                server.queue.append(self._watched("E", verdict, server, parameters))
                return
        out.append(raw)
        server.queue.append(replies.EXECUTE)

    def _deallocates(self, verdict: Verdict, portal: bytes, server: ServerSession, out: list[bytes]) -> bool:
        """DEALLOCATE of names that only exist here: answered in its place; if the scope fails before, they come back.

        What goes there instead leaves *portal* as it would have, and in a failed transaction gets its error.
        """
        if verdict.kind not in (Kind.DEALLOCATE, Kind.DEALLOCATE_ALL):
            return False
        single = verdict.single
        assert single is not None
        names = [*(self._deciding or ())] if single.name is None else [single.name]
        if any(self._is_undecided(name, server, told=True) for name in names):
            raise WAIT
        if not self._is_local(verdict):
            return False
        names = list(self._shared) if single.name is None else [single.name]
        gone = [self._shared.pop(name) for name in names]
        if server.status == FAILED or server.carries_scope:
            self._clears = True  # the scope may fail before, and what is behind it would miss them
        if portal:
            out.append(messages.close(b"P", portal))
            server.queue.append(replies.SKIP_CLOSE)
        out += [_GONE, messages.bind(portal, b""), messages.execute(portal)]
        server.queue += [replies.SKIP_CLOSE, Expected("P", Action.SKIP, name=_SCRATCH)]
        server.queue += [Expected(step, Action.SKIP, name=b"") for step in "PBE"]
        server.unnamed = None
        self._bound_here = self._bound_here - {portal}  # run once more it is the origin's
        entry = fake(tag_of(verdict), kind="E")
        entry.gone = gone
        server.queue.append(entry)
        return True

    def _watched(
        self, kind: str, verdict: Verdict | None, server: ServerSession, parameters: Parameters | None = None
    ) -> Expected:
        """What is expected of a statement whose end has to be noticed."""
        entry = Expected(kind, watch=self._watch(verdict, server, parameters))
        for statement in (verdict.statements or ()) if verdict is not None else ():
            if statement.kind in _DECIDES:
                self._decides(statement.name or b"", entry)
        return entry

    def _watch(self, verdict: Verdict | None, server: ServerSession, parameters: Parameters | None = None) -> Watch:
        single = verdict.single if verdict is not None else None
        if single is not None:
            self._ask(single, alone=not any(entry.ends_scope and entry not in replies.AHEAD for entry in server.queue))
        if verdict is not None and any(statement.kind in _CLEARS for statement in verdict.statements or ()):
            self._clears = True
        return Watch(self, verdict.statements if verdict is not None else None, parameters)

    def _check_currval(self, verdict: Verdict | None, server: ServerSession) -> None:
        if (
            verdict is None
            or not verdict.reads_currval
            or server.status != IDLE
            or self.keeps_server
            or self.journal.is_pinned
        ):
            return
        if any(entry.ends_scope and entry.action is not Action.SKIP for entry in server.queue):
            raise WAIT  # a BEGIN may be among what is outstanding
        raise FeatureNotSupported(
            "currval and lastval need the session that called nextval",
            hint="Use INSERT ... RETURNING, call them in the same transaction as nextval, or use session pooling.",
        )

    def _before(self, verdict: Verdict | None, server: ServerSession) -> None:
        """What a statement of unknown class, or one that clears names, does to what we believe of the server."""
        if verdict is None or verdict.statements is None:
            if self.pipe.pin_unknown:
                self.journal.pin("statement of unknown class")

    def _close(self, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        if raw[5:6] != b"S":
            portal, _ = name_at(raw, 6)
            if self._portals:
                self._portals.pop(portal, None)
            out.append(raw)
            server.queue.append(replies.CLOSE)
            server.open_scope = True
            return
        name, _ = name_at(raw, 6)
        key = name[:NAME_BYTES]
        if self._is_deciding(key, server) if name else server.carries_scope:
            raise WAIT  # what is closed here, and is there again should this be skipped, is not known yet
        if not name or self._is_lent(key):
            entry = Expected("C", name=key)
            if name:
                self.journal.unpin(PREPARED, key)
            else:
                entry.before = (None, self.unnamed, self.unnamed_verdict)
                self.unnamed = server.unnamed = None
                self._clears = True
            out.append(raw)
        else:
            entry = fake(messages.CLOSE_COMPLETE, kind="close")
        if name:
            named = self._shared.pop(key, None)
            if named is not None:
                entry.gone = [named]
            self._decides(key, entry)
        server.queue.append(entry)
        server.open_scope = True

    def _sync(self, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        out.append(raw)
        self._skipping = False
        self._end_scope()
        if server.copy_in:
            return  # ignored by the origin until the copy ends (W-30)
        server.queue.append(replies.SYNC)
        server.open_scope = False

    def _end_scope(self) -> None:
        self._parsed_here = None
        self._unnamed_here = False
        self._bound_here = _NOTHING

    def lost(self, error: bytes, server: ServerSession, *, failed_here: bool) -> bytes:
        self._end_scope()
        return super().lost(error, server, failed_here=failed_here)

    def completed(
        self,
        statement: Statement | None,
        tag: bytes,
        parameters: Parameters | None,
        *,
        restored: Iterable[bytes] | None = None,
    ) -> None:
        """A watched statement ended with *tag*; ``None``: its class is unknown.

        *restored*: what the server ran also gave the settings their start-up values back, these within a transaction.
        """
        if statement is None:
            self.journal.completed_unknown()
            self._ends_epoch = True
        else:
            self.journal.completed(statement, tag, parameters)
            if IDLE_SESSION in self.journal.wanted.items:
                self._idle_timeout_reached_server(statement)
            if may_end_epoch(statement):
                self._ends_epoch = True
            elif statement.suspect:
                self._doubts_epoch = True
                self._called = tuple({*self._called, *(statement.unknown_functions or (b"",))})
            if statement.alters_defaults:
                self.pipe.defaults_changed()
            if restored is not None:
                self.journal.restored(restored)
            if statement.kind is Kind.DEALLOCATE and statement.name is not None:
                self._shared.pop(statement.name, None)
            if statement.kind in (Kind.DEALLOCATE_ALL, Kind.DISCARD_ALL):
                self._shared.clear()

    def _idle_timeout_reached_server(self, statement: Statement) -> None:
        setting = statement.setting
        if setting is not None and setting.name == IDLE_SESSION and not setting.is_local:
            self.journal.actual = UNKNOWN  # it is undone before anybody else gets the server
        if setting is not None or statement.effects:
            self.pipe.idle_timeout_set()
