"""The memory of a training in one of its processes.

Shapes: D width of the hidden states, A of all heads' queries, K of all heads' keys, I within the MLP.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from basereward.config.run import TrainConfig
from basereward.costs.architecture import Architecture, Layers
from basereward.costs.flops import Counts

FP32, BF16 = 4, 2  # bytes
NF4 = 1 / 2 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a quantized weight: 4 bits, a scale in 8 bits for 64 of them, one in 32 bits for 256 scales."""


@dataclass(frozen=True)
class Memory:
    """Bytes that one process takes at its peak.

    Args:
        weights: Trained ones in fp32, frozen ones in the backbone's `dtype`.
        gradients: Of the trained ones, fp32.
        optimizer: The optimizer's moments.
        averages: Of the weights, if there are some.
        working_weights: Copies in which products are computed: in bf16 of all weights that a gradient passes,
            and under FSDP2 the blocks that are brought together at a time, with their gradients.
        activations: Results that the forward pass keeps for the backward pass.
        activation_gradients: Those of a block's results, while the backward pass is in it.
    """

    weights: int
    gradients: int
    optimizer: int
    averages: int
    working_weights: int
    activations: float
    activation_gradients: float

    @property
    def total(self) -> float:
        """All together."""
        return float(sum(getattr(self, item.name) for item in fields(self)))


def memory(
    model: Any,
    trainable: Mapping[str, Sequence[nn.Parameter]],
    architecture: Architecture,
    config: TrainConfig,
    counts: Counts,
    *,
    num_ranks: int,
    bf16: bool,
) -> Memory:
    """Return the memory that a training takes in each process.

    Args:
        model: The reward model without weights.
        trainable: The trained parameters, as `parameter_groups.trainable_parts` returns it.
        architecture: Of the model.
        config: The training's settings.
        counts: The comparisons of the largest forward pass.
        num_ranks: How many processes train together.
        bf16: Whether products are computed in bf16.
    """
    num_shards = 1
    if config.parallel == "fsdp" and num_ranks > 1:
        num_shards = config.shard_ranks or num_ranks // config.tensor_ranks
    is_sharded = num_shards > 1 or config.tensor_ranks > 1
    divided = divided_weights(model, config.tensor_ranks)
    every = list(dict.fromkeys(item for items in model.part_parameters().values() for item in items))
    trained = [item for items in trainable.values() for item in items]
    held = {item: _held(item, num_shards, divided.get(item)) for item in every}
    quantized = model.backbone.quantized_weights()
    num_trained = sum(held[item] for item in trained)
    if is_sharded:
        working = _gathered(model, every, {item: part.numel() for item, part in divided.items()}, bf16=bf16)
    else:
        passed = _passed(architecture) - sum(item.numel() for item in quantized)
        working = BF16 * passed if bf16 else 0
    passing = activations(
        _divided(architecture, config.tensor_ranks),
        counts,
        recomputes=config.activation_checkpointing,
        bf16=bf16,
    )
    return Memory(
        weights=sum(
            round(number * (NF4 if item in quantized else item.element_size()))
            for item, number in held.items()
        ),
        gradients=FP32 * num_trained,
        optimizer=optimizer_bytes([(item, held[item]) for item in trained], config.optimizer),
        averages=FP32 * num_trained if config.ema_decay else 0,
        working_weights=working,
        activations=passing.kept,
        activation_gradients=passing.gradients,
    )


def optimizer_bytes(trained: Iterable[tuple[Tensor, int]], optimizer: str) -> int:
    """Return the bytes that an optimizer keeps between steps.

    Args:
        trained: The tensors, each with the elements of it that this process holds.
        optimizer: By its name in run files.
    """
    total = 0
    for tensor, number in trained:
        if optimizer == "adamw":
            total += 2 * FP32 * number + FP32  # two moments, and the number of steps
        elif optimizer == "adafactor":
            total += FP32 + FP32 * _factors(tensor)
        elif number < MIN_8BIT:
            total += 2 * FP32 * number
        else:
            # Two moments of a byte, a scale for each block, and two tables that all parameters share.
            total += 2 * number + 2 * FP32 * math.ceil(number / BLOCK_8BIT)
    return total


MIN_8BIT = 4096
BLOCK_8BIT = 256
"""From how many elements on bitsandbytes keeps moments in 8 bits, and how many of them share a scale."""


def _factors(tensor: Tensor) -> int:
    """Return the elements of Adafactor's second moment: a row and a column of each matrix."""
    if tensor.ndim < 2:
        return tensor.numel()
    return tensor.numel() // tensor.shape[-1] + tensor.numel() // tensor.shape[-2]


def divided_weights(model: Any, tensor_ranks: int) -> dict[Tensor, Tensor]:
    """Return of each weight that so many processes divide the part that the first one has.

    Args:
        model: The reward model without weights.
        tensor_ranks: As in `TrainConfig`.

    Raises:
        ConfigError: When its layers can't be divided among so many.
    """
    if tensor_ranks == 1:
        return {}
    parts: dict[Tensor, Tensor] = {}
    for module, division in model.backbone.layer_divisions(tensor_ranks).items():
        if division != "heads":
            parts[module.weight] = module.weight.chunk(tensor_ranks, dim=0 if division == "columns" else 1)[0]
            if module.bias is not None and division == "columns":
                parts[module.bias] = module.bias.chunk(tensor_ranks)[0]
    return parts


