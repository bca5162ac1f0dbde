"""Reward heads: which tokens they read, and in which precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from basereward.errors import ConfigError
from basereward.forest import Forest, Tree, pack
from basereward.heads import MLP, Linear

DIM = 6


@pytest.fixture
def forest() -> Forest:
    """Return two trees with responses of 2 and 1 tokens, and of 3."""
    trees = [Tree.of_text([0, 0], [[1, 1], [2]]), Tree.of_text([0], [[3, 3, 3]])]
    return pack(trees, pad=9)


@pytest.fixture
def hidden(forest: Forest) -> torch.Tensor:
    """Return hidden states that differ everywhere."""
    torch.manual_seed(0)
    return torch.randn(*forest.input_ids.shape, DIM)


def test_the_last_token_of_each_response_is_read(forest: Forest, hidden: torch.Tensor) -> None:
    head = Linear(DIM)
    # Row 0 is p p a a b, row 1 is p c c c.
    expected = head.layers[0](torch.stack([hidden[0, 3], hidden[0, 4], hidden[1, 3]]))[:, 0]
    torch.testing.assert_close(head(hidden, forest), expected)


def test_mean_pooling_averages_over_the_response_alone(forest: Forest, hidden: torch.Tensor) -> None:
    head = Linear(DIM, pooling="mean")
    means = torch.stack([hidden[0, 2:4].mean(0), hidden[0, 4], hidden[1, 1:4].mean(0)])
    torch.testing.assert_close(head(hidden, forest), head.layers[0](means)[:, 0])


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_padding_and_prompts_have_no_say(forest: Forest, hidden: torch.Tensor, pooling: str) -> None:
    head = MLP(DIM, pooling=pooling)
    disturbed = hidden.masked_fill((forest.response < 0)[..., None], 1e6)
    assert torch.equal(head(disturbed, forest), head(hidden, forest))


@pytest.mark.parametrize("activation", ["none", "tanh", "silu", "relu"])
@pytest.mark.parametrize("num_layers", [1, 2, 3, 4, 5])
def test_layers_alternate_with_activations(
    forest: Forest, hidden: torch.Tensor, num_layers: int, activation: str
) -> None:
    head = MLP(DIM, num_layers=num_layers, activation=activation, width=5)
    function = {"none": nn.Identity(), "tanh": torch.tanh, "silu": nn.functional.silu, "relu": torch.relu}[
        activation
    ]
    state = hidden.flatten(0, 1)[forest.ends]
    for layer in head.layers[:-1]:
        state = function(layer(state))
    torch.testing.assert_close(head(hidden, forest), head.layers[-1](state)[:, 0])
    assert [layer.out_features for layer in head.layers] == [5] * (num_layers - 1) + [1]


def test_the_default_is_the_papers_winner() -> None:
    head = MLP(DIM)
    assert [tuple(layer.weight.shape) for layer in head.layers] == [(DIM, DIM), (1, DIM)]
    assert isinstance(head.activation, nn.SiLU)


def test_rewards_are_fp32_whatever_comes_in(forest: Forest, hidden: torch.Tensor) -> None:
    head = MLP(DIM)
    with torch.autocast("cpu", torch.bfloat16):
        rewards = head(hidden.bfloat16(), forest)
    assert rewards.dtype == torch.float32
    assert torch.equal(rewards, head(hidden.bfloat16().float(), forest))


def test_gradients_reach_only_the_tokens_that_are_read(forest: Forest, hidden: torch.Tensor) -> None:
    hidden.requires_grad_()
    MLP(DIM)(hidden, forest).sum().backward()
    touched = hidden.grad.abs().sum(-1).flatten().nonzero()[:, 0]
    assert touched.tolist() == forest.ends.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "head option num_layers is 0; allowed: 1 to 5"),
        ({"num_layers": 6}, "head option num_layers is 6; allowed: 1 to 5"),
        ({"dropout": 1.0}, "head option dropout is 1.0; allowed: 0 up to, not including, 1"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        MLP(DIM, **options)
    assert str(error.value) == message
