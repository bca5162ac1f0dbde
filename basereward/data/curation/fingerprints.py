"""Fingerprints by which texts and images are recognized as the same, or nearly."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

from basereward.comparison import Comparison
from basereward.media.image import Image

GRID, COLOUR_GRID = 8, 4
STEP, COLOUR_STEP, GREY = 4, 6, 128  # of 255
NUM_BITS = 2 * GRID * GRID + 4 * COLOUR_GRID * COLOUR_GRID
"""Bits of a perceptual hash: 128 for steps of brightness, 64 for colours."""

SHINGLE_WORDS = 3


def collapsed(text: str) -> str:
    """Return a text in lower case, with single spaces between words."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case; of a script without spaces, its letters."""
    words = []
    for word in re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()):
        words += [word] if word.isascii() or not _is_unspaced(word[0]) else list(word)
    return words


def shingles(text: str) -> list[str]:
    """Return the runs of three words of a text; the whole text if it has fewer."""
    words = words_of(text)
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    return [" ".join(words[start : start + SHINGLE_WORDS]) for start in range(count)]


def question_of(comparison: Comparison) -> str:
    """Return the words of all messages of the user."""
    return " ".join(
        word for message in comparison.prompt if message.role == "user" for word in words_of(message.text)
    )


def spoken_words(text: str) -> str:
    """Return the words of a text in lower case, without punctuation."""
    return " ".join(words_of(text))


def key_of(texts: Iterable[str]) -> bytes:
    """Return a digest of some texts, of 16 bytes."""
    hasher = hashlib.blake2b(digest_size=16)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        hasher.update(len(encoded).to_bytes(8) + encoded)
    return hasher.digest()


def perceptual_hash(image: Image) -> int:
    """Return 192 bits that stay nearly the same when an image is scaled or compressed.

    On a grid of 9 x 9 brightnesses, whether it gets darker to the right, and downwards; on one of 4 x 4
    colours, whether there is more or less blue, and red, than in grey. Flat areas give zeros, not noise.

    Raises:
        DataError: When the image can't be opened.
    """
    import PIL.Image

    box = PIL.Image.Resampling.BOX
    brightness, *colours = image.open().convert("YCbCr").split()
    side = GRID + 1
    cells = brightness.resize((side, side), box).tobytes()
    bits = 0
    for row in range(GRID):
        for column in range(GRID):
            here = cells[row * side + column] - STEP
            bits = bits << 1 | (here > cells[row * side + column + 1])
            bits = bits << 1 | (here > cells[(row + 1) * side + column])
    for colour in colours:
        for cell in colour.resize((COLOUR_GRID, COLOUR_GRID), box).tobytes():
            bits = bits << 1 | (cell > GREY + COLOUR_STEP)
            bits = bits << 1 | (cell < GREY - COLOUR_STEP)
    return bits


class PerceptualIndex:
    """Perceptual hashes, found again by hashes that differ in few bits.

    Hashes that differ in at most `max_distance` bits agree in at least one of `max_distance + 1` slices.

    Args:
        max_distance: Bits in which a hash may differ.
    """

    def __init__(self, max_distance: int) -> None:
        self.max_distance = max_distance
        num_slices = max_distance + 1
        bounds = [NUM_BITS * number // num_slices for number in range(num_slices + 1)]
        self._slices = [(low, (1 << high - low) - 1) for low, high in pairwise(bounds)]
        self._tables: list[dict[int, list[int]]] = [{} for _ in self._slices]
        self._labels: dict[int, list[str]] = {}

    def add(self, hash_: int, label: str) -> None:
        """Remember a hash under a label."""
        labels = self._labels.setdefault(hash_, [])
        labels.append(label)
        if len(labels) > 1:
            return
        for (shift, mask), table in zip(self._slices, self._tables, strict=True):
            table.setdefault(hash_ >> shift & mask, []).append(hash_)

    def find(self, hash_: int) -> list[str]:
        """Return the labels of the hashes that are near, the nearest first."""
        near: dict[int, int] = {}
        for (shift, mask), table in zip(self._slices, self._tables, strict=True):
            for other in table.get(hash_ >> shift & mask, ()):
                distance = (other ^ hash_).bit_count()
                if distance <= self.max_distance:
                    near[other] = distance
        return [label for other in sorted(near, key=lambda key: near[key]) for label in self._labels[other]]


def _is_unspaced(letter: str) -> bool:
    """Tell whether the letter's script has no spaces: Han, kana, Thai, Lao, Khmer, Burmese."""
    code = ord(letter)
    return (
        0x3040 <= code <= 0x30FF
        or 0x3400 <= code <= 0x9FFF
        or 0x0E00 <= code <= 0x0EFF
        or 0x1000 <= code <= 0x109F
        or 0x1780 <= code <= 0x17FF
        or 0x20000 <= code <= 0x3FFFF
    )
