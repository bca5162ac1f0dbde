"""Stopping a training from outside: the step is finished, a checkpoint is written, and nothing is lost."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from basereward.errors import BaseRewardError


class TrainingStopped(BaseRewardError):
    """A training that a signal ended early, after it had written a checkpoint.

    Args:
        signal_number: The signal.
        step: The last step that the checkpoint holds.
        run_dir: The run directory to resume.
    """

    def __init__(self, signal_number: int, step: int, run_dir: str) -> None:
        self.signal_number = signal_number
        self.step = step
        name = signal.Signals(signal_number).name
        super().__init__(
            f"stopped by {name} after step {step}; {run_dir} holds a checkpoint: "
            "give the same command with --resume to go on"
        )


class StopRequest:
    """Notes SIGINT and SIGTERM while it is entered; a second one has its usual effect."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        # Python lets only the main thread set handlers; a training in another thread is stopped by its owner.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
