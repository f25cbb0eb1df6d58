"""Conversations of the session core as scripts without sockets.

A ``Playbook`` has clients and servers and links them as ``proxy/`` does, by the same questions to the same session objects: which
bytes go to which server, which come back to which client. Leaving the block checks that nothing is left over: no unread bytes, no
replies owed, no messages waiting, no client without an answer. What the origin would say is written by the test::

    with Playbook() as book:
        book.a.sends(query("select 1"))
        book.server.gets(query("select 1"))
        book.server.sends(backend("T x", "D 1", "C SELECT 1", "Z I"))
        book.a.gets(backend("T x", "D 1", "C SELECT 1", "Z I"))

Knows no transport, no limits and no time; time-outs, cancels and back-pressure belong to the tests of ``proxy/``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType

from hyperdrive.errors import HyperdriveError, ProtocolViolation
from hyperdrive.session.client import ClientSession, Op
from hyperdrive.session.pipe import Pipe, Switches
from hyperdrive.session.server import IDLE, ServerSession
from hyperdrive.session.settings import EMPTY, Label, values
from hyperdrive.session.statements import StatementRegistry
from hyperdrive.sql.cache import VerdictCache
from hyperdrive.testing import backend as build
from hyperdrive.testing.frontend import message

VIEW: Mapping[bytes, bytes] = {
    b"client_encoding": b"UTF8",
    b"standard_conforming_strings": b"on",
    b"TimeZone": b"UTC",
}
"""What a server reports at login, unless a test says otherwise."""


HELD: Op = (0, b"", None)
"""Stands for the scope that carried a held transaction."""


def backend(*replies: str) -> bytes:
    """Backend messages in short: a letter and what belongs to it.

    ``"C SELECT 1"`` a tag, ``"Z I"`` a status, ``"E 22012 text"`` an error (``"N 01000 text"`` a warning, ``"F 57P01 text"`` a FATAL
    one), ``"D a b"`` and ``"T a b"`` a row and its columns, ``"t 23"`` parameter types, ``"S name=value"``, ``"d data"``; the rest
    has no body.
    """
    return b"".join(_reply(*reply.partition(" ")[::2]) for reply in replies)


def _reply(letter: str, rest: str) -> bytes:
    match letter:
        case "C":
            return build.complete(rest)
        case "Z":
            return build.ready(rest)
        case "E" | "N" | "F":
            sqlstate, _, text = rest.partition(" ")
            severity = {"E": "ERROR", "N": "WARNING", "F": "FATAL"}[letter]
            return build.error(sqlstate, text, severity, kind="N" if letter == "N" else "E")
        case "D":
            return build.data_row(rest.split())
        case "T":
            return build.row_description(rest.split())
        case "t":
            return build.parameter_description([int(oid) for oid in rest.split()])
        case "S":
            name, _, value = rest.partition("=")
            return build.parameter_status(name, value)
        case "A":
            return build.notification(7, rest)
        case "G" | "H" | "W":
            return message(letter, b"\0\0\0")
        case "d" | "V":
            return message(letter, rest.encode())
        case _:
            return message(letter)


def pieces(data: bytes) -> list[bytes]:
    """*data* cut into messages, so that a difference is seen at a glance; an incomplete rest stays as it is."""
    found: list[bytes] = []
    at = 0
    while at + 5 <= len(data):
        end = at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")
        if end > len(data):
            break
        found.append(data[at:end])
        at = end
    if at < len(data):
        found.append(data[at:])
    return found


def letters(data: bytes) -> str:
    """The type letters of the messages in *data*; ``Z`` with its status."""
    return "".join(chr(m[0]) + (m[5:6].decode() if m[:1] == b"Z" else "") for m in pieces(data))


def make_pipe(*, max_statements: int = 100, pin_unknown: bool = False, switches: Switches = Switches()) -> Pipe:  # noqa: B008 - frozen
    """What the sessions of one pool share, with the classifier of production."""
    verdicts = VerdictCache()
    return Pipe(
        lambda ascii_safe, standard: verdicts.reader(ascii_safe=ascii_safe, standard_strings=standard),
        StatementRegistry(),
        max_statements=max_statements,
        pin_unknown=pin_unknown,
        switches=switches,
    )


class Side:
    """What a party was sent and has not looked at yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.unread = b""

    def take(self) -> bytes:
        """What has come since the last look."""
        data, self.unread = self.unread, b""
        return data

    def gets(self, *expected: bytes) -> None:
        """Exactly these bytes have come since the last look."""
        assert pieces(b"".join(expected)) == pieces(self.take()), self.name

    def gets_letters(self, expected: str) -> bytes:
        """Messages of these types have come; returns them."""
        data = self.take()
        assert expected.replace(" ", "") == letters(data), f"{self.name}: {pieces(data)}"
        return data


