"""Files inside zip archives, named as if the archive were a directory: `images.zip/cat.png`."""

from __future__ import annotations

import os
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

from basereward.errors import DataError


def member_of(path: Path) -> tuple[Path, str] | None:
    """Return the archive that a path leads into and the name within, or None where it leads into none."""
    for parent in path.parents:
        if parent.suffix.lower() == ".zip" and os.path.isfile(parent):
            return parent, path.relative_to(parent).as_posix()
    return None


def has_member(archive: Path, name: str) -> bool:
    """Tell whether an archive has a file of this name; one that can't be read has none."""
    try:
        return name in _opened(archive).NameToInfo
    except (OSError, zipfile.BadZipFile):
        return False


def read_member(archive: Path, name: str, max_bytes: int) -> bytes:
    """Return a file of an archive.

    Raises:
        DataError: When there is none, it is damaged or encrypted, or larger than `max_bytes` when unpacked.
    """
    try:
        opened = _opened(archive)
        size = opened.getinfo(name).file_size
        if size > max_bytes:
            raise DataError(f"{archive}/{name} has {size:,} bytes; at most {max_bytes:,} are allowed")
        with opened.open(name) as file:
            # The size in the archive's table of contents may be a lie.
            content = file.read(max_bytes + 1)
    except KeyError as error:
        raise DataError(f"{archive} has no file {name}") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{archive}/{name} is damaged, encrypted or packed in an unknown way") from error
    if len(content) > max_bytes:
        raise DataError(f"{archive}/{name} has more than the {max_bytes:,} bytes allowed")
    return content


def _opened(archive: Path) -> zipfile.ZipFile:
    # An archive of its own for each process: one file position shared by two would mix their reads.
    return _open(archive, os.getpid())


@lru_cache(maxsize=16)
def _open(archive: Path, process: int) -> zipfile.ZipFile:
    # Its table of contents takes a second for 100,000 files, so it is kept.
    return zipfile.ZipFile(archive)
