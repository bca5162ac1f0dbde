"""A pass reads nothing back from its device, and sends nothing there after the batch.

It runs on torch's device `meta`, whose tensors have no data, through the operators that a GPU has. Whatever
reads a value there fails: `item`, `tolist`, a condition, `nonzero`, an index of booleans, in the pass forward
and back.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from basereward import RewardModel
from basereward.config import Component
from basereward.hardware import transfer

KINDS = (*tiny.VL_KINDS, *tiny.INTERNVL_KINDS, *tiny.LM_KINDS)


class Sent(TorchDispatchMode):
    """Lists the operators that have tensors of the CPU and of the device, which are copies to it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        devices = {one.device.type for one in tree_leaves((args, kwargs, result)) if isinstance(one, Tensor)}
        if len(devices) > 1:
            self.names.append(str(function))
        return result


class Made(TorchFunctionMode):
    """Refuses tensors that are made of Python's numbers on the device, which waits for each."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert function is not torch.tensor or "meta" not in str(kwargs.get("device"))
        return function(*args, **kwargs)


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave autocast out, which there is none of on this device."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())


def test_reads_and_copies_are_noticed() -> None:
    numbers = torch.ones(3, device="meta")
    with pytest.raises(RuntimeError, match="meta"):
        numbers.sum().item()
    with pytest.raises(NotImplementedError):
        numbers.nonzero()
    with pytest.raises(NotImplementedError):
        numbers[numbers > 0]
    with pytest.raises(NotImplementedError):
        numbers.tolist()
    with Sent() as sent:
        torch.ones(3).to("meta")
    assert len(sent.names) == 1
    with pytest.raises(AssertionError), Made():
        torch.tensor([1], device="meta")


def copies_of_a_pass(model: RewardModel, kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Run a training pass and a pass that scores, and fail where the device is read.

    Returns:
        The copies to the device, and how many of them `moved` may have made, which doesn't wait.
    """
    copies: list[str] = []
    count = transfer.moved

    def moved(tensor: Tensor, device: torch.device) -> Tensor:
        copies.append(str(device))
        return count(tensor, device)

    for module in ("forest.forest", "losses", "backbones.qwen_vl", "paradigms.token_nll"):
        monkeypatch.setattr(f"basereward.{module}.moved", moved)
    paradigm = model.paradigm
    batch = [paradigm.prepare(row) for row in tiny.comparisons(images=kind not in tiny.LM_KINDS)]
    paradigm.to("meta").train()
    with Made(), Sent() as sent:
        output = paradigm.loss_of(batch)
        (output.loss * output.weight).backward()
        rewards = paradigm.score_of(batch)
    assert output.sums.shape == (9,)
    assert rewards.shape == (11,)
    trained = [one for one in paradigm.head.parameters() if one.grad is None]
    assert not trained
    return len(sent.names), len(copies)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_waits_for_nothing(
    tiny_models: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"model": str(tiny_models[kind]), "dtype": "bfloat16"}
    model = RewardModel.build(
        backbone=Component(tiny.backbone_of(kind), options),
        head=Component("mlp", {}),
        paradigm=Component("scalar", {}),
    )
    num_copies, num_moved = copies_of_a_pass(model, kind, monkeypatch)
    assert 0 < num_copies <= num_moved


def test_a_mean_over_tokens_waits_for_nothing(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RewardModel.build(
        backbone=Component("causal-lm", {"model": str(tiny_models["llama"]), "dtype": "bfloat16"}),
        head=Component("mlp", {"pooling": "mean"}),
        paradigm=Component("scalar", {}),
    )
    num_copies, num_moved = copies_of_a_pass(model, "llama", monkeypatch)
    assert 0 < num_copies <= num_moved
