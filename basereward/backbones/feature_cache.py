"""A cache on disk of the features that frozen weights compute, for every later epoch and run.

An entry's key is a digest of all inputs, weights and settings that it depends on, so an entry is never out of
date: after a change the key is another.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
import warnings
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from basereward._version import __version__
from basereward.errors import ConfigError, shown
from basereward.storage.atomic import file_digest, remove_abandoned, write_bytes
from basereward.storage.reading import is_regular

FOLDER = "basereward-features"
"""The subdirectory of a cache's directory in which all its files are; nothing outside it is touched."""
TAG_FILE = "CACHEDIR.TAG"
TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# A cache of BaseReward, which it makes again where it is removed. See https://bford.info/cachedir/
"""
"""The file that marks a directory as a cache; without it no file there is removed."""
SUFFIX = ".safetensors"
OWN_NAME = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}")
"""The names of a cache's files: the SHA-256 of their content."""
SHARD_BYTES = 64 * 2**20
SECONDS_BETWEEN_SHARDS = 300.0

READING = 2
"""Rises with each change by which the same file or text gives other pixels or tokens."""


class CacheWarning(UserWarning):
    """A fault of a cache, which costs time but changes no result."""


class FeatureCache:
    """A directory of tensors, which several processes may read and write at once.

    Entries are buffered in memory until there are enough for a file, or until `flush`; a kill loses them.
    Each file is written aside, and then named by the SHA-256 of its content. A file with another digest is
    removed when it is first read, with a warning. All files are in the subdirectory `basereward-features`;
    others there, under names that no cache gives, are left alone.

    Args:
        directory: Gets the subdirectory; made if it isn't there. Where it can't be written, what is there is
            read, and a warning says that nothing is added.
        shard_bytes: Bytes of entries after which a file is written.

    Raises:
        ConfigError: When the directory can't be made.
    """

    def __init__(self, directory: str | Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        self.directory = Path(directory) / FOLDER
        self.shard_bytes = shard_bytes
        self._lock = threading.Lock()
        self._buffer: dict[str, dict[str, Tensor]] = {}
        self._buffered_bytes = 0
        self._since = time.monotonic()
        # The file of each stored entry, and the names of its tensors.
        self._places: dict[str, tuple[Path, list[str]]] = {}
        self._files: set[Path] = set()
        self._opened: dict[Path, Any] = {}
        self._is_full = False
        self._make(Path(directory))
        remove_abandoned(self.directory)
        self._scan()

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return an entry's tensors, which must not be written into, or None where there is no such entry."""
        with self._lock:
            if key in self._buffer:
                return dict(self._buffer[key])
            if key in self._places:
                path, names = self._places[key]
                opened = self._open(path)
                if opened is not None:
                    return {name: opened.get_tensor(f"{key}.{name}") for name in names}
            return None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Add an entry; an existing one stays."""
        with self._lock:
            if key in self._buffer or key in self._places or self._is_full:
                return
            entry = {name: value.detach().cpu().clone() for name, value in tensors.items()}
            self._buffer[key] = entry
            self._buffered_bytes += sum(value.nbytes for value in entry.values())
            is_late = time.monotonic() - self._since > SECONDS_BETWEEN_SHARDS
            if self._buffered_bytes >= self.shard_bytes or is_late:
                self._write()

    def flush(self) -> None:
        """Write the buffered entries to a file."""
        with self._lock:
            self._write()

    def __len__(self) -> int:
        """Return the number of entries: those of this process, and those that it has found in files."""
        return len(self._places) + len(self._buffer)

    def _make(self, parent: Path) -> None:
        """Make the subdirectory, and mark it as a cache."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if not (self.directory / TAG_FILE).exists():
                write_bytes(self.directory / TAG_FILE, TAG)
        except ValueError as error:
            raise ConfigError(f"cache: {shown(str(parent))} is no path: {error}") from error
        except OSError as error:
            if not parent.is_dir():
                raise ConfigError(f"cache: {parent} can't be made: {error.strerror}") from error
            self._warn_unwritable(error)

    def _warn_unwritable(self, error: OSError) -> None:
        self._is_full = True
        text = f"{self.directory}: can't be written to, so nothing more is kept: {error.strerror}"
        warnings.warn(text, CacheWarning, stacklevel=5)

    def _write(self) -> None:
        buffer, self._buffer, self._buffered_bytes = self._buffer, {}, 0
        self._since = time.monotonic()
        if not buffer:
            return
        tensors = {f"{key}.{name}": value for key, entry in buffer.items() for name, value in entry.items()}
        content = save(tensors, {"entries": json.dumps({key: list(entry) for key, entry in buffer.items()})})
        path = self.directory / (hashlib.sha256(content).hexdigest() + SUFFIX)
        try:
            write_bytes(path, content)
        except OSError as error:
            self._warn_unwritable(error)
            return
        self._scan()

    def _scan(self) -> None:
        """Read the entries' names in files that are new."""
        for path in sorted(self.directory.glob(f"*{SUFFIX}")):
            if path in self._files or not OWN_NAME.fullmatch(path.name) or not is_regular(path):
                continue
            self._files.add(path)
            try:
                with safe_open(path, framework="pt") as file:
                    entries = json.loads(file.metadata()["entries"])
                self._places |= {str(key): (path, list(names)) for key, names in entries.items()}
            except (
                OSError,
                SafetensorError,
                ValueError,
                KeyError,
                TypeError,
                AttributeError,
                RecursionError,
            ):
                self._drop(path)

    def _open(self, path: Path) -> Any:
        """Return a file, mapped into memory, or None where it is damaged."""
        if path not in self._opened:
            try:
                is_whole = is_regular(path) and file_digest(path) == path.stem
                opened = safe_open(path, framework="pt") if is_whole else None
            except (OSError, SafetensorError):
                opened = None
            if opened is None:
                self._drop(path)
                return None
            self._opened[path] = opened
        return self._opened[path]

    def _drop(self, path: Path) -> None:
        """Forget a file's entries, and remove it if it is one of ours that is damaged."""
        self._places = {key: place for key, place in self._places.items() if place[0] != path}
        what = "is not the file that was written"
        text = f"{path}: {what}; what it held is computed again"
        try:
            if (self.directory / TAG_FILE).is_file() and is_regular(path) and file_digest(path) != path.stem:
                path.unlink()
                self._files.discard(path)
                text = f"{path}: {what}; it is removed, and what it held is computed again"
        except OSError as error:
            text += f"; it can't be removed: {error.strerror}"
        warnings.warn(text, CacheWarning, stacklevel=4)


def key_of(kind: str, *parts: Any) -> str:
    """Return the key of an entry: a digest of its kind, all that it depends on, and the code's versions.

    Args:
        kind: A name for the kind of entry.
        parts: All that it depends on, for JSON.
    """
    import PIL
    import transformers

    versions = (__version__, READING, PIL.__version__, torch.__version__, transformers.__version__)
    return hashlib.sha256(json.dumps([kind, versions, parts], sort_keys=True).encode()).hexdigest()


class WeightsDigest:
    """The digest of a module's weights, computed again only when they have been written to."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._collect()
        self._lock = threading.Lock()
        self._versions: list[tuple[int, int]] | None = None
        self._digest = ""

    def __call__(self) -> str:
        """Return the SHA-256 of names, types, shapes and content of all parameters and buffers."""
        with self._lock:
            if any(table != before for table, before in self._children):
                self._collect()
            tensors = chain.from_iterable(table.values() for table in self._tables)
            versions = [(tensor._version, tensor.data_ptr()) for tensor in tensors if tensor is not None]
            if versions != self._versions:
                self._versions, self._digest = versions, _digest(self.module)
            return self._digest

    def _collect(self) -> None:
        """Collect the tables of tensors, since walking all modules for each input would take too long."""
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
    """Return the precision of products on a device: `weights` for the weights' dtype, or autocast's dtype."""
    kind = torch.device(device).type
    return str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "weights"
