"""Graceful shutdown: after SIGINT or SIGTERM the current step ends and a checkpoint is written."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from basereward.errors import BaseRewardError


class TrainingStopped(BaseRewardError):
    """A training that a signal ended early, after it had written a checkpoint of `step`."""

    def __init__(self, signal_number: int, step: int, run_dir: str) -> None:
        self.signal_number = signal_number
        self.step = step
        name = signal.Signals(signal_number).name
        super().__init__(
            f"stopped by {name} after step {step}; {run_dir} holds a checkpoint: "
            "give the same command with --resume to go on"
        )


class ShutdownSignal:
    """Records SIGINT and SIGTERM while it is entered; a second signal has its usual effect."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> ShutdownSignal:
        # Python lets only the main thread set handlers; a training in another thread is stopped by its owner.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore_handlers()

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
