"""The shared statements of a client on one server: how one gets there that the server lacks, under which settings, and what goes for it.

A server that lacks a statement gets a Parse in the scope that needs it, and a full one closes what it used longest ago (W-20). What a
client was told of its rows is held against what they are now (W-26), and a text that is read again means what it meant at its Parse
(W-19, ``aside``). Knows no portal.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final, NamedTuple

from hyperdrive.errors import UnknownStatement
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import BIND, DESCRIBE
from hyperdrive.session import aside, replies
from hyperdrive.session.answers import Answers
from hyperdrive.session.batch import first_message, shown
from hyperdrive.session.outcome import may_change_settings
from hyperdrive.session.pipe import Pipe
from hyperdrive.session.replies import Action, Expected
from hyperdrive.session.server import FAILED, IDLE, IN_TRANSACTION, ServerSession
from hyperdrive.session.settings import DOUBT, Label
from hyperdrive.session.statements import NAME_BYTES, Named, SharedStatement
from hyperdrive.sql.verdict import Kind

_NOTHING_READ: Final[frozenset[SharedStatement]] = frozenset()

_OURS: Final = replies.HELD | replies.AHEAD
"""Entries of what was answered already: it changes nothing that the session's label does not say."""


class _Told(NamedTuple):
    """The unnamed statement as its client was told of it."""

    parse: bytes
    """Its Parse, by identity."""
    named: Named


class WaitError(Exception):
    """An op, and what follows it, has to wait for replies that are outstanding."""


EXITS: Final = frozenset({Kind.COMMIT, Kind.ROLLBACK, Kind.ROLLBACK_TO, Kind.PREPARE_TRANSACTION})
"""What may be Parsed in a failed transaction."""

WAIT: Final = WaitError()


