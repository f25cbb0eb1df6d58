"""The console: commands in, rows out. One connects to it as database ``hyperdrive``, or ``pgbouncer`` for existing tools.

Every command states who may give it, and that is asked each time a command is carried out, not only at log-in: a right
that was taken away is gone at once, and no path around the log-in leads past it (CVE-2026-6667 of PgBouncer).
Knows the running proxy by ``ConsoleState``; knows no message of the protocol, see ``wire``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from hyperdrive import __version__
from hyperdrive.admin.state import ConsoleState
from hyperdrive.admin.views import StatsPeriod, Value, View, views
from hyperdrive.clock import Clock, SystemClock
from hyperdrive.errors import AuthenticationFailed, ClientError, FeatureNotSupported

DATABASES = ("hyperdrive", "pgbouncer")


class Right(IntEnum):
    """What a user may do here. More includes less."""

    NONE = 0
    LOOK = 1
    ADMIN = 2


class InsufficientPrivilege(ClientError):
    """The user may not do that."""

    sqlstate = "42501"


class UnknownCommand(ClientError):
    """No command of ours."""

    sqlstate = "42601"


@dataclass(frozen=True, slots=True)
class Rows:
    """An answer with rows. *numbers* are the columns whose values are ``int``."""

    columns: tuple[str, ...]
    rows: list[Sequence[Value]]
    numbers: frozenset[str] = frozenset()
    tag: str = "SHOW"


@dataclass(frozen=True, slots=True)
class Done:
    """An answer without rows. *notice* is something a person should read."""

    tag: str
    notice: str = ""


Answer = Rows | Done


@dataclass(frozen=True, slots=True)
class Command:
    """A command that was understood and not yet carried out. *columns* are known before: drivers describe first."""

    tag: str
    right: Right
    run: Callable[[], Awaitable[Answer]]
    view: View | None = None


class Console:
    """Understands commands and carries them out. One serves all console clients."""

    def __init__(self, state: ConsoleState, clock: Clock | None = None) -> None:
        self.state = state
        self.period = StatsPeriod(clock or SystemClock())
        self.views = views(self.period)

    def right_of(self, user: str) -> Right:
        """What *user* may do now."""
        if self.state.is_admin(user):
            return Right.ADMIN
        return Right.LOOK if self.state.may_look(user) else Right.NONE

    def check_login(self, user: str) -> None:
        """Raises:
        AuthenticationFailed: *user* may do nothing here (28000).
        """
        if self.right_of(user) is Right.NONE:
            raise AuthenticationFailed(
                f'user "{user}" may not use the console',
                sqlstate="28000",
                hint="Name the user in admin_users or stats_users.",
            )

    async def execute(self, sql: str, user: str) -> Answer:
        """Carry out one command.

        Raises:
            ClientError: not understood, not allowed, or not possible; nothing has happened.
            ConfigError: RELOAD found a mistake; nothing has changed.
        """
        return await self.run(self.understand(sql), user)

    async def run(self, command: Command, user: str) -> Answer:
        """Carry out what ``understand`` understood; rights are checked here and nowhere else."""
        if self.right_of(user) < command.right:
            raise InsufficientPrivilege(f'user "{user}" may not do this: {command.tag} needs a user of admin_users')
        return await command.run()

    def understand(self, sql: str) -> Command:
        """What *sql*, one command, asks for.

        Raises:
            ClientError: no command of ours.
        """
        words = _words(sql)
        verb = words[0].upper() if words else ""
        match verb, words[1:]:
            case ("SHOW", [name]) if name.upper() in self.views:
                return self._show(name.upper())
            case ("SHOW", [name]) | (name, []) if name.upper() == "HELP":
                return Command("SHOW", Right.LOOK, self._help, _HELP_VIEW)
            case "SHOW", [*name]:
                return self._show_parameter(" ".join(name))
            case "SELECT", _ if (found := _HARMLESS_SELECTS.get(" ".join(words).lower())) is not None:
                return _constant(*found)
            case _ if verb in _HARMLESS:
                return _harmless(verb)
            case "SET", [name, *_] if name.lower() in _DRIVERS_SET:
                return _harmless("SET")
            case "SET", [name, *_]:
                raise FeatureNotSupported(
                    f'"{name}" cannot be set here', hint="Change the configuration and give the command RELOAD."
                )
        return self._command(verb, words[1:], sql)

    def _command(self, verb: str, arguments: list[str], sql: str) -> Command:
        state = self.state
        on_all = {"PAUSE": state.pause, "RESUME": state.resume, "RECONNECT": state.reconnect, "KILL": state.kill}
        on_one = {"DISABLE": state.disable, "ENABLE": state.enable}
        match verb, [_unquote(argument) for argument in arguments]:
            case "PURGE", ([] | [_]) as one if not one or one[0].upper() == "ALL":
                return Command(verb, Right.ADMIN, lambda: self._purge("all", ""))
            case "PURGE", [what, *name] if name and what.lower() in ("table", "tag", "statement", "role"):
                return Command(verb, Right.ADMIN, lambda: self._purge(what.lower(), " ".join(name)))
            case (("PAUSE" | "RESUME" | "RECONNECT" | "KILL"), ([] | [_]) as databases):
                action = on_all[verb]
                return _action(verb, lambda: action(databases[0] if databases else None))
            case (("DISABLE" | "ENABLE"), [database]):
                change = on_one[verb]
                return _action(verb, lambda: change(database))
            case "KILL_CLIENT", [number] if number.removeprefix("c").isdecimal():
                return Command(verb, Right.ADMIN, lambda: self._kill_client(int(number.removeprefix("c"))))
            case "RELOAD", []:
                return Command(verb, Right.ADMIN, self._reload)
            case "SHUTDOWN", ([] | ["WAIT_FOR_SERVERS" | "WAIT_FOR_CLIENTS"]) as how:
                wait_for = how[0].removeprefix("WAIT_FOR_").lower() if how else ""
                return _action(verb, lambda: state.shutdown(wait_for))
            case "SHUTDOWN", [how_] if how_.upper() in ("WAIT_FOR_SERVERS", "WAIT_FOR_CLIENTS"):
                return self._command(verb, [how_.upper()], sql)
        raise UnknownCommand(f'no such command: "{sql.strip()[:60]}"', hint="SHOW HELP lists the commands.")

    def _show(self, name: str) -> Command:
        view = self.views[name]

        async def run() -> Answer:
            await self.state.refresh()
            return Rows(view.columns, list(view.rows(self.state)), view.numbers)

        return Command("SHOW", Right.ADMIN if view.admin_only else Right.LOOK, run, view)

    def _show_parameter(self, name: str) -> Command:
        """SHOW of a session parameter, which some drivers ask for when they connect."""
        value = PARAMETERS.get(name) or _DRIVERS_SHOW.get(name.lower())
        if value is None:
            raise UnknownCommand(f'nothing to show: "{name[:60]}"', hint="SHOW HELP lists what there is.")
        return _constant(name.lower().replace(" ", "_"), value, tag="SHOW")

    async def _help(self) -> Answer:
        shows = [(f"SHOW {name}", "") for name in sorted(self.views)]
        return Rows(_HELP_VIEW.columns, [*shows, *_HELP])

    async def _kill_client(self, number: int) -> Answer:
        if not await self.state.kill_client(number):
            raise ClientError(f"there is no client {number}", sqlstate="42704")
        return Done("KILL_CLIENT")

    async def _purge(self, what: str, name: str) -> Answer:
        count = await self.state.purge(what, name)
        return Done(f"PURGE {count}", "" if count else "nothing that is stored matches")

    async def _reload(self) -> Answer:
        return Done("RELOAD", await self.state.reload())


_HELP = [
    ("PAUSE [database]", "let servers come back and close them; clients wait"),
    ("RESUME [database]", "serve again after PAUSE or KILL"),
    ("RECONNECT [database]", "replace each server connection when it comes back"),
    ("KILL [database]", "drop clients and servers at once; new clients wait"),
    ("KILL_CLIENT id", "drop one client"),
    ("DISABLE database", "turn new clients away"),
    ("ENABLE database", "let them in again"),
    ("PURGE [ALL]", "drop every answer that is stored"),
    ("PURGE TABLE [schema.]name", "drop those that read from it"),
    ("PURGE TAG name", "drop those with that tag in a hint"),
    ("PURGE STATEMENT 'sql'", "drop those of statements that differ from it in their values only"),
    ("PURGE ROLE name", "drop those that were read as that role"),
    ("RELOAD", "read the configuration again"),
    ("SHUTDOWN", "stop at once"),
    ("SHUTDOWN WAIT_FOR_SERVERS", "stop when transactions have ended"),
    ("SHUTDOWN WAIT_FOR_CLIENTS", "stop when clients have left"),
]


_HELP_VIEW = View(("command", "meaning"), frozenset(), lambda state: ())

#: What we tell console clients about ourselves; drivers need some of it to work.
PARAMETERS = {
    "server_version": f"16.0 (Hyperdrive {__version__})",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "is_superuser": "off",
}

# What drivers and ORMs send of their own accord.
_DRIVERS_SHOW = {
    "transaction isolation level": "read committed",
    "transaction_isolation": "read committed",
    "standard_conforming_strings": "on",
    "server_version": PARAMETERS["server_version"],
    "client_encoding": "UTF8",
}
_DRIVERS_SET = frozenset(
    [
        "application_name",
        "bytea_output",
        "client_encoding",
        "client_min_messages",
        "datestyle",
        "extra_float_digits",
        "intervalstyle",
        "names",
        "search_path",
        "session",
        "standard_conforming_strings",
        "statement_timeout",
        "timezone",
        "time",
    ]
)
_HARMLESS_SELECTS: dict[str, tuple[str, Value]] = {
    "select 1": ("?column?", 1),
    "select version()": ("version", f"Hyperdrive {__version__}"),
    "select pg_advisory_unlock_all()": ("pg_advisory_unlock_all", ""),
}


_HARMLESS = frozenset(
    ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "CLOSE", "DEALLOCATE", "DISCARD", "RESET", "UNLISTEN"]
)


def _constant(column: str, value: Value, *, tag: str = "SELECT 1") -> Command:
    numbers = frozenset([column] if isinstance(value, int) else [])

    async def run() -> Answer:
        return Rows((column,), [(value,)], numbers, tag)

    return Command(tag, Right.LOOK, run, View((column,), numbers, lambda state: ()))


def _harmless(verb: str) -> Command:
    """What transactions and resets of drivers need; there is nothing to commit here."""
    tag = {
        "START": "START TRANSACTION",
        "END": "COMMIT",
        "ABORT": "ROLLBACK",
        "CLOSE": "CLOSE CURSOR ALL",
        "DISCARD": "DISCARD ALL",
    }.get(verb, verb)

    async def run() -> Answer:
        return Done(tag)

    return Command(tag, Right.LOOK, run)


def _action(tag: str, do: Callable[[], Awaitable[None]]) -> Command:
    async def run() -> Answer:
        await do()
        return Done(tag)

    return Command(tag, Right.ADMIN, run)


_TOKEN = re.compile(
    r"""\s+ | --[^\n]* | /\*.*?\*/ | (?P<word>"(?:[^"]|"")*" | '(?:[^']|'')*' | [^\s;"'=,]+ | [=,] | ["'])""",
    re.VERBOSE | re.DOTALL,
)
_PART = re.compile(r"""(?:--[^\n]*|/\*.*?\*/|"(?:[^"]|"")*"|'(?:[^']|'')*'|[^;])+""", re.DOTALL)


def split(sql: str) -> list[str]:
    """The commands of a simple query; empty ones are left out."""
    return [part for part in _PART.findall(sql) if _words(part)]


def _words(sql: str) -> list[str]:
    return [match["word"] for match in _TOKEN.finditer(sql) if match["word"]]


def _unquote(word: str) -> str:
    if word[:1] in ('"', "'") and len(word) > 1:
        return word[1:-1].replace(word[0] * 2, word[0])
    return word
