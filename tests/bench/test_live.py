"""What is shown while a run goes on."""

from __future__ import annotations

import io
import re
import time

from bench.live import Live


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_few_passing_lines() -> None:
    """Without a terminal passing lines come about once a second, so a hundred at once are one."""
    out = io.StringIO()
    live = Live(out)
    for number in range(100):
        live.now(f"{number}")
    live.say("done")
    assert out.getvalue() == "  … 0:00  0\ndone\n"


def test_a_workload_that_says_nothing_does_not_make_the_log_silent() -> None:
    out = io.StringIO()
    with Live(out) as live:
        live.where = "select, us"
        live.now("waiting")
        # Twice as long as three lines take, since the machine may be busy.
        time.sleep(4.5)
    lines = out.getvalue().splitlines()
    assert len(lines) >= 3
    assert re.fullmatch(r"  … 0:0[345]  select, us  waiting  \([345] s\)", lines[-1])


def test_on_a_terminal_the_figures_so_far_stand_above_the_line() -> None:
    out = Terminal()
    live = Live(out)
    live.board = lambda: "throughput  us\n1/s         10"
    live.now("…")
    assert out.getvalue() == "throughput  us\n1/s         10\n0:00  …"
    live.say("done")
    assert out.getvalue().endswith("\r\033[2A\033[Jdone\n")
