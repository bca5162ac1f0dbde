"""Seconds, tokens and memory of a comparison in each paradigm of a study, in training and in scoring.

Run as `python benchmarks/paradigms.py` after `python recipes/studies/prepare.py`. The models are those of
recipes/studies/small-paradigms.toml, of which those that write are trained for as many steps first, so that
their texts are as long. All take turns in one process. Tokens are those that the first layer of the decoder
computes: a prompt that responses share counts once, and a written token once, or twice where it is read anew.
Memory is counted, not sampled: the bytes of tensors that a forward pass keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from machines import keep
from strategies import kept_for_backward
from torch import nn

from basereward import DataError, read_comparisons
from basereward.plugins import manager
from basereward.study.spec import load_study, planned_runs
from basereward.training.distributed import ProcessGroup
from basereward.training.model_state import TrainedModel

STUDY = Path(__file__).parents[1] / "recipes" / "studies" / "small-paradigms.toml"
TRAIN, TEST = ".cache/study/caption-pairs-train.jsonl", ".cache/study/caption-pairs-test.jsonl"
BATCH_SIZE = 8


def models_of(study_file: Path, num_steps: int) -> dict[str, TrainedModel]:
    """Return a model in training for each cell of a study; those that write have taken so many steps."""
    study = load_study(study_file, ["seeds=[0]"])
    models = {}
    for planned in planned_runs(study, manager(), path=study_file):
        torch.manual_seed(0)
        model = TrainedModel(planned.config, manager(), ProcessGroup())
        if model.reward_model.text_key:
            for step in range(num_steps):
                model.accumulate_gradients([prepared(model, TRAIN, True, step)], 1, None)
                model.optimizer_step(step + 1)
        models[planned.cell.name] = model
    return models


@contextmanager
def counted(block: nn.Module, counts: list[int]) -> Iterator[None]:
    """Append the number of tokens that a decoder layer computes."""
    total = 0

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        nonlocal total
        hidden = args[0] if args else kwargs["hidden_states"]  # [B, L, D]
        total += hidden.shape[0] * hidden.shape[1]

    handle = block.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
        counts.append(total)


def prepared(model: TrainedModel, path: str, training: bool, number: int = 0) -> list[Any]:
    """Return a batch of prepared comparisons of a file, counted from 0."""
    model.paradigm.train(training)
    rows = list(islice(read_comparisons(path), number * BATCH_SIZE, (number + 1) * BATCH_SIZE))
    items = model.reward_model.prepare_batch(rows)
    for item in items:
        if isinstance(item, DataError):
            raise SystemExit(f"{path}: {item}")
    return items


def ways_of(model: TrainedModel) -> dict[str, Callable[[], None]]:
    """Return a training step and the scoring of a batch."""
    training, scoring = prepared(model, TRAIN, True), prepared(model, TEST, False)

    def train() -> None:
        model.paradigm.train()
        model.accumulate_gradients([training], 1, None)
        model.optimizer.zero_grad()

    def score() -> None:
        model.paradigm.eval()
        with torch.no_grad():
            model.reward_model.score_prepared(scoring)

    return {"train": train, "score": score}


def kept_bytes(model: TrainedModel) -> int:
    """Return the bytes that a forward pass of a batch keeps for the backward pass."""
    found: list[int] = []
    batch = prepared(model, TRAIN, True)
    with kept_for_backward(model.module, found), model.precision.autocast():
        total, _ = model.module(batch)
    del total
    return found[0]


def main() -> None:
    """Print and keep a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5, help="timed turns of each paradigm (default 5)")
    parser.add_argument("--steps", type=int, default=45, help="of models that write, before (default 45)")
    parser.add_argument("--keep", action="store_true", help="write the results to benchmarks/results")
    arguments = parser.parse_args()
    models = models_of(STUDY, arguments.steps)
    ways = {name: ways_of(model) for name, model in models.items()}
    tokens: dict[str, dict[str, int]] = {}
    for name, of_model in ways.items():
        tokens[name] = {}
        for way, run in of_model.items():
            counts: list[int] = []
            with counted(models[name].reward_model.backbone.blocks()[0], counts):
                run()  # warms up, too
            tokens[name][way] = counts[0]
    seconds: dict[str, dict[str, list[float]]] = {name: {"train": [], "score": []} for name in ways}
    for _ in range(arguments.turns):
        for name, of_model in ways.items():
            for way, run in of_model.items():
                start = time.process_time()
                run()
                seconds[name][way].append(time.process_time() - start)
    rows = []
    titles = ("train", "score", "kept in training")
    print(f"{'a comparison':23}" + "".join(f"{title:>20}" for title in titles))
    for name, model in models.items():
        row: dict[str, Any] = {"paradigm": name, "kept_mb": kept_bytes(model) / BATCH_SIZE / 1e6}
        for way in ("train", "score"):
            row[f"{way}_tokens"] = tokens[name][way] / BATCH_SIZE
            row[f"{way}_ms"] = 1e3 * statistics.median(seconds[name][way]) / BATCH_SIZE
        rows.append(row)
        parts = [f"{row[f'{way}_tokens']:.0f} tok {row[f'{way}_ms']:.0f} ms" for way in ("train", "score")]
        print(f"{name:23}" + "".join(f"{part:>20}" for part in (*parts, f"{row['kept_mb']:.1f} MB")))
    if arguments.keep:
        precision = next(iter(models.values())).precision.name
        facts = {"threads": torch.get_num_threads(), "precision": precision}
        print(keep("paradigms", {**facts, "results": rows}))


if __name__ == "__main__":
    main()
