"""A progress bar on standard error, with rows a second and the time left."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


class Advance(Protocol):
    """Advances the bar."""

    def __call__(self, num: int = 1, note: str | None = None) -> None:
        """Count `num` more rows as done, and show `note` beside the bar."""


@contextmanager
def progress_bar(
    description: str,
    total: int | None,
    *,
    is_shown: bool = True,
    console: Console | None = None,
    is_transient: bool = False,
) -> Iterator[Advance]:
    """Show a bar while the block runs.

    Args:
        description: Label of the bar.
        total: Number of rows, if it is known.
        is_shown: False for no bar at all.
        console: The console to draw on; standard error if it isn't given.
        is_transient: Whether the bar disappears at the end.
    """
    from rich.console import Console
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
    console = Console(stderr=True) if console is None else console
    with Progress(*columns, console=console, disable=not is_shown, transient=is_transient) as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(num: int = 1, note: str | None = None) -> None:
            progress.advance(task, num)
            if note is not None:
                progress.update(task, note=note)

        yield advance
        done = progress.tasks[0].completed
        progress.update(task, total=done, completed=done)
