"""Replies in a form that people read and tests compare.

A transcript has one line per message, from the trace format of ``hyperdrive.pgwire.trace``. What may differ between a direct
connection and one through us is masked, and only that: the process id and key of BackendKeyData and of notifications, the
object identifiers of tables and types made by the test itself, and the source position (fields F, L, R) of an error.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hyperdrive.pgwire.trace import trace_message

FIRST_NORMAL_OID = 16384
"""Objects below it are the same in every database of one major version (FirstNormalObjectId)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its type letter and its body without the header."""

    kind: str
    body: bytes

    def __bytes__(self) -> bytes:
        return self.kind.encode("latin-1") + struct.pack("!i", len(self.body) + 4) + self.body

    @property
    def error(self) -> dict[str, str]:
        """The fields of an ErrorResponse or NoticeResponse."""
        return {f[:1].decode(): f[1:].decode("utf-8", "replace") for f in self.body.split(b"\0") if f}

    @property
    def row(self) -> tuple[str | None, ...]:
        """The values of a DataRow as text."""
        values: list[str | None] = []
        at = 2
        for _ in range(int.from_bytes(self.body[:2], "big")):
            length = int.from_bytes(self.body[at : at + 4], "big", signed=True)
            at += 4
            values.append(None if length < 0 else self.body[at : at + length].decode("utf-8", "backslashreplace"))
            at += max(length, 0)
        return tuple(values)


class Replies(list[Message]):
    """Messages from the backend in their order."""

    @property
    def letters(self) -> str:
        return "".join(m.kind for m in self)

    @property
    def rows(self) -> list[tuple[str | None, ...]]:
        return [m.row for m in self if m.kind == "D"]

    @property
    def tags(self) -> list[str]:
        return [m.body[:-1].decode() for m in self if m.kind == "C"]

    @property
    def errors(self) -> list[str]:
        """The SQLSTATEs of the errors."""
        return [m.error["C"] for m in self if m.kind == "E"]

    @property
    def notices(self) -> list[str]:
        return [m.error["C"] for m in self if m.kind == "N"]

    @property
    def statuses(self) -> str:
        """The transaction status bytes, in order."""
        return "".join(m.body.decode() for m in self if m.kind == "Z")

    @property
    def settings(self) -> list[tuple[str, str]]:
        """What ParameterStatus said, in order."""
        pairs = (m.body.split(b"\0") for m in self if m.kind == "S")
        return [(p[0].decode(), p[1].decode()) for p in pairs]

    def of(self, kinds: str) -> Replies:
        return Replies(m for m in self if m.kind in kinds)

    def without(self, kinds: str) -> Replies:
        return Replies(m for m in self if m.kind not in kinds)

    def __str__(self) -> str:
        return "\n".join(trace_message("B", m.kind, m.body) for m in self)


def transcript(replies: Replies) -> list[str]:
    """The comparable lines of *replies*."""
    return [_line(m) for m in replies]


def _line(message: Message) -> str:
    body = message.body
    match message.kind:
        case "E" | "N":
            fields = [(k, v) for k, v in message.error.items() if k not in "FLR"]
            return f"{message.kind} " + " ".join(f"{k}={v!r}" for k, v in fields)
        case "K":
            return f"K {len(body)}"
        case "A":
            return "A " + repr(body[4:])
        case "T":
            body = _mask_row_description(body)
        case "t":
            count = int.from_bytes(body[:2], "big")
            body = body[:2] + b"".join(_mask_oid(body[2 + 4 * i : 6 + 4 * i]) for i in range(count))
    name, _, fields_text = trace_message("B", message.kind, body).split("\t", 2)[-1].partition("\t")
    return f"{message.kind} {name}{fields_text}"


def _mask_oid(oid: bytes) -> bytes:
    return oid if int.from_bytes(oid, "big") < FIRST_NORMAL_OID else b"\xff\xff\xff\xff"


def _mask_row_description(body: bytes) -> bytes:
    out, at = [body[:2]], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(0, at) + 1
        out += [
            body[at:end],
            _mask_oid(body[end : end + 4]),
            body[end + 4 : end + 6],
            _mask_oid(body[end + 6 : end + 10]),
        ]
        out.append(body[end + 10 : end + 18])
        at = end + 18
    return b"".join(out)
