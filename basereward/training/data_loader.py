"""The rows a training learns from: held or read while it trains; curated, mixed and ordered."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn

from basereward.comparison import Comparison
from basereward.config.conversion import Component
from basereward.config.run import DataConfig
from basereward.data import Dataset
from basereward.data.curation import Curation
from basereward.data.mixture import draw_offset, drawn_rows, quotas, streamed
from basereward.errors import ConfigError, DataError
from basereward.losses import Targets
from basereward.plugins.plugin_manager import PluginManager
from basereward.training.rejected_rows import RejectedRows


class Reader:
    """Reads data sets: curates each row, and tells those that are of use from those that are not.

    Args:
        components: The data sets.
        plugins: Where they are looked up.
        split: `train` or `eval`, for the list of rejected rows.
        rejected: Takes the rows that can't be used.
        why_not: Returns why a comparison is of no use, or None.
        progress: Wraps the reading of a data set to show how far it is.
        curation: Steps that each row goes through first.
    """

    def __init__(
        self,
        components: Sequence[Component],
        plugins: PluginManager,
        *,
        split: str,
        rejected: RejectedRows,
        why_not: Callable[[Comparison], DataError | None],
        progress: Callable[[Dataset, str], Iterable[Comparison]],
        curation: Curation | None = None,
    ) -> None:
        self.split = split
        self.rejected = rejected
        self.why_not = why_not
        self.progress = progress
        self.curation = curation or Curation(())
        self.datasets: list[Dataset] = [plugins.build("dataset", component) for component in components]
        for dataset in self.datasets:
            dataset.on_bad_row = "fail" if rejected.fail else "skip"
        self.changes = any(hasattr(dataset, "set_epoch") for dataset in self.datasets)

    def turn_to(self, epoch: int) -> None:
        """Turn to an epoch the data sets whose epochs differ."""
        for dataset in self.datasets:
            if hasattr(dataset, "set_epoch"):
                dataset.set_epoch(epoch)

    def read(self) -> list[list[Comparison]]:
        """Return the comparisons of each data set, and list the rows that can't be used.

        Raises:
            DataError: When not one of them can be used, or a row can't and that ends the training.
        """
        self.curation.reset()
        found: list[list[Comparison]] = []
        first: DataError | None = None
        num_rejected = 0
        for dataset in self.datasets:
            usable: list[Comparison] = []
            errors: list[tuple[str, DataError]] = []
            for comparison in self.progress(dataset, self.split):
                row = self.usable(comparison)
                if not isinstance(row, DataError):
                    usable.append(row)
                    continue
                errors.append((comparison.id, row))
                if self.rejected.fail:
                    break
            for id, error in (*(("", error) for error in dataset.rejected), *errors):
                self.rejected.add(error, split=self.split, id=id)
                first = first or error
                num_rejected += 1
            found.append(usable)
        if not any(found):
            raise nothing_usable(self.split, num_rejected, first)
        return found

    def usable(self, row: Comparison | DataError) -> Comparison | DataError:
        """Return a row that was read as it is trained on, or the error that says why it is not."""
        if isinstance(row, DataError):
            return row
        result = self.curation(row)
        error = result if isinstance(result, DataError) else self.why_not(result)
        return result if error is None else row.place.locate(error)


class TrainingRows(abc.ABC):
    """The rows of each epoch in their order, from any position on.

    Attributes:
        epoch: The epoch that `turn_to` was called with last.
        num_rows: How many rows it has.
        digest: A SHA-256 that tells this data from other data.
    """

    epoch: int
    num_rows: int
    digest: str

    def __init__(self, reader: Reader, data: DataConfig, *, seed: int, shuffle: bool) -> None:
        self.reader = reader
        self.data = data
        self.seed = seed
        self.shuffle = shuffle

    @property
    def changes(self) -> bool:
        """Whether epochs differ in more than their order."""
        return self.reader.changes

    @abc.abstractmethod
    def turn_to(self, epoch: int) -> None:
        """Turn to an epoch.

        Raises:
            DataError: When it has no row of use, or a row can't be used and that ends the training.
            ConfigError: When the mixture can't be made.
        """

    @abc.abstractmethod
    def rows(self, position: int) -> Iterator[Comparison | DataError]:
        """Yield the epoch's rows from a position on; errors stand in the places of rows of no use."""


class RowsInMemory(TrainingRows):
    """All comparisons in memory, in an order of their own in each epoch."""

    def __init__(self, reader: Reader, data: DataConfig, *, seed: int, shuffle: bool) -> None:
        super().__init__(reader, data, seed=seed, shuffle=shuffle)
        self.epoch = -1
        self.comparisons: list[Comparison] = []
        self.order: list[int] = []
        self._sizes: list[int] = []
        self._quotas: list[int] = []

    def turn_to(self, epoch: int) -> None:
        """Turn to an epoch; data sets without `set_epoch` are read once."""
        if self.epoch < 0 or (self.changes and epoch != self.epoch):
            self.reader.turn_to(epoch)
            found = self.reader.read()
            self._sizes = [len(comparisons) for comparisons in found]
            self._quotas = _quotas(self.data, self._sizes, found)
            self.comparisons = [comparison for comparisons in found for comparison in comparisons]
            self.digest = digest_of(self.comparisons)
        self.epoch = epoch
        drawn, start = [], 0
        for number, (size, quota) in enumerate(zip(self._sizes, self._quotas, strict=True)):
            offset = draw_offset(number, epoch, self.seed)
            drawn += [start + row for row in drawn_rows(size, quota, offset)]
            start += size
        self.num_rows = len(drawn)
        order = order_of(epoch, len(drawn), seed=self.seed, shuffle=self.shuffle)
        self.order = [drawn[place] for place in order]

    def rows(self, position: int) -> Iterator[Comparison | DataError]:
        """Yield the epoch's comparisons from a position on."""
        return (self.comparisons[number] for number in self.order[position:])


