"""One client's session: what it sent, what it is owed, and what must reach a server for it.

``receive`` cuts the stream into messages and says when there is something to run; ``answer`` gives replies that need no server;
``compose`` turns the batch into bytes for the server it is linked to, with the client's statement names mapped to shared ones and
whatever the server lacks put ahead. Pure: knows no socket, no pool and no cache (§1 of the wire reference).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from hyperdrive.errors import ClientError, DuplicateStatement, FeatureNotSupported, ProtocolViolation, UnknownStatement
from hyperdrive.pgwire import framing, messages
from hyperdrive.pgwire.framing import (
    BIND,
    CLOSE,
    COPY_DATA,
    COPY_DONE,
    COPY_FAIL,
    DESCRIBE,
    EXECUTE,
    FLUSH,
    FRONTEND_LIMITS,
    FUNCTION_CALL,
    PARSE,
    QUERY,
    SYNC,
    TERMINATE,
    read_length,
)
from hyperdrive.session import replies
from hyperdrive.session.outcome import PREPARED, Journal, Parameters, Watch
from hyperdrive.session.replies import Action, Expected, fake
from hyperdrive.session.server import FAILED, IDLE, ServerSession
from hyperdrive.session.settings import Label, transition, values
from hyperdrive.session.statements import NAME_BYTES, POISON, Named, SharedStatement, StatementRegistry
from hyperdrive.sql.text import is_ascii_safe
from hyperdrive.sql.verdict import Form, Kind, Statement, Verdict

Classify = Callable[[bytes], Verdict]

STREAM_ABOVE: Final = 256 * 1024
"""A message that declares more bytes than this is passed on in pieces; its text is judged as one of unknown class."""

PARSE_HELD: Final = 16 * 1024 * 1024
"""A Parse up to this size is held whole, since its text may have to be prepared on other servers too."""

SHIP_ABOVE: Final = 64 * 1024
"""So many bytes of extended messages are collected before they travel without waiting for Sync or Flush."""

_SHIPS: Final = frozenset({QUERY, SYNC, FLUSH, FUNCTION_CALL, COPY_DATA, COPY_DONE, COPY_FAIL})
_POISON_BIND: Final = messages.bind(b"", POISON)

# The extended scopes that drivers send for an unnamed statement, with what they cause.
_WHOLE: Final[dict[bytes, tuple[Expected, ...]]] = {
    b"PBDES": (replies.PARSE, replies.BIND, replies.DESCRIBE_PORTAL, replies.EXECUTE, replies.SYNC),
    b"PBES": (replies.PARSE, replies.BIND, replies.EXECUTE, replies.SYNC),
}

Op = tuple[int, bytes, Verdict | None]


class Pipe:
    """What a session shares with the others of its pool."""

    __slots__ = ("defaults_changed", "max_statements", "pin_unknown", "reader", "registry")

    def __init__(
        self,
        reader: Callable[[bool, bool], Classify],
        registry: StatementRegistry,
        *,
        max_statements: int,
        pin_unknown: bool,
        defaults_changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.reader = reader
        """``reader(ascii_safe, standard_strings)``: how texts are read in such a session (W-41, W-42)."""
        self.defaults_changed = defaults_changed
        """To be called when a client changed what later sessions begin with (ALTER ROLE … SET)."""
        self.registry = registry
        self.max_statements = max_statements
        self.pin_unknown = pin_unknown


class ClientSession:
    """The protocol state of one client connection after login."""

    __slots__ = (
        "_buffer",
        "_classify",
        "_failed_here",
        "_parsed_here",
        "_portals",
        "_resent",
        "_scope",
        "_shared",
        "_skipping",
        "_streaming",
        "_untold",
        "_was_sent",
        "_whole",
        "base_told",
        "is_private",
        "journal",
        "ops",
        "pipe",
        "serial",
        "size",
        "terminated",
        "told",
        "unnamed",
        "unnamed_verdict",
    )

    _last_serial = 0

    def __init__(self, pipe: Pipe, base: Label, told: Mapping[bytes, bytes]) -> None:
        self.pipe = pipe
        self.journal = Journal(base)
        self.told: Mapping[bytes, bytes] = told
        """Values last told in ParameterStatus; replaced, never changed in place."""
        self.base_told = told
        self.ops: list[Op] = []
        self.unnamed: bytes | None = None
        """The Parse message of the unnamed statement."""
        self.unnamed_verdict: Verdict | None = None
        self.terminated = False
        self._choose_reader()
        self.serial: int | None = None
        self._shared: dict[bytes, Named] = {}
        self._portals: dict[bytes, tuple[Verdict | None, Parameters | None]] | None = None
        self._parsed_here: set[SharedStatement] | None = None
        self._skipping = False
        self._whole: tuple[Expected, ...] | None = None
        self._buffer = b""
        self.size = 0
        self._streaming = 0
        self._was_sent = False
        self._failed_here = False
        self._resent = False
        self._untold = b""
        self._scope: list[Op] | None = None

    def _choose_reader(self) -> None:
        """How statements are read depends on where literals end and which bytes are ASCII (W-41, W-42)."""
        told = self.told
        self._classify = self.pipe.reader(
            is_ascii_safe(told.get(b"client_encoding", b"UTF8")), told.get(b"standard_conforming_strings") != b"off"
        )

    # --- bytes in -----------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> bool:
        """Take in what the client sent; ``True`` when the batch should run now.

        Raises:
            ProtocolViolation: not a message of the protocol; the connection cannot go on.
        """
        ops = self.ops
        if not ops and not self._buffer and not self._streaming:
            if data[0] == QUERY and len(data) > 5 and read_length(data, 1)[0] + 1 == len(data):
                # The usual: one whole Query in one read.
                verdict = self._classify(data[5:-1])
                ops.append((QUERY, data, verdict))
                if verdict.is_plain and data[-1] == 0:
                    self._whole = _ONE_QUERY
                return True
            if data[0] == PARSE and data[-5:] == messages.SYNC and self._is_usual(data):
                return True
        return self._cut(data)

    def _is_usual(self, data: bytes) -> bool:
        """One whole extended scope of an unnamed plain statement, as libpq's PQexecParams sends it."""
        size = len(data)
        kinds = b""
        i = 0
        while i + 5 <= size:
            kind = data[i]
            kinds += data[i : i + 1]
            if kind == DESCRIBE:
                if data[i + 5 : i + 7] != b"P\0":
                    return False
            elif kind == BIND:
                if data[i + 5 : i + 7] != b"\0\0":
                    return False
            elif kind != SYNC and data[i + 5]:
                return False
            i += 1 + read_length(data, i + 1)[0]
        whole = _WHOLE.get(kinds)
        if whole is None or i != size or data[1] > 3:
            return False
        end = data.find(b"\0", 6)
        verdict = self._classify(data[6:end])
        if not verdict.is_plain:
            return False
        self.ops.append((PARSE, data, verdict))
        self._whole = whole
        return True

    def _cut(self, data: bytes) -> bool:
        if self._whole is not None:
            # More came before the batch could run: it is cut like any other.
            self._whole = None
            data = self.ops.pop()[1] + data
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        ops = self.ops
        self._resent = False
        size = len(data)
        i = 0
        ready = False
        if self._streaming:
            i = min(self._streaming, size)
            self._streaming -= i
            ops.append((_RAW, data[:i], None))
            ready = True
        while i + 5 <= size:
            kind = data[i]
            length = read_length(data, i + 1)[0]
            if length < 4 or length > FRONTEND_LIMITS.get(kind, 0):
                framing.check_frontend_header(kind, length)
            end = i + 1 + length
            if end > size:
                if (length > STREAM_ABOVE and (kind != PARSE or length > PARSE_HELD)) or kind == COPY_DATA:
                    if kind != COPY_DATA and size - i < _HEAD and size - i < length:
                        break
                    self._stream(kind, data[i:], end - size)
                    return True
                break
            if kind == TERMINATE:
                self.terminated = True
                return ready
            verdict = None
            if kind == QUERY:
                verdict = self._classify(data[i + 5 : end - 1]) if data[end - 1] == 0 else None
            elif kind == PARSE:
                name_end = data.find(b"\0", i + 5, end)
                sql_end = data.find(b"\0", name_end + 1, end) if name_end >= 0 else -1
                if sql_end >= 0:
                    verdict = self._classify(data[name_end + 1 : sql_end])
            ops.append((kind, data[i:end], verdict))
            self.size += length
            if kind in _SHIPS:
                ready = True
            i = end
        if i < size:
            self._buffer = data[i:]
        if self.size > SHIP_ABOVE:
            ready = True
        return ready

    def _stream(self, kind: int, head: bytes, left: int) -> None:
        """Begin to pass on a message that is not complete: names stand at its front, the rest needs no look (W-18)."""
        # The class of a text that was not read to its end is unknown.
        self.ops.append((kind, head, _UNREAD if kind in (QUERY, PARSE) else None))
        self._streaming = left

    # --- what the proxy asks ----------------------------------------------------------------------------------------------------

    @property
    def is_pinned(self) -> bool:
        return self.journal.is_pinned

    @property
    def needs_look(self) -> bool:
        """The batch is not one that always needs a server: ``answer`` may have a reply."""
        return self._whole is None or self._failed_here or self._skipping

    def take_back(self, op: Op) -> None:
        """Put a read that was lost with its server back, to be sent to another one."""
        self.receive(op[1])

    @property
    def has_work(self) -> bool:
        """Ops wait to be composed."""
        return bool(self.ops)

    @property
    def is_streaming(self) -> bool:
        """A message is half received and its first part may be on its way."""
        return self._streaming > 0

    @property
    def needs_more(self) -> bool:
        """An incomplete message waits for its rest."""
        return bool(self._buffer) or self._streaming > 0

    def statement_names(self) -> list[bytes]:
        """The client's own names of its prepared statements."""
        return list(self._shared)

    def shared_statements(self) -> list[SharedStatement]:
        """The shared statements behind those names."""
        return [named.statement for named in self._shared.values()]

    # --- answers that need no server ----------------------------------------------------------------------------------------------

    def answer(self) -> bytes | None:
        """Replies to the whole batch if no server is needed for it; the session is idle and not linked.

        ``None``: a server is needed, and the batch stays as it is.
        """
        ops = self.ops
        if self._failed_here:
            return self._answer_failed()
        out: list[bytes] = []
        if self._skipping:
            self._skip_here(out)
        while ops and ops[0][0] in _NEVER_ALONE:
            # Late CopyData of a copy that has failed (W-31), or a Flush with nothing to flush.
            del ops[0]
        if not ops:
            return b"".join(out)
        if self._whole is not None or self._streaming:
            return b"".join(out) or None
        if not all(kind in _MAYBE_LOCAL for kind, _, _ in ops):
            return b"".join(out) or None
        index = 0
        while index < len(ops):
            kind, raw, verdict = ops[index]
            if kind == QUERY:
                reply = self._asyncpg_reset() if raw[5:-1] == ASYNCPG_RESET else self._local(verdict)
                if reply is None:
                    return self._keep_from(index, out) if out else None
                out += [reply, messages.READY_IDLE]
                index += 1
                continue
            scope = self._local_scope(index)
            if scope is None:
                return self._keep_from(index, out) if out else None
            reply, index = scope
            out.append(reply)
        ops.clear()
        self.size = 0
        return b"".join(out)

    def _skip_here(self, out: list[bytes]) -> None:
        """The open scope failed without a server: drop what is left of it, up to Sync."""
        ops = self.ops
        for index, (kind, _, _) in enumerate(ops):
            if kind == SYNC:
                self._skipping = False
                out.append(messages.READY_FAILED if self._failed_here else messages.READY_IDLE)
                del ops[: index + 1]
                return
        ops.clear()

    def refuse(self, error: bytes, *, failed_here: bool = False) -> bytes:
        """The batch cannot run: *error* for each of its scopes, and what is left of an open scope is skipped.

        *failed_here*: the client believes in a transaction that no longer exists anywhere (FAILED_HERE).
        """
        out: list[bytes] = []
        self._whole_to_ops()
        self._failed_here = failed_here
        ready = messages.READY_FAILED if failed_here else messages.READY_IDLE
        is_open = False
        for kind, _, _ in self.ops:
            if kind in (QUERY, FUNCTION_CALL) and not is_open:
                out += [error, ready]
            elif kind == SYNC:
                out += [ready] if is_open else [error, ready]
                is_open = False
            elif kind in _EXTENDED and not is_open:
                out.append(error)
                is_open = True
        self.ops.clear()
        self.size = 0
        self._skipping = is_open
        return b"".join(out)

    def lost(self, error: bytes, server: ServerSession, *, failed_here: bool) -> bytes:
        """The linked *server* is gone: *error* for each scope it still owed, then the batch that waits is refused.

        Each Sync that was owed one gets its ReadyForQuery. A client that is owed nothing hears it at its next statement.
        """
        out: list[bytes] = []
        ready = messages.READY_FAILED if failed_here else messages.READY_IDLE
        told = False
        for entry in server.queue:
            if entry.action is Action.SKIP:
                continue
            if not told:
                out.append(error)
                told = True
            if entry.ends_scope:
                out.append(ready)
                told = False
        is_open = server.open_scope
        if is_open and not told:
            out.append(error)
        if not out and failed_here:
            self._untold = error
        self._skipping = is_open
        self._failed_here = failed_here
        self._portals = None
        self.journal.abandoned()
        if self.ops:
            if is_open:
                self._skip_here(out)
            out.append(self.refuse(error, failed_here=failed_here) if self.ops else b"")
        return b"".join(out)

    def _whole_to_ops(self) -> None:
        if self._whole is not None:
            data = self.ops.pop()[1]
            self._whole = None
            self._cut(data)

    def _answer_failed(self) -> bytes:
        """FAILED_HERE: the transaction is lost, and only its end is accepted, as in PostgreSQL (25P02)."""
        self._whole_to_ops()
        out: list[bytes] = []
        exiting = False
        while self.ops:
            if self._skipping:
                self._skip_here(out)
                continue
            kind, _, verdict = self.ops.pop(0)
            aborted, self._untold = self._untold or _ABORTED, b""
            ends = verdict is not None and verdict.kind in (Kind.ROLLBACK, Kind.COMMIT) and not _chains(verdict)
            if kind == QUERY:
                if ends:
                    self._failed_here = False
                    out += [messages.command_complete(b"ROLLBACK"), messages.READY_IDLE]
                    break
                if verdict is not None and verdict.kind is Kind.EMPTY:
                    out += [messages.EMPTY_QUERY_RESPONSE, messages.READY_FAILED]
                else:
                    out += [_no_savepoint(verdict) or aborted, messages.READY_FAILED]
            elif kind == SYNC:
                out.append(messages.READY_IDLE if not self._failed_here else messages.READY_FAILED)
                if not self._failed_here:
                    break
            elif kind == PARSE and ends:
                out.append(messages.PARSE_COMPLETE)
                exiting = True
            elif exiting and kind == BIND:
                out.append(messages.BIND_COMPLETE)
            elif exiting and kind == DESCRIBE:
                out.append(messages.NO_DATA)
            elif exiting and kind == EXECUTE:
                out.append(messages.command_complete(b"ROLLBACK"))
                self._failed_here = False
            elif kind == CLOSE:
                out.append(messages.CLOSE_COMPLETE)
            elif kind in _EXTENDED or kind == FUNCTION_CALL:
                out.append(_no_savepoint(verdict) or aborted)
                self._skipping = kind != FUNCTION_CALL
        return b"".join(out)

    def _keep_from(self, index: int, out: list[bytes]) -> bytes:
        del self.ops[:index]
        return b"".join(out)

    def _local_scope(self, start: int) -> tuple[bytes, int] | None:
        """One extended scope of Close and Sync only, or of one local statement; with the index behind it."""
        ops = self.ops
        out: list[bytes] = []
        local: bytes | None = None
        names: list[bytes] = []
        for index in range(start, len(ops)):
            kind, raw, verdict = ops[index]
            if kind == SYNC:
                for name in names:
                    self._shared.pop(name, None)
                if local is not None:
                    self._local(verdict_of(ops[start]))
                return b"".join(out) + messages.READY_IDLE, index + 1
            if kind == CLOSE and raw[5:6] == b"S" and raw[6]:
                names.append(_name(raw, 6)[0][:NAME_BYTES])
                out.append(messages.CLOSE_COMPLETE)
            elif kind == PARSE and index == start and not raw[5] and verdict is not None and self._is_local(verdict):
                local = messages.PARSE_COMPLETE
                out.append(local)
            elif kind == BIND and local is not None and raw[5:7] == b"\0\0":
                out.append(messages.BIND_COMPLETE)
            elif kind == DESCRIBE and local is not None and raw[6] == 0:
                out.append(messages.NO_DATA if raw[5:6] == b"P" else messages.NO_PARAMETERS + messages.NO_DATA)
            elif kind == EXECUTE and local is not None and not raw[5]:
                first = verdict_of(ops[start])
                out.append(_tag_of(first))
            else:
                return None
        return None

    def _is_local(self, verdict: Verdict) -> bool:
        kind = verdict.kind
        if kind is Kind.DISCARD_ALL:
            return not self.journal.is_pinned
        if kind is Kind.DEALLOCATE_ALL:
            return not self._has_sql_prepared()
        if kind is Kind.DEALLOCATE:
            single = verdict.single
            return single is not None and single.name in self._shared
        return False

    def _local(self, verdict: Verdict | None) -> bytes | None:
        """Carry out a statement that only concerns what we keep ourselves; its reply without ReadyForQuery."""
        if verdict is None:
            return None
        if verdict.kind is Kind.EMPTY:
            return messages.EMPTY_QUERY_RESPONSE
        if not self._is_local(verdict):
            return None
        reply = _tag_of(verdict)
        if verdict.kind is Kind.DEALLOCATE:
            single = verdict.single
            assert single is not None and single.name is not None
            self._shared.pop(single.name, None)
            return reply
        self._shared.clear()
        if verdict.kind is Kind.DISCARD_ALL:
            self.unnamed = None
            self.journal.reset_here()
            reply += self._tell_base()
        return reply

    def _tell_base(self) -> bytes:
        """ParameterStatus for each value that goes back to what the client was told at login."""
        told, self.told = self.told, self.base_told
        if told is self.base_told:
            return b""
        return b"".join(
            messages.parameter_status(name, value) for name, value in self.base_told.items() if told.get(name) != value
        )

    def _asyncpg_reset(self) -> bytes | None:
        """What asyncpg sends whenever a connection goes back to its pool: nothing to do at the origin unless pinned (E-8)."""
        if self.journal.is_pinned or any(name in self.journal.wanted.items for name in (b"role", b"session_authorization")):
            return None
        self.journal.reset_settings_here()
        return _ASYNCPG_RESET_REPLY + self._tell_base()

    def resend_scope(self) -> bool:
        """Put the scope that was sent last back, once; ``False`` if that is not possible."""
        if self._scope is None or self.ops or self._streaming:
            return False
        self.ops += self._scope
        self._scope = None
        self._resent = True
        return True

    def poison(self) -> None:
        """The scope that is open fails here; its error has been told. What is left of it is dropped up to Sync."""
        self.ops.insert(0, (_POISON_OP, b"", None))

    def changed(self, entry: Expected) -> None:
        """A statement has another result than the client was told: nobody else may share it (W-26)."""
        if entry.statement is not None:
            self.pipe.registry.forget(entry.statement)

    def _has_sql_prepared(self) -> bool:
        return any(reason == PREPARED for reason, _ in self.journal.lasting or ())

    # --- what must reach the server -----------------------------------------------------------------------------------------------

    def compose(self, server: ServerSession) -> bytes:
        """Bytes for the linked *server*; its reply queue is filled accordingly, and the batch is used up.

        Afterwards ``server.fire_fakes()`` gives what the client is told at once. What has to wait for replies that are
        outstanding stays in the batch.
        """
        ops = self.ops
        at_rest = not server.queue and not server.open_scope and server.status == IDLE
        if server.label is not self.journal.wanted and server.status == IDLE and not server.queue and not server.open_scope:
            out = self._restore(server)
        else:
            out = []
        whole = self._whole
        if whole is not None:
            kind, data, verdict = ops[0]
            ops.clear()
            self._whole = None
            server.queue.extend(whole)
            self.unnamed = server.unnamed = None
            if kind == PARSE:
                self.unnamed = server.unnamed = data
                self.unnamed_verdict = verdict
                if self._portals:
                    self._portals.pop(b"", None)
            if not out:
                return data
            out.append(data)
            return b"".join(out)
        done = 0
        sent = bool(server.half_sent)
        for kind, raw, verdict in ops:
            if kind == _RAW:
                if sent:
                    out.append(raw)
            elif kind == _POISON_OP:
                self._poison(b"", server, out)
            elif server.copy_in and kind in _NOT_IN_COPY:
                # The origin would say so and hang up (W-30); so do we, and it survives.
                raise ProtocolViolation(f"unexpected message type 0x{kind:02X} during COPY from stdin")
            elif self._skipping and kind != SYNC:
                sent = False
            elif self._compose_one(kind, raw, verdict, server, out):
                sent = not self._skipping and self._was_sent
            else:
                break
            done += 1
        resendable = at_rest and not self._resent and 0 < done == len(ops) and ops[0][0] in (BIND, DESCRIBE)
        self._scope = ops[:] if resendable else None
        del ops[:done]
        if not ops:
            self.size = 0
        server.half_sent = self._streaming if sent else 0
        return b"".join(out)

    def _restore(self, server: ServerSession) -> list[bytes]:
        """The settings that the server lacks or has too many, as a scope of their own ahead of the client's (E-0.5)."""
        sql = transition(server.label, self.journal.wanted)
        server.label = self.journal.actual = self.journal.wanted
        if not sql:
            return []
        server.queue.append(replies.SKIP_QUERY)
        server.unnamed = None
        return [messages.query(sql)]

    def _compose_one(self, kind: int, raw: bytes, verdict: Verdict | None, server: ServerSession, out: list[bytes]) -> bool:
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
        except _WaitError:
            return False
        except ProtocolViolation:
            # A bad body: the origin words the error (W-17), and only its own scope fails.
            out.append(raw)
            server.queue.append(Expected({DESCRIBE: "DP"}.get(kind, chr(kind))))
            server.open_scope = kind in _EXTENDED
        except ClientError as error:
            self._fail(error, server, out)
            if kind == QUERY:
                # A scope of its own: it ends here.
                self._sync(messages.SYNC, server, out)
        return True

    def _fail(self, error: ClientError, server: ServerSession, out: list[bytes]) -> None:
        """Fail the scope on both sides with an error that the origin does not know of (§1, the poison scope)."""
        self._poison(messages.error_message(error), server, out)

    def _poison(self, error: bytes, server: ServerSession, out: list[bytes]) -> None:
        out.append(_POISON_BIND)
        server.queue.append(Expected("B", Action.REPLACE, payload=error))
        server.open_scope = True
        self._skipping = True

    def _parse(self, raw: bytes, verdict: Verdict | None, server: ServerSession, out: list[bytes]) -> None:
        server.open_scope = True
        if not raw[5]:
            out.append(raw)
            server.queue.append(replies.PARSE)
            self.unnamed = server.unnamed = raw
            self.unnamed_verdict = verdict
            return
        name, body_at = _name(raw, 5)
        key = name[:NAME_BYTES]
        if key in self._shared and server.status == FAILED and not server.queue:
            raise ClientError(_ABORTED_TEXT, sqlstate="25P02")
        if key in self._shared or (PREPARED, key) in (self.journal.lasting or ()):
            raise DuplicateStatement(f'prepared statement "{_text(key)}" already exists')
        if verdict is None:
            raise ProtocolViolation("invalid string in message")
        if verdict is _UNREAD:
            raise FeatureNotSupported(
                "a named prepared statement of this size cannot be shared",
                hint="Use the unnamed statement for very large texts.",
            )
        shared = self.pipe.registry.intern(raw[body_at:], self._parse_settings(), verdict)
        named = self._shared[key] = Named(shared, key)
        self._here().add(shared)
        present = server.statements.get(shared)
        if present:
            server.statements.move_to_end(shared)
            server.queue.append(fake(messages.PARSE_COMPLETE, kind="P", named=named))
            return
        entry = Expected("P", statement=shared, name=key, named=named)
        self._send_parse(shared, entry, server, out, again=present is not None)

    def _send_parse(
        self, shared: SharedStatement, entry: Expected, server: ServerSession, out: list[bytes], *, again: bool
    ) -> None:
        if again:
            # Sent in an earlier scope whose fate is open: closing first makes this right whatever that is.
            out.append(messages.close(b"S", shared.name))
            server.queue.append(replies.SKIP_CLOSE)
        else:
            self._evict(server, out)
        out.append(shared.parse_message())
        server.queue.append(entry)
        server.statements[shared] = False

    def _evict(self, server: ServerSession, out: list[bytes]) -> None:
        """Close the statements used longest ago until one more fits; never one that this batch refers to (W-20)."""
        excess = len(server.statements) + 1 - self.pipe.max_statements
        if excess <= 0:
            return
        busy = {entry.statement for entry in server.queue if entry.statement is not None}
        for old in [s for s in server.statements if s not in busy][:excess]:
            del server.statements[old]
            out.append(messages.close(b"S", old.name))
            server.queue.append(replies.SKIP_CLOSE)

    def _parse_settings(self) -> object:
        """What a shared statement's key says of the settings at Parse; sessions with names of their own share nothing."""
        if self.journal.pins or self._has_sql_prepared():
            return self._own_serial()
        items = self.journal.wanted.items
        return tuple((n, items[n]) for n in sorted(items) if n not in _HARMLESS) if items else ()

    def _own_serial(self) -> int:
        if self.serial is None:
            ClientSession._last_serial += 1
            self.serial = ClientSession._last_serial
        return self.serial

    def _here(self) -> set[SharedStatement]:
        if self._parsed_here is None:
            self._parsed_here = set()
        return self._parsed_here

    def _ensure(self, name: bytes, server: ServerSession, out: list[bytes]) -> Named | None:
        """The shared statement behind *name*, on its way to the server if that lacks it; ``None``: the name is SQL's (W-24)."""
        found = self._shared.get(name[:NAME_BYTES])
        if found is None:
            if (PREPARED, name[:NAME_BYTES]) in (self.journal.lasting or ()):
                return None
            raise UnknownStatement(f'prepared statement "{_text(name)}" does not exist')
        shared = found.statement
        statements = server.statements
        if found.is_pending and shared not in self._here():
            # Parsed in an earlier scope of this flight. If that fails the name does not exist: the origin knows, unless
            # it was never asked.
            if statements.get(shared):
                raise _WAIT
        elif statements.get(shared):
            statements.move_to_end(shared)
        elif shared not in self._here():
            entry = Expected("P", Action.SKIP, statement=shared, name=name[:NAME_BYTES])
            self._send_parse(shared, entry, server, out, again=shared in statements)
            self._here().add(shared)
            if found.told is not None:
                # The client decodes rows by what it was told; the schema may have changed meanwhile (W-26, E-6).
                out += [messages.describe(b"S", shared.name), messages.FLUSH]
                server.open_scope = True
                server.queue.append(Expected("DS", Action.COMPARE, statement=shared, name=found.name, named=found, describes=True))
                raise _WAIT
        return found

    def _bind(self, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        portal, name_at = _name(raw, 5)
        name, rest = _name(raw, name_at)
        if not name:
            if self.unnamed is None:
                raise UnknownStatement("unnamed prepared statement does not exist")
            if server.unnamed is not self.unnamed:
                out.append(_first_message(self.unnamed))
                server.queue.append(Expected("P", Action.SKIP, name=b""))
                server.unnamed = self.unnamed
            verdict = self.unnamed_verdict
            out.append(raw)
            server.queue.append(replies.BIND)
        else:
            found = self._ensure(name, server, out)
            if found is None:
                verdict = None
                out.append(raw)
                server.queue.append(replies.BIND)
            else:
                shared = found.statement
                verdict = shared.verdict
                out.append(
                    b"B"
                    + (read_length(raw, 1)[0] - len(name) + len(shared.name)).to_bytes(4, "big")
                    + raw[5:name_at]
                    + shared.name
                    + raw[rest - 1 :]
                )
                server.queue.append(found.bind)
        server.open_scope = True
        if verdict is not None and verdict.is_plain:
            if self._portals:
                self._portals.pop(portal, None)
            return
        if self._portals is None:
            self._portals = {}
        self._portals[portal] = (verdict, Parameters(raw, rest))

    def _describe(self, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        server.open_scope = True
        if raw[5:6] != b"S":
            out.append(raw)
            server.queue.append(replies.DESCRIBE_PORTAL)
            return
        name, _ = _name(raw, 6)
        if not name:
            if self.unnamed is None:
                raise UnknownStatement("unnamed prepared statement does not exist")
            if server.unnamed is not self.unnamed:
                out.append(_first_message(self.unnamed))
                server.queue.append(Expected("P", Action.SKIP, name=b""))
                server.unnamed = self.unnamed
            out.append(raw)
        else:
            found = self._ensure(name, server, out)
            if found is not None:
                out.append(messages.describe(b"S", found.statement.name))
                server.queue.append(Expected("DS", statement=found.statement, name=found.name, named=found, describes=True))
                return
            out.append(raw)
        server.queue.append(replies.DESCRIBE_STATEMENT)

    def _execute(self, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        server.open_scope = True
        if self._portals:
            portal, _ = _name(raw, 5)
            found = self._portals.get(portal)
            if found is not None:
                verdict, parameters = found
                self._check_currval(verdict, server)
                out.append(raw)
                self._before(verdict, server)
                server.queue.append(Expected("E", watch=self._watch(verdict, parameters)))
                return
        out.append(raw)
        server.queue.append(replies.EXECUTE)

    def _watch(self, verdict: Verdict | None, parameters: Parameters | None = None) -> Watch:
        return Watch(self, verdict.statements if verdict is not None else None, parameters)

    def _check_currval(self, verdict: Verdict | None, server: ServerSession) -> None:
        if verdict is not None and verdict.reads_currval and server.status == IDLE and not self.is_pinned:
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
            portal, _ = _name(raw, 6)
            if self._portals:
                self._portals.pop(portal, None)
            out.append(raw)
            server.queue.append(replies.CLOSE)
            server.open_scope = True
            return
        name, _ = _name(raw, 6)
        key = name[:NAME_BYTES]
        if not name or (PREPARED, key) in (self.journal.lasting or ()):
            if not name:
                self.unnamed = server.unnamed = None
            out.append(raw)
            server.queue.append(replies.CLOSE)
        else:
            self._shared.pop(key, None)
            server.queue.append(fake(messages.CLOSE_COMPLETE, kind="C"))
        server.open_scope = True

    def _sync(self, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        out.append(raw)
        self._skipping = False
        if self._parsed_here:
            self._parsed_here = None
        if server.copy_in:
            return  # ignored by the origin until the copy ends (W-30)
        server.queue.append(replies.SYNC)
        server.open_scope = False

    def _query(self, raw: bytes, verdict: Verdict | None, server: ServerSession, out: list[bytes]) -> bool:
        if verdict is not None and verdict.kind is not Kind.EMPTY and self._is_local(verdict):
            if server.queue or server.open_scope:
                return False
            if server.status != FAILED and verdict.kind is not Kind.DISCARD_ALL:
                reply = self._local(verdict) or b""
                server.queue.append(fake(reply + messages.ready_for_query(server.status)))
                return True
        if server.open_scope:
            server.spoiled = True
        self._check_currval(verdict, server)
        if verdict is not None and verdict.statements is not None and not verdict.is_plain:
            if verdict.kind is Kind.EXECUTE:
                self._lend_name(verdict, server, out)
            restored = self._reset_to_base(verdict)
            if restored is not None:
                sql, tag = restored
                out.append(messages.query(sql))
                self.unnamed = server.unnamed = None
                watch = Watch(self, verdict.statements, restored=True)
                server.queue.append(Expected("Q", Action.INSTEAD, payload=messages.command_complete(tag), watch=watch))
                return True
        out.append(raw)
        self.unnamed = server.unnamed = None
        if self._portals:
            self._portals.pop(b"", None)
        if verdict is not None and verdict.is_plain:
            server.queue.append(replies.QUERY)
            return True
        self._before(verdict, server)
        server.queue.append(Expected("Q", watch=self._watch(verdict)))
        return True

    def _lend_name(self, verdict: Verdict, server: ServerSession, out: list[bytes]) -> None:
        """SQL EXECUTE of a statement that the client prepared by protocol: the server has to know it by that name (W-24)."""
        single = verdict.single
        found = self._shared.get(single.name) if single is not None and single.name is not None else None
        if found is None:
            return
        copy = SharedStatement(found.name, found.statement.body, found.statement.verdict)
        for message, entry in (
            (messages.close(b"S", copy.name), replies.SKIP_CLOSE),
            (copy.parse_message(), Expected("P", Action.SKIP, name=found.name)),
            (messages.SYNC, replies.SKIP_SYNC),
        ):
            out.append(message)
            server.queue.append(entry)
        self.journal.pin(PREPARED, found.name)

    def _reset_to_base(self, verdict: Verdict) -> tuple[bytes, bytes] | None:
        """RESET goes back to what the client gave at start-up, which the server does not know of (W-05): SQL and tag for it."""
        base = self.journal.base.items
        single = verdict.single
        if not base or single is None or single.tag is None:
            return None
        if single.kind is Kind.RESET_ALL:
            return b"; ".join([b"RESET ALL", *(base[name] for name in sorted(base))]), single.tag
        setting = single.setting
        if setting is None or setting.is_local or setting.form not in (Form.RESET, Form.DEFAULT) or setting.name not in base:
            return None
        return base[setting.name], single.tag

    def _function_call(self, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        """The fast-path call: as a write of unknown class (W-47)."""
        out.append(raw)
        self.journal.completed_unknown()
        server.attention = True
        server.queue.append(replies.FUNCTION_CALL)

    def _copy(self, kind: int, raw: bytes, server: ServerSession, out: list[bytes]) -> None:
        """CopyData, CopyDone, CopyFail: only towards a server that may be in a copy; late ones are dropped (W-31)."""
        if not server.copy_in and not server.queue:
            self._was_sent = False
            return
        out.append(raw)
        if kind != COPY_DATA and not server.copy_in:
            server.queue.append(replies.COPY_ENDS)
        elif kind != COPY_DATA:
            server.copy_in = False

    # --- what the server session reports ------------------------------------------------------------------------------------------

    def is_news(self, name: bytes, value: bytes) -> bool:
        """Whether the client has to be told that a setting is *value*; from then on it has been."""
        if self.told.get(name) == value:
            return False
        self.told = values({**self.told, name: value})
        if name in (b"client_encoding", b"standard_conforming_strings"):
            self._choose_reader()
        return True

    def completed(
        self, statement: Statement | None, tag: bytes, parameters: Parameters | None, *, restored: bool = False
    ) -> None:
        """A watched statement ended with *tag*; ``None``: its class is unknown.

        *restored*: what the server ran also gave the settings their start-up values back.
        """
        if statement is None:
            self.journal.completed_unknown()
        else:
            self.journal.completed(statement, tag, parameters)
            if statement.alters_defaults:
                self.pipe.defaults_changed()
            if restored:
                self.journal.restored()
            if statement.kind in (Kind.DEALLOCATE_ALL, Kind.DISCARD_ALL):
                self._shared.clear()
                self.unnamed = None

    def failed(self, head: Expected) -> None:
        """The scope failed at *head*; an extended one is skipped up to Sync."""
        if head.ends_scope:
            return
        if head.kind == "P" and head.statement is None:
            self.unnamed = None

    def dropped(self, entry: Expected) -> None:
        """*entry* was skipped by the server: what a Parse in it should have made does not exist."""
        if entry.kind == "P" and entry.name and entry.action is not Action.SKIP:
            found = self._shared.get(entry.name)
            if found is not None and found.statement is entry.statement:
                del self._shared[entry.name]

    def skip_rest(self) -> None:
        """The open scope failed: what the client still sends of it, up to Sync, has no replies."""
        self._skipping = True

    def settle(self, status: int, *, failed: bool) -> None:
        """A scope ended with *status*."""
        if status == IDLE:
            self.journal.settle(failed=failed)
            self._portals = None

    def pins(self) -> list[str]:
        """Why the client keeps its server."""
        return self.journal.reasons()

    def pin(self, reason: str, detail: object = None) -> None:
        self.journal.pin(reason, detail)


_RAW: Final = 0
"""An op of bytes that belong to a message whose head has travelled."""

_POISON_OP: Final = 1
"""An op that fails the open scope on the server."""

_HEAD: Final = 4096
"""So much of a large message has to be there before it is passed on: the names at its front."""

ASYNCPG_RESET: Final = b"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"
_VOID_OID: Final = 2278
_ASYNCPG_RESET_REPLY: Final = (
    messages.row_description([(b"pg_advisory_unlock_all", _VOID_OID, 4)])
    + messages.data_row([b""])
    + b"".join(map(messages.command_complete, (b"SELECT 1", b"CLOSE CURSOR ALL", b"UNLISTEN", b"RESET")))
)

_EXTENDED: Final = frozenset({PARSE, BIND, DESCRIBE, EXECUTE, CLOSE})
_NOT_IN_COPY: Final = frozenset({PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, QUERY, FUNCTION_CALL})
_NEVER_ALONE: Final = frozenset({_RAW, COPY_DATA, COPY_DONE, COPY_FAIL, FLUSH})
_ABORTED_TEXT: Final = "current transaction is aborted, commands ignored until end of transaction block"
_ABORTED: Final = messages.error_response(_ABORTED_TEXT, "25P02")
_MAYBE_LOCAL: Final = frozenset({QUERY, PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, SYNC, FLUSH})
_ONE_QUERY: Final = (replies.QUERY,)
_UNREAD: Final = Verdict(kind=Kind.UNKNOWN, statements=None)

_HARMLESS: Final = frozenset(
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


class _WaitError(Exception):
    """The op, and what follows, has to wait for replies that are outstanding."""


_WAIT: Final = _WaitError()


def verdict_of(op: Op) -> Verdict:
    """The verdict of a Query or Parse op."""
    assert op[2] is not None
    return op[2]


def _no_savepoint(verdict: Verdict | None) -> bytes:
    """ROLLBACK TO, when the transaction's savepoints went with their server."""
    single = verdict.single if verdict is not None and verdict.kind is Kind.ROLLBACK_TO else None
    if single is None or single.name is None:
        return b""
    return messages.error_response(f'savepoint "{_text(single.name)}" does not exist', "3B001")


def _chains(verdict: Verdict) -> bool:
    single = verdict.single
    return single is None or single.chain


def _tag_of(verdict: Verdict) -> bytes:
    single = verdict.single
    assert single is not None and single.tag is not None
    return messages.command_complete(single.tag)


def _name(raw: bytes, start: int) -> tuple[bytes, int]:
    end = raw.find(b"\0", start)
    if end < 0:
        raise ProtocolViolation("invalid string in message")
    return raw[start:end], end + 1


def _first_message(data: bytes) -> bytes:
    end = 1 + read_length(data, 1)[0]
    return data if end == len(data) else data[:end]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
