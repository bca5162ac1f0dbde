"""The model directory: its files, and the checks that find damaged, missing and extra ones."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from basereward._version import __version__
from basereward.errors import ModelError, shown
from basereward.storage.atomic import file_digest, file_names, restore
from basereward.storage.hub import fetch_hint
from basereward.storage.reading import is_regular, read_json

SCHEMA_VERSION = 1
KINDS = ("backbone", "head", "loss", "paradigm")
ENSEMBLE_KINDS = ("ensembler",)
"""The kinds of components of a model, and of an ensemble, whose members are directories within its own."""
CONFIG_FILE = "reward_config.json"
HEAD_FILE = "head.safetensors"
CARD_FILE = "README.md"
"""The model card. People may edit it, so that its digest stands apart from those of the model's files."""

WORDS: dict[type, str] = {str: "text", dict: "object", list: "list"}
"""The types of JSON, as errors call them."""

CODE_SUFFIXES = (".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
"""Files that run code when they are loaded; a model directory has none."""


def write_config(
    directory: Path, facts: Mapping[str, Any], digests: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write `reward_config.json`, which has the facts and names every other file with its SHA-256.

    Args:
        directory: The model directory.
        facts: What else it says.
        digests: The SHA-256 of files whose writer has computed it.
    """
    files = {name: digests.get(name) or file_digest(path) for name, path in _files(directory).items()}
    card = files.pop(CARD_FILE, None)
    config = {
        "schema_version": SCHEMA_VERSION,
        "basereward_version": __version__,
        **facts,
        **({"card": card} if card else {}),
        "files": dict(sorted(files.items())),
    }
    write_facts(directory / CONFIG_FILE, config)


def write_facts(path: Path, config: Mapping[str, Any]) -> None:
    """Write a whole `reward_config.json`."""
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def names_of(directory: Path) -> set[str]:
    """Return the names of the model's files, `reward_config.json` and the model card included."""
    return {CONFIG_FILE, *_files(directory)}


def read(directory: Path, *, verify: bool) -> dict[str, Any]:
    """Read and check `reward_config.json` and, with `verify`, every file that it names.

    Raises:
        ModelError: Naming the file that is missing, altered, extra or not understood.
    """
    restore(directory)
    path = directory / CONFIG_FILE
    if not os.path.lexists(path):
        raise ModelError(f"{directory} is no model directory: it has no {CONFIG_FILE}{fetch_hint(directory)}")
    config = _read_config(path)
    if "schema_version" not in config:
        raise ModelError(f"{path} is damaged: schema_version is missing")
    if config["schema_version"] != SCHEMA_VERSION:
        raise ModelError(
            f"{path} has schema version {shown(config['schema_version'])}; this BaseReward reads version "
            f"{SCHEMA_VERSION}"
        )
    if reason := _damage(config):
        raise ModelError(f"{path} is damaged: {reason}")
    _check_files(directory, config["files"], verify=verify)
    return config


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path} is damaged: {reason}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is damaged: it is no JSON object")
    return config


def _damage(config: Mapping[str, Any]) -> str:
    """Return what is missing, or of another type than `write_config` writes; nothing where all is right."""
    is_ensemble = "members" in config
    types: dict[str, type] = {"components": dict, "record": dict, "files": dict}
    types |= {"members": list} if is_ensemble else {"template_digest": str}
    for name, of in types.items():
        if not isinstance(config.get(name), of):
            return f"{name} is {_fault(config.get(name), of)}"
    keys: dict[str, type] = {"name": str, "plugin": str, "version": str, "options": dict}
    for kind in ENSEMBLE_KINDS if is_ensemble else KINDS:
        entry = config["components"].get(kind)
        if not isinstance(entry, dict):
            return f"components.{kind} is {_fault(entry, dict)}"
        for key, of in keys.items():
            if not isinstance(entry.get(key), of):
                return f"components.{kind}.{key} is {_fault(entry.get(key), of)}"
        if not isinstance(entry.get("distribution"), str | None):
            return f"components.{kind}.distribution is no text"
    for name, digest in config["files"].items():
        if not isinstance(digest, str):
            return f"files: the SHA-256 of {shown(name)} is {shown(digest)}"
    return ""


def _fault(value: Any, of: type) -> str:
    return "missing" if value is None else f"no {WORDS[of]}"


def of_run(directory: Path) -> Path:
    """Return the directory of the best model where that of a run is given, and any other as it is."""
    model = directory / "model"
    has_own = (directory / CONFIG_FILE).is_file()
    return model if not has_own and (model / CONFIG_FILE).is_file() else directory


def digest_of(directory: Path) -> str:
    """Return the beginning of a SHA-256 that tells a model from every other one; empty for no model.

    It is that of `reward_config.json`, which names every file with its own SHA-256.
    """
    path = of_run(directory) / CONFIG_FILE
    return file_digest(path)[:16] if path.is_file() else ""


def is_ensemble(directory: Path) -> bool:
    """Tell an ensemble's directory from a model's, and from what is neither."""
    restore(directory)
    try:
        config = read_json(directory / CONFIG_FILE)
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "members" in config


def foreign_files(directory: Path) -> set[str]:
    """Return the files of a directory that are not of the model or the ensemble that its config is of: those
    that the config doesn't name, and all where there is none.
    """
    names = file_names(directory)
    try:
        config = _read_config(directory / CONFIG_FILE)
    except ModelError:
        return names
    named = config.get("files")
    if not isinstance(named, dict):
        return names
    foreign = names - {CONFIG_FILE, *named}
    if CARD_FILE in foreign and is_regular(directory / CARD_FILE):
        # One that somebody has edited is theirs.
        is_ours = file_digest(directory / CARD_FILE) == config.get("card")
        return foreign - {CARD_FILE} if is_ours else foreign
    return foreign


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
        ModelError: Naming the tensor that is missing, unexpected, misshapen, of another kind or not finite.
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
            copy_tensor(tensors.pop(key), value, f"{path}: {key}")
    if tensors:
        raise ModelError(f"{path} has the unexpected tensor {min(tensors)}")


@torch.no_grad()
def copy_tensor(tensor: Tensor, target: Tensor, title: str) -> None:
    """Copy a tensor into one of the same shape and kind of type; floats may be of another precision.

    Raises:
        ModelError: Beginning with the title, when it can't be.
    """
    if tensor.shape != target.shape:
        raise ModelError(f"{title} has the shape {list(tensor.shape)}, not {list(target.shape)}")
    if tensor.dtype != target.dtype and not (tensor.is_floating_point() and target.is_floating_point()):
        raise ModelError(f"{title} has the type {tensor.dtype}, not {target.dtype}")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise ModelError(f"{title} holds values that are not finite")
    target.copy_(tensor)


def _files(directory: Path) -> dict[str, Path]:
    """Return the files of a directory by their names there, without its config.

    Raises:
        ModelError: Naming what is neither file nor directory, or a link; those of the hub's cache are files.
    """
    files: dict[str, Path] = {}
    waiting = [directory]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if path.is_dir() and not path.is_symlink():
                waiting.append(path)
            elif is_regular(path) or _is_hub_link(directory, path):
                files[path.relative_to(directory).as_posix()] = path
            elif not path.name.startswith("."):
                what = "a link" if path.is_symlink() else "no regular file"
                raise ModelError(f"{path} is {what}; a model directory holds files only")
    files.pop(CONFIG_FILE, None)
    return files


def _is_hub_link(directory: Path, path: Path) -> bool:
    """Tell whether a file is a link into the blobs of the hub's cache that the directory is a snapshot of."""
    blobs = directory.parent.parent / "blobs"
    if not path.is_symlink() or directory.parent.name != "snapshots" or blobs.is_symlink():
        return False
    target = Path(os.path.normpath(path.parent / os.readlink(path)))
    return target.parent == Path(os.path.normpath(blobs)) and is_regular(target)


def verify_share(directory: Path, rank: int, num_ranks: int) -> None:
    """Compare with its SHA-256 every file of a model directory that falls to one of several processes.

    Raises:
        ModelError: Naming the file that is missing, altered, extra or not understood.
    """
    files = read(directory, verify=False)["files"]
    # The largest first, so that each process has about as much to read.
    names = sorted(files, key=lambda name: (-(directory / name).stat().st_size, name))
    for name in names[rank::num_ranks]:
        _verify(directory / name, files[name])


def _verify(path: Path, digest: str) -> None:
    if file_digest(path) != digest:
        raise ModelError(f"{path} is not the file that was saved: its SHA-256 differs")


def _check_files(directory: Path, expected: Mapping[str, str], *, verify: bool) -> None:
    present = _files(directory)
    for name in expected:
        if name not in present:
            raise ModelError(f"{directory} lacks the file {name}")
    for name, path in sorted(present.items()):
        if path.suffix in CODE_SUFFIXES:
            raise ModelError(
                f"{path} could run code when loaded; a model directory holds safetensors and JSON only"
            )
        # A loader may read files of its directory unasked, such as an adapter or another chat template.
        if name not in expected and not is_harmless(name):
            raise ModelError(f"{path} is not among the model's files; remove it")
        if verify and name in expected:
            _verify(path, expected[name])


def is_harmless(name: str) -> bool:
    """Tell notes for people, and what git and download tools leave, from files that are loaded."""
    *folders, last = name.split("/")
    is_hidden = any(part.startswith(".") for part in (*folders, last))
    return is_hidden or last.endswith(".md") or last == "LICENSE"