class ServerSide(Side):
    """A server connection: what we wrote to the origin, and what the origin says."""

    def __init__(self, book: Playbook, name: str, session: ServerSession) -> None:
        super().__init__(name)
        self.book = book
        self.session = session
        self.client: ClientSide | None = None
        self.is_gone = False

    def sends(self, data: bytes, *, cut: int | None = None) -> None:
        """The origin says *data*, in pieces of *cut* bytes if given."""
        for start in range(0, len(data), cut or max(len(data), 1)):
            assert not self.is_gone, f"{self.name} is closed"
            self._receive(data[start : start + (cut or len(data))])

    def _receive(self, data: bytes) -> None:
        session, client = self.session, self.client
        out = session.receive(data)
        if client is None:
            assert out == b"", f"{self.name} is linked to nobody, and yet: {out!r}"
            if session.broken is not None or session.fatal is not None:
                self.is_gone = True
                self.book.forget(self)
            return
        if out:
            client.unread += out
            client.resend = None
        if session.broken is not None:
            self.breaks(backend("E 08006 lost"))
        elif not session.queue:
            client.drained()

    def breaks(self, error: bytes = b"") -> None:
        """The connection ends. The linked client hears *error* where it is owed something (W-54)."""
        self.is_gone = True
        client, self.client = self.client, None
        self.session.client = None
        self.book.forget(self)
        if client is not None:
            client.server_lost(self, error or backend("E 08006 lost"))


class ClientSide(Side):
    """A client connection after login: idle, waiting, or linked to a server."""

    def __init__(self, book: Playbook, name: str, session: ClientSession) -> None:
        super().__init__(name)
        self.book = book
        self.session = session
        self.server: ServerSide | None = None
        self.resend: Op | None = None
        self.is_waiting = False
        self.is_closed = False
        self.error: HyperdriveError | None = None
        """What the connection ended with, if it is our doing."""

    def sends(self, data: bytes, *, cut: int | None = None) -> None:
        """The client says *data*, in pieces of *cut* bytes if given."""
        for start in range(0, len(data), cut or max(len(data), 1)):
            if self.is_closed:
                return
            self._receive(data[start : start + (cut or len(data))])

    def _receive(self, data: bytes) -> None:
        session = self.session
        try:
            if session.receive(data) or (session.ops and self.server is not None and self.server.session.copy_in):
                self._ship()
        except ProtocolViolation as error:
            self._end(error)
            return
        if session.terminated:
            self.leaves()

    def _ship(self) -> None:
        session = self.session
        if self.server is None:
            if self.is_waiting:
                return
            if self._answered():
                return
            if not self.book.free:
                self.is_waiting = True
                self.book.queue.append(self)
                return
            self.link(self.book.free.pop())
        else:
            if self.server.session.is_at_rest and self._answered():
                return
            ended = session.end_ahead(self.server.session)
            if ended is not None:
                self.server.unread += ended[0]
                self.unread += ended[1]
                return
            told = self.session.set_ahead(self.server.session)
            if told is not None:
                self.unread += told
                return
            self.resend = None
        self._send()

    def _answered(self) -> bool:
        session = self.session
        while session.needs_look:
            reply = session.answer()
            if reply is None:
                return False
            self.unread += reply
            if not session.ops:
                return True
        return False

    def link(self, server: ServerSide) -> None:
        """Join the client and *server*."""
        assert server.session.is_clean, f"{server.name} is lent and not clean"
        self.server, server.client = server, self
        state = server.session
        state.client = self.session
        if state.view is not self.session.told and state.label is self.session.journal.wanted:
            self.unread += self.session.tell_news(state.view)
        ops = self.session.ops
        verdict = ops[0][2] if len(ops) == 1 else None
        self.resend = ops[0] if verdict is not None and verdict.is_read else None

    def offer(self, server: ServerSide) -> None:
        """The wait is over."""
        self.is_waiting = False
        self.link(server)
        self._send()

    def _send(self) -> None:
        assert self.server is not None
        server, state = self.server, self.server.session
        if state.usual and not state.queue and state.label is self.session.journal.wanted:
            whole = self.session.compose_whole(state)
            if whole:
                server.unread += whole
                return
        while True:
            waiting = len(self.session.ops)
            server.unread += self.session.compose(state)
            if self.session.may_take_back:
                self.resend = HELD
            out = state.fire_fakes()
            self.unread += out
            if state.queue:
                return
            if not self.session.ops:
                self.drained()
                return
            assert out or len(self.session.ops) < waiting, (
                f"nothing is outstanding that {self.session.ops} could wait for"
            )

    def drained(self) -> None:
        """The server owes nothing: it goes back if it is clean and the client not pinned."""
        server = self.server
        if server is None:
            return
        if self.session.ops:
            self._send()
            return
        state = server.session
        if state.status != IDLE or state.open_scope or state.half_sent or self.session.is_pinned:
            return
        self.server = server.client = state.client = None
        self.resend = None
        state.rest()
        self.book.release(server)

    def refuse(self, error: bytes) -> None:
        """The wait ends without a server."""
        self.book.queue.remove(self)
        self.is_waiting = False
        self.unread += self.session.refuse(error)
        if self.session.ops:
            self._ship()

    def server_lost(self, server: ServerSide, error: bytes) -> None:
        """The linked server is gone."""
        self.server = None
        session, state = self.session, server.session
        state.look_closer()
        resend, self.resend = self.resend, None
        in_transaction = session.believes(state.status)
        if session.is_pinned or state.half_sent or state.is_mid_message:
            self._end(None)
        elif resend is HELD and not state.failed and session.take_back_held(state):
            self._ship()
        elif resend is not None and resend is not HELD and not in_transaction and not session.ops and not state.failed:
            session.take_back(resend[1])
            self._ship()
        else:
            for entry in reversed(state.queue):
                session.dropped(entry)
            self.unread += session.lost(state.refusal or error, state, failed_here=in_transaction)
            if session.ops:
                self._ship()

    def leaves(self) -> None:
        """The client is gone; a server that is not clean goes with it."""
        self.is_closed = True
        if self.is_waiting:
            self.is_waiting = False
            self.book.queue.remove(self)
        server, self.server = self.server, None
        if server is not None:
            server.client = server.session.client = None
            if server.session.is_clean and not self.session.is_pinned:
                self.book.release(server)
            else:
                self.session.forsaken(server.session)
                server.is_gone = True
                self.book.forget(server)

    def _end(self, error: HyperdriveError | None) -> None:
        self.error = error
        self.leaves()


