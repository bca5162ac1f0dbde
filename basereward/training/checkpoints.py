"""Checkpoints: everything a training needs to continue exactly, written atomically.

Safetensors and JSON only: reading a checkpoint runs no code of its author. Unlike torch's distributed
checkpoints, these hold digests and no pickle, and any number of ranks reads what any number has written.
"""

from __future__ import annotations

import hashlib
import json
import os
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

from basereward.errors import BaseRewardError, shown
from basereward.storage.atomic import file_digest, fsync
from basereward.storage.reading import read_json, understood
from basereward.training.distributed import ProcessGroup
from basereward.training.sharded_tensors import RowShard, ShardedReader, local_shard, writes_shard

FORMAT = 2
STATE_FILE = "state.json"
NAME = re.compile(r"step-(\d{8,})")
UNFINISHED = "unfinished-"


class CheckpointError(BaseRewardError):
    """A checkpoint that can't be written, is damaged, or belongs to another training."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose digests are right.

    Args:
        directory: Its directory.
        state: Its JSON state.
        files: For each of its files the positions of the shards in it by tensor name.
    """

    directory: Path
    state: dict[str, Any]
    files: dict[str, dict[str, RowShard]]

    def tensors(self, group: str) -> ShardedReader:
        """Return a reader of one group of tensors, such as `model`.

        Raises:
            CheckpointError: When a file holds no tensors.
        """
        files = {
            self.directory / name: positions
            for name, positions in self.files.items()
            if _group_of(name) == group
        }
        try:
            return ShardedReader(files)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{', '.join(map(str, files))} is damaged: {error}") from error


class Checkpoints:
    """The checkpoints of one run: a directory `step-N` each, of which the newest are kept.

    An older one is removed only after the newer one is on disk under its name, so that one is whole at any
    moment. Each rank writes its shards of a sharded model, to a disk that all ranks see; any number of ranks
    can read them.
    """

    def __init__(self, directory: Path, group: ProcessGroup | None = None, *, keep: int = 1) -> None:
        self.directory = directory
        self.keep = keep
        self.group = group or ProcessGroup()

    def path(self, step: int) -> Path:
        """Return the directory of a step's checkpoint."""
        return self.directory / f"step-{step:08d}"

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Write a checkpoint aside, sync it, rename it, and remove the oldest.

        Raises:
            CheckpointError: When the disk refuses it; the previous one stays.
        """
        path = self.path(step)
        aside = self.directory / f"{UNFINISHED}{path.name}"
        try:
            self.group.on_main(lambda: _make_anew(aside))
            written = self.group.on_all(lambda: _write_tensors(aside, tensors, self.group))
            files = {name: entry for rank_files in written for name, entry in rank_files.items()}
            self.group.on_main(lambda: self._put_in_place(aside, path, files, state))
        except (OSError, SafetensorError) as error:
            remaining = self._paths()
            if self.group.is_main:
                shutil.rmtree(aside, ignore_errors=True)
            previous = f"; {remaining[-1]} stays the newest" if remaining else ""
            raise CheckpointError(f"{path}: can't be written: {error}{previous}") from error

    def _put_in_place(
        self, aside: Path, path: Path, files: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        _write_state(aside, files, state)
        if path.exists():  # a damaged one that was skipped on resume
            shutil.rmtree(path)
        aside.rename(path)
        fsync(self.directory)
        paths = self._paths()
        number = paths.index(path)
        # Checkpoints of later steps were skipped on resume; the run has taken another course since.
        for other in (*paths[: max(number + 1 - self.keep, 0)], *paths[number + 1 :]):
            shutil.rmtree(other)

    def newest(self) -> tuple[Checkpoint | None, list[CheckpointError]]:
        """Return the newest checkpoint that is whole, and the errors of newer, damaged ones.

        Unfinished checkpoints of a killed run are removed, and those it was about to remove.

        Raises:
            CheckpointError: Naming the damaged file, when there are checkpoints and none is whole.
        """
        return self.group.on_main(self._newest)

    def _newest(self) -> tuple[Checkpoint | None, list[CheckpointError]]:
        for unfinished in self.directory.glob(f"{UNFINISHED}*"):
            if NAME.fullmatch(unfinished.name.removeprefix(UNFINISHED)):
                shutil.rmtree(unfinished)
        errors: list[CheckpointError] = []
        paths = self._paths()
        while paths:
            try:
                checkpoint = _read(paths.pop())
            except CheckpointError as error:
                errors.append(error)
            else:
                for older in paths[: max(len(paths) + 1 - self.keep, 0)]:
                    shutil.rmtree(older)
                return checkpoint, errors
        if errors:
            raise errors[0]
        return None, []

    def _paths(self) -> list[Path]:
        if not self.directory.is_dir():
            return []
        steps = {path: NAME.fullmatch(path.name) for path in self.directory.iterdir()}
        return sorted((path for path, match in steps.items() if match), key=lambda path: int(path.name[5:]))


def _group_of(file: str) -> str:
    return Path(file).stem.partition("-")[0]


def _make_anew(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def _write_tensors(
    directory: Path, tensors: Mapping[str, Mapping[str, Tensor]], group: ProcessGroup
) -> dict[str, dict[str, Any]]:
    """Write this rank's tensors, and return each file's digest and the positions of its shards."""
    written = {}
    for name, named in tensors.items():
        plain = {key: value for key, value in named.items() if not isinstance(value, DTensor)}
        shards = {
            key: local_shard(value)
            for key, value in named.items()
            if isinstance(value, DTensor) and writes_shard(value)
        }
        files: list[tuple[str, dict[str, Tensor], dict[str, RowShard]]] = []
        if group.is_main:
            files.append((name, plain, {}))
        if shards:
            positions = {key: position for key, (_, position) in shards.items() if position is not None}
            local = {key: shard for key, (shard, _) in shards.items()}
            files.append((f"{name}-{group.rank:05d}", local, positions))
        for stem, content, positions in files:
            path = directory / f"{stem}.safetensors"
            save_file({key: value.detach().contiguous() for key, value in content.items()}, path)
            written[path.name] = {"sha256": file_digest(path), "rows": positions}
            fsync(path)
    return written


def _write_state(directory: Path, files: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    content = {"format": FORMAT, "files": dict(files), "state": dict(state)}
    path = directory / STATE_FILE
    path.write_text(json.dumps({**content, "sha256": _digest_of(content)}) + "\n", encoding="utf-8")
    fsync(path)
    fsync(directory)
    fsync(directory.parent)


def _read(directory: Path) -> Checkpoint:
    path = directory / STATE_FILE
    _check_exists(path)
    with understood(path, CheckpointError):
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("state"), dict):
            raise ValueError("it has no state")
        if content.pop("sha256") != _digest_of(content):
            raise ValueError("its SHA-256 differs")
        if content["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {content['format']}; this version reads format {FORMAT}"
            )
        digests = {name: entry["sha256"] for name, entry in content["files"].items()}
        files = {
            name: {tensor: RowShard(*map(int, position)) for tensor, position in entry["rows"].items()}
            for name, entry in content["files"].items()
        }
        if outside := [name for name in files if Path(name).name != name]:
            raise ValueError(f"it names {shown(outside[0])}, which is no file beside it")
    for name, digest in digests.items():
        path = directory / name
        _check_exists(path)
        with understood(path, CheckpointError):
            if file_digest(path) != digest:
                raise ValueError("its SHA-256 differs")
    return Checkpoint(directory, content["state"], files)


def _check_exists(path: Path) -> None:
    if not os.path.lexists(path):
        raise CheckpointError(f"{path} is missing")


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
