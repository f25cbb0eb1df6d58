"""What a person sees while it runs: one line that changes, above it what is finished.

On a terminal the line is rewritten in place; elsewhere it is printed at most every two seconds, so a log shows that it lives.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

QUIET_SECONDS = 2.0


class Live:
    """Progress on *out*."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._is_terminal = self._out.isatty()
        self._last = 0.0
        self._shown = False
        self.where = ""
        """What is going on; stands in front of every passing line."""

    def now(self, text: str) -> None:
        """Show *text* until something else is to be said."""
        line = f"{self.where}  {text}" if self.where else text
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r\033[K{line[:width]}")
            self._out.flush()
            self._shown = True
        elif time.monotonic() - self._last >= QUIET_SECONDS:
            self._last = time.monotonic()
            self._out.write(f"  … {line}\n")
            self._out.flush()

    def say(self, text: str = "") -> None:
        """Print *text* for good."""
        if self._shown:
            self._out.write("\r\033[K")
            self._shown = False
        self._last = time.monotonic()
        self._out.write(f"{text}\n")
        self._out.flush()


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows as columns, the first being the head; all but the first column to the right."""
    texts = [[figure(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if index == 0 else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    )


def figure(value: object) -> str:
    """A number with as many digits as mean something."""
    if isinstance(value, float):
        if value and abs(value) < 10:
            return f"{value:.2f}"
        return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)
