"""The likelihood of continuations, beside a plain computation of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from basereward.forest.forest import Tree, pack
from basereward.paradigms.token_nll import mean_nll

BOUND = {"rtol": 64 * 1.2e-7, "atol": 64 * 1.2e-7}
"""Sums of 12 exponentials, of 8 products, and of 3 tokens, rounded in fp32 on the way there and back."""


@pytest.mark.parametrize("chunk", [1, 2, 1024])
def test_likelihoods_and_gradients_are_those_of_all_logits_at_once(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("basereward.paradigms.token_nll.CHUNK", chunk)
    torch.manual_seed(0)
    branches = [[3, 4, 5, 6], [7, 8], [9, 10, 11]]
    continuations = [[4, 5, 6], [], [10, 11]]
    forest = pack([Tree.of_text([1, 2], branches)], pad=0)
    hidden = torch.randn(*forest.input_ids.shape, 8, requires_grad=True)
    head = nn.Linear(8, 12, bias=False)
    costs = mean_nll(hidden, forest, head, continuations)
    weights = torch.tensor([1.0, 2.0, 3.0])
    (costs * weights).sum().backward()
    gradients = hidden.grad, head.weight.grad
    hidden.grad = head.weight.grad = None

    expected = []
    for end, ids in zip(forest.ends.tolist(), continuations, strict=True):
        states = hidden.flatten(0, 1)[end - len(ids) : end]
        expected.append(
            functional.cross_entropy(head(states), torch.tensor(ids)) if ids else hidden.new_zeros(())
        )
    # Costs are summed in fp32.
    torch.testing.assert_close(costs, torch.stack(expected).float(), rtol=1e-6, atol=1e-6)
    (torch.stack(expected) * weights).sum().backward()
    for gradient, other in zip(gradients, (hidden.grad, head.weight.grad), strict=True):
        torch.testing.assert_close(gradient, other, **BOUND)
