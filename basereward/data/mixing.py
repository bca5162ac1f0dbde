"""Draw the held-out rows of a run's training data, and write its mixture without them.

The rows of a prompt are in one of the two files alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from basereward.comparison import Comparison
from basereward.config.run import DataConfig
from basereward.data.curation import Curation
from basereward.data.curation.fingerprints import key_of
from basereward.data.curation.step import best_and_worst
from basereward.data.dataset import Dataset
from basereward.data.mixture import draw_offset, draws, is_drawn, quotas, rounded, streamed
from basereward.data.ranking_pairs import open_source
from basereward.data.writing import Writer
from basereward.errors import ConfigError, DataError
from basereward.plugins.plugin_manager import PluginManager

MAX_HELD_OUT_SHARE = 0.5
"""Share of an epoch's rows that may be held out."""


class Prompts:
    """A set of prompts, each its texts and its images; images are read only where the texts are in it."""

    def __init__(self) -> None:
        self._images: dict[bytes, set[tuple[str, ...]]] = {}

    @classmethod
    def of(cls, comparisons: Iterable[Iterable[Comparison]]) -> Prompts:
        """Return the prompts of some data sets' comparisons, but for those whose images can't be read."""
        prompts = cls()
        for comparison in chain.from_iterable(comparisons):
            with suppress(DataError):
                prompts.add(comparison)
        return prompts

    def add(self, comparison: Comparison) -> None:
        """Add a comparison's prompt.

        Raises:
            DataError: When one of its images can't be read.
        """
        self._images.setdefault(_texts(comparison), set()).add(_media(comparison))

    def __contains__(self, comparison: object) -> bool:
        if not isinstance(comparison, Comparison):
            return False
        images = self._images.get(_texts(comparison))
        if images is None:
            return False
        try:
            return _media(comparison) in images
        except DataError:  # an image that can't be read is no image of the set
            return False


def _texts(comparison: Comparison) -> bytes:
    return key_of(part for message in comparison.prompt for part in (message.role, message.text.strip()))


def _media(comparison: Comparison) -> tuple[str, ...]:
    media = (*comparison.images, *(frame for video in comparison.videos for frame in video.frames))
    return tuple(image.digest for image in media)


@dataclass
class SourceCounts:
    """Rows of a data set.

    Attributes:
        name: Its name in the run file.
        path: Where it is.
        size: Its rows, or pairs where it is counted in pairs.
        asked: Rows that an epoch of the run draws.
        held_out_asked: Rows to hold out.
        held_out: Rows that were held out.
        written: Rows of the mixture.
        excluded: Drawn rows that the mixture has not, since their prompts are held out.
        left_out: Drawn rows that can't be read, or that the curation drops.
    """

    name: str
    path: str
    size: int
    asked: int
    held_out_asked: int = 0
    held_out: int = 0
    written: int = 0
    excluded: int = 0
    left_out: int = 0


