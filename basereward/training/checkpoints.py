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
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from basereward.errors import BaseRewardError, shown
from basereward.storage.atomic import file_digest, fsync
from basereward.storage.reading import read_json, understood
from basereward.training.distributed import ProcessGroup
from basereward.training.sharded_tensors import ShardedReader, ShardPosition, local_shard, writes_shard

Value = TypeVar("Value")

FORMAT = 2
STATE_FILE = "state.json"
NAME = re.compile(r"step-(\d{8,})")
UNFINISHED = "unfinished-"


class CheckpointError(BaseRewardError):
    """A checkpoint that can't be written, is damaged, or belongs to another training."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, as `newest` returns it one whose digests are right.

    Args:
        directory: Its directory.
        state: Its JSON state.
        files: For each of its files the positions of the shards in it by tensor name.
        digests: The SHA-256 of each.
    """

    directory: Path
    state: dict[str, Any]
    files: dict[str, dict[str, ShardPosition]]
    digests: dict[str, str]

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


@dataclass(frozen=True)
class _Pending:
    """A checkpoint that a thread writes: its step, what this process wrote, and its JSON state."""

    step: int
    written: Future[dict[str, dict[str, Any]]]
    state: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run: a directory `step-N` each, of which the newest are kept.

    An older one is removed only after the newer one is on disk under its name, so that one is whole at any
    moment. Each rank writes its shards of a sharded model, to a disk that all ranks see; any number of ranks
    can read them, each of which verifies its share of the files.

    Args:
        directory: Where to.
        group: The process group.
        keep: How many are kept.
        in_background: Whether `save` copies the tensors to the CPU's memory and returns while a thread writes
            the copies. Such a checkpoint counts from the `commit` that finds it written on.
    """

    def __init__(
        self,
        directory: Path,
        group: ProcessGroup | None = None,
        *,
        keep: int = 1,
        in_background: bool = False,
    ) -> None:
        self.directory = directory
        self.keep = keep
        self.group = group or ProcessGroup()
        self.in_background = in_background
        self._pending: _Pending | None = None

    def path(self, step: int) -> Path:
        """Return the directory of a step's checkpoint."""
        return self.directory / f"step-{step:08d}"

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Write a checkpoint aside, sync it, rename it, and remove the oldest.

        Raises:
            CheckpointError: When the disk refuses it, or the one before it; the previous one stays.
        """
        self.commit()
        path = self.path(step)
        aside = self._aside(step)
        files = _files_of(tensors, self.group)
        try:
            self.group.on_main(lambda: _make_anew(aside))
            if self.in_background:
                files = [(stem, _copies(content), positions) for stem, content, positions in files]
                # Of the state too, which goes on changing.
                copied = json.loads(json.dumps(dict(state)))
                self._pending = _Pending(step, _in_thread(partial(_write_files, aside, files)), copied)
                return
            self._finish(aside, path, state, lambda: _write_files(aside, files))
        except (OSError, SafetensorError) as error:
            raise self._failure(step, error) from error

    @property
    def is_writing(self) -> bool:
        """Whether a thread of this process still writes a checkpoint."""
        return self._pending is not None and not self._pending.written.done()

    def commit(self) -> None:
        """Wait for the checkpoint that is being written, if there is one, and put it in its place.

        Raises:
            CheckpointError: When the disk has refused it; the previous one stays.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        step = pending.step
        try:
            self._finish(self._aside(step), self.path(step), pending.state, pending.written.result)
        except (OSError, SafetensorError) as error:
            raise self._failure(step, error) from error

    def _aside(self, step: int) -> Path:
        return self.directory / f"{UNFINISHED}{self.path(step).name}"

    def _finish(
        self,
        aside: Path,
        path: Path,
        state: Mapping[str, Any],
        write: Callable[[], dict[str, dict[str, Any]]],
    ) -> None:
        """Put a checkpoint in its place once each rank has written its files."""
        written = self.group.on_all(write)
        files = {name: entry for rank_files in written for name, entry in rank_files.items()}
        self.group.on_main(lambda: self._put_in_place(aside, path, files, state))

    def _failure(self, step: int, error: Exception) -> CheckpointError:
        remaining = self._paths()
        if self.group.is_main:
            shutil.rmtree(self._aside(step), ignore_errors=True)
        previous = f"; {remaining[-1]} stays the newest" if remaining else ""
        return CheckpointError(f"{self.path(step)}: can't be written: {error}{previous}")

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

        Unfinished checkpoints of a killed run are removed, and those it was about to remove. Each rank
        verifies its share of the files: with as many ranks as have written them, those that it has written.

        Raises:
            CheckpointError: Naming the damaged file, when there are checkpoints and none is whole.
        """
        errors: list[CheckpointError] = []
        for path in self.group.on_main(self._candidates):
            try:
                checkpoint = self.group.on_main(partial(_read, path))
                self.group.on_all(partial(_verify, checkpoint, self.group))
            except CheckpointError as error:
                errors.append(error)
            else:
                self.group.on_main(partial(self._remove_before, path))
                return checkpoint, errors
        if errors:
            raise errors[0]
        return None, []

    def _candidates(self) -> list[Path]:
        """Return the checkpoints, the newest first, and remove those that were left unfinished."""
        for unfinished in self.directory.glob(f"{UNFINISHED}*"):
            if NAME.fullmatch(unfinished.name.removeprefix(UNFINISHED)):
                shutil.rmtree(unfinished)
        return self._paths()[::-1]

    def _remove_before(self, path: Path) -> None:
        paths = self._paths()
        for older in paths[: max(paths.index(path) + 1 - self.keep, 0)]:
            shutil.rmtree(older)

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


Files = list[tuple[str, dict[str, Tensor], dict[str, ShardPosition]]]
"""Files by their names without suffix, with their tensors and the positions of those that are shards."""


def _files_of(tensors: Mapping[str, Mapping[str, Tensor]], group: ProcessGroup) -> Files:
    """Return the files that this rank writes."""
    files: Files = []
    is_first = group.rank % group.tensor_ranks == 0
    for name, named in tensors.items():
        plain = {key: value for key, value in named.items() if not isinstance(value, DTensor)}
        shards = {
            key: local_shard(value)
            for key, value in named.items()
            if isinstance(value, DTensor) and writes_shard(value, is_first_of_tensor_ranks=is_first)
        }
        if group.is_main:
            files.append((name, plain, {}))
        if shards:
            positions = {key: position for key, (_, position) in shards.items() if position is not None}
            local = {key: shard for key, (shard, _) in shards.items()}
            files.append((f"{name}-{group.rank:05d}", local, positions))
    return files


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of tensors in the CPU's memory."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def _in_thread(call: Callable[[], Value]) -> Future[Value]:
    """Return what a function will have returned in a thread, which doesn't keep the process from ending."""
    future: Future[Value] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="checkpoint", daemon=True).start()
    return future


def _write_files(directory: Path, files: Files) -> dict[str, dict[str, Any]]:
    """Write files, and return each one's digest and the positions of its shards."""
    written = {}
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
            name: {tensor: ShardPosition(*map(int, position)) for tensor, position in entry["rows"].items()}
            for name, entry in content["files"].items()
        }
        if outside := [name for name in files if Path(name).name != name]:
            raise ValueError(f"it names {shown(outside[0])}, which is no file beside it")
    return Checkpoint(directory, content["state"], files, digests)


def _verify(checkpoint: Checkpoint, group: ProcessGroup) -> None:
    """Compare this rank's share of the files with their digests."""
    for name, digest in checkpoint.digests.items():
        if _writer_of(name) % group.world_size != group.rank:
            continue
        path = checkpoint.directory / name
        _check_exists(path)
        with understood(path, CheckpointError):
            if file_digest(path) != digest:
                raise ValueError("its SHA-256 differs")


def _writer_of(file: str) -> int:
    """Return the rank that wrote a file."""
    number = Path(file).stem.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def _check_exists(path: Path) -> None:
    if not os.path.lexists(path):
        raise CheckpointError(f"{path} is missing")


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
