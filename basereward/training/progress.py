"""Progress of a training on standard error: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from basereward.comparison import Comparison
from basereward.data import Dataset
from basereward.reporting.progress import (
    Advance,
    ProgressLines,
    draws_bars,
    duration,
    progress_bar,
    write_line,
)


class Display:
    """Shows a training's progress, speed and metrics."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.console = Console(stderr=True, quiet=not enabled, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._lines: ProgressLines | None = None
        self._step: Mapping[str, Any] = {}
        self._held_out: float | None = None

    def line(self, text: str) -> None:
        """Print a line that stays."""
        write_line(self.console, text)

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Show that something of unknown length is going on."""
        if self._is_live:
            status: AbstractContextManager[object] = self.console.status(text)
            return status
        self.line(text)
        return nullcontext()

    @property
    def _is_live(self) -> bool:
        return self.enabled and draws_bars(self.console)

    def reading(self, dataset: Dataset, split: str) -> Iterator[Comparison]:
        """Yield a data set's comparisons while showing their number."""
        # Two bars at once would tear each other; later epochs' data is read while the training's bar is up.
        if self._bar is not None:
            yield from dataset
            return
        with self._progress(f"reading data.{split}", dataset.num_rows) as advance:
            for number, comparison in enumerate(dataset, start=1):
                if number % 100 == 0:  # drawing takes longer than reading a row
                    advance(100)
                yield comparison

    def validating(self, num_rows: int) -> AbstractContextManager[Advance]:
        """Show a validation's progress, outside a terminal, where the bar of the training stands."""
        return self._progress("validating", num_rows, is_shown=self._bar is None)

    def _progress(
        self, label: str, num_rows: int | None, *, is_shown: bool = True
    ) -> AbstractContextManager[Advance]:
        return progress_bar(
            label, num_rows, is_shown=is_shown and self.enabled, console=self.console, is_transient=True
        )

    def start(self, num_steps: int, step: int, held_out: float | None) -> None:
        """Show the bar of the training, or its first line."""
        self._held_out = held_out
        if not self._is_live:
            self._lines = ProgressLines("training", num_steps, self.line, done=step)
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            # Drawing takes CPU time that small machines need for the training.
            refresh_per_second=2,
            expand=True,
        )
        self._task = self._bar.add_task("training", total=num_steps, completed=step, facts="")
        self._bar.start()

    def advance(self, step: int) -> None:
        """Count a step as done."""
        if self._lines is not None:
            self._lines.advance(step - self._lines.done)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step)

    def record(self, record: Mapping[str, Any], num_steps: int) -> None:
        """Show a record of the log."""
        place = f"step {record['step']}/{num_steps}"
        if record["kind"] == "evaluation":
            self._held_out = record["accuracy"]
            self.line(f"{place}: held-out accuracy {_number(self._held_out, '.4f')}")
        else:
            self._step = record
        if self._bar is not None and self._task is not None:
            fixed_text = f"training  {num_steps}/{num_steps}  left 00:00:00"
            width = self.console.width - len(fixed_text) - MIN_BAR_WIDTH
            self._bar.update(self._task, facts=facts(self._step, self._held_out, width=width))
        elif record["kind"] == "step":
            self.line(f"{place}: {facts(record, self._held_out)}  {time_left(record, num_steps)} left")

    def stop(self) -> None:
        """Remove the bar, or write the last line."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


MIN_BAR_WIDTH = 10  # characters

MINOR_FIRST = (
    "fill",
    "tokens_per_second",
    "mfu",
    "grad_norm",
    "lr",
    "margin",
    "pairs_per_second",
    "accuracy",
)
"""Values of a record in the order in which a narrow terminal leaves them out."""


def time_left(record: Mapping[str, Any], num_steps: int) -> str:
    """Return how long the steps that are left take at the pace so far, validations included."""
    step, seconds = record["step"], record.get("seconds")
    if not seconds or not step:
        return "unknown"
    return duration(seconds / step * (num_steps - step))


def facts(step: Mapping[str, Any], held_out: float | None, *, width: int | None = None) -> str:
    """Return loss, accuracy, rates and held-out accuracy as a short line.

    Args:
        step: A record of the log; values that it lacks are left out.
        held_out: Accuracy of the latest validation.
        width: Longest line in characters, for which minor values are left out; None for no limit.
    """
    rates = step.get("lr") or {}
    values = {
        "loss": f"loss {_number(step.get('loss'), '.4f')}",
        "accuracy": f"accuracy {_number(step.get('accuracy'), '.3f')}",
        "margin": f"margin {_number(step.get('margin'), '.3g')}",
        "lr": f"lr {_number(max(rates.values(), default=None), '.3g')}",
        "grad_norm": f"gradient norm {_number(step.get('grad_norm'), '.3g')}",
        "pairs_per_second": f"{_number(step.get('pairs_per_second'), '.1f')} pairs/s",
        "tokens_per_second": f"{_short(step.get('tokens_per_second'))} tokens/s",
        "fill": f"fill {_number(step.get('fill'), '.0%')}",
        "mfu": f"MFU {_number(step.get('mfu'), '.0%')}",
    }
    texts = {name: text for name, text in values.items() if name in step}
    if held_out is not None:
        texts["held_out"] = f"held-out {held_out:.3f}"
    for name in MINOR_FIRST:
        if width is not None and len("  ".join(texts.values())) > width:
            texts.pop(name, None)
    return "  ".join(texts.values())


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _short(value: float | None) -> str:
    """Return a number with about three digits."""
    if value is None or value < 1000:
        return _number(value, ".0f")
    scaled, unit = (value / 1e3, "k") if value < 1e6 else (value / 1e6, "M")
    return f"{scaled:.{0 if scaled >= 99.5 else 1}f}{unit}"
