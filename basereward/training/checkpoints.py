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
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from basereward.errors import BaseRewardError
from basereward.storage.atomic import file_digest, fsync
from basereward.training.distributed import Ranks
from basereward.training.sharded_tensors import Rows, Stored, held, is_to_be_written

FORMAT = 2
STATE_FILE = "state.json"
NAME = re.compile(r"step-(\d{8,})")
UNFINISHED = "unfinished-"


class CheckpointError(BaseRewardError):
    """A checkpoint that can't be written, is damaged, or belongs to another training."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole.

    Args:
        directory: Where it is.
        state: What JSON holds of it.
        files: For each of its files the rows of tensors that lie in it in pieces.
    """

    directory: Path
    state: dict[str, Any]
    files: dict[str, dict[str, Rows]]

    def tensors(self, group: str) -> Stored:
        """Return one group of tensors, such as `model`."""
        return Stored(
            {self.directory / name: rows for name, rows in self.files.items() if _group_of(name) == group}
        )


class Checkpoints:
    """The checkpoints of one run: a directory `step-N` each, of which the newest are kept.

    An older one goes only after the newer one is on disk under its name, so that one is whole at any moment;
    and where the newest is damaged later, the one before it is still there.
    Of a model that is divided among processes each writes its rows, to a disk that all of them see; any
    number of processes can read them.

    Args:
        directory: Where they are.
        ranks: The processes that train together.
        keep: How many are kept.
    """

    def __init__(self, directory: Path, ranks: Ranks | None = None, *, keep: int = 1) -> None:
        self.directory = directory
        self.keep = keep
        self.ranks = ranks or Ranks()

    def place(self, step: int) -> Path:
        """Return where the checkpoint of a step is."""
        return self.directory / f"step-{step:08d}"

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Write a checkpoint aside, put it on disk, give it its name, and remove the oldest.

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
            self.ranks.first(lambda: _make_anew(aside))
            written = self.ranks.each(lambda: _write_tensors(aside, tensors, self.ranks))
            files = {name: entry for found in written for name, entry in found.items()}
            self.ranks.first(lambda: self._put_in_place(aside, place, files, state))
        except (OSError, SafetensorError) as error:
            kept = self._places()
            if self.ranks.is_first:
                shutil.rmtree(aside, ignore_errors=True)
            previous = f"; {kept[-1]} stays the newest" if kept else ""
            raise CheckpointError(f"{place}: can't be written: {error}{previous}") from error

    def _put_in_place(
        self, aside: Path, place: Path, files: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        _write_state(aside, files, state)
        if place.exists():  # a damaged one that was passed over on resume
            shutil.rmtree(place)
        aside.rename(place)
        fsync(self.directory)
        places = self._places()
        number = places.index(place)
        # Those with a later step were passed over on resume, and are of a course not taken.
        for other in (*places[: max(number + 1 - self.keep, 0)], *places[number + 1 :]):
            shutil.rmtree(other)

    def newest(self) -> tuple[Checkpoint | None, list[CheckpointError]]:
        """Find the newest checkpoint that is whole, and return it with the errors of newer, damaged ones.

        What a killed run left unfinished is removed, and what it was about to remove.

        Raises:
            CheckpointError: Naming the damaged file, when there are checkpoints and none is whole.
        """
        return self.ranks.first(self._newest)

    def _newest(self) -> tuple[Checkpoint | None, list[CheckpointError]]:
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
                for older in places[: max(len(places) + 1 - self.keep, 0)]:
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


def _group_of(file: str) -> str:
    return Path(file).stem.partition("-")[0]


def _make_anew(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def _write_tensors(
    directory: Path, tensors: Mapping[str, Mapping[str, Tensor]], ranks: Ranks
) -> dict[str, dict[str, Any]]:
    """Write what is for this process to write, and return each file's digest and pieces."""
    found = {}
    for group, named in tensors.items():
        whole = {name: value for name, value in named.items() if not isinstance(value, DTensor)}
        pieces = {
            name: held(value)
            for name, value in named.items()
            if isinstance(value, DTensor) and is_to_be_written(value)
        }
        files: list[tuple[str, dict[str, Tensor], dict[str, Rows]]] = []
        if ranks.is_first:
            files.append((group, whole, {}))
        if pieces:
            rows = {name: place for name, (_, place) in pieces.items() if place is not None}
            local = {name: piece for name, (piece, _) in pieces.items()}
            files.append((f"{group}-{ranks.rank:05d}", local, rows))
        for stem, content, rows in files:
            path = directory / f"{stem}.safetensors"
            save_file({name: value.detach().contiguous() for name, value in content.items()}, path)
            found[path.name] = {"sha256": file_digest(path), "rows": rows}
            fsync(path)
    return found


def _write_state(directory: Path, files: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    content = {"format": FORMAT, "files": dict(files), "state": dict(state)}
    path = directory / STATE_FILE
    path.write_text(json.dumps({**content, "sha256": _digest_of(content)}) + "\n", encoding="utf-8")
    fsync(path)
    fsync(directory)
    fsync(directory.parent)


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
    for name, entry in content["files"].items():
        path = directory / name
        try:
            if file_digest(path) != entry["sha256"]:
                raise CheckpointError(f"{path} is damaged: its SHA-256 differs")
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} is missing") from error
        except OSError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
    files = {
        name: {tensor: Rows(*rows) for tensor, rows in entry["rows"].items()}
        for name, entry in content["files"].items()
    }
    return Checkpoint(directory, content["state"], files)


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
