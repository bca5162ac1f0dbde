"""A block that takes too much of the processor's time is stopped, in any thread, and no other block is."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from typing import Any

import pytest

from basereward.backbones.template_limits import Watchdog


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_block_that_never_ends_is_stopped() -> None:
    with (
        pytest.raises(TimeoutError, match="^it takes more than 0.2 seconds"),
        Watchdog().limit(0.2),
    ):
        spin(60)


def test_an_exception_that_is_lost_in_a_callback_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda arguments: lost.append(arguments.exc_type))

    class Thing:
        pass

    things = [Thing() for _ in range(2)]
    callbacks = [weakref.ref(thing, lambda _: spin(20)) for thing in things]

    def work() -> None:
        while things:
            things.pop()  # the interpreter prints and forgets an exception in the callback of its reference
        spin(60)

    with pytest.raises(TimeoutError), Watchdog().limit(0.2):
        work()
    assert len(lost) == len(callbacks)


def test_a_block_that_waits_takes_no_time_of_the_processor() -> None:
    began, used = time.monotonic(), time.thread_time()
    with Watchdog().limit(0.2):
        time.sleep(0.5)
    # It ended by itself, long after the time that it might have taken of the processor.
    assert time.monotonic() - began >= 0.5
    assert time.thread_time() - used < 0.2


def test_where_no_clock_of_another_thread_is_told_the_time_that_passes_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(time, "pthread_getcpuclockid")
    with pytest.raises(TimeoutError), Watchdog().limit(0.2):
        spin(60)


def test_each_thread_has_its_own_limit_and_only_the_late_ones_are_stopped() -> None:
    watchdog, outcomes = Watchdog(), {}

    def work(number: int) -> None:
        try:
            with watchdog.limit(0.3):
                spin(20 if number % 2 else 0.01)
            outcomes[number] = "ended"
        except TimeoutError:
            outcomes[number] = "stopped"
        spin(0.3)  # nothing arrives later

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == {number: "stopped" if number % 2 else "ended" for number in range(4)}


def test_a_block_that_ends_as_it_is_stopped_leaves_nothing_behind() -> None:
    watchdog, outcomes = Watchdog(), []
    for _ in range(8):
        try:
            with watchdog.limit(0.1):
                spin(0.1)
            outcomes.append("ended")
        except TimeoutError:
            outcomes.append("stopped")
        spin(0.01)  # which an exception that came late would end
    assert len(outcomes) == 8
