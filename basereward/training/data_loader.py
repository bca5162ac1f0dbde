"""The training data: curated, mixed and shuffled; in memory (map-style) or streamed (iterable-style)."""

from __future__ import annotations

import abc
import hashlib
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch

from basereward.comparison import Comparison
from basereward.config.conversion import Component
from basereward.config.run import DataConfig, Source
from basereward.data import Dataset
from basereward.data.curation import Curation
from basereward.data.mixture import draw_offset, drawn_rows, quotas, streamed
from basereward.data.ranking_pairs import open_source
from basereward.data.refusals import MAX_SHARE, reasons_of
from basereward.errors import ConfigError, DataError, RefusedRowsWarning
from basereward.media.image import Image
from basereward.media.video import Video
from basereward.message import identity_of
from basereward.plugins.plugin_manager import PluginManager
from basereward.training.rejected_rows import RejectedRows


class DataReader:
    """Reads data sets, curates each row, and rejects rows that can't be used.

    Args:
        components: The data sets.
        plugins: Where data sets are looked up.
        split: `train` or `eval`, for the list of rejected rows.
        rejected: Lists the rejected rows.
        rejection_reason: Returns why a comparison can't be used, or None.
        progress: Wraps the reading of a data set to show its progress.
        curation: Curation steps of each row.
        max_bad_share: Share of a data set's rows that may be unreadable, where its own settings say nothing.
        excluded: Prompts whose rows are left out.
    """

    def __init__(
        self,
        components: Sequence[Component],
        plugins: PluginManager,
        *,
        split: str,
        rejected: RejectedRows,
        rejection_reason: Callable[[Comparison], DataError | None],
        progress: Callable[[Dataset, str], Iterable[Comparison]],
        curation: Curation | None = None,
        max_bad_share: float = 1.0,
        excluded: Container[Comparison] = (),
    ) -> None:
        self.split = split
        self.components = components
        self.max_bad_share = max_bad_share
        self.excluded = excluded
        self.rejected = rejected
        self.rejection_reason = rejection_reason
        self.progress = progress
        self.curation = curation or Curation(())
        self.datasets: list[Dataset] = [
            open_source(component, plugins)
            if isinstance(component, Source)
            else plugins.build("dataset", component)
            for component in components
        ]
        for dataset in self.datasets:
            dataset.on_bad_row = "fail" if rejected.fail else "skip"
        self.varies_by_epoch = any(dataset.varies_by_epoch for dataset in self.datasets)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the data sets whose rows differ by epoch."""
        for dataset in self.datasets:
            dataset.set_epoch(epoch)

    def read(self) -> list[list[Comparison]]:
        """Return the comparisons of each data set, and list the rejected rows.

        Raises:
            DataError: When no row can be used, too many of a data set are unreadable, or one can't be used
                and `data.on_bad_row` is "fail".
        """
        self.curation.reset()
        comparisons: list[list[Comparison]] = []
        first_error: DataError | None = None
        num_rejected = 0
        for number, dataset in enumerate(self.datasets):
            self._check_first_rows(number)
            usable: list[Comparison] = []
            errors: list[tuple[str, DataError]] = []
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RefusedRowsWarning)  # below it is an error or allowed
                for comparison in self.progress(dataset, self.split):
                    row = self.curated(comparison)
                    if not isinstance(row, DataError):
                        usable.append(row)
                        continue
                    errors.append((comparison.id, row))
                    if self.rejected.fail:
                        break
            num_bad = len(dataset.rejected)
            self._check_share(number, dataset.rejected, num_bad + len(usable) + len(errors))
            for id, error in (*(("", error) for error in dataset.rejected), *errors):
                self.rejected.add(error, split=self.split, id=id)
                first_error = first_error or error
                num_rejected += 1
            comparisons.append(usable)
        if not any(comparisons):
            raise no_usable_rows(self.split, num_rejected, first_error)
        return comparisons

    def probe(self) -> None:
        """Read some rows of each file of each data set.

        Raises:
            DataError: When too many of a data set's are unreadable.
        """
        for number, dataset in enumerate(self.datasets):
            rows = list(dataset.probe(NUM_PROBED))
            self._check_share(number, [row for row in rows if isinstance(row, DataError)], len(rows))

    def _check_first_rows(self, number: int) -> None:
        """Refuse a data set most of whose first rows are unreadable, before the others are read."""
        dataset = self.datasets[number]
        if self.rejected.fail or (dataset.num_rows or NUM_WORTH_A_LOOK) < NUM_WORTH_A_LOOK:
            return
        rows = list(dataset.probe(NUM_PROBED))
        bad = [row for row in rows if isinstance(row, DataError)]
        if len(bad) > MAX_SHARE * len(rows):
            self._check_share(number, bad, len(rows))

    def _check_share(self, number: int, bad: Sequence[DataError], num_rows: int) -> None:
        """Refuse a data set of whose rows too many are unreadable, before anything is trained on the rest."""
        component = self.components[number]
        limit = component.max_bad_share if isinstance(component, Source) else None
        limit = self.max_bad_share if limit is None else limit
        if len(bad) <= limit * num_rows:
            return
        place = f"data.{self.split}.{number}"
        setting = f"{place}.max_bad_share or " if isinstance(component, Source) else ""
        raise DataError(
            f"{place} ({component.name}): {len(bad):,} of {num_rows:,} rows that were read can't be used, a "
            f"share of {len(bad) / num_rows:.3f}, and {limit:g} is allowed: {reasons_of(bad)}; mend the "
            f"data, or allow more by {setting}data.max_bad_share"
        )

    def curated(self, row: Comparison | DataError) -> Comparison | DataError:
        """Return a row after curation, or the error that says why it is rejected."""
        if isinstance(row, DataError):
            return row
        result = self.curation(row)
        error = result if isinstance(result, DataError) else self.rejection_reason(result)
        if error is None and row in self.excluded:
            error = DataError("its prompt is held out", field="prompt")
        return result if error is None else row.place.locate(error)


class TrainingRows(abc.ABC):
    """The rows of each epoch in their order, from any position on.

    Attributes:
        epoch: The current epoch; -1 before the first `set_epoch`.
        num_rows: The number of rows of the epoch.
        digest: A SHA-256 of the data.
    """

    epoch: int
    num_rows: int
    digest: str

    def __init__(self, reader: DataReader, data: DataConfig, *, seed: int, shuffle: bool) -> None:
        self.reader = reader
        self.data = data
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = -1
        self._sizes: list[int] = []
        self._quotas: list[int] = []

    @property
    def varies_by_epoch(self) -> bool:
        """Whether epochs differ in more than their order."""
        return self.reader.varies_by_epoch

    @abc.abstractmethod
    def set_epoch(self, epoch: int) -> None:
        """Set the epoch.

        Raises:
            DataError: When it has no usable row, or when a row can't be used and `data.on_bad_row` is "fail".
            ConfigError: When the mixture can't be made.
        """

    @abc.abstractmethod
    def rows(self, position: int) -> Iterator[Comparison | DataError]:
        """Yield the epoch's rows from a position on; errors stand in the places of rejected rows."""

    def _must_read(self, epoch: int) -> bool:
        return self.epoch < 0 or (self.varies_by_epoch and epoch != self.epoch)

    def _set_quotas(self, sizes: list[int], samples: Sequence[Sequence[Comparison]]) -> None:
        """Set how many rows of each data set an epoch has, given each one's size and first rows."""
        multimodal = [
            _has_media(sample[:1]) if source.multimodal is None else source.multimodal
            for source, sample in zip(self.data.train, samples, strict=True)
        ]
        self._sizes = sizes
        self._quotas = quotas(sizes, multimodal, self.data.train, self.data.mixture)


