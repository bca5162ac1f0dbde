"""Limits on the work that a thread does for somebody: its tokens, and whether anybody still waits for it.

Work whose time depends on what it is given asks here between its parts. Without limits, as in training, it
is never ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class WorkLimits:
    """Limits on the work of a thread.

    Args:
        max_tokens: Tokens of a prompt and its responses; texts that have more are refused, whole or not.
        is_cancelled: Tells whether nobody waits for the work any more.
    """

    max_tokens: int
    is_cancelled: Callable[[], bool]


class WorkCancelled(BaseException):
    """Raised within work that nobody waits for any more; no error of a row, so nothing that handles those
    goes on.
    """


_limits: ContextVar[WorkLimits | None] = ContextVar("limits", default=None)


@contextmanager
def work_limited(limits: WorkLimits) -> Iterator[None]:
    """Limit the work of this thread."""
    token = _limits.set(limits)
    try:
        yield
    finally:
        _limits.reset(token)


def raise_if_cancelled() -> None:
    """End work that nobody waits for any more.

    Raises:
        WorkCancelled: When it is cancelled.
    """
    limits = _limits.get()
    if limits is not None and limits.is_cancelled():
        raise WorkCancelled


def max_tokens() -> int | None:
    """Return the most tokens of a prompt and its responses; None for no limit."""
    limits = _limits.get()
    return None if limits is None else limits.max_tokens
