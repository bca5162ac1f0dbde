"""The optimisers: rates and decay by part, memory, and state that is saved and loaded."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from basereward import ConfigError
from basereward.config import TrainConfig
from basereward.extras import install_command
from basereward.training import optimizers
from basereward.training.schedule import set_learning_rate

NAMES = ["adamw", "adafactor", "adamw-8bit"]


def network() -> nn.Module:
    torch.manual_seed(0)
    # 64 * 64 = 4096 weights: from there on bitsandbytes keeps moments in 8 bits.
    return nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 1))


def optimizer_of(model: nn.Module, name: str, **settings: object) -> torch.optim.Optimizer:
    config = TrainConfig(optimizer=name, lr=1e-2, **settings)  # type: ignore[arg-type]
    return optimizers.build({"language": list(model.parameters())}, config)


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, num: int) -> float:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(8, 64, generator=generator)
    for _ in range(num):
        optimizer.zero_grad()
        loss = (model(states) - states.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize("name", NAMES)
def test_each_part_has_its_rate_and_only_matrices_decay(name: str) -> None:
    vision, language, head = nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1)
    parts = {"vision": vision, "language": language, "head": head}
    config = TrainConfig(optimizer=name, lr=1e-3, lr_parts={"head": 1e-2}, weight_decay=0.1)  # type: ignore[arg-type]
    optimizer = optimizers.build({part: list(module.parameters()) for part, module in parts.items()}, config)
    found = [
        (group["part"], group["lr"], group["weight_decay"], len(group["params"]))
        for group in optimizer.param_groups
    ]
    assert found == [
        ("vision", 1e-3, 0.1, 1),
        ("vision", 1e-3, 0.0, 1),
        ("language", 1e-3, 0.0, 2),
        ("head", 1e-2, 0.1, 1),
        ("head", 1e-2, 0.0, 1),
    ]
    rates = set_learning_rate(optimizer, 0.5)
    assert rates == {"vision": 5e-4, "language": 5e-4, "head": 5e-3}


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_of_zero_leaves_its_part_as_it_is_and_the_others_move(name: str) -> None:
    model = network()
    parts = {"language": list(model[0].parameters()), "head": list(model[2].parameters())}
    config = TrainConfig(optimizer=name, lr_parts={"language": 0.0}, lr=1e-2, weight_decay=0.1)  # type: ignore[arg-type]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    take_steps(model, optimizers.build(parts, config), 3)
    same = [torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert same == [True, True, True, True, False, False]


@pytest.mark.parametrize("name", NAMES)
def test_decay_pulls_matrices_towards_zero_and_nothing_else(name: str) -> None:
    model = network()
    optimizer = optimizer_of(model, name, weight_decay=0.1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for old, new in zip(before, model.parameters(), strict=True):
        # One step at rate 0.01: w - 0.01 * 0.1 * w.
        torch.testing.assert_close(new.detach(), old * 0.999 if old.ndim >= 2 else old)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_learns(name: str) -> None:
    model = network()
    optimizer = optimizer_of(model, name)
    assert take_steps(model, optimizer, 40) < 0.5 * take_steps(network(), optimizer_of(network(), name), 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_saved_and_loaded_goes_on_as_if_nothing_had_happened(name: str) -> None:
    model, copy = network(), network()
    optimizer, other = optimizer_of(model, name), optimizer_of(copy, name)
    take_steps(model, optimizer, 3)
    copy.load_state_dict(model.state_dict())
    optimizers.load_state(other, load(save(optimizers.state_of(optimizer))))
    take_steps(model, optimizer, 3)
    take_steps(copy, other, 3)
    assert all(map(torch.equal, model.parameters(), copy.parameters()))


def test_moments_take_the_memory_that_is_promised() -> None:
    sizes = {}
    for name in NAMES:
        model = nn.Linear(1024, 1024, bias=False)
        optimizer = optimizer_of(model, name)
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        sizes[name] = sum(value.nbytes for value in optimizers.state_of(optimizer).values())
    weights = 1024 * 1024
    # Two fp32 moments and a count; a row, a column and a count.
    assert sizes["adamw"] == weights * 8 + 4
    assert sizes["adafactor"] == 2 * 1024 * 4 + 4
    # Two bytes a weight, an fp32 scale for each 256 of either moment, two tables of 256, and a count.
    assert sizes["adamw-8bit"] == weights * 2 + 2 * (weights // 256) * 4 + 2 * 256 * 4 + 8


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ConfigError) as caught:
        optimizer_of(network(), "adamw-8bit")
    assert str(caught.value) == (
        "train.optimizer is 'adamw-8bit', which needs bitsandbytes (import of bitsandbytes.optim halted; "
        f"None in sys.modules); {install_command('quantized')}"
    )
