"""Progress of a training on standard error: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from basereward.comparison import Comparison
from basereward.data import Dataset
from basereward.reporting.progress import progress_bar


@contextmanager
def without_transformers_bars() -> Iterator[None]:
    """Keep transformers from drawing its bars, one for each file that it reads or writes, into ours."""
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


class Display:
    """Shows a training's progress, speed and metrics."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.console = Console(stderr=True, quiet=not enabled, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._step: Mapping[str, Any] = {}
        self._held_out: float | None = None

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, markup=False)

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Show in a terminal that something of unknown length is going on."""
        return self.console.status(text) if self._is_live else nullcontext()

    @property
    def _is_live(self) -> bool:
        return self.enabled and self.console.is_terminal

    def reading(self, dataset: Dataset, split: str) -> Iterator[Comparison]:
        """Yield a data set's comparisons while showing their number."""
        # Two bars at once would tear each other; later epochs' data is read while the training's bar is up.
        if not self._is_live or self._bar is not None:
            yield from dataset
            return
        label = f"reading data.{split}"
        with progress_bar(label, dataset.num_rows, console=self.console, is_transient=True) as advance:
            for number, comparison in enumerate(dataset, start=1):
                if number % 100 == 0:  # drawing takes longer than reading a row
                    advance(100)
                yield comparison

    def start(self, num_steps: int, step: int, held_out: float | None) -> None:
        """Show the bar of the training."""
        self._held_out = held_out
        if not self._is_live:
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
        """Move the bar on after a step."""
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
            self.line(f"{place}: {facts(record, self._held_out)}")

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


MIN_BAR_WIDTH = 10  # characters


def facts(step: Mapping[str, Any], held_out: float | None, *, width: int | None = None) -> str:
    """Return throughput, loss and held-out accuracy as a short line.

    Args:
        step: A record of the log; values that it lacks are left out.
        held_out: Accuracy of the latest validation.
        width: Longest line in characters, for which minor values are left out; None for no limit.
    """
    rates = {
        "pairs_per_second": f"{_number(step.get('pairs_per_second'), '.1f')} pairs/s",
        "tokens_per_second": f"{_short(step.get('tokens_per_second'))} tokens/s",
        "fill": f"fill {_number(step.get('fill'), '.0%')}",
        "mfu": f"MFU {_number(step.get('mfu'), '.0%')}",
        "loss": f"loss {_number(step.get('loss'), '.4f')}",
    }
    texts = {name: text for name, text in rates.items() if name in step}
    if held_out is not None:
        texts["held_out"] = f"held-out {held_out:.3f}"
    for name in ("fill", "tokens_per_second", "mfu", "pairs_per_second"):
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
