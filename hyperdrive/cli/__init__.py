"""The command line: ``hyperdrive serve | demo | check | explain | status | top | purge``.

Knows arguments and exit codes: 0 done, 1 it did not work, 2 something was asked for that cannot be. Each command is a module
of its own, imported only when it is asked for, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

from hyperdrive import __version__
from hyperdrive.config.settings import MEANINGS, flag_of
from hyperdrive.errors import ConfigError, HyperdriveError

_EPILOG = """\
serve reads hyperdrive.toml and the environment, too; docs/settings.md has all settings."""


class _Version(argparse.Action):
    """Looks whether the compiled part is there only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        lane = import_module("hyperdrive.proxy.lane")
        sys.stdout.write(f"hyperdrive {__version__}, {lane.described()}\n")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Complaints in one line; what a command does not know is its own complaint, not that of the whole."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown[0])}")
        return found, unknown

    def _meant(self, given: str) -> str:
        near = get_close_matches(given.partition("=")[0], self._option_string_actions, 1, cutoff=0.75)
        return f"; did you mean {near[0]}?" if near else ""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    top = _Parser(
        prog="hyperdrive",
        description="A PostgreSQL proxy that makes a distant database feel local.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="show it, and whether the optional part is compiled")
    commands: argparse._SubParsersAction[_Parser] = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_serve(commands)

    demo = commands.add_parser(
        "demo", help="an embedded PostgreSQL behind a simulated distance: direct and through us", allow_abbrev=False
    )
    demo.add_argument(
        "--distance", type=_milliseconds, default=80.0, metavar="MS", help="round trip in ms (default: 80)"
    )
    demo.add_argument("--once", action="store_true", help="measure, print, and end")

    check = commands.add_parser("check", help="look at an origin: what works, what is missing", allow_abbrev=False)
    _add_origin(check)

    explain = commands.add_parser("explain", help="what we make of a statement", allow_abbrev=False)
    explain.add_argument("sql", metavar="SQL", help="the statement, or - to read it from standard input")
    _add_origin(explain)

    for name, text in (("status", "the state of a running proxy"), ("top", "the same, again and again")):
        one = commands.add_parser(name, help=text, allow_abbrev=False)
        one.add_argument("--admin", metavar="HOST:PORT", help="its admin address (default: as serve would use here)")
        one.add_argument("--config", metavar="FILE", help="where that address may be set (default: hyperdrive.toml)")
        if name == "status":
            one.add_argument("--json", action="store_true", help="as JSON")
        else:
            one.add_argument(
                "--interval", type=_seconds, default=1.0, metavar="S", help="seconds between looks (default: 1)"
            )
    purge = commands.add_parser("purge", help="drop stored answers of a running proxy", allow_abbrev=False)
    purge.add_argument("--table", metavar="[SCHEMA.]NAME", help="those that read from it")
    purge.add_argument("--tag", metavar="NAME", help="those with that tag in a hint")
    purge.add_argument("--statement", metavar="SQL", help="those of statements that differ in their values only")
    purge.add_argument("--role", metavar="NAME", help="those that were read as that role")
    purge.add_argument("--all", action="store_true", help="all of them")
    purge.add_argument("--admin", metavar="HOST:PORT", help="its admin address (default: as serve would use here)")
    purge.add_argument("--config", metavar="FILE", help="where that address may be set (default: hyperdrive.toml)")
    return top


def _add_origin(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "origin", nargs="?", metavar="ORIGIN_URL", help="postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    )
    command.add_argument("--config", metavar="FILE", help="settings (default: hyperdrive.toml, if there is one)")


def _add_serve(commands: argparse._SubParsersAction[_Parser]) -> None:
    serve = commands.add_parser(
        "serve",
        usage="hyperdrive serve [ORIGIN_URL] [--config FILE] [--SETTING VALUE ...]",
        help="run the proxy; without ORIGIN_URL in front of an embedded PostgreSQL",
        epilog="Every setting has a flag; docs/settings.md says more about each.",
        allow_abbrev=False,
    )
    _add_origin(serve)
    group: argparse._ArgumentGroup = serve.add_argument_group("Origin")
    for key, meaning in MEANINGS.items():
        if meaning.section and meaning.section != "Origin":
            group = serve.add_argument_group(meaning.section)
        if key == "origin":
            continue
        flag = flag_of(key)
        text = meaning.text.split(". ")[0].split("; ")[0].replace("`", "").replace("%", "%%")
        if key == "cache":
            group.add_argument("--no-cache", dest=key, action="store_const", const="off", help="as --cache off")
        if meaning.kind.name == "boolean":
            group.add_argument(f"--{flag}", dest=key, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            group.add_argument(f"--{flag}", dest=key, metavar=meaning.kind.name.upper(), help=text)


def _milliseconds(text: str) -> float:
    try:
        value = float(text.removesuffix("ms"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 60_000:
        raise argparse.ArgumentTypeError(f"{text!r} is wrong; expected milliseconds from 0 to 60000, such as 80")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is wrong; expected seconds, such as 1 or 0.5")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the value is the exit code."""
    options = parser().parse_args(arguments)
    try:
        code: int = import_module(f"hyperdrive.cli.{options.command}").run(options)
    except ConfigError as error:
        return _complain("\n".join(filter(None, [error.client_text, error.hint])), 2)
    except HyperdriveError as error:
        return _complain(error.log_text, 1)
    except BrokenPipeError:  # the reader of our output has had enough
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _complain(text: str, code: int) -> int:
    for line in text.splitlines():
        sys.stderr.write(f"hyperdrive: {line}\n")
    return code
