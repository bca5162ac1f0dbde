"""Critics and judges whose weights are sharded: losses, gradients and written texts of one process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from ranks import in_ranks
from rounding import TINY_GRADIENT, TINY_REWARD, within
from sharded import trained_gradients, written_rewards

from basereward import Comparison
from basereward.config import Component
from basereward.training.distributed import ProcessGroup

pytestmark = pytest.mark.external

PARADIGMS = {
    "critic": Component("critic", {"max_critique_tokens": 6}),
    "generative": Component("generative", {}),
}


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("written") / "llama"
    shutil.copytree(tiny_models["llama"], directory)
    return tiny.add_language_head(directory)


def rows(**more: Any) -> list[Comparison]:
    """Return pairs of different lengths."""
    return [
        Comparison(
            tiny.sentence(number, 3 + 2 * number),
            [tiny.sentence(number + 20, 2 + number), tiny.sentence(number + 40, 5)],
            ranks=[0, 1],
            **more,
        )
        for number in range(4)
    ]


@pytest.mark.parametrize("name", PARADIGMS)
def test_rewards_and_gradients_are_those_of_one_process(model: Path, name: str) -> None:
    comparisons = rows(meta={"critiques": ["it is right", "the dog is no cat"]})
    settings: dict[str, Any] = {"paradigm": PARADIGMS[name]}
    rewards, gradients = trained_gradients(ProcessGroup(), model, comparisons, settings)
    for found, found_gradients in in_ranks(trained_gradients, model, comparisons, settings):
        for one, other in zip(found, rewards, strict=True):
            assert one == pytest.approx(other, abs=TINY_REWARD)
        assert found_gradients.keys() == gradients.keys()
        for key, gradient in gradients.items():
            torch.testing.assert_close(found_gradients[key], gradient, **within(TINY_GRADIENT), msg=key)


def test_processes_write_texts_of_different_lengths_and_numbers(model: Path) -> None:
    comparisons = rows()
    settings: dict[str, Any] = {"paradigm": PARADIGMS["critic"]}
    expected = written_rewards(ProcessGroup(), model, comparisons, settings)
    for found in in_ranks(written_rewards, model, comparisons, settings):
        assert len(found) == len(comparisons)
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, abs=TINY_REWARD)