class Sharing(Answers):
    """The part of a client session that sees to it that a server has its statements."""

    __slots__ = (
        "_deciding",
        "_evicted",
        "_on_its_way",
        "_parsed_here",
        "_unnamed_here",
        "_unnamed_settled",
        "_unnamed_told",
    )

    def __init__(self, pipe: Pipe, base: Label, told: Mapping[bytes, bytes]) -> None:
        super().__init__(pipe, base, told)
        self._parsed_here: set[SharedStatement] | None = None
        """Statements that were Parsed in the scope being composed."""
        self._unnamed_here = False
        """The unnamed statement was Parsed in the scope being composed."""
        self._unnamed_settled: bytes | None = None
        """The unnamed statement that has been found to hang on nothing that is outstanding."""
        self._evicted: set[SharedStatement] | None = None
        """Statements that were closed to make room, and may be there yet."""
        self._deciding: dict[bytes, Expected] | None = None
        """Names that a Close frees, or that SQL makes or frees at the origin (empty: all), to what is expected of it."""
        self._unnamed_told: _Told | None = None
        """The unnamed statement that was described by itself last."""
        self._on_its_way: Set[SharedStatement] = _NOTHING_READ
        """Statements that are read ahead of the batch, in scopes of our own."""

    def _send_parse(
        self,
        shared: SharedStatement,
        entry: Expected,
        server: ServerSession,
        out: list[bytes],
        *,
        again: bool,
        types: bytes = b"",
    ) -> bool:
        """Returns whether the server may have it already."""
        if again or (self._evicted is not None and shared in self._evicted):
            # Sent, or closed, in an earlier scope whose fate is open: closing first makes this right whatever that is.
            again = True
            out.append(messages.close(b"S", shared.name))
            server.queue.append(Expected("C", Action.SKIP, statement=shared))
        else:
            self._evict(server, out)
        out.append(shared.parse_message(types))
        server.queue.append(entry)
        server.statements[shared] = False
        return again

    def _learns_in(self, server: ServerSession) -> int:
        """The schema epoch, and the settings, that the origin will answer from; -1 if what goes ahead may change either."""
        if any(entry.kind in "EQF" and entry not in _OURS for entry in server.queue):
            return -1
        is_same = self.live.only_reads if self.live is not None else server.status == IDLE
        return self.pipe.epoch if is_same else -1

    def _evict(self, server: ServerSession, out: list[bytes]) -> None:
        """Close the statements used longest ago until one more fits; never one that this batch refers to (W-20)."""
        excess = len(server.statements) + 1 - self.pipe.max_statements
        if excess <= 0:
            return
        if self._evicted is None:
            self._evicted = set()
        busy = {entry.statement for entry in server.queue if entry.statement is not None}
        for old in [s for s in server.statements if s not in busy][:excess]:
            del server.statements[old]
            self._evicted.add(old)
            out.append(messages.close(b"S", old.name))
            server.queue.append(Expected("C", Action.SKIP, statement=old))

    def _here(self) -> set[SharedStatement]:
        if self._parsed_here is None:
            self._parsed_here = set()
        return self._parsed_here

    def _is_undecided(self, key: bytes, server: ServerSession, *, told: bool = False) -> bool:
        """Whether what *key* stands for hangs on an earlier scope of the flight, and the origin will not see to it that it is right.

        If the Parse fails the name does not exist, and a Bind of it is refused, unless the server has the statement for another reason.
        *told*: the client is told something, or something else than a Bind is sent.
        """
        found = self._shared.get(key)
        if found is not None and found.is_pending and found.statement not in self._here():
            if told or found.is_renewed or server.statements.get(found.statement):
                return True
        return self._is_deciding(key, server) or self._is_deciding(b"", server)

    def _decides(self, key: bytes, entry: Expected) -> None:
        if self._deciding is None:
            self._deciding = {}
        self._deciding[key] = entry

    def _is_deciding(self, key: bytes, server: ServerSession) -> bool:
        """Whether nothing has been heard of what makes or frees *key*: a Close in an earlier scope, or SQL."""
        entry = self._deciding.get(key) if self._deciding else None
        if self._deciding is None or entry is None:
            return False
        is_before = entry.kind in "EQ"
        for later in reversed(server.queue):
            if later is entry:
                return is_before
            is_before = is_before or later.ends_scope
        del self._deciding[key]  # it has been heard of
        return False

    def _ensure(self, name: bytes, server: ServerSession, out: list[bytes]) -> Named | None:
        """The shared statement behind *name*, on its way to the server if that lacks it; ``None``: the name is SQL's (W-24)."""
        if self._is_undecided(name[:NAME_BYTES], server):
            raise WAIT
        found = self._shared.get(name[:NAME_BYTES])
        if found is None:
            if self._is_lent(name[:NAME_BYTES]):
                return None
            raise UnknownStatement(f'prepared statement "{shown(name)}" does not exist')
        shared = found.statement
        statements = server.statements
        if found.is_pending and shared not in self._here():
            pass  # Parsed in an earlier scope of this flight
        elif statements.get(shared):
            statements.move_to_end(shared)
        elif shared not in self._here():
            if shared in self._on_its_way:
                server.statements.move_to_end(shared)
            else:
                shared = self._read_again(found, server, out)
                server.open_scope = True
            self._here().add(shared)
            if found.told is not None and found.told != messages.NO_DATA:
                self._compare(found, server, out)
        return found

    def _send_unnamed(self, server: ServerSession, out: list[bytes]) -> None:
        """See to it that *server* has the client's unnamed statement, and that it still is what the client was told (W-21, W-26)."""
        parse, told = self.unnamed, self._unnamed_told
        assert parse is not None
        if not self._unnamed_here and self._unnamed_settled is not parse:
            if any(entry.before is not None and entry.before[0] is parse for entry in server.queue):
                raise WAIT  # if that is skipped it is another one, and the server may have somebody else's
            self._unnamed_settled = parse
        if server.unnamed is parse:
            return
        if told is None or told.parse is not parse:
            told = None
            out.append(first_message(parse))
        else:
            out.append(told.named.statement.parse_message(told.named.types))
        entry = Expected("P", Action.SKIP, name=b"")
        entry.before = (parse, parse, self.unnamed_verdict)
        server.queue.append(entry)
        server.unnamed = parse
        self._unnamed_settled = None
        server.open_scope = self._unnamed_here = True
        if told is None or told.named.told in (None, messages.NO_DATA):
            return
        if told.named.epoch != self.pipe.epoch:
            self._compare(told.named, server, out)

    def _describes_unnamed(self) -> Expected:
        """What a Describe of the unnamed statement gives is remembered, as rows may come for it in a later scope."""
        parse, verdict = self.unnamed, self.unnamed_verdict
        if parse is None or verdict is None:
            return replies.DESCRIBE_STATEMENT
        named = Named(SharedStatement(b"", first_message(parse)[6:], verdict), b"", epoch=self.pipe.epoch)
        self._unnamed_told = _Told(parse, named)
        return Expected("DS", named=named, describes=True)

    def _in_force(self, server: ServerSession) -> Label:
        """The settings under which *server* reads what is sent now; ``DOUBT`` while something is outstanding that may change them."""
        for entry in server.queue:
            if entry.watch is not None and may_change_settings(entry.watch.statements, self.journal):
                return DOUBT
        return self.journal.in_force

    def _read_again(self, named: Named, server: ServerSession, out: list[bytes]) -> SharedStatement:
        """*server* lacks the statement: it goes there in the client's scope, and means what it did (W-19). Returns what is sent.

        Where settings cannot be changed for its sake it is read under those of now, and is the client's own from then on. What ends a
        transaction means the same under any: the transaction may have failed by what is outstanding, and takes nothing else.
        """
        shared, now = named.statement, self._in_force(server)
        key = named.name
        if shared.verdict.kind not in EXITS and not aside.reads_alike(named.wanted, now):
            found = None
            if now is not DOUBT and self._is_in_block(server):
                found = aside.inside(shared, named.types, now, named.wanted, key)
            if found is not None:
                data, entries = found
                self._evict(server, out)
                if shared in server.statements:
                    out.append(messages.close(b"S", shared.name))
                    server.queue.append(Expected("C", Action.SKIP, statement=shared))
                out.append(data)
                server.queue.extend(entries)
                server.statements[shared] = False
                server.unnamed = None
                return shared
            shared = self.pipe.registry.intern(shared.body, self._parse_settings(now), shared.verdict)
            named.refer_to(shared)
            named.wanted = now
            if server.statements.get(shared):
                return shared
        entry = Expected("P", Action.SKIP, statement=shared, name=key)
        self._send_parse(shared, entry, server, out, again=shared in server.statements, types=named.types)
        return shared

    def _is_in_block(self, server: ServerSession) -> bool:
        """Whether what is sent now is certain to stand in a transaction block."""
        if server.status == FAILED or not (self.live is not None or server.status == IN_TRANSACTION):
            return False
        if self.live is not None and self.live.may_end:
            return False
        return not any(
            entry.watch is not None or (entry.kind in "QF" and entry not in replies.AHEAD) for entry in server.queue
        )

    def _read_ahead(self, server: ServerSession, out: list[bytes], *, may: bool) -> None:
        """The batch needs statements that *server* lacks and would read otherwise now than at their Parse: they go ahead of it, read
        under the settings of then, in scopes of our own."""
        have = server.label
        self._on_its_way = _NOTHING_READ
        for kind, raw, _ in self.ops if may else ():
            if kind == BIND:
                start = raw.find(b"\0", 5) + 1
                name = raw[start : raw.find(b"\0", start)]
            elif kind == DESCRIBE and raw[5:6] == b"S":
                name = raw[6 : raw.find(b"\0", 6)]
            else:
                continue
            named = self._shared.get(name[:NAME_BYTES])
            if (
                named is None
                or named.is_pending
                or named.wanted is have
                or server.statements.get(named.statement)
                or (aside.reads_alike(named.wanted, have) and aside.reads_alike(named.wanted, self.journal.in_force))
            ):
                continue
            self._read_apart(named, *aside.ways(have, named.wanted), server, out)
            self._on_its_way = {*self._on_its_way, named.statement}

    def _read_apart(self, named: Named, there: bytes, back: bytes, server: ServerSession, out: list[bytes]) -> None:
        """Should the Parse fail nobody is told: the Bind that needs it fails as well, and is sent once more."""
        if there:
            out.append(messages.query(there))
            server.queue.append(replies.ASIDE)
        entry = Expected("P", Action.SKIP, statement=named.statement)
        again = named.statement in server.statements
        self._send_parse(named.statement, entry, server, out, again=again, types=named.types)
        out.append(messages.SYNC)
        server.queue.append(replies.ASIDE_SYNC)
        if back:
            out.append(messages.query(back))
            server.queue.append(replies.ASIDE)
        server.unnamed = None

    def _compare(self, named: Named, server: ServerSession, out: list[bytes]) -> None:
        """The client decodes rows by what it was told; the schema may have changed meanwhile (W-26, E-6).

        A proven read goes out behind the question, others wait for the answer: what they did could not be undone.
        """
        shared = named.statement
        is_read = shared.verdict.is_read and self.pipe.is_read_only([shared.sql], self.journal.wanted)
        action = Action.CHECK if is_read else Action.COMPARE
        out.append(messages.describe(b"S", shared.name))
        server.open_scope = True
        server.queue.append(Expected("DS", action, statement=shared, name=named.name, named=named, describes=True))
        if not is_read:
            out.append(messages.FLUSH)
            raise WAIT
