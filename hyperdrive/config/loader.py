"""From a file, the environment and flags to ``Settings``; later wins.

Every mistake is reported at once, each with its key, its place (``file:line``, the variable, the flag) and what would be
right, so that nothing starts half. RELOAD reads the same places again; what may not change in a running process keeps its
old value and is reported.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from hyperdrive.config.entries import (
    DATABASE_MEANINGS,
    TABLE_MEANINGS,
    USER_MEANINGS,
    DatabaseSettings,
    TableSettings,
    UserSettings,
)
from hyperdrive.config.meaning import Meaning
from hyperdrive.config.settings import MEANINGS, Settings, flag_of
from hyperdrive.dsn import password_from_file
from hyperdrive.errors import ConfigError
from hyperdrive.pgwire import scram

DEFAULT_FILE = "hyperdrive.toml"
PREFIX = "HYPERDRIVE_"

T = TypeVar("T")

_TABLES = ("users", "databases", "tables")

# Kubernetes gives every container variables about each service of its namespace; for one called "hyperdrive" they start
# like ours. HYPERDRIVE_CONFIG names the file; tests and benchmarks have variables of their own.
_NOT_SETTINGS = re.compile(
    r"HYPERDRIVE_(CONFIG|COMPILED|SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_\d+_\w+|TEST_\w+|BENCH_\w+)"
)


@dataclass(frozen=True, slots=True)
class Reload:
    """What RELOAD found. *settings* is what holds from now on."""

    settings: Settings
    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]


@dataclass(frozen=True)
class Loader:
    """Where the settings of this process come from.

    *file* is read if it exists, unless it *must_exist*. *flags* holds only those that were given, by setting.
    """

    file: Path | None = None
    must_exist: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, object] = field(default_factory=dict)

    def load(self) -> Settings:
        """Read all places.

        Raises:
            ConfigError: one line for each mistake.
        """
        reading = _Reading()
        reading.file(self._file_text(), str(self.file))
        reading.environment(self.env)
        reading.take_flags(self.flags)
        return reading.finish()

    def reload(self, current: Settings) -> Reload:
        """Read all places again; *current* stays as it is if there is a mistake.

        Raises:
            ConfigError: as ``load``.
        """
        new = self.load()
        different = [f.name for f in fields(Settings) if getattr(new, f.name) != getattr(current, f.name)]
        live = [key for key in different if key not in MEANINGS or MEANINGS[key].live]
        fixed = [key for key in different if key not in live]
        kept = replace(new, **{key: getattr(current, key) for key in fixed})
        return Reload(kept, tuple(live), tuple(fixed))

    def _file_text(self) -> str:
        if self.file is None:
            return ""
        try:
            return self.file.read_text(encoding="utf-8")
        except FileNotFoundError as exc:
            if not self.must_exist:
                return ""
            raise ConfigError(f"config: {self.file} does not exist") from exc
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"config: cannot read {self.file}: {exc}") from exc


def loader_for(
    config: str | None,
    flags: Mapping[str, object],
    *,
    env: Mapping[str, str] = os.environ,
    directory: Path | None = None,
) -> Loader:
    """The usual places: *config*, else ``HYPERDRIVE_CONFIG``, else ``hyperdrive.toml`` in the directory if it is there."""
    named = config or env.get(f"{PREFIX}CONFIG") or None
    file = Path(named) if named else (directory or Path()) / DEFAULT_FILE
    return Loader(file=file, must_exist=named is not None, env=env, flags=flags)


class _Reading:
    """Collects values and mistakes while the places are read, in order."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.places: dict[str, str] = {}
        self.mistakes: list[str] = []
        self.users: dict[str, UserSettings] = {}
        self.databases: dict[str, DatabaseSettings] = {}
        self.tables: dict[str, TableSettings] = {}

    def file(self, text: str, name: str) -> None:
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            self.mistakes.append(f"{name}: not TOML: {exc}")
            return
        lines = _lines(text)

        def place(*path: str) -> str:
            return f"{name}:{lines[path]}" if path in lines else name

        for key, value in table.items():
            if key == "users":
                self._table(value, place, key, self._user)
            elif key == "databases":
                self._table(value, place, key, self._database)
            elif key == "tables":
                self._table(value, place, key, self._relation)
            else:
                self._take(key, value, place(key))

    def environment(self, env: Mapping[str, str]) -> None:
        for variable in sorted(env):
            if variable.startswith(PREFIX) and not _NOT_SETTINGS.fullmatch(variable):
                key = variable.removeprefix(PREFIX).lower()
                if key in _TABLES:
                    self.mistakes.append(f"{variable}: {key} is a table; it can only be in the file")
                else:
                    self._take(key, env[variable], variable, spell=lambda near: PREFIX + near.upper())

    def take_flags(self, flags: Mapping[str, object]) -> None:
        for key, value in flags.items():
            shown = "ORIGIN_URL" if key == "origin" else f"--{flag_of(key)}"
            self._take(key, value, shown)

    def finish(self) -> Settings:
        if not self.mistakes:
            settings = Settings(
                **self.values,
                users=MappingProxyType(self.users),
                databases=MappingProxyType(self.databases),
                tables=MappingProxyType(self.tables),
            )
            self._check(settings)
        if self.mistakes:
            raise ConfigError("\n".join(self.mistakes))
        return _with_passfile(settings)

    def _take(self, key: str, value: object, place: str, *, spell: Callable[[str], str] = lambda near: near) -> None:
        if key not in MEANINGS:
            self._unknown(key, place, [*MEANINGS, *_TABLES], spell)
            return
        parsed = self._parse(key, value, place, MEANINGS[key])
        if parsed is not None or key in ("origin", "admin_listen"):
            self.values[key] = parsed
            self.places[key] = place

    def _parse(self, key: str, value: object, place: str, meaning: Meaning, shown_key: str = "") -> Any:
        try:
            return meaning.kind.read(value)
        except ConfigError as exc:
            self.mistakes.append(f"{place}: {shown_key or key}: {exc}")
        except ValueError:
            # What was meant as a secret is not repeated.
            shown = "" if key in ("password", "origin") else f"{value!r} is wrong; "
            self.mistakes.append(f"{place}: {shown_key or key}: {shown}expected {meaning.kind.right}")
        return None

    def _unknown(self, key: str, place: str, known: list[str], spell: Callable[[str], str] = str) -> None:
        near = get_close_matches(key.rpartition(".")[2], known, 1)
        if near:
            right = f"did you mean {spell(near[0])}?"
        else:
            right = f"expected {', '.join(known)}" if len(known) < 10 else "docs/settings.md lists them"
        self.mistakes.append(f"{place}: {key}: no such setting; {right}")

    def _table(self, table: object, place: Callable[..., str], key: str, read: Callable[..., None]) -> None:
        if not isinstance(table, dict):
            self.mistakes.append(f"{place(key)}: {key}: expected a table, [{key}]")
            return
        for name, value in table.items():
            read(name, value, place)

    def _user(self, name: str, value: object, place: Callable[..., str]) -> None:
        if isinstance(value, str):
            value = {"password": value}
        self._entry("users", name, value, place, USER_MEANINGS, UserSettings, self.users)

    def _database(self, name: str, value: object, place: Callable[..., str]) -> None:
        self._entry("databases", name, value, place, DATABASE_MEANINGS, DatabaseSettings, self.databases)

    def _relation(self, name: str, value: object, place: Callable[..., str]) -> None:
        self._entry("tables", name, value, place, TABLE_MEANINGS, TableSettings, self.tables)

    def _entry(
        self,
        table: str,
        name: str,
        value: object,
        place: Callable[..., str],
        known: Mapping[str, Meaning],
        cls: Callable[..., T],
        into: dict[str, T],
    ) -> None:
        if not isinstance(value, dict):
            self.mistakes.append(f"{place(table, name)}: {table}.{name}: expected a table with {', '.join(known)}")
            return
        found = {}
        for key, raw in value.items():
            at = place(table, name, key) if place(table, name, key) != place() else place(table, name)
            if key in known:
                found[key] = self._parse(key, raw, at, known[key], f"{table}.{name}.{key}")
            else:
                self._unknown(f"{table}.{name}.{key}", at, list(known))
        into[name] = cls(**found)
        self.places[f"{table}.{name}"] = place(table, name)

    def _check(self, settings: Settings) -> None:
        """What values must hold together."""

        def wrong(key: str, text: str) -> None:
            place = self.places.get(key)
            self.mistakes.append(f"{place}: {key}: {text}" if place else f"{key}: {text}")

        if settings.min_pool_size > settings.pool_size:
            wrong("min_pool_size", f"{settings.min_pool_size} is above pool_size, {settings.pool_size}")
        if not settings.listen and not settings.unix_socket_dir:
            wrong("listen", "nowhere to listen; give an address or unix_socket_dir")
        if settings.unix_socket_dir and not settings.listen:
            wrong("unix_socket_dir", "the name of the socket comes from the first port of listen, which is empty")
        if settings.backoff_first > settings.backoff_max:
            wrong("backoff_first", "is above backoff_max")
        for name, database in settings.databases.items():
            size = settings.pool_size if database.pool_size is None else database.pool_size
            if database.min_pool_size is not None and database.min_pool_size > size:
                wrong(f"databases.{name}", f"min_pool_size {database.min_pool_size} is above pool_size, {size}")
        if settings.cache_entry_size > settings.cache_size:
            wrong("cache_entry_size", f"is above cache_size, {settings.cache_size}")
        self._check_tls(settings, wrong)
        self._check_authentication(settings, wrong)

    def _check_tls(self, settings: Settings, wrong: Callable[[str, str], None]) -> None:
        if settings.tls_key and not settings.tls_cert:
            wrong("tls_key", "a key needs its certificate; give tls_cert as well")
        for key in ("tls_require", "tls_client_ca"):
            if getattr(settings, key) and not settings.tls_cert:
                wrong(key, "needs tls_cert and tls_key")
        for key in ("tls_cert", "tls_key", "tls_client_ca"):
            path = getattr(settings, key)
            if path and not os.access(path, os.R_OK):
                wrong(key, f"cannot read {path!r}; expected a PEM file")
        origin = settings.origin
        if origin is not None and origin.sslmode.startswith("verify-") and origin.sslrootcert not in ("", "system"):
            if not os.access(origin.sslrootcert, os.R_OK):  # with a weaker mode it is passed over, as in libpq
                wrong("origin", f"sslrootcert: cannot read {origin.sslrootcert!r}; expected a PEM file, or system")

    def _check_authentication(self, settings: Settings, wrong: Callable[[str, str], None]) -> None:
        if settings.auth_method == "cert" and not settings.tls_client_ca:
            wrong("auth_method", "cert needs tls_client_ca, the authority of the clients' certificates")
        outside = [str(address) for address in settings.listen if not address.is_loopback]
        if settings.auth_method == "trust" and outside:
            wrong("auth_method", f"trust is for this machine only; listen has {', '.join(outside)}. Use scram")
        if settings.scram_iterations < scram.DEFAULT_ITERATIONS and outside and not settings.tls_require:
            wrong(
                "scram_iterations",
                f"fewer than {scram.DEFAULT_ITERATIONS} need tls_require; listen has {', '.join(outside)}",
            )
        if settings.auth_query not in ("", "default") and "$1" not in settings.auth_query:
            wrong("auth_query", "needs the user's name as parameter $1, or be `default`")
        if settings.auth_user and settings.auth_user not in settings.users:
            wrong("auth_user", f"{settings.auth_user!r} is not in [users]")


def _with_passfile(settings: Settings) -> Settings:
    """The origin's password from the file its connection string names, unless it has one already."""
    origin = settings.origin
    if origin is None or origin.password is not None or not origin.passfile:
        return settings
    return replace(settings, origin=replace(origin, password=password_from_file(origin.passfile, origin)))


_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?")
_ASSIGNMENT = re.compile(
    r"""\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*="""
)
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+)""")


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """On which line each key stands; only for messages, since tomllib does not tell. Multi-line values may mislead it."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            table = _path(header[1])
            found.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            found.setdefault(table + _path(assignment[1]), number)
    return found


def _path(text: str) -> tuple[str, ...]:
    return tuple(a or b or c for a, b, c in _PART.findall(text))
