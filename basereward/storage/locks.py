"""Locks of files, which end with the process that has them, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from basereward.errors import ConfigError

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of file systems that have no locks."""


def try_lock(descriptor: int) -> bool | None:
    """Take the exclusive lock of an open file or directory; closing it gives the lock back.

    Returns:
        False where another has it, None where the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return None
        raise
    return True


@contextmanager
def hold_lock(path: Path, purpose: str) -> Iterator[None]:
    """Hold the lock of a file, which is made if it isn't there, says who holds it, and stays.

    Args:
        path: The file; its directory must exist.
        purpose: The file's first line.

    Raises:
        ConfigError: When another process holds it.
    """
    descriptor = _opened(path)
    try:
        if try_lock(descriptor) is False:
            lines = os.pread(descriptor, 1000, 0).decode("utf-8", "replace").splitlines()
            holder = lines[1] if len(lines) > 1 else "another process"
            raise ConfigError(
                f"{path.parent} is being written by {holder}; wait until it ends, or name another directory"
            )
        if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            raise ConfigError(f"{path.parent} was being removed by another process; try again")
        holder = f"{purpose}\nprocess {os.getpid()} on {socket.gethostname()}\n"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode("utf-8", "replace"), 0)
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise ConfigError(f"{path} can't be locked: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"{path} can't be locked: it is no regular file")
    return descriptor