class MapRows(TrainingRows):
    """All comparisons in memory, in a new order in each epoch."""

    def __init__(self, reader: DataReader, data: DataConfig, *, seed: int, shuffle: bool) -> None:
        super().__init__(reader, data, seed=seed, shuffle=shuffle)
        self.comparisons: list[Comparison] = []
        self.order: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; data sets whose rows don't differ by epoch are read once."""
        if self._must_read(epoch):
            self.reader.set_epoch(epoch)
            by_dataset = self.reader.read()
            self._set_quotas([len(comparisons) for comparisons in by_dataset], by_dataset)
            self.comparisons = [comparison for comparisons in by_dataset for comparison in comparisons]
            self.digest = digest_of(self.comparisons)
        self.epoch = epoch
        drawn, start = [], 0
        for number, (size, quota) in enumerate(zip(self._sizes, self._quotas, strict=True)):
            offset = draw_offset(number, epoch, self.seed)
            drawn += [start + row for row in drawn_rows(size, quota, offset)]
            start += size
        self.num_rows = len(drawn)
        order = order_of(epoch, len(drawn), seed=self.seed, shuffle=self.shuffle)
        self.order = [drawn[index] for index in order]

    def rows(self, position: int) -> Iterator[Comparison | DataError]:
        """Yield the epoch's comparisons from a position on."""
        return (self.comparisons[index] for index in self.order[position:])


