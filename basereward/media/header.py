"""Bounds on what is read of an image file before its pixels.

A file can hold any number of notes beside its pixels, each of which the decoder reads, and many of which it
decompresses: a PNG of 2 MB took 21 seconds to be opened.
"""

from __future__ import annotations

import io

MAX_READS = 10_000
"""Times that a decoder reads from a file before it knows the image's size."""

MAX_CHUNKS = 100_000
"""Chunks of a PNG; one of 96 MB in the usual 8 KB has 12,000."""

MAX_COMPRESSED = 16
"""Chunks of a PNG that the decoder decompresses beside the pixels, to a megabyte each."""

COMPRESSED = (b"zTXt", b"iTXt", b"iCCP")
SIGNATURE = b"\x89PNG\r\n\x1a\n"


class HeaderReader(io.BytesIO):
    """A file in memory of which a decoder reads the header in no more than `MAX_READS` pieces."""

    num_left = MAX_READS
    is_header = True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read the next bytes.

        Raises:
            OSError: When the header has too many pieces.
        """
        if self.is_header:
            self.num_left -= 1
            if self.num_left < 0:
                raise OSError("the header has too many pieces")
        return super().read(size)


def has_many_notes(encoded: bytes) -> bool:
    """Tell whether a file is a PNG with more chunks, or more compressed notes, than are read."""
    if not encoded.startswith(SIGNATURE):
        return False
    place = len(SIGNATURE)
    num_compressed = 0
    for _ in range(MAX_CHUNKS):
        num_compressed += encoded[place + 4 : place + 8] in COMPRESSED
        if num_compressed > MAX_COMPRESSED:
            return True
        # Length, kind and checksum, and the content in between.
        place += 12 + int.from_bytes(encoded[place : place + 4], "big")
        if place >= len(encoded):
            return False
    return True
