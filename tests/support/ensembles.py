"""Small reward models on disk to make ensembles of, some on one backbone and one that reads text alone."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch

from basereward import Comparison, RewardModel
from basereward.config import Component

HEADS = {
    "a": Component("mlp", {}),
    "b": Component("mlp", {"num_layers": 3}),
    "c": Component("linear", {"pooling": "mean"}),
    "d": Component("mlp", {"activation": "relu"}),
}
"""Of the members that have one backbone; that of c reads more than the responses' ends."""


def save(root: Path) -> Path:
    """Write the models a to d, `other` and `text` below a directory."""
    torch.manual_seed(0)
    first = RewardModel.build(backbone=Component("tiny"))
    first.save(root / "first")
    for name, head in HEADS.items():
        model = RewardModel.build(
            backbone=Component("tiny", {"model": str(root / "first")}), head=head, fresh_head=True
        )
        model.save(root / name)
    RewardModel.build(backbone=Component("tiny")).save(root / "other")
    lm = Component("causal-lm", {"model": str(tiny.save_causal_lm(root / "lm"))})
    RewardModel.build(backbone=lm).save(root / "text")
    return root


def enlarge(source: Path, target: Path, factor: float) -> Path:
    """Write a model whose rewards are so many times those of another."""
    model = RewardModel.load(source)
    last = model.head.layers[-1]
    with torch.no_grad():
        last.weight *= factor
        last.bias *= factor
    model.save(target)
    return target


def pairs(num: int) -> list[Comparison]:
    """Return pairs of texts, the first of each the better."""
    return [
        Comparison(
            tiny.sentence(number, 4),
            [tiny.sentence(2 * number + side, 2 + number % 3) for side in (0, 1)],
            ranks=[0, 1],
            id=str(number),
        )
        for number in range(1, num + 1)
    ]