class StreamedRows(TrainingRows):
    """Comparisons that are read while they are trained on, shuffled within a window of fixed size."""

    def __init__(self, reader: Reader, data: DataConfig, *, seed: int, shuffle: bool) -> None:
        super().__init__(reader, data, seed=seed, shuffle=shuffle)
        for number, step in enumerate(reader.curation.steps):
            if not step.is_rowwise:
                raise ConfigError(
                    f"data.curation.{number}: {step.name} remembers earlier rows, as streamed data can't; "
                    "write the curated data once with `basereward data curate`, and stream that"
                )
        self.epoch = -1
        self._sizes: list[int] = []
        self._quotas: list[int] = []

    def turn_to(self, epoch: int) -> None:
        """Turn to an epoch: rows are counted, and the beginning of each data set is read."""
        if self.epoch < 0 or (self.changes and epoch != self.epoch):
            self.reader.turn_to(epoch)
            datasets = self.reader.datasets
            self._sizes = [dataset.count() for dataset in datasets]
            heads = [list(islice(_comparisons(dataset), HEAD)) for dataset in datasets]
            self._quotas = _quotas(self.data, self._sizes, heads)
            self.num_rows = sum(self._quotas)
            if not self.num_rows:
                raise nothing_usable("train", 0, None)
            comparisons = [comparison for head in heads for comparison in head]
            self.digest = digest_of(comparisons, *self._sizes, *map(_bytes_of, datasets))
        self.epoch = epoch

    def rows(self, position: int) -> Iterator[Comparison | DataError]:
        """Yield the epoch's rows from a position on; what comes before is read and passed over."""
        read = streamed(
            [dataset.read for dataset in self.reader.datasets],
            self._sizes,
            self._quotas,
            epoch=self.epoch,
            position=position,
            seed=self.seed,
            window=self.data.mixture.shuffle_buffer if self.shuffle else 1,
        )
        return map(self.reader.usable, read)


HEAD = 64
"""Rows of each data set by which streamed data is told from other data."""


def digest_of(comparisons: Iterable[Comparison], *facts: object) -> str:
    """Return a SHA-256 of comparisons' texts, ranks, ratings and weights, and of other facts."""
    found = hashlib.sha256()
    for comparison in comparisons:
        texts = [(message.role, message.text) for message in comparison.prompt]
        values = (texts, comparison.responses, comparison.ranks, comparison.ratings, comparison.weight)
        found.update(repr(values).encode("utf-8", "surrogatepass"))
    for fact in facts:
        found.update(repr(fact).encode())
    return found.hexdigest()


def _comparisons(dataset: Dataset) -> Iterator[Comparison]:
    return (row for row in dataset.read() if not isinstance(row, DataError))


def _bytes_of(dataset: Any) -> list[int]:
    return [file.stat().st_size for file in getattr(dataset, "files", ())]


def _quotas(data: DataConfig, sizes: Sequence[int], heads: Sequence[Sequence[Comparison]]) -> list[int]:
    multimodal = [
        _shows_images(head[:1]) if source.multimodal is None else source.multimodal
        for source, head in zip(data.train, heads, strict=True)
    ]
    return quotas(sizes, multimodal, data.train, data.mixture)


def _shows_images(comparisons: Iterable[Comparison]) -> bool:
    return any(comparison.images or comparison.videos for comparison in comparisons)


def nothing_usable(split: str, num_rejected: int, first: DataError | None) -> DataError:
    """Return the error for data that is empty or all rejected."""
    if first is None:
        return DataError(f"data.{split} has no rows")
    return DataError(f"data.{split} has no row that can be used; {num_rejected} rejected, the first: {first}")


def why_useless(comparison: Comparison, loss: nn.Module) -> DataError | None:
    """Return why a loss learns nothing from a comparison, or None where it does.

    Only comparisons without a better and a worse response are in doubt. The loss decides by its gradient: a
    regression learns from one response, and some losses learn from ties.
    """
    if comparison.ranks is None:
        return DataError("has no ranks or ratings, so nothing can be learnt from it", field="ranks")
    if len(set(comparison.ranks)) > 1:
        return None
    num_responses = len(comparison.responses)
    # Any rewards do that are no rating by accident.
    rewards = torch.arange(1.0, num_responses + 1).mul(0.1234567).requires_grad_()
    output = loss(rewards, Targets.of([comparison], lengths=[1] * num_responses))
    if output.loss.requires_grad:
        output.loss.backward()
    if rewards.grad is not None and bool(rewards.grad.any()):
        return None
    if num_responses == 1:
        return DataError("one response alone teaches this loss nothing; two are needed", field="responses")
    return DataError("all responses are tied, which teaches this loss nothing", field="ranks")


def order_of(epoch: int, num_rows: int, *, seed: int, shuffle: bool) -> list[int]:
    """Return the order in which an epoch visits its rows: of seed and epoch alone."""
    if not shuffle:
        return list(range(num_rows))
    mixed = hashlib.sha256(f"order of epoch {epoch} with seed {seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8]) >> 1)
    return torch.randperm(num_rows, generator=generator).tolist()