class Playbook:
    """One conversation of *clients* with *servers*; see the module.

    ``book.a``, ``book.b`` … are the clients, ``book.server`` is the only server, ``book.servers`` are all. The server used last is
    lent first. *base* is the label of all clients' start-up values.
    """

    def __init__(
        self,
        clients: Sequence[str] = ("a", "b"),
        servers: int = 1,
        *,
        pipe: Pipe | None = None,
        max_statements: int = 100,
        pin_unknown: bool = False,
        view: Mapping[bytes, bytes] = VIEW,
        base: Label = EMPTY,
    ) -> None:
        self.pipe = pipe or make_pipe(max_statements=max_statements, pin_unknown=pin_unknown)
        self.view = values(view)
        self.clients = {name: ClientSide(self, name, ClientSession(self.pipe, base, self.view)) for name in clients}
        self.servers: list[ServerSide] = []
        self.free: list[ServerSide] = []
        self.queue: deque[ClientSide] = deque()
        self.made = 0
        for _ in range(servers):
            self.open_server()
        self.free.reverse()

    @property
    def a(self) -> ClientSide:
        return self.clients["a"]

    @property
    def b(self) -> ClientSide:
        return self.clients["b"]

    @property
    def server(self) -> ServerSide:
        """The only server."""
        (server,) = self.servers
        return server

    def open_server(self) -> ServerSide:
        """Another connection to the origin, at once for whoever waits longest."""
        server = ServerSide(self, f"server {self.made}", ServerSession(self.view))
        self.made += 1
        self.servers.append(server)
        self.release(server)
        return server

    def release(self, server: ServerSide) -> None:
        """*server* is free: for the client that waits longest, or on the stack."""
        if server.session.spoiled:
            server.is_gone = True
            self.forget(server)
            return
        if self.queue:
            self.queue.popleft().offer(server)
        else:
            self.free.append(server)

    def forget(self, server: ServerSide) -> None:
        """*server* is closed."""
        if server in self.servers:
            self.servers.remove(server)
        if server in self.free:
            self.free.remove(server)

    def asks(self, client: ClientSide, asked: bytes, answered: bytes, *, to_server: bytes | None = None) -> None:
        """One exchange on the only server that is passed through: what goes is what comes, unless *to_server* says otherwise."""
        client.sends(asked)
        self.server.gets(asked if to_server is None else to_server)
        self.server.sends(answered)
        client.gets(answered)

    def check(self) -> None:
        """Nothing is left over."""
        for client in self.clients.values():
            assert b"" == client.unread, f"{client.name} was told more: {pieces(client.unread)}"
            assert client.is_closed or not client.session.ops, f"{client.name} has messages waiting"
            assert not client.is_waiting, f"{client.name} waits for a server"
        for server in self.servers:
            assert b"" == server.unread, f"{server.name} was sent more: {pieces(server.unread)}"
            assert not server.session.queue, f"{server.name} owes {list(server.session.queue)}"
            assert not server.session.half_sent, f"{server.name} has half a message"

    def __enter__(self) -> Playbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.check()
