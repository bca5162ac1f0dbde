"""Progress on standard error, with rows a second and the time left: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

SECONDS_BETWEEN_LINES = 10.0


class Advance(Protocol):
    """Advances the bar."""

    def __call__(self, num: int = 1, note: str | None = None) -> None:
        """Count `num` more rows as done, and show `note` beside the bar."""


class ProgressLines:
    """Progress as lines of a log: one at the start, and one every ten seconds of work.

    Args:
        description: Name of the work.
        total: Number of rows, if it is known.
        write: Takes each line.
        done: Rows that were done before.
        clock: Returns seconds, counted from any moment.
    """

    def __init__(
        self,
        description: str,
        total: int | None,
        write: Callable[[str], None],
        *,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.description = description
        self.total = total
        self.done = done
        self._write = write
        self._clock = clock
        self._num_before = done
        self._note = ""
        self._start = self._last = clock()
        self._done_written: int | None = None
        write(f"{description}: {self._counts()}")

    def advance(self, num: int = 1, note: str | None = None) -> None:
        """Count `num` more rows as done, and write a line if the last one was ten seconds ago."""
        self.done += num
        self._note = self._note if note is None else note
        now = self._clock()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            self._done_written = self.done
            self._write(self._line(now - self._start))

    def close(self) -> None:
        """Write where the work has ended, if it took so long that lines were written."""
        if self._done_written not in (None, self.done):
            self._write(self._line(self._clock() - self._start))

    def _counts(self) -> str:
        return f"{self.done:,}" if self.total is None else f"{self.done:,}/{self.total:,}"

    def _line(self, seconds: float) -> str:
        share = f" ({self.done / self.total:.0%})" if self.total else ""
        rate = (self.done - self._num_before) / seconds if seconds else 0.0
        parts = [f"{self._counts()}{share}", f"{rate:,.1f}/s"]
        if self.total is not None and self.done < self.total and rate:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        else:
            parts.append(f"{duration(seconds)} so far")
        return f"{self.description}: " + ", ".join(part for part in (*parts, self._note) if part)


def duration(seconds: float) -> str:
    """Return a length of time as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def draws_bars(console: Console) -> bool:
    """Tell whether a console can draw over what it has written: a log file can't, whatever its colours."""
    return bool(console.is_interactive and console.file.isatty())


@contextmanager
def progress_bar(
    description: str,
    total: int | None,
    *,
    is_shown: bool = True,
    console: Console | None = None,
    is_transient: bool = False,
) -> Iterator[Advance]:
    """Show a bar, or write lines where no bar can be drawn, while the block runs.

    Args:
        description: Label of the bar.
        total: Number of rows, if it is known.
        is_shown: False for neither bar nor lines.
        console: The console to draw on; standard error if it isn't given.
        is_transient: Whether the bar disappears at the end.
    """
    if not is_shown:
        yield lambda num=1, note=None: None
        return
    from rich.console import Console

    console = Console(stderr=True) if console is None else console
    if draws_bars(console):
        with _bar(description, total, console, is_transient=is_transient) as advance:
            yield advance
        return
    shown = console
    lines = ProgressLines(description, total, lambda text: write_line(shown, text))
    try:
        yield lines.advance
    finally:
        lines.close()


def write_line(console: Console, text: str) -> None:
    """Write one line as it is, however long, and where standard error is a file, at once."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _bar(description: str, total: int | None, console: Console, *, is_transient: bool) -> Iterator[Advance]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):  # type: ignore[misc]
        """Rows a second since the start; a rate of the last moments would jump with each batch."""

        def render(self, task: Task) -> Text:
            seconds = task.finished_time or task.elapsed
            return Text(f"{task.completed / seconds:,.1f}/s" if seconds else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=is_transient) as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(num: int = 1, note: str | None = None) -> None:
            progress.advance(task, num)
            if note is not None:
                progress.update(task, note=note)

        yield advance
        done = progress.tasks[0].completed
        progress.update(task, total=done, completed=done)
