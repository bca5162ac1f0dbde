"""Datasets that break one promise each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from layouts import write_lines
from mutants import Mutant

from basereward.comparison import Comparison
from basereward.data import Dataset
from basereward.data.native import NativeDataset
from basereward.errors import DataError
from basereward.testing import datasets


def rows(directory: Path) -> Mapping[str, Any]:
    """Write rows in our own format."""
    content = [{"prompt": f"p{at}", "responses": ["a", "b"], "ranks": [0, 1]} for at in range(4)]
    return {"path": str(write_lines(directory / "rows.jsonl", content))}


def with_an_image(directory: Path) -> Mapping[str, Any]:
    """Write a row whose image is none."""
    (directory / "cat.png").write_text("no image")
    row = {"prompt": "p", "images": ["cat.png"], "responses": ["a", "b"], "ranks": [0, 1]}
    return {"path": str(write_lines(directory / "rows.jsonl", [row]))}


def tied_twice(directory: Path) -> Mapping[str, Any]:
    """Write a row that is none among those that are."""
    good = {"prompt": "p", "responses": ["a", "b"], "ranks": [0, 1]}
    return {"path": str(write_lines(directory / "rows.jsonl", [good, {"prompt": "p"}]))}


class Foreign:
    """Is of no known base, though it has every method."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Comparison]:
        return iter(())


class Dictionaries(NativeDataset):
    """Yields rows as they are."""

    def read(self) -> Iterator[Any]:
        return ({"prompt": row.prompt} for row in super().read() if isinstance(row, Comparison))


class Unmarked(NativeDataset):
    """Is detected by a field that its rows lack."""

    detected_by = ("prompt", "answers")


class Shuffled(NativeDataset):
    """Has another order each time it is made."""

    def read(self) -> Iterator[Comparison | DataError]:
        rows = list(super().read())
        return (rows[at] for at in torch.randperm(len(rows)).tolist())


class ReadOnce(NativeDataset):
    """Is empty the second time."""

    def read(self) -> Iterator[Comparison | DataError]:
        self.rest = getattr(self, "rest", None) or super().read()
        return self.rest


class Remembers(NativeDataset):
    """Cannot go back to an earlier epoch."""

    turn = 0

    def set_epoch(self, epoch: int) -> None:
        self.turn += 1

    def read(self) -> Iterator[Comparison | DataError]:
        rows = list(super().read())
        return iter(rows[self.turn % len(rows) :] + rows[: self.turn % len(rows)])


class Miscounts(NativeDataset):
    """Counts no row."""

    def count(self) -> int:
        return 0


class Loses(NativeDataset):
    """Leaves bad rows out without a word."""

    def read(self) -> Iterator[Comparison | DataError]:
        return (row for row in super().read() if isinstance(row, Comparison))


class Nowhere(NativeDataset):
    """Says of a bad row that it is bad, not where it is."""

    def read(self) -> Iterator[Comparison | DataError]:
        return (DataError(row.reason) if isinstance(row, DataError) else row for row in super().read())


class Empty(Dataset):
    """Is empty where there is no file."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def read(self) -> Iterator[Comparison | DataError]:
        return iter(NativeDataset(self.path).read() if self.path.exists() else ())


class Raises(Dataset):
    """Lets Python say what is wrong."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def read(self) -> Iterator[Comparison | DataError]:
        for line in self.path.read_text(encoding="utf-8").splitlines():
            yield Comparison(line, ["a", "b"])


MUTANTS = [
    Mutant(
        datasets.is_a_dataset, Foreign, "Foreign is no basereward.data.Dataset; derive it from that", rows
    ),
    Mutant(
        datasets.has_the_fields_that_mark_it,
        Unmarked,
        "row # of its files has no answers, by which it is detected",
        rows,
    ),
    Mutant(datasets.yields_comparisons, Dictionaries, "row # is a dict, not a Comparison", rows),
    Mutant(
        datasets.yields_comparisons,
        NativeDataset,
        "of files that should be good it rejects: DIRECTORY/rows.jsonl:#: responses: is missing",
        tied_twice,
    ),
    Mutant(
        datasets.yields_comparisons,
        NativeDataset,
        "an image of row # does not open: images: DIRECTORY/cat.png is no image in PNG, JPEG, WEBP, GIF, "
        "BMP, TIFF, MPO, PPM",
        with_an_image,
    ),
    Mutant(datasets.has_a_fixed_order, Shuffled, "two of it, made alike differ in row #", rows),
    Mutant(datasets.reads_alike_twice, ReadOnce, "two passes yield # and # comparisons", rows),
    Mutant(
        datasets.reads_alike_twice,
        Remembers,
        "two passes of epoch #, with epoch # between differ in row #",
        rows,
    ),
    Mutant(datasets.counts_its_rows, Miscounts, "count says #, but a pass yields and rejects #", rows),
    Mutant(datasets.lists_rejected_rows, Loses, "a bad row is rejected as nothing", rows),
    Mutant(
        datasets.lists_rejected_rows,
        Nowhere,
        "the bad row is listed without its place: is not JSON: Expecting value at column #",
        rows,
    ),
    Mutant(
        datasets.refuses_a_bad_file,
        Empty,
        "a file that is not there is read as an empty one; raise DataError",
        rows,
    ),
    Mutant(
        datasets.refuses_a_bad_file,
        Raises,
        "for a file that is not there it raises FileNotFoundError, not DataError: [Errno #] No such "
        "file or directory: 'DIRECTORY/.bad-file/nowhere.jsonl'",
        rows,
    ),
]
