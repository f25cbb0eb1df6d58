"""One client's session: what it sent, what it is owed, and what must reach a server for it.

``receive`` cuts the stream into messages and says when there is something to run; ``answer`` gives replies that need no server;
``compose`` turns the batch into bytes for the server it is linked to, with the client's statement names mapped to shared ones and
whatever the server lacks put ahead. Pure: knows no socket, no pool and no cache (§1 of the wire reference).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from hyperdrive.errors import ClientError, DuplicateStatement, ProtocolViolation
from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import (
    BIND,
    CLOSE,
    COPY_DATA,
    DESCRIBE,
    EXECUTE,
    FLUSH,
    FUNCTION_CALL,
    PARSE,
    QUERY,
    SYNC,
    read_length,
)
from hyperdrive.session import replies
from hyperdrive.session.batch import EXTENDED, POISON_OP, RAW, SHIP_ABOVE, Op, shown
from hyperdrive.session.endings import Endings
from hyperdrive.session.held import SNAPSHOT, Held, Live
from hyperdrive.session.noted import note, note_settings
from hyperdrive.session.outcome import PREPARED, Watch
from hyperdrive.session.pipe import Classify, Pipe
from hyperdrive.session.replies import Action, Expected, fake
from hyperdrive.session.server import FAILED, IDLE, ServerSession
from hyperdrive.session.settings import Label, in_block, locally, stays_here, transition
from hyperdrive.session.sharing import WaitError
from hyperdrive.session.statements import Named, SharedStatement
from hyperdrive.sql.verdict import Form, Kind, Verdict

__all__ = ["SHIP_ABOVE", "Classify", "ClientSession", "Op", "Pipe"]

_NOT_IN_COPY: Final = frozenset({PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, QUERY, FUNCTION_CALL})


# Transaction commands that need nobody to watch them while the journal has nothing to keep or to undo.
_PLAIN_ENDS: Final = {Kind.BEGIN: replies.QUERY, Kind.COMMIT: replies.COMMIT, Kind.ROLLBACK: replies.ROLLBACK}


class ClientSession(Endings):
    """The protocol state of one client connection after login."""

    __slots__ = ("_again", "_held_ops", "_was_sent", "again_entries", "proven")

    def __init__(self, pipe: Pipe, base: Label, told: Mapping[bytes, bytes]) -> None:
        super().__init__(pipe, base, told)
        self._was_sent = False
        self.proven: Op | None = None
        """A whole batch that is known to write nothing, whatever it calls."""
        self._again: bytes | None = None
        self.again_entries = 0
        """Entries of the reply queue that the scope sent last made; as many are left while none of its replies has come."""
        """What was sent last, if that was one scope which may be sent again."""
        self._held_ops: bytes | None = None
        """The scope that carried a held transaction to the server, while it may be sent to another one."""

    @property
    def is_pinned(self) -> bool:
        return self.keeps_server or self.journal.is_pinned

    @property
    def leaves_traces(self) -> bool:
        """It did what even DISCARD ALL does not undo."""
        return bool({"setseed", "LOAD", "session function"} & set(self.pins()))

    @property
    def is_skipping(self) -> bool:
        """The open scope has failed at the origin."""
        return self._skipping

    def pins(self) -> list[str]:
        """Why the client keeps its server."""
        return (["session pooling"] if self.keeps_server else []) + self.journal.reasons()

    def pin(self, reason: str, detail: object = None) -> None:
        self.journal.pin(reason, detail)

    def statement_names(self) -> list[bytes]:
        """The client's own names of its prepared statements."""
        return list(self._shared)

    def shared_statements(self) -> list[SharedStatement]:
        """The shared statements behind those names."""
        return [named.statement for named in self._shared.values()]

    # --- what must reach the server ---

    def compose(self, server: ServerSession) -> bytes:
        """Bytes for the linked *server*; its reply queue is filled accordingly, and the batch is used up.

        Afterwards ``server.fire_fakes()`` gives what the client is told at once. What has to wait for replies that are
        outstanding stays in the batch.
        """
        ops = self.ops
        server.look_closer()
        at_rest = server.is_at_rest and self.live is None
        if not server.queue:
            self._clears, self._deciding, self._evicted = False, None, None
        elif self._clears and not server.open_scope:
            return b""  # names and values that the origin is about to drop have to be seen dropped first
        out = self._restore(server) if at_rest else []
        if self._shared and (at_rest or not server.queue):
            self._read_ahead(server, out, may=at_rest and not self._resent and not self.is_opaque)
        held, self.held = self.held, None
        if held is not None:
            self._portal_behind = None  # it brings its own along
            out.append(self._begin(held, server))
        elif self.live is not None and self.live.settings:
            out.append(self._send_settings(self.live, server))
        if self._portal_behind is not None and ops:
            self._settle_portal(server, out)
        goes_ahead = bool(server.queue) and server.queue[-1] in replies.HELD
        mark = len(out), len(server.queue)
        whole = self.whole
        if whole is not None:
            if not (server.open_scope or self._awkward or server.copy_in or server.half_sent):
                data = self.compose_whole(server)
                if data:
                    if not out:
                        return data
                    out.append(data)
                    return b"".join(out)
            self._whole_to_ops()
        before = len(server.queue)
        done = 0
        sent = bool(server.half_sent)
        for kind, raw, verdict in ops:
            if server.queue and not server.open_scope and (self._clears or self._must_wait(kind, server)):
                break
            if kind == RAW:
                if sent:
                    out.append(raw)
            elif kind == POISON_OP:
                self._poison(b"", server, out)
            elif server.copy_in and kind in _NOT_IN_COPY:
                # The origin would say so and hang up (W-30); so do we, and it survives.
                raise ProtocolViolation(f"unexpected message type 0x{kind:02X} during COPY from stdin")
            elif self._skipping and kind != SYNC:
                sent = False
            elif self._compose_one(kind, raw, verdict, server, out):
                sent = not self._skipping and self._was_sent
            else:
                if server.open_scope and out[-1:] != [messages.FLUSH]:
                    out.append(messages.FLUSH)  # what is waited for may be the answer to what this scope has sent
                break
            done += 1
        resendable = at_rest and held is None and not self._resent and 0 < done == len(ops)
        self.again_entries = len(server.queue) - before
        self._again = None
        if resendable and ops[0][0] in (BIND, DESCRIBE) and self.size < SHIP_ABOVE:
            self._again = b"".join([raw for _, raw, _ in ops])
        del ops[:done]
        if not ops:
            self.size = 0
        server.half_sent = self._streaming if sent else 0
        self._look_around()
        if goes_ahead and mark == (len(out), len(server.queue)):
            out.append(messages.FLUSH)  # nothing that was sent makes the origin speak
        return b"".join(out)

    def _begin(self, held: Held, server: ServerSession) -> bytes:
        """What was held back goes ahead of the client's scope, in the same write (E-2)."""
        held.goes_ahead_of(self._verdict_ahead())
        data, entries = held.compose()
        if not server.queue:
            server.ahead = held.told_ahead()
        server.queue.extend(entries)
        server.unnamed = None
        server.attention = True
        server.journalled = not held.is_bare
        self.live = Live(held)
        if server.noted is not None:
            note_settings(server.noted, held.statements)
        self._held_ops = None
        if self.size < SHIP_ABOVE and not self._streaming and self._is_repeatable():
            self._held_ops = b"".join([raw for _, raw, _ in self.ops])
        return data

    def _verdict_ahead(self) -> Verdict | None:
        """That of the statement which is first in the batch."""
        kind, raw, verdict = self.ops[0] if self.ops else (0, b"", None)
        return self._verdict_of_bind(raw) if kind == BIND else verdict

    def _send_settings(self, live: Live, server: ServerSession) -> bytes:
        """SETs that were answered inside the transaction go ahead of its next scope, in the same write (E-7)."""
        if server.noted is not None:
            note_settings(server.noted, live.settings)
        data, entries = live.compose_settings()
        server.queue.extend(entries)
        server.unnamed = None
        server.attention = server.journalled = True
        return data

    def _is_repeatable(self) -> bool:
        """The batch ends no transaction and calls nothing unknown: nothing has happened if its server is lost before it answers."""
        parsed: set[bytes] = set()
        for kind, raw, verdict in self.ops:
            if kind in (DESCRIBE, EXECUTE, SYNC, FLUSH):
                continue
            if kind == PARSE:
                parsed.add(raw[5 : raw.find(b"\0", 5)])
            elif kind == BIND and verdict is None:
                name_start = raw.find(b"\0", 5) + 1
                if raw[name_start : raw.find(b"\0", name_start)] in parsed:
                    continue
                verdict = self._verdict_of_bind(raw)
            if verdict is None or not verdict.is_plain:
                return False
        return True

    @property
    def may_take_back(self) -> bool:
        """What was sent last carried a held transaction; if nothing comes back it may go to another server."""
        return self._held_ops is not None

    def take_back_held(self, server: ServerSession) -> bool:
        """*server* was lost before it said anything: the transaction is held again, and its first scope waits for another one.

        ``False``: it cannot be known that nothing has happened.
        """
        live, again = self.live, self._held_ops
        if live is None or live.is_confirmed or again is None or self.ops or self._streaming:
            return False
        self.held, self.live, self._held_ops = live.held, None, None
        for entry in reversed(server.queue):
            self.dropped(entry)
        self._end_scope()
        self._skipping = False
        self.take_back(again)
        return True

    def _must_wait(self, kind: int, server: ServerSession) -> bool:
        """One scope only behind what was held: if that failed, a second one would run in autocommit (E-0)."""
        live = self.live
        return live is not None and not live.is_confirmed and kind in _NOT_IN_COPY and server.carries_scope

    def compose_whole(self, server: ServerSession) -> bytes:
        """The usual batch in one piece, for a server whose scopes are all closed and whose settings are the client's.

        Empty if it lacks the statement that is needed, or if what that does has to be watched: then ``compose``.
        """
        whole = self.whole
        if whole is None or self._awkward or self.held is not None:
            return b""
        kind, data, verdict = self.ops[0]
        if verdict is not None and verdict.is_doubtful:
            return b""
        if server.noted is not None and self.ops[0] is not self.proven:
            note(server.noted, verdict, self._text_of_whole(kind, data))
        first = None
        if kind == BIND:
            named = self.named_by(data)
            shared = named.statement
            if not server.statements.get(shared):
                return b""
            server.statements.move_to_end(shared)
            self._again = data if self.live is None else None  # a transaction that it failed takes no second try
            self.again_entries = len(whole)
            first = named.bind
            name = shared.name
            length = read_length(data, 1)[0] + len(name) - len(named.name)
            data = b"B" + length.to_bytes(4, "big") + b"\0" + name + data[6 + len(named.name) :]
            sql = shared.sql if self.live is not None else b""
        elif kind == PARSE:
            self.unnamed = server.unnamed = data
            self.unnamed_verdict = verdict
            sql = self._bound_sql(b"") if self.live is not None else b""
        else:
            self.unnamed = server.unnamed = None
            sql = data[5:-1] if self.live is not None else b""
        if self._portals:
            self._portals.pop(b"", None)
        if self.live is not None:
            self.live.note(verdict, sql)
        self.ops.clear()
        self.whole = None
        server.put(whole, first)
        return data

    def _text_of_whole(self, kind: int, data: bytes) -> bytes:
        if kind == QUERY:
            return data[5:-1]
        if kind == PARSE:
            return data[6 : data.find(b"\0", 6)]
        return self.named_by(data).statement.sql

    def named_by(self, data: bytes) -> Named:
        """The prepared statement that the Bind at the head of *data*, a whole batch, names."""
        return self._shared[data[6 : data.find(b"\0", 6)]]

    def drop_whole(self) -> None:
        """The batch, one whole scope, was answered without a server."""
        self.ops.clear()
        self.whole = None
        self.close_portal()
        if self.live is not None:
            self._portal_behind = b""
        elif self.held is not None:
            self.held.portal = b""

    def close_portal(self) -> None:
        """A whole batch has made and used up the unnamed portal."""
        if self._portals:
            self._portals.pop(b"", None)

    def _restore(self, server: ServerSession) -> list[bytes]:
        """The settings that the server lacks or has too many, as a scope of their own ahead of the client's (E-0.5).

        Ahead of a held transaction those from before its BEGIN; what was set in it travels with it.
        """
        if self.is_opaque:
            return []
        if self.held is not None:
            wanted = self.held.label
        else:
            wanted = self.journal.wanted
            self.journal.actual = wanted
        sql = transition(server.label, wanted)
        server.label = wanted
        if not sql:
            return []
        server.queue.append(replies.RESTORE)
        server.unnamed = None
        return [messages.query(sql)]

    def _compose_one(
        self, kind: int, raw: bytes, verdict: Verdict | None, server: ServerSession, out: list[bytes]
    ) -> bool:
        """Add one op; ``False`` leaves it, and what follows, for later."""
        self._was_sent = True
        try:
            if kind == BIND:
                self._bind(raw, server, out)
            elif kind == EXECUTE:
                self._execute(raw, server, out)
            elif kind == SYNC:
                self._sync(raw, server, out)
            elif kind == PARSE:
                self._parse(raw, verdict, server, out)
            elif kind == DESCRIBE:
                self._describe(raw, server, out)
            elif kind == QUERY:
                return self._query(raw, verdict, server, out)
            elif kind == CLOSE:
                self._close(raw, server, out)
            elif kind == FLUSH:
                out.append(raw)
            elif kind == FUNCTION_CALL:
                self._function_call(raw, server, out)
            else:
                self._copy(kind, raw, server, out)
        except WaitError:
            return False
        except ProtocolViolation:
            # A bad body: the origin words the error (W-17), and only its own scope fails.
            out.append(raw)
            server.queue.append(Expected({DESCRIBE: "DP"}.get(kind, chr(kind))))
            server.open_scope = kind in EXTENDED
        except ClientError as error:
            self._fail(error, server, out)
            if kind == QUERY:
                # A scope of its own, which takes the unnamed statement with it: it ends here.
                self.unnamed = None
                self._sync(messages.SYNC, server, out)
        return True

    def _query(self, raw: bytes, verdict: Verdict | None, server: ServerSession, out: list[bytes]) -> bool:
        if verdict is not None and verdict.kind is not Kind.EMPTY and self._is_local(verdict):
            if server.queue:
                return False
            if not server.open_scope and server.status != FAILED and verdict.kind is not Kind.DISCARD_ALL:
                reply = self._local(verdict)
                self.unnamed = None  # as any Query does
                live = self.live
                if (server.status != IDLE) if live is None else not live.has_snapshot:
                    # At the origin it takes a snapshot, and it may be the first that does: so does this in its place (E-0.4).
                    out.append(messages.query(SNAPSHOT))
                    server.queue.append(Expected("Q", Action.INSTEAD, payload=reply))
                    server.unnamed = None
                    self.close_portal()
                    if live is not None:
                        live.sees = True
                    return True
                self._portal_behind = b"" if server.status != IDLE else None
                server.queue.append(fake(reply + messages.ready_for_query(server.status)))
                return True
        if verdict is not None and verdict.kind is Kind.DEALLOCATE and server.queue and not server.open_scope:
            return False  # whose name it is may hang on what is outstanding
        if server.open_scope:
            server.spoiled = True
        self._check_currval(verdict, server)
        if self.live is not None:
            self.live.note(verdict, raw[5:-1])
        if server.noted is not None:
            note(server.noted, verdict, raw[5:-1])
        if verdict is not None and verdict.statements is not None and not verdict.is_plain:
            single = verdict.single
            if verdict.kind is Kind.PREPARE and single is not None and single.name in self._shared:
                if server.queue:
                    return False  # whose name it is, and whether the transaction has failed, may hang on what is outstanding
                if server.status != FAILED:
                    raise DuplicateStatement(f'prepared statement "{shown(single.name)}" already exists')
            if self._lend_names(verdict, server, out) and not server.open_scope:
                out.append(messages.SYNC)
                server.queue.append(replies.SKIP_SYNC)
            is_block = self.live is not None or server.status != IDLE or server.open_scope or server.carries_scope
            reset = self._reset_to_base(verdict, is_block=is_block)
            if reset is not None:
                sql, tag, restored = reset
                out.append(messages.query(sql))
                self.unnamed = server.unnamed = None
                watch = Watch(self, verdict.statements, restored=restored)
                server.queue.append(Expected("Q", Action.INSTEAD, payload=messages.command_complete(tag), watch=watch))
                return True
        out.append(raw)
        before = self.unnamed, self.unnamed_verdict
        self.unnamed = server.unnamed = None
        if self._portals:
            self._portals.pop(b"", None)
        if verdict is not None and verdict.is_plain:
            entry = replies.QUERY
            if server.open_scope:  # which may fail, and then this is skipped
                entry = Expected("Q")
                entry.before = (None, *before)
            server.queue.append(entry)
            return True
        if verdict is not None and not server.queue and self.journal.is_untouched and verdict.kind in _PLAIN_ENDS:
            server.queue.append(_PLAIN_ENDS[verdict.kind])
            return True
        self._before(verdict, server)
        server.queue.append(self._watched("Q", verdict, server))
        return True

    def _reset_to_base(
        self, verdict: Verdict, *, is_block: bool
    ) -> tuple[bytes, bytes, tuple[bytes, ...] | None] | None:
        """RESET goes back to what the client gave at start-up, which the server does not know of (W-05): SQL and tag for it.

        And, if that is for the session, which settings it sets within a transaction (``Journal.restored``).
        """
        base = self.journal.base.items
        single = verdict.single
        if not base or single is None or single.tag is None:
            return None
        if single.kind is Kind.RESET_ALL:
            sets = [base[name] for name in sorted(base) if not stays_here(name)]
            for hidden, own in self.journal.hidden():  # the server would forget both
                sets += [hidden, locally(own)]
            within = (*base, *self.journal.wanted.items) if is_block else ()
            return b"; ".join([b"RESET ALL", *(map(in_block, sets) if is_block else sets)]), single.tag, within
        setting = single.setting
        if setting is None or setting.form not in (Form.RESET, Form.DEFAULT) or setting.name not in base:
            return None
        # Of what is local outside a transaction the origin warns, whatever the value is.
        sql = base[setting.name]
        if setting.is_local:
            return locally(sql), single.tag, None
        return (in_block(sql), single.tag, (setting.name,)) if is_block else (sql, single.tag, ())

    def _function_call(self, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        """The fast-path call: as a write of unknown class (W-47)."""
        if self.live is not None:
            self.live.note(None, b"")
        if server.noted is not None:
            note(server.noted, None, b"")
        out.append(raw)
        self.journal.completed_unknown()
        server.attention = server.journalled = True
        server.queue.append(replies.FUNCTION_CALL)

    def _copy(self, kind: int, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        """CopyData, CopyDone, CopyFail: only towards a server that may be in a copy; late ones are dropped (W-31)."""
        if not server.copy_in and not server.queue:
            self._was_sent = False
            return
        out.append(raw)
        server.copy_fed = True
        if kind != COPY_DATA and not server.copy_in:
            server.queue.append(replies.COPY_ENDS)
        elif kind != COPY_DATA:
            server.copy_in = False

    # --- what the server session reports ---

    def dropped(self, entry: Expected) -> None:
        """*entry* was skipped by the server: what a Parse in it should have made does not exist."""
        if entry.before is not None and self.unnamed is entry.before[0]:
            _, self.unnamed, verdict = entry.before
            self.unnamed_verdict = cast("Verdict | None", verdict)
        for named in entry.gone:
            if not named.has_failed and (later := self._shared.setdefault(named.name, named)) is not named:
                later.before = named
        if entry.kind == "C" and entry.name:
            self.journal.pin(PREPARED, entry.name)
        if entry.kind == "P" and entry.name is None and entry.named is not None:
            self.journal.unpin(PREPARED, entry.named.name)  # was to be lent
        if entry.kind == "P" and entry.name and entry.action is not Action.SKIP:
            if entry.named is not None:
                entry.named.has_failed = True
            found = self._shared.get(entry.name)
            if found is not None and found.statement is entry.statement:
                del self._shared[entry.name]
                if found.before is not None:
                    self._shared[entry.name] = found.before

    def skip_rest(self) -> None:
        """The open scope failed: what the client still sends of it, up to Sync, has no replies."""
        self._skipping = True
        self._awkward = True

    def settle(self, status: int, *, failed: bool, at_rest: bool) -> None:
        """A scope ended with *status*."""
        self._epoch_ends(is_idle=status == IDLE)
        self._heard(failed=failed)
        if self.live is not None:
            self.live.confirm(failed=failed)
            self._held_ops = None
            if self.live.may_end:
                self.live = None  # if there is a transaction now, it is another one
        if status == IDLE:
            self.live = None
            self.journal.settle(failed=failed)
            self._join()
            if at_rest:
                self._portals = self._portal_behind = None

    def resend_scope(self) -> bool:
        """Put the scope that was sent last back, once; ``False`` if that is not possible."""
        again, self._again = self._again, None
        if again is None or self.ops or self._streaming or self._buffer:
            return False
        self._cut(again)
        self._resent = True
        return True

    def poison(self) -> None:
        """The scope that is open fails here; its error has been told. What is left of it is dropped up to Sync."""
        self.ops.insert(0, (POISON_OP, b"", None))

    def changed(self, entry: Expected) -> None:
        """A statement has another result than the client was told: nobody else may share it (W-26)."""
        if entry.statement is not None:
            self.pipe.registry.forget(entry.statement)
