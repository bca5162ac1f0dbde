"""Rows once more with images of other rows and all responses tied, so that text alone decides nothing."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from basereward.comparison import Comparison
from basereward.config.run import Source
from basereward.data.dataset import Dataset
from basereward.errors import ConfigError, DataError
from basereward.media.image import Image
from basereward.protocols import Loss

NUM_REMEMBERED = 64
"""Earlier rows whose images a row may get."""

NUM_TRIES = 8
"""Earlier rows that are drawn until one has other images."""


class WrongImages(Dataset):
    """The rows of a data set, and behind some of them a copy with the images of an earlier row, all its
    responses tied.

    A tie says that the reward of no response may stand out while the image is another's. A copy keeps the
    prompt's text, so that its responses are branches of one prompt; a preference of the same response with
    its own image would need two. Rows without images, with videos, or without ranks have no copy.

    Args:
        dataset: The data set.
        share: Of its rows that have a copy, from 0 to 1, spread evenly.
    """

    def __init__(self, dataset: Dataset, share: float) -> None:
        self.dataset = dataset
        self.share = share
        self.files: Sequence[Path] = dataset.files
        self.unread_splits = dataset.unread_splits
        self.varies_by_epoch = dataset.varies_by_epoch

    @property
    def num_rows(self) -> int | None:
        """About the number of items: all rows are taken for rows with images."""
        size = self.dataset.num_rows
        return None if size is None else size + int(size * self.share)

    def count(self) -> int:
        """Return about how many items `read` yields."""
        size = self.dataset.count()
        return size + int(size * self.share)

    def set_epoch(self, epoch: int) -> None:
        """Set the data set's epoch."""
        self.dataset.set_epoch(epoch)

    def read(self) -> Iterator[Comparison | DataError]:
        """Yield the rows and the copies, the same every time."""
        return self._with_copies(self.dataset.read())

    def probe(self, num: int) -> Iterator[Comparison | DataError]:
        """Yield the rows and copies of about as many of the data set's items."""
        return self._with_copies(self.dataset.probe(num))

    def _with_copies(self, rows: Iterator[Comparison | DataError]) -> Iterator[Comparison | DataError]:
        earlier: deque[tuple[str, tuple[Image, ...]]] = deque(maxlen=NUM_REMEMBERED)
        number = 0
        for row in rows:
            yield row
            if isinstance(row, DataError) or not row.images or row.videos or row.ranks is None:
                continue
            number += 1
            if int(number * self.share) > int((number - 1) * self.share):
                copy = _copy(row, earlier, random.Random(number))
                if copy is not None:
                    yield copy
            earlier.append((row.id, row.images))


def _copy(
    row: Comparison, earlier: Sequence[tuple[str, tuple[Image, ...]]], chance: random.Random
) -> Comparison | None:
    """Return the copy, or None where no earlier row that is drawn has other images, or one can't be read."""
    order = chance.sample(range(len(earlier)), min(len(earlier), NUM_TRIES))
    with suppress(DataError):  # the row itself is then refused, and listed
        its_images = {image.digest for image in row.images}
        for id, images in (earlier[place] for place in order):
            if its_images.isdisjoint(image.digest for image in images):
                return row.with_images(images).replace(
                    ranks=[0.0] * len(row.responses),
                    ratings=None,
                    id=f"{row.id}#wrong-image",
                    meta={"images_of": id},
                )
    return None


def check_ties_are_learned(sources: Sequence[Source], loss: Loss) -> None:
    """Refuse wrong images where the loss takes nothing from ties.

    Raises:
        ConfigError: Naming the setting.
    """
    for number, source in enumerate(sources):
        if source.wrong_images and not loss.learns_from_ties:
            raise ConfigError(
                f"data.train.{number}.wrong_images is {source.wrong_images:g}, which adds ties, and loss "
                f'{type(loss).__name__} learns nothing from ties; write ties = "half" in [loss], or leave '
                "wrong_images out"
            )
