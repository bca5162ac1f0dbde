"""torch's FlashAttention takes and returns what the forest's attention hands it, by tensors without data."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import tiny
import torch
from forests import PAD, tree
from torch import Tensor

from basereward.backbones.causal_lm import CausalLM
from basereward.forest import pack
from basereward.forest.attention import forest_attention
from basereward.forest.flash_kernel import Flash, packed_kernel
from basereward.forest.layout import ForestLayout

POSITIONAL = ["query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p", "is_causal"]
SCHEMAS = {
    "_flash_attention_forward": [*POSITIONAL, "return_debug_mask"],
    "_flash_attention_backward": [
        "grad_out",
        *POSITIONAL[:3],
        "out",
        "logsumexp",
        *POSITIONAL[3:],
        "rng_state",
        "unused",
    ],
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_positional_arguments_are_those_that_are_handed_over(name: str) -> None:
    schema = getattr(torch.ops.aten, name).default._schema
    assert [argument.name for argument in schema.arguments if not argument.kwarg_only] == SCHEMAS[name]
    assert "scale" in [argument.name for argument in schema.arguments if argument.kwarg_only]


def test_half_precision_alone_goes_through_the_kernel() -> None:
    query = torch.empty(3, 4, 64, device="meta")
    assert packed_kernel(query.bfloat16()) is Flash
    assert packed_kernel(query.half()) is Flash
    assert packed_kernel(query) is None
    assert packed_kernel(torch.empty(3, 4, 60, dtype=torch.bfloat16, device="meta")) is None
    assert packed_kernel(torch.empty(3, 4, 264, dtype=torch.bfloat16, device="meta")) is None
    assert packed_kernel(torch.empty(3, 4, 64, dtype=torch.bfloat16)) is None


@pytest.mark.parametrize("reads_ends", [False, True])
@pytest.mark.parametrize("row_tokens", [None, 10**6])
def test_shapes_and_types_fit_forward_and_backward(row_tokens: int | None, reads_ends: bool) -> None:
    trees = [tree(70, 40, 50), tree(9, 3), tree(0, 4, 5)]
    forest = pack(trees, pad=PAD, row_tokens=row_tokens).to("meta")
    rows, length = forest.input_ids.shape
    states = [
        torch.empty(rows, heads, length, 128, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for heads in (28, 4, 4)
    ]
    layout = ForestLayout(forest)
    output, _ = forest_attention(torch.nn.Module(), *states, layout=layout, reads_ends=reads_ends)
    assert (output.shape, output.dtype) == ((rows, length, 28, 128), torch.bfloat16)
    for state, gradient in zip(states, torch.autograd.grad(output.sum(), states), strict=True):
        assert (gradient.shape, gradient.dtype) == (state.shape, torch.bfloat16)


def test_the_backward_pass_keeps_what_a_causal_kernel_keeps() -> None:
    # 8 pairs of a prompt of 2,000 tokens and answers of 400, with the heads of Qwen2.5-VL-7B.
    forest = pack([tree(2000, 400, 400)] * 8, pad=PAD, row_tokens=10**6).to("meta")
    num_tokens = forest.input_ids.numel()
    states = [
        torch.empty(1, heads, num_tokens, 128, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for heads in (28, 4, 4)
    ]
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: saved.append(one) or one, lambda one: one):
        forest_attention(torch.nn.Module(), *states, layout=ForestLayout(forest))
    # Queries and results of 28 heads, keys and values of 4, in 2 bytes; a log-sum-exp of 4 for each query.
    kept = sum(one.numel() * one.element_size() for one in saved)
    assert kept == num_tokens * (2 * 128 * (28 + 28 + 4 + 4) + 4 * 28)


def test_a_model_on_such_a_device_runs_through_the_kernel(tmp_path: Path) -> None:
    backbone = CausalLM(model=str(tiny.save_causal_lm(tmp_path)), dtype="bfloat16")
    trees = [backbone.encode(comparison) for comparison in tiny.comparisons(images=False)]
    forest = replace(backbone.pack(trees, row_tokens=inf), reads="ends").to("meta")
    calls: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        kernel = Flash.forward
        patch.setattr(Flash, "forward", lambda *given: calls.append(given[0]) or kernel(*given))
        hidden = backbone.to("meta")(forest)
    hidden.sum().backward()
    assert hidden.shape == (*forest.input_ids.shape, backbone.dim)
    # Two calls in each of three layers, the last of which has the 11 ends for queries.
    assert len(calls) == 6
    assert [len(query) for query in calls[4:]] == [11, 11]
