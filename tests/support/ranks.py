"""Call a function in several processes that are one process group."""

from __future__ import annotations

import io
import os
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Any

import torch
from forked import fork_context, start


def in_ranks(
    call: Callable[..., Any], *arguments: Any, num_ranks: int = 2, timeout: float = 240
) -> list[Any]:
    """Return what a function of a module returns in each of the processes of a gloo group.

    Args:
        call: Called with a `ProcessGroup` and the arguments.
        num_ranks: The number of processes.
        timeout: Seconds after which processes that haven't ended are killed.

    Raises:
        AssertionError: With the traceback of a process that failed.
    """
    context = fork_context()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes, ends, processes = [], [], []
    done = context.Barrier(num_ranks)
    for rank in range(num_ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "MASTER_PORT": port}
        environment = {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}
        receives, sends = context.Pipe(duplex=False)
        pipes.append(receives)
        ends.append(sends)
        processes.append(context.Process(target=_call, args=(call, arguments, environment, sends, done)))
    start(processes)
    for end in ends:
        end.close()
    try:
        outcomes = [_outcome(pipe, timeout) for pipe in pipes]
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    for rank, (_, failure) in enumerate(outcomes):
        assert not failure, f"process {rank}: {failure}"
    return [result for result, _ in outcomes]


def _outcome(pipe: Any, timeout: float) -> tuple[Any, str]:
    try:
        if not pipe.poll(timeout):
            return None, "has not ended in time"
        result: tuple[Any, str] = torch.load(io.BytesIO(pipe.recv_bytes()), weights_only=False)
        return result
    except EOFError:
        return None, "has died"


def _call(
    call: Callable[..., Any], arguments: Any, environment: dict[str, str], sends: Any, done: Barrier
) -> None:
    os.environ.update(environment)
    from basereward.training.distributed import ProcessGroup

    torch.set_num_threads(1)
    group = ProcessGroup.init("cpu")
    try:
        outcome = call(group, *arguments), ""
    except BaseException:
        outcome = None, traceback.format_exc()
    # As bytes, since tensors would be shared with a process that has ended.
    buffer = io.BytesIO()
    torch.save(outcome, buffer)
    sends.send_bytes(buffer.getvalue())
    # Others may still be making a group with this one; after a failure they would wait for it in vain.
    if outcome[1]:
        done.abort()
    else:
        with suppress(BrokenBarrierError):
            done.wait()
    group.close()
