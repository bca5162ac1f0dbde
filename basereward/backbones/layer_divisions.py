"""Divide a decoder's layers among processes: tensor parallelism by the plan in transformers' configurations.

A plan names modules of the decoder, such as `layers.*.self_attn.q_proj`, and the style of each. Some
configurations have none for layers, Qwen3-VL's among them, though its layers are those of Qwen3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from torch import nn

from basereward.errors import ConfigError

Division: TypeAlias = Literal["columns", "rows", "heads"]
"""The part of a module that a process has: rows of its matrix, which give columns of the output; columns of
its matrix, which take its share of the input's width; or all of it, for its own heads."""

STYLES: Mapping[str, Division] = {
    "colwise": "columns",
    "rowwise": "rows",
    "replicated_with_grad_allreduce": "heads",
}

LINEAR: Mapping[str, str] = {
    **{f"layers.*.self_attn.{name}_proj": "colwise" for name in "qkv"},
    "layers.*.self_attn.o_proj": "rowwise",
    **{f"layers.*.mlp.{name}_proj": "colwise" for name in ("gate", "up")},
    "layers.*.mlp.down_proj": "rowwise",
}
NORMS: Mapping[str, str] = {
    f"layers.*.self_attn.{name}_norm": "replicated_with_grad_allreduce" for name in "qk"
}
"""The plan of Llama and Qwen, and of norms of single heads, for configurations that have none."""


def layer_divisions(decoder: Any, num_ranks: int) -> dict[nn.Module, Division]:
    """Return how so many processes divide the modules of a decoder's layers.

    Raises:
        ConfigError: When its configuration has no plan, or one of another style than those above, or when
            heads or widths can't be divided by the number.
    """
    config = decoder.config
    names = {re.sub(r"\d+", "*", name) for name, _ in decoder.named_modules()}
    given: Mapping[str, str] = config.base_model_tp_plan or {}
    plan = {name: style for name, style in given.items() if name.startswith("layers.")}
    if not plan and names >= LINEAR.keys():
        plan = {**LINEAR, **NORMS}
    divisions: dict[nn.Module, Division] = {}
    for name, module in decoder.named_modules():
        style = plan.get(re.sub(r"\d+", "*", name))
        if style is None:
            continue
        if style not in STYLES:
            raise ConfigError(
                f"train.tensor_ranks: {name} of {config.model_type} would be divided by the style {style!r}; "
                f"allowed: {', '.join(STYLES)}; leave it out"
            )
        if STYLES[style] != "heads" and not isinstance(module, nn.Linear):
            raise ConfigError(
                f"train.tensor_ranks: {name} has adapters, or weights of another kind than a linear layer's, "
                "which can't be divided; leave it out"
            )
        divisions[module] = STYLES[style]
    if not divisions:
        raise ConfigError(
            f"train.tensor_ranks: there is no plan by which the layers of {config.model_type} are divided; "
            "leave it out"
        )
    counts = {"heads": config.num_attention_heads, "key heads": config.num_key_value_heads}
    counts |= {"columns of its MLP": config.intermediate_size}
    for unit, count in counts.items():
        if count % num_ranks:
            allowed = [str(number) for number in range(1, count + 1) if not count % number]
            raise ConfigError(
                f"train.tensor_ranks is {num_ranks}, and the decoder has {count} {unit}, which can't be "
                f"divided by it; allowed for these: {', '.join(allowed[:12])}"
            )
    return divisions
