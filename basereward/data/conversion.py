"""Write rows as a curated file of our own format, and list every row that is left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from basereward.comparison import Comparison
from basereward.data.curation import Curation
from basereward.data.writing import Writer, rejected_record
from basereward.errors import DataError

REPORT_FILE = "report.json"
"""What a writer's `NAME-files` says of the rows."""


@dataclass
class Outcome:
    """Counts of the rows by their outcome.

    Attributes:
        num_in: Rows that were read.
        num_out: Rows that were kept.
        num_rejected: Rows that could not be read, or written.
        num_dropped: Rows that a step of the curation dropped.
        first: The first row that was rejected.
    """

    num_in: int = 0
    num_out: int = 0
    num_rejected: int = 0
    num_dropped: int = 0
    first: DataError | None = None

    def to_dict(self) -> dict[str, int]:
        """Return the counts."""
        return {name: value for name, value in vars(self).items() if name != "first"}


def convert(
    rows: Iterable[Comparison | DataError],
    curation: Curation,
    writer: Writer | None,
    *,
    directory: Path | None = None,
    each: Callable[[Comparison | DataError], None] = lambda row: None,
) -> Outcome:
    """Curate rows and write what is left.

    `rejected.jsonl` lists all rows that were left out with file, line and reason, and `report.json` says what
    each step did.

    Args:
        rows: Comparisons, and errors for rows that could not be read.
        curation: The steps; none to convert only.
        writer: Writes the rows that are kept; None to count only.
        directory: Gets the two reports, if any does; None for the writer's `NAME-files`.
        each: Called with each row as it was written, or with the error that left it out.
    """
    outcome = Outcome()
    if directory is None and writer is not None:
        directory = writer.files_aside
    curation.reset()
    with (directory / "rejected.jsonl").open("wb") if directory else nullcontext() as listing:

        def reject(error: DataError, id: str) -> None:
            each(error)
            if listing is not None:
                record = json.dumps(rejected_record(error, id=id), ensure_ascii=False)
                listing.write(record.encode("utf-8", "backslashreplace") + b"\n")

        for row in rows:
            outcome.num_in += 1
            result: Comparison | DataError = row if isinstance(row, DataError) else curation(row)
            if isinstance(row, Comparison) and isinstance(result, DataError):
                outcome.num_dropped += 1
                reject(row.place.locate(result), row.id)
                continue
            id = row.id if isinstance(row, Comparison) else ""
            if isinstance(result, Comparison) and writer is not None:
                try:
                    writer.write(result)
                except DataError as error:
                    result = result.place.locate(error)
            if isinstance(result, DataError):
                outcome.num_rejected += 1
                outcome.first = outcome.first or result
                reject(result, id)
            else:
                outcome.num_out += 1
                each(result)
    if directory is not None:
        report = {**outcome.to_dict(), "steps": curation.report()}
        text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
        (directory / REPORT_FILE).write_text(text, encoding="utf-8")
    return outcome
