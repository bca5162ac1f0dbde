"""Compiled layers: two graphs for all shapes, no break in any, and the results of layers that are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import runs
import tiny
import torch
from emulated_flash import EmulatedFlash
from rounding import TINY_GRADIENT, within
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from basereward import ConfigError, train
from basereward.backbones.causal_lm import CausalLM
from basereward.backbones.qwen_vl import QwenVL
from basereward.backbones.transformers_backbone import TransformersBackbone
from basereward.forest import Forest
from basereward.forest.packed_runs import packed_runs
from basereward.forest.varlen_attention import PackedBlock
from basereward.training.activation_checkpointing import checkpoint_activations
from basereward.training.compilation import compile_blocks

# torch warns of what its own compiler does: it looks whether a layer's input has a gradient, and makes an
# autograd function.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def no_graphs_of_others() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def build(directory: Path, kind: str, dtype: str) -> TransformersBackbone:
    return (QwenVL if kind in tiny.VL_KINDS else CausalLM)(model=str(directory), dtype=dtype)


def forests(backbone: TransformersBackbone, kind: str) -> list[Forest]:
    """Return batches of four shapes."""
    rows = tiny.comparisons(images=kind in tiny.VL_KINDS)
    return [
        replace(
            backbone.pack([backbone.encode(row) for row in part], row_tokens=inf),
            reads="ends",
        )
        for part in (rows[:2], rows, rows[1:], rows[:3])
    ]


@pytest.mark.parametrize("kind", ["llama", "qwen2_5_vl", "qwen3_vl"])
def test_all_layers_and_shapes_share_two_graphs(tiny_models: dict[str, Path], kind: str) -> None:
    # Without data, through the operators that a GPU has.
    backbone = build(tiny_models[kind], kind, "bfloat16")
    batches = forests(backbone, kind)
    counter = CompileCounter()
    backbone.to("meta").train()
    compile_blocks(backbone.blocks_to_compile(), counter)
    for forest in batches:
        backbone(forest.to("meta")).sum().backward()
    assert counter.frame_count == 2
    assert not counters["graph_break"]


@torch.library.custom_op("basereward_tests::flash", mutates_args=())
def flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_starts: Tensor,
    key_starts: Tensor,
    max_queries: int,
    max_keys: int,
    is_causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """The emulated kernel as an operator, which a compiler doesn't look into."""
    block = PackedBlock(None, None, query_starts, key_starts, max_queries, max_keys, is_causal)
    return EmulatedFlash.forward(query, key, value, block, scale)


@torch.library.custom_op("basereward_tests::flash_backward", mutates_args=())
def flash_backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    lse: Tensor,
    query_starts: Tensor,
    key_starts: Tensor,
    max_queries: int,
    max_keys: int,
    is_causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Its backward pass."""
    block = PackedBlock(None, None, query_starts, key_starts, max_queries, max_keys, is_causal)
    return EmulatedFlash.backward(grad_output, query, key, value, output, lse, block, scale)


@flash.register_fake
def _(query: Tensor, *others: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), query.new_empty(query.shape[1], len(query))


@flash_backward.register_fake
def _(grad_output: Tensor, query: Tensor, key: Tensor, value: Tensor, *others: object) -> tuple[Tensor, ...]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class Operator:
    """The kernel by these operators."""

    @staticmethod
    def split(blocks: Sequence[PackedBlock]) -> Sequence[PackedBlock]:
        return blocks

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, block: PackedBlock, scale: float):  # type: ignore[no-untyped-def]
        return flash(query, key, value, *block[2:], scale)

    @staticmethod
    def backward(*given: object):  # type: ignore[no-untyped-def]
        *tensors, block, scale = given
        return flash_backward(*tensors, *block[2:], scale)


def test_hidden_states_and_gradients_are_those_of_layers_that_are_not_compiled(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("basereward.forest.attention", "basereward.backbones.vision_attention"):
        monkeypatch.setattr(f"{module}.packed_kernel", lambda query: Operator)
    plain, compiled = (build(tiny_models["qwen3_vl"], "qwen3_vl", "float32") for _ in range(2))
    compile_blocks(compiled.blocks_to_compile(), "eager")
    checkpoint_activations(compiled.blocks())
    for given in forests(plain, "qwen3_vl"):
        # As `to` makes them for a GPU.
        forest = replace(given, packed=packed_runs(*given.runs(), given.input_ids.numel()))
        states = []
        for backbone in (plain, compiled):
            backbone.zero_grad()
            states.append(backbone(forest).flatten(0, 1)[forest.ends])
            states[-1].square().sum().backward()
        torch.testing.assert_close(*states, **within(TINY_GRADIENT))
        for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, **within(TINY_GRADIENT))


def test_a_cpu_is_told_that_nothing_is_compiled_there(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    data = runs.write_rows(tmp_path / "train.jsonl", runs.rows(4, seed=1))
    run = runs.config(
        tmp_path / "run", tiny_models["llama"], data, max_steps=1, compile=True, precision="fp32"
    )
    with pytest.raises(ConfigError, match=r"train\.compile is for GPUs in bf16, not cpu in fp32"):
        train(run, progress=False)
