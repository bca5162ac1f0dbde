"""Load and save transformers models strictly: no random tensor, no remote code, no pickle."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from basereward.backbones import hub_kernels, quantization
from basereward.backbones.deferred_weights import INDEX, SINGLE, deferred_weights, hub_tensors
from basereward.backbones.untrusted_settings import check_settings, reading
from basereward.backbones.written_weights import MAX_FILE_BYTES, weights_of
from basereward.errors import ConfigError, ModelError
from basereward.storage.model_directory import HEAD_FILE
from basereward.storage.reading import read_json

HEADS = ("lm_head.", "score.", "v_head.", "rm_head.")
IGNORABLE = (*HEADS, *(f"language_model.{name}" for name in HEADS))
"""Tensors of heads, which a checkpoint may hold and a backbone does not use."""

_without_weights: ContextVar[bool] = ContextVar("without_weights", default=False)


@contextmanager
def without_weights() -> Iterator[None]:
    """Load models without their weights in this thread, and read nothing that is not on this machine.

    Every tensor has its shape and no memory (torch's meta device); tokenizers and processors are loaded.
    """
    token = _without_weights.set(True)
    try:
        yield
    finally:
        _without_weights.reset(token)


def loads_weights() -> bool:
    """Tell whether models are loaded with their weights in this thread; see `without_weights`."""
    return not _without_weights.get()


AUTHORS_LAYOUTS = ("internvl_chat", "llava_qwen")
"""Types of models as their authors publish them, which transformers has under another name and layout."""


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
    """Return the arguments by which transformers reads a directory or a hub id, whose settings are checked.

    Raises:
        ConfigError: When `model` looks like a directory that is not there, or is in its authors' layout.
        ModelError: When its settings name what would be fetched or imported; see `untrusted_settings`.
    """
    directory = Path(model)
    if not directory.is_dir() and (
        directory.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1
    ):
        raise ConfigError(f"model {model!r} is no directory and no hub id of the form owner/name")
    # Some models would fetch kernels by themselves.
    os.environ.setdefault(hub_kernels.SETTING, "NO")
    is_local = directory.is_dir() or not loads_weights()
    check_settings(model, local_files_only=is_local)
    path = directory / "config.json"
    if path.is_file() and (kind := read_json(path).get("model_type")) in AUTHORS_LAYOUTS:
        raise ConfigError(
            f"{model} is in its authors' layout ({kind!r}); write it in transformers' by `basereward import "
            f"{model} --plain --output DIR`, and name DIR"
        )
    return {
        "pretrained_model_name_or_path": model,
        "trust_remote_code": False,
        "local_files_only": is_local,
    }


def load_model(
    model: str,
    *,
    dtype: str,
    quantize: quantization.Quantization | None = None,
    skipped: Collection[str] = (),
) -> Any:
    """Load the bare model (no language-model head) and refuse any tensor that is not in the checkpoint.

    Within `defer_weights` it is made without weights, unless it is quantized.

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
    deferred = deferred_weights()
    if not loads_weights() or (deferred is not None and not quantize):
        bare = _shapes(model, dtype=dtype, quantize=quantize, skipped=skipped)
        if deferred is not None:
            with reading(model):
                deferred.models.append(hub_tensors(bare, source_arguments(model), IGNORABLE))
        return bare
    with reading(model):
        _check_types(Path(model))
        with transformers_bars():
            loaded, report = _loaded(
                AutoModel,
                **source_arguments(model),
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                **arguments,
            )
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
    # transformers hands models out in eval mode; the trainer decides.
    quantization.settle(loaded)
    return loaded.train()


def _shapes(
    model: str, *, dtype: str, quantize: quantization.Quantization | None, skipped: Collection[str]
) -> Any:
    """Return the bare model without its weights, whose files have to be there."""
    from transformers import AutoConfig, AutoModel

    with reading(model):
        config = AutoConfig.from_pretrained(**source_arguments(model))
        _check_files(Path(model))
        with torch.device("meta"):
            bare = AutoModel.from_config(config, dtype=getattr(torch, dtype), attn_implementation="eager")
    if quantize:
        quantization.check_widths(bare, skipped)
    return bare.train()


def _check_files(directory: Path) -> None:
    """Raise a ModelError where a directory lacks a file of weights."""
    if not directory.is_dir():
        return
    index = directory / INDEX
    names = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else [SINGLE]
    for name in names:
        if not (directory / name).is_file():
            raise ModelError(f"{directory} has no file {name}, which holds weights of the model")
    _check_types(directory)


def _check_types(directory: Path) -> None:
    """Refuse weights that are no floats, which transformers would cast without a word.

    Raises:
        ModelError: Naming file, tensor and type.
    """
    opened: Any
    for path in sorted(directory.glob("*.safetensors")):
        if path.name == HEAD_FILE:  # is read by its own rules
            continue
        with reading(path), safe_open(path, framework="pt") as opened:
            # A quantized layer has integers, and its scales beside them.
            names = set(opened.keys())
            for name in sorted(names):
                is_weight = name.endswith((".weight", ".bias")) and f"{name}.absmax" not in names
                kind = opened.get_slice(name).get_dtype()
                if kind.startswith("C") or (is_weight and not kind.startswith(("F", "BF"))):
                    raise ModelError(f"{path}: {name} has the type {kind}, not one of floats")


def _loaded(kind: Any, **arguments: Any) -> Any:
    """Load a model with an attention of torch's, whatever its settings say; `ForestDecoder` sets its own."""
    with hub_kernels.without_kernels():
        try:
            return kind.from_pretrained(**arguments, attn_implementation="sdpa")
        except ValueError as error:
            if "scaled_dot_product_attention" not in str(error):
                raise
            return kind.from_pretrained(**arguments, attn_implementation="eager")


def save_model(model: Any, directory: Path) -> None:
    """Write a model in the hub's layout, quantized weights dequantized.

    Within `written_weights` its weights are in files already.
    """
    if (weights := weights_of(model)) is not None:
        weights.move_to(directory)
        return
    with quantization.expanded(model), transformers_bars():
        model.save_pretrained(directory, max_shard_size=MAX_FILE_BYTES)


def load_tokenizer(model: str) -> Any:
    """Load the tokenizer, with a padding token so that ids can fill rows, and the processor's chat template
    where it has none of its own.
    """
    from transformers import AutoTokenizer

    with reading(model, "the tokenizer (tokenizer.json, tokenizer_config.json)"):
        tokenizer = AutoTokenizer.from_pretrained(**source_arguments(model))
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {model} has no end-of-sequence token; set eos_token in its files")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.chat_template:
        tokenizer.chat_template = _processor_template(model)
    return tokenizer


def _processor_template(model: str) -> Any:
    """Return the chat template of a processor that older versions of transformers wrote; None for none."""
    from transformers.utils import cached_file

    arguments = source_arguments(model)
    path = cached_file(
        arguments["pretrained_model_name_or_path"],
        "chat_template.json",
        local_files_only=arguments["local_files_only"],
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return None
    try:
        return read_json(Path(path))["chat_template"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"chat_template.json of {model} has no chat template: {error}") from error