@dataclass
class Mixing:
    """The training data of a run, opened and counted.

    Attributes:
        datasets: The data sets.
        counts: Of each of them.
        prompts: The prompts that are held out.
    """

    data: DataConfig
    seed: int
    datasets: Sequence[Dataset]
    counts: list[SourceCounts]
    curation: Curation
    prompts: Prompts = field(default_factory=Prompts)

    @classmethod
    def open(cls, data: DataConfig, seed: int, plugins: PluginManager) -> Mixing:
        """Open and count the training data.

        Raises:
            DataError: When there is no such file.
            ConfigError: When an option is wrong, or the mixture can't be made.
        """
        datasets = [open_source(source, plugins) for source in data.train]
        sizes = [dataset.count() for dataset in datasets]
        asked = quotas(sizes, multimodal_sources(data, datasets), data.train, data.mixture)
        counts = [
            SourceCounts(source.name, str(source.options.get("path", "")), size, quota)
            for source, size, quota in zip(data.train, sizes, asked, strict=True)
        ]
        return cls(data, seed, datasets, counts, Curation.of(data.curation, plugins))

    @property
    def num_asked(self) -> int:
        """Rows of an epoch."""
        return sum(count.asked for count in self.counts)

    def hold_out(self, num: int, writer: Writer) -> None:
        """Draw rows evenly from all that an epoch draws, as many of each data set as its share, each prompt
        once, and write them.

        A row that can't be used, or whose prompt is held out already, gives its place to the next one.

        Raises:
            ConfigError: When these were more than half of the rows.
        """
        if num > MAX_HELD_OUT_SHARE * self.num_asked:
            raise ConfigError(
                f"{num:,} rows to hold out of {self.num_asked:,} of an epoch are more than half; give "
                "--num-held-out, or more data"
            )
        self.curation.reset()
        shares = rounded([num * count.asked / self.num_asked for count in self.counts])
        for dataset, count, share in zip(self.datasets, self.counts, shares, strict=True):
            count.held_out_asked = share
            missing = 0
            middle = count.size // (2 * share) if share else 0  # of the rows of which one is drawn
            for number, row in enumerate(dataset.read() if share else ()):
                missing += is_drawn(number, count.size, share, middle)
                if missing and self._is_held_out(row, writer):
                    count.held_out += 1
                    missing -= 1

    def _is_held_out(self, row: Comparison | DataError, writer: Writer) -> bool:
        result = row if isinstance(row, DataError) else self.curation(row)
        if isinstance(result, DataError) or best_and_worst(result) is None:
            return False
        try:
            if result in self.prompts:
                return False
            writer.write(result)
            self.prompts.add(result)
        except DataError:
            return False
        return True

    def write(self, writer: Writer, each: Callable[[], None] = lambda: None) -> None:
        """Write the rows of a training's first epoch in its order, but for those of prompts held out."""
        self.curation.reset()

        def numbered(number: int) -> Callable[[], Iterator[tuple[int, Comparison | DataError]]]:
            return lambda: ((number, row) for row in self.datasets[number].read())

        rows = streamed(
            [numbered(number) for number in range(len(self.datasets))],
            [count.size for count in self.counts],
            [count.asked for count in self.counts],
            epoch=0,
            position=0,
            seed=self.seed,
            window=self.data.mixture.shuffle_buffer,
        )
        for number, row in rows:
            each()
            count = self.counts[number]
            result = row if isinstance(row, DataError) else self.curation(row)
            if not isinstance(result, DataError) and result in self.prompts:
                count.excluded += 1
                continue
            try:
                if isinstance(result, DataError):
                    raise result
                writer.write(result)
            except DataError:
                count.left_out += 1
            else:
                count.written += 1


class EpochPart(Dataset):
    """The rows of a data set that the first epoch of a training draws: as `max_rows` and `weight` say.

    Args:
        dataset: The data set.
        size: Its rows.
        quota: Rows that are drawn.
        offset: Where the drawing begins.
    """

    def __init__(self, dataset: Dataset, size: int, quota: int, offset: int) -> None:
        self.dataset, self.size, self.quota, self.offset = dataset, size, quota, offset
        self.files: Sequence[Path] = dataset.files
        self.unread_splits = dataset.unread_splits

    @property
    def num_rows(self) -> int:
        """The number of rows that are drawn."""
        return self.quota

    def read(self) -> Iterator[Comparison | DataError]:
        """Yield the rows that are drawn."""
        return draws(self.dataset.read, self.size, self.quota, self.offset)


def epoch_parts(data: DataConfig, seed: int, plugins: PluginManager) -> list[Dataset]:
    """Return the data sets of a training, of each the rows that its first epoch draws.

    Raises:
        DataError: When there is no such file.
        ConfigError: When an option is wrong, or the mixture can't be made.
    """
    mixing = Mixing.open(data, seed, plugins)
    return [
        dataset
        if count.asked == count.size
        else EpochPart(dataset, count.size, count.asked, draw_offset(number, 0, seed))
        for number, (dataset, count) in enumerate(zip(mixing.datasets, mixing.counts, strict=True))
    ]


def multimodal_sources(data: DataConfig, datasets: Sequence[Dataset]) -> list[bool]:
    """Return whether each data set counts as one with images: as it says, or by its first row."""
    return [
        _has_media(dataset) if source.multimodal is None else source.multimodal
        for source, dataset in zip(data.train, datasets, strict=True)
    ]


def _has_media(dataset: Dataset) -> bool:
    rows = (row for row in dataset.read() if not isinstance(row, DataError))
    return any(row.images or row.videos for row in islice(rows, 1))
