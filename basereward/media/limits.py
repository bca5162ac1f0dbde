"""Limits on the images, videos and numbers of rows. Imports no decoder, since help texts name the limits."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final, TypeGuard

from basereward.errors import DataError

MAX_PIXELS: Final = 32_000_000
"""Pixels that an image may have before it is refused undecoded; a camera's 24 megapixels fit."""

MAX_BYTES = 128 * 2**20
"""Bytes that an image's file may have; the largest that passes `MAX_PIXELS` uncompressed fits."""

MAX_VIDEO_BYTES = 4 * 2**30
"""Bytes that a video file may have; it is read in pieces."""

MAX_FRAMES = 10_000
"""Frames that a folder or a list may have."""

MAX_VIDEO_PIXELS = 512_000_000
"""Pixels of all frames together that are decoded of a video file at once: 1.5 GB in memory."""


MAX_NUMBER = 1e30
"""The largest number that a row may hold: sums and differences of such numbers are finite in fp32."""


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether a value is a number that a row may hold."""
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= MAX_NUMBER


def check_file(path: Path, max_bytes: int, field: str) -> None:
    """Refuse a path that is no regular file, which might never end, and a file that is too large.

    Raises:
        DataError: Naming the reason.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        reason = error.strerror if isinstance(error, OSError) else "no file has such a name"
        raise DataError(f"can't read {path}: {reason}", field=field) from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is no regular file", field=field)
    if status.st_size > max_bytes:
        raise DataError(
            f"{path} has {status.st_size:,} bytes; at most {max_bytes:,} are allowed", field=field
        )
