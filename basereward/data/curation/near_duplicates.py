"""Steps that drop near duplicates of rows, and rows of images that many rows have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from basereward.comparison import Comparison
from basereward.data.curation.fingerprints import (
    PerceptualIndex,
    collapsed,
    key_of,
    perceptual_hash,
    shingles,
    spoken_words,
)
from basereward.data.curation.step import Step
from basereward.errors import ConfigError, DataError
from basereward.extras import install_command
from basereward.media.image import Image
from basereward.message import Part, identity_of

NUM_HASHES = 128
SEED = 42


class NearDuplicates(Step):
    """Keep the first of rows that are the same, or nearly.

    The same are rows with the same prompts and responses, letter case and white space aside; a prompt is its
    roles, texts, images and videos, each in its place. Nearly the same are rows with the same words, images
    and videos in their places in the prompt whose responses, those of equal rank with each other, share most
    of their runs of three words: MinHash estimates the Jaccard index.

    Args:
        threshold: Jaccard index from which on texts are nearly the same; 1 for rows that are the same only.
        by: "row" as above; "prompt" to keep one row of each prompt, near ones included, with its images.
        max_distance: Bits of 192 by which perceptual hashes of the same image may differ; None to take
            images for the same if their files are.
    """

    name = "near-duplicates"
    is_rowwise = False

    def __init__(
        self, *, threshold: float = 0.9, by: Literal["row", "prompt"] = "row", max_distance: int | None = None
    ) -> None:
        if not 0 < threshold <= 1:
            raise ConfigError(f"threshold is {threshold:g}; it is above 0, and at most 1")
        self.threshold = threshold
        self.by = by
        self.images = Images(max_distance)
        self.reset()

    def reset(self) -> None:
        """Forget all rows."""
        self.images.reset()
        self._same: dict[bytes, str] = {}
        self._near = None if self.threshold == 1 else _near_index(self.threshold)

    def __call__(self, comparison: Comparison) -> Comparison | DataError:
        """Drop or keep."""
        try:
            prompt = self._identity(comparison, collapsed)
            group = self._identity(comparison, spoken_words if self.by == "row" else lambda text: "")
        except DataError as error:
            return unopened(error)
        texts = [prompt]
        if self.by == "row":
            texts += sorted(f"{place} {collapsed(text)}" for place, text in _placed(comparison))
        key = key_of(texts)
        if key in self._same:
            return DataError(f"same row: as {self._same[key]}")
        name = comparison.label
        if self._near is not None:
            hashes = _min_hash(self._tokens(comparison, key_of([group]).hex()))
            near = self._near.get_duplicates(hashes)
            if near:
                return DataError(f"nearly the same row: as {min(near)[_DIGITS:]}")
            self._near.add(f"{len(self._same):0{_DIGITS}d}{name}", hashes)
        self._same[key] = name
        return comparison

    def _identity(self, comparison: Comparison, text: Callable[[str], str]) -> str:
        """Return the identity of a prompt whose texts count as the same where `text` makes them equal.

        White space between images and texts, and that of texts cut in parts, is none of it.
        """
        joined = [message.with_content(_joined(message.content)) for message in comparison.prompt]
        return repr(identity_of(joined, text=text, image=self.images.name_of))

    def _tokens(self, comparison: Comparison, group: str) -> list[str]:
        """Return what two rows have to share most of; tokens of rows of other groups are all others."""
        if self.by == "prompt":
            texts = [(message.role, message.text) for message in comparison.prompt]
        else:
            texts = [(str(place), text) for place, text in _placed(comparison)]
        return [f"{group} {kind} {shingle}" for kind, text in texts for shingle in shingles(text)]


class MaxPerImage(Step):
    """Keep at most some rows of each image; rows without images stay.

    Args:
        num_rows: How many.
        max_distance: Bits of 192 by which perceptual hashes of the same image may differ; None to take
            images for the same if their files are.
    """

    name = "max-per-image"
    is_rowwise = False

    def __init__(self, *, num_rows: int = 1, max_distance: int | None = None) -> None:
        if num_rows < 1:
            raise ConfigError(f"num_rows is {num_rows}; it is at least 1")
        self.num_rows = num_rows
        self.images = Images(max_distance)
        self.reset()

    def reset(self) -> None:
        """Forget all rows."""
        self.images.reset()
        self._counts: Counter[str] = Counter()

    def __call__(self, comparison: Comparison) -> Comparison | DataError:
        """Drop or keep."""
        try:
            images = {self.images.name_of(image) for image in comparison.images}
        except DataError as error:
            return unopened(error)
        if any(self._counts[image] >= self.num_rows for image in images):
            return DataError(f"image in {self.num_rows} earlier rows", field="images")
        self._counts.update(images)
        return comparison


class Images:
    """Names of images: one name for all that count as the same image.

    Args:
        max_distance: Bits by which perceptual hashes of the same image may differ; None for same files.
    """

    def __init__(self, max_distance: int | None) -> None:
        self.max_distance = max_distance
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._index = PerceptualIndex(self.max_distance or 0)
        self._names: dict[str, str] = {}

    def name_of(self, image: Image) -> str:
        """Return the digest of the first image that counts as the same.

        Raises:
            DataError: When the image can't be read, or opened where that is needed.
        """
        digest = image.digest
        if self.max_distance is None:
            return digest
        if digest not in self._names:
            hash_ = perceptual_hash(image)
            near = self._index.find(hash_)
            if not near:
                self._index.add(hash_, digest)
            self._names[digest] = near[0] if near else digest
        return self._names[digest]


def unopened(error: DataError) -> DataError:
    """Return the reason to drop a row whose image can't be compared."""
    return DataError(f"image can't be opened: {error.reason}", field="images")


def _joined(content: Sequence[Part]) -> tuple[Part, ...]:
    """Return parts of which no text follows another, and none is white space alone."""
    parts: list[Part] = []
    for part in content:
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    return tuple(part for part in parts if not isinstance(part, str) or part.strip())


def _placed(comparison: Comparison) -> list[tuple[int, str]]:
    """Return each response with its place among the ranks, 0 for the best."""
    ranks = comparison.ranks or (0.0,) * len(comparison.responses)
    places = {rank: place for place, rank in enumerate(sorted(set(ranks)))}
    return [(places[rank], response) for rank, response in zip(ranks, comparison.responses, strict=True)]


_DIGITS = 12
"""Digits of the number before a row's label in the index, by which the earliest of several is chosen."""


def num_bands(threshold: float) -> int:
    """Return the least bands of hashes with which 99 % of the pairs at the threshold agree in one band."""
    bands = 1
    while bands < NUM_HASHES and (1 - threshold ** (NUM_HASHES / bands)) ** bands > 0.01:
        bands *= 2
    return bands


def _near_index(threshold: float) -> Any:
    # Its own choice of bands misses one pair in eighty that has 98 % in common.
    return _rensa().RMinHashDeduplicator(
        threshold=threshold, num_perm=NUM_HASHES, use_lsh=True, num_bands=num_bands(threshold), seed=SEED
    )


def _min_hash(tokens: list[str]) -> Any:
    hashes = _rensa().RMinHash(num_perm=NUM_HASHES, seed=SEED)
    hashes.update(tokens)
    return hashes


def _rensa() -> Any:
    try:
        import rensa
    except ImportError as error:
        raise ConfigError(
            f"finding near duplicates needs rensa; run {install_command('data')}, or set threshold = 1 "
            "for rows that are the same"
        ) from error
    return rensa
