"""Files inside zip archives, named as if the archive were a directory: `images.zip/cat.png`."""

from __future__ import annotations

import os
import zipfile
from functools import lru_cache
from pathlib import Path

from basereward.errors import DataError

BLOCK = 1 << 20
SMALL_BLOCK = 1 << 12


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
    except DataError:
        return False


def read_member(archive: Path, name: str, max_bytes: int) -> bytes:
    """Return a file of an archive.

    Raises:
        DataError: When there is none, it is damaged or encrypted, or larger than `max_bytes` when unpacked.
    """
    opened = _opened(archive)
    if (member := opened.NameToInfo.get(name)) is None:
        raise DataError(f"{archive} has no file {name}")
    if member.file_size > max_bytes:
        raise DataError(f"{archive}/{name} has {member.file_size:,} bytes; at most {max_bytes:,} are allowed")
    content = bytearray()
    try:
        with opened.open(member) as file:
            # The size in the archive's table of contents may be a lie.
            while len(content) <= max_bytes and (block := file.read(_block_bytes(member))):
                content += block
    except Exception as error:  # each way of packing has errors of its own
        raise DataError(f"{archive}/{name} is damaged, encrypted or packed in an unknown way") from error
    if len(content) > max_bytes:
        raise DataError(f"{archive}/{name} has more than the {max_bytes:,} bytes allowed")
    return bytes(content)


def _block_bytes(member: zipfile.ZipInfo) -> int:
    """Return how much is read at once: all that so many bytes of BZIP2 or LZMA hold is unpacked together."""
    return BLOCK if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else SMALL_BLOCK


def _opened(archive: Path) -> zipfile.ZipFile:
    """Return an archive, opened.

    Raises:
        DataError: When it can't be read.
    """
    try:
        # An archive of its own for each process: one file position shared by two would mix their reads.
        return _open(archive, os.getpid())
    except Exception as error:  # of names, versions and sizes that can't be
        raise DataError(f"{archive} is no zip archive that can be read: {error}") from error


@lru_cache(maxsize=16)
def _open(archive: Path, process: int) -> zipfile.ZipFile:
    # Its table of contents takes a second for 100,000 files, so it is kept.
    return zipfile.ZipFile(archive)
