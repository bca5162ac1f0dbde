"""Files and directories replaced at once: a kill at any moment leaves the old one or the new one, whole.

What is new is written aside, as `.NAME.TOKEN.new`, and locked by its writer; so what a killed process left is
told from what another process is writing. Where a directory can't be exchanged with another at once, the old
one is `.NAME.TOKEN.old` for a moment, and `restore` puts it back after a kill in that moment.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from basereward.errors import ConfigError, ModelError
from basereward.storage.locks import try_lock
from basereward.storage.reading import opened

ABANDONED_SECONDS = 24 * 3600.0
"""Age from which what another machine wrote aside counts as left behind: its locks may not be seen here."""

LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})[0-9a-f]{8}\.(?P<kind>new|old)", re.DOTALL)
"""The names of what is written aside, and of what is replaced."""

ATTEMPTS = 100
"""How often a directory is put in the place of another that other processes replace meanwhile."""

RENAME_EXCHANGE = 2
AT_FDCWD = -100
NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield the path of a new file to write, and put it in the place of `path` once it is on disk.

    An exception removes the new file. A kill leaves it, and the next call removes it. Several may write the
    same file at the same time; it is then that of the last, whole.

    Args:
        path: The destination, or a link to it; its directory must exist.

    Raises:
        ConfigError: When it is a directory, or a device.
    """
    path = _target(path)
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no regular file; name another")
    remove_abandoned(path.parent, path.name)
    aside, descriptor = _locked(path, lambda name: os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield aside
        fsync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    fsync(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content at once, see `replace_file`; what is no file, as a pipe, is written to."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_bytes(content)
        return
    with replace_file(path) as aside:
        aside.write_bytes(content)


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Replace a file's content, in UTF-8, at once; see `replace_file`, and `str.encode` for errors."""
    write_bytes(path, text.encode("utf-8", errors))


@contextmanager
def replace_directory(directory: Path, *, foreign_files: Callable[[Path], Collection[str]]) -> Iterator[Path]:
    """Yield a new directory to write in, and put it in the place of `directory` once all is on disk.

    An exception removes the new directory. A kill leaves it, and the next call removes it. Several may write
    the same directory at the same time; it is then that of the last, whole.

    Args:
        directory: The destination; that of a link, where it is one.
        foreign_files: Returns the names of a directory's files that BaseReward has not written; with none it
            may be replaced. An empty directory always may.

    Raises:
        ModelError: When `directory` is a file.
        ConfigError: When what is there may not be replaced.
    """
    directory = _target(directory)
    _make_parents(directory)
    restore(directory)
    if _is_other_than_directory(directory):
        raise ModelError(f"{directory} is a file; give a directory")
    _check_replaceable(directory, foreign_files)
    remove_abandoned(directory.parent, directory.name)
    aside, descriptor = _locked(directory, _made_directory)
    try:
        yield aside
        for path in (*aside.rglob("*"), aside):
            fsync(path)
        _check_replaceable(directory, foreign_files)
        _put_in_place(aside, directory)
    finally:
        restore(directory)
        shutil.rmtree(aside, ignore_errors=True)  # what was replaced, or what an exception left unfinished
        os.close(descriptor)


def file_names(directory: Path) -> set[str]:
    """Return the names of all files of a directory, and of links, as paths from there."""
    return {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def restore(directory: Path) -> None:
    """Put a directory back that a killed process had moved aside to replace it, if there is none now."""
    directory = _target(directory)
    if directory.exists():
        return
    for old in _leftovers(directory.parent, directory.name, ("old",)):
        with suppress(OSError):  # a disk that can't be written, or another process that was faster
            old.rename(directory)
            return


def remove_abandoned(directory: Path, name: str | None = None) -> None:
    """Remove what killed processes left beside a destination of this name in a directory, or beside any."""
    for aside in _leftovers(directory, name, ("new", "old")):
        if aside.suffix == ".old" and not directory.joinpath(_match(aside)["name"]).exists():
            continue  # the only whole copy
        with suppress(OSError), _abandoned(aside) as is_abandoned:
            if is_abandoned:
                _discard(aside)


@contextmanager
def _abandoned(aside: Path) -> Iterator[bool]:
    """Yield whether nobody is writing what was put aside; nobody can begin to meanwhile."""
    descriptor = os.open(aside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        taken = try_lock(descriptor) if _match(aside)["host"] == _host() else None
        age = time.time() - os.fstat(descriptor).st_mtime
        yield age > ABANDONED_SECONDS if taken is None else taken
    finally:
        os.close(descriptor)


def is_aside(path: Path, name: str) -> bool:
    """Tell whether a path is what was written aside for a destination of this name."""
    match = LEFTOVER.fullmatch(path.name)
    return match is not None and match["name"] == name


def check_unused(path: Path) -> None:
    """Refuse a destination that another process is writing.

    Raises:
        ConfigError: Naming it.
    """
    remove_abandoned(path.parent, path.name)
    for aside in _leftovers(path.parent, path.name, ("new",)):
        with suppress(OSError), _abandoned(aside) as is_abandoned:
            if not is_abandoned:
                raise ConfigError(
                    f"{path} is being written by another process; wait until it ends, or name another file"
                )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex.

    Raises:
        OSError: When there is none, or it is no regular file.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Wait until a file's content, or a directory's list of names, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_other_than_directory(path: Path) -> bool:
    """Tell by one look whether something that is no directory has the path."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _check_replaceable(directory: Path, foreign_files: Callable[[Path], Collection[str]]) -> None:
    try:
        is_empty = not directory.is_dir() or not any(directory.iterdir())
        foreign = () if is_empty else sorted(foreign_files(directory))
    except FileNotFoundError:  # another process is putting its own in place
        return
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise ConfigError(
            f"{directory} holds files that BaseReward has not written ({', '.join(foreign[:3])}{more}), and "
            "replacing it would remove them; name another directory, or move them away"
        )


def _make_parents(directory: Path) -> None:
    missing = [parent for parent in directory.parents if not parent.exists()]
    directory.parent.mkdir(parents=True, exist_ok=True)
    for parent in missing:
        fsync(parent.parent)


@contextmanager
def scratch_directory(destination: Path) -> Iterator[Path]:
    """Yield a new directory beside a destination, for files that will be moved there, and remove it.

    A kill leaves it, and the next call that replaces the destination removes it.
    """
    destination = _target(destination)
    _make_parents(destination)
    remove_abandoned(destination.parent, destination.name)
    aside, descriptor = _locked(destination, _made_directory)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(descriptor)


def _locked(path: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """Make a new file or directory beside a destination, and return its path and the handle of its lock."""
    for _ in range(ATTEMPTS):
        aside = path.with_name(_aside_name(path.name))
        with suppress(FileNotFoundError):
            descriptor = make(aside)
            # Another process may have seen it before it was locked, and be removing it.
            is_taken = try_lock(descriptor) is not False
            with suppress(FileNotFoundError):
                if is_taken and os.path.samestat(os.fstat(descriptor), os.lstat(aside)):
                    return aside, descriptor
            os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))


def _made_directory(path: Path) -> int:
    path.mkdir()
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def _put_in_place(aside: Path, directory: Path) -> None:
    """Give a directory its name; what had the name before has the other's then, or is removed."""
    old = aside.with_suffix(".old")
    for _ in range(ATTEMPTS):
        with suppress(FileNotFoundError):  # there is nothing to replace
            if _exchange(aside, directory):
                fsync(directory.parent)
                return
            directory.rename(old)
        try:
            aside.rename(directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            _discard(old)  # another process was faster
        else:
            fsync(directory.parent)
            _discard(old)
            return
    raise ModelError(f"{directory} is replaced by other processes all the time")


def _discard(path: Path) -> None:
    """Remove a file or directory; not under the name from which it would be put back, half removed."""
    if path.suffix == ".old":
        discarded = path.with_name(_aside_name(_match(path)["name"]))
        with suppress(FileNotFoundError):
            path.rename(discarded)
        path = discarded
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange the names of two directories at once; False where system or file system can't.

    Raises:
        OSError: As a renaming, such as FileNotFoundError where there is no second one.
    """
    rename = _renameat2()
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))


@cache
def _renameat2() -> Any:
    """Return Linux's function that can exchange two names; None where the C library lacks it."""
    try:
        return ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return None


@cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _aside_name(name: str) -> str:
    return f".{name}.{_host()}{secrets.token_hex(4)}.new"


def _match(aside: Path) -> re.Match[str]:
    match = LEFTOVER.fullmatch(aside.name)
    assert match is not None
    return match


def _leftovers(directory: Path, name: str | None, kinds: tuple[str, ...]) -> list[Path]:
    """Return what lies aside in a directory for destinations of a name, or of any name."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    matches = [match for item in sorted(names) if (match := LEFTOVER.fullmatch(item)) is not None]
    return [
        directory / match.string
        for match in matches
        if match["kind"] in kinds and name in (None, match["name"])
    ]


def _target(path: Path) -> Path:
    """Return what a link leads to, so that not the link is replaced."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path
