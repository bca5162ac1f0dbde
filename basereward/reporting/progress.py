"""A progress bar on standard error, with rows a second and the time left."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Advance(Protocol):
    """Moves the bar on."""

    def __call__(self, num: int = 1, note: str | None = None) -> None:
        """Count `num` more rows as done, and show `note` beside the bar."""


@contextmanager
def progress_bar(description: str, total: int | None, *, is_shown: bool = True) -> Iterator[Advance]:
    """Show a bar while the block runs.

    Args:
        description: What is going on.
        total: How many rows there are, if known.
        is_shown: False for no bar at all.
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
    with Progress(*columns, console=Console(stderr=True), disable=not is_shown) as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(num: int = 1, note: str | None = None) -> None:
            progress.advance(task, num)
            if note is not None:
                progress.update(task, note=note)

        yield advance
        done = progress.tasks[0].completed
        progress.update(task, total=done, completed=done)
