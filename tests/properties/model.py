"""A small PostgreSQL for property tests: it answers any bytes of the message kinds it knows as the manual says.

It has transactions with savepoints, settings that follow them, prepared statements, portals and COPY from stdin, and no tables: a
statement's text says what becomes of it. Written from the manual and from observation of PostgreSQL 16; nothing is shared with
``hyperdrive.session``, so that one model behind the session and one asked directly are a differential test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hyperdrive.testing.playbook import backend

REPORTED = {"timezone": "TimeZone"}
DEFAULTS = {"timezone": "UTC", "work_mem": "4MB", "search_path": "public"}
EXITS = ("commit", "end", "rollback", "abort", "rollback to")

_SET = re.compile(r"(?:set|SET) (local )?\"?(\w+)\"? (?:to|TO) '([^']*)'")
_SET_CONFIG = re.compile(r"select pg_catalog\.set_config\('(\w+)', '([^']*)', false\)")
_VALUES = re.compile(r"values (.*)")
_SELECT = re.compile(r"select '([^']*)'")


class Refusal(Exception):
    """An error that fails the statement: SQLSTATE and text."""

    def __init__(self, sqlstate: str, text: str) -> None:
        super().__init__(text)
        self.response = backend(f"E {sqlstate} {text}")


@dataclass
class Values:
    """Settings of a session: what SET gave them, and what SET LOCAL did."""

    session: dict[str, str] = field(default_factory=dict)
    local: dict[str, str] = field(default_factory=dict)

    def copy(self) -> Values:
        return Values(dict(self.session), dict(self.local))


@dataclass
class Portal:
    sql: str
    rows: list[str]
    parameters: list[str]
    at: int = 0
    is_done: bool = False


class Model:
    """One backend process after login. ``defaults`` are what RESET goes back to."""

    def __init__(self, defaults: Mapping[str, str] = DEFAULTS) -> None:
        self.defaults = {**DEFAULTS, **defaults}
        self.status = "I"
        self.statements: dict[str, str] = {}
        self.portals: dict[str, Portal] = {}
        self.values = Values()
        self.frames: list[tuple[str, Values]] = []
        """What to return to: of the transaction, then of each savepoint. Empty: no transaction, not even an implicit one."""
        self.skipping = False
        self.copying: str | None = None
        """``Q`` or ``E`` while it reads CopyData."""
        self.lines: list[bytes] = []
        self.listening: set[str] = set()
        self.told = {name: self.defaults[name] for name in REPORTED}
        self.buffer = b""
        self.seen: list[str] = []
        """All statements that ran, for assertions."""

    def receive(self, data: bytes) -> bytes:
        """Everything that is answered to *data*."""
        self.buffer += data
        out = b""
        while len(self.buffer) >= 5:
            end = 1 + int.from_bytes(self.buffer[1:5], "big")
            if len(self.buffer) < end:
                break
            message, self.buffer = self.buffer[:end], self.buffer[end:]
            out += self._message(chr(message[0]), message[5:])
        return out

    @property
    def is_idle(self) -> bool:
        """Nothing is left of any client but settings and statements."""
        return self.status == "I" and not self.frames and self.copying is None and not self.buffer and not self.skipping

    # --- messages ---

    def _message(self, kind: str, body: bytes) -> bytes:
        if self.copying is not None:
            return self._copy(kind, body)
        if kind in "dcfH":
            return b""
        if kind == "S":
            self.skipping = False
            return self._ready()
        if self.skipping:
            return b""
        if kind == "Q":
            return self._query(body[:-1].decode())
        try:
            return self._extended(kind, body)
        except Refusal as refusal:
            self._abort()
            self.skipping = True
            return refusal.response

    def _extended(self, kind: str, body: bytes) -> bytes:
        match kind:
            case "P":
                name, sql, _ = body.split(b"\0", 2)
                return self._parse(name.decode(), sql.decode())
            case "B":
                portal, name, rest = body.split(b"\0", 2)
                return self._bind(portal.decode(), name.decode(), rest)
            case "D":
                return self._describe(body[:1], body[1:-1].decode())
            case "E":
                portal, limit = body.split(b"\0", 1)
                return self._execute(portal.decode(), int.from_bytes(limit, "big"))
            case "C":
                if body[:1] == b"S":
                    self.statements.pop(body[1:-1].decode()[:63], None)
                else:
                    self.portals.pop(body[1:-1].decode(), None)
                return backend("3")
        raise AssertionError(kind)

    def _parse(self, name: str, sql: str) -> bytes:
        if not name:
            self.statements.pop("", None)
        self._check_syntax(sql)
        self._check_aborted(sql)
        self._implicit()
        self._check_names(sql)
        if name and name[:63] in self.statements:
            raise Refusal("42P05", f'prepared statement "{name}" already exists')
        self.statements[name[:63]] = sql
        return backend("1")

    def _bind(self, portal: str, name: str, rest: bytes) -> bytes:
        sql = self._statement(name)
        self._check_aborted(sql)
        self._implicit()
        if portal and portal in self.portals:
            raise Refusal("42P03", f'cursor "{portal}" already exists')
        parameters: list[str] = []
        at = 2 + 2 * int.from_bytes(rest[:2], "big")
        count = int.from_bytes(rest[at : at + 2], "big")
        at += 2
        for _ in range(count):
            size = int.from_bytes(rest[at : at + 4], "big")
            parameters.append(rest[at + 4 : at + 4 + size].decode())
            at += 4 + size
        self.portals[portal] = Portal(sql, self._rows(sql, parameters), parameters)
        return backend("2")

    def _describe(self, kind: bytes, name: str) -> bytes:
        if kind == b"S":
            sql = self._statement(name)
            if self.status == "E" and _has_rows(sql):
                raise Refusal("25P02", ABORTED)
            self._implicit()
            return backend("t 25" if "$1" in sql else "t", *_described(sql))
        portal = self.portals.get(name)
        if portal is None:
            raise Refusal("34000", f'portal "{name}" does not exist')
        if self.status == "E" and _has_rows(portal.sql):
            raise Refusal("25P02", ABORTED)
        return backend(*_described(portal.sql))

    def _execute(self, name: str, limit: int) -> bytes:
        portal = self.portals.get(name)
        if portal is None:
            raise Refusal("34000", f'portal "{name}" does not exist')
        self._check_aborted(portal.sql)
        self._implicit()
        sql = portal.sql
        if not sql:
            return backend("I")
        if not _has_rows(sql):
            if portal.is_done:
                raise Refusal("55000", f'portal "{name}" cannot be run')
            portal.is_done = True
            if sql.startswith("copy"):
                self.copying, self.lines = "E", []
                return backend("G")
            return self._run(sql)
        if portal.at == 0:
            self._run_rows(sql)
        rows = portal.rows[portal.at : portal.at + limit] if limit else portal.rows[portal.at :]
        portal.at += len(rows)
        out = backend(*(f"D {row}" for row in rows))
        if limit and len(rows) == limit:
            return out + backend("s")
        return out + backend(_complete(sql, len(rows)))

    def _query(self, text: str) -> bytes:
        self.statements.pop("", None)
        self.portals.pop("", None)
        statements = [part.strip() for part in text.split(";") if part.strip()]
        out = b""
        try:
            for sql in statements:
                self._check_syntax(sql)
            for sql in statements:
                self._check_aborted(sql)
                self._implicit()
                self._check_names(sql)
                if sql.startswith("copy"):
                    self.copying, self.lines = "Q", []
                    return out + backend("G")
                if _has_rows(sql):
                    rows = self._rows(sql, [])
                    self._run_rows(sql)
                    out += backend(*_described(sql), *(f"D {row}" for row in rows))
                    out += backend(_complete(sql, len(rows)))
                else:
                    out += self._run(sql, is_multi=len(statements) > 1)
        except Refusal as refusal:
            out += refusal.response
            self._abort()
        if not statements:
            out += backend("I")
        return out + self._ready()

    def _copy(self, kind: str, body: bytes) -> bytes:
        error: bytes | None = None
        if kind == "d":
            self.lines.append(body)
            if body.startswith(b"bad"):
                error = backend("E 22P02 invalid input")
        elif kind == "f":
            error = backend("E 57014 COPY from stdin failed")
        elif kind in "SH":
            return b""
        elif kind != "c":
            raise AssertionError(f"{kind} in a copy: PostgreSQL closes the connection")
        if error is None and kind == "d":
            return b""
        way, self.copying = self.copying, None
        if error is not None:
            self._abort()
            self.skipping = way == "E"
            return error + (self._ready() if way == "Q" else b"")
        out = backend(f"C COPY {len(self.lines)}")
        return out + (self._ready() if way == "Q" else b"")

    # --- transactions ---

    def _implicit(self) -> None:
        if not self.frames:
            self.frames.append(("", self.values.copy()))

    def _abort(self) -> None:
        """An error: what the innermost frame began is undone; outside a block nothing is left."""
        if self.frames:
            self.values = self.frames[-1][1].copy()
        self.portals.clear()
        if self.status == "I":
            self.frames.clear()
        else:
            self.status = "E"

    def _end(self, *, keep: bool) -> None:
        if self.frames:
            if not keep:
                self.values = self.frames[0][1].copy()
            self.frames.clear()
        self.values.local.clear()
        self.portals.clear()
        self.status = "I"

    def _ready(self) -> bytes:
        if self.status == "I":
            self._end(keep=True)
        changed = [name for name in REPORTED if self.told[name] != self.value(name)]
        for name in changed:
            self.told[name] = self.value(name)
        return backend(*(f"S {REPORTED[name]}={self.told[name]}" for name in changed), f"Z {self.status}")

    # --- statements ---

    def value(self, name: str) -> str:
        return self.values.local.get(name) or self.values.session.get(name) or self.defaults[name]

    def _statement(self, name: str) -> str:
        if name[:63] not in self.statements:
            shown = f'prepared statement "{name}"' if name else "unnamed prepared statement"
            raise Refusal("26000", f"{shown} does not exist")
        return self.statements[name[:63]]

    def _check_syntax(self, sql: str) -> None:
        if sql.startswith("selec "):
            raise Refusal("42601", 'syntax error at or near "selec"')

    def _check_names(self, sql: str) -> None:
        if "gone" in sql:
            raise Refusal("42P01", 'relation "gone" does not exist')

    def _check_aborted(self, sql: str) -> None:
        if self.status == "E" and sql and not sql.lower().startswith(EXITS):
            raise Refusal("25P02", ABORTED)

    def _rows(self, sql: str, parameters: list[str]) -> list[str]:
        if sql.startswith("show "):
            return [self.value(sql.removeprefix("show "))]
        if sql == "select $1::text":
            return parameters[:1]
        found = _SELECT.fullmatch(sql)
        if found is not None:
            return [found[1]]
        found = _VALUES.fullmatch(sql)
        return [part.strip(" ()'") for part in found[1].split(",")] if found is not None else ["x"]

    def _run_rows(self, sql: str) -> None:
        self.seen.append(sql)
        if "1/0" in sql:
            raise Refusal("22012", "division by zero")
        found = _SET_CONFIG.fullmatch(sql.lower())
        if found is not None:
            self.values.local.pop(found[1], None)
            self.values.session[found[1]] = _SET_CONFIG.fullmatch(sql.replace("SELECT", "select"))[2]  # type: ignore[index]

    def _run(self, sql: str, *, is_multi: bool = False) -> bytes:
        self.seen.append(sql)
        lower = sql.lower()
        word, _, rest = lower.partition(" ")
        is_block = self.status != "I"
        match word:
            case "begin" | "start":
                warning = backend("N 25001 there is already a transaction in progress") if is_block else b""
                self.status = "T"
                return warning + backend("C BEGIN" if word == "begin" else "C START TRANSACTION")
            case "commit" | "end" | "rollback" | "abort" if rest == "and chain":
                if not is_block:
                    raise Refusal("25P01", "there is no transaction to chain")
                keep = word in ("commit", "end") and self.status != "E"
                self._end(keep=keep)
                self.status = "T"
                self._implicit()
                return backend("C COMMIT" if keep else "C ROLLBACK")
            case "commit" | "end":
                warning = b"" if is_block else backend("N 25P01 there is no transaction in progress")
                tag = "ROLLBACK" if self.status == "E" else "COMMIT"
                self._end(keep=self.status != "E")
                return warning + backend(f"C {tag}")
            case "rollback" if rest.startswith("to "):
                return self._rollback_to(rest.removeprefix("to "))
            case "rollback" | "abort":
                warning = b"" if is_block else backend("N 25P01 there is no transaction in progress")
                self._end(keep=False)
                return warning + backend("C ROLLBACK")
            case "savepoint":
                if not is_block:
                    raise Refusal("25P01", "SAVEPOINT can only be used in transaction blocks")
                self.frames.append((rest, self.values.copy()))
                return backend("C SAVEPOINT")
            case "release":
                index = self._savepoint(rest, "RELEASE SAVEPOINT")
                del self.frames[index:]
                return backend("C RELEASE")
            case "set" if rest.startswith("transaction"):
                return (b"" if is_block or is_multi else backend("N 25P01 SET TRANSACTION alone")) + backend("C SET")
            case "set":
                return self._set(sql, is_local_useless=not is_block and not is_multi)
            case "reset":
                if rest == "session authorization":
                    pass
                elif rest == "all":
                    self.values = Values()
                else:
                    self.values.session.pop(rest.strip('"'), None)
                    self.values.local.pop(rest.strip('"'), None)
                return backend("C RESET")
            case "deallocate":
                if rest == "all":
                    self.statements = {"": self.statements[""]} if "" in self.statements else {}
                    return backend("C DEALLOCATE ALL")
                if rest not in self.statements:
                    raise Refusal("26000", f'prepared statement "{rest}" does not exist')
                del self.statements[rest]
                return backend("C DEALLOCATE")
            case "discard" if rest == "temp":
                return backend("C DISCARD TEMP")
            case "discard":
                if is_block or is_multi:
                    raise Refusal("25001", "DISCARD ALL cannot run inside a transaction block")
                self.statements.clear()
                self.portals.clear()
                self.listening.clear()
                self.values = Values()
                self.frames.clear()
                return backend("C DISCARD ALL")
            case "listen":
                self.listening.add(rest)
                return backend("C LISTEN")
            case "unlisten":
                self.listening.clear()
                return backend("C UNLISTEN")
        raise AssertionError(sql)

    def _set(self, sql: str, *, is_local_useless: bool) -> bytes:
        found = _SET.fullmatch(sql)
        assert found is not None, sql
        is_local, name, value = found.groups()
        if is_local and is_local_useless:
            return backend("N 25P01 SET LOCAL can only be used in transaction blocks", "C SET")
        if is_local:
            self.values.local[name] = value
        else:
            self.values.local.pop(name, None)
            self.values.session[name] = value
        return backend("C SET")

    def _savepoint(self, name: str, command: str) -> int:
        if self.status == "I":
            raise Refusal("25P01", f"{command} can only be used in transaction blocks")
        for index in range(len(self.frames) - 1, 0, -1):
            if self.frames[index][0] == name:
                return index
        raise Refusal("3B001", f'savepoint "{name}" does not exist')

    def _rollback_to(self, name: str) -> bytes:
        index = self._savepoint(name, "ROLLBACK TO SAVEPOINT")
        del self.frames[index + 1 :]
        self.values = self.frames[index][1].copy()
        self.portals.clear()
        self.status = "T"
        return backend("C ROLLBACK")


ABORTED = "current transaction is aborted, commands ignored until end of transaction block"


def _has_rows(sql: str) -> bool:
    return sql.lower().startswith(("select", "values", "show"))


def _described(sql: str) -> list[str]:
    if sql.lower().startswith("show "):
        name = sql.lower().removeprefix("show ")
        return [f"T {REPORTED.get(name, name)}"]
    return ["T x"] if _has_rows(sql) else ["n"]


def _complete(sql: str, rows: int) -> str:
    return "C SHOW" if sql.startswith("show") else f"C SELECT {rows}"