class IterableRows(TrainingRows):
    """Comparisons read during training, shuffled within a buffer of fixed size."""

    def __init__(self, reader: DataReader, data: DataConfig, *, seed: int, shuffle: bool) -> None:
        super().__init__(reader, data, seed=seed, shuffle=shuffle)
        check_streamable(reader.curation)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; rows are counted, and the first ones of each data set are read."""
        if self._must_read(epoch):
            self.reader.set_epoch(epoch)
            self.reader.probe()
            datasets = self.reader.datasets
            sizes = [dataset.count() for dataset in datasets]
            samples = [list(islice(_comparisons(dataset), NUM_SAMPLED)) for dataset in datasets]
            self._set_quotas(sizes, samples)
            self.num_rows = sum(self._quotas)
            if not self.num_rows:
                raise no_usable_rows("train", 0, None)
            comparisons = [comparison for sample in samples for comparison in sample]
            self.digest = digest_of(comparisons, *sizes, *map(_file_sizes, datasets))
        self.epoch = epoch

    def rows(self, position: int) -> Iterator[Comparison | DataError]:
        """Yield the epoch's rows from a position on; earlier ones are read and skipped."""
        rows = streamed(
            [dataset.read for dataset in self.reader.datasets],
            self._sizes,
            self._quotas,
            epoch=self.epoch,
            position=position,
            seed=self.seed,
            window=self.data.mixture.shuffle_buffer if self.shuffle else 1,
        )
        return map(self.reader.curated, rows)


def check_streamable(curation: Curation) -> None:
    """Raise a ConfigError where a curation step needs more than one row at a time."""
    for number, step in enumerate(curation.steps):
        if not step.is_rowwise:
            raise ConfigError(
                f"data.curation.{number}: {step.name} remembers earlier rows, as streamed data can't; "
                "write the curated data once with `basereward data curate`, and stream that"
            )


NUM_PROBED = 256
"""Rows of a data set that are looked at before the others are read, or trained on where it is streamed."""

NUM_WORTH_A_LOOK = 4 * NUM_PROBED
"""Rows below which a data set is read at once."""

NUM_SAMPLED = 64
"""First rows of each streamed data set that the digest covers."""


def digest_of(comparisons: Iterable[Comparison], *facts: object) -> str:
    """Return a SHA-256 of comparisons' prompts, responses, ranks, ratings and weights, and of other facts.

    Of images and videos it takes the files' names, or else the sizes, so that none is read.
    """
    digest = hashlib.sha256()
    for comparison in comparisons:
        prompt = identity_of(comparison.prompt, image=_name_of, video=_name_of)
        values = (prompt, comparison.responses, comparison.ranks, comparison.ratings, comparison.weight)
        digest.update(repr(values).encode("utf-8", "surrogatepass"))
    for fact in facts:
        digest.update(repr(fact).encode())
    return digest.hexdigest()


def _name_of(media: Image | Video) -> str:
    return media.source.name if isinstance(media.source, Path) else media.name


def _comparisons(dataset: Dataset) -> Iterator[Comparison]:
    return (row for row in dataset.read() if not isinstance(row, DataError))


def _file_sizes(dataset: Dataset) -> list[int]:
    return [file.stat().st_size for file in dataset.files]


def _has_media(comparisons: Iterable[Comparison]) -> bool:
    return any(comparison.images or comparison.videos for comparison in comparisons)


def no_usable_rows(split: str, num_rejected: int, first: DataError | None) -> DataError:
    """Return the error for a split that is empty or entirely rejected."""
    if first is None:
        return DataError(f"data.{split} has no rows")
    return DataError(f"data.{split} has no row that can be used; {num_rejected} rejected, the first: {first}")


def order_of(epoch: int, num_rows: int, *, seed: int, shuffle: bool) -> list[int]:
    """Return the order in which an epoch visits its rows, a function of seed and epoch alone."""
    if not shuffle:
        return list(range(num_rows))
    mixed = hashlib.sha256(f"order of epoch {epoch} with seed {seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8]) >> 1)
    return torch.randperm(num_rows, generator=generator).tolist()
