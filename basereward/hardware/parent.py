"""Processes that end with the one that has started them, also where that is killed and can tell nobody."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import wait

GRACE_SECONDS = 60.0
"""Seconds from SIGTERM, after which a training writes a checkpoint, to the end of the process."""

PR_SET_PDEATHSIG = 1


def end_with_parent(grace_seconds: float = GRACE_SECONDS) -> None:
    """Have this process of `multiprocessing` end when its parent has ended: by SIGTERM, then at once.

    Args:
        grace_seconds: The time from one to the other.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "the main process has no parent of `multiprocessing`"

    def watch() -> None:
        wait([parent.sentinel])  # a pipe, which closes however the parent ends
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(grace_seconds)
        os._exit(1)

    threading.Thread(target=watch, name="basereward-parent", daemon=True).start()


def ended_with_parent() -> Callable[[], None] | None:
    """Return what `subprocess` calls in a new process (`preexec_fn`) so that it gets SIGTERM when the thread
    that started it ends; None where the system can't tell it.
    """
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended meanwhile
            os._exit(1)

    return ask
