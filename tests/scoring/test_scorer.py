"""A scored batch takes as many forward passes as its limits ask for, with the same rewards."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rounding import TINY_REWARD

from basereward import Comparison, RewardModel, load_run, train
from basereward.config import Component
from basereward.errors import DataError
from basereward.scoring.batching import MicroBatchLimits


def comparisons(num: int = 12) -> list[Comparison]:
    """Return comparisons of very different lengths."""
    chance = random.Random(3)
    return [
        Comparison("p" * chance.randrange(1, 60), ["a" * chance.randrange(1, 30), "b"]) for _ in range(num)
    ]


@contextmanager
def passes_of(model: RewardModel) -> Iterator[list[int]]:
    """Yield a list to which each forward pass adds its tokens."""
    tokens: list[int] = []
    handle = model.backbone.register_forward_pre_hook(
        lambda module, arguments: tokens.append(int(arguments[0].positions.numel()))
    )
    yield tokens
    handle.remove()


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return RewardModel.build(backbone=Component("tiny"))


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_batch_over_the_limit_takes_several_passes_and_its_rewards_stay(
    model: RewardModel, num_workers: int
) -> None:
    rows = comparisons()
    with passes_of(model) as whole:
        expected = model.score(rows, batch_size=12)
    limited = RewardModel(model.paradigm, model.components)
    limited.limits = MicroBatchLimits(12, tokens=200, pads=True)
    limited.num_workers = num_workers
    with passes_of(model) as tokens:
        found = limited.score(rows, batch_size=12)
    assert len(whole) == 1
    assert len(tokens) >= 4  # 12 comparisons of about 50 tokens, padded
    assert max(tokens) <= 200 < whole[0]
    for rewards, others in zip(found, expected, strict=True):
        assert rewards == pytest.approx(others, abs=TINY_REWARD)


def test_errors_keep_their_places_among_passes(model: RewardModel) -> None:
    limited = RewardModel(model.paradigm, model.components)
    limited.limits = MicroBatchLimits(4, tokens=60, pads=True)
    rows = [
        *comparisons(3),
        Comparison([{"role": "user", "content": [{"type": "image", "image": "/absent.png"}]}], ["a"]),
        *comparisons(3),
    ]
    results = [result for _, result in limited.score_stream(rows, batch_size=7)]
    assert [isinstance(result, DataError) for result in results] == [False] * 3 + [True] + [False] * 3
    for rewards, others in zip(results[:3], results[4:], strict=True):
        assert rewards == pytest.approx(others, abs=TINY_REWARD)


def test_validation_keeps_the_limits_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [json.dumps({"prompt": row.prompt[0].text, "chosen": row.responses[0], "rejected": "b"})
            for row in comparisons()]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "run.toml").write_text(
        'output = "run"\nbackbone = "tiny"\n[[data.train]]\nname = "trl"\npath = "rows.jsonl"\n'
        '[[data.eval]]\nname = "trl"\npath = "rows.jsonl"\n'
        "[train]\nmax_steps = 1\nbatch_size = 12\nmicro_batch_tokens = 120\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    tokens = []
    forward = type(RewardModel.build(backbone=Component("tiny")).backbone).forward
    monkeypatch.setattr(
        type(RewardModel.build(backbone=Component("tiny")).backbone),
        "forward",
        lambda self, forest, **more: tokens.append(forest.positions.numel()) or forward(self, forest, **more),
    )
    train(load_run("run.toml"), progress=False, plots=False)
    assert len(tokens) > 4  # at least two passes of the step and two of its validation
    assert max(tokens) <= 120
