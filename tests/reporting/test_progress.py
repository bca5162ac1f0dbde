"""Progress in a log: a line at the start, and one every ten seconds of work; a bar in a terminal only."""

from __future__ import annotations

import io
import os
import pty
import sys

import pytest
from rich.console import Console

from basereward.reporting.progress import ProgressLines, progress_bar


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_at_the_start_and_every_ten_seconds() -> None:
    clock, written = Clock(), list[str]()
    lines = ProgressLines("scoring", 2000, written.append, clock=clock)
    assert written == ["scoring: 0/2,000"]
    for _ in range(35):  # a row a second
        clock.now += 1
        lines.advance()
    # After 10 s 10 rows are done, 1.0 a second; the 1,990 that are left take 1,990 s = 33 min 10 s.
    assert written[1:] == [
        "scoring: 10/2,000 (0%), 1.0/s, 0:33:10 left",
        "scoring: 20/2,000 (1%), 1.0/s, 0:33:00 left",
        "scoring: 30/2,000 (2%), 1.0/s, 0:32:50 left",
    ]


def test_short_work_is_one_line() -> None:
    clock, written = Clock(), list[str]()
    lines = ProgressLines("scoring", 3, written.append, clock=clock)
    for _ in range(3):
        clock.now += 3
        lines.advance()
    lines.close()
    assert written == ["scoring: 0/3"]


def test_the_end_of_long_work_is_said() -> None:
    clock, written = Clock(), list[str]()
    lines = ProgressLines("scoring", 4, written.append, clock=clock)
    for _ in range(4):
        clock.now += 6
        lines.advance(note="0.500 correct")
    lines.close()
    # Lines after 12 and 24 s: 2 rows in 12 s are 0.17 a second, and 2 more take 12 s.
    assert written[1:] == [
        "scoring: 2/4 (50%), 0.2/s, 0:00:12 left, 0.500 correct",
        "scoring: 4/4 (100%), 0.2/s, 0:00:24 so far, 0.500 correct",
    ]


def test_the_rate_leaves_out_what_was_done_before() -> None:
    clock, written = Clock(), list[str]()
    lines = ProgressLines("training", 100, written.append, done=80, clock=clock)
    clock.now += 10
    lines.advance(10)
    assert written == ["training: 80/100", "training: 90/100 (90%), 1.0/s, 0:00:10 left"]


def test_a_number_of_rows_that_is_not_known_is_not_said() -> None:
    clock, written = Clock(), list[str]()
    lines = ProgressLines("reading", None, written.append, clock=clock)
    clock.now += 20
    lines.advance(50_000)
    clock.now += 5
    lines.advance(2500)
    lines.close()
    # 50,000 rows in 20 s, and 52,500 in 25 s.
    assert written == [
        "reading: 0",
        "reading: 50,000, 2,500.0/s, 0:00:20 so far",
        "reading: 52,500, 2,100.0/s, 0:00:25 so far",
    ]


def test_no_rows_are_no_division_by_zero() -> None:
    clock, written = Clock(), list[str]()
    lines = ProgressLines("reading", 0, written.append, clock=clock)
    lines.advance(0)
    clock.now += 10
    lines.advance(0)
    assert written == ["reading: 0/0", "reading: 0/0, 0.0/s, 0:00:10 so far"]


@pytest.mark.parametrize("force_terminal", [False, True])
def test_a_file_gets_lines_even_where_colours_are_forced(force_terminal: bool) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=force_terminal, width=20)
    with progress_bar("scoring [b]the rows[/b] of a long name", 2, console=console) as advance:
        advance(2)
    assert file.getvalue() == "scoring [b]the rows[/b] of a long name: 0/2\n"


def test_nothing_is_written_where_nothing_is_to_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("scoring", 2, is_shown=False) as advance:
        advance(2, "a note")
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        with progress_bar("scoring", 2, console=Console(file=terminal, force_terminal=True)) as advance:
            advance(2)
        terminal.flush()
        text = os.read(leader, 100_000).decode()
    os.close(leader)
    assert "\x1b[" in text
    assert "━" in text


def test_transformers_draws_no_bars_into_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import logging

    from basereward.backbones.transformers_model import transformers_bars

    logging.enable_progress_bar()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with transformers_bars():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled()
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with transformers_bars():
            assert logging.is_progress_bar_enabled()
    os.close(leader)
