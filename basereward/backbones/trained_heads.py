"""Find the trained reward head of a checkpoint, which a backbone alone would leave behind."""

from __future__ import annotations

from pathlib import Path

from basereward.errors import ConfigError
from basereward.storage.model_directory import CONFIG_FILE, HEAD_FILE
from basereward.storage.reading import read_json

REWARD_HEADS = ("score.", "v_head.", "rm_head.", "value_head.", "reward_head.")
"""Beginnings of the names of reward heads' tensors; some lie within `language_model`."""

INDEX = "model.safetensors.index.json"
HEAD_FILES = ("value_head.safetensors", "value_head.bin")
"""Files of their own in which TRL and LLaMA-Factory save a head."""


def check_no_trained_head(model: str) -> None:
    """Refuse a checkpoint with a trained reward head as the model of a backbone with a random one.

    Raises:
        ConfigError: Naming the head, and how it is kept.
    """
    names = trained_heads(model)
    if not names:
        return
    way = (
        f'go on from it by init = "{model}" at the top of the run file'
        if names == [HEAD_FILE]
        else f"make a model directory of it by `basereward import {model} --output DIR`, and go on from "
        'that by init = "DIR" at the top of the run file'
    )
    raise ConfigError(
        f"{model} has a trained reward head ({', '.join(names[:3])}), which a random one would replace; "
        f"{way}, or write fresh_head = true there to leave it behind"
    )


def is_model_directory(model: str) -> bool:
    """Tell whether a path is a model directory of BaseReward's own."""
    return (Path(model) / CONFIG_FILE).is_file()


def trained_heads(model: str) -> list[str]:
    """Return the names of the tensors or files of a checkpoint's reward head; none where it has no head.

    Args:
        model: A directory or a hub id, of which what was downloaded is looked at.
    """
    directory = Path(model)
    if not directory.is_dir():
        downloaded = _downloaded(model)
        if downloaded is None:
            return []
        directory = downloaded
    if is_model_directory(str(directory)):
        return [HEAD_FILE] if (directory / HEAD_FILE).is_file() else []
    files = [name for name in HEAD_FILES if (directory / name).is_file()]
    return files + sorted(name for name in _tensor_names(directory) if _is_of_head(name))


def _is_of_head(name: str) -> bool:
    return name.removeprefix("model.").removeprefix("language_model.").startswith(REWARD_HEADS)


def _tensor_names(directory: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        if (directory / INDEX).is_file():
            return list(read_json(directory / INDEX)["weight_map"])
        names: list[str] = []
        for path in sorted(directory.glob("*.safetensors")):
            with safe_open(path, framework="pt") as opened:
                names += opened.keys()
        return names
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return []  # for the backbone to say what is wrong with the files


def _downloaded(model: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(model, "config.json")
    except (HFValidationError, ValueError, OSError):
        return None
    return Path(config).parent if isinstance(config, str) else None
