"""A batch that is one read, taken apart: what it asks, under which key it is found, and what it was given.

The key is the request's own bytes, with comments taken out by PostgreSQL's lexer and nothing else changed (caching-rules §2). Knows
messages and texts; knows no cache and no catalog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperdrive.pgwire import messages
from hyperdrive.pgwire.framing import BIND, PARSE, QUERY, read_length
from hyperdrive.proxy.identity import effective
from hyperdrive.sql.hints import read_hints
from hyperdrive.sql.lists import has_clock_word
from hyperdrive.sql.rules import Refused, Rule
from hyperdrive.sql.text import strip_comments
from hyperdrive.sql.verdict import Command

if TYPE_CHECKING:
    from hyperdrive.session.client import ClientSession
    from hyperdrive.session.statements import Named
    from hyperdrive.sql.hints import Hints
    from hyperdrive.sql.verdict import Verdict

_DESCRIBED: Final = messages.describe(b"P") + messages.execute() + messages.SYNC
_EXECUTED: Final = messages.execute() + messages.SYNC
# The same ends with a row limit, whose four bytes stand right before Sync.
_EXECUTE_HEAD: Final = messages.execute()[:-4]
_DESCRIBED_HEAD: Final = messages.describe(b"P") + _EXECUTE_HEAD
_LIMIT_AT: Final = -4 - len(messages.SYNC)
_LIMIT_END: Final = -len(messages.SYNC)


class Read:
    """A batch that is one read, taken apart: what it asks, under which key, and with what."""

    __slots__ = ("data", "hints", "key", "kind", "parameters_at", "text", "types", "unsettled")

    def __init__(
        self,
        kind: int,
        data: bytes,
        key: bytes,
        text: bytes,
        types: tuple[int, ...],
        parameters_at: int,
        hints: Hints | None,
    ) -> None:
        self.kind = kind
        self.data = data
        self.key = key
        self.text = text
        """Without comments."""
        self.types = types
        self.parameters_at = parameters_at
        """Where in ``data`` the formats and values of Bind begin; 0: there are none."""
        self.hints = hints
        self.unsettled: Named | None = None
        """The prepared statement, if the schema has changed since it was known to mean what the client was told: the origin has to
        run it once, and says so if it does not (W-26)."""


def read_of(kind: int, data: bytes, session: ClientSession) -> Read | Refused:
    """Take the batch apart; the key has the text without comments, as it would have found an entry with them."""
    if kind == QUERY:
        text = data[5:-1]
        clean, hints = _without_comments(text)
        if clean is None:
            return Refused(Rule.SYNTAX)
        key = data if clean is text else messages.query(clean)
        return Read(kind, data, key, clean, (), 0, hints)
    letter, end = end_of(data)
    if not end:
        return Refused(Rule.PORTAL, "not one Bind, Execute and Sync")
    limit = data[_LIMIT_AT:_LIMIT_END] if letter.islower() else b""
    if limit and session.block is not None:
        # Until the transaction ends the portal may be asked for more, and only the origin has it.
        return Refused(Rule.PORTAL, "a row limit inside a transaction")
    unsettled = None
    if kind == PARSE:
        parsed = 1 + int.from_bytes(data[1:5], "big")
        body, at = data[6:parsed], parsed + 7
    else:
        named = session.named_by(data)
        if named.wanted is not session.journal.wanted and effective(named.wanted) is not effective(
            session.journal.wanted
        ):
            # Literals are converted at Parse (verified on 15, 18): under those settings, not under these.
            return Refused(Rule.PORTAL, "a statement prepared under other settings")
        unsettled = named if named.epoch != session.pipe.epoch else None
        body, at = named.statement.body, 7 + len(named.name)
    text, _, oids = body.partition(b"\0")
    clean, hints = _without_comments(text)
    if clean is None:
        return Refused(Rule.SYNTAX)
    if clean is not text:
        body = clean + b"\0" + oids
    types = tuple(int.from_bytes(oids[i : i + 4], "big") for i in range(2, len(oids), 4))
    read = Read(kind, data, letter + body + data[at:-end] + limit, clean, types, at, hints)
    read.unsettled = unsettled
    return read


def end_of(data: bytes) -> tuple[bytes, int]:
    """The shape of an extended batch by its end, and how long that is; 0: none that is known.

    ``D`` has a Describe of the portal, ``E`` has not; small letters are those with a row limit, which is the end of their key: what it
    cuts off is an answer to that limit alone (caching-rules §4, rule 7).
    """
    if data.endswith(_DESCRIBED):
        return b"D", len(_DESCRIBED)
    if data.endswith(_EXECUTED):
        return b"E", len(_EXECUTED)
    if data.endswith(messages.SYNC):
        if data.endswith(_DESCRIBED_HEAD, 0, _LIMIT_AT):
            return b"d", len(_DESCRIBED)
        if data.endswith(_EXECUTE_HEAD, 0, _LIMIT_AT):
            return b"e", len(_EXECUTED)
    return b"", 0


def glanced_key(kind: int, data: bytes, session: ClientSession) -> bytes:
    """The key of *data* if it is an extended batch of the usual shape whose text has no comments; empty if it is not.

    What ``read_of`` makes of it, and nothing else. Lengths are checked: between Bind and the end stands what the letter says.
    """
    limit = b""
    if data.endswith(_DESCRIBED):
        letter, end = b"D", len(data) - len(_DESCRIBED)
    elif data.endswith(_EXECUTED):
        letter, end = b"E", len(data) - len(_EXECUTED)
    else:
        letter, size = end_of(data)
        if not size:
            return b""
        end = len(data) - size
        limit = data[_LIMIT_AT:_LIMIT_END]
    first_end = 1 + read_length(data, 1)[0]
    if kind == PARSE:
        # Behind Parse of the unnamed statement a Bind of it to the unnamed portal, and behind that the end.
        if data[5] or data[first_end : first_end + 1] != b"B" or data[first_end + 5 : first_end + 7] != b"\0\0":
            return b""
        if first_end + 1 + read_length(data, first_end + 1)[0] != end:
            return b""
        return letter + data[6:first_end] + data[first_end + 7 : end] + limit
    if kind != BIND or data[5] or first_end != end:
        return b""
    name_end = data.find(b"\0", 6)
    named = session.named(data[6:name_end])
    if named is None or named.wanted is not session.journal.wanted or named.epoch != session.pipe.epoch:
        return b""
    return letter + named.statement.body + data[name_end + 1 : end] + limit


def _without_comments(text: bytes) -> tuple[bytes | None, Hints | None]:
    """*text* itself if it has no comments, else without them, with their hints; ``None`` if that cannot be told."""
    if b"--" not in text and b"/*" not in text:
        return text, None
    try:
        clean = strip_comments(text)
    except ValueError:
        return None, None
    return (text if clean == text else clean), read_hints(text)


def values_of(data: bytes, at: int) -> list[bytes | None]:
    """The parameter values of a Bind message whose formats begin at *at*."""
    at += 2 + 2 * int.from_bytes(data[at : at + 2], "big")
    count = int.from_bytes(data[at : at + 2], "big")
    at += 2
    found: list[bytes | None] = []
    for _ in range(count):
        size = int.from_bytes(data[at : at + 4], "big", signed=True)
        at += 4
        found.append(None if size < 0 else data[at : at + size])
        at += max(size, 0)
    return found


def is_select(verdict: Verdict | None) -> bool:
    """Whether the text is one SELECT, VALUES or TABLE; what else it does is judged later."""
    single = verdict.single if verdict is not None else None
    return single is not None and single.command is Command.SELECT


def has_clock_value(read: Read, scan: tuple[int, ...]) -> bool:
    """Whether a parameter that *scan* names says ``now`` or the like (rule 16)."""
    values = values_of(read.data, read.parameters_at)
    if max(scan) > len(values):
        return True  # the origin will say what is wrong with it
    return any((value := values[number - 1]) is not None and has_clock_word(value) for number in scan)
