"""``python -m bench``: everything; ``python -m bench`` and a word does a part of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence


def _commands() -> dict[str, Callable[[Sequence[str]], int]]:
    from bench import compare, guard, profile, promises, readme, report, round_trips, run

    return {
        "run": run.main,
        "round-trips": round_trips.main,
        "micro": profile.main,
        "compare": compare.main,
        "guard": guard.main,
        "prepare": run.prepare,
        "targets": promises.main,
        "readme": readme.main,
        "report": report.main,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = _commands()
    if given and given[0] in commands:
        return commands[given[0]](given[1:])
    if any(argument.partition("=")[0] == "--origin" for argument in given):
        from bench import own

        return own.main(given)
    if given and not given[0].startswith("-"):
        sys.stderr.write(f"bench: {given[0]!r} is none of {', '.join(commands)}\n")
        return 2
    return commands["run"](given)


if __name__ == "__main__":
    raise SystemExit(main())
