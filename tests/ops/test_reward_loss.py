from __future__ import annotations

from typing import Any

import pytest
import torch
from plain_ops import use_plain_ops
from torch import Tensor
from torch.testing import assert_close

from basereward import ops

compiled = pytest.mark.skipif(ops.status()["cpu"]["kernels"] != "cpp", reason=ops.status()["cpu"]["reason"])


@pytest.fixture(params=[pytest.param("cpp", marks=compiled), "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        use_plain_ops(monkeypatch)
    return request.param


DTYPES = {
    "fp32": (torch.float32, torch.float32),
    "fp64": (torch.float64, torch.float64),
    "bf16 hidden, fp32 head": (torch.bfloat16, torch.float32),
    "bf16": (torch.bfloat16, torch.bfloat16),
}
HEADS = ["two layers", "two layers, norm, ends", "linear", "linear, rows"]


def example(head: str = "two layers", dtypes: str = "fp32", num_pairs: int = 5) -> dict[str, Any]:
    """The arguments of the op: 2 P responses, and pairs of neighbours."""
    hidden_dtype, dtype = DTYPES[dtypes]
    generator = torch.Generator().manual_seed(num_pairs)
    count, width, num_columns = 2 * num_pairs, 6, 7

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    is_linear = head.startswith("linear")
    has_ends = head in ("two layers, norm, ends", "linear")
    given = {
        "hidden": normal(2, count, width) if has_ends else normal(count, width),
        "ends": torch.randperm(2 * count, generator=generator)[:count] if has_ends else None,
        "w1": None if is_linear else normal(num_columns, width),
        "b1": None if is_linear else normal(num_columns),
        "w2": normal(1, width if is_linear else num_columns),
        "b2": normal(1),
        "pairs": torch.arange(count).reshape(-1, 2),
        "activation": "none" if is_linear else "silu",
        "norm": normal(width) if "norm" in head else None,
        "tie": torch.arange(num_pairs) % 3 == 1,
        "margin": torch.linspace(0, 1, num_pairs, dtype=torch.float32),
        "weight": torch.linspace(0.5, 2, num_pairs, dtype=torch.float32),
        "lengths": torch.arange(count) + 3,
        "label_smoothing": 0.1,
        "zero_coefficient": 0.02,
        "ties": "half",
    }
    given["hidden"] = given["hidden"].detach().to(hidden_dtype).requires_grad_()
    return given


OF_THE_HEAD = ("hidden", "ends", "w1", "b1", "w2", "b2", "activation", "norm")


def by_two_ops(given: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    rewards = ops.pairwise_reward_head(**{name: given[name] for name in OF_THE_HEAD})
    rest = {name: value for name, value in given.items() if name not in OF_THE_HEAD}
    return *ops.batched_bt_loss(rewards, **rest), rewards


def gradients(loss: Tensor, given: dict[str, Any]) -> tuple[Tensor, ...]:
    wanted = [value for value in given.values() if isinstance(value, Tensor) and value.requires_grad]
    return torch.autograd.grad(3 * loss, wanted)


@pytest.mark.parametrize("num_pairs", [0, 1, 5, 600])
@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("head", HEADS)
def test_it_is_the_loss_of_the_head(kernels: str, head: str, dtypes: str, num_pairs: int) -> None:
    given = example(head, dtypes, num_pairs)
    loss, statistics, rewards = ops.pairwise_reward_loss(**given)
    wanted, wanted_statistics, wanted_rewards = by_two_ops(given)
    assert not rewards.requires_grad
    for one, other in ((loss, wanted), (statistics, wanted_statistics), (rewards, wanted_rewards)):
        assert torch.equal(one, other)
    for one, other in zip(gradients(loss, given), gradients(wanted, given), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("frozen", ["hidden", "w1", "w2"])
def test_what_is_frozen_has_no_gradient(kernels: str, frozen: str) -> None:
    given = example()
    given[frozen] = given[frozen].detach()
    for one, other in zip(
        gradients(ops.pairwise_reward_loss(**given)[0], given),
        gradients(by_two_ops(given)[0], given),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_numbers_of_other_types_are_converted(kernels: str) -> None:
    given = example()
    loss, _, _ = ops.pairwise_reward_loss(
        **{**given, "margin": given["margin"].double(), "pairs": given["pairs"].int()}
    )
    assert torch.equal(loss, by_two_ops(given)[0])


def test_autocast_has_no_say(kernels: str) -> None:
    given = example()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = ops.pairwise_reward_loss(**given)
    assert torch.equal(loss, by_two_ops(given)[0])


@compiled
def test_second_derivatives_are_refused() -> None:
    given = example()
    (grad, *_) = torch.autograd.grad(
        ops.pairwise_reward_loss(**given)[0], [given["hidden"], given["w1"]], create_graph=True
    )
    with pytest.raises(RuntimeError) as caught:
        grad.square().sum().backward()
    assert "has no second derivative" in str(caught.value)


def test_it_compiles_to_one_graph(kernels: str) -> None:
    torch._dynamo.reset()
    given = example()
    run = torch.compile(lambda **given: ops.pairwise_reward_loss(**given)[0], fullgraph=True, backend="eager")
    assert_close(run(**given), by_two_ops(given)[0])


REFUSED = [
    ({"ends": torch.tensor([0, 10])}, ValueError, "ends holds 10, which is none of the 10 rows of hidden"),
    ({"ends": torch.zeros(10)}, TypeError, "ends has dtype torch.float32; rows of hidden, int64, are needed"),
    (
        {"pairs": torch.tensor([[0, 10]])},
        ValueError,
        "tie has shape [5] for 1 pairs; one value each is needed",
    ),
    ({"norm_eps": -1.0}, ValueError, "norm_eps is -1.0; a finite number >= 0 is needed"),
    ({"activation": "gelu"}, ValueError, "activation is 'gelu'; allowed: none, tanh, silu, relu"),
    ({"w2": torch.ones(7, 1)}, ValueError, "w2 has shape [7, 1]; [1, 7] or [7] is needed"),
    ({"b2": torch.ones(1, 1)}, ValueError, "b2 has shape [1, 1]; one number is needed"),
    ({"ties": "split"}, ValueError, "ties is 'ignore' or 'half', not 'split'"),
    ({"label_smoothing": 0.6}, ValueError, "label_smoothing is a probability from 0 to 0.5, not 0.6"),
    (
        {"pairs": torch.zeros(5, 2, dtype=torch.int64, device="meta")},
        ValueError,
        "pairs is on meta, but rewards on cpu",
    ),
]


@pytest.mark.parametrize(("wrong", "error", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_what_is_wrong_is_named(
    kernels: str, wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        ops.pairwise_reward_loss(**{**example(), **wrong})
    assert str(caught.value) == message
