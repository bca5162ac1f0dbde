"""Keep a client from filling the log with messages that it can bring about."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 60
MAX_MESSAGES = 100
"""Messages in `SECONDS`."""

LOGGERS = ("asyncio", "uvicorn.error", "basereward.serving.problems")
"""Loggers of messages that a request or a connection can bring about."""


class RepeatFilter(logging.Filter):
    """Lets each message through once a minute, and no more than `MAX_MESSAGES` of them in all."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()
        self._began = time.monotonic()
        self._num_dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a message; the first of a minute says how many were not."""
        now = time.monotonic()
        if now - self._began > SECONDS:
            self._seen.clear()
            self._began = now
        text = record.getMessage()
        if text in self._seen or len(self._seen) >= MAX_MESSAGES:
            self._num_dropped += 1
            return False
        self._seen.add(text)
        if self._num_dropped:
            record.msg, record.args = f"{text}\n({self._num_dropped:,} messages before were left out)", ()
            self._num_dropped = 0
        return True


@contextmanager
def without_repeats() -> Iterator[None]:
    """Log what clients can bring about once a minute."""
    repeats = RepeatFilter()
    for name in LOGGERS:
        logging.getLogger(name).addFilter(repeats)
    try:
        yield
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(repeats)
