"""What the scripts about held-back transactions share: what carries them to a server, and how to get into one."""

from __future__ import annotations

from hyperdrive.pgwire import messages
from hyperdrive.testing.frontend import bind, describe_portal, execute, parse, query, sync
from hyperdrive.testing.playbook import Playbook, backend

BEGUN = backend("C BEGIN", "Z T")
ROW = backend("T x", "D 1", "C SELECT 1")


def ahead(*statements: str, closes: bool = True) -> bytes:
    """What carries held statements to the server; without *closes*, the last of them was sent by the extended protocol."""
    runs = [messages.parse(b"", sql.encode()) + messages.bind(b"", b"") + messages.execute() for sql in statements]
    return b"".join(runs) + (messages.close(b"P") if closes else b"")


def carried(*tags: str, closes: bool = True) -> bytes:
    """What the server says to that."""
    return b"".join(backend("1", "2", f"C {tag}") for tag in tags) + (backend("3") if closes else b"")


def apart(sql: str) -> bytes:
    """What carries a SET to a server that is in a transaction: a portal of its own (W-28)."""
    bound = messages.bind(b"_hd", b"") + messages.execute(b"_hd") + messages.close(b"P", b"_hd")
    return messages.parse(b"", sql.encode()) + bound


def extended(sql: str) -> bytes:
    """The scope in which drivers send a statement once."""
    return parse(sql) + bind() + describe_portal() + execute() + sync()


def begin(book: Playbook, sql: str = "begin") -> None:
    """A transaction that client a believes in and no server knows of."""
    book.a.sends(query(sql))
    book.a.gets(BEGUN)


def live(book: Playbook, sql: str = "begin") -> None:
    """A transaction that has reached the server."""
    begin(book, sql)
    book.a.sends(query("select 1"))
    book.server.gets(ahead(sql), query("select 1"))
    book.server.sends(carried("BEGIN") + ROW + backend("Z T"))
    book.a.gets(ROW, backend("Z T"))


def accept(book: Playbook, sql: str, *reported: str) -> None:
    """The origin takes *sql* from client b, so it need not be asked again."""
    book.asks(book.b, query(sql), backend("C SET", *reported, "Z I"))
