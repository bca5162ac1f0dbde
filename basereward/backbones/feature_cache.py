"""What frozen weights make of an input, kept in a directory for every later epoch and run.

An entry's key is a digest of everything that decides it, so an entry is never out of date: what has changed
has another key.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from basereward._version import __version__
from basereward.errors import ConfigError

SUFFIX = ".safetensors"
SHARD_BYTES = 64 * 2**20
SECONDS_BETWEEN_SHARDS = 300.0
HOUR = 3600.0


class CacheWarning(UserWarning):
    """Something is wrong with a cache, which costs time but changes no result."""


class FeatureCache:
    """A directory of tensors, which several processes may read and write at once.

    Entries wait in memory until there are enough for a file, or until `flush`: a kill loses those that wait.
    Each file is written aside, and then named by the SHA-256 of its content. One whose content has another is
    removed when it is first read, with a warning.

    Args:
        directory: Where the files are; made if it isn't there.
        shard_bytes: Bytes of entries after which a file is written.

    Raises:
        ConfigError: When the directory can't be made.
    """

    def __init__(self, directory: str | Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        self.directory = Path(directory)
        self.shard_bytes = shard_bytes
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cache: {directory} can't be made: {error.strerror}") from error
        self._remove_unfinished()
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[str, Tensor]] = {}
        self._waiting_bytes = 0
        self._since = time.monotonic()
        # Of each entry that is in a file: which, and the names of its tensors.
        self._places: dict[str, tuple[Path, list[str]]] = {}
        self._known: set[Path] = set()
        self._opened: dict[Path, Any] = {}
        self._is_full = False
        self._look()

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return an entry's tensors, which must not be written into, or None where there is no such entry."""
        with self._lock:
            if key in self._waiting:
                return dict(self._waiting[key])
            if key in self._places:
                path, names = self._places[key]
                opened = self._open(path)
                if opened is not None:
                    return {name: opened.get_tensor(f"{key}.{name}") for name in names}
            return None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep an entry; one that is there already stays."""
        with self._lock:
            if key in self._waiting or key in self._places or self._is_full:
                return
            entry = {name: value.detach().cpu().clone() for name, value in tensors.items()}
            self._waiting[key] = entry
            self._waiting_bytes += sum(value.nbytes for value in entry.values())
            is_late = time.monotonic() - self._since > SECONDS_BETWEEN_SHARDS
            if self._waiting_bytes >= self.shard_bytes or is_late:
                self._write()

    def flush(self) -> None:
        """Write the entries that wait."""
        with self._lock:
            self._write()

    def __len__(self) -> int:
        """Return how many entries are known of: own ones, and those that others had written before."""
        return len(self._places) + len(self._waiting)

    def _write(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        self._since = time.monotonic()
        if not waiting:
            return
        tensors = {f"{key}.{name}": value for key, entry in waiting.items() for name, value in entry.items()}
        content = save(tensors, {"entries": json.dumps({key: list(entry) for key, entry in waiting.items()})})
        path = self.directory / (hashlib.sha256(content).hexdigest() + SUFFIX)
        aside = self.directory / f".{path.name}.{os.getpid()}"
        try:
            with aside.open("wb") as file:
                file.write(content)
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            self._is_full = True
            text = f"{self.directory}: can't be written to, so nothing more is kept: {error.strerror}"
            warnings.warn(text, CacheWarning, stacklevel=4)
            return
        self._look()

    def _remove_unfinished(self) -> None:
        """Remove what processes killed long ago were writing."""
        for aside in self.directory.glob(f".*{SUFFIX}.*"):
            with suppress(OSError):
                if time.time() - aside.stat().st_mtime > HOUR:
                    aside.unlink()

    def _look(self) -> None:
        """Learn what is in files that are new."""
        for path in sorted(self.directory.glob(f"*{SUFFIX}")):
            if path not in self._known:
                self._known.add(path)
                try:
                    with safe_open(path, framework="pt") as file:
                        entries = json.loads(file.metadata()["entries"])
                except (OSError, SafetensorError, ValueError, KeyError, TypeError):
                    self._drop(path)
                    continue
                self._places |= {key: (path, names) for key, names in entries.items()}

    def _open(self, path: Path) -> Any:
        """Return a file, mapped into memory, or None where it is not what was written."""
        if path not in self._opened:
            try:
                with path.open("rb") as file:
                    is_whole = hashlib.file_digest(file, "sha256").hexdigest() == path.stem
                opened = safe_open(path, framework="pt") if is_whole else None
            except (OSError, SafetensorError):
                opened = None
            if opened is None:
                self._drop(path)
                return None
            self._opened[path] = opened
        return self._opened[path]

    def _drop(self, path: Path) -> None:
        self._places = {key: place for key, place in self._places.items() if place[0] != path}
        self._known.discard(path)
        path.unlink(missing_ok=True)
        text = f"{path}: is not the file that was written; it is removed, and what it held is computed again"
        warnings.warn(text, CacheWarning, stacklevel=4)


def key_of(kind: str, *parts: Any) -> str:
    """Return the key of an entry: a digest of its kind, of what decides it, and of the code's versions.

    Args:
        kind: What it is.
        parts: What decides it, as JSON has it.
    """
    import transformers

    versions = (__version__, torch.__version__, transformers.__version__)
    return hashlib.sha256(json.dumps([kind, versions, parts], sort_keys=True).encode()).hexdigest()


class WeightsDigest:
    """The digest of a module's weights, computed anew only when they have been written to.

    Args:
        module: Whose weights.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._look()
        self._lock = threading.Lock()
        self._versions: list[tuple[int, int]] | None = None
        self._digest = ""

    def __call__(self) -> str:
        """Return the SHA-256 of names, types, shapes and content of all parameters and buffers."""
        with self._lock:
            if any(table != before for table, before in self._children):
                self._look()
            tensors = chain.from_iterable(table.values() for table in self._tables)
            versions = [(own._version, own.data_ptr()) for own in tensors if own is not None]
            if versions != self._versions:
                self._versions, self._digest = versions, _digest(self.module)
            return self._digest

    def _look(self) -> None:
        """Note where the tensors are; to walk down to them for each input would take longer than all else."""
        parts = list(self.module.modules())
        self._tables = [table for part in parts for table in (part._parameters, part._buffers)]
        self._children = [(part._modules, dict(part._modules)) for part in parts if part._modules]


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in chain(module.named_parameters(), module.named_buffers()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        content = value.detach().cpu().contiguous().flatten()
        digest.update(content.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def precision_of(device: torch.device | str) -> str:
    """Return what products are computed in here: `weights` for the weights' own type, or autocast's type."""
    kind = torch.device(device).type
    return str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "weights"
