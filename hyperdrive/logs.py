"""How a line of the log looks, as text or JSON, and which connection it is about.

Loggers are called ``hyperdrive.<package>``. *error*: someone must act; *warning*: a promise is weaker; *info*: life of the
process and its pools; *debug*: traffic, where the first character says what kind: ``<`` in, ``>`` out, ``=`` state, ``%``
upkeep, ``-`` deadline, ``x`` closing, ``!`` failure. Passwords never appear, parameters and rows only at debug.

On hot paths the flag is read once per connection: ``if self.debug: self.log.debug("< %s", summary)``.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

ROOT = "hyperdrive"

# A line is one line: names and SQL come from strangers.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ConnectionLog(logging.LoggerAdapter[logging.Logger]):
    """A logger for one connection; its lines carry *connection*, such as ``c17`` or ``s3``."""

    def __init__(self, logger: logging.Logger, connection: str) -> None:
        super().__init__(logger, {"connection": connection})

    @property
    def is_debug(self) -> bool:
        """Whether traffic is worth describing; to be read once, not per message."""
        return self.logger.isEnabledFor(logging.DEBUG)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = self.extra
        return msg, kwargs


def one_line(text: str) -> str:
    """*text* with control characters written as escapes."""
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode("ascii"), text)


class TextFormatter(logging.Formatter):
    """``2030-01-31 12:00:00.000 info pool s3: = idle``; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        connection = getattr(record, "connection", "")
        place = " ".join(part for part in (_area(record), connection) if part)
        line = f"{_time(record, ' ')} {record.levelname.lower()} {place}: {one_line(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record, "T") + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if connection := getattr(record, "connection", ""):
            line["connection"] = connection
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str = "info", style: str = "text", stream: TextIO | None = None) -> None:
    """Send the lines of our loggers to *stream* (standard error); calling again replaces what was set before."""
    root = logging.getLogger(ROOT)
    for handler in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(handler)
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root.addHandler(handler)
    root.setLevel(level.upper())
    root.propagate = False


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, to be told apart from handlers that a program which embeds us has set."""


def _area(record: logging.LogRecord) -> str:
    return record.name.removeprefix(f"{ROOT}.")


def _time(record: logging.LogRecord, between: str) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(between, "milliseconds").removesuffix("+00:00")
