"""The settings of a transformers model that somebody else wrote, before transformers reads them.

transformers fetches or imports what some settings name, although remote code is off: an attention or experts
implementation `owner/repo` (a kernel of the hub), a quantization method (its package, and kernels of the
hub), a pretrained backbone within the model, an audio tokenizer, the base model of an adapter. Others name
files, which may lie outside the directory. They are refused here, by the name of the file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from basereward.errors import BaseRewardError, ModelError, shown
from basereward.storage.reading import read_json

SETTINGS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "preprocessor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "model.safetensors.index.json",
)
"""The JSON files in which transformers looks for settings; the tokenizer itself is `tokenizer.json`."""
FOLDERS = ("", "additional_chat_templates")
"""The folders of a model's directory that transformers reads."""

IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal|_autoset)?")
FETCHED = ("audio_tokenizer", "audio_tokenizer_name_or_path", "base_model_name_or_path")
"""Keys whose values transformers fetches from the hub."""
QUANTIZATION_METHODS = ("bitsandbytes",)
"""Methods whose package is one of ours; others import further packages, and fetch kernels."""
UNUSED_FILES = ("special_tokens_map_file",)
"""Keys of tokenizers' files that old ones hold with a path of their author, and that nothing reads."""
FILE_KEY = re.compile(r".*_files?|transformers_weights")

NUM_LAYERS = re.compile(r"(.*_)?(n|num)_(\w+_)?(layers?|blocks)|depths?|n_layers?|layers")
MAX_LAYERS = 10_000
"""Layers that a model may have; transformers would build any number, one after the other."""


def check_settings(model: str | Path, *, local_files_only: bool = False) -> None:
    """Refuse settings that would fetch or import something, name a file elsewhere, or can't be read.

    Args:
        model: A directory, a `config.json`, or a hub id.
        local_files_only: Whether nothing of a hub id is fetched, and only what is in the hub's cache is read.

    Raises:
        ModelError: Naming the file and the setting.
    """
    is_local = Path(model).exists()
    for path in _settings_files(Path(model)) if is_local else _hub_files(str(model), local_files_only):
        try:
            settings = read_json(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ModelError(f"{path} can't be read: {reason}") from error
        if not isinstance(settings, dict):
            raise ModelError(f"{path} is damaged: it is no JSON object")
        for key, value in _entries(settings):
            if reason := _reason(key, value):
                raise ModelError(f"{path}: {reason}")


@contextmanager
def reading(model: str | Path, part: str = "") -> Iterator[None]:
    """Turn whatever transformers raises while it reads a part of a model into an error that names the model.

    Raises:
        ModelError: With the first line of the reason.
    """
    # Threads of the tokenizers' library that panic raise what is no Exception.
    try:
        yield
    except (BaseRewardError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ModelError(f"can't load {f'{part} of ' if part else ''}{model}: {lines[0]}") from error


def _settings_files(model: Path) -> Iterator[Path]:
    """Yield the settings of a directory, all of whose files are seen to be files."""
    if not model.is_dir():
        yield model
        return
    for folder in FOLDERS:
        if not (model / folder).is_dir():
            continue
        for path in sorted((model / folder).iterdir()):
            mode = _mode(path)
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and not path.name.startswith("."):
                raise ModelError(f"{path} is no regular file")
    if os.path.lexists(model / "adapter_config.json"):
        raise ModelError(
            f"{model / 'adapter_config.json'} would load an adapter, and its base model from the hub; merge "
            "the adapter into its model, or remove the file"
        )
    yield from (model / name for name in SETTINGS if os.path.lexists(model / name))


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error


@lru_cache(maxsize=16)  # each file is asked for once, and not for each part of a model
def _hub_files(model: str, local_files_only: bool) -> list[Path]:
    from transformers.utils import cached_file

    # Where the hub can't be reached, what isn't in its cache can't be loaded either.
    options = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
        "local_files_only": local_files_only,
    }
    paths = []
    for name in SETTINGS:
        try:
            path = cached_file(model, name, **options)
        except (OSError, ValueError) as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise ModelError(f"can't load {model}: {lines[0]}") from error
        if path is not None:
            paths.append(Path(path))
    return paths


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of nested objects."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield from item.items()
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _reason(key: str, value: Any) -> str:
    """Return why a setting is refused; nothing where it isn't."""
    if IMPLEMENTATION.fullmatch(key):
        names = value.values() if isinstance(value, dict) else [value]
        if any(name is not None and not re.fullmatch(r"\w+", str(name)) for name in names):
            return f"{key} = {shown(value)} would fetch code from the hub and run it; remove the key"
    if key in FETCHED and value is not None:
        return f"{key} = {shown(value)} would be fetched from the hub; remove the key"
    if key == "use_pretrained_backbone" and value:
        return f"{key} would fetch weights from the hub; remove the key"
    if key == "quantization_config" and value:
        method = value.get("quant_method") if isinstance(value, dict) else None
        if method not in QUANTIZATION_METHODS:
            return (
                f"its weights are quantized by {shown(method)}; use the model in bf16, and quantize it here"
            )
    if key == "weight_map" and isinstance(value, dict):
        outside = next((name for name in value.values() if not _is_plain_name(name)), None)
        if outside is not None:
            return f"{key} names {shown(outside)}, which is no file of the directory"
    if FILE_KEY.fullmatch(key) and key not in UNUSED_FILES:
        for name in value if isinstance(value, list) else [value]:
            if name is not None and not _is_plain_name(name):
                return f"{key} = {shown(name)} is no file of the directory; remove the key"
    if NUM_LAYERS.fullmatch(key) and isinstance(value, int) and value > MAX_LAYERS:
        return f"{key} = {shown(value)}; at most {MAX_LAYERS:,} are allowed"
    return ""


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")
