"""The reference page of the settings, made from the table: ``python -m hyperdrive.config.reference > docs/settings.md``.

A test compares the page in the repository with this, so no setting can be without its paragraph.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from hyperdrive.config.entries import DATABASE_MEANINGS, TABLE_MEANINGS, USER_MEANINGS
from hyperdrive.config.meaning import Meaning
from hyperdrive.config.settings import DEFAULTS, MEANINGS
from hyperdrive.config.units import DURATION, FLAG, SIZE, TEXT
from hyperdrive.dsn import IGNORED, UNSUPPORTED

_HEAD = """\
# Settings

<!-- Made by `python -m hyperdrive.config.reference > docs/settings.md`; do not edit. -->

A setting can stand in three places, and the later wins:

1. `hyperdrive.toml` in the working directory, or the file that `--config` or `HYPERDRIVE_CONFIG` names;
2. the environment: `HYPERDRIVE_` and the name in capitals, such as `HYPERDRIVE_POOL_SIZE=50`;
3. flags of `hyperdrive serve`: `--pool-size 50`.

A wrong value or an unknown name stops the start, and the message names the key, the place and what would be right.
`RELOAD` in the console, or the signal HUP, reads the same places again: what is marked *live* changes at once, the rest
keeps its value until a restart and is named in the log.

Durations are seconds or have a unit (`us`, `ms`, `s`, `min`, `h`, `d`), sizes are bytes or have one (`KiB`, `MiB`, `GiB`).
"""

_EXAMPLE = """
## Example

```toml
origin = "postgresql://app:secret@db.example.com/shop?sslmode=verify-full"
listen = "127.0.0.1:6543"
pool_size = 40
query_wait_timeout = "10s"
admin_users = ["ops"]

[users]
ops = "SCRAM-SHA-256$4096:…"
batch = { password = "another secret", pool_mode = "session", max_user_connections = 5 }

[databases.reports]
dbname = "shop"
pool_size = 5

[tables."public.prices_*"]
max_age = "5s"
```
"""


def render() -> str:
    """The whole page."""
    parts = [_HEAD]
    for key, meaning in MEANINGS.items():
        if meaning.section:
            parts.append(f"\n## {meaning.section}\n")
        parts.append(_entry(key, meaning, meaning.kind.show(getattr(DEFAULTS, key))))
    parts.append("\n## Users: `[users]`\n\nA table of names, in the file only. " + _table(USER_MEANINGS))
    parts.append("\n## Databases: `[databases.NAME]`\n\nWhat differs for one database. " + _table(DATABASE_MEANINGS))
    parts.append(
        '\n## Tables: `[tables."PATTERN"]`\n\nWhat differs for answers that read from the relations whose `schema.name` matches the pattern,'
        " shell-style; the first that matches counts, and of several relations the strictest. " + _table(TABLE_MEANINGS)
    )
    parts += [_EXAMPLE, _connection_strings()]
    return "".join(parts)


def _entry(key: str, meaning: Meaning, default: str) -> str:
    live = " · live" if meaning.live else ""
    # The head of the page says how these are written.
    what = meaning.kind.name if meaning.kind in (DURATION, SIZE, FLAG, TEXT) else meaning.kind.right
    return f"\n**`{key}`** · {what} · default {f'`{default}`' if default else 'empty'}{live}  \n{meaning.text}\n"


def _table(meanings: Mapping[str, Meaning]) -> str:
    rows = "".join(
        f"| `{key}` | {m.kind.name if m.kind is TEXT else m.kind.right} | {m.text} |\n" for key, m in meanings.items()
    )
    return "What is left out is as for all.\n\n| key | value | meaning |\n|---|---|---|\n" + rows


def _connection_strings() -> str:
    def names(keys: Mapping[str, Any]) -> str:
        return ", ".join(f"`{key}`" for key in keys)

    reasons = "".join(f"- `{key}`: {why}\n" for key, why in IGNORED.items())
    return (
        "\n## The connection string of `origin`\n\n"
        "Both of libpq's forms, with several hosts, unix-domain sockets (`host=/var/run/postgresql`), `hostaddr`, `options`,\n"
        "`sslmode` and its relatives, `channel_binding`, `application_name`, `connect_timeout`, TCP keepalives. A password\n"
        "file is read if `passfile` names it. The variables `PG*` are not looked at.\n\n"
        "Accepted and of no effect:\n\n"
        + reasons
        + "\nRefused unless they have their default value, because we could not"
        f" keep the promise: {names(UNSUPPORTED)}.\n"
    )


if __name__ == "__main__":
    sys.stdout.write(render())
