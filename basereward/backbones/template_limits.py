"""A limit on the time of chat templates, which may be of a stranger: they are programs, and may never end.

Templates run in any thread, so that no signal can stop them: another thread looks at the processor's time
that they have had, and raises an exception in theirs, again and again until the template has ended: one that
arrives in the callback of a weak reference is printed and lost. What it can't stop is one operation, such as
a power with millions of digits; the interpreter must come to its next step.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

MAX_SECONDS = 5.0
"""Seconds of the processor that a template may take; usual ones take milliseconds."""

SUSPICIOUS_SECONDS = 0.3
MAX_BYTES = 1 << 30
"""Bytes by which the process may have grown since a template began that takes longer than usual ones."""

SECONDS_BETWEEN_LOOKS = 0.1


class TemplateStopped(BaseException):
    """Raised in the thread of a template that takes too long; no `except Exception` of others catches it."""


class Limit(NamedTuple):
    """The seconds of a thread, and the bytes of the process, at which a template is stopped."""

    end: float
    suspicious: float
    max_bytes: int

    def is_passed(self, seconds: float) -> bool:
        """Tell whether a template is to be stopped."""
        return seconds > self.end or (seconds > self.suspicious and _process_bytes() > self.max_bytes)


class Watchdog:
    """Stops the blocks of threads that take too long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: dict[int, Limit] = {}
        self._stopped: set[int] = set()
        self._is_running = False
        self._process = os.getpid()

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Limit the processor's time of a block of the calling thread.

        Raises:
            TimeoutError: When it takes longer.
        """
        thread = threading.get_ident()
        try:
            try:
                now = _seconds_of(thread)
                self._begin(
                    thread, Limit(now + seconds, now + SUSPICIOUS_SECONDS, _process_bytes() + MAX_BYTES)
                )
                yield
            finally:
                self._end(thread)
        except TemplateStopped:
            while thread in self._limits or thread in self._stopped:  # the end itself may be interrupted
                with suppress(TemplateStopped):
                    self._end(thread)
            raise TimeoutError(
                f"it takes more than {seconds:g} seconds of the processor, or {MAX_BYTES:,} bytes of memory"
            ) from None

    def _begin(self, thread: int, limit: Limit) -> None:
        with self._lock:
            if self._process != os.getpid():  # a forked process has none of the other threads
                self._process, self._is_running = os.getpid(), False
                self._limits.clear()
            self._limits[thread] = limit
            if not self._is_running:
                threading.Thread(target=self._run, name="template-watchdog", daemon=True).start()
                self._is_running = True

    def _end(self, thread: int) -> None:
        with self._lock:
            self._limits.pop(thread, None)
            if thread in self._stopped:
                self._stopped.discard(thread)
                _raise_in(thread, None)  # an exception that has not arrived is taken back

    def _run(self) -> None:
        while True:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            with self._lock:
                for thread, limit in list(self._limits.items()):
                    with suppress(OSError):  # of a thread that has ended
                        if limit.is_passed(_seconds_of(thread)):
                            self._stopped.add(thread)
                            _raise_in(thread, TemplateStopped)
                if not self._limits:
                    self._is_running = False
                    return


def _seconds_of(thread: int) -> float:
    """Return the processor's time of a thread; the time of a clock where the system tells none of others.

    Raises:
        OSError: When the thread has ended.
    """
    if hasattr(time, "pthread_getcpuclockid"):  # not on macOS
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    return time.monotonic()


def _process_bytes() -> int:
    """Return the memory of this process; 0 where the system doesn't say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    kind_object = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), kind_object)


watchdog = Watchdog()
"""The process's; its thread runs while a template does."""
