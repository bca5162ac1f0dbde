"""Checkpoints in the layout of a model's authors, rewritten as transformers has the same architecture."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeAlias

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from basereward.backbones.untrusted_settings import check_settings, reading
from basereward.errors import ConfigError, ModelError
from basereward.interop import internvl_chat, llava_qwen
from basereward.interop.adapter import copy_tokenizer
from basereward.storage.atomic import replace_directory
from basereward.storage.reading import read_json

Rename: TypeAlias = Callable[[str, Tensor], Iterable[tuple[str, Tensor]]]
"""Gives the tensors that one of the authors' layout becomes, by their names in transformers' layout."""


class Rewriting(NamedTuple):
    """The rewriting of one architecture.

    Args:
        config: Returns transformers' config of the authors'.
        rename: Returns the renaming of tensors by the authors' config.
        finish: Writes the tokenizer and the image processor into a directory that has a copy of the authors'
            tokenizer files; it may add to the config.
    """

    config: Callable[[Path, Mapping[str, Any]], dict[str, Any]]
    rename: Callable[[Mapping[str, Any]], Rename]
    finish: Callable[[Path, Mapping[str, Any], dict[str, Any]], None]


LAYOUTS = {
    "internvl_chat": Rewriting(internvl_chat.config_of, internvl_chat.renaming, internvl_chat.finish),
    "llava_qwen": Rewriting(llava_qwen.config_of, llava_qwen.renaming, llava_qwen.finish),
}
"""The rewritings by the authors' model type."""

ABSENT = {
    "xcomposer2": "InternLM-XComposer2.5 (IXC-2.5-Reward). transformers has no such architecture: its "
    "authors publish it as code beside the weights (hub: internlm/internlm-xcomposer2d5-7b-reward), "
    "which is not run here; it takes a backbone plugin that has the architecture (docs/plugins.md)",
    "internlm2forrewardmodel": "InternLM2-Reward. transformers has no InternLM2: its authors publish it as "
    "code beside the weights (hub: internlm/internlm2-7b-reward), which is not run here",
}
"""What to say of architectures that transformers has not, by a part of their classes' names."""


@contextmanager
def in_transformers_layout(source: Path) -> Iterator[Path]:
    """Yield a checkpoint's directory, or one with it rewritten where its authors' layout is another.

    Raises:
        ConfigError: When transformers has no such architecture.
        ModelError: When it can't be rewritten.
    """
    authors = _authors_config(source)
    if authors is None:
        yield source
        return
    with TemporaryDirectory(prefix="basereward-layout-") as temporary:
        _rewrite(source, authors, Path(temporary))
        yield Path(temporary)


def rewrite_checkpoint(source: str | Path, directory: str | Path) -> None:
    """Write a checkpoint of an authors' layout as transformers has it, for the backbone of a run file.

    Args:
        source: The checkpoint: InternVL as OpenGVLab publishes it, or LLaVA-OneVision as lmms-lab does.
        directory: The directory to write; it must be new or empty.

    Raises:
        ConfigError: When the source is in no such layout, or the directory holds something.
        ModelError: When it can't be rewritten.
    """
    source = Path(source)
    authors = _authors_config(source)
    if authors is None:
        raise ConfigError(
            f"{source} is in transformers' layout, or in one that isn't known; rewritten are models of the "
            f"types {', '.join(LAYOUTS)}"
        )
    with replace_directory(Path(directory), foreign_files=lambda path: os.listdir(path)) as place:
        _rewrite(source, authors, place)


def _authors_config(source: Path) -> dict[str, Any] | None:
    """Return the config of a checkpoint in an authors' layout; None for one of transformers'."""
    path = source / "config.json"
    if not path.is_file():
        return None
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is damaged: it is no JSON object")
    names = json.dumps([config.get("architectures"), config.get("auto_map")]).lower()
    for part, what in ABSENT.items():
        if part in names:
            raise ConfigError(f"{source} is a model of {what}")
    return config if config.get("model_type") in LAYOUTS else None


def _rewrite(source: Path, authors: dict[str, Any], place: Path) -> None:
    check_settings(source)
    layout = LAYOUTS[authors["model_type"]]
    with reading(source, "the config"):
        config = layout.config(source, authors)
    _rewrite_tensors(source, place, layout.rename(authors))
    copy_tokenizer(source, place)
    layout.finish(place, authors, config)
    (place / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _rewrite_tensors(source: Path, place: Path, rename: Rename) -> None:
    """Write each file of weights with its tensors renamed, and their index where there are several."""
    files: dict[str, str] = {}
    size = 0
    opened: Any
    paths = [path for path in sorted(source.glob("*.safetensors")) if not path.name.startswith("value_head")]
    if not paths:
        raise ConfigError(f"{source} has no *.safetensors; weights in pickled files are not read")
    for path in paths:
        tensors: dict[str, Tensor] = {}
        with reading(path), safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                for new, tensor in rename(name, opened.get_tensor(name)):
                    tensors[new] = tensor.contiguous()
        save_file(tensors, place / path.name, metadata={"format": "pt"})
        files |= dict.fromkeys(tensors, path.name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if [path.name for path in paths] != ["model.safetensors"]:
        index = {"metadata": {"total_size": size}, "weight_map": files}
        (place / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    for path in source.glob("value_head.*"):
        if path.is_file():
            shutil.copyfile(path, place / path.name)
