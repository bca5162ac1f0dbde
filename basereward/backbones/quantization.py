"""Weights in 4 bits (NF4 with quantized scales, arXiv 2305.14314), by bitsandbytes: read, not trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from basereward.backbones.hub_kernels import import_bitsandbytes
from basereward.errors import ConfigError
from basereward.extras import install_command

Quantization = Literal["4bit"]

BLOCK = 64
"""Weights that share a scale. On a CPU, bitsandbytes 0.50 misreads rows whose length is no multiple of it."""


def loading_arguments(dtype: torch.dtype, skipped: Collection[str]) -> dict[str, Any]:
    """Return the arguments by which transformers quantizes linear layers as it loads them.

    Args:
        dtype: The dtype of products.
        skipped: Names of modules whose layers stay as they are.

    Raises:
        ConfigError: When bitsandbytes isn't installed.
    """
    try:
        import_bitsandbytes()
    except ImportError as error:
        raise ConfigError(
            f"backbone option quantize needs bitsandbytes ({error}); {install_command('quantized')}"
        ) from error
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=list(skipped),
        )
    }


def settle(model: nn.Module) -> None:
    """Make a model that was just loaded compute the same in training and in evaluation.

    Raises:
        ConfigError: When a layer's rows are no multiple of a block.
    """
    for name, layer in model.named_modules():
        if is_quantized(layer):
            _check_width(name, layer)
            # Or a CPU with bf16 would rearrange the weights for scoring, and compute in bf16 unasked.
            layer.support_avx512bf16_for_cpu = False


def check_widths(model: nn.Module, skipped: Collection[str]) -> None:
    """Raise the error of `settle` for a model that is not quantized yet; modules named in `skipped` stay."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and not set(name.split(".")) & set(skipped):
            _check_width(name, layer)


def _check_width(name: str, layer: nn.Linear) -> None:
    if layer.in_features % BLOCK:
        raise ConfigError(
            f"backbone option quantize: layer {name} has rows of {layer.in_features} weights; 4-bit weights "
            f"come in blocks of {BLOCK}"
        )


def is_quantized(layer: nn.Module) -> bool:
    """Tell whether a layer's weights are in 4 bits."""
    return isinstance(layer, nn.Linear) and hasattr(layer.weight, "quant_state")


def plain_weight(layer: Any) -> Tensor:
    """Return a copy of the weight of a linear layer in fp32, dequantized if it is quantized."""
    if not is_quantized(layer):
        return layer.weight.detach().to(torch.float32, copy=True)  # type: ignore[no-any-return]
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()  # type: ignore[no-any-return]


@contextmanager
def expanded(model: Any) -> Iterator[None]:
    """Replace quantized layers by dequantized ones on the CPU while a model is saved."""
    swapped: list[tuple[nn.Module, str, nn.Module]] = []
    for owner in list(model.modules()):
        for name, layer in owner.named_children():
            if is_quantized(layer):
                plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
                plain.weight = nn.Parameter(plain_weight(layer).cpu(), requires_grad=False)
                plain.bias = layer.bias
                setattr(owner, name, plain)
                swapped.append((owner, name, layer))
    quantizer, config = getattr(model, "hf_quantizer", None), model.config
    settings = getattr(config, "quantization_config", None)
    if settings is not None:
        model.hf_quantizer = None
        del config.quantization_config
    try:
        yield
    finally:
        if settings is not None:
            model.hf_quantizer, config.quantization_config = quantizer, settings
        for owner, name, layer in swapped:
            setattr(owner, name, layer)
