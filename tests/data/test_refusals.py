"""Data sets most of whose rows are refused say so at once, and none yields nothing without a word."""

from __future__ import annotations

import json
import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from basereward import Comparison, DataError
from basereward.data import read_comparisons
from basereward.data.refusals import reasons_of, watched
from basereward.errors import RefusedRowsWarning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = Comparison("p", ["a", "b"])


def bad(line: int, reason: str = "is odd") -> DataError:
    return DataError(reason, file="rows.jsonl", line=line)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_of_which_no_row_can_be_used_says_so_with_the_reason(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path = write(tmp_path / "rows.jsonl", *({**row, "images": [f"{number}.png"]} for number in range(3)))
    with pytest.warns(RefusedRowsWarning) as told:
        assert list(read_comparisons(path)) == []
    assert [str(warning.message) for warning in told] == [
        f"3 of 3 rows can't be used (100%): 3 as {path}:1: images[0]: there is no file {tmp_path}/0.png; "
        "images that lie elsewhere: option media_dir"
    ]


def test_a_data_set_without_rows_says_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("")
    with pytest.warns(RefusedRowsWarning, match=r"rows\.jsonl: there are no rows$"):
        assert list(read_comparisons(path, format="trl")) == []


def test_it_is_said_at_the_hundredth_row_of_a_long_file() -> None:
    def rows() -> Iterator[Comparison | DataError]:
        yield from (GOOD if number < 40 else bad(number) for number in range(100))
        raise AssertionError("the 101st row was read before anything was said")

    with pytest.warns(RefusedRowsWarning, match=r"^60 of the first 100 rows can't be used \(60%\): 60 as "):
        list(islice(watched(rows()), 100))


@pytest.mark.parametrize(
    ("num_good", "num_bad", "is_told"),
    [(1, 8, False), (5, 5, False), (4, 6, True), (50, 50, False), (0, 1, True)],
)
def test_few_bad_rows_are_no_matter(num_good: int, num_bad: int, is_told: bool) -> None:
    rows = [*[GOOD] * num_good, *map(bad, range(num_bad))]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert list(watched(rows)) == rows
    assert bool(told) == is_told


def test_reasons_are_counted_whatever_files_and_numbers_they_name() -> None:
    errors = [bad(7, "is odd"), *(bad(line, f"there is no file /a/{line}.png") for line in (1, 2))]
    first = "2 as rows.jsonl:1: there is no file /a/1.png; 1 as rows.jsonl:7: is odd"
    assert reasons_of(errors) == first
    assert reasons_of(errors, num=1) == "2 as rows.jsonl:1: there is no file /a/1.png; 1 other reasons"
