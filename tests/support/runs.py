"""Small runs for the training's tests, in this process or in one of their own that may be killed.

It is a plugin too: a run with `plugins = ["runs"]` has the data set `shifting`, which differs by epoch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partialmethod
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal

from forked import fork_context, start

from basereward import Comparison, hookimpl
from basereward.config import Component, DataConfig, RunConfig, Source, TrainConfig
from basereward.data import Dataset

GOOD = ("cat", "dog", "bird")
BAD = ("red", "blue", "green")


def rows(num: int, seed: int, num_responses: int = 2) -> list[dict[str, Any]]:
    """Return rows whose first response names animals and the others colours."""
    chance = random.Random(seed)

    def words(of: tuple[str, ...]) -> str:
        return " ".join(chance.choice(of) for _ in range(chance.randint(2, 6)))

    return [
        {
            "prompt": f"what is it {seed} {number}",
            "responses": [words(GOOD), *(f"{words(BAD)} {other}" for other in range(num_responses - 1))],
            "ranks": [0, *[1] * (num_responses - 1)],
        }
        for number in range(num)
    ]


def write_rows(path: Path, content: list[dict[str, Any]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


def config(
    output: Path, model: Path, train: Path, held_out: Path | None = None, **settings: Any
) -> RunConfig:
    """Return a run of few steps; settings are those of `train`, or of the run itself by their name."""
    own = {item.name for item in dataclasses.fields(RunConfig)}
    return RunConfig(
        **{
            "output": str(output),
            "backbone": Component("causal-lm", {"model": str(model)}),
            "data": DataConfig(
                train=(Source("basereward", {"path": str(train)}),),
                eval=(Component("basereward", {"path": str(held_out)}),) if held_out else (),
            ),
            **{name: value for name, value in settings.items() if name in own},
        },
        train=TrainConfig(
            **{
                "batch_size": 4,
                "lr": 1e-3,
                "log_every": 2,
                **{name: value for name, value in settings.items() if name not in own},
            }
        ),
    )


def records(run_dir: Path, kind: str = "") -> list[dict[str, Any]]:
    """Return the records of a run's log, without what the clock says."""
    lines = (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()
    timing = ("seconds", "pairs_per_second", "tokens_per_second", "tflops_per_second", "mfu")
    return [
        {name: value for name, value in record.items() if name not in timing}
        for record in map(json.loads, lines)
        if kind in ("", record["kind"])
    ]


def remains(run_dir: Path) -> dict[str, Any]:
    """Return all that two runs have in common if they took the same course."""
    files = [path for name in ("model", "last") for path in sorted((run_dir / name).iterdir())]
    return {
        **{path.relative_to(run_dir).as_posix(): path.read_bytes() for path in files},
        "log": records(run_dir),
        "rejected": (run_dir / "rejected.jsonl").read_text(encoding="utf-8"),
        "checkpoints": sorted(path.name for path in (run_dir / "checkpoint").iterdir()),
        "hidden": sorted(path.name for path in run_dir.glob(".*")),
    }


class Shifting(Dataset):
    """A data set that shows other responses in every epoch."""

    def __init__(self, *, num: int = 10) -> None:
        self.num = num
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Turn to an epoch."""
        self.epoch = epoch

    @property
    def num_rows(self) -> int:
        """The number of comparisons."""
        return self.num

    def read(self) -> Iterator[Comparison]:
        """Yield the epoch's comparisons."""
        for row in rows(self.num, seed=100 + self.epoch, num_responses=3):
            yield Comparison(**row)


@hookimpl
def basereward_datasets() -> Mapping[str, type]:
    """Register the data set."""
    return {"shifting": Shifting}


def in_child(
    run: RunConfig,
    *,
    kill_at: int | None = None,
    resume: bool = False,
    num_ranks: int = 1,
    victim: int = 0,
    among: Literal["all", "checkpoints"] = "all",
    adamw_eps: float = 1e-8,
) -> tuple[int, int]:
    """Train in a process of its own, or in several that train together.

    Args:
        run: The run.
        kill_at: Number of the moment, counted from 0, at which a process kills itself.
        resume: Whether to resume.
        num_ranks: How many processes train together. Where one dies the others are killed,
            as `torchrun` does.
        victim: Which of them kills itself.
        among: Whether any moment counts, or only those within the writing of a checkpoint.
        adamw_eps: The epsilon of AdamW, where trainings are compared that add up in other orders.

    Returns:
        The first exit status that is not 0, and how many moments there were at which it could have been
        killed.
    """
    context = fork_context()
    counter = context.Value("i", 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(num_ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "MASTER_PORT": port}
        environment = {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}
        counted = among if rank == victim else None
        arguments = (run, kill_at if counted else None, resume, counter, counted, environment, adamw_eps)
        processes.append(context.Process(target=_train, args=arguments))
    start(processes)
    status = 0
    running = {process.sentinel: process for process in processes}
    while running:
        # Of those that have ended by now the killed one was first: the others end for want of it.
        for sentinel in sorted(
            connection.wait(list(running)), key=lambda own: own != processes[victim].sentinel
        ):
            exitcode = running.pop(sentinel).exitcode
            if exitcode and not status:
                status = exitcode
                for other in running.values():
                    other.kill()
    for process in processes:
        process.join()
    return status, counter.value


def _train(
    run: RunConfig,
    kill_at: int | None,
    resume: bool,
    counter: Any,
    counted: Literal["all", "checkpoints"] | None,
    environment: Mapping[str, str],
    adamw_eps: float,
) -> None:
    os.environ.update(environment)
    import shutil

    import safetensors.torch
    import torch

    from basereward import train
    from basereward.training import checkpoints
    from basereward.training.run_log import RunLog

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    adamw: Any = torch.optim.AdamW
    adamw.__init__ = partialmethod(adamw.__init__, eps=adamw_eps)
    os.fsync = lambda descriptor: None  # type: ignore[assignment]  # a kill loses nothing that is written

    is_saving = counted == "all"

    def saving(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            nonlocal is_saving
            is_saving = True
            result = call(*args, **options)
            is_saving = counted == "all"
            return result

        return wrapped

    def may_die(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            if not is_saving:
                return call(*args, **options)
            if counter.value == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            counter.value += 1
            return call(*args, **options)

        return wrapped

    # Before each of these: all that reaches the disk, and every step of the optimizer.
    moments: list[tuple[Any, str]] = [
        (os, "fsync"),
        (os, "replace"),
        (Path, "rename"),
        (shutil, "rmtree"),
        (safetensors.torch, "save_file"),
        (checkpoints, "save_file"),
        (RunLog, "write"),
        (torch.optim.AdamW, "step"),
    ]
    for owner, name in moments if counted else ():
        setattr(owner, name, may_die(getattr(owner, name)))
    checkpoints.Checkpoints.save = saving(checkpoints.Checkpoints.save)  # type: ignore[method-assign]
    train(run, resume=resume, progress=False, plots=False)
