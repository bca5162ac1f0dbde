"""Load and save transformers models strictly: no random tensor, no remote code, no pickle."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from basereward.backbones import quantization
from basereward.errors import ConfigError, ModelError

HEADS = ("lm_head.", "score.", "v_head.", "rm_head.")
IGNORABLE = (*HEADS, *(f"language_model.{name}" for name in HEADS))
"""Tensors of heads, which a checkpoint may hold and a backbone does not use."""


@contextmanager
def without_transformers_bars() -> Iterator[None]:
    """Keep transformers from drawing its bars, one for each file that it reads or writes."""
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def transformers_bars() -> AbstractContextManager[None]:
    """Let transformers draw its bars in a terminal only; in a log each would be a line for every step."""
    return nullcontext() if sys.stderr.isatty() else without_transformers_bars()


def source_arguments(model: str) -> dict[str, Any]:
    """Return the arguments by which transformers reads a directory or a hub id.

    Raises:
        ConfigError: When `model` looks like a directory that is not there.
    """
    directory = Path(model)
    if not directory.is_dir() and (
        directory.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1
    ):
        raise ConfigError(f"model {model!r} is no directory and no hub id of the form owner/name")
    return {
        "pretrained_model_name_or_path": model,
        "trust_remote_code": False,
        "local_files_only": directory.is_dir(),
    }


def load_model(
    model: str,
    *,
    dtype: str,
    quantize: quantization.Quantization | None = None,
    skipped: Collection[str] = (),
) -> Any:
    """Load the bare model (no language-model head) and refuse any tensor that is not in the checkpoint.

    Args:
        model: A directory or a hub id.
        dtype: Type of the weights.
        quantize: The precision that linear layers are quantized to; None for none.
        skipped: Names of modules in which no layer is quantized.

    Raises:
        ConfigError: When the model can't be quantized.
        ModelError: Naming the tensors that are missing, misshapen or not expected.
    """
    from transformers import AutoModel

    arguments = quantization.loading_arguments(getattr(torch, dtype), skipped) if quantize else {}
    try:
        with transformers_bars():
            loaded, report = AutoModel.from_pretrained(
                **source_arguments(model),
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
                **arguments,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"can't load {model}: {str(error).splitlines()[0]}") from error
    wrong = {
        "missing": sorted(report["missing_keys"]),
        "misshapen": sorted(
            str(key[0] if isinstance(key, tuple) else key) for key in report["mismatched_keys"]
        ),
        "unexpected": sorted(key for key in report["unexpected_keys"] if not key.startswith(IGNORABLE)),
    }
    for kind, names in wrong.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(f"{model} has {kind} tensors: {', '.join(names[:3])}{more}")
    # transformers hands models out in eval mode; the trainer decides, and the cache only costs memory here.
    loaded.config.use_cache = False
    quantization.settle(loaded)
    return loaded.train()


def save_model(model: Any, directory: Path) -> None:
    """Write a model in the hub's layout, quantized weights dequantized."""
    with quantization.expanded(model), transformers_bars():
        model.save_pretrained(directory, max_shard_size="5GB")


def load_tokenizer(model: str) -> Any:
    """Load the tokenizer, with a padding token so that ids can fill rows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(**source_arguments(model))
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {model} has no end-of-sequence token; set eos_token in its files")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
