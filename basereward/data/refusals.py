"""A warning where most rows of a data set are refused, as soon as that is seen."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from basereward.errors import DataError, RefusedRowsWarning

T = TypeVar("T")

NUM_ROWS = 100
"""Rows after which a data set is judged, and the most refused rows that are kept for it."""

MIN_ROWS = 10
"""Rows below which a data set is warned of only where none can be used."""

MAX_SHARE = 0.5
"""Share of the rows above which they are most."""

NUM_REASONS = 3

SPECIFIC = re.compile(r"\S*[/\\'\"\d]\S*")
"""Words of a reason that differ from row to row: paths, quoted values and numbers."""


def watched(rows: Iterable[T | DataError], files: Sequence[Path] = ()) -> Iterator[T | DataError]:
    """Yield rows as they come, and warn once where most of them, or all, are refused.

    Args:
        rows: The rows of a data set, and errors in the places of refused ones.
        files: The files that are read, for the warning of a data set without rows.
    """
    num_rows = num_refused = 0
    first: list[DataError] = []
    is_told = False
    for row in rows:
        num_rows += 1
        if isinstance(row, DataError):
            num_refused += 1
            if len(first) < NUM_ROWS:
                first.append(row)
        if num_rows == NUM_ROWS and num_refused > MAX_SHARE * num_rows:
            is_told = True
            _warn(f"{num_refused:,} of the first {num_rows:,} rows", num_refused / num_rows, first)
        yield row
    if num_rows == 0:
        named = ", ".join(map(str, files)) or "the data set"
        warnings.warn(f"{named}: there are no rows", RefusedRowsWarning, stacklevel=2)
    elif num_refused == num_rows or (
        not is_told and MIN_ROWS <= num_rows < NUM_ROWS and num_refused > MAX_SHARE * num_rows
    ):
        _warn(f"{num_refused:,} of {num_rows:,} rows", num_refused / num_rows, first)


def reasons_of(errors: Iterable[DataError], num: int = NUM_REASONS) -> str:
    """Return the commonest reasons, each with its number of rows and the first of them."""
    groups: dict[tuple[str, str], list[DataError]] = {}
    for error in errors:
        field = SPECIFIC.sub("", error.field or "")
        groups.setdefault((field, SPECIFIC.sub("", error.reason)), []).append(error)
    commonest = sorted(groups.values(), key=len, reverse=True)
    texts = [f"{len(group):,} as {group[0]}" for group in commonest[:num]]
    if others := len(commonest) - num if len(commonest) > num else 0:
        texts.append(f"{others:,} other reasons")
    return "; ".join(texts)


def _warn(counted: str, share: float, errors: Sequence[DataError]) -> None:
    warnings.warn(
        f"{counted} can't be used ({share:.0%}): {reasons_of(errors)}", RefusedRowsWarning, stacklevel=3
    )
