"""Trainings with compiled layers on a CPU: FlashAttention's contract as operators, and steps counted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import tiny
import torch
from emulated_flash import EmulatedFlash
from rounding import SMOOTH_EPS
from sharded import trained_model
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.distributed.tensor import DTensor

from basereward.comparison import Comparison
from basereward.forest import Forest
from basereward.forest.packed_runs import packed_runs
from basereward.forest.varlen_attention import PackedBlock, lse_dtype
from basereward.training import model_state
from basereward.training.compilation import compile_blocks
from basereward.training.distributed import ProcessGroup


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
    return torch.empty_like(query), query.new_empty(query.shape[1], query.shape[0], dtype=lse_dtype(query))


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


class Steps(NamedTuple):
    """What some steps of a training came to: losses, weights, graphs, and breaks in them."""

    losses: list[float]
    weights: dict[str, Tensor]
    num_graphs: int
    num_breaks: int


def take_steps(
    group: ProcessGroup, model: Path, is_compiled: bool, settings: dict[str, Any], backend: str = "eager"
) -> Steps:
    """Train for three steps, of batches of other shapes, by the attention of a GPU.

    Args:
        group: The processes.
        model: A model of texts.
        is_compiled: Whether the layers are compiled, though it is a CPU.
        settings: Of the training.
        backend: The compiler's; `aot_eager` makes graphs of the backward pass too, as on a GPU.
    """
    torch._dynamo.reset()
    counters.clear()
    counter = CompileCounterWithBackend(backend)
    moved = Forest.to

    def to(forest: Forest, device: Any) -> Forest:
        packed = packed_runs(*forest.runs(), forest.input_ids.numel())
        return moved(replace(forest, packed=packed), device)

    def compile_layers(backbone: Any, *_: Any) -> None:
        compile_blocks(backbone.blocks_to_compile(), counter)

    with (
        patch("basereward.forest.attention.packed_kernel", lambda query: Operator),
        patch.object(Forest, "to", to),
        patch.object(model_state, "compile_layers", compile_layers),
    ):
        trained = trained_model(group, model, {}, {"parallel": "ddp", "compile": is_compiled, **settings})
        for parameters in trained.optimizer.param_groups:
            parameters["eps"] = SMOOTH_EPS
        trained.train()
        losses = []
        for step in range(3):
            chance = random.Random(step)
            rows = [
                Comparison(
                    tiny.sentence(chance.randrange(99), 5 + 3 * step + number),
                    [tiny.sentence(chance.randrange(99), 2 + step + other) for other in range(2)],
                    ranks=[0, 1],
                )
                for number in range(4)
            ]
            prepared = [trained.paradigm.prepare(row) for row in rows[group.rank :: group.world_size]]
            sums, _ = trained.accumulate_gradients([prepared], 1, prepared[0])
            losses.append(sum(rank_sums[0] for rank_sums in sums))
            trained.optimizer_step(step + 1)
    weights = {
        name: value.full_tensor() if isinstance(value, DTensor) else value.detach().clone()
        for name, value in trained.paradigm.state_dict().items()
    }
    return Steps(losses, weights, counter.frame_count, sum(counters["graph_break"].values()))
