"""A pool of processes that do many runs each, since starting one takes longer than training a head.

A run that takes its process down fails alone: another process takes its place.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any
from unittest.mock import patch

from basereward.hardware.parent import end_with_parent
from basereward.hardware.threads import num_cores
from basereward.study.worker import TaskOutcome, WorkerTask, run_task

PRELOADED = (
    "basereward.study.pool",
    "basereward.training.loop",
    "matplotlib.figure",
    "torch.utils.tensorboard",
)


def run_tasks(tasks: Sequence[WorkerTask], num_jobs: int) -> Iterator[tuple[WorkerTask, TaskOutcome]]:
    """Yield each task with its outcome, as they end.

    Leaving the iterator early ends the current runs, each after its step, with a checkpoint.

    Args:
        tasks: In the order in which they are begun; of those with the same cache key one is done first.
        num_jobs: Number of processes.
    """
    # A server that has imported everything forks a process in milliseconds.
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    waiting, cached = list(tasks), set[str]()
    busy: dict[Connection, tuple[Any, WorkerTask]] = {}
    idle: list[tuple[Any, Connection]] = []
    num_threads = max(1, num_cores() // num_jobs)
    try:
        while waiting or busy:
            while len(busy) < num_jobs and (task := _next(waiting, cached, busy)) is not None:
                waiting.remove(task)
                process, connection = idle.pop() if idle else _start(context, num_threads)
                connection.send(task)
                busy[connection] = (process, task)
            for connection in [ready for ready in wait(list(busy)) if isinstance(ready, Connection)]:
                process, task = busy.pop(connection)
                try:
                    outcome = connection.recv()
                    idle.append((process, connection))
                except (EOFError, OSError):
                    process.join()
                    outcome = TaskOutcome(_how_it_ended(process.exitcode))
                if not outcome.error:
                    cached.add(task.cache_key)
                yield task, outcome
    finally:
        for process, _ in busy.values():
            process.terminate()  # SIGTERM: the current step is finished, and a checkpoint written
        for connection in (*busy, *(connection for _, connection in idle)):
            connection.close()
        for process in (*(process for process, _ in busy.values()), *(process for process, _ in idle)):
            process.join()


def _next(
    waiting: Sequence[WorkerTask], cached: set[str], busy: dict[Connection, tuple[Any, WorkerTask]]
) -> WorkerTask | None:
    """Return the first task whose features no other task is computing now."""
    computing = {task.cache_key for _, task in busy.values()} - cached - {""}
    return next((task for task in waiting if task.cache_key not in computing), None)


def _start(context: Any, num_threads: int) -> tuple[Any, Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, num_threads), daemon=True)
    # The fork server imports modules; it needs this process's module path.
    with patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}):
        process.start()
    theirs.close()
    return process, ours


def _work(connection: Connection, num_threads: int) -> None:
    import torch
    from transformers.utils import logging

    # A terminal's Ctrl-C goes to the study, which ends its runs itself, unless it is killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(num_threads)
    logging.disable_progress_bar()
    while True:
        try:
            connection.send(run_task(connection.recv()))
        except (EOFError, BrokenPipeError, ConnectionResetError):  # the study is over
            return


def _how_it_ended(status: int | None) -> str:
    if status is not None and status < 0:
        return f"its process was killed by {signal.Signals(-status).name}"
    return f"its process ended with status {status}"
