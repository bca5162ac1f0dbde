"""The first rows of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from basereward.comparison import Comparison
from basereward.data.dataset import Dataset
from basereward.errors import DataError


def first_rows(comparisons: Iterable[Comparison], num: int) -> Iterable[Comparison]:
    """Return the first comparisons; of a data set its first rows, with the bad ones listed."""
    if isinstance(comparisons, Dataset):
        return FirstRows(comparisons, num)
    return islice(comparisons, num)


class FirstRows(Dataset):
    """The first rows of a data set, bad ones counted.

    Args:
        dataset: The data set.
        num: How many of its rows are read.
    """

    def __init__(self, dataset: Dataset, num: int) -> None:
        self.dataset = dataset
        self.num = num
        self.files: Sequence[Path] = dataset.files
        self.on_bad_row = dataset.on_bad_row

    @property
    def num_rows(self) -> int | None:
        """About how many rows there are."""
        num_rows = self.dataset.num_rows
        return self.num if num_rows is None else min(self.num, num_rows)

    def read(self) -> Iterator[Comparison | DataError]:
        """Yield the first rows, each as a comparison or as its error."""
        return islice(self.dataset.read(), self.num)
