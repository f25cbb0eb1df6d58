"""What a person sees while it runs: the figures so far as a table, a line that says what is going on, above it what is finished.

On a terminal the table is rewritten in place twice a second; elsewhere a line is printed at least each second, so that a log shows that it
lives. A thread sees to that, because a workload may wait for a program that says nothing.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TextIO

QUIET_SECONDS = 0.7
TICK_SECONDS = 0.25


class Live:
    """Progress on *out*. ``with`` starts the thread; without it, it speaks only when spoken to."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._is_terminal = self._out.isatty()
        self._lock = threading.RLock()
        self._last = 0.0
        self._shown_lines = 0
        self._text = ""
        self._since = self._start = time.monotonic()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.where = ""
        """What is going on; stands in front of every passing line."""
        self.progress = ""
        """How far the whole run is."""
        self.board: Callable[[], str] | None = None
        """Gives the figures so far, for a terminal."""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._tick, name="live", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._wipe()

    def now(self, text: str) -> None:
        """Show *text* until something else is to be said."""
        with self._lock:
            self._text, self._since = text, time.monotonic()
            self._paint()

    def say(self, text: str = "") -> None:
        """Print *text* for good."""
        with self._lock:
            self._wipe()
            self._last = time.monotonic()
            self._out.write(f"{text}\n")
            self._out.flush()

    def _tick(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            with self._lock:
                self._paint()

    def _line(self) -> str:
        elapsed = time.monotonic() - self._start
        waited = time.monotonic() - self._since
        parts = [f"{int(elapsed) // 60}:{int(elapsed) % 60:02}", self.progress, self.where, self._text]
        return "  ".join(part for part in parts if part) + (f"  ({waited:.0f} s)" if waited > 1.5 else "")

    def _paint(self) -> None:
        if self._is_terminal:
            self._repaint()
        elif time.monotonic() - self._last >= QUIET_SECONDS:
            self._last = time.monotonic()
            self._out.write(f"  … {self._line()}\n")
            self._out.flush()

    def _repaint(self) -> None:
        size = shutil.get_terminal_size()
        lines = self.board().splitlines() if self.board is not None else []
        lines = [*lines[: max(0, size.lines - 3)], self._line()]
        self._wipe()
        self._out.write("\n".join(line[: size.columns - 1] for line in lines))
        self._out.flush()
        self._shown_lines = len(lines)

    def _wipe(self) -> None:
        if self._shown_lines:
            up = f"\033[{self._shown_lines - 1}A" if self._shown_lines > 1 else ""
            self._out.write(f"\r{up}\033[J")
            self._shown_lines = 0


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
