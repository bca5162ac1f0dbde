"""Checkpoints: all that a training needs to go on as if it had never ended, put in place whole or not at all.

Safetensors and JSON only: reading a checkpoint runs nobody's code.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from basereward.errors import BaseRewardError
from basereward.model_directory import digest, sync

FORMAT = 1
STATE_FILE = "state.json"
NAME = re.compile(r"step-(\d{8,})")
UNFINISHED = "unfinished-"


class CheckpointError(BaseRewardError):
    """A checkpoint that can't be written, is damaged, or belongs to another training."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: tensors by file and name, and everything else."""

    directory: Path
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run: a directory `step-N` each, of which the newest is kept.

    An older one goes only after the newer one is on disk under its name, so that one is whole at any moment.

    Args:
        directory: Where they are.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def place(self, step: int) -> Path:
        """Return where the checkpoint of a step is."""
        return self.directory / f"step-{step:08d}"

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Write a checkpoint aside, put it on disk, give it its name, and remove the older ones.

        Args:
            step: Names it.
            tensors: For each safetensors file its tensors.
            state: What JSON can hold.

        Raises:
            CheckpointError: When the disk refuses it; the previous one stays.
        """
        place = self.place(step)
        aside = self.directory / f"{UNFINISHED}{place.name}"
        try:
            _write(aside, tensors, state)
            if place.exists():  # a damaged one that was passed over on resume
                shutil.rmtree(place)
            aside.rename(place)
            sync(self.directory)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            kept = self._places()
            previous = f"; {kept[-1]} stays the newest" if kept else ""
            raise CheckpointError(f"{place}: can't be written: {error}{previous}") from error
        for older in self._places():
            if older != place:
                shutil.rmtree(older)

    def newest(self) -> tuple[Checkpoint | None, list[CheckpointError]]:
        """Read the newest checkpoint that is whole, and return it with the errors of newer, damaged ones.

        What a killed run left unfinished is removed, and so are older ones.

        Raises:
            CheckpointError: Naming the damaged file, when there are checkpoints and none is whole.
        """
        for left in self.directory.glob(f"{UNFINISHED}*"):
            shutil.rmtree(left)
        errors: list[CheckpointError] = []
        places = self._places()
        while places:
            try:
                found = _read(places.pop())
            except CheckpointError as error:
                errors.append(error)
            else:
                for older in places:  # which the killed run was about to remove
                    shutil.rmtree(older)
                return found, errors
        if errors:
            raise errors[0]
        return None, []

    def _places(self) -> list[Path]:
        if not self.directory.is_dir():
            return []
        named = {path: NAME.fullmatch(path.name) for path in self.directory.iterdir()}
        return sorted((path for path, match in named.items() if match), key=lambda path: int(path.name[5:]))


def _write(directory: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    files = {}
    for name, group in tensors.items():
        path = directory / f"{name}.safetensors"
        save_file({key: value.detach().contiguous() for key, value in group.items()}, path)
        files[path.name] = digest(path)
        sync(path)
    content = {"format": FORMAT, "files": files, "state": dict(state)}
    path = directory / STATE_FILE
    path.write_text(json.dumps({**content, "sha256": _digest_of(content)}) + "\n", encoding="utf-8")
    sync(path)
    sync(directory)
    sync(directory.parent)


def _read(directory: Path) -> Checkpoint:
    path = directory / STATE_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("sha256") != _digest_of(content):
            raise ValueError("its SHA-256 differs")
        if content["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {content['format']}; this version reads format {FORMAT}"
            )
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    tensors = {}
    for name, expected in content["files"].items():
        path = directory / name
        try:
            if digest(path) != expected:
                raise CheckpointError(f"{path} is damaged: its SHA-256 differs")
            tensors[path.stem] = load_file(path)
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} is missing") from error
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
    return Checkpoint(directory, tensors, content["state"])


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