def _held(tensor: Tensor, num_shards: int, part: Tensor | None) -> int:
    """Return the elements that a process holds of a tensor, or a part of it, divided by rows: the first's."""
    tensor = tensor if part is None else part
    if num_shards == 1 or tensor.ndim == 0:
        return tensor.numel()
    return math.ceil(tensor.shape[0] / num_shards) * (tensor.numel() // max(tensor.shape[0], 1))


def _passed(architecture: Architecture) -> int:
    """Return the weights of the parts that a gradient passes through."""
    weights, is_reached = 0, False
    for name, part in architecture.parts.items():
        is_reached = is_reached or part.trained > 0
        weights += part.weights if is_reached and name != "head" else 0
    return weights


def _gathered(model: Any, every: Sequence[nn.Parameter], divided: Mapping[Tensor, int], *, bf16: bool) -> int:
    """Return the bytes of the parameters that FSDP2 has gathered at once.

    `divided` has the elements of those of which a process gathers a part alone.

    Two blocks, since the next is fetched while one computes, with one block's gradients; and all that is in
    no block, such as embeddings, in fp32 from the first use of it to the last.
    """
    blocks = [list(block.parameters()) for block in model.backbone.blocks()]
    in_blocks = {item for block in blocks for item in block}
    size = BF16 if bf16 else FP32
    sizes = [[(divided.get(item, item.numel()), item.requires_grad) for item in block] for block in blocks]
    largest = max((sum(number for number, _ in block) for block in sizes), default=0)
    trained = max((sum(number for number, is_trained in block if is_trained) for block in sizes), default=0)
    rest = [item for item in every if item not in in_blocks]
    return (
        2 * size * largest
        + (size + FP32) * trained
        + sum(item.numel() * (item.element_size() + (FP32 if item.requires_grad else 0)) for item in rest)
    )


class Activations(NamedTuple):
    """Bytes that are kept for the backward pass, and of a block's gradients while that pass is in it."""

    kept: float
    gradients: float


def activations(architecture: Architecture, counts: Counts, *, recomputes: bool, bf16: bool) -> Activations:
    """Return the memory that a pass takes besides the weights.

    With recomputation each block's input is kept, and all of the largest block, which is computed again.
    There are about as many gradients of a block's results as results.

    Args:
        architecture: Of the model, with the number of trained weights.
        counts: The comparisons of the pass.
        recomputes: Whether blocks are computed again in the backward pass.
        bf16: Whether products are computed in bf16.
    """
    kept = 0.0
    blocks = _blocks(architecture, counts, bf16=bf16)
    for block in blocks:
        kept += block.number * (block.stream if recomputes else block.kept)
        # The norm after the last block and what it gives; and pixels.
        kept += 3 * block.stream + block.pixels
    largest = max((block.kept for block in blocks), default=0.0)
    return Activations(kept + largest if recomputes else kept, largest)


class _Block(NamedTuple):
    """Bytes of one of equal blocks: all that it keeps, its input alone, and pixels before the first."""

    number: int
    kept: float
    stream: float
    pixels: float


def _blocks(architecture: Architecture, counts: Counts, *, bf16: bool) -> list[_Block]:
    """Return the blocks of the parts that a gradient passes through, one for all that are equal."""
    parts = {
        "vision": (architecture.vision, counts.patches),
        "language": (architecture.language, counts.tokens),
    }
    blocks: list[_Block] = []
    is_reached = False
    for name, part in architecture.parts.items():
        is_reached = is_reached or part.trained > 0
        layers, positions = parts.get(name, (None, 0))
        if is_reached and layers is not None:
            kept = positions * _kept(layers, bf16=bf16, fused=name == "vision")
            pixels = (BF16 if bf16 else FP32) * part.on_pixels / layers.width * positions
            blocks.append(_Block(layers.number, kept, FP32 * layers.width * positions, pixels))
    return blocks


def _kept(layers: Layers, *, bf16: bool, fused: bool) -> float:
    """Return the bytes that one block keeps of each token or patch.

    Args:
        layers: The blocks.
        bf16: Whether products are computed in bf16.
        fused: Whether queries, keys and values come of one product.
    """
    size = BF16 if bf16 else FP32
    width, query = layers.width, layers.query_width
    # Of each of two norms its input, and where it's made of single operations what it multiplies with its
    # weights. Products of what it gives: in fp32 they share it, in bf16 each has a copy of its own.
    norms = 2 * (2 if layers.has_plain_norm else 1) * FP32 * width
    num_products = (1 if fused else 3) + (2 if layers.is_gated else 1)
    inputs = num_products * BF16 * width if bf16 else 2 * FP32 * width
    heads = 2 * FP32 * (query + layers.key_width) if layers.norms_heads else 0
    # Queries and the result, keys and values where they lie, and a log-sum-exp of each head.
    attention = 2 * size * (query + layers.key_width) + FP32 * layers.num_heads
    mlp = (4 if layers.is_gated else 2) * size * layers.inner_width
    return norms + inputs + heads + attention + mlp


def _divided(architecture: Architecture, tensor_ranks: int) -> Architecture:
    """Return an architecture whose decoder has the heads and columns that one of so many processes has."""
    layers = architecture.language
    shares = {
        name: getattr(layers, name) // tensor_ranks
        for name in ("num_heads", "query_width", "key_width", "inner_width")
    }
    return replace(architecture, language=replace(layers, **shares))
