"""Tables of rewards: a Parquet file with one row for each row of an input, and their provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from basereward._version import __version__
from basereward.errors import ConfigError, DataError
from basereward.scoring.files import ScoredRow
from basereward.storage.atomic import replace_file
from basereward.storage.reading import opened, parse_json

FORMAT = 1
KEY = b"basereward"
"""The key of the provenance in a file's metadata."""

ROWS_PER_GROUP = 8192

MAX_REASONS = 50
"""Kinds of errors that are counted by themselves: reasons may name files, each its own."""

OTHER_REASONS = "other reasons"


def write_table(rows: Iterable[ScoredRow], path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write a table aside, put it on disk, and give it its name.

    Columns: `row` int64, counted from 1; `id` string, null where there is none; `rewards` list of float32,
    null where there is an error; `error` string, null where there are rewards.

    Args:
        rows: In order.
        path: The file; one that is there is replaced.
        facts: What the rewards depend on, for its metadata.

    Returns:
        All that the metadata says: the facts, and what `Summary.of` needs.

    Raises:
        DataError: What the rows raise; nothing is left then.
        OSError: When the disk refuses it; nothing is left then.
    """
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(
        [
            ("row", pyarrow.int64()),
            ("id", pyarrow.string()),
            ("rewards", pyarrow.list_(pyarrow.float32())),
            ("error", pyarrow.string()),
        ]
    )
    summary = Summary()
    waiting = iter(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replace_file(path) as aside,  # two workers may be sent to make one table
        pyarrow.parquet.ParquetWriter(aside, schema, compression="zstd") as writer,
    ):
        while group := list(islice(waiting, ROWS_PER_GROUP)):
            summary.add(group)
            errors = [row.result if isinstance(row.result, DataError) else None for row in group]
            columns = {
                "row": [row.line for row in group],
                "id": [None if row.id is None else str(row.id) for row in group],
                "rewards": [
                    row.result if error is None else None for row, error in zip(group, errors, strict=True)
                ],
                "error": [None if error is None else str(error) for error in errors],
            }
            writer.write_table(pyarrow.table(columns, schema=schema))
        record = {"format": FORMAT, "version": __version__, **facts, **summary.to_dict()}
        writer.add_key_value_metadata({KEY: json.dumps(record)})
    return record


def read_facts(path: Path) -> dict[str, Any] | None:
    """Return what a table's metadata says; None where there is no table that is whole."""
    import pyarrow
    import pyarrow.parquet

    if not os.path.lexists(path):
        return None
    try:
        with opened(path) as file:
            metadata = pyarrow.parquet.read_metadata(file).metadata or {}
        record: dict[str, Any] = parse_json(metadata[KEY].decode("utf-8"))
        if not isinstance(record["model"], str) or not {"bytes", "sha256"} <= record["source"].keys():
            raise ValueError("it doesn't say what it is of")
        Summary().add_facts(record)
    except (
        OSError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        pyarrow.ArrowException,
    ) as error:
        raise ConfigError(f"{path} is no table of rewards; --overwrite replaces it") from error
    return record


class Summary:
    """Counts and moments of rewards, which add up over tables."""

    def __init__(self) -> None:
        self.num_rows = self.num_rewards = 0
        self.total = self.squares = 0.0
        self.low, self.high = float("inf"), float("-inf")
        self.errors: dict[str, int] = {}

    def add(self, rows: Iterable[ScoredRow]) -> None:
        """Add rows."""
        for row in rows:
            self.num_rows += 1
            if isinstance(row.result, DataError):
                self._count(row.result.reason, 1)
                continue
            for reward in row.result:
                self.num_rewards += 1
                self.total += reward
                self.squares += reward * reward
                self.low, self.high = min(self.low, reward), max(self.high, reward)

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Add what a table's metadata says."""
        self.num_rows += facts["num_rows"]
        self.num_rewards += facts["num_rewards"]
        self.total += facts["total"]
        self.squares += facts["squares"]
        if facts["num_rewards"]:
            self.low, self.high = min(self.low, facts["low"]), max(self.high, facts["high"])
        for reason, count in facts["errors"].items():
            self._count(reason, count)

    def _count(self, reason: str, count: int) -> None:
        reasons = {OTHER_REASONS, *self.errors}
        if reason not in reasons and len(reasons) > MAX_REASONS:
            reason = OTHER_REASONS
        self.errors[reason] = self.errors.get(reason, 0) + count

    def to_dict(self) -> dict[str, Any]:
        """Return what `add_facts` reads; low and high are null where there is no reward."""
        return {
            "num_rows": self.num_rows,
            "num_rewards": self.num_rewards,
            "total": self.total,
            "squares": self.squares,
            "low": self.low if self.num_rewards else None,
            "high": self.high if self.num_rewards else None,
            "errors": dict(sorted(self.errors.items())),
        }

    def report(self) -> dict[str, Any]:
        """Return what people ask for: rows, errors by reason, mean and deviation of the rewards."""
        mean = self.total / self.num_rewards if self.num_rewards else None
        deviation = None
        if mean is not None:
            deviation = max(self.squares / self.num_rewards - mean * mean, 0.0) ** 0.5
        return {
            "num_rows": self.num_rows,
            "num_errors": sum(self.errors.values()),
            "errors": dict(sorted(self.errors.items(), key=lambda item: (-item[1], item[0]))),
            "num_rewards": self.num_rewards,
            "reward_mean": mean,
            "reward_std": deviation,
            "reward_min": self.low if self.num_rewards else None,
            "reward_max": self.high if self.num_rewards else None,
        }
