"""Kills at random moments of saving, importing and exporting: each leaves a whole directory, old or new."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from basereward import RewardModel, load_model
from basereward.config import Component
from basereward.interop.exporting import export_model
from basereward.interop.importing import import_model
from basereward.storage import atomic

NUM_KILLS = 200
KINDS = ("save", "import", "export")


def tree(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def in_child(work: Callable[[], object], kill_after: float | None) -> float:
    """Do something in a forked process, which is killed after some seconds; return how long it ran."""
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert kill_after is not None or status == 0
    return time.monotonic() - start


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("exchange", ["exchanged at once", "in two steps"])
def test_a_kill_at_any_moment_leaves_a_whole_directory(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    if exchange == "in two steps":
        monkeypatch.setattr(atomic, "_renameat2", lambda: None)
    torch.set_num_threads(1)
    source = Path(shutil.copytree(tiny_models["llama"], tmp_path / "source"))
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        backbone = Component("causal-lm", {"model": str(source)})
        models.append(RewardModel.build(backbone=backbone, head=Component("linear", {})))
    sources = [Path(shutil.copytree(source, tmp_path / f"source-{number}")) for number in (0, 1)]
    for number, place in enumerate(sources):
        save_file({"score.weight": torch.full((1, 32), float(number))}, place / "score.safetensors")
    work: dict[str, Callable[[int, Path], object]] = {
        "save": lambda number, place: models[number].save(place),
        "import": lambda number, place: import_model(sources[number], place),
        "export": lambda number, place: export_model(models[number], place),
    }
    chance = random.Random(0)
    num_whole = {"old": 0, "new": 0}
    for kind in KINDS:
        place = tmp_path / "out" / kind
        wholes = []
        for number in (0, 1):
            seconds = in_child(partial(work[kind], number, place), None)
            wholes.append(tree(place))
        assert wholes[0] != wholes[1]
        for moment in range(NUM_KILLS // len(KINDS) + 1):
            old = 1 - moment % 2
            if tree(place) != wholes[old]:
                work[kind](old, place)
            in_child(partial(work[kind], 1 - old, place), chance.uniform(0, 1.1 * seconds))
            atomic.restore(place)  # as loading and resuming do
            left = tree(place)
            assert left in wholes, moment
            num_whole["new" if left == wholes[1 - old] else "old"] += 1
            if kind != "export":
                load_model(place)
    assert sum(num_whole.values()) >= NUM_KILLS
    print(f"{exchange}: {num_whole}")
    shown = [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]
    assert sorted(shown) == sorted(KINDS)
