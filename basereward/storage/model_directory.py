"""The model directory: its files, and the checks that find damaged, missing and extra ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from basereward._version import __version__
from basereward.errors import ModelError
from basereward.storage.atomic import file_digest, restore
from basereward.storage.reading import read_json

SCHEMA_VERSION = 1
KINDS = ("backbone", "head", "loss", "paradigm")
ENSEMBLE_KINDS = ("ensembler",)
"""The kinds of components of a model, and of an ensemble, whose members are directories within its own."""
CONFIG_FILE = "reward_config.json"
HEAD_FILE = "head.safetensors"

CODE_SUFFIXES = (".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
"""Files that run code when they are loaded; a model directory has none."""


def write_config(directory: Path, facts: Mapping[str, Any]) -> None:
    """Write `reward_config.json`, which has the facts and names every other file with its SHA-256."""
    files = {path.relative_to(directory).as_posix(): file_digest(path) for path in _files(directory)}
    config = {
        "schema_version": SCHEMA_VERSION,
        "basereward_version": __version__,
        **facts,
        "files": dict(sorted(files.items())),
    }
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read(directory: Path, *, verify: bool) -> dict[str, Any]:
    """Read and check `reward_config.json` and, with `verify`, every file that it names.

    Raises:
        ModelError: Naming the file that is missing, altered, extra or not understood.
    """
    restore(directory)
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise ModelError(f"{directory} is no model directory: it has no {CONFIG_FILE}")
    try:
        config = read_json(path)
        version = config["schema_version"]
        is_ensemble = "members" in config
        needed = ("components", "record", "files", *([] if is_ensemble else ["template_digest"]))
        absent = [name for name in needed if not isinstance(config.get(name), dict | str)]
        absent += [
            f"components.{kind}"
            for kind in (ENSEMBLE_KINDS if is_ensemble else KINDS)
            if not absent
            and not {"name", "plugin", "version", "options"} <= set(config["components"].get(kind, ()))
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is damaged: {error!r}") from error
    if version != SCHEMA_VERSION:
        raise ModelError(
            f"{path} has schema version {version}; this BaseReward reads version {SCHEMA_VERSION}"
        )
    if absent:
        raise ModelError(f"{path} is damaged: {absent[0]} is missing")
    _check_files(directory, config["files"], verify=verify)
    return dict(config)


def is_ensemble(directory: Path) -> bool:
    """Tell an ensemble's directory from a model's, and from what is neither."""
    restore(directory)
    try:
        config = read_json(directory / CONFIG_FILE)
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "members" in config


def is_ours(directory: Path) -> bool:
    """Tell a directory of a model or an ensemble, which another may replace, from others, by its mark."""
    return (directory / CONFIG_FILE).is_file()


def save_tensors(modules: Mapping[str, nn.Module], path: Path) -> None:
    """Write the modules' tensors, each under its module's name."""
    tensors = {
        f"{prefix}.{name}": value.detach().cpu().contiguous()
        for prefix, module in modules.items()
        for name, value in module.state_dict().items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


def load_tensors(modules: Mapping[str, nn.Module], path: Path) -> None:
    """Fill the modules with the file's tensors.

    Raises:
        ModelError: Naming the tensor that is missing, unexpected, misshapen or not finite.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    for prefix, module in modules.items():
        for name, value in module.state_dict().items():
            key = f"{prefix}.{name}"
            if key not in tensors:
                raise ModelError(f"{path} lacks the tensor {key}")
            tensor = tensors.pop(key)
            if tensor.shape != value.shape:
                raise ModelError(f"{path}: {key} has the shape {list(tensor.shape)}, not {list(value.shape)}")
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ModelError(f"{path}: {key} holds values that are not finite")
            with torch.no_grad():
                value.copy_(tensor)
    if tensors:
        raise ModelError(f"{path} has the unexpected tensor {min(tensors)}")


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and path != directory / CONFIG_FILE]


def _check_files(directory: Path, expected: Mapping[str, str], *, verify: bool) -> None:
    present = {path.relative_to(directory).as_posix(): path for path in _files(directory)}
    for name in expected:
        if name not in present:
            raise ModelError(f"{directory} lacks the file {name}")
    for name, path in sorted(present.items()):
        if path.suffix in CODE_SUFFIXES:
            raise ModelError(
                f"{path} could run code when loaded; a model directory holds safetensors and JSON only"
            )
        # A loader may read files of its directory unasked, such as an adapter or another chat template.
        if name not in expected and not _is_harmless(name):
            raise ModelError(f"{path} is not among the model's files; remove it")
        if verify and name in expected and file_digest(path) != expected[name]:
            raise ModelError(f"{path} is not the file that was saved: its SHA-256 differs")


def _is_harmless(name: str) -> bool:
    """Tell notes for people, and what git and download tools leave, from files that are loaded."""
    *folders, last = name.split("/")
    is_hidden = any(part.startswith(".") for part in (*folders, last))
    return is_hidden or last.endswith(".md") or last == "LICENSE"
