"""Checks of a dataset's promises: the same comparisons every time, and a reason for each rejected row."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

from basereward.comparison import Comparison
from basereward.data import Dataset, FileDataset
from basereward.errors import DataError, RefusedRowsWarning
from basereward.testing.files import GARBAGE, path_of, with_a_bad_row
from basereward.testing.subject import Subject, checks_of, require


def is_a_dataset(subject: Subject) -> None:
    """It is a `basereward.data.Dataset`."""
    require(
        issubclass(subject.cls, Dataset),
        f"{subject.cls.__name__} is no basereward.data.Dataset; derive it from that",
    )


def yields_comparisons(subject: Subject) -> None:
    """Its files have at least one comparison, no bad row, and images that open."""
    dataset = subject.build()
    rows = list(dataset)
    require(rows, f"it yields nothing; rejected: {_errors(dataset) or 'nothing'}")
    for number, row in enumerate(rows):
        require(isinstance(row, Comparison), f"row {number} is a {type(row).__name__}, not a Comparison")
    require(not dataset.rejected, f"of files that should be good it rejects: {_errors(dataset)}")
    for number, row in enumerate(rows):
        for image in row.images:
            try:
                image.open()
            except DataError as error:
                require(False, f"an image of row {number} does not open: {error}")


def has_the_fields_that_mark_it(subject: Subject) -> None:
    """The rows of its files have the fields of `detected_by`."""
    dataset = subject.build()
    fields = vars(subject.cls).get("detected_by", ())  # not inherited
    for row, _, line in dataset.rows() if isinstance(dataset, FileDataset) else ():
        missing = [field for field in fields if isinstance(row, dict) and field not in row]
        require(not missing, f"row {line} of its files has no {', '.join(missing)}, by which it is detected")


def has_a_fixed_order(subject: Subject) -> None:
    """Two of it, made alike, yield the same comparisons in the same order."""
    first, second = list(subject.build(seed=0)), list(subject.build(seed=1))
    _require_same(second, first, "two of it, made alike")


def reads_alike_twice(subject: Subject) -> None:
    """A second pass, and one after another epoch, yields what the first did."""
    dataset = subject.build()
    first = list(dataset)
    _require_same(list(dataset), first, "two passes")
    if dataset.varies_by_epoch:
        dataset.set_epoch(0)
        first = list(dataset)
        dataset.set_epoch(1)
        list(dataset)
        dataset.set_epoch(0)
        _require_same(list(dataset), first, "two passes of epoch 0, with epoch 1 between")


def counts_its_rows(subject: Subject) -> None:
    """`count`, and `num_rows` where it is known, fit what a pass yields and rejects."""
    dataset = subject.build()
    num = len(list(dataset)) + len(dataset.rejected)
    require(dataset.count() == num, f"count says {dataset.count()}, but a pass yields and rejects {num}")
    with suppress(TypeError):  # of a data set whose length isn't known, or that has none
        require(len(dataset) == num, f"its length is {len(dataset)}, but a pass yields and rejects {num}")
    about = dataset.num_rows
    require(about is None or about >= 0, f"num_rows is {about}")


def lists_rejected_rows(subject: Subject) -> None:
    """A bad row is listed with its place, costs no other row, and is raised if asked for."""
    good = list(subject.build())
    dataset = subject.build(path=str(with_a_bad_row(subject)))
    rows = list(dataset)
    require(len(rows) == len(good), f"a bad row after {len(good)} comparisons leaves {len(rows)} of them")
    require(len(dataset.rejected) == 1, f"a bad row is rejected as {_errors(dataset) or 'nothing'}")
    (error,) = dataset.rejected
    require(isinstance(error, DataError), f"rejected holds a {type(error).__name__}, not a DataError")
    require(
        error.file is not None and error.line is not None, f"the bad row is listed without its place: {error}"
    )
    list(dataset)
    require(len(dataset.rejected) == 1, "a second pass adds to the rejected rows of the first")
    dataset.on_bad_row = "fail"
    try:
        list(dataset)
    except DataError:
        return
    require(False, 'with on_bad_row = "fail" a bad row is not raised')


def refuses_a_bad_file(subject: Subject) -> None:
    """A file that isn't there, or that is no such file, is a `DataError` and never silently empty."""
    path = path_of(subject)
    directory = subject.fresh_directory("bad-file")
    missing = directory / f"nowhere{path.suffix}"
    _require_data_error(subject, missing, "is not there", mentions=str(missing))
    if path.is_dir():
        return
    garbage = directory / path.name
    garbage.write_bytes(GARBAGE)
    _require_data_error(subject, garbage, "is garbage")


def _require_data_error(subject: Subject, path: Any, what: str, mentions: str = "") -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RefusedRowsWarning)  # that all are refused is what is asked for
            dataset = subject.build(path=str(path))
            rows = list(dataset.comparisons() if subject.kind == "benchmark" else dataset)
    except DataError as error:
        require(mentions in str(error), f"the error for a file that {what} doesn't name it: {error}")
        return
    except Exception as error:
        require(False, f"for a file that {what} it raises {type(error).__name__}, not DataError: {error}")
    require(not rows, f"of a file that {what} it makes {len(rows)} comparisons")
    require(
        isinstance(dataset, Dataset) and dataset.rejected and not mentions,
        f"a file that {what} is read as an empty one; raise DataError",
    )


def _require_same(rows: list[Comparison], expected: list[Comparison], what: str) -> None:
    require(len(rows) == len(expected), f"{what} yield {len(expected)} and {len(rows)} comparisons")
    for number, (one, other) in enumerate(zip(expected, rows, strict=True)):
        require(one == other, f"{what} differ in row {number}")


def _errors(dataset: Any) -> str:
    return "; ".join(map(str, dataset.rejected))


CHECKS = checks_of(__name__)
